"""What a receiver says to a message: the acknowledgement and what it means for the next attempt (HL7 2.5.1 chapter 2).

In the original mode an application acknowledgement comes: AA, AE or AR. In the enhanced mode the receiver first says
whether it has taken the message into its keeping: CA, CE or CR; then it is its own business what it does with it, and
the node asks for no more. The codes and conditions stand in the two tables below.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.exceptions import HL7apyException
from hl7apy.parser import parse_segment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hl7apy.core import Segment

    from triage_node.journal.messages import Outcome

_READ_AS = "2.5.1"  # MSA and ERR of every 2.x version are read by the positions of this one
_LONGEST_WORDS = 300

# Table 0008, where no error condition says more. AE: the message has an error, and it would have it again. AR and CE:
# the fault may be the receiver's (section 2.9.2.2: "system down, internal error"), so that it may pass. CR: the kind
# of message is not taken there.
MEANINGS: Final[Mapping[str, Outcome]] = MappingProxyType({
    "AA": "acknowledged",
    "CA": "acknowledged",
    "AE": "refused",
    "AR": "failed",
    "CE": "failed",
    "CR": "refused",
})  # fmt: skip
# Table 0357, message error condition codes: what the receiver gives as its reason decides between the two.
CONDITIONS: Final[Mapping[str, Outcome]] = MappingProxyType({
    "100": "refused",  # segment sequence error
    "101": "refused",  # required field missing
    "102": "refused",  # data type error
    "103": "refused",  # table value not found
    "200": "refused",  # unsupported message type
    "201": "refused",  # unsupported event code
    "202": "refused",  # unsupported processing id
    "203": "refused",  # unsupported version id
    "204": "failed",   # unknown key identifier: patient or order may reach the RIS later than the images reach the node
    "205": "refused",  # duplicate key identifier
    "206": "failed",   # application record locked
    "207": "failed",   # application internal error
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """MSA and ERR of an answer; what was not said is empty."""

    code: str  # MSA-1
    control_id: str  # MSA-2: of the message that is answered
    condition: str  # ERR-3 (MSA-6 before version 2.5): table 0357
    words: str  # for people; they may name a patient

    @property
    def outcome(self) -> Outcome:
        """What it says about the message."""
        meaning = MEANINGS[self.code]
        return meaning if meaning == "acknowledged" else CONDITIONS.get(self.condition, meaning)

    def is_final(self, mode: Literal["original", "enhanced"]) -> bool:
        """Whether there is nothing left to wait for: CA alone is no answer where an application one is due."""
        return mode == "enhanced" or self.code != "CA"

    @property
    def sentence(self) -> str:
        """For the ledger: the code, the condition, and the receiver's own words."""
        said = f"{self.code} (condition {self.condition})" if self.condition else self.code
        return f"{said}: {self.words}" if self.words else said


def read(block: bytes) -> Acknowledgement | None:
    """The acknowledgement in an MLLP block; None where it is none: another message, or nothing that can be read."""
    text = block.decode("utf-8", errors="replace").replace("\n", "\r")
    lines = [line for line in text.split("\r") if line.strip()]
    if not lines or not lines[0].startswith("MSH") or len(lines[0]) < 8:
        return None
    try:
        answer = _segment(lines, "MSA")
        fault = _segment(lines, "ERR")
        if answer is None or _at(answer, "msa_1") not in MEANINGS:
            return None
        return Acknowledgement(
            code=_at(answer, "msa_1"),
            control_id=_at(answer, "msa_2"),
            condition=_at(fault, "err_3") or _at(answer, "msa_6"),
            words=_words(_at(answer, "msa_3"), _at(fault, "err_8"), _at(fault, "err_7")),
        )
    except (HL7apyException, ValueError, LookupError):
        return None


def _segment(lines: list[str], name: str) -> Segment | None:
    """The first segment of this name; its delimiters are those that MSH-1 and MSH-2 declare."""
    field, component, repetition, escape, subcomponent = tuple(lines[0][3:8])
    signs = {
        "FIELD": field, "COMPONENT": component, "REPETITION": repetition, "ESCAPE": escape,
        "SUBCOMPONENT": subcomponent, "SEGMENT": "\r", "GROUP": "\r",
    }  # fmt: skip
    line = next((line for line in lines[1:] if line.startswith(f"{name}{field}")), None)
    if line is None:
        return None
    return parse_segment(line, version=_READ_AS, encoding_chars=signs, validation_level=VALIDATION_LEVEL.TOLERANT)


def _at(segment: Segment | None, field: str) -> str:
    """The first component of a field."""
    if segment is None:
        return ""
    return str(getattr(segment, field).to_er7()).split("^")[0].strip()


def _words(*parts: str) -> str:
    said = "; ".join(dict.fromkeys(part for part in parts if part))
    plain = "".join(sign if sign.isprintable() else " " for sign in said)
    return plain[:_LONGEST_WORDS]
