"""OHIF shows what a node wrote: outlines on the voxels of the masks, on the right slices, and the report's words.

The whole line: a scanner sends a phantom to the archive (Orthanc) and to the node, the node delivers to the archive,
OHIF reads the archive by DICOMweb and draws in Chromium.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from playwright.sync_api import expect, sync_playwright
from scipy import ndimage

from tests import ohif, peers, running
from tests.orthanc import orthanc, rest
from triage_node import config, folder
from triage_node.phantom import Body, PhantomSpec
from triage_node.phantom_dicom import GE, Person, write_study
from triage_node.requestor import Peer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt
    from playwright.sync_api import Browser
    from playwright.sync_api import Page as Tab

    from tests.running import Node

pytestmark = [pytest.mark.peers, pytest.mark.timeout(300)]

SPEC = PhantomSpec(
    seed=6, slices=28, rows=128, columns=128, spacing_zyx_mm=(11.0, 3.0, 3.0), right_fraction=0.4, left_fraction=0.15
)
TOLD_APART = 24  # an overlay's colour: the greatest difference of two channels; a CT is grey
SERIES_NUMBERS = {"lesions": "S:9801", "lungs": "S:9802", "report": "S:9803", "overview": "S:9804"}

Planes = dict[str, "npt.NDArray[np.bool_]"]  # SOP Instance UID of an image -> [y, x] mask


@dataclass
class Study:
    """A study in the archive: its images and what the node made of them."""

    uid: str
    images: dict[str, pydicom.Dataset] = field(default_factory=dict)  # headers by SOP Instance UID
    objects: dict[str, Path] = field(default_factory=dict)  # by kind, in the node's state directory

    def masks(self, kind: str) -> dict[str, Planes]:
        """By segment label, right before left; images and masks are matched by where their planes lie."""
        dataset = pydicom.dcmread(self.objects[kind])
        labels = {int(segment.SegmentNumber): str(segment.SegmentLabel) for segment in dataset.SegmentSequence}
        heights = {round(float(image.ImagePositionPatient[2]), 2): uid for uid, image in self.images.items()}
        found: dict[str, Planes] = {label: {} for label in labels.values()}
        frames = np.atleast_3d(dataset.pixel_array.astype(bool))
        for pixels, frame in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
            z = float(frame.PlanePositionSequence[0].ImagePositionPatient[2])
            label = labels[int(frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber)]
            found[label][heights[round(z, 2)]] = pixels
        return found


@dataclass
class Line:
    """Archive, node and viewer, all running."""

    node: Node
    archive_port: int
    archive: str
    viewer: str
    folder: Path

    def scan(self, spec: PhantomSpec, number: int, kinds: set[str]) -> Study:
        """Send a phantom to archive and node; its study once the results of these kinds are in the archive."""
        place, person = self.folder / f"scan{number}", Person(number=number)
        files = write_study(place, spec, GE, person=person)  # feet first and Implicit VR
        for port, ae_title in ((self.archive_port, "ORTHANC"), (self.node.intake, "TRIAGE")):
            peer = Peer(ae_title=ae_title, host="127.0.0.1", port=port)
            sent = folder.send(place, peer, config.load(self.node.config), show=False)
            assert not sent["refused"], sent
        study = Study(uid=person.study_uid())
        wanted = {SERIES_NUMBERS[kind] for kind in kinds}

        def delivered() -> bool:
            found = set()
            for entry in rest(f"{self.archive}/studies?expand") or ():
                if entry["MainDicomTags"]["StudyInstanceUID"] == study.uid:
                    each = rest(f"{self.archive}/studies/{entry['ID']}/series?expand") or ()
                    found = {f"S:{one['MainDicomTags']['SeriesNumber']}" for one in each}
            return wanted <= found

        running.until(delivered, 120, f"{wanted} of {study.uid} are in the archive")
        for path in files:
            image = pydicom.dcmread(path, stop_before_pixels=True)
            study.images[str(image.SOPInstanceUID)] = image
        kinds = {number: kind for kind, number in SERIES_NUMBERS.items()}
        for path in (self.node.state_dir / "results" / study.uid).rglob("*.dcm"):
            number = pydicom.dcmread(path, specific_tags=["SeriesNumber"]).SeriesNumber
            study.objects[kinds[f"S:{number}"]] = path
        return study


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    ohif.require()
    place = tmp_path_factory.mktemp("viewers")
    with (
        orthanc(place / "orthanc", dicomweb=True) as (port, address),
        running.node(place / "node", pacs={"ORTHANC": port}, quiet_s=0.5) as node,
        ohif.served(address) as viewer,
    ):
        yield Line(node=node, archive_port=port, archive=address, viewer=viewer, folder=place)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = peers.require("chromium", package="chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(path), args=list(ohif.FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    tab = ohif.tab(browser)
    yield tab
    tab.context.close()


def _shown(tab: Tab, image: pydicom.Dataset) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """[y, x, 3] pixels of the viewer's canvas with this image on it, and [2, 3] (x, y, 1) of a voxel -> canvas."""
    assert f"/instances/{image.SOPInstanceUID}/" in ohif.show_image(tab, str(image.SOPInstanceUID))
    corner = np.array(image.ImagePositionPatient, float)
    rows_mm, columns_mm = map(float, image.PixelSpacing)
    across = np.array(image.ImageOrientationPatient[:3], float) * columns_mm
    down = np.array(image.ImageOrientationPatient[3:], float) * rows_mm
    drawn: dict[str, Any] = ohif.canvas(tab, [corner, corner + across, corner + down])
    first, right, below = (np.array(place) for place in drawn["places"])
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(drawn["png"].split(",")[1]))).convert("RGB"))
    return pixels, np.stack([right - first, below - first, first], axis=1)


