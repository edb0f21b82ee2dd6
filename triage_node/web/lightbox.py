"""The axial slices of a study on screen: which series, in which order, its pixels and what was found on each slice.

Headers are read once a study, pixels when a slice is first looked at; both are kept within bounds. Slices are numbered
from 1 at the head, as a PACS shows them.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from triage_node import volume
from triage_node.attributes import quiet
from triage_node.errors import Refused
from triage_node.journal import intake, views
from triage_node.jpeg import JpegDecoders
from triage_node.web import masks, outline, window
from triage_node.web.shelf import Shelf

if TYPE_CHECKING:
    import numpy.typing as npt

    from triage_node.headers import Frame
    from triage_node.journal import Journal
    from triage_node.stack import Stack
    from triage_node.study import Hounsfield, Series
    from triage_node.web.window import Window

OPEN_STUDIES = 4
PIXEL_BYTES = 256 << 20  # of decoded slices: one study of 512 slices, or several smaller ones
PICTURE_BYTES = 64 << 20  # of slices as PNG, ready to be sent
_DIRECTIONS = (("R", "L"), ("A", "P"), ("F", "H"))  # along x, y and z of the patient (PS3.3 C.7.6.1.1.1)
_WORTH_A_LETTER = 0.3  # of a direction's component


class NoSlices(Exception):
    """There is nothing to look at; the text says why."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenSeries:
    """A series whose headers were read, and what its answer found on it; index 0 is the slice nearest to the head."""

    token: str  # another one once there are other images or another answer
    series_instance_uid: str
    description: str
    frames: tuple[Frame, ...]
    edges: tuple[str, str, str, str]  # where the left, upper, right and lower edge of the screen point to
    positions_mm: tuple[float, ...]  # along the patient's long axis
    found: masks.Masks | None  # None: not judged, or `remark` says what is wrong with it
    remark: str

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.frames[0].cells.rows, self.frames[0].cells.columns

    @property
    def pixel_mm2(self) -> float:
        """Area of a pixel."""
        return self.frames[0].row_spacing_mm * self.frames[0].column_spacing_mm

    def segments(self, index: int) -> list[masks.Frame]:
        """What was found on a slice."""
        frame = self.frames[index]
        return (self.found or {}).get((frame.instance.sop_instance_uid, frame.number), [])

    def areas_mm2(self, kinds: tuple[str, ...]) -> npt.NDArray[np.float64]:
        """[slices] area that the segments of these kinds cover on each slice."""
        return np.array(
            [
                self.pixel_mm2 * sum(segment.pixels for segment in self.segments(index) if segment.kind in kinds)
                for index in range(len(self.frames))
            ]
        )


