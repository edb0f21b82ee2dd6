"""Attributes of a data set as the bytes that were stored, converted here.

A broken attribute becomes a refusal that names it, never another exception, and no library's opinion of a value
gets between the two. Values themselves stay out of the words: they could name the patient.
"""

from __future__ import annotations

import errno
import math
import mmap
import re
import struct
import warnings
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn, cast

from pydicom.datadict import dictionary_description, tag_for_keyword
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue

from triage_node.errors import Refused
from triage_node.study import Instance, NotAnalysed, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydicom.dataset import Dataset

# What a parser or decoder that is fed garbage raises: none of it is a fault of ours.
# The machine's fault, not the file's: the analysis is tried again instead of blaming the images.
TRANSIENT_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM, errno.ENOSPC})
UNREADABLE = (
    AssertionError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    OverflowError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

# PS3.5 table 6.2-1, DS: no NaN, no infinity, no grouping of digits.
_CODE = re.compile(r"[A-Z0-9_]{0,16}", re.ASCII)
_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)


def refuse(reason: Reason, words: str) -> NoReturn:
    """Raise Refused with this reason."""
    raise Refused(NotAnalysed(reason=reason, words=words))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom's remarks on values off the console: they quote what a header holds, names included."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"pydicom(\..*)?")
        yield


@contextmanager
def opened(instance: Instance) -> Iterator[mmap.mmap]:
    """The bytes of the instance's file: an element that claims gigabytes is read no further than the file's end."""
    with instance.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        yield mapped


def title(keyword: str) -> str:
    """The attribute's name as the standard spells it."""
    return dictionary_description(_tag(keyword))


def items(dataset: Dataset, keyword: str) -> Sequence[Dataset]:
    """The items of a sequence; none when it is absent."""
    return cast("Sequence[Dataset]", dataset[keyword].value or ()) if keyword in dataset else ()


def _tag(keyword: str) -> int:
    return cast("int", tag_for_keyword(keyword))


class Attributes:
    """Values of the attributes of one image, looked up in several data sets, the innermost functional group first."""

    def __init__(self, name: str, *datasets: Dataset) -> None:
        self.name = name  # of the image, for people
        self._datasets = datasets

    def _stored(self, keyword: str) -> tuple[object, bool]:
        """The first value that is not empty, as it was stored, and whether it is little-endian."""
        for dataset in self._datasets:
            element = dataset.get_item(_tag(keyword))
            value = getattr(element, "value", None)
            if value is not None and value not in (b"", ""):
                return value, bool(getattr(element, "is_little_endian", True))
        return None, True

    def text(self, keyword: str) -> str:
        """The stored characters; empty when absent or empty."""
        value, _ = self._stored(keyword)
        if value is None:
            return ""
        if isinstance(value, bytes):
            value = value.decode("latin-1")
        elif isinstance(value, (MultiValue, list, tuple)):
            value = "\\".join(str(part) for part in value)
        return str(value).strip(" \0\r\n\t")

    def code(self, keyword: str) -> str:
        """A code string fit to be shown, "?" when it is none: in a broken header a name may stand in its place."""
        text = self.text(keyword).upper()
        return text if _CODE.fullmatch(text) else "?"

    def identity(self, keyword: str) -> str:
        """Something that differs when the value differs."""
        value, _ = self._stored(keyword)
        return "" if value is None else repr(value)

    def numbers(self, keyword: str, count: int) -> tuple[float, ...] | None:
        """`count` finite decimal numbers; None when absent. Raises Refused when they are anything else."""
        text = self.text(keyword)
        if not text:
            return None
        parts = [part.strip(" \0") for part in text.split("\\")]
        if len(parts) != count:
            self.unusable(keyword, f"the number of its values is {len(parts)}, not {count}")
        if not all(_DECIMAL.fullmatch(part) and math.isfinite(float(part)) for part in parts):
            self.unusable(keyword, "a value is not a finite decimal number")
        return tuple(float(part) for part in parts)

    def needed(self, keyword: str, count: int = 1) -> tuple[float, ...]:
        """As `numbers`; raises Refused when absent, too."""
        numbers = self.numbers(keyword, count)
        if numbers is None:
            self.missing(keyword)
        return numbers

    def optional(self, keyword: str) -> float | None:
        """One number on which nothing depends; None when absent or unusable."""
        try:
            numbers = self.numbers(keyword, 1)
        except Refused:
            return None
        return numbers[0] if numbers else None

    def integer(self, keyword: str) -> int | None:
        """An integer string on which nothing depends; None when absent or unusable."""
        number = self.optional(keyword)
        return int(number) if number is not None else None

    def word(self, keyword: str, *, signed: bool = False) -> int | None:
        """A 16-bit number; None when absent. Raises Refused when it is anything else."""
        value, little_endian = self._stored(keyword)
        if value is None or isinstance(value, int):
            return value
        if not isinstance(value, bytes) or len(value) != 2:
            self.unusable(keyword, "not one 16-bit number")
        return int.from_bytes(value, "little" if little_endian else "big", signed=signed)

    def needed_word(self, keyword: str) -> int:
        """As `word`; raises Refused when absent, too."""
        word = self.word(keyword)
        if word is None:
            self.missing(keyword)
        return word

    def missing(self, keyword: str) -> NoReturn:
        """Refuse the absence of an attribute that a judgement needs."""
        refuse(Reason.MISSING_ATTRIBUTE, f"{self.name} has no {title(keyword)}")

    def unusable(self, keyword: str, why: str) -> NoReturn:
        """Refuse an attribute that is there but means nothing."""
        refuse(Reason.MISSING_ATTRIBUTE, f"{self.name} has an unusable {title(keyword)}: {why}")
