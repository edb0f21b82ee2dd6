"""Cases in .npz files, told apart by the arrays that they hold, wherever they lie.

hu, slice_index                     slices of a scan of COVID-19-CT-Seg, cropped to the lungs: a stack
hu_approx, spacing_zyx_mm_...       a whole volume of MedSeg
hu_approx, classes, no spacing      single slices of MedSeg
hu, name                            single slices with lungs
hounsfield                          a scan in the layout of the training programs, with a .json beside it
lung(s), lesion(s) without image    masks of the DICOM series in the folder of the same name; read by `dicom`
"""

from __future__ import annotations

import json
import zipfile
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from annotations import volumes
from annotations.unusable import Unusable
from prepare_medseg import PATIENTS

from evaluation.cases import (
    ASSUMED_CHEST_MM,
    Case,
    Drawn,
    Group,
    classes_of,
    framed,
    repeated,
)
from evaluation.naming import patient_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from evaluation.cases import Kind

Arrays = dict[str, npt.NDArray[Any]]

ASSUMED_PIXEL_MM = (1.4, 1.4)  # of single slices whose set does not say
LUNGS, LESIONS = ("lung", "lungs"), ("lesion", "lesions")
MASKS = {*LUNGS, *LESIONS, "classes"}


def holds(path: Path) -> frozenset[str]:
    """Names of the arrays in a .npz file, without reading them. Raises Unusable."""
    try:
        with zipfile.ZipFile(path) as file:
            return frozenset(entry.removesuffix(".npy") for entry in file.namelist())
    except (OSError, zipfile.BadZipFile) as error:
        raise Unusable(f"not a .npz file: {error}") from error


def only_masks(names: frozenset[str]) -> bool:
    """Whether a .npz file holds masks and no image."""
    return bool(names & MASKS) and not names & {"hu", "hu_approx", "hounsfield"}


def cases(path: Path, names: frozenset[str]) -> Iterator[Case]:
    """The cases of a file. Raises Unusable where its arrays are none of the known layouts."""
    if "hounsfield" in names:
        yield _training_case(path)
    elif "hu" in names and "slice_index" in names:
        yield _of_covid(path, path.stem, source="covid_ct_seg", kind="stack", read=_stack)
    elif "hu_approx" in names and _spacing_name(names) is not None:
        # these volumes are patients of COVID-19-CT-Seg, drawn by other experts
        scan = PATIENTS.get(path.stem, path.stem)
        yield _of_covid(path, scan, source="medseg_9", kind="series", read=_medseg_volume)
    elif "hu_approx" in names:
        yield from _slices(path, "hu_approx")
    elif "hu" in names and "name" in names:
        yield from _slices(path, "hu")
    else:
        raise Unusable(f"its arrays {', '.join(sorted(names))} are none of the known layouts")


def _of_covid(path: Path, scan: str, *, source: str, kind: Kind, read: Callable[[Path], Drawn]) -> Case:
    """A file of a set that shows COVID-19 alone; `scan` is the name by which the patient is known."""
    patient, others = patient_of(scan)
    return Case(
        name=path.stem,
        source=source,
        kind=kind,
        read=partial(read, path),
        patient=patient,
        names=(*others, f"{source}/{path.stem}"),
        group="covid",
    )


def masks_of(path: Path) -> Arrays:
    """Lungs and lesions of a file of masks, as `lungs` and `lesions` uint8 [z, y, x]."""
    found: Arrays = {}
    arrays = _read(path)
    for kind, names in (("lungs", LUNGS), ("lesions", ("classes", *LESIONS))):
        name = next((name for name in names if name in arrays), None)
        if name is not None:
            found[kind] = arrays[name].astype(np.uint8)
    return found


