"""Who looked at what and who came in: rows that are only ever added."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from triage_node.journal.store import Journal


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """One entry of the audit; the fields are the JSON that `triage-node audit --json` prints."""

    at: float  # seconds since 1970
    process: str
    event: str
    kind: str
    outcome: int
    user_name: str
    role: str
    address: str
    study_instance_uid: str | None
    words: str


_COLUMNS = tuple(AuditRow.__dataclass_fields__)


def add(journal: Journal, row: AuditRow) -> None:
    """Keep an entry."""
    with journal.writing() as database:
        database.conn.execute(
            f"insert into audit ({', '.join(_COLUMNS)}) values ({', '.join('?' * len(_COLUMNS))})",
            tuple(asdict(row).values()),
        )


def rows(
    journal: Journal,
    *,
    study: str | None = None,
    user: str | None = None,
    since: float = 0.0,
    last: int | None = None,
) -> list[AuditRow]:
    """The entries of a study, of a user, since a time (seconds since 1970), the newest `last` of them; oldest first."""
    found = journal.rows(
        f"select {', '.join(_COLUMNS)} from (select * from audit where (?1 is null or study_instance_uid = ?1)"
        " and (?2 is null or user_name = ?2) and at >= ?3 order by id desc limit ?4) order by id",
        study,
        user,
        since,
        -1 if last is None else last,
    )
    return [AuditRow(**row) for row in found]
