"""A CT series -> Hounsfield units on a grid, or a coded reason why not; and the study that lies in a folder.

The way is always the same: headers, stack, limits, pixels. The first three need no pixel data, so that `facts_of`
finds most refusals without decoding anything.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydicom.uid import UID

from triage_node import archive, filing, headers, hounsfield, selection
from triage_node.attributes import quiet, refuse
from triage_node.conformance import CT_SOP_CLASSES
from triage_node.errors import CannotUnderstand, Refused
from triage_node.jpeg import JPEG_SYNTAXES, JpegDecoders
from triage_node.stack import Stack, stacked
from triage_node.study import Hounsfield, Instance, NotAnalysed, Reason, Series, SeriesKey, Study, Volume

if TYPE_CHECKING:
    from pathlib import Path

    from triage_node.config import AnalysisSection
    from triage_node.headers import Frame, Header

Progress = Callable[[int, int], None]  # slices decoded, slices in all


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignored:
    """A file that is part of no study, and why."""

    path: Path
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What lies in a folder."""

    studies: tuple[Study, ...]
    ignored: tuple[Ignored, ...]


def instance_of(path: Path) -> Instance:
    """Read who a Part 10 file is.

    Raises CannotUnderstand when it is not one, OSError when it cannot be read.
    """
    header, syntax, offset = filing.read_file(path)
    return Instance(
        sop_instance_uid=header.sop_instance_uid,
        sop_class_uid=header.sop_class_uid,
        transfer_syntax_uid=syntax,
        series=SeriesKey(study_instance_uid=header.study_instance_uid, series_instance_uid=header.series_instance_uid),
        path=path,
        digest=archive.digest_from(path, offset),
    )


def contents_of(folder: Path) -> Contents:
    """Group all DICOM files below a folder, at any depth, in order of their paths.

    Of several files with one SOP Instance UID the first counts, as in intake.
    """
    series: dict[SeriesKey, dict[str, Instance]] = defaultdict(dict)
    ignored = []
    for path in sorted(entry for entry in folder.rglob("*") if entry.is_file()):
        try:
            with quiet():
                instance = instance_of(path)
        except CannotUnderstand as error:
            ignored.append(Ignored(path=path, words=str(error)))
            continue
        except OSError as error:
            ignored.append(Ignored(path=path, words=f"cannot be read: {error.strerror}"))
            continue
        first = series[instance.series].setdefault(instance.sop_instance_uid, instance)
        if first is not instance:
            other = "the same object" if first.digest == instance.digest else "another object under the same UID"
            ignored.append(Ignored(path=path, words=f"{other} as {first.path.name}"))
    studies: dict[str, list[Series]] = defaultdict(list)
    for key, instances in series.items():
        studies[key.study_instance_uid].append(Series(key=key, instances=tuple(instances.values())))
    return Contents(
        studies=tuple(Study(study_instance_uid=uid, series=tuple(all_)) for uid, all_ in studies.items()),
        ignored=tuple(ignored),
    )


def study_in(folder: Path) -> tuple[Study, ...]:
    """The studies below a folder; `contents_of` tells what was ignored, too."""
    return contents_of(folder).studies


def facts_of(series: Series) -> selection.SeriesFacts:
    """What the headers say of a series; never raises Refused, but carries the refusal.

    Images at one place are taken for repeats here: only their pixels can tell.
    """
    read: list[Header] = []
    stack: Stack | None = None
    refusal: NotAnalysed | None = None
    warnings: tuple[str, ...] = ()
    with quiet():
        try:
            frames, warnings = _frames_of(series, read)
            stack = stacked(frames, same_pixels=None)
            warnings += stack.warnings
        except Refused as error:
            refusal = error.not_analysed
    fit = [header for header in read if header.frames] or read
    head = min(fit, key=lambda header: (header.image_type, header.acquisition_number or 0), default=None)
    first = stack.frames[0] if stack else None
    classes = Counter(sorted(instance.sop_class_uid for instance in series.instances))
    return selection.SeriesFacts(
        key=series.key,
        modality=head.modality if head else "",
        sop_class_uid=classes.most_common(1)[0][0] if classes else "",
        image_type=head.image_type if head else (),
        original=bool(fit) and all(header.original for header in fit),
        lossy=any(header.lossy for header in fit),
        description=head.description if head else "",
        body_part=head.body_part if head else "",
        kernel=head.kernel if head else "",
        manufacturer=head.manufacturer if head else "",
        contrast=any(header.contrast for header in fit),
        patient_position=head.patient_position if head else "",
        series_number=head.series_number if head else None,
        acquisition_numbers=tuple(sorted({n for h in fit if (n := h.acquisition_number) is not None})),
        instances=len(series.instances),
        slices=len(stack.frames) if stack else 0,
        rows=first.cells.rows if first else None,
        columns=first.cells.columns if first else None,
        pixel_spacing_mm=(first.row_spacing_mm, first.column_spacing_mm) if first else None,
        orientation=first.orientation if first else None,
        spacing_mm=stack.spacing_mm if stack else None,
        thickness_mm=first.thickness_mm if first else None,
        coverage_mm=stack.coverage_mm if stack else None,
        tilt_degrees=stack.tilt_degrees if stack else None,
        warnings=warnings,
        refusal=refusal,
    )


