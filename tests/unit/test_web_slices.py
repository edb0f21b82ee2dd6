"""The slices of a study on the page: the right pixels, the right outlines, on the right slice."""

from __future__ import annotations

import re
import threading
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from tests import builders, filed, judged
from tests.unit import results_cases
from triage_node.journal import Journal, queue
from triage_node.web import lightbox, outline, window
from triage_node.web.lightbox import Lightbox, NoSlices
from triage_node.web.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.results_cases import Case
    from triage_node.study import Mask

NOW = 1_700_000_000.0
LUNG = window.WINDOWS["lung"]
STROKE = re.compile(r"M(\d+) (\d+)([HV])(\d+)")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "state", "test")
    yield journal
    journal.close()


@pytest.fixture
def box(journal: Journal) -> Iterator[Lightbox]:
    box = Lightbox(journal)
    yield box
    box.close()


def edges_of(path: str) -> set[tuple[str, int, int]]:
    """The pixel edges that a path strokes: direction, and where each begins."""
    assert STROKE.sub("", path) == ""
    found: list[tuple[str, int, int]] = []
    for x, y, direction, end in STROKE.findall(path):
        if direction == "H":
            found += [(direction, at, int(y)) for at in range(int(x), int(end))]
        else:
            found += [(direction, int(x), at) for at in range(int(y), int(end))]
    assert len(found) == len(set(found)), "an edge is drawn twice"
    return set(found)


def edges_by_hand(mask: Mask) -> set[tuple[str, int, int]]:
    """The same, by looking at the four sides of every pixel."""
    rows, columns = mask.shape

    def there(y: int, x: int) -> bool:
        return 0 <= y < rows and 0 <= x < columns and bool(mask[y, x])

    found = set()
    for y, x in np.argwhere(mask).tolist():
        for edge, beside in (
            (("H", x, y), (y - 1, x)),
            (("H", x, y + 1), (y + 1, x)),
            (("V", x, y), (y, x - 1)),
            (("V", x + 1, y), (y, x + 1)),
        ):
            if not there(*beside):
                found.add(edge)
    return found


@given(arrays(np.bool_, st.tuples(st.integers(1, 7), st.integers(1, 7))))
def test_an_outline_is_every_edge_between_inside_and_outside_and_no_other(mask: Mask) -> None:
    assert edges_of(outline.path(mask)) == edges_by_hand(mask)


def test_a_window_is_the_linear_function_of_the_standard() -> None:
    for chosen in window.WINDOWS.values():
        center, width = chosen.center_hu, chosen.width_hu
        lowest, highest = center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2
        units = np.array([-32768, -1024, int(lowest), center, int(highest) + 1, 3071, 32767], np.int16)
        shown = window.grey(units[None], chosen)[0]
        assert shown[0] == 0
        assert shown[-1] == 255
        for unit, grey in zip(units.tolist(), shown.tolist(), strict=True):
            share = ((unit - (center - 0.5)) / (width - 1) + 0.5) if lowest < unit <= highest else float(unit > lowest)
            assert grey == pytest.approx(255 * share, abs=0.501)


# ---- the right slice


KINDS = (
    "head first supine",
    "feet first supine",
    "head first prone",
    "decreasing positions",
    "oblique",
    "gantry tilt",
    "varying spacing",
    "enhanced",
)


@pytest.mark.parametrize("name", KINDS)
def test_every_slice_is_shown_from_the_head_down_with_the_outlines_of_its_own_masks(
    name: str, tmp_path: Path, journal: Journal, box: Lightbox
) -> None:
    case = results_cases.build(tmp_path / "series", name)
    study = judged.put(journal, case, NOW)
    facts = box.facts(study)
    from_head = np.argsort(-case.volume.slice_positions_mm[:, 2])
    assert facts["slices"] == len(from_head)
    assert facts["positions_mm"] == pytest.approx(case.volume.slice_positions_mm[from_head, 2], abs=0.01)
    lesions = 0
    for number, z in enumerate(from_head.tolist(), start=1):
        picture = np.asarray(Image.open(BytesIO(box.picture(study, str(facts["token"]), number, LUNG))))
        assert (picture == window.grey(case.volume.hounsfield[z], LUNG)).all()
        drawn = box.outlines(study, str(facts["token"]), number)
        masks = {
            "right lung": case.findings.lungs[z] == 1,
            "left lung": case.findings.lungs[z] == 2,
            "lesion": case.findings.lesions[z],
        }
        assert {kind: edges_of(path) for kind, path in drawn.items()} == {
            kind: edges_by_hand(mask) for kind, mask in masks.items() if mask.any()
        }
        lesions += "lesion" in drawn
    assert lesions > 2


