"""Assessment -> Comprehensive 3D SR by TID 1500 (PS3.16 annex A): groups for study, lungs and segments of lesions.

A study that was not analysed gets a report by the same template that says so in codes. Its title promises no
measurements: OHIF then shows the words instead of looking for places.

What a reader must not miss stands before the image library and the groups: the caution, the state of the analysis,
every warning, the answer in one sentence, and what this report supersedes (TID 1500 is extensible).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from triage_node import codes
from triage_node.conformance import SEGMENTATION_STORAGE
from triage_node.results import algorithm, segmentation
from triage_node.results.center import STUDY
from triage_node.results.content import Item, Point, Quantity, Reference, Relationship, Uid
from triage_node.results.document import document
from triage_node.results.german import GERMAN
from triage_node.results.wording import ENGLISH, Sentence
from triage_node.study import Laterality

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pydicom.dataset import Dataset
    from pydicom.sr.coding import Code

    from triage_node.identity import ResultIdentity
    from triage_node.results.center import Voxel
    from triage_node.results.source import Source
    from triage_node.results.wording import Wording
    from triage_node.study import Assessment, LungMeasurement, Model, NotAnalysed, PassedOver

WORDINGS: Mapping[str, Wording] = MappingProxyType({"en": ENGLISH, "de": GERMAN})  # by results.language

_MISSING = {Laterality.RIGHT: Sentence.NO_RIGHT_LUNG, Laterality.LEFT: Sentence.NO_LEFT_LUNG}
_CONTAINS = Relationship.CONTAINS
_MODIFIER = Relationship.HAS_CONCEPT_MOD
_OBSERVATION = Relationship.HAS_OBS_CONTEXT


def judged(
    assessment: Assessment,
    source: Source,
    identity: ResultIdentity,
    segmentations: Sequence[Dataset],
    centers: Mapping[str, Voxel],
    language: str = "en",
) -> Dataset:
    """The report of a judged study; `segmentations` are the finished objects that it refers to.

    `centers` are places by the name of what is measured: `center.STUDY`, and the tracking name of each segment.
    """
    wording = WORDINGS[language]
    by_tracking = _segments(segmentations)
    points = _points(centers, source, wording)
    missing = [side for side in Laterality if side not in {lung.laterality for lung in assessment.lungs}]
    warnings = [
        *(_text(codes.WARNING, wording.sentence(_MISSING[side])) for side in missing),
        *(_text(codes.WARNING, words, *_english(wording)) for words in assessment.warnings),
    ]
    status = codes.PARTIALLY_SUCCEEDED if missing else codes.SUCCEEDED
    state = [
        _code(codes.STATE_OF_ANALYSIS, codes.ANALYSED_WITH_WARNINGS if warnings else codes.ANALYSED),
        _code(codes.SUMMARY_OF_ANALYSES, status),
        *warnings,
    ]
    lesions = _lesion_groups(assessment, source, identity, by_tracking, points, wording)
    head = [
        _comment(wording.sentence(Sentence.CAUTION)),
        *state,
        *_in_short(assessment, wording),
        *_standing(identity, wording),
    ]
    groups = [
        _study_group(
            assessment,
            identity,
            points,
            wording,
            [*state, *_remarks(assessment, wording, lesions=bool(lesions))],
        ),
        *(_lung_group(lung, assessment, source, identity, by_tracking, points, wording) for lung in assessment.lungs),
        *lesions,
    ]
    return document(head, groups, source, identity, assessment.model, segmentations, wording)


def not_analysed(
    refusal: NotAnalysed,
    passed_over: Sequence[PassedOver],
    source: Source,
    identity: ResultIdentity,
    model: Model,
    language: str = "en",
) -> Dataset:
    """The report of a study that was not analysed: why, in codes and words, for the study and for each series."""
    wording = WORDINGS[language]
    said = _comment(wording.sentence(Sentence.REFUSED))
    words = [_comment(refusal.words, *_english(wording))] if refusal.words else []
    groups = [
        _group(
            "Study",
            STUDY,
            identity,
            wording,
            [_site(codes.BILATERAL), *algorithm.identification(model, model.parameters), *_refused(refusal)],
            [said, *words],
        )
    ]
    for number, entry in enumerate(passed_over, start=1):
        why = [_comment(entry.not_analysed.words, *_english(wording))] if entry.not_analysed.words else []
        uid = f"series {entry.series_instance_uid}"
        # Its description is free text of the source, which may hold anything: the UID says which series it is
        which = Item(_CONTAINS, codes.SERIES_INSTANCE_UID, Uid(entry.series_instance_uid))
        content = [*_refused(entry.not_analysed), which]
        groups.append(_group(f"Series {number}", uid, identity, wording, content, why))
    head = [
        _comment(wording.sentence(Sentence.CAUTION)),
        *_refused(refusal),
        said,
        *words,
        *_standing(identity, wording),
    ]
    return document(head, groups, source, identity, model, (), wording, codes.DIAGNOSTIC_IMAGING_STUDY)


# ---------------------------------------------------------------------------------------------- in words


def _in_short(assessment: Assessment, wording: Wording) -> list[Item]:
    """The answer in one or two sentences, for who reads a plain-text rendering."""
    said = [
        wording.sentence(
            Sentence.FRACTIONS,
            worse=100 * assessment.affected_fraction,
            ct_grade=assessment.ct_grade,
            both=100 * assessment.affected_fraction_both,
            ct_ss=int(assessment.ct_ss),
        ),
        wording.sentence(Sentence.NO_PROBABILITY)
        if assessment.covid_probability is None
        else wording.sentence(Sentence.PROBABILITY, percent=100 * assessment.covid_probability),
    ]
    return [_text(codes.SUMMARY, " ".join(said))]


def _remarks(assessment: Assessment, wording: Wording, *, lesions: bool) -> list[Item]:
    remarks = []
    if assessment.covid_probability is None:
        remarks.append(_comment(wording.sentence(Sentence.NO_PROBABILITY)))
    elif assessment.model.trust:
        words = f"{wording.sentence(Sentence.TRUST)}: {assessment.model.trust}"
        remarks.append(_comment(words, *_english(wording)))
    if not lesions:
        remarks.append(_comment(wording.sentence(Sentence.NO_LESION)))
    return remarks


def _standing(identity: ResultIdentity, wording: Wording) -> list[Item]:
    """What this report puts out of date: in a sentence, and each object by its UID."""
    before = identity.predecessor
    if before is None:
        return []
    if before.series_digest != identity.series_digest:
        why = Sentence.NEW_IMAGES
    else:
        why = Sentence.SAME_AGAIN if before.model_digest == identity.model_digest else Sentence.NEW_JUDGE
    generations = ", ".join(str(each.generation) for each in identity.predecessors)
    words = wording.sentence(why, generation=identity.generation, before=generations)
    objects = (
        Item(_CONTAINS, codes.SUPERSEDED[kind], Uid(each.uid(kind)))
        for each in identity.predecessors
        for kind in each.kinds
    )
    return [_comment(words), *objects]


def _english(wording: Wording) -> tuple[Item, ...]:
    """Says of a text in another language's report that it is English (PS3.16 TID 1204)."""
    if wording.language == codes.ENGLISH:
        return ()
    return (Item(_MODIFIER, codes.LANGUAGE_OF_CONTENT, codes.ENGLISH),)


