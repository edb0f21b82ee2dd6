"""The overview image, a DICOM Secondary Capture, as a PNG for the page."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING

import pydicom
from PIL import Image
from pydicom.errors import BytesLengthException, InvalidDicomError

from triage_node import frontal

if TYPE_CHECKING:
    from pathlib import Path

MAXIMUM_WIDTH = 4096
_KEPT = 512  # thumbnails of a full screen and some more; about 20 kB each


class NoPicture(Exception):
    """There is no readable overview image; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Which image this is, and where it lies."""

    path: Path
    sop_instance_uid: str


def find(path: Path) -> Picture:
    """Read the UID of the image at `path`. Raises NoPicture."""
    try:
        header = pydicom.dcmread(path, specific_tags=["SOPInstanceUID"], stop_before_pixels=True)
        return Picture(path=path, sop_instance_uid=str(header.SOPInstanceUID))
    except FileNotFoundError:
        raise NoPicture("the overview image is no longer on disk") from None
    except (OSError, InvalidDicomError, AttributeError, BytesLengthException) as error:
        raise NoPicture(f"the overview image cannot be read: {error}") from error


@lru_cache(maxsize=_KEPT)
def png(picture: Picture, width: int | None, *, only_frontal: bool = False) -> bytes:
    """The image, or the frontal projection alone, as PNG, never enlarged. Raises NoPicture.

    `width` is in pixels, None for all of them.
    """
    try:
        pixels = pydicom.dcmread(picture.path).pixel_array  # uint8 [y, x, 3]
        image = Image.fromarray(pixels)
    except (OSError, InvalidDicomError, AttributeError, ValueError, TypeError, RuntimeError, KeyError) as error:
        raise NoPicture(f"the overview image cannot be decoded: {error}") from error
    if only_frontal:
        scale = image.width / frontal.SIZE
        left, top = round(scale * frontal.LEFT), round(scale * frontal.TOP)
        right, bottom = round(scale * (frontal.LEFT + frontal.WIDTH)), round(scale * (frontal.TOP + frontal.HEIGHT))
        image = image.crop((left, top, right, bottom))
    if width is not None and width < image.width:
        image = image.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
