"""A real archive that misbehaves on purpose: Verification, Storage, Storage Commitment and Query SCP.

What it does wrong, and how often, is the table in `misbehaviour`; what it was sent and what it did is in its register.
It accepts every storage SOP class. With all shares zero it is an archive that does its duty.
"""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass
from io import BytesIO
from socketserver import BaseServer
from typing import TYPE_CHECKING, Any

from pydicom.filereader import read_partial
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, _config, evt
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.transport import ThreadedAssociationServer

from soaking import query, register
from soaking.committing import PUSH_MODEL, Committing, Node
from soaking.misbehaviour import Dice, Misbehaviour, Occasion
from soaking.register import Register

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pydicom.dataset import Dataset
    from pynetdicom.association import Association

OTHER_SERVICES = (
    "1.2.840.10008.1.1",  # Verification
    "1.2.840.10008.5.1.4.1.2.1.1",  # Patient Root Query/Retrieve, FIND
    "1.2.840.10008.5.1.4.1.2.2.1",  # Study Root Query/Retrieve, FIND
    PUSH_MODEL,
)
# Explicit VR first: who offers both is not made to rewrite its objects
SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, *ALL_TRANSFER_SYNTAXES]
PDU_BYTES = 8192  # small, so that an object takes several and can be cut off between them
SERIES_INSTANCE_UID = 0x0020000E
CUT_AFTER_BYTES = PDU_BYTES
SHUTDOWN_POLL_S = 0.02
REFUSALS = {
    Misbehaviour.REFUSE_A700: 0xA700,
    Misbehaviour.REFUSE_0110: 0x0110,
    Misbehaviour.REFUSE_C000: 0xC000,
}
COERCED = 0xB007  # PS3.4 table B.2-1: data set does not match SOP class, stored all the same
DUPLICATE = 0x0111  # PS3.7 annex C: another object lies under this SOP Instance UID
OUT_OF_RESOURCES = 0xA700


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long things take, in seconds."""

    slow_s: float = 0.5  # what is slow, within the time-out of the other side
    stall_s: float = 4.0  # what comes after its time-out
    late_s: float = 4.0  # a late commitment report
    away_every_s: float = 0.0  # the port closes about so often; 0: never
    away_for_s: float = 3.0  # and opens again after about so long


USUAL_PACE = Pace()


class _Server(ThreadedAssociationServer):
    """Closes its port within SHUTDOWN_POLL_S."""

    def shutdown(self) -> None:
        BaseServer.shutdown(self)
        self.server_close()


class UnreliableArchive:
    """Listens until it is stopped; keeps what it takes below a folder, also from one start to the next."""

    def __init__(
        self,
        place: Path,
        ae_title: str,
        port: int,
        *,
        seed: int = 0,
        shares: Mapping[Misbehaviour, float] | None = None,
        pace: Pace = USUAL_PACE,
        report_to: Mapping[str, Node] | None = None,
    ) -> None:
        """Prepare; `report_to` says where the senders listen for commitment reports, by their AE title."""
        _config.LOG_HANDLER_LEVEL = "none"
        self.register = Register(place)
        (place / "objects").mkdir(exist_ok=True)
        self.pace = pace
        self.port = port
        self._dice = Dice(seed, shares or {})
        self._moments = random.Random(f"{seed} away")
        self._stopping = threading.Event()
        self._data_bytes: dict[Association, int] = {}  # of associations that are to be cut short
        self._ae = AE(ae_title=ae_title)
        self._ae.maximum_pdu_size = PDU_BYTES
        self._ae.maximum_associations = 50
        for context in AllStoragePresentationContexts:
            self._ae.add_supported_context(context.abstract_syntax or "", SYNTAXES)
        for uid in OTHER_SERVICES:
            self._ae.add_supported_context(uid)
        self._committing = Committing(self.register, self._dice, self.pace, ae_title, report_to or {}, self._stopping)
        self._server: ThreadedAssociationServer | None = None

    def open(self) -> None:
        """Open the port; returns when it is open."""
        handlers: list[Any] = [
            (evt.EVT_REQUESTED, self._on_requested),
            (evt.EVT_PDU_RECV, self._on_pdu),
            (evt.EVT_CONN_CLOSE, lambda event: self._data_bytes.pop(event.assoc, None)),
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_C_FIND, self._on_find),
            (evt.EVT_N_ACTION, self._committing.on_action),
        ]
        self._server = server = self._ae.make_server(
            ("127.0.0.1", self.port), evt_handlers=handlers, server_class=_Server
        )
        self.port = int(server.server_address[1])
        threading.Thread(target=server.serve_forever, args=(SHUTDOWN_POLL_S,), daemon=True).start()
        self.register.write(register.OPENED, port=self.port)

    def close(self) -> None:
        """Close the port and cut off who is connected."""
        if self._server is not None:
            self._server.shutdown()
        for association in self._ae.active_associations:
            association.abort()
        self.register.write(register.CLOSED)

    def run(self) -> None:
        """Listen, go away and come back, until `stop` is called."""
        self.open()
        while not self._stopping.wait(self._until(self.pace.away_every_s)):
            self.close()
            gone = self._stopping.wait(self._until(self.pace.away_for_s))
            self.open()
            if gone:
                break
        self.close()
        self._committing.join()
        self.register.close()

    def stop(self) -> None:
        """End `run`; what is being waited for is cut off."""
        self._stopping.set()

    def _until(self, about_s: float) -> float | None:
        return about_s * self._moments.uniform(0.5, 1.5) if about_s > 0 else None

    # ------------------------------------------------------------------ association

    def _on_requested(self, event: evt.Event) -> None:
        misbehaviour = self._throw(Occasion.ASSOCIATION)
        match misbehaviour:
            case Misbehaviour.REJECT_TRANSIENT:
                self._reject(event.assoc, 0x02, 0x03, 0x02)  # PS3.8 table 9-21: local limit exceeded
            case Misbehaviour.REJECT_PERMANENT:
                self._reject(event.assoc, 0x01, 0x01, 0x01)  # no reason given
            case Misbehaviour.ACCEPT_SLOWLY:
                self._stopping.wait(self.pace.slow_s)
            case Misbehaviour.ACCEPT_NEVER:
                self._stopping.wait(self.pace.stall_s)
                event.assoc.abort(block=False)
            case Misbehaviour.CUT_SHORT:
                self._data_bytes[event.assoc] = 0
            case _:
                pass

    @staticmethod
    def _reject(association: Association, result: int, source: int, diagnostic: int) -> None:
        association.acse.send_reject(result, source, diagnostic)
        association.kill()

    def _on_pdu(self, event: evt.Event) -> None:
        """Abort an association that is to be cut short once so many bytes of it have come."""
        if event.assoc not in self._data_bytes or not isinstance(event.pdu, P_DATA_TF):
            return
        self._data_bytes[event.assoc] += event.pdu.pdu_length
        if self._data_bytes[event.assoc] > CUT_AFTER_BYTES:
            event.assoc.abort(block=False)

    # ------------------------------------------------------------------ storage

    def _on_store(self, event: evt.Event) -> int:
        if event.assoc.is_aborted:  # the rest of what was cut short
            return OUT_OF_RESOURCES
        uid = str(event.request.AffectedSOPInstanceUID)  # type: ignore[union-attr]  # it is a C-STORE request
        misbehaviour = self._throw(Occasion.STORE, uid)
        match misbehaviour:
            case Misbehaviour.REFUSE_A700 | Misbehaviour.REFUSE_0110 | Misbehaviour.REFUSE_C000:
                return self._refuse(event, uid, REFUSALS[misbehaviour])
            case Misbehaviour.STORE_SLOWLY:
                self._stopping.wait(self.pace.slow_s)
                return self._keep(event, uid, 0x0000)
            case Misbehaviour.STALL | Misbehaviour.ABORT:
                self._refuse(event, uid, None)
            case Misbehaviour.KEEP_AND_STALL | Misbehaviour.KEEP_AND_ABORT:
                self._keep(event, uid, None)
            case Misbehaviour.KEEP_AND_WARN:
                return self._keep(event, uid, COERCED)
            case Misbehaviour.FORGET:
                status = self._keep(event, uid, 0x0000)
                self.register.forget(uid)
                return status
            case _:
                return self._keep(event, uid, 0x0000)
        if misbehaviour in (Misbehaviour.STALL, Misbehaviour.KEEP_AND_STALL):
            self._stopping.wait(self.pace.stall_s)
        else:
            event.assoc.abort(block=False)
        return OUT_OF_RESOURCES

    def _keep(self, event: evt.Event, uid: str, status: int | None) -> int:
        """Keep the object and write down that it is answered with `status`; returns the answer."""
        digest = register.digest_of(event.encoded_dataset(include_meta=False))
        there = self.register.held(uid)
        path = self.register.path(uid, digest)
        part = path.with_suffix(f".{threading.get_ident()}.part")
        part.write_bytes(event.encoded_dataset())
        part.rename(path)
        if there is not None and there.holds != digest:
            return self._refuse(event, uid, DUPLICATE)
        self.register.write(register.STORED, status=status, **self._of(event, uid, digest))
        return status or 0x0000

    def _refuse(self, event: evt.Event, uid: str, status: int | None) -> int:
        digest = register.digest_of(event.encoded_dataset(include_meta=False))
        self.register.write(register.REFUSED, status=status, **self._of(event, uid, digest))
        return status or OUT_OF_RESOURCES

    @staticmethod
    def _of(event: evt.Event, uid: str, digest: str) -> dict[str, Any]:
        """What the register says of an object; its own data set is asked, no further than to its series."""
        dataset = read_partial(
            BytesIO(event.encoded_dataset()), stop_when=lambda tag, _vr, _length: tag > SERIES_INSTANCE_UID
        )
        return {
            "sop_instance_uid": uid,
            "sop_class_uid": str(dataset.SOPClassUID),
            "study_instance_uid": str(dataset.StudyInstanceUID),
            "series_instance_uid": str(dataset.SeriesInstanceUID),
            "digest": digest,
            "peer": event.assoc.requestor.ae_title,
        }

    # ------------------------------------------------------------------ query

    def _on_find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        identifier = event.identifier
        about = str(identifier.get("SOPInstanceUID") or identifier.get("StudyInstanceUID") or "")
        match self._throw(Occasion.FIND, about):
            case Misbehaviour.FIND_REFUSED:
                yield OUT_OF_RESOURCES, None
                return
            case Misbehaviour.FIND_ABORT:
                event.assoc.abort(block=False)
                return
            case Misbehaviour.FIND_STALL:
                self._stopping.wait(self.pace.stall_s)
            case _:
                pass
        matches = query.matches(self.register, identifier)
        self.register.write(
            register.FOUND, level=str(identifier.get("QueryRetrieveLevel", "")), about=about, matches=len(matches)
        )
        for match_ in matches:
            if event.is_cancelled:
                yield 0xFE00, None
                return
            yield 0xFF00, match_

    def _throw(self, occasion: Occasion, about: str = "") -> Misbehaviour | None:
        misbehaviour = self._dice.throw(occasion, about)
        if misbehaviour is not None:
            self.register.write(register.MISBEHAVED, what=misbehaviour, occasion=occasion, about=about)
        return misbehaviour
