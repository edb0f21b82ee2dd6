"""Hounsfield units -> grey values through a window, as PNG; nothing is resampled and nothing compressed with loss."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

if TYPE_CHECKING:
    from triage_node.study import Hounsfield

Grey = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Which attenuations are told apart on screen."""

    name: str
    center_hu: int
    width_hu: int


WINDOWS = {
    window.name: window
    for window in (
        Window(name="lung", center_hu=-600, width_hu=1500),
        Window(name="mediastinum", center_hu=40, width_hu=400),
        Window(name="bone", center_hu=450, width_hu=1800),
    )
}


def named(name: str) -> Window:
    """The window of that name. Raises ValueError."""
    if name not in WINDOWS:
        raise ValueError(f"there is no window {name!r}: choose {', '.join(WINDOWS)}")
    return WINDOWS[name]


@cache
def _table(window: Window) -> Grey:
    """[65536] grey value of every int16, taken as uint16, by the LINEAR function (PS3.3 C.11.2.1.2.1)."""
    units = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.float64)
    shares = (units - (window.center_hu - 0.5)) / (window.width_hu - 1) + 0.5
    table = np.rint(255 * np.clip(shares, 0, 1)).astype(np.uint8)
    table.setflags(write=False)
    return table


def grey(hounsfield: Hounsfield, window: Window) -> Grey:
    """[y, x] 0 black to 255 white."""
    return _table(window)[hounsfield.view(np.uint16)]


def png(hounsfield: Hounsfield, window: Window) -> bytes:
    """One slice [y, x] as an 8 bit grey PNG of its own size."""
    buffer = BytesIO()
    # the fastest compression: a slice is looked at for a fraction of a second
    Image.fromarray(grey(hounsfield, window)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
