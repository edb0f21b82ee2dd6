"""Assessment -> Comprehensive 3D SR by TID 1500: one group for each lung, one for the study (PS3.16 annex A).

A study that was not analysed gets a report by the same template that says so in codes.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from highdicom.sr import (
    CodeContentItem,
    CodedConcept,
    Comprehensive3DSR,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    ImageContentItem,
    LanguageOfContentItemAndDescendants,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    NumContentItem,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    ReferencedSegment,
    RelationshipTypeValues,
    SourceSeriesForSegmentation,
    TextContentItem,
    TrackingIdentifier,
    UIDRefContentItem,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as standard
from pydicom.uid import UID

from triage_node import codes
from triage_node.conformance import COMPREHENSIVE_3D_SR_STORAGE, CT_SOP_CLASSES, SEGMENTATION_STORAGE
from triage_node.results import algorithm, envelope, segmentation
from triage_node.study import NOT_FOR_DIAGNOSTIC_USE, Laterality

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from highdicom.sr import AlgorithmIdentification
    from pydicom.sr.coding import Code

    from triage_node.results.source import Source
    from triage_node.study import (
        Assessment,
        Findings,
        LungMeasurement,
        Model,
        NotAnalysed,
        PassedOver,
        ResultIdentity,
    )

Group = MeasurementsAndQualitativeEvaluations | VolumetricROIMeasurementsAndQualitativeEvaluations

NO_PROBABILITY = "Probability of COVID-19 is not provided by this method: neither low nor zero."
TRUST = "How far the probability of COVID-19 can be trusted"
NO_LESION = "No lesion voxel was found inside the lungs: there is no lesion segmentation."


def judged(
    findings: Findings,
    assessment: Assessment,
    source: Source,
    identity: ResultIdentity,
    segmentations: Sequence[Dataset],
) -> Dataset:
    """The report of a judged study; `segmentations` are the finished objects that it refers to."""
    numbers = segmentation.lung_numbers(findings)
    groups = [
        _lung_group(lung, assessment, source, identity, numbers[segmentation.label_of(lung.laterality)])
        for lung in assessment.lungs
    ]
    trust = assessment.model.trust
    comments = [
        *(() if assessment.covid_probability is not None else (NO_PROBABILITY,)),
        *((f"{TRUST}: {trust}",) if trust and assessment.covid_probability is not None else ()),
        *(() if bool(findings.lesions.any()) else (NO_LESION,)),
        *(f"The {side} lung was not found." for side in _missing(assessment)),
        *(f"Warning: {words}" for words in assessment.warnings),
    ]
    study = _study_group(assessment, identity)
    _comment(study, [*comments, *_standing(identity)])
    return _document([study, *groups], source, identity, assessment.model, segmentations)


def not_analysed(
    refusal: NotAnalysed,
    passed_over: Sequence[PassedOver],
    source: Source,
    identity: ResultIdentity,
    model: Model,
) -> Dataset:
    """The report of a study that was not analysed: why, in codes and words, for the study and for each series."""
    study = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking("Study", "study", identity),
        algorithm_id=algorithm.identification(model, model.parameters),
        finding_sites=[FindingSite(codes.LUNG, laterality=codes.BILATERAL)],
        qualitative_evaluations=_refused(refusal),
    )
    words = f"This study was not analysed: {refusal.words}. This says nothing about the patient."
    _comment(study, [words, *_standing(identity)])
    groups: list[Group] = [study]
    for number, entry in enumerate(passed_over, start=1):
        group = MeasurementsAndQualitativeEvaluations(
            tracking_identifier=_tracking(f"Series {number}", f"series {entry.series_instance_uid}", identity),
            qualitative_evaluations=_refused(entry.not_analysed),
        )
        content = group[0].ContentSequence
        content.append(
            UIDRefContentItem(
                name=codes.SERIES_INSTANCE_UID,
                value=entry.series_instance_uid,
                relationship_type=RelationshipTypeValues.CONTAINS,
            )
        )
        if entry.description.strip():
            content.append(_text(codes.SERIES_DESCRIPTION, entry.description))
        _comment(group, [entry.not_analysed.words])
        groups.append(group)
    return _document(groups, source, identity, model, ())


def _missing(assessment: Assessment) -> list[Laterality]:
    present = {lung.laterality for lung in assessment.lungs}
    return [side for side in Laterality if side not in present]


def _standing(identity: ResultIdentity) -> list[str]:
    if identity.predecessor is None:
        return []
    before = identity.predecessor.generation
    words = f"This report (generation {identity.generation}) supersedes that of generation {before}:"
    return [f"{words} images of the study arrived after it was made."]


# ------------------------------------------------------------------------------------------------ groups


def _lung_group(
    lung: LungMeasurement, assessment: Assessment, source: Source, identity: ResultIdentity, segment_number: int
) -> Group:
    name = f"{lung.laterality.capitalize()} lung"
    by = algorithm.identification(assessment.model)
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(name, f"{lung.laterality} lung", identity),
        referenced_segment=ReferencedSegment(
            sop_class_uid=SEGMENTATION_STORAGE,
            sop_instance_uid=identity.uid("lungs"),
            segment_number=segment_number,
            source_series=SourceSeriesForSegmentation(source.series_instance_uid),
        ),
        finding_category=codes.ANATOMICAL_STRUCTURE,
        finding_type=codes.LUNG,
        finding_sites=[FindingSite(codes.LUNG, laterality=codes.LATERALITY[lung.laterality])],
        algorithm_id=algorithm.identification(assessment.model, algorithm.parameters(assessment)),
        measurements=[
            *_volumes(lung, by),
            _percent(codes.AFFECTED_FRACTION, lung.affected_fraction, by),
            _percent(codes.GROUND_GLASS_EXTENT, lung.ground_glass_fraction, by),
            _percent(codes.CONSOLIDATION_EXTENT, lung.consolidation_fraction, by),
        ],
    )


def _study_group(assessment: Assessment, identity: ResultIdentity) -> Group:
    by = algorithm.identification(assessment.model)
    measurements = [
        _percent(codes.AFFECTED_FRACTION_WORSE, assessment.affected_fraction, by),
        _percent(codes.AFFECTED_FRACTION_BOTH, assessment.affected_fraction_both, by),
        *_volumes(assessment, by),
        _percent(codes.GROUND_GLASS_EXTENT, assessment.ground_glass_fraction_both, by),
        _percent(codes.CONSOLIDATION_EXTENT, assessment.consolidation_fraction_both, by),
    ]
    if assessment.consolidation_share is not None:
        measurements.append(_percent(codes.CONSOLIDATION_SHARE, assessment.consolidation_share, by))
    grade = codes.ct_grade(assessment.ct_grade, assessment.operating_point.grades_up_to)
    evaluations = [
        QualitativeEvaluation(codes.SUMMARY_OF_ANALYSES, codes.SUCCEEDED),
        QualitativeEvaluation(codes.CT_GRADE_SCALE, grade),
        QualitativeEvaluation(codes.CT_SS_SCALE, codes.CT_SS[assessment.ct_ss]),
        QualitativeEvaluation(codes.SEVERITY, codes.SEVERITIES[assessment.ct_grade]),
    ]
    finding: Code = codes.LUNG
    if assessment.covid_probability is None:
        # A code, not a number: a reader that skips qualifiers would take an empty number for a zero
        evaluations.append(QualitativeEvaluation(codes.PROBABILITY_OF_COVID_19, codes.NOT_PROVIDED))
    else:
        finding = codes.SUSPECTED_COVID_19
        measurements.insert(0, _percent(codes.CERTAINTY_OF_FINDING, assessment.covid_probability, by))
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking("Study", "study", identity),
        finding_type=finding,
        finding_sites=[FindingSite(codes.LUNG, laterality=codes.BILATERAL)],
        algorithm_id=algorithm.identification(assessment.model, algorithm.parameters(assessment)),
        measurements=measurements,
        qualitative_evaluations=evaluations,
    )


def _volumes(measured: LungMeasurement | Assessment, by: AlgorithmIdentification) -> list[Measurement]:
    """Volumes of one lung or of both."""
    return [
        _number(name, value, codes.MILLILITRE, by)
        for name, value in (
            (codes.VOLUME, measured.volume_ml),
            (codes.LESION_VOLUME, measured.lesion_ml),
            (codes.GROUND_GLASS_VOLUME, measured.ground_glass_ml),
            (codes.CONSOLIDATION_VOLUME, measured.consolidation_ml),
        )
    ]


def _percent(name: Code, fraction: float, by: AlgorithmIdentification) -> Measurement:
    return _number(name, 100 * fraction, codes.PERCENT, by)


def _refused(refusal: NotAnalysed) -> list[QualitativeEvaluation]:
    return [
        QualitativeEvaluation(codes.SUMMARY_OF_ANALYSES, codes.status_of(refusal.reason)),
        QualitativeEvaluation(codes.REASON_NOT_ANALYSED, codes.REASONS[refusal.reason]),
    ]


def _tracking(name: str, what: str, identity: ResultIdentity) -> TrackingIdentifier:
    return TrackingIdentifier(uid=UID(segmentation.tracking_uid(identity, what)), identifier=name)


def _number(name: Code, value: float, unit: Code, by: AlgorithmIdentification) -> Measurement:
    # OHIF's reader of TID 1500 needs a number to have children, so each one names its algorithm
    return Measurement(name=name, value=round(value, 3), unit=unit, algorithm_id=by)


def _text(name: Code, words: str) -> TextContentItem:
    return TextContentItem(name=name, value=words, relationship_type=RelationshipTypeValues.CONTAINS)


def _comment(group: Group, sentences: Iterable[str]) -> None:
    """Comments of a group; the caution heads each group, since viewers show groups one by one."""
    for sentence in (f"{NOT_FOR_DIAGNOSTIC_USE}.", *sentences):
        group[0].ContentSequence.append(_text(codes.COMMENT, sentence))


# ---------------------------------------------------------------------------------------------- document


def _document(
    groups: list[Group],
    source: Source,
    identity: ResultIdentity,
    model: Model,
    segmentations: Sequence[Dataset],
) -> Dataset:
    observer = ObserverContext(
        observer_type=CodedConcept.from_code(codes.DEVICE),
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=_device_uid(identity),
            name=identity.ae_title,
            manufacturer_name=envelope.MANUFACTURER,
            model_name=", ".join(envelope.software_versions(model)),
            serial_number=identity.ae_title,
        ),
    )
    content = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=observer),
        procedure_reported=codes.CT_OF_CHEST,
        imaging_measurements=groups,
        title=codes.IMAGING_MEASUREMENT_REPORT,
        language_of_content_item_and_descendants=LanguageOfContentItemAndDescendants(
            CodedConcept.from_code(codes.ENGLISH)
        ),
    )
    library = _image_library(source)
    if library is not None:
        items = content[0].ContentSequence
        items.insert(len(items) - 1, library)  # TID 1500: before the measurements
    date, time = envelope.moment(source, identity)
    dataset = Comprehensive3DSR(
        evidence=_evidence(source, segmentations),
        content=content,
        series_instance_uid=identity.uid("report series"),
        series_number=envelope.KINDS["report"].series_number,
        sop_instance_uid=identity.uid("report"),
        instance_number=1,
        manufacturer=envelope.MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
        content_date=date,
        content_time=time,
        previous_versions=_predecessors(identity),
    )
    dataset.CodingSchemeIdentificationSequence = envelope.private_scheme()
    envelope.stamp(dataset, "report", source, identity, model)
    return dataset


def _device_uid(identity: ResultIdentity) -> str:
    """The same for every report of a node under this AE title."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'{envelope.IMPLEMENTATION_CLASS_UID} {identity.ae_title}').int}"


