"""Pixel data of the phantom in compressed transfer syntaxes: by pydicom, and by GDCM where pydicom has no encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gdcm  # type: ignore[import-untyped]  # SWIG module without types
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

NATIVE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
PYDICOM_SYNTAXES = (JPEG2000Lossless, RLELossless)
GDCM_SYNTAX = {
    JPEGLosslessSV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    JPEGLSLossless: gdcm.TransferSyntax.JPEGLSLossless,
}


def compress(ds: FileDataset, transfer_syntax: str) -> None:
    """Bring an uncompressed single-frame or multi-frame image into another transfer syntax, in place."""
    if transfer_syntax in PYDICOM_SYNTAXES:
        ds.compress(transfer_syntax, generate_instance_uid=False)
        return
    if transfer_syntax not in NATIVE:
        frame_bytes = int(ds.Rows) * int(ds.Columns) * int(ds.BitsAllocated) // 8
        frames = [ds.PixelData[start : start + frame_bytes] for start in range(0, len(ds.PixelData), frame_bytes)]
        ds.PixelData = encapsulate([_encode(ds, frame, transfer_syntax) for frame in frames])
        ds["PixelData"].VR = "OB"  # PS3.5 A.4: encapsulated pixel data
        ds["PixelData"].is_undefined_length = True
    else:
        ds["PixelData"].VR = "OW"
    ds.file_meta.TransferSyntaxUID = UID(transfer_syntax)


def _encode(ds: FileDataset, frame: bytes, transfer_syntax: str) -> bytes:
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimension(0, int(ds.Columns))
    image.SetDimension(1, int(ds.Rows))
    image.SetPixelFormat(
        gdcm.PixelFormat(1, int(ds.BitsAllocated), int(ds.BitsStored), int(ds.HighBit), int(ds.PixelRepresentation))
    )
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ExplicitVRLittleEndian))
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetByteStringValue(frame)
    image.SetDataElement(element)
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(GDCM_SYNTAX[UID(transfer_syntax)]))
    change.SetInput(image)
    image.thisown = False  # now counted by `change`, which frees it; Python would free it a second time
    if not change.Change():
        raise ValueError(f"GDCM cannot encode {ds.BitsStored}-bit pixels as {transfer_syntax}")
    fragments = change.GetOutput().GetDataElement().GetSequenceOfFragments()
    # one fragment a frame; GDCM hands bytes over as a string with surrogates
    return b"".join(
        fragments.GetFragment(i).GetByteValue().GetBuffer().encode("utf-8", errors="surrogateescape")
        for i in range(fragments.GetNumberOfFragments())
    )
