"""The program of a decoder's child process: paths of DICOM files in, their decoded pixel data out.

Reads one path a line from standard input and answers each with the number of bytes (8 bytes, big-endian; 0 when GDCM
cannot decode it) and the bytes. Imports nothing but GDCM, so that it starts quickly.
"""

from __future__ import annotations

import os
import struct
import sys

import gdcm  # type: ignore[import-untyped]  # has no type information


def decoded(path: str) -> bytes:
    """All frames of a file as stored values; empty when GDCM cannot decode them."""
    reader = gdcm.ImageReader()
    reader.SetFileName(path)
    if not reader.Read():
        return b""
    buffer = reader.GetImage().GetBuffer()
    # the wrapper hands bytes out as a str, with the bytes that are no text as surrogates
    return buffer.encode("utf-8", "surrogateescape") if isinstance(buffer, str) else bytes(buffer or b"")


def main() -> None:
    """Answer until standard input ends."""
    for line in sys.stdin.buffer:
        try:
            answer = decoded(os.fsdecode(line.removesuffix(b"\n")))
        except (RuntimeError, ValueError, TypeError):
            answer = b""
        sys.stdout.buffer.write(struct.pack(">Q", len(answer)))
        sys.stdout.buffer.write(answer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
