"""What names an answer and its objects: the same analysis of the same images gets the same UIDs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

ResultKind = Literal["lesions", "lungs", "report", "overview", "lesion map", "lung map"]
LABEL_MAPS: dict[ResultKind, ResultKind] = {"lesion map": "lesions", "lung map": "lungs"}  # and what each stands for


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultIdentity:
    """From what the UIDs of a result's objects follow, so that a repeated run writes the same objects."""

    study_instance_uid: str
    series_digest: str
    model_digest: str
    generation: int
    created_at: datetime  # when the series was closed, timezone-aware: the objects' content date and time
    ae_title: str = "TRIAGE"
    predecessor: ResultIdentity | None = field(default=None)
    kinds: tuple[ResultKind, ...] = ()  # of a predecessor: its objects that an archive may hold

    @property
    def predecessors(self) -> tuple[ResultIdentity, ...]:
        """The answers that this one supersedes in an archive, the newest first."""
        before = self.predecessor
        return () if before is None else (before, *before.predecessors)

    def uid(self, what: str) -> str:
        """A UID under 2.25 (PS3.5 annex B.2) that depends on nothing but this identity and `what`."""
        text = "\n".join((self.study_instance_uid, self.series_digest, self.model_digest, str(self.generation), what))
        number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")
        # RFC 4122 version 8 (custom) and variant bits: 2.25 is for UUIDs alone
        number = (number & ~(0xF << 76)) | (8 << 76)
        number = (number & ~(0x3 << 62)) | (2 << 62)
        return f"2.25.{number}"
