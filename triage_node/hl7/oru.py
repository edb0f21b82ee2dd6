"""An answer as ORU^R01, unsolicited observation report (HL7 2.5.1 section 7.3.1): patient, order, observations.

Every retry says the same: the time of the message and its control ID follow from when the answer was queued for this
receiver, so that one that has taken it already can tell.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.core import Message
from hl7apy.exceptions import HL7apyException
from hl7apy.parser import parse_segment

from triage_node import __version__, codes
from triage_node.errors import InvalidResult
from triage_node.hl7 import er7, observations
from triage_node.study import NOT_FOR_DIAGNOSTIC_USE, ReadingPriority

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hl7apy.core import Group

    from triage_node.config import Hl7Section
    from triage_node.hl7.observations import Answer
    from triage_node.hl7.subject import Authority, Name, Subject

VERSION: Final = "2.5.1"
_PROCESSING: Final = {"production": "P", "training": "T", "debugging": "D"}  # table 0103
_STATUS: Final = {"preliminary": "P", "not verified": "R", "final": "F"}  # tables 0085 and 0123 agree on these
_CORRECTION: Final = "C"
_CHARACTER_SETS: Final = {"UNICODE UTF-8": "utf-8", "8859/1": "latin-1"}  # table 0211
# TQ1-9, table 0485. "Stat" is left to whoever orders; the reading priority itself is an observation.
_TIMING: Final = {
    ReadingPriority.HIGH: ("A", "As soon as possible", "HL70485"),
    ReadingPriority.MEDIUM: ("R", "Routine", "HL70485"),
    ReadingPriority.LOW: ("R", "Routine", "HL70485"),
}
_NAME_FORMS: Final = ("A", "I", "P")  # XPN-8, table 0465: alphabetic, ideographic, phonetic


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What a message says of itself."""

    section: Hl7Section
    ae_title: str
    queued_at: float
    correction: bool  # the receiver has, or may have, an earlier answer

    def control_id(self, answer: Answer) -> str:
        """MSH-10, 20 characters: the same for each attempt, another one after `triage-node requeue`."""
        parts = (self.ae_title, self.section.name, answer.study_instance_uid, answer.generation, repr(self.queued_at))
        digest = hashlib.sha256("\n".join(map(str, parts)).encode()).digest()
        return base64.b32encode(digest).decode()[:20]


def build(answer: Answer, subject: Subject, envelope: Envelope) -> bytes:
    """The message as it goes over the wire.

    Raises InvalidResult where the standard or the configured character set does not allow what it would say; its words
    name no patient.
    """
    if not subject.patient_id:
        raise InvalidResult("the images have no Patient ID: a RIS could not tell whose result this is")
    try:
        text = _message(answer, subject, envelope).to_er7()
    except (HL7apyException, ValueError) as error:
        # The library's words may quote a value
        raise InvalidResult(f"no HL7 {VERSION} message can be made of this: {type(error).__name__}") from None
    character_set = envelope.section.character_set
    try:
        return str(text).encode(_CHARACTER_SETS[character_set])
    except UnicodeEncodeError:
        raise InvalidResult(
            f"a name or text of this study cannot be said in {character_set}: set hl7.character_set to UNICODE UTF-8,"
            " if the receiver takes it"
        ) from None


def _message(answer: Answer, subject: Subject, envelope: Envelope) -> Message:
    message = Message("ORU_R01", version=VERSION, validation_level=VALIDATION_LEVEL.STRICT)
    for position, value in _header(answer, envelope).items():
        setattr(message.msh, f"msh_{position}", value)
    every_form = envelope.section.character_set != "8859/1"  # which has the alphabetic one alone
    result = message.add_group("ORU_R01_PATIENT_RESULT")
    _add(result.add_group("ORU_R01_PATIENT"), "PID", _patient(subject, every_form=every_form))
    order = result.add_group("ORU_R01_ORDER_OBSERVATION")
    status = _CORRECTION if envelope.correction else _STATUS[envelope.section.result_status]
    _add(order, "OBR", _request(answer, subject, status))
    for number, remark in enumerate(_remarks(answer), start=1):
        _add(order, "NTE", {1: str(number), 2: "L", 3: er7.text(remark)})
    timing = order.add_group("ORU_R01_TIMING_QTY")
    _add(timing, "TQ1", {1: "1", 9: er7.components(*_TIMING[answer.reading_priority])})
    for number, observation in enumerate(observations.of(answer), start=1):
        group = order.add_group("ORU_R01_OBSERVATION")
        _add(group, "OBX", {
            1: str(number), 2: observation.value_type, 3: observation.identifier, 5: observation.value,
            6: observation.unit, 11: observation.status or status, 14: subject.study_time,
            17: _method(answer) if observation.status is None else "", 19: er7.time_stamp(answer.created_at),
        })  # fmt: skip
        for place, remark in enumerate(observation.remarks, start=1):
            _add(group, "NTE", {1: str(place), 2: "L", 3: er7.text(remark)})
    message.validate()
    return message


