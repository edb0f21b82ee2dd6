"""A worklist on a port of its own, reading systems that use it, and subscribers that hear of it."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt

from tests import worklists
from tests.running import until
from triage_node import config, conformance
from triage_node.journal import Journal, workitems
from triage_node.ups import Worklist

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pynetdicom.association import Association

    from tests.worklists import Case
    from triage_node.config import Settings

PUSH, WATCH, PULL, EVENT, QUERY = (
    conformance.UPS_PUSH,
    conformance.UPS_WATCH,
    conformance.UPS_PULL,
    conformance.UPS_EVENT,
    conformance.UPS_QUERY,
)
MODALITY_WORKLIST = conformance.MODALITY_WORKLIST_FIND
GLOBAL, FILTERED = "1.2.840.10008.5.1.4.34.5", "1.2.840.10008.5.1.4.34.5.1"
SEVERE = worklists.Case(accession_number="S1", right=0.62, left=0.71, probability=0.97)
MILD = worklists.Case(accession_number="M1", right=0.03, left=0.01, probability=0.12)
REFUSED = worklists.Case(accession_number="R1", refusal="no lungs were found")
UNJUDGED = worklists.Case(accession_number="U1")


@dataclass(kw_only=True)
class Reading:
    """A worklist that listens, and its journal."""

    settings: Settings
    journal: Journal
    port: int
    worklist: Worklist

    def uid(self, case: Case) -> str:
        """Workitem of a study."""
        self.worklist.wake()
        item = until(lambda: workitems.current(self.journal, case.study), 10, "the study has a workitem")
        return str(item.workitem_uid)

    def state(self, case: Case) -> str:
        item = workitems.current(self.journal, case.study)
        assert item is not None
        return item.state.value

    def judge(self, *cases: Case) -> None:
        for case in cases:
            worklists.judge_next(self.journal, {case.study: case}, time.time())


def settings_in(folder: Path, subscribers: dict[str, int] | None = None, **ups: Any) -> Settings:
    settings = config.parse("", folder=folder)
    to = tuple(
        config.SubscriberSection(ae_title=title, host="127.0.0.1", port=port)
        for title, port in (subscribers or {}).items()
    )
    section = settings.ups.model_copy(
        update={"enabled": True, "port": 0, "subscribers": to, "retry_first_s": 0.2, "retry_longest_s": 0.4, **ups}
    )
    return settings.model_copy(update={"ups": section})


@contextmanager
def listening(settings: Settings) -> Iterator[Reading]:
    journal = Journal(settings.state_dir, "desk")
    worklist = Worklist(settings, journal)
    _, port = worklist.start()
    try:
        yield Reading(settings=settings, journal=journal, port=port, worklist=worklist)
    finally:
        worklist.stop()
        journal.close()


@contextmanager
def associated(port: int, *contexts: str, ae_title: str = "READER") -> Iterator[Association]:
    ae = AE(ae_title=ae_title)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
    for uid in contexts:
        ae.add_requested_context(uid, list(conformance.UNCOMPRESSED))
    association = ae.associate("127.0.0.1", port, ae_title="TRIAGE")
    assert association.is_established
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def dataset(**attributes: Any) -> Dataset:
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def find(port: int, context: str = QUERY, **keys: Any) -> list[Dataset]:
    """The answers to a query, in order; the last status must be success."""
    query = dataset(**{"ProcedureStepState": "", "StudyInstanceUID": "", **keys})
    with associated(port, context) as association:
        answers = list(association.send_c_find(query, context))
    status, _ = answers[-1]
    assert status.Status == 0, status
    assert {one.Status for one, _ in answers[:-1]} <= {0xFF00}
    return [found for _, found in answers[:-1] if found is not None]


def act(port: int, uid: str, action: int, context: str, *, ae_title: str = "READER", **information: Any) -> int:
    """Status of an N-ACTION."""
    with associated(port, context, ae_title=ae_title) as association:
        answer, _ = association.send_n_action(
            dataset(**information) if information else None, action, PUSH, uid, meta_uid=context
        )
    return int(answer.Status)


def change(port: int, uid: str, state: str, transaction_uid: str | None, *, ae_title: str = "READER") -> int:
    """Status of a change of state."""
    given = {} if transaction_uid is None else {"TransactionUID": transaction_uid}
    return act(port, uid, 1, PULL, ae_title=ae_title, ProcedureStepState=state, **given)


def performed(**other: Any) -> Dataset:
    """What a performer sets before it completes a workitem."""
    code = dataset(CodeValue="110005", CodingSchemeDesignator="DCM", CodeMeaning="Interpretation")
    station = dataset(CodeValue="WS1", CodingSchemeDesignator="99LOCAL", CodeMeaning="Workstation 1")
    return dataset(**{
        "PerformedStationNameCodeSequence": [station],
        "PerformedWorkitemCodeSequence": [code],
        "PerformedProcedureStepStartDateTime": "20261121103000",
        "PerformedProcedureStepEndDateTime": "20261121103500",
        "OutputInformationSequence": [],
        **other,
    })  # fmt: skip


def describe(port: int, uid: str, transaction_uid: str, **attributes: Any) -> int:
    """Status of an N-SET."""
    with associated(port, PULL) as association:
        answer, _ = association.send_n_set(
            dataset(TransactionUID=transaction_uid, **attributes), PUSH, uid, meta_uid=PULL
        )
    return int(answer.Status)


def get(port: int, uid: str, *keywords: str) -> Dataset:
    """The attributes of a workitem."""
    from pydicom.datadict import tag_for_keyword

    with associated(port, PULL) as association:
        answer, found = association.send_n_get([tag_for_keyword(one) for one in keywords], PUSH, uid, meta_uid=PULL)
    assert answer.Status == 0
    assert found is not None
    return found


def get_when_there(port: int, uid: str) -> Dataset:
    """The same of a node that is just coming back."""

    def asked() -> Dataset | None:
        try:
            return get(port, uid)
        except AssertionError:
            return None

    found: Dataset = until(asked, 20, "the worklist answers")
    return found


def new_uid() -> str:
    return str(generate_uid(prefix=None))


@dataclass
class Subscriber:
    """A receiving SCP of events: what it has heard, in order."""

    port: int = 0
    heard: list[tuple[int, str, Dataset]] = field(default_factory=list)
    answer: int = 0x0000
    roles: list[tuple[bool, bool]] = field(default_factory=list)
    _server: Any = None

    def start(self, ae_title: str = "VIEWER", *, negotiate_roles: bool = True) -> None:
        ae = AE(ae_title=ae_title)
        roles = {"scu_role": False, "scp_role": True} if negotiate_roles else {}
        ae.add_supported_context(EVENT, list(conformance.UNCOMPRESSED), **roles)
        lock = threading.Lock()

        def on_report(event: evt.Event) -> tuple[int, None]:
            with lock:
                if self.answer == 0:
                    self.heard.append(
                        (
                            event.event_type,
                            str(event.request.AffectedSOPInstanceUID),
                            event.event_information,
                        )
                    )
            return self.answer, None

        def on_accepted(event: evt.Event) -> None:
            self.roles += [(bool(one.as_scu), bool(one.as_scp)) for one in event.assoc.accepted_contexts]

        handlers = [(evt.EVT_N_EVENT_REPORT, on_report), (evt.EVT_ACCEPTED, on_accepted)]
        self._server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        self.port = int(self._server.server_address[1])

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def states(self, uid: str) -> list[str]:
        """States that were reported of a workitem."""
        return [str(info.ProcedureStepState) for kind, of, info in self.heard if kind == 1 and of == uid]

    def kinds(self, uid: str) -> list[int]:
        return [kind for kind, of, _ in self.heard if of == uid]
