"""Masks -> frames of a segmentation: their pixels, and what is said of each frame.

A frame for every slice that a segment reaches, segment by segment, slices against their normal. The functional groups
of the frames (PS3.3 C.7.6.16.2) are written here as bytes, since a library takes longer for the groups of 600 frames
than the networks take for the volume.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from jpeg_ls import encode_array

from triage_node.explicit import element, item, sequence

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from triage_node.results.source import Slice, Source
    from triage_node.study import Mask

    MaskOf = Callable[[int], Mask]  # number of a slice -> mask [y, x]
    Slices = dict[int, npt.NDArray[np.uint8]]  # number of a slice -> its mask as bits


def _code(tag: int, value: str, meaning: str) -> bytes:
    """A code sequence of one item, of the scheme DCM (PS3.3 section 8)."""
    coded = (element(0x00080100, "SH", value), element(0x00080102, "SH", "DCM"), element(0x00080104, "LO", meaning))
    return sequence(tag, item(*coded))


_PURPOSE = _code(0x0040A170, "121322", "Source image for image processing operation")  # CID 7202
_DERIVATION = _code(0x00089215, "113076", "Segmentation")  # CID 7203


def packed(mask_of: MaskOf, depth: int) -> Slices:
    """Slice -> its mask as bits, the first pixel lowest (PS3.5 section 8.1.1), for the slices that have any."""
    found = {}
    for z in range(depth - 1, -1, -1):
        bits = np.packbits(mask_of(z), bitorder="little")
        if bits.any():
            found[z] = bits
    return found


def places(segments: Sequence[Slices]) -> dict[int, int]:
    """Slice -> its place in the dimension of positions, from 1, for the slices that any segment reaches."""
    return {z: place for place, z in enumerate(sorted({z for bits in segments for z in bits}, reverse=True), start=1)}


def pixel_data(frames: Sequence[npt.NDArray[np.uint8]], cells: int) -> bytes:
    """The packed frames one after the other: where a frame does not fill its last byte, the next begins in it."""
    if cells % 8 == 0:
        data = b"".join(frame.tobytes() for frame in frames)
    else:
        pixels = [np.unpackbits(frame, count=cells, bitorder="little") for frame in frames]
        data = np.packbits(np.concatenate(pixels), bitorder="little").tobytes()
    return data + b"\0" * (len(data) % 2)


def labelled(segments: Sequence[Slices], z: int, shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """[y, x] the number of the segment that each pixel of a slice belongs to, from 1; 0 of none."""
    labels = np.zeros(shape, np.uint8)
    for number, bits in enumerate(segments, start=1):
        if z in bits:
            labels |= number * np.unpackbits(bits[z], count=labels.size, bitorder="little").reshape(shape)
    return labels


def jpeg_ls(labels: npt.NDArray[np.uint8]) -> bytes:
    """A frame as a JPEG-LS image, without loss."""
    return bytes(encode_array(labels))


def groups_of(source: Source) -> Callable[[int, tuple[int, ...], int | None], bytes]:
    """A function (slice, dimension index values, segment number or None) -> item of the Per-Frame Functional Groups."""
    derivations: dict[int, bytes] = {}
    places: dict[int, bytes] = {}

    def group(z: int, indices: tuple[int, ...], segment: int | None) -> bytes:
        if z not in places:
            derivations[z] = _derived_from(source.slices[z])
            position = element(0x00200032, "DS", "\\".join(source.slices[z].position))
            places[z] = sequence(0x00209113, item(position))  # Plane Position
        values = element(0x00209157, "UL", struct.pack(f"<{len(indices)}I", *indices))
        content = sequence(0x00209111, item(values))
        if segment is None:
            return item(derivations[z], content, places[z])
        number = element(0x0062000B, "US", struct.pack("<H", segment))
        return item(derivations[z], content, places[z], sequence(0x0062000A, item(number)))

    return group


def _derived_from(slice_: Slice) -> bytes:
    """Derivation Image Sequence (PS3.3 C.7.6.16.2.6): the slice that the frame shows, pixel for pixel."""
    image = [
        element(0x00081150, "UI", slice_.sop_class_uid),
        element(0x00081155, "UI", slice_.sop_instance_uid),
    ]
    if slice_.frame_number is not None:
        image.append(element(0x00081160, "IS", str(slice_.frame_number)))
    image += [element(0x0028135A, "CS", "YES"), _PURPOSE]
    return sequence(0x00089124, item(sequence(0x00082112, item(*image)), _DERIVATION))
