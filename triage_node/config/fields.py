"""The types of the configuration's values, each with what it allows, and what all sections have in common."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _ae_title(value: str) -> str:
    # PS3.5 table 6.2-1, AE: 16 bytes of the default repertoire, no backslash, not only spaces
    if not 1 <= len(value) <= 16 or not value.isascii() or not value.isprintable() or "\\" in value:
        raise ValueError("1 to 16 printable ASCII characters and no backslash")
    if value != value.strip():
        raise ValueError("no leading and trailing spaces: they are not significant in an AE title")
    return value


def _network(value: str) -> str:
    if value != "*":
        try:
            ipaddress.ip_network(value, strict=False)
        except ValueError:
            raise ValueError(
                'an address ("10.0.0.5"), a network ("10.0.0.0/8") or "*"; host names are not looked up'
            ) from None
    return value


def _host(value: str) -> str:
    if not value or not value.isascii() or any(sign.isspace() or not sign.isprintable() for sign in value):
        raise ValueError("a host name or an address, without spaces")
    return value


def _folder(value: str) -> str:
    if not value or "\0" in value:
        raise ValueError('the path of a folder, "." for the folder of this file')
    return value


def _device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", value, re.ASCII):
        raise ValueError('"auto", "cpu", "cuda" or "cuda:N"')
    return value


AeTitle = Annotated[str, AfterValidator(_ae_title)]
Network = Annotated[str, AfterValidator(_network)]
Host = Annotated[str, AfterValidator(_host)]
Folder = Annotated[str, AfterValidator(_folder)]
Device = Annotated[str, AfterValidator(_device)]
Port = Annotated[int, Field(ge=1, le=65535)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(ge=0.0)]


class Section(BaseModel):
    """Common to all sections: frozen, unknown keys refused, no silent conversion between types."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
