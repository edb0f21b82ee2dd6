"""What all tools/prepare_*.py share: split by patient, resuming, progress, bad studies, the command line.

A script says which studies a download holds (`ToPrepare`, made one by one) and leaves the rest to `program`.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import typer
from annotations import volumes
from annotations.unusable import Unusable
from pydantic import ValidationError
from pydicom.errors import InvalidDicomError
from rich.console import Console
from rich.progress import track

from training import layout
from training.layout import Split, StudyCard
from triage_node import lungs
from triage_node.errors import Refused

SHIPPED_SPLIT = Path(__file__).parents[2] / "nets" / "weights" / "split.json"
BAD_STUDY = (Unusable, Refused, OSError, ValueError, InvalidDicomError)  # skipped, the others go on

Arrays = dict[str, npt.NDArray[Any] | None]


class Made(NamedTuple):
    """A study ready to be written, and what people should know of it."""

    card: StudyCard
    arrays: Arrays
    remark: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToPrepare:
    """A study of a download: its name in the layout, and how it is made."""

    name: str
    source: str
    patient: str  # the same in every data set that shows this person
    make: Callable[[], Made]


Studies = Callable[[Path], Iterator[ToPrepare]]

Data = Annotated[Path, typer.Argument(help="The unpacked download.", exists=True, file_okay=False)]
Out = Annotated[Path, typer.Argument(help="Where the training layout is written; sets may share it.")]
PatientsOut = Annotated[
    float, typer.Option("--patients-out", min=0.0, max=1.0, help="Share of the patients kept out for validation.")
]
Seed = Annotated[int, typer.Option("--seed", help="Another seed keeps other patients out.")]
SplitFile = Annotated[
    Path,
    typer.Option(
        "--split",
        help="JSON of patients to train, validation or test; it goes before --patients-out.",
        show_default="nets/weights/split.json, that of the shipped weights",
    ),
]
Again = Annotated[bool, typer.Option("--again", help="Make studies anew that are there already.")]
FindLungs = Annotated[bool, typer.Option(help="Where nobody drew the lungs, find them by the node's classical method.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a download is prepared."""

    out: Path
    patients_out: float = 0.2
    seed: int = 0
    split: Path = SHIPPED_SPLIT
    again: bool = False
    find_lungs: bool = True


@dataclass(slots=True, kw_only=True)
class Summary:
    """What became of the studies."""

    written: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)  # from an earlier run
    skipped: dict[str, str] = field(default_factory=dict)  # name -> why
    remarks: dict[str, str] = field(default_factory=dict)  # of written studies

    def sentence(self) -> str:
        """One line for people."""
        line = f"{len(self.written)} studies written, {len(self.present)} were there already"
        return f"{line}, {len(self.skipped)} skipped" if self.skipped else line


def split_of(patient: str, patients_out: float, seed: int) -> Split:
    """The side of a patient: the same in every run and on every machine, whichever other patients there are."""
    digest = hashlib.sha256(f"{seed} {patient}".encode()).digest()
    return "validation" if int.from_bytes(digest[:8], "big") / 2**64 < patients_out else "train"


def run(studies: Iterator[ToPrepare], settings: Settings, *, console: Console) -> Summary:
    """Prepare every study; one that cannot be used is said and skipped. Raises Unusable for a whole download."""
    fixed = _fixed(settings.split)
    summary = Summary()
    for study in track(list(studies), description="preparing", console=console):
        split = fixed.get(study.patient) or split_of(study.patient, settings.patients_out, settings.seed)
        if not settings.again and _is_there(settings.out, study, split):
            summary.present.append(study.name)
            continue
        try:
            card, arrays, remark = study.make()
            if settings.find_lungs and card.contiguous and arrays.get("lungs") is None:
                card, arrays = _with_lungs(card, arrays)
            _check(arrays)
        except BAD_STUDY as error:
            summary.skipped[study.name] = str(error)
            console.print(f"skipped {study.name}: {error}", markup=False, highlight=False)
            continue
        card = card.model_copy(update={"split": split})
        _card_of(settings.out, study).unlink(missing_ok=True)  # a run that is cut off leaves no card without its pixels
        layout.write(settings.out, study.name, card, **arrays)
        summary.written.append(study.name)
        if remark:
            summary.remarks[study.name] = remark
            console.print(f"{study.name}: {remark}", markup=False, highlight=False)
    return summary