# ------------------------------------------------------------------------------------------------ groups


def _segments(segmentations: Iterable[Dataset]) -> dict[str, Reference]:
    """Tracking UID -> the segment of that UID."""
    return {
        str(segment.TrackingUID): Reference(
            sop_class_uid=SEGMENTATION_STORAGE,
            sop_instance_uid=str(dataset.SOPInstanceUID),
            segment_number=int(segment.SegmentNumber),
        )
        for dataset in segmentations
        if dataset.SOPClassUID == SEGMENTATION_STORAGE  # DCMTK 3.6.7 takes no reference to a label map
        for segment in dataset.SegmentSequence
    }


def _points(centers: Mapping[str, Voxel], source: Source, wording: Wording) -> dict[str, tuple[Item, Item]]:
    """What is measured -> a point that lies in it, and what the point is; OHIF gives up on a group without one."""
    lesions = any(segment.tracking in centers for segment in (segmentation.LESION, *segmentation.LESION_CLASSES))
    whole = Sentence.CENTER_OF_LESIONS if lesions else Sentence.CENTER_OF_LUNGS
    points = {}
    for what, (z, row, column) in centers.items():
        image = Reference(
            sop_class_uid=source.slices[z].sop_class_uid,
            sop_instance_uid=source.slices[z].sop_instance_uid,
            frame_number=source.slices[z].frame_number,
        )
        point = Item(_CONTAINS, codes.CENTER, Point(row=row, column=column, image=image))
        points[what] = point, _comment(wording.sentence(whole if what == STUDY else Sentence.CENTER))
    return points


