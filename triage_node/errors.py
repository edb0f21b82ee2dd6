"""The exception tree.

::

    TriageError
    ├── ConfigurationError      the configuration cannot be used; says which key and what is allowed
    ├── StateInUse              another node holds the state directory
    ├── Refused                 a series or study cannot be judged; carries the coded reason (a result, not a fault)
    ├── StorageRefused          an instance was not kept; carries the DIMSE status to answer with
    │   ├── OutOfResources      0xA700, worth another try
    │   ├── DataSetMismatch     0xA900, the data set contradicts the request
    │   ├── CannotUnderstand    0xC000, not a data set
    │   └── ConflictingInstance 0xC001, another object is kept under this SOP Instance UID
    ├── InvalidResult           an object of ours does not conform and must not leave; says what is wrong
    ├── ReadingRefused          a reading task cannot be changed that way; carries the DIMSE status to answer with
    ├── ReportRefused           a storage commitment report cannot be used; carries the DIMSE status to answer with
    └── DeliveryFailed          a destination did not take an object; says whether a retry makes sense
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from triage_node.study import NotAnalysed


class TriageError(Exception):
    """Base of everything this node raises on purpose."""


class ConfigurationError(TriageError):
    """The configuration cannot be used: the message lists every problem, one a line."""


class StateInUse(TriageError):
    """Another node already works on this state directory."""


class Refused(TriageError):
    """The series cannot be judged; `not_analysed` has the code and the words for people."""

    def __init__(self, not_analysed: NotAnalysed) -> None:
        super().__init__(f"{not_analysed.reason}: {not_analysed.words}")
        self.not_analysed = not_analysed


class StorageRefused(TriageError):
    """An instance was not kept; `status` is the answer of PS3.4 table B.2-1."""

    status: ClassVar[int] = 0xC000
    retry: ClassVar[bool] = False


class OutOfResources(StorageRefused):
    """No room or no permission to keep the instance now: the sender should try again later."""

    status = 0xA700
    retry = True


class DataSetMismatch(StorageRefused):
    """The data set says something else than the C-STORE request about what it is."""

    status = 0xA900


class CannotUnderstand(StorageRefused):
    """The bytes are not a data set that can be filed under a study and a series."""

    status = 0xC000


class ConflictingInstance(StorageRefused):
    """A different object is already kept under this SOP Instance UID; the newcomer is in quarantine."""

    status = 0xC001


class InvalidResult(TriageError):
    """An object that was made here does not conform, so it must not leave: the message lists what is wrong."""


class ReadingRefused(TriageError):
    """A reading task cannot be claimed, ended or cancelled that way; `status` is the answer of PS3.4 annex CC."""

    def __init__(self, words: str, *, status: int) -> None:
        super().__init__(words)
        self.status = status


class ReportRefused(TriageError):
    """A storage commitment report cannot be used; `status` is the answer of PS3.7 section 10.1.1.1.8."""

    def __init__(self, words: str, *, status: int) -> None:
        super().__init__(words)
        self.status = status


class DeliveryFailed(TriageError):
    """A destination did not take an object; `status` is its DIMSE status where it gave one."""

    def __init__(self, words: str, *, retry: bool, status: int | None = None) -> None:
        super().__init__(words)
        self.retry = retry
        self.status = status
