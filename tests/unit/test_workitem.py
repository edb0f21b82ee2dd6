"""The state table of a reading task, every cell of it, against PS3.4 table CC.1.1-2 as written down here by status."""

from __future__ import annotations

import itertools
import uuid

import pytest

from triage_node import workitem
from triage_node.workitem import COLUMNS, Request, StepState

# status of every cell: no workitem, SCHEDULED, IN PROGRESS, COMPLETED, CANCELED
STATUSES = {
    Request.CREATE: "0000 0111 0111 0111 0111",
    Request.START: "C307 0000 C302 C300 C300",
    Request.START_WRONG: "C307 C301 C301 C301 C301",
    Request.SCHEDULE: "C307 C303 C303 C303 C303",
    Request.COMPLETE: "C307 C310 0000 B306 C300",
    Request.COMPLETE_WRONG: "C307 C301 C301 C301 C301",
    Request.REQUEST_CANCEL: "C307 0000 0000 C311 B304",
    Request.CANCEL: "C307 C310 0000 C300 B304",
    Request.CANCEL_WRONG: "C307 C301 C301 C301 C301",
}
CELLS = [
    (request, state, int(status, 16))
    for request, row in STATUSES.items()
    for state, status in zip(COLUMNS, row.split(), strict=True)
]
# the only ways from state to state
MOVES = {
    (Request.CREATE, None): "SCHEDULED",
    (Request.START, StepState.SCHEDULED): "IN PROGRESS",
    (Request.COMPLETE, StepState.IN_PROGRESS): "COMPLETED",
    (Request.CANCEL, StepState.IN_PROGRESS): "CANCELED",
    (Request.REQUEST_CANCEL, StepState.SCHEDULED): "IN PROGRESS, CANCELED",
}


@pytest.mark.parametrize(("asked", "state", "status"), CELLS)
def test_every_cell_of_the_state_table(asked: Request, state: StepState | None, status: int) -> None:
    outcome = workitem.decide(state, asked)
    assert outcome.status == status
    assert ", ".join(outcome.states) == MOVES.get((asked, state), "")
    assert outcome.tells_performer == ((asked, state) == (Request.REQUEST_CANCEL, StepState.IN_PROGRESS))
    assert outcome.words
    assert not (outcome.is_refusal and outcome.states)


def test_the_table_is_whole() -> None:
    assert set(STATUSES) == set(Request)
    assert set(COLUMNS) == {None, *StepState}


@pytest.mark.parametrize(
    ("state", "wanted", "recorded", "given"),
    list(itertools.product(COLUMNS, StepState, (None, "1.2.3"), (None, "", "1.2.3", "1.2.4"))),
)
def test_a_change_of_state_finds_its_row_by_the_transaction_uid(
    state: StepState | None, wanted: StepState, recorded: str | None, given: str | None
) -> None:
    right = given in ("1.2.3", "1.2.4") if recorded is None else given == recorded
    row = {
        StepState.SCHEDULED: Request.SCHEDULE,
        StepState.IN_PROGRESS: Request.START if right else Request.START_WRONG,
        StepState.COMPLETED: Request.COMPLETE if right else Request.COMPLETE_WRONG,
        StepState.CANCELED: Request.CANCEL if right else Request.CANCEL_WRONG,
    }[wanted]
    assert workitem.change(state, wanted, recorded=recorded, given=given) == workitem.decide(state, row)


@pytest.mark.parametrize("wanted", [StepState.COMPLETED, StepState.CANCELED])
def test_nothing_ends_before_it_is_described(wanted: StepState) -> None:
    def asked(state: StepState, given: str = "1.2.3") -> int:
        return workitem.change(state, wanted, recorded="1.2.3", given=given, is_described=False).status

    assert asked(StepState.IN_PROGRESS) == workitem.FINAL_STATE_NOT_MET
    assert asked(StepState.IN_PROGRESS, given="1.2.4") == workitem.WRONG_TRANSACTION_UID
    assert asked(StepState.SCHEDULED) == workitem.NOT_YET_IN_PROGRESS


def test_a_wish_to_cancel_that_reaches_nobody_is_refused() -> None:
    reached = {state: workitem.request_cancel(state).status for state in COLUMNS}
    unheard = {state: workitem.request_cancel(state, somebody_listens=False).status for state in COLUMNS}
    assert unheard == {**reached, StepState.IN_PROGRESS: workitem.PERFORMER_NOT_REACHED}


def test_the_uid_of_a_workitem_is_a_uuid_and_follows_from_study_and_number() -> None:
    made = [workitem.uid_of(study, number) for study in ("1.2.3", "1.2.31") for number in (1, 2, 11)]
    assert made == [workitem.uid_of(study, number) for study in ("1.2.3", "1.2.31") for number in (1, 2, 11)]
    assert len(set(made)) == 6
    for uid in made:
        assert len(uid) <= 64
        found = uuid.UUID(int=int(uid.removeprefix("2.25.")))
        assert (found.version, found.variant) == (8, uuid.RFC_4122)
