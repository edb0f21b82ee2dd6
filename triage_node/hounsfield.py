"""Stored pixel values -> Hounsfield units, one frame at a time.

Everything that the attributes say about a stored value (bits stored, sign, padding, slope, intercept) goes into one
table with an entry for every value that a cell can hold; a frame is then one look-up, straight into the volume.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from triage_node.attributes import TRANSIENT_ERRNOS, UNREADABLE, opened, refuse
from triage_node.jpeg import JPEG_SYNTAXES, JpegDecoders, JpegFailure
from triage_node.study import Hounsfield, Reason

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from triage_node.headers import Cells, Encoding, Frame

AIR_HU = -1024  # what padding becomes: nothing was measured there, and nothing is taken for tissue

# Which of pydicom's decoders reads what. GDCM is left out: damaged JPEG, JPEG-LS and JPEG 2000 images make it abort
# the process it runs in. What it alone can read is in triage_node.jpeg.
DECODERS: dict[str, str] = {
    "1.2.840.10008.1.2.4.50": "pillow",  # JPEG Baseline
    "1.2.840.10008.1.2.4.80": "pyjpegls",  # JPEG-LS Lossless
    "1.2.840.10008.1.2.4.81": "pyjpegls",  # JPEG-LS Near-Lossless
    "1.2.840.10008.1.2.4.90": "pylibjpeg",  # JPEG 2000 Lossless
    "1.2.840.10008.1.2.4.91": "pylibjpeg",  # JPEG 2000
    "1.2.840.10008.1.2.4.201": "pylibjpeg",  # HTJ2K Lossless
    "1.2.840.10008.1.2.4.202": "pylibjpeg",  # HTJ2K Lossless RPCL
    "1.2.840.10008.1.2.4.203": "pylibjpeg",  # HTJ2K
    "1.2.840.10008.1.2.5": "pydicom",  # RLE Lossless
}

StoredCells = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


def decode(frames: Sequence[Frame], targets: Sequence[Hounsfield], decoders: JpegDecoders) -> None:
    """Fill each target [y, x] with the Hounsfield units of its frame; all frames are of one instance.

    Raises Refused UNDECODABLE, which names the image and the transfer syntax.
    """
    frame = frames[0]
    cells = frame.cells
    try:
        with opened(frame.instance) as file:
            source = _source(cells, frame.instance.path, file, decoders)
            for frame, target in zip(frames, targets, strict=True):
                stored = source(frame.number or 1)
                if stored.size != target.size or stored.itemsize * 8 != cells.encoding.bits_allocated:
                    raise _WrongLength(f"{stored.size} pixels of {stored.itemsize * 8} bits came out of it")
                # no index is out of the table; mode "clip" saves numpy a buffered copy of the whole frame
                np.take(
                    _table(cells.encoding, frame.slope, frame.intercept),
                    stored.reshape(target.shape),
                    out=target,
                    mode="clip",
                )
    except UNREADABLE as error:
        if isinstance(error, OSError) and error.errno in TRANSIENT_ERRNOS:
            raise
        syntax = UID(cells.transfer_syntax_uid).name
        place = f"{frame.name} at {frame.position_mm[2]:.1f} mm"
        refuse(Reason.UNDECODABLE, f"the pixel data of {place} cannot be decoded ({syntax}): {_why(error)}")


@lru_cache(maxsize=64)
def _table(encoding: Encoding, slope: float, intercept: float) -> Hounsfield:
    """[2 ** bits_allocated] Hounsfield units of every cell, rounded, within int16."""
    bits_allocated, bits_stored = encoding.bits_allocated, encoding.bits_stored
    cells = np.arange(2**bits_allocated, dtype=np.int32)
    # PS3.5 section 8.1.1: bits outside of Bits Stored may hold anything, once even overlays
    values = (cells >> (encoding.high_bit + 1 - bits_stored)) & (2**bits_stored - 1)
    if encoding.signed:
        values = np.where(values >= 2 ** (bits_stored - 1), values - 2**bits_stored, values)
    units: Hounsfield = np.clip(np.rint(values * slope + intercept), -32768, 32767).astype(np.int16)
    if encoding.padding is not None:
        least, greatest = encoding.padding
        units[(values >= least) & (values <= greatest)] = AIR_HU
        # some vendors pad with a value that Bits Stored cannot hold: the whole cell has it
        whole = (
            np.where(cells >= 2 ** (bits_allocated - 1), cells - 2**bits_allocated, cells) if encoding.signed else cells
        )
        if not (values.min() <= least and greatest <= values.max()):
            units[(whole >= least) & (whole <= greatest)] = AIR_HU
    units.setflags(write=False)
    return units


def _source(cells: Cells, path: Path, file: mmap.mmap, decoders: JpegDecoders) -> Callable[[int], StoredCells]:
    """By what a frame's cells are had from its number."""
    if cells.offset is not None:
        return _native(cells, file)
    if cells.transfer_syntax_uid in JPEG_SYNTAXES:
        return _jpeg(cells, path, decoders)
    return _encoded(cells, file)