def _image_library(source: Source) -> ContainerContentItem | None:
    """TID 1600 with one entry for each CT object of the source; None where there is none. OHIF needs it."""
    images = [instance for instance in source.instances if instance.sop_class_uid in CT_SOP_CLASSES]
    if not images:
        return None
    contains = RelationshipTypeValues.CONTAINS
    context = RelationshipTypeValues.HAS_ACQ_CONTEXT
    library = ContainerContentItem(name=standard.DCM.ImageLibrary, relationship_type=contains)
    library.ContentSequence = ContentSequence()
    group = ContainerContentItem(name=standard.DCM.ImageLibraryGroup, relationship_type=contains)
    group.ContentSequence = ContentSequence()
    ct = standard.cid29.ComputedTomography
    modality = CodeContentItem(name=standard.DCM.Modality, value=ct, relationship_type=context)
    shared: list[ContentItem] = [modality]
    if source.frame_of_reference_uid is not None:
        uid = source.frame_of_reference_uid
        shared.append(UIDRefContentItem(standard.DCM.FrameOfReferenceUID, uid, relationship_type=context))
    if source.slices:
        shared.extend(
            NumContentItem(name, float(value), standard.UCUM.Millimeter, relationship_type=context)
            for name, value in zip(
                (standard.DCM.VerticalPixelSpacing, standard.DCM.HorizontalPixelSpacing),
                source.slices[0].pixel_spacing,
                strict=True,
            )
        )
    for item in shared:
        group.ContentSequence.append(item)
    for image in images:
        group.ContentSequence.append(
            ImageContentItem(
                name=CodedConcept("260753009", "SCT", "Source"),
                referenced_sop_class_uid=image.sop_class_uid,
                referenced_sop_instance_uid=image.sop_instance_uid,
                relationship_type=contains,
            )
        )
    library.ContentSequence.append(group)
    return library


def _evidence(source: Source, segmentations: Sequence[Dataset]) -> list[Dataset]:
    """Every object the report is based on, as highdicom wants it: headers whose identity `stamp` replaces."""
    evidence = []
    for instance in source.instances:
        header = Dataset()
        header.StudyInstanceUID = source.study_instance_uid
        header.SeriesInstanceUID = instance.series.series_instance_uid
        header.SOPClassUID = instance.sop_class_uid
        header.SOPInstanceUID = instance.sop_instance_uid
        evidence.append(header)
    first = evidence[0]
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
        setattr(first, keyword, "")
    first.StudyDate = first.StudyTime = None
    return [*evidence, *segmentations]


def _predecessors(identity: ResultIdentity) -> list[Dataset] | None:
    """Predecessor Documents Sequence (PS3.3 C.17.2.2): the report that this one supersedes."""
    before = identity.predecessor
    if before is None:
        return None
    header = Dataset()
    header.StudyInstanceUID = before.study_instance_uid
    header.SeriesInstanceUID = before.uid("report series")
    header.SOPClassUID = COMPREHENSIVE_3D_SR_STORAGE
    header.SOPInstanceUID = before.uid("report")
    return [header]
