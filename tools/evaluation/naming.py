"""What names and label files say of a study: the patient, the group, the side of the split.

Two files may say it outright and go before any name:
- `labels.csv` in the folder of data or below it, for the studies beside and below it: columns `study` (a name, a
  path or a Study Instance UID) and any of `patient`, `covid` and `healthy` (1, 0, true, false, yes, no), `group`
  (healthy, other, covid);
- a table in the `README.md` of the folder of data, with the columns `folder` and `what`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast, get_args

from annotations import labels as labels_file
from annotations.unusable import Unusable

from evaluation.cases import Group

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

SPLITS = ("train", "validation", "test")

# What a name says, the first that fits; a name that says nothing leaves the study without a label.
SAYS: tuple[tuple[str, Group], ...] = (
    (r"\b(non|not|no)[ -]?covid|covid[ -]?(19[ -])?neg|ricord[ -]1c", "other"),
    (r"covid|sars[ -]?cov|coronacases|ricord[ -]1[ab]|^ct[ -]?[1-4]$", "covid"),  # CT-1 to CT-4: folders of MosMed
    (r"\b(normal|healthy|control)s?\b|^ct[ -]?0$", "healthy"),
    (r"\bcap\b|pneumonia|cancer|tumou?r|nodule|nsclc|\blidc\b|\bluna\d*\b|\blung\d\b|tubercul|fibros", "other"),
)
SETS_OF_MANY_KINDS = re.compile(r"\([^)]*\)|covid-ct-md|ct-md")  # named after a disease that not all of them have


class BadLabels(Exception):
    """A label file or a split table cannot be used; the message names the line and what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What a label file says of one study."""

    group: Group | None = None
    patient: str | None = None


def group_in(text: str) -> Group | None:
    """The group that a folder's name or a short description tells, None where it tells none."""
    plain = SETS_OF_MANY_KINDS.sub(" ", text.lower()).replace("_", " ").strip()
    return next((group for pattern, group in SAYS if re.search(pattern, plain)), None)


def group_of_path(parts: Iterable[str]) -> Group | None:
    """The group that the innermost telling part of a path tells."""
    return next((group for part in reversed(list(parts)) if (group := group_in(part)) is not None), None)


def patient_of(name: str) -> tuple[str, tuple[str, ...]]:
    """The patient of a scan by the scan's name, and under which other names a split table may know the patient.

    The scans of COVID-19-CT-Seg are named `coronacases_002` or `radiopaedia_10_85902_1` (case, study, series), or as
    their addresses were: `coronacases_org_002`, `radiopaedia_org_covid-19-pneumonia-10_85902_1-dcm`. One case of
    Radiopaedia is one person.
    """
    if match := re.search(r"coronacases(?:_org)?_(\d+)", name):
        return f"coronacases_{match[1]}", ()
    if match := re.search(r"radiopaedia(?:_org_covid-19-pneumonia-|_)(\d+)_(\d+)", name):
        return f"radiopaedia_{match[1]}", (f"radiopaedia_{match[1]}_{match[2]}",)
    return name, ()


class Labels:
    """The label files of a folder of data. Raises BadLabels."""

    def __init__(self, data: Path) -> None:
        self._files: list[tuple[Path, Mapping[str, Label]]] = []
        self._unused: dict[Path, set[str]] = {}  # rows of the tables in the folder that no study has asked for
        for path in sorted({*data.rglob(labels_file.FILE), *data.parent.glob(labels_file.FILE)}):
            labels = _of_csv(path)
            self._files.append((path.parent, labels))
            if path.is_relative_to(data):
                self._unused[path.parent] = set(labels)
        for readme in (data / "README.md", data.parent / "README.md"):
            if readme.is_file():
                self._files.append((readme.parent, _of_readme(readme)))

    def of(self, place: Path, names: Iterable[str]) -> Label:
        """What is said of a study at `place` under one of its names; an empty label where nothing is."""
        wanted = list(names)
        found = Label()
        for folder, labels in self._files:
            if not place.is_relative_to(folder):
                continue
            for name in (*wanted, place.name, place.name.split(".")[0], place.relative_to(folder).as_posix()):
                label = labels.get(name)
                if label is not None:
                    self._unused.get(folder, set()).discard(name)
                    found = Label(group=found.group or label.group, patient=found.patient or label.patient)
        return found

    def unused(self) -> list[tuple[Path, str]]:
        """The label files in the folder of data with the names of studies that were not found."""
        return [(folder / labels_file.FILE, name) for folder, names in self._unused.items() for name in sorted(names)]


