"""A subscription of UPS-RS is the user's who made it: nobody else ends, suspends, changes or hears it."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

import pytest

from tests import programs
from tests.running import until
from tests.worklists import TWELVE
from triage_node.journal import Journal, audit, subscriptions
from triage_node.ups.service import FILTERED, GLOBAL
from triage_node.workitem import uid_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx

    from triage_node.web import Page

ONE, TWO = (f"/ups-rs/workitems/{uid_of(case.study, 1)}/subscribers/STATION" for case in (TWELVE[5], TWELVE[10]))
EVERYTHING, SOME = (f"/ups-rs/workitems/{uid}/subscribers/STATION" for uid in (GLOBAL, FILTERED))
STREAM = "/ups-rs/subscribers/STATION"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled")
    programs.fill(folder)
    return folder


@pytest.fixture
def page(tmp_path: Path, filled: Path) -> Iterator[Page]:
    shutil.copytree(filled, tmp_path, dirs_exist_ok=True)
    with programs.served(programs.settings(tmp_path), tmp_path) as page:
        yield page


@pytest.fixture
def journal(page: Page) -> Iterator[Journal]:
    opened = Journal(page._feed._journal.state_dir, "test")
    yield opened
    opened.close()


@pytest.fixture
def reader(page: Page) -> Iterator[httpx.Client]:
    with programs.program(page) as client:
        yield client


@pytest.fixture
def other(page: Page) -> Iterator[httpx.Client]:
    with programs.program(page, "other") as client:
        yield client


@pytest.fixture
def chief(page: Page) -> Iterator[httpx.Client]:
    with programs.program(page, "chief") as client:
        yield client


def subscribed(journal: Journal) -> tuple[list[tuple], list[tuple]]:
    """Everything that is subscribed to."""
    return (
        [tuple(row) for row in journal.rows("select * from global_subscriptions")],
        [tuple(row) for row in journal.rows("select * from subscriptions order by ae_title, workitem_uid")],
    )


@pytest.mark.parametrize("first", [EVERYTHING, ONE])
def test_another_reader_neither_ends_nor_suspends_nor_changes_nor_hears_a_subscription(
    reader: httpx.Client, other: httpx.Client, journal: Journal, first: str
) -> None:
    assert reader.post(first).status_code == 201
    before = subscribed(journal)
    refused = [
        other.delete(EVERYTHING),
        other.delete(ONE),
        other.post(f"{EVERYTHING}/suspend"),
        other.post(EVERYTHING),
        other.post(SOME, params={"filter": "PatientID=1"}),
        other.post(ONE, params={"deletionlock": "true"}),
        other.get(STREAM),
    ]
    assert [answer.status_code for answer in refused] == [403] * 7
    assert all("of another user" in answer.json()["error"] for answer in refused)
    assert subscribed(journal) == before
    told = [row for row in audit.rows(journal) if row.kind == "Use of Restricted Function"]
    assert {row.user_name for row in told} == {"other"}
    assert len(told) == len(refused)


def test_who_subscribed_changes_suspends_and_ends_it_and_then_the_title_is_free(
    reader: httpx.Client, other: httpx.Client, journal: Journal
) -> None:
    assert reader.post(ONE).status_code == reader.post(ONE, params={"deletionlock": "true"}).status_code == 201
    assert reader.post(EVERYTHING).status_code == 201
    assert reader.post(f"{EVERYTHING}/suspend").status_code == 200
    assert reader.delete(EVERYTHING).status_code == 200
    assert subscribed(journal) == ([], [])
    assert other.post(ONE).status_code == 201
    assert reader.delete(ONE).status_code == 403
    assert other.delete(ONE).status_code == 200
    assert reader.post(TWO).status_code == 201


def test_an_administrator_ends_what_somebody_has_left_and_does_not_take_it(
    reader: httpx.Client, other: httpx.Client, chief: httpx.Client, journal: Journal
) -> None:
    assert reader.post(ONE).status_code == 201
    assert chief.post(TWO).status_code == 201
    assert reader.post(TWO).status_code == 201
    assert chief.post(f"{EVERYTHING}/suspend").status_code == 200
    assert chief.delete(EVERYTHING).status_code == 200
    assert subscribed(journal) == ([], [])
    assert other.post(ONE).status_code == 201


def test_a_subscription_that_came_to_nothing_leaves_the_title_free(reader: httpx.Client, other: httpx.Client) -> None:
    assert reader.post("/ups-rs/workitems/1.2.3/subscribers/STATION").status_code == 404
    assert other.post(ONE).status_code == 201


def test_what_was_to_be_told_to_one_user_is_not_told_to_the_next(
    reader: httpx.Client, other: httpx.Client, journal: Journal
) -> None:
    assert reader.post(ONE).status_code == 201
    until(lambda: subscriptions.due(journal, "STATION", time.time()), 10, "a report that nobody has fetched")
    assert reader.delete(ONE).status_code == 200
    assert other.post(TWO).status_code == 201
    until(lambda: subscriptions.due(journal, "STATION", time.time()), 10, "the report of the new one")
    reports = subscriptions.due(journal, "STATION", time.time())
    assert [one.event.workitem_uid for one in reports] == [TWO.split("/")[3]]


def test_who_listens_before_anybody_has_subscribed_does_not_hear_of_another_one(
    reader: httpx.Client, other: httpx.Client, journal: Journal
) -> None:
    with other.stream("GET", STREAM) as stream:
        assert stream.status_code == 200
        assert reader.post(ONE).status_code == 201
        heard = [line for line in stream.iter_lines() if line.startswith("data:")]  # until the stream ends
    assert heard == []
    assert len(subscriptions.due(journal, "STATION", time.time())) == 1
    with reader.stream("GET", STREAM) as stream:
        assert next(line for line in stream.iter_lines() if line.startswith("data:"))
    (row,) = [row for row in audit.rows(journal) if row.event == "Query" and row.user_name == "other"]
    assert row.words == "the reading list"