def _read(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _spacing_name(names: frozenset[str] | Arrays) -> str | None:
    return next((name for name in names if name.startswith("spacing_zyx_mm")), None)


def _lesions(arrays: Arrays) -> dict[str, Any]:
    name = next((name for name in ("classes", *LESIONS) if name in arrays), None)
    if name is None:
        return {}
    lesions, consolidation = classes_of(arrays[name].astype(np.uint8), told=True if name == "classes" else None)
    return {"lesions": lesions, "consolidation": consolidation}


def _lungs(arrays: Arrays) -> dict[str, Any]:
    name = next((name for name in LUNGS if name in arrays), None)
    return {} if name is None else {"lungs": (arrays[name] > 0).astype(np.uint8)}


def _stack(path: Path) -> Drawn:
    arrays = _read(path)
    order = np.argsort(arrays["slice_index"])
    last = int(arrays["slice_index"].max())
    of_slices = (*LUNGS, *LESIONS, "classes", "hu", "valid_box")
    arrays = {name: array[order] if name in of_slices else array for name, array in arrays.items()}
    pixel_mm = tuple(float(mm) for mm in arrays.get("pixel_spacing_mm", np.array(ASSUMED_PIXEL_MM)))
    hounsfield = arrays["hu"]
    boxes = arrays.get("valid_box")
    drawn = Drawn(
        volume=volumes.in_patient_order(hounsfield, (max(1.0, ASSUMED_CHEST_MM / (last + 1)), *pixel_mm)),
        **_lungs(arrays),
        **_lesions(arrays),
        counted=None if boxes is None else volumes.imaged(boxes, hounsfield.shape),
        in_ml=False,
        remarks=("the distance of the slices is unknown: fractions alone are measured",),
    )
    return repeated(framed(drawn))


def _medseg_volume(path: Path) -> Drawn:
    arrays = _read(path)
    name = _spacing_name(arrays)
    assert name is not None
    return Drawn(
        volume=volumes.in_patient_order(arrays["hu_approx"], tuple(float(mm) for mm in arrays[name])),
        **_lungs(arrays),
        **_lesions(arrays),
        in_ml=not name.endswith("unreliable"),
        remarks=("the spacing is unreliable: fractions alone are measured",) if name.endswith("unreliable") else (),
    )


def _slices(path: Path, image: str) -> Iterator[Case]:
    """A case for every slice; the file is read once, when the first of them is."""
    with np.load(path, allow_pickle=False) as file:
        titles = [str(name) for name in file["name"]] if "name" in file.files else None
        count = len(titles) if titles is not None else len(file[image])
    held: Arrays = {}

    def read(index: int) -> Drawn:
        if not held:
            held.update(_read(path))
        mine = {name: array[index : index + 1] for name, array in held.items() if len(array) == count}
        boxes = mine.get("valid_box")
        unreliable = bool(mine.get("hu_unreliable", np.zeros(1))[0])
        drawn = Drawn(
            volume=volumes.in_patient_order(mine[image], (1.0, *ASSUMED_PIXEL_MM)),
            **_lungs(mine),
            **_lesions(mine),
            counted=None if boxes is None else volumes.imaged(boxes, mine[image].shape),
            in_ml=False,
            remarks=("the attenuations of this slice are unreliable",) if unreliable else (),
        )
        return repeated(framed(drawn) if boxes is not None else drawn)

    for index in range(count):
        title = titles[index] if titles is not None else str(index)
        name = f"{path.stem}/{title}"
        yield Case(
            name=name,
            source=path.stem,
            kind="slice",
            read=partial(read, index),
            patient=name,
            names=(f"{path.stem}/{index}", f"{path.stem}/{title.split('.')[0]}"),
        )


def _training_case(path: Path) -> Case:
    beside = path.with_suffix(".json")
    card: dict[str, Any] = {}
    if beside.is_file():
        try:
            card = json.loads(beside.read_text(encoding="utf-8"))
        except ValueError as error:
            raise Unusable(f"{beside.name} is no JSON: {error}") from error
    patient, others = patient_of(str(card.get("patient") or path.stem))
    contiguous = bool(card.get("contiguous", True))
    return Case(
        name=path.stem,
        source=str(card.get("source") or path.parent.name),
        kind="series" if contiguous else "stack",
        read=partial(_training, path, card),
        patient=patient,
        names=(*others, str(card.get("patient") or path.stem)),
        group=_group(card),
        split=card.get("split"),
    )


def _group(card: dict[str, Any]) -> Group | None:
    if card.get("healthy"):
        return "healthy"
    return {True: "covid", False: "other", None: None}[card.get("covid")]


def _training(path: Path, card: dict[str, Any]) -> Drawn:
    arrays = _read(path)
    contiguous = bool(card.get("contiguous", True))
    boxes = arrays.get("valid_box")
    remarks = []
    if not contiguous:
        remarks.append("the slices have gaps: fractions alone are measured")
    if card.get("exact_hounsfield") is False:
        remarks.append("its attenuations are approximate")
    extra = _lesions(arrays)
    if card and extra:
        extra["lesions"], extra["consolidation"] = classes_of(arrays["lesions"], told=bool(card.get("classes")))
    drawn = Drawn(
        volume=volumes.in_patient_order(
            arrays["hounsfield"], tuple(float(mm) for mm in card.get("spacing_zyx_mm", (2.0, 2.0, 2.0)))
        ),
        **_lungs(arrays),
        **extra,
        counted=None if boxes is None else volumes.imaged(boxes, arrays["hounsfield"].shape),
        in_ml=contiguous and "spacing_zyx_mm" in card,
        remarks=tuple(remarks),
    )
    if boxes is not None and not contiguous:
        drawn = framed(drawn)
    return drawn if contiguous else repeated(drawn)
