"""A folder of DICOM: the CT series that was drawn on, and the lungs and lesions that were drawn in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pydicom
from annotations import regions
from annotations.unusable import Unusable

from training import layout, sources
from triage_node import volume
from triage_node.config import AnalysisSection
from triage_node.conformance import CT_SOP_CLASSES

if TYPE_CHECKING:
    from pathlib import Path

    from annotations.regions import Names
    from pydicom.dataset import Dataset

    from training.preparation import Arrays
    from triage_node.study import Mask, Series, Volume


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """What was drawn on a series, on its voxels [z, y, x]."""

    lungs: Mask | None = None
    lesions: npt.NDArray[np.uint8] | None = None  # 1 ground glass or not told apart, 2 consolidation
    classes: bool = False  # whether 1 and 2 were told apart
    ignored: tuple[str, ...] = ()  # names of regions that are neither, or that a program drew


def read(folder: Path) -> tuple[Volume, list[Dataset]]:
    """The CT series of a folder that was drawn on, otherwise its largest, and the objects drawn on it.

    Raises Unusable, or Refused with the reason why the series cannot be read.
    """
    series, drawings = [], []
    for study in volume.study_in(folder):
        for one in study.series:
            classes = {instance.sop_class_uid for instance in one.instances}
            if classes & set(CT_SOP_CLASSES):
                series.append(one)
            elif classes & regions.SOP_CLASSES:
                drawings += [pydicom.dcmread(instance.path) for instance in one.instances]
    if not series:
        raise Unusable(f"expected a CT series below {folder}")
    size = {one.key.series_instance_uid: len(one.instances) for one in series}
    drawn_on = {uid for drawing in drawings for uid in regions.drawn_series(drawing)} & set(size)
    chosen = max(series, key=lambda one: (one.key.series_instance_uid in drawn_on, len(one.instances)))
    return volume.read(chosen, AnalysisSection()), [one for one in drawings if _belongs(one, chosen)]


def drawn(on: Volume, drawings: list[Dataset], names: Names | None = None, *, also_automatic: bool = False) -> Drawn:
    """The lungs and lesions of all drawings together.

    What a program drew alone is no truth to learn from and counts with `also_automatic` only. Raises Unusable.
    """
    found = [regions.read(drawing, on, names, also_automatic=also_automatic) for drawing in drawings]
    masks = regions.together(found)
    lungs = regions.lungs_in(masks)
    return Drawn(
        lungs=None if lungs is None else lungs[0] > 0,
        lesions=regions.lesions_in(masks),
        classes=regions.tells_apart(masks),
        ignored=tuple(sorted({name for one in found for name in one.ignored})),
    )


def arrays_of(on: Volume, drawn_on_it: Drawn) -> Arrays:
    """Scan and masks in patient order, resampled. Raises ValueError where the slices are not axial."""
    turn = sources.patient_order(on)
    spacing = on.spacing_zyx_mm[1:]
    arrays: Arrays = {"hounsfield": layout.images_on_grid(sources.in_patient_order(on.hounsfield, turn), spacing)}
    for name, mask in (("lungs", drawn_on_it.lungs), ("lesions", drawn_on_it.lesions)):
        if mask is not None:
            turned = np.ascontiguousarray(mask[turn], dtype=np.uint8)
            arrays[name] = layout.labels_on_grid(turned, spacing)
    return arrays


def _belongs(drawing: Dataset, series: Series) -> bool:
    refers_to = regions.drawn_series(drawing)
    if refers_to:
        return series.key.series_instance_uid in refers_to
    first = pydicom.dcmread(series.instances[0].path, stop_before_pixels=True, specific_tags=["FrameOfReferenceUID"])
    return "FrameOfReferenceUID" in first and drawing.get("FrameOfReferenceUID") == first.FrameOfReferenceUID
