"""An instance becomes safe: its file, its journal row, and what is known under its UID already.

The archive and the journal are written one after the other, so each rule here also holds when the process dies
between them: a file without its row is adopted, by the next attempt to send it or by the next receiver.
"""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING

from triage_node import filing, logbook
from triage_node.archive import digest_from, digest_of_file
from triage_node.errors import CannotUnderstand, ConflictingInstance
from triage_node.journal import intake

if TYPE_CHECKING:
    from pathlib import Path

    from triage_node.archive import Archive
    from triage_node.filing import Header
    from triage_node.journal import Journal


def keep(
    journal: Journal,
    archive: Archive,
    header: Header,
    transfer_syntax_uid: str,
    parts: tuple[bytes, bytes | memoryview],
    *,
    association_id: int | None,
) -> bool:
    """File and journal an instance; False when the same one is kept already.

    `parts` are what stands before the data set in a Part 10 file, and the data set. Raises ConflictingInstance when
    another object is kept under the UID, OutOfResources when the archive takes nothing.
    """
    digest = hashlib.sha256(parts[1]).hexdigest()
    before = intake.kept_before(journal, header.sop_instance_uid)
    known = None if before is None else before.digest
    if before is None:
        file = archive.keep(header, parts)
        # A receiver died between file and journal, or another association is as far as this one.
        known = _digest_in_place(file.path) if file.already_there else digest
        if known == digest:
            kept = intake.Kept(
                header=header,
                transfer_syntax_uid=transfer_syntax_uid,
                path=archive.relative(file.path),
                digest=digest,
                size_bytes=sum(map(len, parts)),
            )
            if intake.add_instance(journal, kept, association_id=association_id, now=time.time()):
                return True
            before = intake.kept_before(journal, header.sop_instance_uid)
            assert before is not None
            known = before.digest
            if not file.already_there and before.path != kept.path:
                file.path.unlink(missing_ok=True)  # the other association was faster, under another study
    if known != digest:
        place = archive.quarantine(header, digest, parts)
        with journal.writing() as database:
            journal.note(
                database,
                "conflicting instance quarantined",
                study=header.study_instance_uid,
                file=archive.relative(place),
            )
        raise ConflictingInstance("another object is kept under this SOP Instance UID")
    if before is not None and not (archive.state_dir / before.path).exists():
        archive.keep(header, parts)  # the file was lost meanwhile: what is acknowledged must be there
    return False


def _digest_in_place(path: Path) -> str | None:
    """Digest of a file that is in its place; None when it is damaged, which makes it another object."""
    try:
        return digest_of_file(path)
    except CannotUnderstand:
        return None


def adopt(journal: Journal, archive: Archive) -> int:
    """Journal what the archive holds and the journal lacks; returns how many instances."""
    log = logbook.get()
    known = {row["path"] for row in journal.rows("select path from instances")}
    adopted = 0
    for path in archive.instance_files():
        relative = archive.relative(path)
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
            log.error("file in the archive cannot be read", file=relative, why=str(error))  # noqa: TRY400  # no fault of ours
            continue
        if intake.add_instance(journal, kept, association_id=None, now=arrived_at):
            adopted += 1
        else:
            log.error("file in the archive has the UID of another one", file=relative)
    return adopted
