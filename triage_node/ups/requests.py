"""What others may say of a workitem: the data sets of N-CREATE, N-SET and subscriptions, read and judged.

The requirements are those of PS3.4 table CC.2.5-3 as far as a reading task has them.
"""

from __future__ import annotations

import json
import math
import struct
from typing import TYPE_CHECKING, Final

from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.uid import UID

from triage_node import workitem
from triage_node.errors import ReadingRefused
from triage_node.journal.orders import Order
from triage_node.study import ReadingPriority
from triage_node.ups import encoding, values

if TYPE_CHECKING:
    from triage_node.journal.transitions import Workitem
    from triage_node.ups.values import Values

# PS3.7 annex C
INVALID_VALUE: Final = 0x0106
PROCESSING_FAILURE: Final = 0x0110
MISSING_ATTRIBUTE: Final = 0x0120
MISSING_VALUE: Final = 0x0121
MISTYPED_ARGUMENT: Final = 0x0212
CREATED_WITH_MODIFICATIONS: Final = 0xB300

# What the creator must say (type 1); what is missing is filled in from what the node would say
_OF_THE_CREATOR: Final = ("ProcedureStepLabel", "WorklistLabel", "ScheduledProcedureStepStartDateTime")
# What nobody sets: identity and state, whose workitem it is, and what the node finds out itself
_NOT_IN_AN_ORDER: Final = (
    "SOPClassUID",
    "SOPInstanceUID",
    "SpecificCharacterSet",
    "TransactionUID",
    "ProcedureStepState",
    "ScheduledProcedureStepPriority",
    "ScheduledProcedureStepModificationDateTime",
    "InputReadinessState",
    "ProcedureStepProgressInformationSequence",
    "UnifiedProcedureStepPerformedProcedureSequence",
)
_NOT_FOR_THE_PERFORMER: Final = (
    "SOPClassUID",
    "SOPInstanceUID",
    "ProcedureStepState",
    "ScheduledProcedureStepPriority",
    "StudyInstanceUID",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "AdmissionID",
    "ReferencedRequestSequence",
    "ReplacedProcedureStepSequence",
    "InputReadinessState",
    "InputInformationSequence",
)
_REAL: Final = frozenset({"DS", "FL", "FD"})
_PERFORMED: Final = "UnifiedProcedureStepPerformedProcedureSequence"
_PROGRESS: Final = "ProcedureStepProgressInformationSequence"
# Of the performed procedure when the workitem is COMPLETED (final state R; of the output P: it may be empty)
_FINAL: Final = (
    "PerformedStationNameCodeSequence",
    "PerformedWorkitemCodeSequence",
    "PerformedProcedureStepStartDateTime",
    "PerformedProcedureStepEndDateTime",
)


def order(workitem_uid: str, attributes: Dataset) -> tuple[Order, bool]:
    """The order of an N-CREATE, and whether all was said that its creator has to say.

    Raises ReadingRefused with the status to answer with.
    """
    _check_kinds(attributes)
    state = str(attributes.get("ProcedureStepState", "") or "")
    if state != workitem.StepState.SCHEDULED:
        raise ReadingRefused(
            f"Procedure Step State is {state!r}: {workitem.MEANINGS[workitem.NOT_SCHEDULED_AT_CREATION]}",
            status=workitem.NOT_SCHEDULED_AT_CREATION,
        )
    if attributes.get("TransactionUID"):
        raise ReadingRefused("Transaction UID must be empty until the workitem is claimed", status=INVALID_VALUE)
    study = _uid_of_study(attributes)
    accession_number = _accession_number(attributes)
    if study is None and not accession_number:
        raise ReadingRefused("neither Study Instance UID nor Accession Number", status=MISSING_ATTRIBUTE)
    said = Dataset()
    said.update({element.tag: element for element in attributes if element.keyword not in _NOT_IN_AN_ORDER})
    return Order(
        workitem_uid=workitem_uid,
        study_instance_uid=study,
        accession_number=accession_number,
        priority=_priority(attributes),
        attributes_json=_json(said),
    ), all(attributes.get(keyword) for keyword in (*_OF_THE_CREATOR, "InputReadinessState"))


def _priority(attributes: Dataset) -> ReadingPriority:
    if "ScheduledProcedureStepPriority" not in attributes:
        raise ReadingRefused("no Scheduled Procedure Step Priority", status=MISSING_ATTRIBUTE)
    said = str(attributes.ScheduledProcedureStepPriority or "")
    if not said:
        raise ReadingRefused("Scheduled Procedure Step Priority is empty", status=MISSING_VALUE)
    try:
        return ReadingPriority(said)
    except ValueError:
        allowed = ", ".join(ReadingPriority)
        raise ReadingRefused(f"priority {said!r} is none of {allowed}", status=INVALID_VALUE) from None