def _coloured(tab: Tab, image: pydicom.Dataset) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.uint8]]:
    """[y, x] whether the viewer has put colour on a voxel of this image, and [y, x, 3] its colour there."""
    pixels, to_canvas = _shown(tab, image)
    y, x = np.mgrid[: image.Rows, : image.Columns]
    places = np.rint(to_canvas @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])).astype(int)
    inside = (places >= 0).all(axis=0) & (places[0] < pixels.shape[1]) & (places[1] < pixels.shape[0])
    assert inside.mean() > 0.95
    colours = np.zeros((x.size, 3), np.uint8)
    colours[inside] = pixels[places[1, inside], places[0, inside]]
    colours = colours.reshape(*x.shape, 3)
    return (colours.max(axis=2).astype(int) - colours.min(axis=2)) > TOLD_APART, colours


@pytest.fixture(scope="module")
def judged(line: Line) -> Study:
    return line.scan(SPEC, 1, set(SERIES_NUMBERS))


def test_outlines_lie_on_the_voxels_of_the_masks_and_on_no_other_slice(line: Line, judged: Study, tab: Tab) -> None:
    study = judged
    ohif.open_study(tab, line.viewer, study.uid)
    assert {number: modality for number, modality in ohif.series(tab).items() if number in SERIES_NUMBERS.values()} == {
        "S:9801": "SEG", "S:9802": "SEG", "S:9803": "SR", "S:9804": "OT"
    }  # fmt: skip
    lesions = _together(study.masks("lesions"))
    lungs = study.masks("lungs")
    ohif.open_series(tab, SERIES_NUMBERS["lesions"])
    _check(tab, study, lesions)
    ohif.open_series(tab, SERIES_NUMBERS["lungs"])  # over the lesions, as a reader opens them
    colours = _check(tab, study, _together(lungs, {"lesions": lesions}), but=lesions)
    uid = next(iter(colours))  # the slice with most
    right, left = (
        np.median(colours[uid][ndimage.binary_erosion(planes[uid] & ~lesions[uid])], axis=0).astype(int)
        for planes in lungs.values()
    )
    assert np.abs(right - left).max() > TOLD_APART, "both lungs have the same colour"


