"""What an open page is told: the list once, then what changes, and that both come to the same."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import worklists
from tests.worklists import TWELVE, Case
from triage_node import worklist
from triage_node.config import Settings
from triage_node.journal import Journal, workitems
from triage_node.web import changes
from triage_node.web.feed import Feed, Message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

UIDS = st.lists(st.sampled_from([f"1.2.{number}" for number in range(12)]), unique=True)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path, "test")
    worklists.fill(journal, TWELVE, time.time())
    yield journal
    journal.close()


@pytest.fixture
def settings(journal: Journal) -> Settings:
    return Settings(folder=journal.state_dir)


def arranged(old: list[str], gone: list[str], moved: list[tuple[str, int]]) -> list[str]:
    """What a page makes of its order, as static/listing.js does."""
    out = {*gone, *(uid for uid, _ in moved)}
    result = [uid for uid in old if uid not in out]
    for uid, index in moved:
        result.insert(index, uid)
    return result


# ---- the difference of two lists


@given(UIDS, UIDS)
def test_what_has_moved_leads_from_the_old_order_to_the_new_one(old: list[str], new: list[str]) -> None:
    gone = [uid for uid in old if uid not in new]
    assert arranged(old, gone, changes.moves(old, new)) == new


@given(UIDS, st.integers(0, 11), st.integers(0, 11))
def test_one_study_that_passes_others_is_all_that_has_moved(order: list[str], source: int, target: int) -> None:
    new = list(order)
    if new:
        new.insert(target % len(order), new.pop(source % len(order)))
    assert len(changes.moves(order, new)) <= 1


def listing(journal: Journal, settings: Settings, now: float) -> changes.Listing:
    turns = worklist.reading_turns(journal, settings, now)
    return changes.listing(turns, workitems.claims(journal), settings.worklist, now)


def test_a_result_is_one_changed_study_and_few_moves_whatever_it_passes(journal: Journal, settings: Settings) -> None:
    now = time.time()
    old = listing(journal, settings, now)
    worklists.judge_next(journal, {TWELVE[-2].study: replace(TWELVE[-2], right=0.99)}, now)
    new = listing(journal, settings, now)
    change = changes.between(old, new)
    assert [row[changes.FIELDS.index("study_instance_uid")] for row in change.changed] == [TWELVE[-2].study]
    assert arranged(old.order, change.gone, change.moved) == new.order
    assert new.order[0] == TWELVE[-2].study
    assert change.moved_by_arrival == []
    assert len(change.moved) < len(new.order) / 2


def test_reading_one_study_changes_what_is_told_of_no_other(journal: Journal, settings: Settings) -> None:
    now = time.time()
    last = worklist.reading_list(journal, settings, now)[0]
    old = listing(journal, settings, now)
    workitems.claim(journal, last.study_instance_uid, "anna", now)
    workitems.finish(journal, last.study_instance_uid, "anna", now)
    change = changes.between(old, listing(journal, settings, now))
    assert [row[changes.FIELDS.index("study_instance_uid")] for row in change.changed] == [last.study_instance_uid]


# ---- the stream


@asynccontextmanager
async def running(journal: Journal, settings: Settings, **rhythm: float) -> AsyncIterator[Feed]:
    feed = Feed(journal, settings, **{"poll_s": 0.01, "refresh_s": 60.0} | rhythm)
    async with feed.running():
        yield feed


class Page:
    """An open page: what it was told, and the list that it has made of it."""

    def __init__(self, feed: Feed, heard: str = "") -> None:
        self._feed = feed
        self._messages = feed.messages(heard)
        self.heard = heard
        self.told: list[str] = []
        self.studies: dict[str, list[Any]] = {}
        self.order: list[str] = []
        self.words = ""

    async def hear(self, event: str) -> dict[str, Any]:
        """Take messages until one of this kind has come."""
        async for message in self._messages:
            content = self._take(message)
            if message.event == event:
                return content
        raise AssertionError(f"the stream ended without {event}")

    async def leave(self) -> None:
        await self._messages.aclose()  # type: ignore[attr-defined]

    def _take(self, message: Message) -> dict[str, Any]:
        self.told.append(message.event)
        self.heard = self._feed.name_of(message)
        content: dict[str, Any] = json.loads(message.data)
        at = changes.FIELDS.index("study_instance_uid")
        if message.event == "list":
            self.studies = {row[at]: row for row in content["studies"]}
            self.order = list(self.studies)
        elif message.event == "change":
            self.studies |= {row[at]: row for row in content["changed"]}
            self.order = arranged(self.order, content["gone"], content["moved"])
        return content


def test_a_page_is_given_the_list_and_then_changes_alone(journal: Journal, settings: Settings) -> None:
    async def story() -> None:
        async with running(journal, settings) as feed:
            page, late = Page(feed), Page(feed)
            whole = await page.hear("list")
            assert page.told == ["status", "list"]
            assert page.order[whole["arrival"][0]] == TWELVE[0].study
            worklists.judge_next(journal, {TWELVE[-2].study: replace(TWELVE[-2], right=0.99)}, time.time())
            while (await page.hear("change"))["changed"] == []:
                pass
            await late.hear("list")
            assert page.order == late.order == listing(journal, settings, time.time()).order
            assert page.studies == late.studies
            assert page.told.count("list") == 1
            for one in (page, late):
                await one.leave()

    asyncio.run(story())


def test_who_comes_back_is_told_what_was_missed_and_no_more(journal: Journal, settings: Settings) -> None:
    async def story() -> None:
        async with running(journal, settings) as feed:
            page, other = Page(feed), Page(feed)
            await page.hear("list")
            await other.hear("list")
            await page.leave()
            workitems.claim(journal, TWELVE[0].study, "anna", time.time())
            await other.hear("change")
            again = Page(feed, page.heard)
            again.studies, again.order = page.studies, page.order
            await again.hear("change")
            assert "list" not in again.told
            assert again.order == other.order
            assert "anna" in again.studies[TWELVE[0].study]
            for stranger in (
                Page(feed, "other-1"),
                Page(feed, "nonsense"),
                Page(feed, page.heard.split("-")[0] + "-9999"),
            ):
                await stranger.hear("list")
                await stranger.leave()
            for one in (again, other):
                await one.leave()

    asyncio.run(story())


def test_what_happens_while_nobody_looks_is_told_to_who_comes_back(journal: Journal, settings: Settings) -> None:
    async def story() -> None:
        async with running(journal, settings) as feed:
            page = Page(feed)
            await page.hear("list")
            await page.leave()
            workitems.finish(journal, TWELVE[0].study, "anna", time.time())
            again = Page(feed, page.heard)
            again.studies, again.order = page.studies, page.order
            await again.hear("change")
            assert again.order == listing(journal, settings, time.time()).order
            assert again.order[-1] == TWELVE[0].study
            await again.leave()

    asyncio.run(story())


def test_a_list_that_has_changed_altogether_is_given_anew(
    journal: Journal, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with running(journal, settings) as feed:
            page = Page(feed)
            await page.hear("list")
            monkeypatch.setattr(changes, "_WORTH_A_LIST", 1)
            worklists.arrive(journal, Case(accession_number="new"), time.time())
            while len((await page.hear("list"))["studies"]) < 13:
                pass
            assert "change" not in page.told
            await page.leave()

    asyncio.run(story())


def test_trouble_is_told_once_and_over_when_the_list_is_there_again(journal: Journal, settings: Settings) -> None:
    async def story() -> None:
        async with running(journal, settings) as feed:
            page = Page(feed)
            await page.hear("list")
            with journal.writing() as database:
                database.conn.execute("alter table events rename to elsewhere")
            words = (await page.hear("trouble"))["words"]
            assert "the journal cannot be read" in words
            newcomer = Page(feed)
            await newcomer.hear("trouble")
            assert newcomer.told == ["status", "list", "trouble"]
            with journal.writing() as database:
                database.conn.execute("alter table elsewhere rename to events")
            await page.hear("change")
            for one in (page, newcomer):
                await one.leave()

    asyncio.run(story())


def test_waiting_times_that_pass_the_maximum_change_the_list_without_an_event(
    journal: Journal, settings: Settings
) -> None:
    async def story() -> None:
        async with running(journal, settings, refresh_s=0.05) as feed:
            page = Page(feed)
            await page.hear("list")
            for _ in range(3):
                assert (await page.hear("change"))["changed"] == []
            await page.leave()

    asyncio.run(story())


def test_what_is_told_of_a_study_is_made_again_only_when_it_changes(journal: Journal, settings: Settings) -> None:
    now = time.time()
    worklists.crowd(journal, 3000, now - 500)
    old = listing(journal, settings, now)
    worklists.judge_next(journal, {TWELVE[-2].study: replace(TWELVE[-2], right=0.99, left=0.99)}, now)
    turns = worklist.reading_turns(journal, settings, now)
    new = changes.listing(turns, workitems.claims(journal), settings.worklist, now, old)
    assert [uid for uid, row in new.rows.items() if row is not old.rows[uid]] == [TWELVE[-2].study]
    assert new.rows == listing(journal, settings, now).rows
    change = changes.between(old, new)
    assert (len(change.changed), change.gone, change.moved_by_arrival) == (1, [], [])
    assert (TWELVE[-2].study, 0) in change.moved
    assert len(change.moved) < 10
    later = now + 60 * settings.worklist.max_wait_min
    assert (
        changes.listing(turns, {}, settings.worklist, later, new).rows
        == changes.listing(turns, {}, settings.worklist, later).rows
    )
