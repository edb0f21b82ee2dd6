"""Who came in and who looked at which study, in the words of the audit trail of DICOM.

PS3.15 section A.5 names the messages, PS3.16 CID 400 and CID 401 code their events and types. Each entry goes into the
journal, where `triage-node audit` finds it, and into the log. Where the journal cannot be written, on a full disk for
instance, the log alone has it: nobody is kept from a study by that.
"""

from __future__ import annotations

import getpass
import sqlite3
import threading
from collections import OrderedDict
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from triage_node import logbook
from triage_node.journal import audit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from triage_node.journal import Journal

# An open page asks again and again, and so does a reading system: a look is told once in so many seconds for each user,
# place, session and study.
AGAIN_AFTER_S: Final = 900.0
_KEPT: Final = 16_384


class AuditEvent(StrEnum):
    """What happened: code meanings of PS3.16 CID 400."""

    USER_AUTHENTICATION = "User Authentication"  # PS3.15 A.5.3.12
    INSTANCES_ACCESSED = "DICOM Instances Accessed"  # A.5.3.6: viewed, of one study each
    QUERY = "Query"  # A.5.3.10: the reading list
    SECURITY_ALERT = "Security Alert"  # A.5.3.11
    AUDIT_LOG_USED = "Audit Log Used"  # A.5.3.2


class AuditType(StrEnum):
    """What it was more precisely: code meanings of PS3.16 CID 401."""

    NONE = ""
    LOGIN = "Login"
    LOGOUT = "Logout"
    RESTRICTED = "Use of Restricted Function"


class Outcome(IntEnum):
    """EventOutcomeIndicator of PS3.15 section A.5.1."""

    SUCCESS = 0
    MINOR_FAILURE = 4
    SERIOUS_FAILURE = 8


# Code values in the scheme DCM, for those who send these entries on.
CODES: Final[Mapping[AuditEvent | AuditType, str]] = MappingProxyType(
    {
        AuditEvent.USER_AUTHENTICATION: "110114",
        AuditEvent.INSTANCES_ACCESSED: "110103",
        AuditEvent.QUERY: "110112",
        AuditEvent.SECURITY_ALERT: "110113",
        AuditEvent.AUDIT_LOG_USED: "110101",
        AuditType.LOGIN: "110122",
        AuditType.LOGOUT: "110123",
        AuditType.RESTRICTED: "110132",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is to be kept; `words` never holds a password or a patient's name."""

    event: AuditEvent
    kind: AuditType = AuditType.NONE
    outcome: Outcome = Outcome.SUCCESS
    user: str
    role: str = ""
    address: str = ""
    study: str | None = None
    words: str = ""


def on_this_machine(journal: Journal, event: AuditEvent, words: str, now: float, *, study: str | None = None) -> None:
    """Write that somebody looked by a command of this machine, under his name there."""
    record(journal, Entry(event=event, user=getpass.getuser(), study=study, words=words), now)


def listing(rows: list[audit.AuditRow]) -> list[dict[str, object]]:
    """Entries ready for JSON; `code` and `type_code` are those of the scheme DCM."""
    codes = {str(meaning): code for meaning, code in CODES.items()}
    return [
        {
            **asdict(row),
            "at": datetime.fromtimestamp(row.at, UTC).isoformat(timespec="milliseconds"),
            "code": codes.get(row.event),
            "type_code": codes.get(row.kind),
        }
        for row in rows
    ]


def of_study(journal: Journal, study_instance_uid: str) -> list[dict[str, object]]:
    """Who looked at a study, oldest first, ready for JSON."""
    return listing(audit.rows(journal, study=study_instance_uid))


def record(journal: Journal, entry: Entry, now: float) -> None:
    """Write the entry into the journal and the log."""
    log = logbook.get()
    details = {
        "type": entry.kind.value,
        "user": entry.user,
        "role": entry.role,
        "address": entry.address,
        "study": entry.study,
        "words": entry.words,
    }
    say = log.info if entry.outcome is Outcome.SUCCESS else log.warning
    say(entry.event.value, outcome=int(entry.outcome), **{key: value for key, value in details.items() if value})
    row = audit.AuditRow(
        at=now,
        process=journal.process,
        event=entry.event.value,
        kind=entry.kind.value,
        outcome=int(entry.outcome),
        user_name=entry.user,
        role=entry.role,
        address=entry.address,
        study_instance_uid=entry.study,
        words=entry.words,
    )
    try:
        audit.add(journal, row)
    except (sqlite3.Error, OSError) as error:
        log.error("the audit entry above is in the log alone", why=str(error))  # noqa: TRY400  # says it all


class Told:
    """What has been told lately; forgets the oldest."""

    def __init__(self) -> None:
        self._at: OrderedDict[tuple[str, ...], float] = OrderedDict()
        self._lock = threading.Lock()

    def again(self, key: tuple[str, ...], now: float) -> bool:
        """Whether this is to be told (again); `now` in seconds."""
        with self._lock:
            before = self._at.get(key)
            if before is not None and 0 <= now - before < AGAIN_AFTER_S:
                return False
            self._at[key] = now
            self._at.move_to_end(key)
            while len(self._at) > _KEPT:
                self._at.popitem(last=False)
            return True