def _together(*segmented: dict[str, Planes]) -> Planes:
    """All segments as one: SOP Instance UID of an image -> [y, x] mask."""
    planes = [one for masks in segmented for one in masks.values()]
    return {uid: np.any([one[uid] for one in planes if uid in one], axis=0) for uid in set().union(*planes)}


def _check(tab: Tab, study: Study, masks: Planes, but: Planes | None = None) -> dict[str, npt.NDArray[np.uint8]]:
    """Colours lie on the masks and nowhere else, on slices with and without; the colours of the slices looked at.

    On the voxels of `but` two colours mix to any third, grey among them. Outlines may take half a voxel more or less.
    """
    by_size = sorted(masks, key=lambda uid: int(masks[uid].sum()))
    without = [uid for uid in study.images if uid not in masks]
    assert without
    found = {}
    for uid in (by_size[-1], by_size[len(by_size) // 2], without[0], without[-1]):
        seen, found[uid] = _coloured(tab, study.images[uid])
        mask = masks.get(uid, np.zeros_like(seen))
        certain = ndimage.binary_erosion(mask & ~but[uid] if but and uid in but else mask)
        assert seen[certain].all(), "no colour on part of the mask"
        assert not seen[~ndimage.binary_dilation(mask)].any(), "colour beside the mask"
        assert uid in without or certain.sum() > 20
    return found


def _first_numbers(group: pydicom.Dataset) -> list[str]:
    """What the viewer writes beside a measurement: the first five numbers, with two decimals."""
    numbers = [item for item in group.ContentSequence if item.ValueType == "NUM"][:5]
    measured = [(item.ConceptNameCodeSequence[0].CodeMeaning, item.MeasuredValueSequence[0]) for item in numbers]
    return [
        f"{name}: {float(value.NumericValue):.2f} {value.MeasurementUnitsCodeSequence[0].CodeValue}"
        for name, value in measured
    ]


def test_the_report_opens_where_most_lesion_is_and_its_arrows_lead_to_each_lung(
    line: Line, judged: Study, tab: Tab
) -> None:
    report = pydicom.dcmread(judged.objects["report"])
    study, right, left, *lesions = (_first_numbers(group) for group in report.ContentSequence[-1].ContentSequence)
    assert study[0].startswith("Affected fraction of worse lung: ")
    masks = _together(judged.masks("lesions"))
    sizes = {uid: int(mask.sum()) for uid, mask in masks.items()}
    ohif.open_study(tab, line.viewer, judged.uid)
    ohif.open_report(tab, SERIES_NUMBERS["report"], study[0])
    for numbers in (study, right, left, *lesions):
        if numbers is not study:
            ohif.next_measurement(tab, numbers[0])
        else:
            assert sizes[ohif.current_image(tab)] == max(sizes.values())
        for words in numbers:
            expect(tab.get_by_text(words, exact=True)).to_be_visible()
    expect(tab.get_by_text(ohif.BROKEN)).to_have_count(0)


def test_the_report_of_a_study_that_was_not_analysed_is_read_in_the_viewer(line: Line, tab: Tab) -> None:
    study = line.scan(replace(SPEC, body=Body.ABDOMEN, right_fraction=0.0, left_fraction=0.0), 2, {"report"})
    assert set(study.objects) == {"report"}
    ohif.open_study(tab, line.viewer, study.uid)
    assert ohif.series(tab)["S:9803"] == "SR"
    ohif.open_report(tab, SERIES_NUMBERS["report"], "This study was not analysed.")
    for words in ("NOT FOR DIAGNOSTIC USE.", "Not analysed", "No lungs found"):
        expect(tab.get_by_text(words, exact=True).first).to_be_visible()
    expect(tab.get_by_text("is not supported")).to_have_count(0)  # what the viewer says of images in a text
    expect(tab.get_by_text(ohif.BROKEN)).to_have_count(0)