def finish(summary: Summary, *, as_json: bool) -> None:
    """Print the summary; exit 1 where not a single study could be used."""
    if as_json:
        print(json.dumps(asdict(summary), indent=1))
    else:
        print(summary.sentence())
    if not summary.written and not summary.present:
        raise typer.Exit(1)


def program(studies: Studies) -> typer.Typer:
    """The command line of a script; the docstring of `studies` is its help."""
    app = typer.Typer(add_completion=False)

    @app.command(help=in_paragraphs(studies.__doc__ or ""))
    def main(
        data: Data,
        out: Out,
        patients_out: PatientsOut = 0.2,
        seed: Seed = 0,
        split: SplitFile = SHIPPED_SPLIT,
        again: Again = False,
        find_lungs: FindLungs = True,
        as_json: AsJson = False,
    ) -> None:
        settings = Settings(
            out=out, patients_out=patients_out, seed=seed, split=split, again=again, find_lungs=find_lungs
        )
        prepare(studies(data), settings, as_json=as_json)

    return app


def in_paragraphs(text: str) -> str:
    """A docstring with one line a paragraph, for a terminal of any width."""
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(text).split("\n\n"))


def prepare(studies: Iterator[ToPrepare], settings: Settings, *, as_json: bool) -> None:
    """Run, and end the program with a sentence where the download as a whole cannot be used."""
    console = Console(stderr=True, soft_wrap=True)
    try:
        summary = run(studies, settings, console=console)
    except Unusable as error:
        console.print(str(error), markup=False, highlight=False)
        raise typer.Exit(2) from error
    finish(summary, as_json=as_json)


def _fixed(path: Path) -> dict[str, Split]:
    if not path.exists():
        if path == SHIPPED_SPLIT:
            return {}
        raise Unusable(f"expected {path}: a JSON object of patients to train, validation or test")
    found = json.loads(path.read_text(encoding="utf-8"))
    wrong = [f"{patient}: {split}" for patient, split in found.items() if split not in {"train", "validation", "test"}]
    if wrong:
        raise Unusable(f"{path}: {wrong[0]} is none of train, validation, test")
    return dict(found)


def _is_there(root: Path, study: ToPrepare, split: Split) -> bool:
    """Whether the study is complete in the layout; its card follows another split without its pixels being made."""
    path = _card_of(root, study)
    try:
        card = StudyCard.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return False
    if not path.with_suffix(".npz").exists():
        return False
    if card.split != split:
        changed = card.model_copy(update={"split": split})
        path.write_text(changed.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return True


def _card_of(root: Path, study: ToPrepare) -> Path:
    return root / study.source / f"{study.name}.json"


def _with_lungs(card: StudyCard, arrays: Arrays) -> tuple[StudyCard, Arrays]:
    hounsfield, lesions = arrays["hounsfield"], arrays.get("lesions")
    assert hounsfield is not None
    try:
        found = lungs.find(volumes.in_patient_order(hounsfield, card.spacing_zyx_mm)).map > 0
    except Refused:
        return card, arrays
    if lesions is not None:
        found |= lesions > 0  # lesions lie in the lungs, also where they hide them
    return card.model_copy(update={"lungs_by": "classical"}), {**arrays, "lungs": found.astype(np.uint8)}


def _check(arrays: Arrays) -> None:
    """What cannot be right: masks of another shape, lungs that are nowhere."""
    hounsfield, drawn = arrays["hounsfield"], arrays.get("lungs")
    assert hounsfield is not None
    for name in ("lungs", "lesions"):
        mask = arrays.get(name)
        if mask is not None and mask.shape != hounsfield.shape:
            raise Unusable(f"{name} are {mask.shape}, the scan is {hounsfield.shape}")
    if drawn is not None and not drawn.any():
        raise Unusable("the lung mask is empty")
