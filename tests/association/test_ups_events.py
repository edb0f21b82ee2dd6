"""Subscriptions to the worklist with a receiving SCP that is really there, is gone for a while, and comes back."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest
from pydicom.dataset import Dataset

from tests import filed, reading, worklists
from tests.reading import FILTERED, GLOBAL, MILD, PUSH, SEVERE, UNJUDGED, WATCH, Subscriber
from tests.running import free_port, node, until
from triage_node.journal import workitems

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.reading import Reading

STATE, CANCEL_REQUESTED, PROGRESS, SCP_STATUS, ASSIGNED = 1, 2, 3, 4, 5


@pytest.fixture
def viewer() -> Iterator[Subscriber]:
    subscriber = Subscriber()
    subscriber.start()
    yield subscriber
    subscriber.stop()


@pytest.fixture
def listening(tmp_path: Path, viewer: Subscriber) -> Iterator[Reading]:
    with reading.listening(reading.settings_in(tmp_path, {"VIEWER": viewer.port})) as open_:
        for number, case in enumerate((MILD, SEVERE)):
            worklists.arrive(open_.journal, case, time.time() - 50 + number)
        for case in (MILD, SEVERE):
            open_.uid(case)
        yield open_


def subscribe(at: Reading, uid: str, action: int = 3, *, ae_title: str = "VIEWER", **keys: object) -> int:
    return reading.act(at.port, uid, action, WATCH, ae_title=ae_title, **({"DeletionLock": "FALSE"} | keys))


def arrived(at: Reading, case: worklists.Case) -> str:
    worklists.arrive(at.journal, case, time.time())
    return at.uid(case)


def test_a_subscriber_hears_of_everything_in_order(listening: Reading, viewer: Subscriber) -> None:
    uid = listening.uid(MILD)
    assert subscribe(listening, uid) == 0
    until(lambda: viewer.states(uid) == ["SCHEDULED"], 10, "the first report says where it stands")
    mine = reading.new_uid()
    assert reading.change(listening.port, uid, "IN PROGRESS", mine) == 0
    progress = reading.dataset(ProcedureStepProgress="40", ProcedureStepProgressDescription="half way")
    assert reading.describe(listening.port, uid, mine, ProcedureStepProgressInformationSequence=[progress]) == 0
    done = [reading.performed()]
    assert reading.describe(listening.port, uid, mine, UnifiedProcedureStepPerformedProcedureSequence=done) == 0
    assert reading.change(listening.port, uid, "COMPLETED", mine) == 0
    until(lambda: len(viewer.heard) == 5, 10, "all is reported")
    assert viewer.kinds(uid) == [STATE, STATE, ASSIGNED, PROGRESS, STATE]
    assert viewer.states(uid) == ["SCHEDULED", "IN PROGRESS", "COMPLETED"]
    said = viewer.heard[3][2].ProcedureStepProgressInformationSequence[0]
    assert (float(said.ProcedureStepProgress), said.ProcedureStepProgressDescription) == (40.0, "half way")
    assert viewer.heard[2][2].ScheduledStationNameCodeSequence[0].CodeValue == "READER"
    assert {info.InputReadinessState for kind, _, info in viewer.heard if kind == STATE} == {"READY"}
    # who opens the association to report is the SCP, so that the one who is called is SCU (PS3.7 section D.3.3.4)
    assert set(viewer.roles) == {(True, False)}


def test_a_subscriber_that_negotiates_no_roles_is_told_all_the_same(tmp_path: Path) -> None:
    viewer = Subscriber()
    viewer.start(negotiate_roles=False)
    with reading.listening(reading.settings_in(tmp_path, {"VIEWER": viewer.port})) as at:
        uid = arrived(at, MILD)
        assert subscribe(at, uid) == 0
        until(lambda: viewer.states(uid) == ["SCHEDULED"], 10, "it hears")
    viewer.stop()


def test_a_changed_priority_is_reported_with_its_reason(listening: Reading, viewer: Subscriber) -> None:
    uid = listening.uid(SEVERE)
    assert subscribe(listening, uid) == 0
    listening.judge(MILD, SEVERE)
    until(lambda: PROGRESS in viewer.kinds(uid), 10, "the priority is reported")
    (info,) = [info for kind, of, info in viewer.heard if (kind, of) == (PROGRESS, uid)]
    assert info.ScheduledProcedureStepPriority == "HIGH"
    words = info.ProcedureStepProgressInformationSequence[0].ProcedureStepProgressDescription
    assert "moved from 2 to 1" in words
    assert "71%" in words


def test_who_reads_on_the_page_is_named(listening: Reading, viewer: Subscriber) -> None:
    uid = listening.uid(MILD)
    subscribe(listening, uid)
    workitems.claim(listening.journal, MILD.study, "ada", time.time())
    until(lambda: ASSIGNED in viewer.kinds(uid), 10, "it is reported")
    assert viewer.heard[-1][2].HumanPerformerCodeSequence[0].CodeMeaning == "ada"


def test_a_global_subscription_has_what_is_there_and_what_comes(listening: Reading, viewer: Subscriber) -> None:
    assert subscribe(listening, GLOBAL) == 0
    new = arrived(listening, UNJUDGED)
    until(lambda: viewer.states(new) == ["SCHEDULED"], 10, "the new one is reported")
    assert viewer.states(listening.uid(MILD)) == viewer.states(listening.uid(SEVERE)) == ["SCHEDULED"]
    workitems.cancel(listening.journal, MILD.study, "ada", time.time(), words="twice here")
    uid = listening.uid(MILD)
    until(lambda: viewer.states(uid)[-1] == "CANCELED", 10, "the end is reported")
    assert viewer.states(uid) == ["SCHEDULED", "IN PROGRESS", "CANCELED"]
    assert viewer.heard[-1][2].ReasonForCancellation == "twice here"


def test_suspended_and_unsubscribed(listening: Reading, viewer: Subscriber) -> None:
    subscribe(listening, GLOBAL)
    uid = listening.uid(MILD)
    assert reading.act(listening.port, GLOBAL, 5, WATCH, ae_title="VIEWER", ReceivingAE="VIEWER") == 0
    new = arrived(listening, UNJUDGED)
    assert subscribe(listening, listening.uid(SEVERE), 4) == 0
    workitems.claim(listening.journal, SEVERE.study, "ada", time.time())
    workitems.claim(listening.journal, MILD.study, "ada", time.time())
    until(lambda: ASSIGNED in viewer.kinds(uid), 10, "what was subscribed to is reported")
    assert viewer.kinds(new) == []
    assert ASSIGNED not in viewer.kinds(listening.uid(SEVERE))
    assert subscribe(listening, GLOBAL, 4) == 0
    workitems.finish(listening.journal, MILD.study, "ada", time.time())
    assert subscribe(listening, new) == 0
    until(lambda: viewer.kinds(new) == [STATE], 10, "one is subscribed to again")
    assert viewer.states(uid) == ["SCHEDULED", "IN PROGRESS"]


def test_a_filter_takes_what_matches_and_what_begins_to(listening: Reading, viewer: Subscriber) -> None:
    assert subscribe(listening, FILTERED, ScheduledProcedureStepPriority="HIGH") == 0
    listening.judge(MILD, SEVERE)
    uid = listening.uid(SEVERE)
    until(lambda: PROGRESS in viewer.kinds(uid), 10, "it has become urgent")
    assert {of for _, of, _ in viewer.heard} == {uid}
    assert subscribe(listening, FILTERED, ScheduledProcedureStepStartDateTime="20260101") == 0
    broken = Dataset()
    broken.DeletionLock = "FALSE"
    broken.add_new("ScheduledProcedureStepStartDateTime", "DT", "")
    broken["ScheduledProcedureStepStartDateTime"]._value = "soon"
    with reading.associated(listening.port, WATCH, ae_title="VIEWER") as association:
        answer, _ = association.send_n_action(broken, 3, PUSH, FILTERED, meta_uid=WATCH)
    assert answer.Status == 0x0106


def test_only_known_titles_subscribe_and_only_to_what_exists(listening: Reading) -> None:
    uid = listening.uid(MILD)
    assert subscribe(listening, uid, ae_title="STRANGER") == 0xC308
    assert subscribe(listening, GLOBAL, ae_title="STRANGER", ReceivingAE="VIEWER") == 0
    assert subscribe(listening, "1.2.9") == 0xC307
    assert subscribe(listening, "1.2.9", 4) == 0xC307
    assert subscribe(listening, uid, 5) == 0xC314
    assert subscribe(listening, uid, DeletionLock="PERHAPS") == 0x0106


def test_a_wish_to_cancel_reaches_the_performer_who_is_subscribed(listening: Reading, viewer: Subscriber) -> None:
    uid, mine = listening.uid(MILD), reading.new_uid()
    assert reading.change(listening.port, uid, "IN PROGRESS", mine, ae_title="VIEWER") == 0
    assert reading.act(listening.port, uid, 2, PUSH, ae_title="RIS") == 0xC312
    subscribe(listening, uid)
    code = reading.dataset(CodeValue="110513", CodingSchemeDesignator="DCM", CodeMeaning="Discontinued")
    assert (
        reading.act(
            listening.port,
            uid,
            2,
            PUSH,
            ae_title="RIS",
            ReasonForCancellation="wrong patient",
            ContactDisplayName="Front desk",
            ProcedureStepDiscontinuationReasonCodeSequence=[code],
        )
        == 0
    )
    until(lambda: CANCEL_REQUESTED in viewer.kinds(uid), 10, "the performer hears")
    info = viewer.heard[-1][2]
    assert (info.RequestingAE, info.ReasonForCancellation) == ("RIS", "wrong patient")
    assert info.ContactDisplayName == "Front desk"
    assert info.ProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue == "110513"
    assert listening.state(MILD) == "IN PROGRESS"


def test_a_subscriber_that_was_gone_hears_everything_once_and_in_order(listening: Reading, viewer: Subscriber) -> None:
    uid = listening.uid(MILD)
    subscribe(listening, uid)
    until(lambda: viewer.states(uid) == ["SCHEDULED"], 10, "it hears")
    viewer.stop()
    workitems.claim(listening.journal, MILD.study, "ada", time.time())
    until(lambda: listening.journal.rows("select 1 from reports where attempts >= 2"), 20, "the node has tried in vain")
    workitems.finish(listening.journal, MILD.study, "ada", time.time())
    viewer.start()
    until(lambda: viewer.states(uid)[-1] == "COMPLETED", 20, "it hears the rest")
    assert viewer.kinds(uid) == [STATE, STATE, ASSIGNED, STATE]


def test_a_subscriber_that_cannot_take_a_report_now_gets_it_later(listening: Reading, viewer: Subscriber) -> None:
    viewer.answer = 0x0213
    uid = listening.uid(MILD)
    subscribe(listening, uid)
    until(lambda: listening.journal.rows("select 1 from reports where attempts >= 2"), 20, "it was tried twice")
    viewer.answer = 0x0000
    until(lambda: viewer.states(uid) == ["SCHEDULED"], 20, "it was taken")
    # the subscriber has heard it before its answer is written down here
    delivered = [{"state": "delivered"}]
    until(lambda: listening.journal.rows("select distinct state from reports") == delivered, 20, "it is written down")


def test_one_dead_subscriber_keeps_nothing_from_the_others(tmp_path: Path, viewer: Subscriber) -> None:
    subscribers = {"VIEWER": viewer.port, "DEAD": free_port()}
    with reading.listening(reading.settings_in(tmp_path, subscribers)) as at:
        uid = arrived(at, MILD)
        subscribe(at, GLOBAL, ae_title="DEAD")
        subscribe(at, GLOBAL)
        until(lambda: viewer.states(uid) == ["SCHEDULED"], 10, "the living one hears")
        assert at.journal.rows("select distinct state from reports where ae_title = 'DEAD'") == [{"state": "queued"}]


def test_what_nobody_takes_is_given_up(tmp_path: Path) -> None:
    settings = reading.settings_in(tmp_path, {"DEAD": free_port()}, give_up_after_h=0.0001)
    with reading.listening(settings) as at:
        arrived(at, MILD)
        subscribe(at, GLOBAL, ae_title="DEAD")
        until(lambda: at.journal.rows("select 1 from reports where state = 'given up'"), 20, "it is given up")


def test_subscriptions_and_reports_survive_a_killed_node(tmp_path: Path) -> None:
    """The desk is killed while its subscriber is away; both come back, and nothing is lost or told twice."""
    viewer = Subscriber(port=free_port())
    port = free_port()
    folder = tmp_path / "node"
    folder.mkdir()
    ups = (
        f"[ups]\nenabled = true\nport = {port}\nretry_first_s = 0.5\nretry_longest_s = 0.5\n"
        f'[[ups.subscribers]]\nae_title = "VIEWER"\nhost = "127.0.0.1"\nport = {viewer.port}\n'
    )
    with node(folder, more=ups) as running:
        journal = running.journal()
        filed.queued(journal, MILD.study, now=time.time())
        uid = until(lambda: workitems.current(journal, MILD.study), 20, "the study is registered").workitem_uid
        reading.get_when_there(port, uid)
        viewer.start()
        until(
            lambda: reading.act(port, GLOBAL, 3, WATCH, ae_title="VIEWER", DeletionLock="FALSE") == 0, 20, "subscribed"
        )
        until(lambda: viewer.states(uid) == ["SCHEDULED"], 20, "it hears")
        viewer.stop()
        assert reading.change(port, uid, "IN PROGRESS", "2.25.1") == 0
        desk = running.children()["desk"]
        os.kill(desk, signal.SIGKILL)
        until(lambda: running.children().get("desk", desk) != desk, 20, "the desk is back")
        assert reading.get_when_there(port, uid).ProcedureStepState == "IN PROGRESS"
        viewer.start()
        until(lambda: SCP_STATUS in [kind for kind, _, _ in viewer.heard], 30, "the restart is reported")
        assert viewer.kinds(uid) == [STATE, STATE, ASSIGNED]
        assert viewer.heard[-1][2].SubscriptionListStatus == "WARM START"
        assert reading.change(port, uid, "CANCELED", "2.25.1") == 0
        until(lambda: viewer.states(uid)[-1] == "CANCELED", 20, "the Transaction UID is still the one of the claim")
        journal.close()
    viewer.stop()
