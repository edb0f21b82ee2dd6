"""Which series of a study to judge: facts in, an order with its reasons out; pure.

What rules a series out is what it says of itself (no CT, a localizer, a reformat, a gap ...). What orders the rest is
one literal list of rules, each with the sentence that tells a loser why. Body Part Examined is copied from the
protocol and often wrong, so it moves a series down the list but never off it: what the lung finder sees decides, when
the candidates are tried in order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from triage_node.study import NotAnalysed, Reason, SeriesKey

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from triage_node.config import AnalysisSection


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesFacts:
    """What the headers of a series say; geometry is of the stack that would be judged, None where there is none."""

    key: SeriesKey
    modality: str = ""
    sop_class_uid: str = ""
    image_type: tuple[str, ...] = ()
    original: bool = False
    lossy: bool = False
    description: str = ""  # series description and protocol name
    body_part: str = ""
    kernel: str = ""
    manufacturer: str = ""
    contrast: bool = False
    patient_position: str = ""
    series_number: int | None = None
    acquisition_numbers: tuple[int, ...] = ()
    instances: int = 0
    slices: int = 0
    rows: int | None = None
    columns: int | None = None
    pixel_spacing_mm: tuple[float, float] | None = None  # between rows, between columns
    orientation: tuple[float, ...] | None = None
    spacing_mm: float | None = None  # median distance between slices along their normal
    thickness_mm: float | None = None
    coverage_mm: float | None = None  # along the normal
    tilt_degrees: float | None = None
    warnings: tuple[str, ...] = ()
    refusal: NotAnalysed | None = None  # what the headers alone rule out

    @property
    def name(self) -> str:
        """The series as people call it."""
        return f"series {self.series_number}" if self.series_number is not None else "a series without a number"


@dataclass(frozen=True, slots=True, kw_only=True)
class PassedOver:
    """A series that is not judged, and why."""

    facts: SeriesFacts
    not_analysed: NotAnalysed


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Candidates in the order in which they should be tried, and the series that are none."""

    candidates: tuple[SeriesFacts, ...]
    passed_over: tuple[PassedOver, ...]
    _settings: AnalysisSection

    def others(self, judged: SeriesKey, refused: Mapping[SeriesKey, NotAnalysed]) -> tuple[PassedOver, ...]:
        """Every series but the judged one: ruled out, refused when it was tried, or suitable but not preferred."""
        winner = next(facts for facts in self.candidates if facts.key == judged)
        tried = [
            PassedOver(facts=facts, not_analysed=refused.get(facts.key) or self._not_preferred(facts, winner))
            for facts in self.candidates
            if facts is not winner
        ]
        return (*tried, *self.passed_over)

    def no_suitable(self, refused: Mapping[SeriesKey, NotAnalysed]) -> tuple[NotAnalysed, tuple[PassedOver, ...]]:
        """Why the study was not analysed, and every series with its own reason, once all candidates were refused."""
        tried = tuple(PassedOver(facts=f, not_analysed=refused[f.key]) for f in self.candidates)
        every = (*tried, *self.passed_over)
        if not every:
            return NotAnalysed(reason=Reason.NO_SUITABLE_SERIES, words="the study has no series at hand"), every
        listed = "; ".join(f"{one.facts.name}: {one.not_analysed.words}" for one in every)
        return NotAnalysed(reason=Reason.NO_SUITABLE_SERIES, words=f"no series can be judged ({listed})"), every

    def _not_preferred(self, loser: SeriesFacts, winner: SeriesFacts) -> NotAnalysed:
        rules = _rules(self.candidates, self._settings)
        decisive = next((rule for rule in rules if rule.key(loser) != rule.key(winner)), None)
        words = decisive.words(loser, winner) if decisive else f"as good as {winner.name}, which comes first"
        return NotAnalysed(reason=Reason.NOT_PREFERRED, words=words)


class Kernel(IntEnum):
    """What a reconstruction kernel is good for."""

    SOFT = 0
    UNKNOWN = 1
    LUNG = 2  # sharp: edges enhanced, attenuation noisy and biased at them


