"""The signs of the vertical bar encoding: what is text and what is structure (HL7 2.5.1 section 2.7)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.sr.coding import Code

# Section 2.7.1: what a delimiter becomes where it is text. The escape sign itself is among them, and one pass over the
# text replaces each sign once, so that what is escaped here is never taken for an escape sequence of the source.
_ESCAPES = str.maketrans({"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"})


def text(value: str) -> str:
    """A value as text of one component: delimiters escaped, and no sign that ends a segment or steers a terminal."""
    return "".join(sign if sign.isprintable() else " " for sign in value).strip().translate(_ESCAPES)


def components(*values: str) -> str:
    """Components of one field, each of them text; empty ones at the end are left out (section 2.6)."""
    return "^".join(text(value) for value in values).rstrip("^")


def coded(code: Code, alternate: Code | None = None) -> str:
    """A coded element (CE, CWE): identifier, text and coding system, and the same of an alternate."""
    known = (code,) if alternate is None else (code, alternate)
    return components(*(part for each in known for part in (each.value, each.meaning, each.scheme_designator)))


def number(value: float) -> str:
    """A numeric value (NM, section 2.A.47): no exponent, and what is there is never rounded away to zero."""
    digits = 4
    while value and round(value, digits) == 0.0 and digits < 12:
        digits += 4
    return f"{value:.{digits}f}".rstrip("0").rstrip(".")


def time_stamp(at: float) -> str:
    """Seconds since 1970 as a time stamp (TS, section 2.A.77) in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y%m%d%H%M%S+0000")