def read(series: Series, settings: AnalysisSection, *, progress: Progress | None = None) -> Volume:
    """Read a series as a volume; its result does not depend on the order in which the instances came.

    Raises Refused with the code and a sentence for people.
    """
    with quiet(), JpegDecoders() as decoders:
        stack, warnings = ordered(series, decoders)
        refusal = selection.unsuitable(
            slices=len(stack.frames), spacing_mm=stack.spacing_mm, coverage_mm=stack.coverage_mm, settings=settings
        )
        if refusal is not None:
            raise Refused(refusal)
        return Volume(
            hounsfield=decoded(stack.frames, decoders, progress),
            affine_lps_mm=stack.affine_lps_mm,
            slice_positions_mm=stack.positions_mm,
            instances=tuple(frame.instance for frame in stack.frames),
            frame_numbers=_frame_numbers(stack.frames),
            warnings=warnings + stack.warnings,
            stored_places=tuple(frame.stored for frame in stack.frames),
            frame_of_reference_uid=stack.frames[0].frame_of_reference_uid,
        )


def ordered(series: Series, decoders: JpegDecoders) -> tuple[Stack, tuple[str, ...]]:
    """The slices of a series in the order in which `read` takes them, and what its headers warn of.

    Decodes no pixels but those of images that lie at one place. Raises Refused.
    """

    def same_pixels(one: Frame, other: Frame) -> bool:
        return np.array_equal(decoded((one,), decoders), decoded((other,), decoders))

    frames, warnings = _frames_of(series, [])
    return stacked(frames, same_pixels=same_pixels), warnings


def _frames_of(series: Series, read: list[Header]) -> tuple[list[Frame], tuple[str, ...]]:
    """The axial frames of a series and what to warn of; appends every header that could be read to `read`."""
    instances = sorted(series.instances, key=lambda instance: instance.sop_instance_uid)
    ct = [instance for instance in instances if instance.sop_class_uid in CT_SOP_CLASSES]
    if not ct:
        kinds = sorted({UID(instance.sop_class_uid).name for instance in instances}) or ["none at hand"]
        refuse(Reason.NOT_CT, f"the objects are no CT images: {', '.join(kinds)}")
    refusals: list[Refused] = []
    for instance in ct:
        try:
            read.append(headers.read(instance))
        except Refused as error:
            refusals.append(error)
    if refusals:
        raise refusals[0]
    unfit = Counter(why for header in read for why in header.unfit)
    frames = [frame for header in read for frame in header.frames]
    if not frames:
        raise Refused(min(unfit, key=lambda why: (-unfit[why], why.words)))
    warnings = {remark for header in read for remark in header.remarks}
    for why, count in unfit.items():
        warnings.add(f"{count} of {unfit.total() + len(frames)} images were left out: {why.words}")
    if len(ct) < len(instances):
        warnings.add(f"{len(instances) - len(ct)} of {len(instances)} objects of the series are no CT images")
    return frames, tuple(sorted(warnings))


def _frame_numbers(frames: Sequence[Frame]) -> tuple[int, ...] | None:
    numbers = [frame.number for frame in frames]
    return None if None in numbers else tuple(number for number in numbers if number is not None)


def decoded(frames: Sequence[Frame], decoders: JpegDecoders, progress: Progress | None = None) -> Hounsfield:
    """[z, y, x] Hounsfield units of `frames`, in their order. Raises Refused UNDECODABLE."""
    cells = frames[0].cells
    volume = np.empty((len(frames), cells.rows, cells.columns), dtype=np.int16)
    # a multi-frame object is opened once
    indices: dict[str, list[int]] = defaultdict(list)
    for index, frame in enumerate(frames):
        indices[frame.instance.sop_instance_uid].append(index)

    def fill(of_instance: list[int]) -> int:
        hounsfield.decode([frames[i] for i in of_instance], [volume[i] for i in of_instance], decoders)
        return len(of_instance)

    # a thread for each child process; what is not compressed is only read and looked up, outside the lock of the
    # interpreter; the other decoders hold that lock and gain nothing from a second thread
    threads = decoders.count if cells.transfer_syntax_uid in JPEG_SYNTAXES or cells.offset is not None else 1
    done = 0
    with ThreadPoolExecutor(threads) as pool:
        for count in pool.map(fill, indices.values()):
            done += count
            if progress is not None:
                progress(done, len(frames))
    return volume