def _group(
    name: str, what: str, identity: ResultIdentity, wording: Wording, content: Iterable[Item], remarks: Iterable[Item]
) -> Item:
    """A measurement group (TID 1411, TID 1501); the caution is in each, since viewers show groups one by one."""
    uid = Uid(segmentation.tracking_uid(identity, what))
    children = (
        Item(_OBSERVATION, codes.TRACKING_IDENTIFIER, name),
        Item(_OBSERVATION, codes.TRACKING_UNIQUE_IDENTIFIER, uid),
        *content,
        _comment(wording.sentence(Sentence.CAUTION)),
        *remarks,
    )
    return Item(_CONTAINS, codes.MEASUREMENT_GROUP, None, children)


def _study_group(
    assessment: Assessment,
    identity: ResultIdentity,
    points: Mapping[str, tuple[Item, Item]],
    wording: Wording,
    state_and_remarks: Sequence[Item],
) -> Item:
    by = algorithm.short(assessment.model)
    measurements = [
        _percent(codes.AFFECTED_FRACTION_WORSE, assessment.affected_fraction, by),
        _percent(codes.AFFECTED_FRACTION_BOTH, assessment.affected_fraction_both, by),
        *_volumes(codes.LUNGS_VOLUME, assessment, by),
        _percent(codes.GROUND_GLASS_EXTENT, assessment.ground_glass_fraction_both, by),
        _percent(codes.CONSOLIDATION_EXTENT, assessment.consolidation_fraction_both, by),
    ]
    if assessment.consolidation_share is not None:
        measurements.append(_percent(codes.CONSOLIDATION_SHARE, assessment.consolidation_share, by))
    evaluations = [
        _code(codes.CT_GRADE_SCALE, wording.ct_grade(assessment.ct_grade, assessment.operating_point.grades_up_to)),
        _code(codes.CT_SS_SCALE, codes.CT_SS[assessment.ct_ss]),
        _code(codes.SEVERITY, codes.SEVERITIES[assessment.ct_grade]),
    ]
    finding: Code = codes.LUNG
    if assessment.covid_probability is None:
        # A code, not a number: a reader that skips qualifiers would take an empty number for a zero
        evaluations.append(_code(codes.PROBABILITY_OF_COVID_19, codes.NOT_PROVIDED))
    else:
        finding = codes.SUSPECTED_COVID_19
        # At the end: OHIF shows the first five numbers beside the point, without the finding and how far to trust it
        measurements.append(_percent(codes.CERTAINTY_OF_FINDING, assessment.covid_probability, by))
    content = [
        _code(codes.FINDING, finding),
        _site(codes.BILATERAL),
        *algorithm.identification(assessment.model, algorithm.parameters(assessment)),
        *measurements,
        *evaluations,
        *points[STUDY],
    ]
    return _group("Study", STUDY, identity, wording, content, state_and_remarks)


def _lung_group(
    lung: LungMeasurement,
    assessment: Assessment,
    source: Source,
    identity: ResultIdentity,
    segments: Mapping[str, Reference],
    points: Mapping[str, tuple[Item, Item]],
    wording: Wording,
) -> Item:
    by = algorithm.short(assessment.model)
    what = f"{lung.laterality} lung"
    reference = segments[segmentation.tracking_uid(identity, what)]
    content = [
        _code(codes.FINDING_CATEGORY, codes.ANATOMICAL_STRUCTURE),
        _code(codes.FINDING, codes.LUNG),
        _site(codes.LATERALITY[lung.laterality]),
        *algorithm.identification(assessment.model, algorithm.parameters(assessment)),
        *_volumes(codes.VOLUME, lung, by),
        _percent(codes.AFFECTED_FRACTION, lung.affected_fraction, by),
        _percent(codes.GROUND_GLASS_EXTENT, lung.ground_glass_fraction, by),
        _percent(codes.CONSOLIDATION_EXTENT, lung.consolidation_fraction, by),
        *_segment(reference, source),
        *points[what],
    ]
    return _group(f"{lung.laterality.capitalize()} lung", what, identity, wording, content, ())