# Kernel names by vendor; the first row that matches decides.
_KERNELS: tuple[tuple[str, Kernel], ...] = (
    (r"(LUNG|BONE|EDGE|SHARP|CHST)\w*", Kernel.LUNG),
    (r"(STANDARD|STND|SOFT|DETAIL|BODY|SMOOTH)\w*", Kernel.SOFT),  # GE
    (r"BL\d\d.*", Kernel.LUNG),  # Siemens: Bl57f, body lung
    (r"[ABDHIJQU][RVMF]?[0-4]\d[A-Z]?.*", Kernel.SOFT),  # Siemens: B10f .. B49f, Br36, I31f, Qr40, D40s
    (r"[ABDHIJQU][RVMF]?[5-9]\d[A-Z]?.*", Kernel.LUNG),  # Siemens: B50f .. B80f, I70f, Br64
    (r"FC0\d|FC1\d", Kernel.SOFT),  # Canon, Toshiba: body
    (r"FC[358]\d", Kernel.LUNG),  # Canon, Toshiba: bone, lung, high resolution
    (r"YA|YB|YC|YD|L|D|E|F", Kernel.LUNG),  # Philips
    (r"A|B|C|SA|SB", Kernel.SOFT),  # Philips
)  # fmt: skip

_CHEST = re.compile(r"CHEST|THORA|\bTHOR|\bLUNG|PULM|\bHRCT|\bCAP\b|\bTAP\b|\bPE\b|COVID|\bTORAX|\bTORACE")
_ELSEWHERE = re.compile(
    r"\bHEAD|BRAIN|SKULL|CRANI|\bNECK|SINUS|ORBIT|\bABD|PELVI|LIVER|KIDNEY|RENAL|\bSPINE|LUMBAR|\bKNEE|\bFOOT|\bHAND"
    r"|\bHIP|ANKLE|WRIST|ELBOW|SHOULDER|EXTREM|\bLEG\b|DENTAL|COLON"
)


def kernel_of(name: str) -> Kernel:
    """What kind of kernel a Convolution Kernel (0018,1210) names."""
    first = name.split("\\", maxsplit=1)[0].strip().upper()
    return next((kind for form, kind in _KERNELS if re.match(rf"(?:{form})$|(?:{form})\W", first)), Kernel.UNKNOWN)


_KERNEL_WORDS = {
    Kernel.SOFT: "a soft kernel",
    Kernel.UNKNOWN: "a kernel of unknown sharpness",
    Kernel.LUNG: "a sharp (lung) kernel",
}


class Region(IntEnum):
    """Whether a series says that it shows a chest; the worst two still get their turn."""

    CHEST = 0
    UNSAID = 1
    ELSEWHERE = 2


def region_of(facts: SeriesFacts) -> Region:
    """What description and body part say together; where they contradict each other, nothing was said."""
    said = {region for text in (facts.description, facts.body_part) if (region := _region(text)) is not None}
    return said.pop() if len(said) == 1 else Region.UNSAID


def _region(text: str) -> Region | None:
    upper = text.upper().replace("_", " ")
    if _CHEST.search(upper):
        return Region.CHEST
    return Region.ELSEWHERE if _ELSEWHERE.search(upper) else None


def unsuitable(
    *, slices: int, spacing_mm: float | None, coverage_mm: float | None, settings: AnalysisSection
) -> NotAnalysed | None:
    """What the configured limits rule out."""
    if slices < settings.minimum_slices:
        words = f"{slices} slice{'s' if slices != 1 else ''}; at least {settings.minimum_slices} are needed"
        return NotAnalysed(reason=Reason.TOO_FEW_SLICES, words=words)
    if slices > settings.maximum_slices:
        words = f"{slices} slices; at most {settings.maximum_slices} are taken"
        return NotAnalysed(reason=Reason.TOO_MANY_SLICES, words=words)
    if spacing_mm is not None and spacing_mm > settings.maximum_spacing_mm:
        words = f"the slices are {spacing_mm:.1f} mm apart; at most {settings.maximum_spacing_mm:.1f} mm are taken"
        return NotAnalysed(reason=Reason.SPACING_TOO_LARGE, words=words)
    if coverage_mm is not None and coverage_mm < settings.minimum_coverage_mm:
        least = settings.minimum_coverage_mm
        words = f"the slices cover {coverage_mm:.0f} mm from end to end; at least {least:.0f} mm are needed"
        return NotAnalysed(reason=Reason.COVERAGE_TOO_SHORT, words=words)
    return None


