"""Turns a hospital's own DICOM studies, with lungs and lesions drawn in any viewer, into the training layout.

    python tools/prepare_dicom.py our-studies training-data --source our-hospital

Expected below the folder: one folder a study (CT images with Segmentation objects or RT Structure Sets, at any depth)
and labels.csv with the columns study (the folder), patient, covid and, if known, healthy (yes, no or empty).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from annotations import labels as labels_file
from annotations.regions import Names, plain
from annotations.unusable import Unusable
from training import drawings, preparation
from training.layout import StudyCard
from training.preparation import Made, ToPrepare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

REQUIRED = ("study", "patient", "covid")

ExtraNames = Annotated[list[str] | None, typer.Option(help="Further name of such a region; may be repeated.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A row of labels.csv."""

    study: str
    patient: str
    covid: bool | None
    healthy: bool | None


def main(
    data: preparation.Data,
    out: preparation.Out,
    source: Annotated[str, typer.Option(help="Name of this data set in the layout.")] = "hospital",
    licence: Annotated[str, typer.Option(help="Who may use it, for the cards.")] = "not published",
    lungs: ExtraNames = None,
    lesions: ExtraNames = None,
    ground_glass: ExtraNames = None,
    consolidation: ExtraNames = None,
    also_automatic: Annotated[
        bool, typer.Option("--also-automatic", help="Learn from segments that a program drew alone, too.")
    ] = False,
    patients_out: preparation.PatientsOut = 0.2,
    seed: preparation.Seed = 0,
    split: preparation.SplitFile = preparation.SHIPPED_SPLIT,
    again: preparation.Again = False,
    find_lungs: preparation.FindLungs = True,
    as_json: preparation.AsJson = False,
) -> None:
    """Prepare a hospital's own studies for training.

    DATA holds one folder a study (CT with Segmentation objects or RT Structure Sets of any viewer) and labels.csv with
    the columns study (name of the folder), patient (any pseudonym; all studies of a person bear the same), covid and,
    if known, healthy: yes, no, or empty where nobody knows.

    Lungs are known by their code or name; lesions by names such as lesion, infection, ground glass, consolidation.
    Other names are given by the options. What was left out is said. Healthy studies need no drawing.
    """
    if not re.fullmatch(r"[\w.-]+", source):
        raise typer.BadParameter("letters, digits, dots, hyphens and underscores only", param_hint="--source")
    known = Names()
    names = replace(
        known,
        lungs=known.lungs | {plain(name) for name in lungs or ()},
        lesions=known.lesions | {plain(name) for name in lesions or ()},
        ground_glass=known.ground_glass | {plain(name) for name in ground_glass or ()},
        consolidation=known.consolidation | {plain(name) for name in consolidation or ()},
    )
    settings = preparation.Settings(
        out=out, patients_out=patients_out, seed=seed, split=split, again=again, find_lungs=find_lungs
    )
    make = partial(_study, source=source, licence=licence, names=names, also_automatic=also_automatic)
    preparation.prepare(studies(data, source, make), settings, as_json=as_json)


def program() -> typer.Typer:
    """The command line."""
    app = typer.Typer(add_completion=False)
    app.command(help=preparation.in_paragraphs(main.__doc__ or ""))(main)
    return app


def studies(data: Path, source: str, make: Callable[[Path | None, Label | None, str], Made]) -> Iterator[ToPrepare]:
    """The studies that labels.csv names and those that lie in the folder without being named."""
    labels = read_labels(data / "labels.csv")
    folders = {path.name: path for path in sorted(data.iterdir()) if path.is_dir() and not path.name.startswith(".")}
    for name in sorted({*labels, *folders}):
        label = labels.get(name)
        yield ToPrepare(
            name=re.sub(r"[^\w.-]+", "_", name),
            source=source,
            patient=f"{source}/{label.patient}" if label else name,
            make=partial(make, folders.get(name), label, name),
        )


def read_labels(path: Path) -> dict[str, Label]:
    """labels.csv by study. Raises Unusable with the line and what is allowed."""
    if not path.exists():
        raise Unusable(f"expected {path} with the columns study,patient,covid and, if known, healthy")
    columns, rows = labels_file.rows(path)
    labels: dict[str, Label] = {}
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise Unusable(f"{path}: the column {missing[0]} is missing; expected study,patient,covid")
    for where, row in rows:
        study, patient = row["study"], row["patient"]
        if not study or not patient:
            raise Unusable(f"{where}: study and patient must be given")
        if study in labels:
            raise Unusable(f"{where}: {study} is named twice")
        labels[study] = Label(
            study=study,
            patient=patient,
            covid=_answer(row["covid"], where, "covid"),
            healthy=_answer(row.get("healthy", ""), where, "healthy"),
        )
    return labels


def _answer(value: str, where: str, column: str) -> bool | None:
    if value and value.lower() not in labels_file.ANSWERS:
        raise Unusable(f"{where}: {column} is {value!r}; yes, no or nothing is allowed")
    return labels_file.ANSWERS.get(value.lower())


def _study(
    folder: Path | None,
    label: Label | None,
    name: str,
    *,
    source: str,
    licence: str,
    names: Names,
    also_automatic: bool,
) -> Made:
    if folder is None:
        raise Unusable(f"labels.csv names {name}, but there is no such folder")
    if label is None:
        raise Unusable(f"labels.csv does not name {name}")
    volume, objects = drawings.read(folder)
    drawn = drawings.drawn(volume, objects, names, also_automatic=also_automatic)
    arrays = drawings.arrays_of(volume, drawn)
    hounsfield, lesions = arrays["hounsfield"], arrays.get("lesions")
    assert hounsfield is not None
    if label.healthy and lesions is not None and lesions.any():
        raise Unusable("labels.csv calls it healthy, but lesions were drawn")
    if label.healthy and lesions is None:
        arrays["lesions"] = np.zeros(hounsfield.shape, dtype=np.uint8)
    by = "reader" if lesions is not None else "labelled healthy" if label.healthy else None
    card = StudyCard(
        patient=f"{source}/{label.patient}",
        source=source,
        licence=licence,
        covid=label.covid,
        healthy=label.healthy,
        classes=drawn.classes,
        spacing_zyx_mm=(volume.spacing_zyx_mm[0], 2.0, 2.0),
        lungs_by=None if drawn.lungs is None else "reader",
        lesions_by=by,
    )
    return Made(card, arrays, remark=f"left out {', '.join(drawn.ignored)}" if drawn.ignored else "")


if __name__ == "__main__":
    program()()
