"""Storage commitment after delivery: the data sets of a request and of its report (PS3.4 annex J).

The node asks by N-ACTION; the destination reports by N-EVENT-REPORT, on the same association or on one that it opens
to the receiver with the roles reversed, at any time, perhaps twice, perhaps never. A report belongs to the request
that its Transaction UID names: these are random, so who knows one was asked.
"""

from __future__ import annotations

import sqlite3
import time
from io import BytesIO
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset
from pydicom.uid import UID, generate_uid
from pynetdicom.dsutils import decode
from pynetdicom.status import STORAGE_COMMITMENT_SERVICE_CLASS_STATUS

from triage_node import logbook
from triage_node.conformance import STORAGE_COMMITMENT_PUSH_MODEL
from triage_node.errors import DeliveryFailed, ReportRefused
from triage_node.journal import proofs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pynetdicom.association import Association
    from pynetdicom.dimse_primitives import N_EVENT_REPORT

    from triage_node.config import Settings
    from triage_node.journal import Journal

WELL_KNOWN_INSTANCE = "1.2.840.10008.1.20.1.1"
REQUEST_COMMITMENT = 1  # PS3.4 section J.3.2.1: Action Type ID
ALL_COMMITTED, FAILURES_EXIST = 1, 2  # PS3.4 section J.3.3.1: Event Type IDs

# PS3.7 sections 10.1.1.1.8 and C.5
SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
NO_SUCH_EVENT_TYPE = 0x0113
INVALID_ARGUMENT_VALUE = 0x0115
MISTYPED_ARGUMENT = 0x0212

NOT_OFFERED = (
    "the destination offers no storage commitment: have its administrator allow it, or set storage_commitment = false"
)


def new_transaction() -> str:
    """A Transaction UID that nobody can guess."""
    return str(generate_uid(prefix=None))


def request(association: Association, transaction_uid: str, objects: Iterable[proofs.Unproven]) -> tuple[int, str]:
    """Ask for the commitment of `objects`; returns the N-ACTION status and its meaning.

    Raises DeliveryFailed when no status came, or when the destination offers no storage commitment.
    """
    if not association.is_established:
        raise DeliveryFailed("the association was lost before commitment was asked for", retry=True)
    information = Dataset()
    information.TransactionUID = transaction_uid
    information.ReferencedSOPSequence = []
    for each in objects:
        item = Dataset()
        item.ReferencedSOPClassUID = each.sop_class_uid
        item.ReferencedSOPInstanceUID = each.sop_instance_uid
        information.ReferencedSOPSequence.append(item)
    try:
        answer, _ = association.send_n_action(
            information, REQUEST_COMMITMENT, STORAGE_COMMITMENT_PUSH_MODEL, WELL_KNOWN_INSTANCE
        )
    except ValueError as error:  # no accepted context
        raise DeliveryFailed(NOT_OFFERED, retry=False) from error
    except (RuntimeError, OSError) as error:
        raise DeliveryFailed(f"the association was lost while asking for commitment: {error}", retry=True) from error
    if "Status" not in answer:
        raise DeliveryFailed("no answer to the request for commitment: timed out or aborted", retry=True)
    status = int(answer.Status)
    severity, meaning = STORAGE_COMMITMENT_SERVICE_CLASS_STATUS.get(status, ("Unknown", ""))
    comment = str(answer.get("ErrorComment", ""))
    return status, ", ".join(text for text in (f"0x{status:04X} {severity}", meaning, comment) if text)


def parse(event_type: int | None, information: Dataset) -> proofs.Report:
    """What a report says (PS3.4 table J.3-3). Raises ReportRefused, which carries the status to answer with."""
    if event_type not in (ALL_COMMITTED, FAILURES_EXIST):
        raise ReportRefused(f"event type {event_type} is neither 1 nor 2", status=NO_SUCH_EVENT_TYPE)
    transaction_uid = str(information.get("TransactionUID", "") or "")
    if not UID(transaction_uid).is_valid:
        raise ReportRefused("the report has no Transaction UID", status=INVALID_ARGUMENT_VALUE)
    try:
        committed = [str(item.ReferencedSOPInstanceUID) for item in information.get("ReferencedSOPSequence") or ()]
        failed = [
            (str(item.ReferencedSOPInstanceUID), int(item.get("FailureReason") or PROCESSING_FAILURE))
            for item in (information.get("FailedSOPSequence") or () if event_type == FAILURES_EXIST else ())
        ]
    except (AttributeError, TypeError, ValueError) as error:
        raise ReportRefused(f"the report names no object: {error}", status=INVALID_ARGUMENT_VALUE) from error
    return proofs.Report(transaction_uid=transaction_uid, committed=tuple(committed), failed=tuple(failed))


class Reports:
    """Takes the reports of all destinations, on whatever association they come: one write into the journal each."""

    def __init__(self, settings: Settings, journal: Journal, *, ring: Callable[[], None]) -> None:
        """`ring` wakes who waits for a report."""
        self._destinations = settings.destinations
        self._journal = journal
        self._ring = ring

    def receive(self, report: N_EVENT_REPORT, transfer_syntax: str, peer: str) -> int:
        """Take a report; returns the status to answer it with."""
        log = logbook.get().bind(peer=peer)
        try:
            said = parse(report.EventTypeID, _decoded(report, transfer_syntax))
            reception = proofs.report(self._journal, said, self._destinations, time.time())
        except ReportRefused as refusal:
            log.warning("commitment report refused", status=f"0x{refusal.status:04X}", why=str(refusal))
            return refusal.status
        except sqlite3.Error as error:  # the destination may report again
            log.error("commitment report not journalled", why=str(error))  # noqa: TRY400  # says it all
            return PROCESSING_FAILURE
        except Exception:  # the border of the SCP: whatever a library stumbles over in a stranger's bytes
            log.exception("commitment report refused", status=f"0x{PROCESSING_FAILURE:04X}")
            return PROCESSING_FAILURE
        line = {
            "transaction": said.transaction_uid,
            "committed": len(said.committed),
            "not_committed": len(said.failed),
        }
        if reception == "unknown":
            log.warning("commitment report refused", why="the transaction is unknown", **line)
            return INVALID_ARGUMENT_VALUE
        write = log.warning if said.failed else log.info
        write("commitment reported" if reception == "applied" else "commitment reported again", **line)
        self._ring()
        return SUCCESS


def _decoded(report: N_EVENT_REPORT, transfer_syntax: str) -> Dataset:
    if report.EventInformation is None:
        raise ReportRefused("the report carries no data set", status=INVALID_ARGUMENT_VALUE)
    syntax = UID(transfer_syntax)
    data = BytesIO(report.EventInformation.getvalue())
    try:
        information = decode(data, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)
        for element in information:  # decodes what pydicom has put off
            assert element is not None
    except Exception as error:
        raise ReportRefused(f"the data set cannot be read: {error}", status=MISTYPED_ARGUMENT) from error
    return information
