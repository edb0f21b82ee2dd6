"""The states of a reading task, as a table: what may happen to a workitem when, and what is answered (PS3.4 CC.1.1).

A reading task is a Unified Procedure Step. Whoever wants to read a study claims its workitem with a Transaction UID
and from then on alone may end it. The reading worklist (UPS), the page and `triage-node mark` all decide here; there is
no way back from IN PROGRESS to SCHEDULED: a study that is put back into the queue gets a new workitem.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

SUCCESS: Final = 0x0000
DUPLICATE_SOP_INSTANCE: Final = 0x0111
NOT_AUTHORIZED: Final = 0x0124  # PS3.7 annex C
ALREADY_CANCELED: Final = 0xB304  # warnings: there already
ALREADY_COMPLETED: Final = 0xB306
NO_LONGER_CHANGED: Final = 0xC300
WRONG_TRANSACTION_UID: Final = 0xC301
ALREADY_IN_PROGRESS: Final = 0xC302
ONLY_BY_CREATION: Final = 0xC303
FINAL_STATE_NOT_MET: Final = 0xC304
NO_SUCH_WORKITEM: Final = 0xC307
RECEIVING_AE_UNKNOWN: Final = 0xC308
NOT_SCHEDULED_AT_CREATION: Final = 0xC309
NOT_YET_IN_PROGRESS: Final = 0xC310
ALREADY_COMPLETED_NO_CANCEL: Final = 0xC311
PERFORMER_NOT_REACHED: Final = 0xC312
ACTION_NOT_APPROPRIATE: Final = 0xC314
EVENTS_NOT_SUPPORTED: Final = 0xC315

# What each status says to people (PS3.4 tables CC.2.1-2, CC.2.2-2, CC.2.3-3, CC.2.5-4, CC.2.6-2)
MEANINGS: Final[Mapping[int, str]] = MappingProxyType({
    SUCCESS: "done",
    DUPLICATE_SOP_INSTANCE: "a workitem with this UID exists already",
    ALREADY_CANCELED: "the workitem is CANCELED already",
    ALREADY_COMPLETED: "the workitem is COMPLETED already",
    NO_LONGER_CHANGED: "the workitem has ended and is no longer changed",
    WRONG_TRANSACTION_UID: "the Transaction UID is missing or not the one of the claim",
    ALREADY_IN_PROGRESS: "the workitem is IN PROGRESS already",
    ONLY_BY_CREATION: "a workitem becomes SCHEDULED by N-CREATE alone",
    FINAL_STATE_NOT_MET: "what must be known of an ended workitem has not been set",
    NO_SUCH_WORKITEM: "there is no such workitem",
    RECEIVING_AE_UNKNOWN: "the receiving AE title is unknown to this node",
    NOT_SCHEDULED_AT_CREATION: "a workitem is created in the state SCHEDULED",
    NOT_YET_IN_PROGRESS: "the workitem is not IN PROGRESS yet",
    ALREADY_COMPLETED_NO_CANCEL: "the workitem is COMPLETED and cannot be cancelled",
    PERFORMER_NOT_REACHED: "the performer cannot be told of the request",
    ACTION_NOT_APPROPRIATE: "the action does not fit this workitem",
    EVENTS_NOT_SUPPORTED: "no reports are sent to this AE title",
})  # fmt: skip


class StepState(StrEnum):
    """Procedure Step State (0074,1000), PS3.3 table C.30.1-1."""

    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"


class EventKind(IntEnum):
    """Event Type ID of a report about a workitem, PS3.4 table CC.2.4-1."""

    NONE = 0  # not reported; filters of subscriptions look at the workitem again
    STATE = 1
    CANCEL_REQUESTED = 2
    PROGRESS = 3
    SCP_STATUS = 4
    ASSIGNED = 5


OPEN: Final = frozenset({StepState.SCHEDULED, StepState.IN_PROGRESS})


class Request(StrEnum):
    """What is asked of a workitem: the rows of PS3.4 table CC.1.1-2."""

    CREATE = "N-CREATE"
    START = "IN PROGRESS, correct Transaction UID"
    START_WRONG = "IN PROGRESS, wrong Transaction UID"
    SCHEDULE = "SCHEDULED"
    COMPLETE = "COMPLETED, correct Transaction UID"
    COMPLETE_WRONG = "COMPLETED, wrong Transaction UID"
    REQUEST_CANCEL = "request cancel"
    CANCEL = "CANCELED, correct Transaction UID"
    CANCEL_WRONG = "CANCELED, wrong Transaction UID"


@dataclass(frozen=True, slots=True)
class Outcome:
    """An answer, and the states that the workitem goes through before it is given."""

    status: int
    states: tuple[StepState, ...] = ()  # the last one stays; none: nothing changes
    tells_performer: bool = False  # who is subscribed hears that somebody wants the workitem cancelled

    @property
    def words(self) -> str:
        """What the status says."""
        return MEANINGS[self.status]

    @property
    def is_refusal(self) -> bool:
        """Whether nothing was done; a warning says that it was done before."""
        return self.status >= 0xC000 or self.status == DUPLICATE_SOP_INSTANCE


_CREATE = Outcome(SUCCESS, (StepState.SCHEDULED,))
_START = Outcome(SUCCESS, (StepState.IN_PROGRESS,))
_COMPLETE = Outcome(SUCCESS, (StepState.COMPLETED,))
_CANCEL = Outcome(SUCCESS, (StepState.CANCELED,))
_CALL_OFF = Outcome(SUCCESS, (StepState.IN_PROGRESS, StepState.CANCELED))  # CC.2.2.3: first the one, then the other
_ASK = Outcome(SUCCESS, tells_performer=True)
_0111, _B304, _B306 = Outcome(DUPLICATE_SOP_INSTANCE), Outcome(ALREADY_CANCELED), Outcome(ALREADY_COMPLETED)
_C300, _C301, _C302 = Outcome(NO_LONGER_CHANGED), Outcome(WRONG_TRANSACTION_UID), Outcome(ALREADY_IN_PROGRESS)
_C303, _C307, _C310 = Outcome(ONLY_BY_CREATION), Outcome(NO_SUCH_WORKITEM), Outcome(NOT_YET_IN_PROGRESS)
_C311 = Outcome(ALREADY_COMPLETED_NO_CANCEL)

COLUMNS: Final = (None, StepState.SCHEDULED, StepState.IN_PROGRESS, StepState.COMPLETED, StepState.CANCELED)
# PS3.4 table CC.1.1-2: a row a request, a column a state (the first: no such workitem)
TABLE: Final[Mapping[Request, tuple[Outcome, Outcome, Outcome, Outcome, Outcome]]] = MappingProxyType({
    #                        none     SCHEDULED  IN PROGRESS COMPLETED CANCELED
    Request.CREATE:         (_CREATE, _0111,     _0111,      _0111,    _0111),
    Request.START:          (_C307,   _START,    _C302,      _C300,    _C300),
    Request.START_WRONG:    (_C307,   _C301,     _C301,      _C301,    _C301),
    Request.SCHEDULE:       (_C307,   _C303,     _C303,      _C303,    _C303),
    Request.COMPLETE:       (_C307,   _C310,     _COMPLETE,  _B306,    _C300),
    Request.COMPLETE_WRONG: (_C307,   _C301,     _C301,      _C301,    _C301),
    Request.REQUEST_CANCEL: (_C307,   _CALL_OFF, _ASK,       _C311,    _B304),
    Request.CANCEL:         (_C307,   _C310,     _CANCEL,    _C300,    _B304),
    Request.CANCEL_WRONG:   (_C307,   _C301,     _C301,      _C301,    _C301),
})  # fmt: skip

_CHANGES: Final[Mapping[StepState, tuple[Request, Request]]] = MappingProxyType({
    StepState.SCHEDULED: (Request.SCHEDULE, Request.SCHEDULE),
    StepState.IN_PROGRESS: (Request.START, Request.START_WRONG),
    StepState.COMPLETED: (Request.COMPLETE, Request.COMPLETE_WRONG),
    StepState.CANCELED: (Request.CANCEL, Request.CANCEL_WRONG),
})  # fmt: skip


def decide(state: StepState | None, request: Request) -> Outcome:
    """What the table says; `state` is None where there is no such workitem."""
    return TABLE[request][COLUMNS.index(state)]


def change(
    state: StepState | None, wanted: StepState, *, recorded: str | None, given: str | None, is_described: bool = True
) -> Outcome:
    """The answer to a request to change the state (PS3.4 CC.2.1.3).

    `recorded` is the Transaction UID of the claim, None before there is one: then any that is given will do.
    `is_described` says whether what must be known of an ended workitem is known (PS3.4 table CC.2.5-3, final state).
    """
    right = bool(given) and recorded in (None, given)
    outcome = decide(state, _CHANGES[wanted][0 if right else 1])
    if outcome.states and outcome.states[-1] not in OPEN and not is_described:
        return Outcome(FINAL_STATE_NOT_MET)
    return outcome


def request_cancel(state: StepState | None, *, somebody_listens: bool = True) -> Outcome:
    """The answer to who is not the performer and wants a workitem cancelled (PS3.4 CC.2.2.3)."""
    outcome = decide(state, Request.REQUEST_CANCEL)
    return Outcome(PERFORMER_NOT_REACHED) if outcome.tells_performer and not somebody_listens else outcome


def uid_of(study_instance_uid: str, number: int) -> str:
    """SOP Instance UID of the `number`-th workitem of a study (from 1): the same after the journal was rebuilt."""
    digest = hashlib.sha256(f"reading {number} of\n{study_instance_uid}".encode()).digest()
    value = int.from_bytes(digest[:16], "big")
    # RFC 9562 version 8 (custom) and variant bits: 2.25 is for UUIDs alone (PS3.5 annex B.2)
    value = (value & ~(0xF << 76)) | (8 << 76)
    return f"2.25.{(value & ~(0x3 << 62)) | (2 << 62)}"