def choose(facts: Sequence[SeriesFacts], settings: AnalysisSection) -> Choice:
    """Order the series of a study, whatever order they come in."""
    candidates: list[SeriesFacts] = []
    passed_over: list[PassedOver] = []
    for series in sorted(facts, key=_identity):
        refusal = series.refusal or unsuitable(
            slices=series.slices, spacing_mm=series.spacing_mm, coverage_mm=series.coverage_mm, settings=settings
        )
        if refusal is None:
            candidates.append(series)
        else:
            passed_over.append(PassedOver(facts=series, not_analysed=refusal))
    rules = _rules(candidates, settings)
    candidates.sort(key=lambda series: tuple(rule.key(series) for rule in rules))
    return Choice(candidates=tuple(candidates), passed_over=tuple(passed_over), _settings=settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """The smaller key is better; `words` tell the loser, against the winner, why."""

    key: Callable[[SeriesFacts], float | tuple[float, ...] | tuple[int, str]]
    words: Callable[[SeriesFacts, SeriesFacts], str]


WHOLE_CHEST_MM = 300.0  # more height than this is not more chest
NOTABLY_SHORTER = 0.8


def _rules(candidates: Sequence[SeriesFacts], settings: AnalysisSection) -> tuple[_Rule, ...]:
    """The rules in order of weight."""
    chests = min(map(region_of, candidates), default=Region.UNSAID)
    widest_mm = max((_chest_mm(series) for series in candidates if region_of(series) == chests), default=0.0)
    preferred_mm = settings.preferred_spacing_mm

    def shorter(series: SeriesFacts) -> float:
        return float(_chest_mm(series) < NOTABLY_SHORTER * widest_mm)

    def thickness(series: SeriesFacts) -> tuple[float, ...]:
        # thinner than preferred helps no more: then the nearest to it; a tenth of a millimetre is rounding
        spacing = round(series.spacing_mm or 0.0, 1)
        return max(spacing, preferred_mm), abs(spacing - preferred_mm)

    def kernel(series: SeriesFacts) -> float:
        # "any": lesions are told by attenuation, which soft kernels measure and sharp ones distort
        kind = kernel_of(series.kernel)
        return float(-kind if settings.kernel == "lung" else kind)

    by_kernel = _Rule(
        key=kernel,
        words=lambda loser, winner: (
            f"{_KERNEL_WORDS[kernel_of(loser.kernel)]}; {winner.name} has {_KERNEL_WORDS[kernel_of(winner.kernel)]}"
        ),
    )
    by_thickness = _Rule(
        key=thickness,
        words=lambda loser, winner: (
            f"{loser.spacing_mm or 0:.1f} mm slices; {winner.name} has {winner.spacing_mm or 0:.1f} mm"
            + (f", nearer to the preferred {preferred_mm:.1f} mm" if _thinner(loser, winner) else "")
        ),
    )
    return (
        _Rule(
            key=lambda series: float(not series.original),
            words=lambda _, winner: f"not marked as original images, as those of {winner.name} are",
        ),
        _Rule(
            key=lambda series: float(region_of(series)),
            words=lambda _, winner: f"does not say as clearly as {winner.name} that it shows the chest",
        ),
        _Rule(
            key=shorter,
            words=lambda loser, winner: (
                f"covers {loser.coverage_mm or 0:.0f} mm; {winner.name} covers {winner.coverage_mm or 0:.0f} mm"
            ),
        ),
        *((by_thickness, by_kernel) if settings.kernel == "any" else (by_kernel, by_thickness)),
        _Rule(
            key=lambda series: float(series.lossy),
            words=lambda _, winner: f"compressed with loss; {winner.name} is not",
        ),
        _Rule(
            key=lambda series: -round(series.coverage_mm or 0.0),
            words=lambda loser, winner: (
                f"covers {loser.coverage_mm or 0:.0f} mm; {winner.name} covers {winner.coverage_mm or 0:.0f} mm"
            ),
        ),
        _Rule(key=_identity, words=lambda _, winner: f"as good as {winner.name}, which comes first in the study"),
    )


def _identity(series: SeriesFacts) -> tuple[int, str]:
    number = series.series_number
    return (number if number is not None else 2**31), series.key.series_instance_uid


def _chest_mm(series: SeriesFacts) -> float:
    return min(series.coverage_mm or 0.0, WHOLE_CHEST_MM)


def _thinner(one: SeriesFacts, other: SeriesFacts) -> bool:
    return (one.spacing_mm or 0.0) < (other.spacing_mm or 0.0)