def _lesion_groups(
    assessment: Assessment,
    source: Source,
    identity: ResultIdentity,
    segments: Mapping[str, Reference],
    points: Mapping[str, tuple[Item, Item]],
    wording: Wording,
) -> list[Item]:
    """A group for each segment of the lesion object: volume, and extent, whose name says of what in any viewer."""
    ground_glass, consolidation = segmentation.LESION_CLASSES
    by = algorithm.short(assessment.model)
    groups = []
    for segment, volume_ml, extent, fraction in (
        (segmentation.LESION, assessment.lesion_ml, codes.AFFECTED_FRACTION_BOTH, assessment.affected_fraction_both),
        (ground_glass, assessment.ground_glass_ml, codes.GROUND_GLASS_EXTENT, assessment.ground_glass_fraction_both),
        (
            consolidation,
            assessment.consolidation_ml,
            codes.CONSOLIDATION_EXTENT,
            assessment.consolidation_fraction_both,
        ),
    ):
        reference = segments.get(segmentation.tracking_uid(identity, segment.tracking))
        if reference is None:
            continue
        content = [
            _code(codes.FINDING_CATEGORY, segment.category),
            _code(codes.FINDING, segment.type),
            _site(codes.BILATERAL),
            *algorithm.identification(assessment.model, algorithm.parameters(assessment)),
            Item(_CONTAINS, codes.VOLUME, Quantity(value=volume_ml, unit=codes.MILLILITRE), by),
            _percent(extent, fraction, by),
            *_segment(reference, source),
            *points[segment.tracking],
        ]
        groups.append(_group(segment.label, segment.tracking, identity, wording, content, ()))
    return groups


def _segment(reference: Reference, source: Source) -> list[Item]:
    return [
        Item(_CONTAINS, codes.REFERENCED_SEGMENT, reference),
        Item(_CONTAINS, codes.SOURCE_SERIES, Uid(source.series_instance_uid)),
    ]


def _volumes(whole: Code, measured: LungMeasurement | Assessment, by: tuple[Item, ...]) -> list[Item]:
    """Volumes of one lung or of both."""
    return [
        Item(_CONTAINS, name, Quantity(value=value, unit=codes.MILLILITRE), by)
        for name, value in (
            (whole, measured.volume_ml),
            (codes.LESION_VOLUME, measured.lesion_ml),
            (codes.GROUND_GLASS_VOLUME, measured.ground_glass_ml),
            (codes.CONSOLIDATION_VOLUME, measured.consolidation_ml),
        )
    ]


def _percent(name: Code, fraction: float, by: tuple[Item, ...]) -> Item:
    return Item(_CONTAINS, name, Quantity(value=100 * fraction, unit=codes.PERCENT), by)


def _refused(refusal: NotAnalysed) -> list[Item]:
    return [
        _code(codes.STATE_OF_ANALYSIS, codes.NOT_ANALYSED),
        _code(codes.SUMMARY_OF_ANALYSES, codes.status_of(refusal.reason)),
        _code(codes.REASON_NOT_ANALYSED, codes.REASONS[refusal.reason]),
    ]


def _site(side: Code) -> Item:
    return Item(_MODIFIER, codes.FINDING_SITE, codes.LUNG, (Item(_MODIFIER, codes.SIDE, side),))


def _code(name: Code, value: Code) -> Item:
    return Item(_CONTAINS, name, value)


def _text(name: Code, words: str, *children: Item) -> Item:
    return Item(_CONTAINS, name, words, children)


def _comment(words: str, *children: Item) -> Item:
    return _text(codes.COMMENT, words, *children)
