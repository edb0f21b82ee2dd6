"""One rule orders the series of a study, and every series that loses is told why."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import CORONAL, ct_series
from triage_node import volume
from triage_node.config import AnalysisSection
from triage_node.selection import Choice, Kernel, Region, SeriesFacts, choose, kernel_of, region_of
from triage_node.study import NotAnalysed, Reason, SeriesKey

SETTINGS = AnalysisSection()
PLAIN = SeriesFacts(
    key=SeriesKey(study_instance_uid="1.2", series_instance_uid="1.2.0"),
    modality="CT",
    original=True,
    description="Thorax",
    body_part="CHEST",
    kernel="B31f",
    series_number=0,
    slices=300,
    spacing_mm=1.0,
    coverage_mm=300.0,
)


def series(number: int, **facts: object) -> SeriesFacts:
    key = SeriesKey(study_instance_uid="1.2", series_instance_uid=f"1.2.{number}")
    return replace(PLAIN, key=key, series_number=number, **facts)  # type: ignore[arg-type]  # a table of fields


def numbers(choice: Choice) -> list[int | None]:
    return [facts.series_number for facts in choice.candidates]


def words_of_loser(winner: SeriesFacts, loser: SeriesFacts, settings: AnalysisSection = SETTINGS) -> str:
    """What the loser is told, whichever comes first in the study."""
    for order in ((winner, loser), (loser, winner)):
        choice = choose(order, settings)
        assert numbers(choice) == [winner.series_number, loser.series_number]
    (other,) = choice.others(winner.key, {})
    assert other.facts == loser
    assert other.not_analysed.reason == Reason.NOT_PREFERRED
    return other.not_analysed.words


@pytest.mark.parametrize(
    ("better", "worse", "words"),
    [
        ({}, {"original": False}, "not marked as original images, as those of series 3 are"),
        ({}, {"spacing_mm": 5.0}, "5.0 mm slices; series 3 has 1.0 mm"),
        ({}, {"spacing_mm": 0.5}, "0.5 mm slices; series 3 has 1.0 mm, nearer to the preferred 1.0 mm"),
        ({"spacing_mm": 0.8}, {"spacing_mm": 0.6},
         "0.6 mm slices; series 3 has 0.8 mm, nearer to the preferred 1.0 mm"),
        ({"spacing_mm": 0.6}, {"spacing_mm": 1.5}, "1.5 mm slices; series 3 has 0.6 mm"),
        ({}, {"kernel": "B70f"}, "a sharp (lung) kernel; series 3 has a soft kernel"),
        ({}, {"kernel": ""}, "a kernel of unknown sharpness; series 3 has a soft kernel"),
        ({"spacing_mm": 5.0}, {"coverage_mm": 150.0}, "covers 150 mm; series 3 covers 300 mm"),
        ({}, {"coverage_mm": 290.0}, "covers 290 mm; series 3 covers 300 mm"),
        ({}, {"lossy": True}, "compressed with loss; series 3 is not"),
        ({"spacing_mm": 5.0}, {"body_part": "HEAD", "description": ""},
         "does not say as clearly as series 3 that it shows the chest"),
        ({"body_part": "LUNG", "description": ""}, {"description": "Abdomen"},
         "does not say as clearly as series 3 that it shows the chest"),
    ],
)  # fmt: skip
def test_the_better_series_comes_first_and_the_other_learns_by_which_rule(
    better: dict[str, object], worse: dict[str, object], words: str
) -> None:
    assert words_of_loser(series(3, **better), series(2, **worse)) == words


def test_more_height_than_a_chest_has_does_not_beat_thin_slices() -> None:
    """A chest, abdomen and pelvis series of 5 mm loses against a chest of 1 mm."""
    words_of_loser(series(1, coverage_mm=320.0), series(2, coverage_mm=650.0, spacing_mm=5.0))


def test_of_equals_the_first_in_the_study_is_judged() -> None:
    assert words_of_loser(series(1), series(2)) == "as good as series 1, which comes first in the study"


@pytest.mark.parametrize(("kernel", "first"), [("any", 1), ("soft", 2), ("lung", 1)])
def test_the_configured_kernel_goes_before_thickness(kernel: str, first: int) -> None:
    """Without a wish thin slices go before a soft kernel; with one, the kernel decides."""
    settings = AnalysisSection.model_validate({"kernel": kernel})
    thin_and_sharp, thick_and_soft = series(1, kernel="B70f"), series(2, spacing_mm=3.0)
    assert numbers(choose((thick_and_soft, thin_and_sharp), settings))[0] == first


def test_a_lung_kernel_is_taken_where_it_is_wished() -> None:
    settings = AnalysisSection(kernel="lung")
    words = words_of_loser(series(2, kernel="LUNG"), series(1), settings)
    assert words == "a soft kernel; series 2 has a sharp (lung) kernel"


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"slices": 3}, Reason.TOO_FEW_SLICES),
        ({"slices": 3001}, Reason.TOO_MANY_SLICES),
        ({"spacing_mm": 15.0}, Reason.SPACING_TOO_LARGE),
        ({"coverage_mm": 119.0}, Reason.COVERAGE_TOO_SHORT),
        ({"refusal": NotAnalysed(reason=Reason.LOCALIZER, words="a localizer")}, Reason.LOCALIZER),
    ],
)
def test_what_cannot_be_judged_is_passed_over_with_its_reason(facts: dict[str, object], reason: Reason) -> None:
    choice = choose((series(1, **facts), series(2)), SETTINGS)
    assert numbers(choice) == [2]
    assert [(one.facts.series_number, one.not_analysed.reason) for one in choice.passed_over] == [(1, reason)]


def test_body_part_never_rules_a_series_out() -> None:
    choice = choose((series(1, body_part="HEAD", description="Brain"),), SETTINGS)
    assert numbers(choice) == [1]


@pytest.mark.parametrize(
    ("description", "body_part", "region"),
    [
        ("ThorRoutine 2.0 D40s", "", Region.CHEST),
        ("CHEST W/O, iDose", "CHEST", Region.CHEST),
        ("", "LUNG", Region.CHEST),
        ("CT CHEST/ABD/PELVIS", "", Region.CHEST),
        ("1.0 x 0.8", "", Region.UNSAID),
        ("", "", Region.UNSAID),
        ("Lung 1.0", "HEAD", Region.UNSAID),
        ("Brain 5.0", "CHEST", Region.UNSAID),
        ("Brain 5.0", "HEAD", Region.ELSEWHERE),
        ("", "ABDOMEN", Region.ELSEWHERE),
    ],
)
def test_description_and_body_part_speak_together(description: str, body_part: str, region: Region) -> None:
    assert region_of(series(1, description=description, body_part=body_part)) == region


@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        ("B31f", Kernel.SOFT), ("B19f", Kernel.SOFT), ("D40s", Kernel.SOFT), ("Br40d\\3", Kernel.SOFT),
        ("I30f\\2", Kernel.SOFT), ("B70f", Kernel.LUNG), ("Bl57d", Kernel.LUNG), ("Br64", Kernel.LUNG),
        ("STANDARD", Kernel.SOFT), ("SOFT", Kernel.SOFT), ("LUNG", Kernel.LUNG), ("BONEPLUS", Kernel.LUNG),
        ("FC08", Kernel.SOFT), ("FC51", Kernel.LUNG), ("B", Kernel.SOFT), ("YA", Kernel.LUNG), ("L", Kernel.LUNG),
        ("", Kernel.UNKNOWN), ("whatever", Kernel.UNKNOWN),
    ],
)  # fmt: skip
def test_vendors_kernels_are_known_by_name(name: str, kernel: Kernel) -> None:
    assert kernel_of(name) == kernel


def test_a_candidate_refused_when_tried_keeps_its_own_reason() -> None:
    choice = choose((series(1), series(2, spacing_mm=2.0), series(3, spacing_mm=3.0), series(4, slices=1)), SETTINGS)
    no_lungs = NotAnalysed(reason=Reason.NO_LUNGS, words="no lungs were found")
    others = choice.others(series(2).key, {series(1).key: no_lungs})
    assert {one.facts.series_number: one.not_analysed.reason for one in others} == {
        1: Reason.NO_LUNGS,
        3: Reason.NOT_PREFERRED,
        4: Reason.TOO_FEW_SLICES,
    }


def test_a_study_without_a_suitable_series_says_why_of_each() -> None:
    choice = choose((series(1), series(4, slices=1)), SETTINGS)
    no_lungs = NotAnalysed(reason=Reason.NO_LUNGS, words="no lungs were found")
    why, every = choice.no_suitable({series(1).key: no_lungs})
    assert why.reason == Reason.NO_SUITABLE_SERIES
    assert why.words == (
        "no series can be judged (series 1: no lungs were found; series 4: 1 slice; at least 10 are needed)"
    )
    assert [one.not_analysed.reason for one in every] == [Reason.NO_LUNGS, Reason.TOO_FEW_SLICES]
    empty, nothing = choose((), SETTINGS).no_suitable({})
    assert (empty.reason, nothing) == (Reason.NO_SUITABLE_SERIES, ())


FACTS = st.builds(
    series,
    st.integers(0, 5),
    original=st.booleans(),
    description=st.sampled_from(["Thorax", "Brain", ""]),
    kernel=st.sampled_from(["B31f", "B70f", ""]),
    slices=st.sampled_from([1, 100]),
    spacing_mm=st.sampled_from([0.5, 0.8, 1.0, 2.5, 5.0, 20.0]),
    coverage_mm=st.sampled_from([50.0, 130.0, 280.0, 300.0, 600.0]),
    lossy=st.booleans(),
)


@given(
    facts=st.lists(FACTS, max_size=6, unique_by=lambda one: one.key.series_instance_uid),
    kernel=st.sampled_from(["any", "soft", "lung"]),
    data=st.data(),
)
def test_the_order_of_arrival_changes_nothing_and_every_series_is_accounted_for(
    facts: list[SeriesFacts], kernel: str, data: st.DataObject
) -> None:
    settings = AnalysisSection.model_validate({"kernel": kernel})
    choice = choose(facts, settings)
    assert choose(data.draw(st.permutations(facts)), settings) == choice
    assert len(choice.candidates) + len(choice.passed_over) == len(facts)
    for judged, _ in pairwise(choice.candidates):
        others = choice.others(judged.key, {})
        assert {one.facts.key for one in others} == {one.key for one in facts} - {judged.key}


def test_a_study_from_its_files_is_ordered(tmp_path: Path) -> None:
    """A localizer, a thick, a thin and a short series as a scanner sends them."""
    ct_series(
        tmp_path, series="topogram", series_number=1, slices=1, orientation=CORONAL,
        attributes={"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "RescaleSlope": None, "PixelSpacing": None},
    )  # fmt: skip
    ct_series(tmp_path, series="thick", series_number=2, spacing_mm=10.0, slices=30)
    ct_series(tmp_path, series="thin", series_number=3, spacing_mm=5.0, slices=60)
    ct_series(tmp_path, series="short", series_number=4, slices=10, spacing_mm=5.0)
    ct_series(tmp_path, series="lung kernel", series_number=5, spacing_mm=5.0, slices=60,
              attributes={"ConvolutionKernel": "LUNG"})  # fmt: skip
    (study,) = volume.study_in(tmp_path)
    choice = choose([volume.facts_of(one) for one in study.series], SETTINGS)
    assert numbers(choice) == [3, 5, 2]
    assert {one.facts.series_number: one.not_analysed.reason for one in choice.passed_over} == {
        1: Reason.LOCALIZER,
        4: Reason.COVERAGE_TOO_SHORT,
    }
    assert (
        len(volume.read(next(s for s in study.series if s.key == choice.candidates[0].key), SETTINGS).instances) == 60
    )
