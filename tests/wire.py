"""What travels: data sets as bytes, a CT image that is small, PDUs put together by hand (PS3.8 section 9.3)."""

from __future__ import annotations

import socket
import struct
import zlib
from typing import Any

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from tests import builders

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = str(ExplicitVRLittleEndian)
IMPLICIT = str(ImplicitVRLittleEndian)
DEFLATED = str(DeflatedExplicitVRLittleEndian)
BIG_ENDIAN = str(ExplicitVRBigEndian)


def ct(number: int = 0, *, series: str = "series", study: str = "study", **attributes: Any) -> Dataset:
    """A CT image of 4 x 4 pixels; `attributes` are set over it (None deletes)."""
    dataset = builders.header(study=study, series=series, instance=number, series_number=1)
    dataset.InstanceNumber = number + 1
    dataset.ImagePositionPatient = [0, 0, number * 5]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [1, 1]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows = dataset.Columns = 4
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.add_new("PixelData", "OW", bytes(32))
    for keyword, value in attributes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def encoded(dataset: Dataset, transfer_syntax: str = EXPLICIT) -> bytes:
    """The bytes of a data set; encapsulated syntaxes differ only in their pixel data, which is left as it is."""
    buffer = DicomBytesIO()
    buffer.is_implicit_VR = transfer_syntax == IMPLICIT
    buffer.is_little_endian = transfer_syntax != BIG_ENDIAN
    if UID(transfer_syntax).is_encapsulated:
        dataset["PixelData"].is_undefined_length = True
    write_dataset(buffer, dataset)
    if transfer_syntax != DEFLATED:
        return buffer.getvalue()
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    raw = deflate.compress(buffer.getvalue()) + deflate.flush()
    return raw + bytes(len(raw) % 2)


def element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """One element in Explicit VR Little Endian; `length` may claim anything."""
    claimed = len(value) if length is None else length
    start = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    long = vr in (b"OB", b"OW", b"SQ", b"UN", b"UT")
    return start + (struct.pack("<HL", 0, claimed) if long else struct.pack("<H", claimed & 0xFFFF)) + value


# ---------------------------------------------------------------------- PDUs


def associate_rq(
    calling: str = "RAW",
    called: str = "TRIAGE",
    abstract_syntax: str = CT,
    transfer_syntax: str = EXPLICIT,
    maximum_length: int = 16_384,
) -> bytes:
    """An A-ASSOCIATE-RQ PDU with one presentation context, number 1."""
    context = struct.pack(">BBBB", 1, 0, 0, 0) + _item(0x30, abstract_syntax.encode())
    context += _item(0x40, transfer_syntax.encode())
    user = _item(0x51, struct.pack(">L", maximum_length)) + _item(0x52, b"2.25.1")
    body = struct.pack(">HH16s16s32x", 1, 0, called.ljust(16).encode(), calling.ljust(16).encode())
    body += _item(0x10, b"1.2.840.10008.3.1.1.1") + _item(0x20, context) + _item(0x50, user)
    return pdu(0x01, body)


def pdu(kind: int, body: bytes, length: int | None = None) -> bytes:
    """A PDU; `length` may claim anything."""
    return struct.pack(">BBL", kind, 0, len(body) if length is None else length) + body


def p_data(fragment: bytes, *, command: bool, last: bool) -> bytes:
    """A P-DATA-TF PDU with one fragment on context 1."""
    return pdu(0x04, struct.pack(">LBB", len(fragment) + 2, 1, (1 if command else 0) | (2 if last else 0)) + fragment)


def store_rq(sop_instance_uid: str, sop_class_uid: str = CT, message: int = 1, *, data_set: bool = True) -> bytes:
    """The command set of a C-STORE request, by default one that announces a data set (PS3.7 section 9.3.1.1)."""
    command = Dataset()
    command.AffectedSOPClassUID = sop_class_uid
    command.CommandField = 0x0001
    command.MessageID = message
    command.Priority = 0
    command.CommandDataSetType = 1 if data_set else 0x0101
    command.AffectedSOPInstanceUID = sop_instance_uid
    body = encoded(command, IMPLICIT)
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


RELEASE_RQ = pdu(0x05, bytes(4))


def connected(port: int, timeout_s: float = 10.0) -> socket.socket:
    """A plain TCP connection to the receiver."""
    return socket.create_connection(("127.0.0.1", port), timeout=timeout_s)


def associated(port: int) -> socket.socket:
    """A connection on which an association for CT in Explicit VR Little Endian stands."""
    connection = connected(port)
    connection.sendall(associate_rq())
    answer = read_pdu(connection)
    assert answer[0] == 0x02, f"not an A-ASSOCIATE-AC: {answer[:16].hex()}"
    return connection


def read_pdu(connection: socket.socket) -> bytes:
    """The next PDU, empty when the peer closes or resets the connection."""
    try:
        start = _read(connection, 6)
        return start + _read(connection, struct.unpack(">L", start[2:6])[0]) if len(start) == 6 else b""
    except ConnectionError:
        return b""


def _read(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        piece = connection.recv(length - len(data))
        if not piece:
            break
        data += piece
    return data


def _item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(body)) + body