def test_ground_glass_and_consolidation_are_outlined_apart(tmp_path: Path, journal: Journal, box: Lightbox) -> None:
    case = results_cases.by_class(tmp_path / "series")
    study = judged.put(journal, case, NOW)
    facts = box.facts(study)
    assert facts["kinds"] == ["right lung", "left lung", "ground glass", "consolidation"]
    dense = case.findings.consolidation
    assert dense is not None
    z = int(np.argmax((case.findings.lesions & dense).sum(axis=(1, 2))))
    drawn = box.outlines(study, str(facts["token"]), len(dense) - z)
    assert edges_of(drawn["consolidation"]) == edges_by_hand(case.findings.lesions[z] & dense[z])
    assert edges_of(drawn["ground glass"]) == edges_by_hand(case.findings.lesions[z] & ~dense[z])


def test_frames_that_begin_within_a_byte_are_read_right(tmp_path: Path, journal: Journal, box: Lightbox) -> None:
    case = results_cases.build(tmp_path / "series", rows=31, columns=41)
    study = judged.put(journal, case, NOW)
    token = str(box.facts(study)["token"])
    for number, z in enumerate(range(len(case.findings.lungs) - 1, -1, -1), start=1):
        drawn = box.outlines(study, token, number)
        assert edges_of(drawn.get("lesion", "")) == edges_by_hand(case.findings.lesions[z])


@pytest.mark.parametrize(
    ("name", "edges"),
    [
        ("head first supine", {"left": "R", "upper": "A", "right": "L", "lower": "P"}),
        ("feet first supine", {"left": "L", "upper": "A", "right": "R", "lower": "P"}),
        ("head first prone", {"left": "L", "upper": "P", "right": "R", "lower": "A"}),
    ],
)
def test_the_edges_of_the_screen_are_named_by_the_header(
    name: str, edges: dict[str, str], tmp_path: Path, journal: Journal, box: Lightbox
) -> None:
    study = judged.put(journal, results_cases.build(tmp_path / "series", name), NOW)
    assert box.facts(study)["edges"] == edges


def test_the_bar_and_the_worst_slice_follow_the_masks(tmp_path: Path, journal: Journal, box: Lightbox) -> None:
    case = results_cases.build(tmp_path / "series")
    facts = box.facts(judged.put(journal, case, NOW))
    pixel_mm2 = case.volume.spacing_zyx_mm[1] * case.volume.spacing_zyx_mm[2]
    lesion = (case.findings.lesions.sum(axis=(1, 2)) * pixel_mm2)[::-1]
    lung = ((case.findings.lungs > 0).sum(axis=(1, 2)) * pixel_mm2)[::-1]
    assert facts["lesion_mm2"] == pytest.approx(lesion, abs=0.06)
    assert facts["lung_mm2"] == pytest.approx(lung, abs=0.06)
    assert facts["worst"] == int(np.argmax(lesion)) + 1
    shares = [
        None if whole == 0 else pytest.approx(part / whole, abs=1e-4) for part, whole in zip(lesion, lung, strict=True)
    ]
    assert facts["share"] == shares
    assert None in shares, "where no lung lies there is no share, not a share of nothing"


# ---- what cannot be shown


def test_slices_of_a_study_that_is_not_judged_come_without_numbers(
    tmp_path: Path, journal: Journal, box: Lightbox
) -> None:
    built = builders.ct_series(tmp_path / "series")
    judged.arrive(journal, built.series.instances, NOW)
    facts = box.facts(built.series.key.study_instance_uid)
    assert (facts["slices"], facts["kinds"]) == (12, [])
    assert [facts[name] for name in ("lung_mm2", "lesion_mm2", "share", "worst")] == [None] * 4


def test_a_new_answer_ends_the_slices_of_the_old_one(tmp_path: Path, journal: Journal, box: Lightbox) -> None:
    case = results_cases.build(tmp_path / "series")
    study = case.identity.study_instance_uid
    judged.arrive(journal, case.built.series.instances, NOW)
    before = str(box.facts(study)["token"])
    judged.judge(journal, case, NOW)
    with pytest.raises(NoSlices, match="out of date"):
        box.picture(study, before, 1, LUNG)
    assert box.facts(study)["worst"] is not None