class Lightbox:
    """Opens the series of studies and renders their slices; for several threads."""

    def __init__(self, journal: Journal, *, pixel_bytes: int = PIXEL_BYTES, picture_bytes: int = PICTURE_BYTES) -> None:
        self._journal = journal
        self._decoders = JpegDecoders()
        self._reading = threading.Lock()  # headers are read with warnings off, which is a setting of all threads
        self._series: Shelf[OpenSeries] = Shelf(OPEN_STUDIES, lambda _: 1)
        self._facts: Shelf[dict[str, object]] = Shelf(OPEN_STUDIES, lambda _: 1)
        self._pixels: Shelf[Hounsfield] = Shelf(pixel_bytes, lambda pixels: pixels.nbytes)
        self._pictures: Shelf[bytes] = Shelf(picture_bytes, len)

    def close(self) -> None:
        """End the decoders' processes."""
        for _ in range(self._decoders.count):
            with self._decoders.one() as decoder:
                decoder.close()

    def facts(self, study: str) -> dict[str, object]:
        """What a viewer has to know of all slices of a study, ready for JSON. Raises NoSlices."""
        shown = self.opened(study)
        return self._facts.get((study, shown.token), lambda: _facts(shown))

    def picture(self, study: str, token: str, number: int, chosen: Window) -> bytes:
        """Slice `number` (from 1, at the head) as PNG. Raises NoSlices."""
        shown, index = self._found(study, token, number)

        def make() -> bytes:
            return window.png(self._slice(shown, index), chosen)

        return self._pictures.get((shown.series_instance_uid, token, number, chosen), make)

    def outlines(self, study: str, token: str, number: int) -> dict[str, str]:
        """Kind of segment -> its outline on slice `number` as an SVG path, in pixels. Raises NoSlices."""
        shown, index = self._found(study, token, number)
        return {segment.kind: outline.path(segment.mask(shown.shape)) for segment in shown.segments(index)}

    def opened(self, study: str) -> OpenSeries:
        """The series of `study` that was judged; before that, or where none was, the largest that is a stack of slices.

        Raises NoSlices.
        """
        answer = views.answer(self._journal, study)
        if answer is None:
            last = views.last_instance_id(self._journal, study)
            return self._series.get((study, 0, last), lambda: self._open_unjudged(study, None))
        token = f"{answer.generation}-{answer.last_instance_id}"
        if answer.series_instance_uid is None:
            return self._series.get((study, token), lambda: self._open_unjudged(study, answer))
        return self._series.get((study, token), lambda: self._open_judged(study, answer, token))

    def _found(self, study: str, token: str, number: int) -> tuple[OpenSeries, int]:
        shown = self.opened(study)
        if shown.token != token:
            raise NoSlices("the study has another answer by now: these slices are out of date")
        if not 1 <= number <= len(shown.frames):
            raise NoSlices(f"there is no slice {number}: the series has slices 1 to {len(shown.frames)}")
        return shown, number - 1

    def _slice(self, shown: OpenSeries, index: int) -> Hounsfield:
        """[y, x]; all frames of one object are decoded together, since a multi-frame file is opened as a whole."""
        frame = shown.frames[index]
        beside = [other for other in shown.frames if other.instance is frame.instance]

        def make() -> Hounsfield:
            try:
                return volume.decoded(beside, self._decoders)
            except Refused as refusal:
                raise NoSlices(refusal.not_analysed.words) from refusal
            except OSError as error:
                raise NoSlices(f"the image cannot be read: {error.strerror}") from error

        pixels = self._pixels.get((shown.series_instance_uid, shown.token, frame.instance.sop_instance_uid), make)
        found: Hounsfield = pixels[next(n for n, other in enumerate(beside) if other is frame)]
        return found

    def _open_judged(self, study: str, answer: views.AnswerRow, token: str) -> OpenSeries:
        instances = self._series_of(study, answer.last_instance_id)
        series = next((one for one in instances if one.key.series_instance_uid == answer.series_instance_uid), None)
        if series is None:
            raise NoSlices("the images that were judged are no longer on this node")
        stack = self._stack(series)
        paths = [self._journal.state_dir / answer.paths[kind] for kind in ("lungs", "lesions") if kind in answer.paths]
        remark = ""
        found: masks.Masks | None = None
        try:
            found = masks.read(paths)
        except masks.NoMasks as error:
            remark = f"No outlines: {error}."
        if found and not found.keys() <= {(frame.instance.sop_instance_uid, frame.number) for frame in stack.frames}:
            found, remark = None, "No outlines: the segmentation speaks of other images than these."
        return self._shown(study, token, series, stack, found, remark)

    def _open_unjudged(self, study: str, answer: views.AnswerRow | None) -> OpenSeries:
        if any(row.state == "open" for row in views.series(self._journal, study)):
            raise NoSlices("the images are still arriving")
        last = views.last_instance_id(self._journal, study) if answer is None else answer.last_instance_id
        token = f"{0 if answer is None else answer.generation}-{last}"
        refusals = []
        for series in sorted(self._series_of(study, last), key=lambda series: -len(series.instances)):
            try:
                return self._shown(study, token, series, self._stack(series), None, "")
            except NoSlices as error:
                refusals.append(error)
        raise refusals[0] if refusals else NoSlices("the node has no images of this study")

    def _series_of(self, study: str, last_instance_id: int) -> tuple[Series, ...]:
        state_dir = self._journal.state_dir
        return intake.study(self._journal, study, last_instance_id=last_instance_id, state_dir=state_dir).series

    def _stack(self, series: Series) -> Stack:
        try:
            with self._reading, quiet():
                return volume.ordered(series, self._decoders)[0]
        except Refused as refusal:
            raise NoSlices(refusal.not_analysed.words) from refusal
        except OSError as error:
            raise NoSlices(f"the images cannot be read: {error.strerror}") from error

    def _shown(
        self, study: str, token: str, series: Series, stack: Stack, found: masks.Masks | None, remark: str
    ) -> OpenSeries:
        # slices follow each other along row x column, which may point to the head or to the feet
        downwards = slice(None, None, -1 if stack.affine_lps_mm[2, 2] > 0 else 1)
        uid = series.key.series_instance_uid
        rows = {row.series_instance_uid: row for row in views.series(self._journal, study)}
        right, lower = _letters(stack.affine_lps_mm[:3, 0]), _letters(stack.affine_lps_mm[:3, 1])
        left, upper = _letters(-stack.affine_lps_mm[:3, 0]), _letters(-stack.affine_lps_mm[:3, 1])
        return OpenSeries(
            token=token,
            series_instance_uid=uid,
            description=rows[uid].description if uid in rows else "",
            frames=stack.frames[downwards],
            edges=(left, upper, right, lower),
            positions_mm=tuple(float(z) for z in stack.positions_mm[downwards, 2]),
            found=found,
            remark=remark,
        )


