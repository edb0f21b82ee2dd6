"""An instance becomes safe: its file, its journal row, and what is known under its UID already.

The archive and the journal are written one after the other, so each rule here also holds when the process dies
between them: a file without its row is adopted, by the next attempt to send it or by the next receiver.
"""

from __future__ import annotations

import hashlib
import threading
import time
from typing import TYPE_CHECKING

from triage_node import filing, logbook
from triage_node.archive import digest_from, digest_of_file
from triage_node.errors import CannotUnderstand, ConflictingInstance, OutOfResources
from triage_node.journal import intake

if TYPE_CHECKING:
    from pathlib import Path

    from triage_node.archive import Archive
    from triage_node.filing import Header
    from triage_node.journal import Journal


class Custody:
    """Keeps instances in an archive and a journal; one object of it serves all associations of the one receiver."""

    def __init__(self, journal: Journal, archive: Archive) -> None:
        """Use `journal` and `archive` together."""
        self._journal = journal
        self._archive = archive
        # Two associations may bring the same UID at once: who is first decides, the second looks at what is there.
        self._locks = tuple(threading.Lock() for _ in range(64))

    def keep(
        self,
        header: Header,
        transfer_syntax_uid: str,
        parts: tuple[bytes, bytes | memoryview],
        *,
        association_id: int | None,
    ) -> bool:
        """File and journal an instance; False when the same one is kept already.

        `parts` are what stands before the data set in a Part 10 file, and the data set. Raises ConflictingInstance
        when another object is kept under the UID, OutOfResources when the archive takes nothing.
        """
        digest = hashlib.sha256(parts[1]).hexdigest()
        with self._locks[hash(header.sop_instance_uid) % len(self._locks)]:
            before = intake.kept_before(self._journal, header.sop_instance_uid)
            if before is not None and before.digest == digest:
                if not (self._archive.state_dir / before.path).exists():
                    self._archive.keep(header, parts)  # the file was lost meanwhile: what is acknowledged must be there
                return False
            if before is None:
                file = self._archive.keep(header, parts)
                # An earlier receiver may have died between file and journal.
                if not file.already_there or _digest_in_place(file.path) == digest:
                    kept = intake.Kept(
                        header=header,
                        transfer_syntax_uid=transfer_syntax_uid,
                        path=self._archive.relative(file.path),
                        digest=digest,
                        size_bytes=sum(map(len, parts)),
                    )
                    if not intake.add_instance(self._journal, kept, association_id=association_id, now=time.time()):
                        raise OutOfResources("another process has journalled this UID at the same time")
                    return True
            place = self._archive.quarantine(header, digest, parts)
            with self._journal.writing() as database:
                self._journal.note(
                    database,
                    "conflicting instance quarantined",
                    study=header.study_instance_uid,
                    file=self._archive.relative(place),
                )
        raise ConflictingInstance("another object is kept under this SOP Instance UID")

    def adopt(self) -> int:
        """Journal what the archive holds and the journal lacks; returns how many instances."""
        log = logbook.get()
        known = {row["path"] for row in self._journal.rows("select path from instances")}
        adopted = 0
        for path in self._archive.instance_files():
            relative = self._archive.relative(path)
            if relative in known:
                continue
            try:
                header, syntax, offset = filing.read_file(path)
                kept = intake.Kept(
                    header=header,
                    transfer_syntax_uid=syntax,
                    path=relative,
                    digest=digest_from(path, offset),
                    size_bytes=path.stat().st_size,
                )
                arrived_at = path.stat().st_mtime
            except (CannotUnderstand, OSError) as error:
                log.error("file in the archive cannot be read", file=relative, why=str(error))  # noqa: TRY400  # no fault
                continue
            if intake.add_instance(self._journal, kept, association_id=None, now=arrived_at):
                adopted += 1
            else:
                log.error("file in the archive has the UID of another one", file=relative)
        return adopted


def _digest_in_place(path: Path) -> str | None:
    """Digest of a file that is in its place; None when it is damaged, which makes it another object."""
    try:
        return digest_of_file(path)
    except CannotUnderstand:
        return None
