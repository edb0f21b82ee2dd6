"""A reading task as a Unified Procedure Step: its attributes, one row each (PS3.3 tables C.30.1-1 to C.30.4-1).

What the performer has set stands before what an order has said, and that before what the images say; the facts, the
priority and the state are the node's own. The Transaction UID is nobody's to read (PS3.4 table CC.2.5-3).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from triage_node import codes, worklist
from triage_node.conformance import UPS_PUSH
from triage_node.study import ReadingPriority
from triage_node.ups import facts, values
from triage_node.workitem import StepState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from triage_node.config import WorklistSection
    from triage_node.journal.transitions import Workitem
    from triage_node.journal.views import StudyRow
    from triage_node.priority import Turn
    from triage_node.ups.values import Values
    from triage_node.worklist import WorklistItem

AE_PREFIX: Final = "AE "  # of a performer who came by DICOM
# What of an image's header describes its study
HEADER: Final = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "ReferringPhysicianName",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "StudyDescription",
    "RequestedProcedureID",
    "RequestedProcedureDescription",
    "RequestedProcedureCodeSequence",
    "ReasonForTheRequestedProcedure",
    "RequestingPhysician",
    "RequestingService",
    "AdmissionID",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of a reading task whatever its place on the list; it changes when somebody changes it."""

    item: Workitem
    headers: Mapping[str, Values]  # of studies by UID, as far as they were looked at
    ordered: Values
    performed: Values
    label: str  # of the worklist
    ae_title: str  # of this node
    rules: WorklistSection
    inputs: Callable[[], tuple[Values, ...]]  # the images, looked up when somebody asks

    @property
    def header(self) -> Values:
        """What the images say of their study."""
        return self.headers.get(self.item.study_instance_uid or "", {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A reading task at its place on the list."""

    known: Known
    row: StudyRow | None  # None before there are images
    turn: Turn | None
    priority: ReadingPriority  # the most urgent one at or behind its place
    is_arriving: bool  # images are still coming
    now: float  # when the order was made

    @property
    def item(self) -> Workitem:
        """The workitem."""
        return self.known.item

    def get(self, tag: int) -> tuple[Any, ...] | None:
        """The values of an attribute; None where a workitem has no such attribute."""
        row = ATTRIBUTES.get(tag)
        return self.known.ordered.get(tag) if row is None else row(self)

    @property
    def study(self) -> WorklistItem | None:
        """The study as it stands on the list, with its facts and reasons in words; None before there are images."""
        if self.row is None or self.turn is None:
            return None
        return worklist.item(self.row, self.turn, self.known.rules, self.now)

    @property
    def explanation(self) -> str:
        """Why it stands where it stands, in a sentence; empty before there are images."""
        study = self.study
        return "" if study is None else study.explanation

    @property
    def longest_wait_s(self) -> float:
        """The configured maximum."""
        return self.known.rules.max_wait_min * 60

    @property
    def readiness(self) -> str:
        """Input Readiness State (0040,4041)."""
        return "INCOMPLETE" if self.row is None or self.is_arriving else "READY"


def level_of(item: Workitem, turn: Turn | None, rules: WorklistSection, now: float) -> ReadingPriority:
    """Level of a reading task by itself; what has waited for the maximum is HIGH, so that no other list starves it."""
    if turn is None:
        return item.ordered_priority or ReadingPriority.MEDIUM
    facts_ = turn.standing.facts
    return ReadingPriority.HIGH if now - facts_.arrived_at >= rules.max_wait_min * 60 else turn.standing.level


def moment(at: float) -> str:
    """Seconds since 1970 as DICOM writes a moment, in UTC."""
    return f"{datetime.fromtimestamp(at, UTC):%Y%m%d%H%M%S.%f}+0000"


def station(ae_title: str) -> Values:
    """The code of a station that is known by its AE title alone."""
    return values.of(CodeValue=ae_title, CodingSchemeDesignator=codes.PRIVATE_SCHEME, CodeMeaning=ae_title)


def human(name: str) -> Values:
    """A person, as performers are named (PS3.3 table C.30.2-1)."""
    one = values.of(CodeValue=name[:16], CodingSchemeDesignator=codes.PRIVATE_SCHEME, CodeMeaning=name[:64])
    return values.of(HumanPerformerCodeSequence=(one,), HumanPerformerName=name[:64], HumanPerformerOrganization=())


def stations(performer: str | None) -> tuple[Values, ...]:
    """The station of a performer who came by DICOM."""
    return (station(performer.removeprefix(AE_PREFIX)),) if performer and performer.startswith(AE_PREFIX) else ()


def humans(performer: str | None) -> tuple[Values, ...]:
    """The performer who came by the page or the command line."""
    return (human(performer),) if performer and not performer.startswith(AE_PREFIX) else ()


def _said(keyword: str, *, otherwise: Callable[[Entry], tuple[Any, ...]] = lambda _: ()) -> Callable[[Entry], Any]:
    """What the performer has set, else what the order says, else what the images say, else something else."""
    tag = values.tag(keyword)

    def said(entry: Entry) -> tuple[Any, ...]:
        return (
            entry.known.performed.get(tag)
            or entry.known.ordered.get(tag)
            or entry.known.header.get(tag)
            or otherwise(entry)
        )

    return said


def _modified(entry: Entry) -> tuple[str]:
    return (moment(entry.item.changed_at),)


def _label(entry: Entry) -> tuple[str]:
    described = (entry.row.description if entry.row else "") or "chest CT"
    return (f"Reading: {described}"[:64],)


def _starts(entry: Entry) -> tuple[str]:
    return (moment(entry.item.created_at if entry.row is None else entry.row.arrived_at),)


def _expected(entry: Entry) -> tuple[str, ...]:
    return () if entry.row is None else (moment(entry.row.arrived_at + entry.longest_wait_s),)


def _study(entry: Entry) -> tuple[str, ...]:
    return (entry.item.study_instance_uid,) if entry.item.study_instance_uid else ()


def _comments(entry: Entry) -> tuple[str, ...]:
    return (entry.explanation[: facts.LONGEST_TEXT],) if entry.explanation else ()


def _request(entry: Entry) -> tuple[Values, ...]:
    def said(keyword: str) -> tuple[Any, ...]:
        return entry.known.header.get(values.tag(keyword), ())

    accession = (entry.row.accession_number if entry.row else "") or entry.item.accession_number
    return (
        values.of(
            StudyInstanceUID=_study(entry),
            AccessionNumber=accession or None,
            IssuerOfAccessionNumberSequence=said("IssuerOfAccessionNumberSequence"),
            PlacerOrderNumberImagingServiceRequest=(),
            FillerOrderNumberImagingServiceRequest=(),
            RequestedProcedureID=said("RequestedProcedureID"),
            RequestedProcedureDescription=said("RequestedProcedureDescription"),
            RequestedProcedureCodeSequence=said("RequestedProcedureCodeSequence"),
            ReasonForTheRequestedProcedure=said("ReasonForTheRequestedProcedure"),
            RequestingService=said("RequestingService"),
            RequestingPhysician=said("RequestingPhysician"),
            ReferringPhysicianName=said("ReferringPhysicianName"),
        ),
    )


def _progress(entry: Entry) -> tuple[Values, ...]:
    said = entry.known.performed.get(values.tag("ProcedureStepProgressInformationSequence"), ())
    item = entry.item
    if item.state is not StepState.CANCELED or item.ended_at is None:
        return said
    first: Values = dict(said[0]) if said else {}
    ended = values.of(
        ProcedureStepCancellationDateTime=moment(item.ended_at), ReasonForCancellation=item.words[:1024] or None
    )
    return ({**ended, **first},)


def performed(entry: Entry) -> tuple[Values, ...]:
    """What was done: as its performer has described it, or as far as the node knows it."""
    said = entry.known.performed.get(values.tag("UnifiedProcedureStepPerformedProcedureSequence"), ())
    if said or entry.item.claimed_at is None:
        return said
    ended_at = entry.item.ended_at
    return (
        values.of(
            ActualHumanPerformersSequence=humans(entry.item.performer),
            PerformedStationNameCodeSequence=stations(entry.item.performer),
            PerformedProcedureStepStartDateTime=moment(entry.item.claimed_at),
            PerformedProcedureStepEndDateTime=() if ended_at is None else moment(ended_at),
            PerformedWorkitemCodeSequence=(values.code(codes.INTERPRETATION),),
            OutputInformationSequence=(),
        ),
    )


# keyword -> how its values are found
_ROWS: Final[Mapping[str, Callable[[Entry], tuple[Any, ...]]]] = MappingProxyType({
    "SOPClassUID": lambda _: (UPS_PUSH,),
    "SOPInstanceUID": lambda entry: (entry.item.workitem_uid,),
    "TransactionUID": lambda _: (),
    # PS3.3 table C.30.2-1, scheduled procedure information
    "ScheduledProcedureStepPriority": lambda entry: (entry.priority.value,),
    "ScheduledProcedureStepModificationDateTime": _modified,
    "ProcedureStepLabel": _said("ProcedureStepLabel", otherwise=_label),
    "WorklistLabel": _said("WorklistLabel", otherwise=lambda entry: (entry.known.label,)),
    "ScheduledProcessingParametersSequence": lambda entry: (
        *entry.known.ordered.get(values.tag("ScheduledProcessingParametersSequence"), ()),
        *facts.content(entry.study),
    ),
    "ScheduledStationNameCodeSequence": _said(
        "ScheduledStationNameCodeSequence", otherwise=lambda entry: stations(entry.item.performer)
    ),
    "ScheduledStationClassCodeSequence": _said("ScheduledStationClassCodeSequence"),
    "ScheduledStationGeographicLocationCodeSequence": _said("ScheduledStationGeographicLocationCodeSequence"),
    "ScheduledHumanPerformersSequence": _said(
        "ScheduledHumanPerformersSequence", otherwise=lambda entry: humans(entry.item.performer)
    ),
    "ScheduledProcedureStepStartDateTime": _said("ScheduledProcedureStepStartDateTime", otherwise=_starts),
    "ExpectedCompletionDateTime": _said("ExpectedCompletionDateTime", otherwise=_expected),
    "ScheduledWorkitemCodeSequence": _said(
        "ScheduledWorkitemCodeSequence", otherwise=lambda _: (values.code(codes.INTERPRETATION),)
    ),
    "CommentsOnTheScheduledProcedureStep": _said("CommentsOnTheScheduledProcedureStep", otherwise=_comments),
    "InputReadinessState": lambda entry: (entry.readiness,),
    "InputInformationSequence": lambda entry: entry.known.inputs(),
    "StudyInstanceUID": _study,
    # PS3.3 table C.30.4-1, relationship
    "PatientName": _said("PatientName"),
    "PatientID": _said("PatientID"),
    "IssuerOfPatientID": _said("IssuerOfPatientID"),
    "PatientBirthDate": _said("PatientBirthDate"),
    "PatientSex": _said("PatientSex"),
    "AdmissionID": _said("AdmissionID"),
    "IssuerOfAdmissionIDSequence": _said("IssuerOfAdmissionIDSequence"),
    "AdmittingDiagnosesDescription": _said("AdmittingDiagnosesDescription"),
    "AdmittingDiagnosesCodeSequence": _said("AdmittingDiagnosesCodeSequence"),
    "ReferencedRequestSequence": _said("ReferencedRequestSequence", otherwise=_request),
    "ReplacedProcedureStepSequence": _said("ReplacedProcedureStepSequence"),
    # PS3.3 tables C.30.1-1 and C.30.3-1, progress and what was performed
    "ProcedureStepState": lambda entry: (entry.item.state.value,),
    "ProcedureStepProgressInformationSequence": _progress,
    "UnifiedProcedureStepPerformedProcedureSequence": performed,
})  # fmt: skip
ATTRIBUTES: Final[Mapping[int, Callable[[Entry], tuple[Any, ...]]]] = MappingProxyType({
    values.tag(keyword): row for keyword, row in _ROWS.items()
})  # fmt: skip


def attributes(entry: Entry, tags: tuple[int, ...] = ()) -> Values:
    """The attributes of a workitem: these, or all that have a value or are of its own table."""
    wanted = tags or tuple(dict.fromkeys((*ATTRIBUTES, *entry.known.ordered)))
    return {tag: entry.get(tag) or () for tag in wanted}
