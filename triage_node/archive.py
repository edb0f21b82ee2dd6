"""Instance files by UID: written beside, synced, renamed, never overwritten.

Order of what reaches the disk (what a loss of power may leave behind is in brackets):
1. the bytes go to incoming/NAME.part and are synced        [an orphan, swept at the next start]
2. a hard link gives them their place under their UIDs      [a whole file, perhaps without its directory entry]
3. the directories are synced                               [a whole file that the journal lacks: adopted]
4. the journal gets its row, and only then the sender its 0x0000.
A link instead of a rename: it fails where a file is already, so that no object can overwrite another.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from triage_node.errors import OutOfResources
from triage_node.filing import Header, read_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptFile:
    """A file in its place."""

    path: Path
    already_there: bool


class Archive:
    """The files of one state directory: received instances, quarantine and our own results."""

    def __init__(self, state_dir: Path) -> None:
        """Use `state_dir`, which need not exist yet."""
        self.state_dir = state_dir
        self.instances_dir = state_dir / "archive"
        self.incoming_dir = state_dir / "incoming"
        self.quarantine_dir = state_dir / "quarantine"
        self.results_dir = state_dir / "results"
        self._folders = threading.Lock()

    def prepare(self) -> None:
        """Make the folders and sweep what an earlier process left half-written."""
        for folder in (self.instances_dir, self.incoming_dir, self.quarantine_dir, self.results_dir):
            folder.mkdir(parents=True, exist_ok=True)
        for orphan in self.incoming_dir.glob("*.part"):
            orphan.unlink(missing_ok=True)

    def place_of(self, header: Header) -> Path:
        """Where the instance belongs; its UIDs are known to be digits and points."""
        return (
            self.instances_dir
            / header.study_instance_uid
            / header.series_instance_uid
            / f"{header.sop_instance_uid}.dcm"
        )

    def keep(self, header: Header, parts: tuple[bytes | memoryview, ...]) -> KeptFile:
        """Write `parts` as the file of the instance, or find that there is one.

        Raises OutOfResources when the disk does not take it.
        """
        return self._place(parts, self.place_of(header))

    def quarantine(self, header: Header, digest: str, parts: tuple[bytes | memoryview, ...]) -> Path:
        """Keep an object that must not take the place of another; the same object only once."""
        place = self.quarantine_dir / f"{header.sop_instance_uid}-{digest[:16]}.dcm"
        return self._place(parts, place).path

    def keep_result(self, study_instance_uid: str, name: str, data: bytes) -> Path:
        """Write an object of ours; a repeated run replaces it by the same bytes."""
        place = self.results_dir / study_instance_uid / name
        return self._place((data,), place, replace=True).path

    def _place(self, parts: tuple[bytes | memoryview, ...], place: Path, *, replace: bool = False) -> KeptFile:
        part = self.incoming_dir / f"{uuid.uuid4().hex}.part"
        already_there = False
        try:
            try:
                with part.open("xb") as file:
                    for piece in parts:
                        file.write(piece)
                    file.flush()
                    os.fsync(file.fileno())
                self._make_folders(place.parent)
                if replace:
                    part.replace(place)
                else:
                    try:
                        os.link(part, place)
                    except FileExistsError:
                        already_there = True
                _sync_folder(place.parent)  # also for a file of another thread that has not come as far yet
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            raise OutOfResources(f"the archive cannot take the object: {error.strerror}") from error
        return KeptFile(path=place, already_there=already_there)

    def _make_folders(self, folder: Path) -> None:
        with self._folders:  # who finds a folder must not go on before its maker has synced it
            missing = []
            while not folder.exists():
                missing.append(folder)
                folder = folder.parent
            for new in reversed(missing):
                new.mkdir(exist_ok=True)
                _sync_folder(new.parent)

    def instance_files(self) -> Iterator[Path]:
        """Every instance file in its place."""
        for study in _sorted_folders(self.instances_dir):
            for series in _sorted_folders(study):
                yield from sorted(series.glob("*.dcm"))

    def relative(self, path: Path) -> str:
        """The path as the journal has it."""
        return str(path.relative_to(self.state_dir))

    def free_bytes(self) -> int:
        """Room left on the disk of the state directory."""
        return shutil.disk_usage(self.state_dir).free


def digest_of_file(path: Path) -> str:
    """Sha256 of the data set of a Part 10 file: of what a C-STORE request carries, without the file meta group.

    Raises CannotUnderstand when it is not Part 10.
    """
    _, _, offset = read_file(path)
    return digest_from(path, offset)


def digest_from(path: Path, offset: int) -> str:
    """Sha256 of a file's bytes from `offset` on."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(offset)
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sorted_folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