def _of_csv(path: Path) -> dict[str, Label]:
    try:
        columns, rows = labels_file.rows(path)
    except Unusable as error:
        raise BadLabels(str(error)) from error
    if "study" not in columns:
        raise BadLabels(f"{path} has no column 'study'; its columns may be study, patient, covid, healthy, group")
    labels: dict[str, Label] = {}
    for where, row in rows:
        group = row.get("group", "").lower()
        if group and group not in get_args(Group):
            raise BadLabels(f"{where}: group is {group!r}; allowed are {', '.join(get_args(Group))} or nothing")
        answers = {}
        for column in ("covid", "healthy"):
            value = row.get(column, "").lower()
            if value and value not in labels_file.ANSWERS:
                raise BadLabels(f"{where}: {column} is {value!r}; allowed are 1, 0, true, false or nothing")
            answers[column] = labels_file.ANSWERS.get(value)
        labels[row["study"]] = Label(group=_group(group, answers, where), patient=row.get("patient") or None)
    return labels


def _group(group: str, answers: Mapping[str, bool | None], where: str) -> Group | None:
    """What the columns say together. Raises BadLabels where they contradict each other."""
    covid, healthy = answers["covid"], answers["healthy"]
    said = group or ("covid" if covid else "healthy" if healthy else "other" if covid is False else "")
    for name, answer in (("covid", covid), ("healthy", healthy)):
        if said and answer is not None and (said == name) != answer:
            raise BadLabels(f"{where}: group {said!r} and {name} {answer!r} contradict each other")
    return cast("Group | None", said or None)


def _of_readme(path: Path) -> dict[str, Label]:
    """Rows of Markdown tables whose first column is called folder and whose second is called what."""
    labels: dict[str, Label] = {}
    inside = False
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.lstrip().startswith("|") or len(cells) < 2:
            inside = False
        elif [cell.lower() for cell in cells[:2]] == ["folder", "what"]:
            inside = True
        elif inside and cells[0] and (group := group_in(cells[1])) is not None:
            labels[cells[0].split()[0].strip("`/")] = Label(group=group)
    return labels


def read_split(path: Path) -> dict[str, str]:
    """Patient -> train, validation or test, from a JSON object. Raises BadLabels."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadLabels(f"the split table {path} cannot be read: {error}") from error
    if not isinstance(table, dict) or not all(value in SPLITS for value in table.values()):
        raise BadLabels(f"{path} must be one JSON object: patient -> {', '.join(SPLITS)}")
    return table


def side_of(names: Iterable[str], table: Mapping[str, str]) -> tuple[str, str] | None:
    """The table's name of a patient and the patient's side; None where the table knows none of `names`.

    `radiopaedia_29` finds `radiopaedia_29_86490`: a case is one person, whatever study the table names it by. Raises
    BadLabels where names of one person lie on two sides.
    """
    found = {name: table[name] for name in names if name in table}
    for name in names:
        if re.fullmatch(r"radiopaedia_\d+", name):
            found |= {key: side for key, side in table.items() if key.startswith(f"{name}_")}
    if len(set(found.values())) > 1:
        raise BadLabels(f"one person lies on both sides of the split: {found}")
    return next(iter(found.items()), None)
