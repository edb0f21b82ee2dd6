"""What an archive was sent and what it did, on disk: one JSON object a line, written before each answer.

From the register it is known after a restart what the archive holds, and whoever judges can count.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "register.jsonl"
STORED, REFUSED, FORGOTTEN = "stored", "refused", "forgotten"
COMMITMENT, REPORTED, FOUND, MISBEHAVED = "commitment asked", "commitment reported", "queried", "misbehaved"
OPENED, CLOSED = "port opened", "port closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One C-STORE of an object: when (seconds since 1970), its data set's sha256, what was answered (None: nothing)."""

    at: float
    sop_class_uid: str
    digest: str
    kept: bool
    status: int | None


@dataclass(slots=True)
class Account:
    """All that an archive knows of one SOP Instance UID."""

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    arrivals: list[Arrival] = field(default_factory=list)
    holds: str | None = None  # digest of what lies in the archive now
    committed_at: float | None = None  # when the archive last promised to keep it

    @property
    def digests(self) -> set[str]:
        """Digests of all that ever came under this UID: more than one is a breach."""
        return {arrival.digest for arrival in self.arrivals}

    @property
    def copies(self) -> int:
        """How often the object was kept."""
        return sum(arrival.kept for arrival in self.arrivals)


class Register:
    """Appends; may be used by several threads of one process."""

    def __init__(self, place: Path) -> None:
        """Go on with the register of the folder `place`, or begin one."""
        place.mkdir(parents=True, exist_ok=True)
        self.place = place
        self.accounts = accounts(place)
        self.lock = threading.RLock()
        cut_off = (place / NAME).exists() and not (place / NAME).read_bytes().endswith(b"\n")
        self._file: TextIO = (place / NAME).open("a", encoding="utf-8", buffering=1)
        if cut_off:  # a killed process leaves half a line
            self._file.write("\n")

    def write(self, event: str, **detail: Any) -> None:
        """Write one line and change what the archive holds accordingly."""
        line = {"at": time.time(), "event": event, **detail}
        with self.lock:
            self._file.write(json.dumps(line) + "\n")
            _apply(self.accounts, line)

    def forget(self, sop_instance_uid: str) -> bool:
        """Forget an object; what the archive has promised to keep it keeps. Whether it was forgotten."""
        with self.lock:
            account = self.held(sop_instance_uid)
            if account is None or account.committed_at is not None:
                return False
            self.write(FORGOTTEN, sop_instance_uid=sop_instance_uid)
            return True

    def held(self, sop_instance_uid: str) -> Account | None:
        """The account of an object that lies in the archive now."""
        with self.lock:
            account = self.accounts.get(sop_instance_uid)
            return account if account is not None and account.holds is not None else None

    def all_held(self) -> dict[str, Account]:
        """All that lies in the archive now, by SOP Instance UID."""
        with self.lock:
            return {uid: account for uid, account in self.accounts.items() if account.holds is not None}

    def path(self, sop_instance_uid: str, digest: str) -> Path:
        """Where the Part 10 file with this content lies."""
        return path(self.place, sop_instance_uid, digest)

    def close(self) -> None:
        """Close the file."""
        with self.lock:
            self._file.close()


def path(place: Path, sop_instance_uid: str, digest: str) -> Path:
    """Where an archive in the folder `place` keeps the Part 10 file with this content."""
    return place / "objects" / f"{sop_instance_uid}.{digest[:12]}.dcm"


def digest_of(data_set: bytes) -> str:
    """Hexadecimal sha256 of an encoded data set, without the preamble and the file meta information."""
    return hashlib.sha256(data_set).hexdigest()


def events(place: Path) -> Iterator[dict[str, Any]]:
    """Every line of a register, in order; a line that was cut off by the end of its process is passed over."""
    file = place / NAME
    if not file.exists():
        return
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def accounts(place: Path) -> dict[str, Account]:
    """What a register says of every object, by SOP Instance UID."""
    found: dict[str, Account] = {}
    for line in events(place):
        _apply(found, line)
    return found


def _apply(found: dict[str, Account], line: dict[str, Any]) -> None:
    event = line["event"]
    if event in (STORED, REFUSED):
        account = found.setdefault(
            line["sop_instance_uid"],
            Account(line["study_instance_uid"], line["series_instance_uid"], line["sop_class_uid"]),
        )
        account.arrivals.append(
            Arrival(
                at=line["at"],
                sop_class_uid=line["sop_class_uid"],
                digest=line["digest"],
                kept=event == STORED,
                status=line["status"],
            )
        )
        if event == STORED:
            account.holds = line["digest"]
    elif event == FORGOTTEN:
        found[line["sop_instance_uid"]].holds = None
    elif event == REPORTED:
        for uid in line["committed"]:
            found[uid].committed_at = line["at"]
