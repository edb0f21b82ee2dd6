"""Read-back: is an object that was stored really there? C-FIND as SCU (PS3.4 annex C, Study Root, level IMAGE)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pynetdicom.status import QR_FIND_SERVICE_CLASS_STATUS

from triage_node.conformance import STUDY_ROOT_FIND
from triage_node.errors import DeliveryFailed

if TYPE_CHECKING:
    from pathlib import Path

    from pynetdicom.association import Association

NOT_OFFERED = (
    "the destination offers no query (C-FIND, Study Root): have its administrator allow it, or set read_back = false"
)
_PENDING = (0xFF00, 0xFF01)
# A destination that ignores the key that was asked for may list everything it has.
MOST_ANSWERS = 10_000


def identifier_of(path: Path, sop_instance_uid: str) -> Dataset:
    """The query for one object of ours: its unique keys at all levels, since not every archive answers with fewer.

    Raises DeliveryFailed when the file is gone or broken.
    """
    try:
        kept = dcmread(path, stop_before_pixels=True, specific_tags=["StudyInstanceUID", "SeriesInstanceUID"])
        query = Dataset()
        query.QueryRetrieveLevel = "IMAGE"
        query.StudyInstanceUID = kept.StudyInstanceUID
        query.SeriesInstanceUID = kept.SeriesInstanceUID
        query.SOPInstanceUID = sop_instance_uid
    except (OSError, InvalidDicomError, AttributeError, EOFError) as error:
        raise DeliveryFailed(f"the object cannot be read from disk: {error}", retry=True) from error
    return query


def is_there(association: Association, query: Dataset) -> bool:
    """Whether the destination finds the object. Raises DeliveryFailed when it does not say so."""
    if not association.is_established:
        raise DeliveryFailed("the association was lost before the object was looked for", retry=True)
    found, status, comment = False, None, ""
    try:
        for number, (answer, match) in enumerate(association.send_c_find(query, STUDY_ROOT_FIND)):
            status, comment = answer.get("Status"), str(answer.get("ErrorComment", ""))
            if status in _PENDING and match is not None:
                found = found or str(match.get("SOPInstanceUID", "")) == query.SOPInstanceUID
            if number > MOST_ANSWERS:
                association.abort()
                raise DeliveryFailed(f"more than {MOST_ANSWERS} answers to a query for one object", retry=False)
    except ValueError as error:  # no accepted context
        raise DeliveryFailed(NOT_OFFERED, retry=False) from error
    except (RuntimeError, OSError) as error:
        raise DeliveryFailed(f"the association was lost during the query: {error}", retry=True) from error
    if status is None:
        raise DeliveryFailed("no answer to the query: timed out or aborted", retry=True)
    if status != 0x0000:
        severity, meaning = QR_FIND_SERVICE_CLASS_STATUS.get(int(status), ("Unknown", ""))
        words = ", ".join(text for text in (f"0x{int(status):04X} {severity}", meaning, comment) if text)
        raise DeliveryFailed(f"the query failed: {words}", retry=True, status=int(status))
    return found
