"""The order of the reading tasks: that of the list, and what the priorities of a Modality Worklist make of it."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest

from tests import worklists
from tests.worklists import Case
from triage_node import config, worklist
from triage_node.journal import Journal, orders, queue, workitems
from triage_node.journal.orders import Order
from triage_node.study import ReadingPriority
from triage_node.ups import facts, values
from triage_node.ups.catalogue import Catalogue

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from triage_node.ups.procedure_step import Entry

LEVELS = list(ReadingPriority)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path, "test")
    yield journal
    journal.close()


def fill(journal: Journal, cases: list[Case], now: float, *, apart_s: float = 60.0) -> None:
    """All arrive in this order; those that have an answer get it, the others stay with an analyst."""
    for number, case in enumerate(cases):
        worklists.arrive(journal, case, now - apart_s * (len(cases) - number), slices=1)
    by_study = {case.study: case for case in cases}
    for case in cases:
        if case.right is None and case.refusal is None:
            job = queue.claim(journal, "other", now)
            assert job is not None
            assert job.study_instance_uid == case.study
        else:
            worklists.judge_next(journal, by_study, now)
    orders.register(journal, now)


def entries(journal: Journal, folder: Path, now: float) -> list[Entry]:
    return list(Catalogue(config.parse("", folder=folder), journal).entries(now))


def drawn(number: int, chance: random.Random) -> Case:
    kind, name = chance.random(), f"D{number}"
    if kind < 0.4:
        return Case(accession_number=name)
    if kind < 0.5:
        return Case(accession_number=name, refusal="no lungs were found")
    return Case(accession_number=name, right=chance.random() ** 2, probability=chance.random())


@pytest.mark.parametrize("seed", range(8))
def test_the_order_is_that_of_the_list_and_nobody_unjudged_loses(journal: Journal, tmp_path: Path, seed: int) -> None:
    chance, now = random.Random(seed), time.time()
    fill(journal, [drawn(number, chance) for number in range(14)], now, apart_s=chance.choice((20.0, 200.0, 900.0)))
    settings = config.parse("", folder=tmp_path)
    listed = worklist.reading_list(journal, settings, now)
    found = entries(journal, tmp_path, now)
    assert [one.item.study_instance_uid for one in found] == [one.study_instance_uid for one in listed]
    places = {one.item.study_instance_uid: place for place, one in enumerate(found, start=1)}
    for one in listed:
        if one.affected_fraction is None:
            assert places[one.study_instance_uid] <= one.arrival_rank
    # who sorts by priority, and keeps what he was sent otherwise, has the same order
    assert sorted(found, key=lambda one: LEVELS.index(one.priority)) == found
    for one, entry in zip(listed, found, strict=True):
        assert LEVELS.index(entry.priority) <= LEVELS.index(one.reading_priority)


def test_the_first_of_the_list_is_first_although_all_others_are_severe(journal: Journal, tmp_path: Path) -> None:
    now = time.time()
    waiting = Case(accession_number="U1")
    severe = [Case(accession_number=f"S{number}", right=0.7, probability=0.95) for number in range(6)]
    fill(journal, [waiting, *severe], now)
    found = entries(journal, tmp_path, now)
    assert found[0].item.study_instance_uid == waiting.study
    assert {one.priority for one in found} == {ReadingPriority.HIGH}


def test_what_is_not_severe_and_has_nothing_severe_behind_it_is_not_said_to_be(
    journal: Journal, tmp_path: Path
) -> None:
    now = time.time()
    severe = Case(accession_number="S1", right=0.7, probability=0.95)
    mild = Case(accession_number="M1", right=0.01, probability=0.05)
    fill(journal, [mild, severe], now)
    found = [(one.item.study_instance_uid, one.priority) for one in entries(journal, tmp_path, now)]
    assert found == [(severe.study, ReadingPriority.HIGH), (mild.study, ReadingPriority.LOW)]


def test_orders_without_images_stand_behind_and_lift_nobody(journal: Journal, tmp_path: Path) -> None:
    now = time.time()
    mild = Case(accession_number="M1", right=0.01, probability=0.05)
    for number, priority in enumerate((ReadingPriority.LOW, ReadingPriority.HIGH)):
        order = Order(
            workitem_uid=f"2.25.{number}",
            study_instance_uid=None,
            accession_number=f"A{number}",
            priority=priority,
            attributes_json="{}",
        )
        orders.place(journal, order, "AE RIS", now)
    fill(journal, [mild], now)
    item = workitems.current(journal, mild.study)
    assert item is not None
    found = [(one.item.workitem_uid, one.priority) for one in entries(journal, tmp_path, now)]
    assert found == [
        (item.workitem_uid, ReadingPriority.LOW),
        ("2.25.1", ReadingPriority.HIGH),
        ("2.25.0", ReadingPriority.LOW),
    ]


def test_events_that_are_counted_from_one_again_hide_nothing(journal: Journal, tmp_path: Path) -> None:
    """As after a journal was put back, or its events were lost."""
    now = time.time()
    cases = [Case(accession_number=f"M{number}", right=0.01, probability=0.05) for number in range(3)]
    catalogue = Catalogue(config.parse("", folder=tmp_path), journal)
    fill(journal, cases, now)
    assert [one.item.state for one in catalogue.entries(now)] == ["SCHEDULED"] * 3
    with journal.writing() as database:
        database.conn.execute("delete from workitem_events")
    workitems.claim(journal, cases[1].study, "ada", now)
    found = {one.item.study_instance_uid: one.item.state for one in catalogue.entries(now)}
    assert found[cases[1].study] == "IN PROGRESS"


# ------------------------------------------------------------------ facts


def facts_of(journal: Journal, folder: Path, case: Case, now: float) -> dict[str, tuple[str, str]]:
    """What is said of a study: kind and value by concept, with the side where there is one."""
    (entry,) = [one for one in entries(journal, folder, now) if one.item.study_instance_uid == case.study]
    found = {}
    for item in facts.content(entry.study):
        (concept,) = item[values.tag("ConceptNameCodeSequence")]
        name = concept[values.tag("CodeValue")][0]
        for modifier in item.get(values.tag("ContentItemModifierSequence"), ()):
            name += " " + modifier[values.tag("ConceptCodeSequence")][0][values.tag("CodeMeaning")][0]
        (kind,) = item[values.tag("ValueType")]
        if kind == "CODE":
            said = item[values.tag("ConceptCodeSequence")][0][values.tag("CodeValue")]
        else:
            said = item[values.tag({"NUMERIC": "NumericValue", "TEXT": "TextValue"}[kind])]
        found[name] = (kind, said[0])
    return found


def test_nothing_is_said_of_a_study_that_somebody_reads_before_its_answer(journal: Journal, tmp_path: Path) -> None:
    now = time.time()
    early, refused = Case(accession_number="U1"), Case(accession_number="R1", refusal="no lungs were found")
    fill(journal, [early, refused], now)
    for case in (early, refused):
        workitems.claim(journal, case.study, "ada", now)
    assert facts_of(journal, tmp_path, early, now) == {}
    said = facts_of(journal, tmp_path, refused, now)
    assert said["analysis-state"] == ("CODE", "not-analysed")
    assert not {"covid-prob", "affected-lung Right", "affected-worse"} & set(said)


def test_a_number_that_an_answer_does_not_have_is_said_to_be_missing_and_is_no_zero(
    journal: Journal, tmp_path: Path
) -> None:
    now = time.time()
    known, without = (
        Case(accession_number="P1", right=0.0, probability=0.0),
        Case(accession_number="N1", right=0.3, left=0.1),
    )
    fill(journal, [known, without], now)
    missing = ("CODE", "not-provided")
    assert facts_of(journal, tmp_path, known, now)["covid-prob"] == ("NUMERIC", "0")
    said = facts_of(journal, tmp_path, without, now)
    assert said["covid-prob"] == missing
    assert said["affected-lung Right"] == ("NUMERIC", "30")
    with journal.writing() as database:  # a lung that was not found
        database.conn.execute(
            "update results set assessment_json = json_set(assessment_json, '$.left', null)"
            " where study_instance_uid = ?",
            (without.study,),
        )
    said = facts_of_reopened(journal, tmp_path, without, now)
    assert said["affected-lung Left"] == missing
    assert said["affected-lung Right"] == said["affected-worse"] == ("NUMERIC", "30")


def facts_of_reopened(journal: Journal, folder: Path, case: Case, now: float) -> dict[str, tuple[str, str]]:
    reopened = Journal(journal.state_dir, "test")
    try:
        return facts_of(reopened, folder, case, now)
    finally:
        reopened.close()