class _WrongLength(ValueError):
    """The pixel data are shorter or longer than the attributes say."""


def _check_length(cells: Cells, there: int) -> None:
    whole = cells.frame_bytes * cells.frames
    # PS3.5 section 8.1.1: an odd number of bytes is padded to an even one
    if there not in (whole, whole + whole % 2):
        raise _WrongLength(f"{there} bytes instead of {whole}")


def _native(cells: Cells, file: mmap.mmap) -> Callable[[int], StoredCells]:
    """Uncompressed little-endian pixel data, read in place."""
    offset = cells.offset or 0
    dtype = np.dtype(f"<u{cells.encoding.bits_allocated // 8}")
    _check_length(cells, cells.length)
    _check_length(cells, min(cells.length, len(file) - offset))

    def frame(number: int) -> StoredCells:
        file.seek(offset + (number - 1) * cells.frame_bytes)
        return np.frombuffer(file.read(cells.frame_bytes), dtype=dtype)

    return frame


def _encoded(cells: Cells, file: mmap.mmap) -> Callable[[int], StoredCells]:
    """Everything else, through pydicom's decoders."""
    decoder = get_decoder(UID(cells.transfer_syntax_uid))
    plugin = DECODERS.get(cells.transfer_syntax_uid, "")
    dataset = pydicom.dcmread(cast("BinaryIO", file))
    if not UID(cells.transfer_syntax_uid).is_encapsulated:  # deflated or big-endian
        _check_length(cells, len(dataset.get("PixelData") or b""))

    def frame(number: int) -> StoredCells:
        array, _ = decoder.as_array(dataset, index=number - 1, raw=True, decoding_plugin=plugin)
        # a big-endian array keeps its byte order, which a mere view would not
        stored: StoredCells = array.astype(array.dtype.newbyteorder("="), copy=False).view(f"u{array.itemsize}")
        return stored

    return frame


def _jpeg(cells: Cells, path: Path, decoders: JpegDecoders) -> Callable[[int], StoredCells]:
    """The JPEG syntaxes that GDCM alone can read."""
    with decoders.one() as decoder:
        whole = decoder.stored(path, cells.frame_bytes * cells.frames)

    def frame(number: int) -> StoredCells:
        stored: StoredCells = whole[(number - 1) * cells.frame_bytes : number * cells.frame_bytes]
        return stored.view(f"<u{cells.encoding.bits_allocated // 8}")

    return frame


def _why(error: Exception) -> str:
    """Our own words where they are ours; a library's are left out, since they may quote the header."""
    if isinstance(error, (_WrongLength, JpegFailure)):
        return str(error)
    return "no decoder for this syntax" if isinstance(error, NotImplementedError) else type(error).__name__