def _add(group: Group, name: str, fields: Mapping[int, str]) -> None:
    values = (fields.get(position, "") for position in range(1, max(fields) + 1))
    line = "|".join([name, *values]).rstrip("|")
    group.add(parse_segment(line, version=VERSION, validation_level=VALIDATION_LEVEL.STRICT))


def _header(answer: Answer, envelope: Envelope) -> dict[int, str]:
    section = envelope.section
    header = {
        3: section.sending_application or er7.text(envelope.ae_title),
        4: section.sending_facility,
        5: section.receiving_application,
        6: section.receiving_facility,
        7: er7.time_stamp(envelope.queued_at),
        9: "ORU^R01^ORU_R01",
        10: envelope.control_id(answer),
        11: _PROCESSING[section.processing_id],
        12: VERSION,
        18: section.character_set,
    }
    if section.acknowledgement == "enhanced":  # section 2.9.3: an accept acknowledgement always, no application one
        header |= {15: "AL", 16: "NE"}
    return {position: value for position, value in header.items() if value}


def _patient(subject: Subject, *, every_form: bool) -> dict[int, str]:
    forms = zip(subject.names if every_form else subject.names[:1], _NAME_FORMS, strict=False)
    return {
        1: "1",
        3: f"{er7.text(subject.patient_id)}^^^{_designator(subject.patient_authority)}".rstrip("^"),
        # PID-5 is required even where nobody knows the name: type U, unspecified (table 0200)
        5: "~".join(_name(name, form) for name, form in forms if name is not None) or "^^^^^^U",
        7: subject.birth_date,
        8: subject.sex,
    }


def _name(name: Name, form: str) -> str:
    # XPN has the suffix before the prefix, DICOM the prefix before the suffix
    return er7.components(name.family, name.given, name.middle, name.suffix, name.prefix, "", "L", form)


def _designator(authority: Authority) -> str:
    parts = (authority.namespace, authority.universal_id, authority.universal_id_type)
    return "&".join(er7.text(part) for part in parts).rstrip("&")


def _request(answer: Answer, subject: Subject, status: str) -> dict[int, str]:
    accession = er7.text(subject.accession_number)
    authority = subject.accession_authority
    issued_by = er7.components(authority.namespace, authority.universal_id, authority.universal_id_type)
    return {
        1: "1",
        # Section 7.4.1.3: the filler must name his order; without a number it is the study that is named
        3: f"{accession}^{issued_by}".rstrip("^") if accession else answer.study_instance_uid,
        4: er7.coded(codes.CT_OF_CHEST),
        7: subject.study_time,
        # IHE RAD TF-2: accession number, requested procedure and scheduled step in OBR-18 to OBR-20
        18: accession,
        19: er7.text(subject.requested_procedure_id),
        20: er7.text(subject.scheduled_step_id),
        22: er7.time_stamp(answer.created_at),
        24: "CT",
        25: status,
    }


def _remarks(answer: Answer) -> Iterator[str]:
    yield NOT_FOR_DIAGNOSTIC_USE
    if answer.assessment is not None:
        yield from answer.assessment.warnings


def _method(answer: Answer) -> str:
    if answer.assessment is None:
        return ""
    model = answer.assessment.model
    name = er7.text(f"{model.name} {model.version}, triage-node {__version__}")
    return f"{er7.text(model.name)}^{name}^{codes.PRIVATE_SCHEME}"