def test_series_that_cannot_be_shown_say_why(tmp_path: Path, journal: Journal, box: Lightbox) -> None:
    with pytest.raises(NoSlices, match="no images of this study"):
        box.facts("1.2.3")
    filed.arrive(journal, filed.header("1.2.4", "1.2.4.1", 1), now=NOW)
    with pytest.raises(NoSlices, match="still arriving"):
        box.facts("1.2.4")
    filed.close_all(journal, NOW)
    with pytest.raises(NoSlices, match="cannot be parsed"):
        box.facts("1.2.4")
    broken = builders.ct_series(tmp_path / "gap", study="gap", positions_mm=[(0, 0, z) for z in (0, 5, 10, 15, 40)])
    judged.arrive(journal, broken.series.instances, NOW)
    with pytest.raises(NoSlices, match="slices seem to be missing"):
        box.facts(broken.series.key.study_instance_uid)


def test_slices_and_segmentations_that_are_gone_are_said_to_be_gone(
    tmp_path: Path, journal: Journal, box: Lightbox
) -> None:
    case = results_cases.build(tmp_path / "series")
    study = judged.put(journal, case, NOW)
    for path in (journal.state_dir / "results" / study).glob("*lesions*"):
        path.unlink()
    facts = box.facts(study)
    assert facts["remark"] == "No outlines: a segmentation of the answer is no longer on disk."
    assert facts["worst"] is None
    assert box.outlines(study, str(facts["token"]), 3) == {}
    for path in (journal.state_dir / "archive").rglob("*.dcm"):
        path.unlink()
    with pytest.raises(NoSlices, match="cannot be"):
        box.picture(study, str(facts["token"]), 3, LUNG)
    with pytest.raises(NoSlices, match="slices 1 to 12"):
        box.picture(study, str(facts["token"]), 13, LUNG)


def test_outlines_of_other_images_are_never_drawn(tmp_path: Path, journal: Journal, box: Lightbox) -> None:
    case = results_cases.build(tmp_path / "series")
    other = results_cases.build(tmp_path / "other", series="other")
    judged.arrive(journal, other.built.series.instances, NOW)
    job = queue.claim(journal, "test", NOW)
    assert job is not None
    stray = filed.result(job)
    folder = journal.state_dir / "results" / job.study_instance_uid
    for path in results_cases.written(case, folder).values():
        path.rename(folder / f"001-{path.name}")
    answer = queue.Result(
        series_instance_uid=other.built.series.key.series_instance_uid,
        assessment=case.assessment,
        not_analysed=None,
        passed_over=(),
        identity=case.identity,
        objects=stray.objects,
        duration_s=1.0,
    )
    assert queue.finish(journal, job, "test", answer, (), NOW)
    facts = box.facts(job.study_instance_uid)
    assert facts["remark"] == "No outlines: the segmentation speaks of other images than these."
    assert facts["kinds"] == []


def test_an_unknown_window_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="choose lung, mediastinum, bone"):
        window.named("liver")


# ---- what is kept


def test_a_shelf_keeps_what_was_used_last_within_its_bound() -> None:
    made: list[int] = []
    shelf: Shelf[bytes] = Shelf(10, len)

    def get(key: int, size: int) -> None:
        shelf.get(key, lambda: made.append(key) or bytes(size))

    get(1, 4)
    get(2, 4)
    get(1, 4)
    get(3, 4)  # the second one goes
    get(1, 4)
    get(2, 4)  # the third one goes
    assert made == [1, 2, 3, 2]
    get(4, 99)  # larger than the bound, and kept all the same until the next one comes
    get(4, 99)
    assert made == [1, 2, 3, 2, 4]


def test_what_is_asked_for_by_many_at_a_time_is_made_once() -> None:
    made: list[int] = []
    shelf: Shelf[bytes] = Shelf(10, len)
    barrier = threading.Barrier(6)

    def make() -> bytes:
        made.append(1)
        return b"x"

    def ask() -> None:
        barrier.wait()
        shelf.get("key", make)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]


def test_slices_are_decoded_once_and_again_only_when_there_was_no_room(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    case: Case = results_cases.build(tmp_path / "series")
    study = judged.put(journal, case, NOW)
    decoded: list[int] = []
    original = lightbox.volume.decoded

    def counted(frames: tuple[object, ...], decoders: object) -> object:
        decoded.append(len(frames))
        return original(frames, decoders)

    monkeypatch.setattr(lightbox.volume, "decoded", counted)
    slice_bytes = case.volume.hounsfield[0].nbytes
    box = Lightbox(journal, pixel_bytes=4 * slice_bytes, picture_bytes=1)
    token = str(box.facts(study)["token"])
    for number in (1, 2, 3, 4, 2, 3, 1):
        box.picture(study, token, number, LUNG)
    assert len(decoded) == 4
    box.picture(study, token, 5, LUNG)
    box.picture(study, token, 4, LUNG)  # it was not used for longest, and went
    assert len(decoded) == 6
    box.close()
