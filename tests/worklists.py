"""A hospital's morning in the journal: studies of every severity and state, with overview images, for the page."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from tests import filed
from triage_node.journal import queue
from triage_node.severity import ct_grade, ct_severity_score

if TYPE_CHECKING:
    from pathlib import Path

    from triage_node.journal import Journal

Image = npt.NDArray[np.uint8]  # [y, x, 3]
OWNER = "analyst"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A study to come: fractions where it will be judged, a refusal where it will not, neither while it waits."""

    accession_number: str
    right: float | None = None
    left: float = 0.0
    probability: float | None = None
    refusal: str | None = None
    description: str = "CT THORAX NATIV"
    warnings: tuple[str, ...] = ()
    trust: str = ""

    @property
    def study(self) -> str:
        """Its Study Instance UID."""
        return "1.2.826.0.1.3680043.8.498." + "".join(str(ord(sign)) for sign in self.accession_number)


TWELVE = (
    Case(accession_number="2026-004711", right=0.03, left=0.01, probability=0.12),
    Case(accession_number="2026-004712", right=0.0, left=0.0, probability=0.02, description="CT Thorax mit KM"),
    Case(accession_number="2026-004713", right=0.31, left=0.18, probability=0.88),
    Case(
        accession_number="2026-004714",
        refusal="no image lies at 112.5 mm: 3 slices seem to be missing between 110.0 mm and 117.5 mm",
    ),
    Case(accession_number="2026-004715", right=0.12, left=0.27),
    Case(accession_number="2026-004716", right=0.62, left=0.71, probability=0.97, description="CT chest low dose"),
    Case(accession_number="", right=0.08, left=0.004, probability=0.41),
    Case(
        accession_number="2026-004718",
        right=0.81,
        left=0.55,
        description="КТ органов грудной клетки",
        warnings=("the gantry was tilted by 12.0 degrees; the slices were sheared back",),
    ),
    Case(accession_number="2026-004719", refusal="no lungs were found", description="CT Schädel"),
    Case(accession_number="2026-004720", right=0.19, left=0.22, probability=0.64),
    Case(accession_number="2026-004721"),
    Case(accession_number="2026-004722"),
)


def arrive(journal: Journal, case: Case, now: float, *, slices: int = 3) -> None:
    """The study arrives, is closed and waits for the analyst."""
    for number in range(slices):
        header = filed.header(
            case.study,
            f"{case.study}.1",
            number,
            accession_number=case.accession_number,
            study_description=case.description,
            study_date="20261121",
        )
        filed.arrive(journal, header, now=now)
    filed.close_all(journal, now)


def judge_next(
    journal: Journal, cases: dict[str, Case], now: float, *, image: Image | None = None, systems: tuple[str, ...] = ()
) -> Case:
    """The analyst takes the next study and finishes it as its case says."""
    job = queue.claim(journal, OWNER, now)
    assert job is not None
    case = cases[job.study_instance_uid]
    answer = filed.result(
        job, right=case.right or 0.0, left=case.left, probability=case.probability, refusal=case.refusal
    )
    if answer.assessment is None:
        # as with the real thing, there is no overview of what was not analysed
        answer = replace(answer, objects=answer.objects[:1])
    else:
        found = answer.assessment
        answer = replace(
            answer,
            assessment=replace(
                found,
                ct_grade=ct_grade(found.affected_fraction),
                ct_ss=ct_severity_score(found.affected_fraction_both),
                consolidation_share=None if found.affected_fraction == 0 else 0.28,
                warnings=case.warnings,
                model=replace(found.model, trust=case.trust),
            ),
        )
        overview = next(one for one in answer.objects if one.kind == "overview")
        write_overview(journal.state_dir / overview.path, overview.sop_instance_uid, image)
    assert queue.finish(journal, job, OWNER, answer, (), now, systems=systems)
    return case


def fill(journal: Journal, cases: tuple[Case, ...], now: float, *, apart_s: float = 240.0) -> None:
    """All cases arrive, the last one just now; those that have an answer get it."""
    for number, case in enumerate(cases):
        arrive(journal, case, now - apart_s * (len(cases) - 1 - number))
        if case.right is not None or case.refusal is not None:
            judge_next(journal, {case.study: case}, now)


def crowd(journal: Journal, number: int, now: float) -> None:
    """So many judged studies without images or objects, the last one at `now`, in one transaction.

    Their severity runs through all that there is, again and again.
    """
    shares = [(17 * n % 101) / 100 for n in range(101)]
    answers = [
        queue.ASSESSMENT.dump_json(
            replace(filed.assessment(1, share, share / 2, 1 - share), ct_grade=ct_grade(share))
        ).decode()
        for share in shares
    ]
    with journal.writing() as database:
        for n in range(number):
            study, at = f"1.2.826.0.1.3680043.8.498.1.{n}", now - 0.1 * (number - n)
            result = database.conn.execute(
                "insert into results (study_instance_uid, generation, series_instance_uid, assessment_json,"
                " passed_over_json, identity_json, created_at, duration_s) values (?, 1, ?, ?, '[]', '{}', ?, 1.0)",
                (study, f"{study}.1", answers[n % len(answers)], at),
            ).lastrowid
            database.conn.execute(
                "insert into studies (study_instance_uid, accession_number, description, study_date, arrived_at, state,"
                " result_id) values (?, ?, 'CT THORAX', '20261121', ?, 'judged', ?)",
                (study, f"crowd-{n:05d}", at, result),
            )
        journal.note(database, "crowd arrived", at=now)


def write_overview(path: Path, sop_instance_uid: str, image: Image | None = None) -> None:
    """A Secondary Capture in colour, as results/overview.py writes it; a plain gradient unless an image is given."""
    if image is None:
        ramp = np.linspace(0, 200, 480, dtype=np.uint8)
        rest = np.full((400, 480), 60, np.uint8)
        image = np.stack([np.tile(ramp, (400, 1)), rest, rest], axis=-1)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = sop_instance_uid
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, sop_instance_uid
    dataset.Rows, dataset.Columns = image.shape[:2]
    dataset.SamplesPerPixel, dataset.PlanarConfiguration, dataset.PhotometricInterpretation = 3, 0, "RGB"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = np.ascontiguousarray(image).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
