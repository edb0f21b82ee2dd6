"""JPEG lossless and 12-bit JPEG, decoded by GDCM in child processes.

GDCM is the one freely licensed decoder of these, and a damaged image can make it abort its process (fuzzed: every
second run of 40 damaged images). A child that dies is a coded refusal; an analyst that dies is a study that is
tried again. Several children also decode several slices at a time, which threads cannot: the wrapper holds the
interpreter's lock.
"""

from __future__ import annotations

import os
import queue
import struct
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self, cast

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterator

# Extended (Process 2 and 4); Spectral Selection (6 and 8) and Full Progression (10 and 12), retired; Lossless (14)
# and Lossless with Selection Value 1.
JPEG_SYNTAXES = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (51, 53, 55, 57, 70))
LONGEST_ANSWER_S = 60.0  # one file; 300 frames of 512 x 512 in one object take about 2 s
MOST_CHILDREN = 4

_CHILD = Path(__file__).with_name("jpeg_child.py")


class JpegFailure(ValueError):
    """A file's pixel data cannot be decoded; the message says how the decoder failed."""


class JpegDecoder:
    """One child process at a time, started when it is first needed and again after it has died."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def stored(self, path: Path, expected_bytes: int) -> npt.NDArray[np.uint8]:
        """The bytes of all frames of a file, as stored values.

        Raises JpegFailure, also when there are more or fewer than expected.
        """
        child = self._running()
        watchdog = threading.Timer(LONGEST_ANSWER_S, child.kill)
        watchdog.start()
        try:
            cast("IO[bytes]", child.stdin).write(os.fsencode(path.resolve()) + b"\n")
            cast("IO[bytes]", child.stdin).flush()
            answer = cast("IO[bytes]", child.stdout)
            size = answer.read(8)
            if len(size) < 8:
                raise JpegFailure("the decoder died of it")
            (length,) = struct.unpack(">Q", size)
            if length != expected_bytes:
                self.close()  # rather than read what nobody wants
                raise JpegFailure(f"{length} bytes instead of {expected_bytes}")
            data = bytearray(length)
            if cast("int", answer.readinto(data)) < length:  # type: ignore[attr-defined]  # a BufferedReader
                raise JpegFailure("the decoder died of it")
        except BrokenPipeError as error:
            raise JpegFailure("the decoder died of it") from error
        finally:
            watchdog.cancel()
        return np.frombuffer(data, dtype=np.uint8)

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is not None:
            self.close()
        if self._child is None:
            self._child = subprocess.Popen(
                [sys.executable, "-I", str(_CHILD)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # libjpeg's remarks
            )
        return self._child


class JpegDecoders:
    """As many decoders as there are cores, lent one at a time; a context that ends them all."""

    def __init__(self) -> None:
        self.count = min(MOST_CHILDREN, os.cpu_count() or 1)
        self._decoders = [JpegDecoder() for _ in range(self.count)]
        self._free: queue.LifoQueue[JpegDecoder] = queue.LifoQueue()
        for decoder in self._decoders:
            self._free.put(decoder)

    @contextmanager
    def one(self) -> Iterator[JpegDecoder]:
        """A decoder that nobody else uses meanwhile; the one used last, so that a single slice starts one child."""
        decoder = self._free.get()
        try:
            yield decoder
        finally:
            self._free.put(decoder)

    def __enter__(self) -> Self:
        """Start nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """End every child."""
        for decoder in self._decoders:
            decoder.close()