def _uid_of_study(attributes: Dataset) -> str | None:
    places = [attributes]
    for keyword in ("ReferencedRequestSequence", "InputInformationSequence"):
        places += list(attributes.get(keyword) or [])[:1]
    for place in places:
        said = str(place.get("StudyInstanceUID", "") or "")
        if said and not UID(said).is_valid:
            raise ReadingRefused(f"Study Instance UID {said!r} is no UID", status=INVALID_VALUE)
        if said:
            return said
    return None


def _accession_number(attributes: Dataset) -> str:
    places = [*list(attributes.get("ReferencedRequestSequence") or [])[:1], attributes]
    return next((str(place.AccessionNumber).strip() for place in places if place.get("AccessionNumber")), "")


def _check_kinds(said: Dataset) -> None:
    try:
        values.check_kinds(said)
    except ValueError as error:
        raise ReadingRefused(str(error), status=INVALID_VALUE) from error


def _json(dataset: Dataset) -> str:
    """What is kept of a data set; only what can be answered again: everybody's queries look at it."""
    try:
        values.check_kinds(dataset)
        said = values.to_json(dataset)
        encoding.dataset(values.from_json(said), implicit=True)
        _check_numbers(values.from_json(said))
    except (ValueError, TypeError, OverflowError, struct.error) as error:
        raise ReadingRefused(str(error), status=INVALID_VALUE) from error
    return said


def _check_numbers(said: Values) -> None:
    for tag, found in said.items():
        vr = values.vr_of(tag)
        for value in found:
            if vr == "SQ":
                _check_numbers(value)
            elif vr in _REAL and not math.isfinite(float(value)):
                raise ValueError(f"{keyword_for_tag(tag)} is {value}, which is no number that can be written")


def with_changes(item: Workitem, changes: Dataset) -> str:
    """What a performer has set, with the changes of an N-SET, as DICOM JSON; a sequence is replaced as a whole.

    Raises ReadingRefused where an attribute is not the performer's to set, or not of its kind.
    """
    _check_kinds(changes)
    refused = [element.keyword for element in changes if element.keyword in _NOT_FOR_THE_PERFORMER]
    if refused:
        raise ReadingRefused(f"not the performer's to set: {', '.join(refused)}", status=INVALID_VALUE)
    said = Dataset()
    said.update(
        {
            element.tag: element
            for element in changes
            if element.keyword
            not in ("TransactionUID", "SpecificCharacterSet", "ScheduledProcedureStepModificationDateTime")
        }
    )
    return json.dumps({**json.loads(item.performed_json or "{}"), **json.loads(_json(said))})


def progress(changes: Dataset) -> dict[str, str] | None:
    """What an N-SET tells subscribers of the progress; None where it says nothing of it.

    Raises ReadingRefused where something is not of its kind.
    """
    _check_kinds(changes)
    said = changes.get(_PROGRESS)
    if not said:
        return None
    item = said[0]
    return {
        "progress": str(item.get("ProcedureStepProgress", "") or ""),
        "words": str(item.get("ProcedureStepProgressDescription", "") or ""),
    }


def missing_at_completion(item: Workitem) -> tuple[str, ...]:
    """Which attributes a performer has still to set before the workitem may be COMPLETED."""
    performed = values.from_json(item.performed_json).get(values.tag(_PERFORMED), ())
    done: Values = performed[0] if performed else {}
    missing = [keyword for keyword in _FINAL if not done.get(values.tag(keyword))]
    if values.tag("OutputInformationSequence") not in done:
        missing.append("OutputInformationSequence")
    return tuple(missing)


def cancellation(information: Dataset) -> dict[str, str]:
    """Who wants a workitem cancelled and why, for its performer (PS3.4 table CC.2.2-1).

    Raises ReadingRefused where something is not of its kind.
    """
    _check_kinds(information)
    found = {
        "words": str(information.get("ReasonForCancellation", "") or ""),
        "contact": str(information.get("ContactDisplayName", "") or ""),
        "uri": str(information.get("ContactURI", "") or ""),
    }
    reason = information.get("ProcedureStepDiscontinuationReasonCodeSequence")
    if reason:
        kept = Dataset()
        kept.ProcedureStepDiscontinuationReasonCodeSequence = reason
        found["codes"] = _json(kept)
    return {key: text for key, text in found.items() if text}


def is_locked(information: Dataset) -> bool:
    """Deletion Lock (0074,1230) of a subscription. Raises ReadingRefused where it is neither TRUE nor FALSE."""
    said = str(information.get("DeletionLock", "") or "")
    if said not in ("TRUE", "FALSE"):
        raise ReadingRefused(f"Deletion Lock is {said!r}, not TRUE or FALSE", status=INVALID_VALUE)
    return said == "TRUE"