def _letters(direction: npt.NDArray[np.float64]) -> str:
    """The letters of a patient direction, the main one first: "L", or "LP" where it is clearly oblique."""
    parts = direction / np.linalg.norm(direction)
    axes = sorted((axis for axis in range(3) if abs(parts[axis]) > _WORTH_A_LETTER), key=lambda axis: -abs(parts[axis]))
    return "".join(_DIRECTIONS[axis][int(parts[axis] > 0)] for axis in axes)


def _facts(shown: OpenSeries) -> dict[str, object]:
    rows, columns = shown.shape
    first = shown.frames[0]
    return {
        "token": shown.token,
        "series_instance_uid": shown.series_instance_uid,
        "description": shown.description,
        "slices": len(shown.frames),
        "rows": rows,
        "columns": columns,
        "row_spacing_mm": first.row_spacing_mm,
        "column_spacing_mm": first.column_spacing_mm,
        "edges": dict(zip(("left", "upper", "right", "lower"), shown.edges, strict=True)),
        "names": [frame.name for frame in shown.frames],
        "positions_mm": [round(z, 2) for z in shown.positions_mm],
        "windows": [
            {"name": one.name, "center_hu": one.center_hu, "width_hu": one.width_hu} for one in window.WINDOWS.values()
        ],
        "remark": shown.remark,
        **_profile(shown),
    }


def _profile(shown: OpenSeries) -> dict[str, object]:
    """How much lung and lesion lies on each slice; None throughout where nothing was judged."""
    if shown.found is None:
        return {"kinds": [], "lung_mm2": None, "lesion_mm2": None, "share": None, "worst": None}
    lung, lesion = shown.areas_mm2(masks.LUNGS), shown.areas_mm2(masks.LESIONS)
    kinds = {segment.kind for segments in shown.found.values() for segment in segments}
    return {
        "kinds": [kind for kind in (*masks.LUNGS, *masks.LESIONS) if kind in kinds],
        "lung_mm2": np.round(lung, 1).tolist(),
        "lesion_mm2": np.round(lesion, 1).tolist(),
        "share": [
            round(float(part / whole), 4) if whole > 0 else None for part, whole in zip(lesion, lung, strict=True)
        ],
        # the slice with the largest area of lesion: the share alone would choose the tips of the lungs
        "worst": int(np.argmax(lesion)) + 1 if lesion.any() else None,
    }
