"""The worklist page in a real browser: what a radiologist sees and can do."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from playwright.sync_api import expect, sync_playwright

from tests import judged, peers, worklists
from tests.unit import results_cases
from tests.worklists import TWELVE, Case
from triage_node.config import Settings
from triage_node.journal import Journal, messages, workitems
from triage_node.web import Page, outline, window

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, ConsoleMessage
    from playwright.sync_api import Page as Tab

pytestmark = pytest.mark.peers

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
SEVERE = TWELVE[5]
NEXT = TWELVE[-2]  # the one that the analyst takes next
HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=2</script>'
# What the browser itself says when the node is gone; everything else on the console is ours.
CONNECTION = re.compile(r"net::ERR_|Failed to load resource")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = peers.require("chromium", package="chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(path), args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path, "test")
    yield journal
    journal.close()


@pytest.fixture
def page(journal: Journal) -> Iterator[Page]:
    page = Page(Settings(folder=journal.state_dir), journal, port=0)
    page.start()
    yield page
    page.stop()


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    """A tab whose test fails when anything is said on its console."""
    context = browser.new_context(viewport={"width": 1920, "height": 1080})
    tab = context.new_page()
    said: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not CONNECTION.search(message.text):
            said.append(message.text)

    tab.on("console", listen)
    tab.on("pageerror", lambda error: said.append(str(error)))
    yield tab
    context.close()
    assert said == []


def open_list(tab: Tab, page: Page) -> None:
    tab.goto(page.url)
    expect(tab.locator("#connection")).to_have_attribute("data-state", "live", timeout=30_000)


def shown(tab: Tab) -> list[str]:
    """Accession numbers from top to bottom, by where they are on screen."""
    rows = [(row.bounding_box(), row.locator(".study b").inner_text()) for row in tab.locator("#rows .row").all()]
    return [name for box, name in sorted((box["y"], name) for box, name in rows if box)]


def selected(tab: Tab) -> str:
    return tab.locator('#rows .row[aria-selected="true"] .study b').inner_text()


def test_the_list_shows_every_study_in_reading_order_with_its_numbers(tab: Tab, page: Page, journal: Journal) -> None:
    worklists.fill(journal, TWELVE, time.time())
    open_list(tab, page)
    expect(tab.locator("#rows .row")).to_have_count(12)
    names = shown(tab)
    assert names[:3] == [SEVERE.accession_number, "2026-004718", "2026-004713"]
    first = tab.locator(f'#rows .row[data-uid="{SEVERE.study}"]')
    expect(first.locator(".mark")).to_have_attribute("data-level", "HIGH")
    expect(first.locator(".bar.right b")).to_have_text("62%")
    expect(first.locator(".bar.left b")).to_have_text("71%")
    expect(first.locator(".grade b")).to_have_text("CT-3")
    expect(first.locator(".probability")).to_have_text("0.97")
    expect(first.locator(".movement")).to_contain_text("5")
    expect(first.locator(".wait b")).to_have_text(re.compile(r"2[34] min"))
    refused = tab.locator(f'#rows .row[data-uid="{TWELVE[3].study}"]')
    expect(refused.locator(".state")).to_contain_text("not analysed because no image lies at 112.5 mm")
    without = tab.locator(f'#rows .row[data-uid="{TWELVE[4].study}"]')
    expect(without.locator(".probability")).to_have_text("not provided")
    expect(first.locator(".mix")).to_contain_text(re.compile(r"ground glass.*72%.*consolidation.*28%"))
    for chip, number in (("waiting", 2), ("judged", 8), ("not_analysed", 2), ("HIGH", 4)):
        expect(tab.locator(f'[data-chip="{chip}"] b')).to_have_text(str(number))
    expect(tab.get_by_text("NOT FOR DIAGNOSTIC USE").first).to_be_visible()


def test_the_right_lung_is_on_the_left_of_the_screen(tab: Tab, page: Page, journal: Journal) -> None:
    worklists.fill(journal, TWELVE[:1], time.time())
    open_list(tab, page)
    right, left = tab.locator("#rows .bar.right").bounding_box(), tab.locator("#rows .bar.left").bounding_box()
    assert right is not None
    assert left is not None
    assert right["x"] + right["width"] <= left["x"]


def test_a_result_moves_its_study_on_screen_without_a_reload(tab: Tab, page: Page, journal: Journal) -> None:
    worklists.fill(journal, TWELVE, time.time())
    open_list(tab, page)
    tab.evaluate("() => { window.loadedOnce = true; }")
    tab.keyboard.press("j")
    before = selected(tab)
    row = tab.locator(f'#rows .row[data-uid="{NEXT.study}"]')
    expect(row.locator(".rank > b")).to_have_text("11")
    worklists.judge_next(journal, {NEXT.study: replace(NEXT, right=0.82, left=0.3)}, time.time())
    started = time.monotonic()
    expect(row.locator(".rank > b")).to_have_text("2", timeout=5000)
    took_s = time.monotonic() - started
    expect(row).to_have_class(re.compile("moved"))
    expect(tab.locator("#announcement")).to_contain_text(
        f"Study {NEXT.accession_number} is judged and moved from 11 to 2."
    )
    expect(row).to_have_css("transform", "matrix(1, 0, 0, 1, 0, 88)")  # the place of the second row, once it has moved
    assert shown(tab)[1] == NEXT.accession_number
    assert selected(tab) == before
    assert tab.evaluate("() => window.loadedOnce") is True
    print(f"on screen {took_s:.2f} s after the result was committed")


def test_the_list_is_used_by_keyboard_alone(tab: Tab, page: Page, journal: Journal) -> None:
    worklists.fill(journal, TWELVE, time.time())
    open_list(tab, page)
    names = shown(tab)
    assert selected(tab) == names[0]
    for key, place in (("j", 1), ("ArrowDown", 2), ("k", 1), ("ArrowUp", 0), ("k", 0), ("End", 11), ("Home", 0)):
        tab.keyboard.press(key)
        assert selected(tab) == names[place], key
        expect(tab.locator('#rows .row[aria-selected="true"]')).to_be_focused()
    expect(tab.locator("#panel h2")).to_have_text(names[0])
    tab.keyboard.press("t")
    expect(tab.locator("#arrival")).to_have_attribute("aria-pressed", "true")
    expect(tab.locator('#rows .row[aria-rowindex="2"] .study b')).to_have_text(TWELVE[0].accession_number)
    assert selected(tab) == names[0]
    tab.keyboard.press("t")
    tab.keyboard.press("/")
    expect(tab.locator("#filter")).to_be_focused()
    tab.keyboard.type("schädel")
    expect(tab.locator("#rows .row")).to_have_count(1)
    expect(tab.locator("#matches")).to_have_text("1 of 12 shown")
    tab.keyboard.press("Escape")
    expect(tab.locator("#rows .row")).to_have_count(12)
    tab.keyboard.press("?")
    expect(tab.locator("#keys")).to_be_visible()
    tab.keyboard.press("Escape")
    expect(tab.locator("#keys")).to_be_hidden()
    tab.keyboard.press("Home")
    tab.keyboard.press("j")
    tab.keyboard.press("Enter")
    expect(tab.locator("#study h2")).to_have_text(names[1])
    tab.keyboard.press("Escape")
    expect(tab.locator('#rows .row[aria-selected="true"] .study b')).to_have_text(names[1])


def test_the_overview_of_the_selected_study_is_shown_large(tab: Tab, page: Page, journal: Journal) -> None:
    worklists.fill(journal, TWELVE, time.time())
    open_list(tab, page)
    image = tab.locator("#panel img.overview")
    expect(image).to_have_js_property("naturalWidth", 480)
    expect(image).to_have_attribute("src", re.compile(re.escape(SEVERE.study)))
    thumbnail = tab.locator(f'#rows .row[data-uid="{SEVERE.study}"] .thumb img')
    expect(thumbnail).to_have_js_property("naturalWidth", 160)
    expect(tab.locator("#panel")).to_contain_text("1,550 ml")
    tab.locator(f'#rows .row[data-uid="{TWELVE[3].study}"]').click()
    expect(tab.locator("#panel .no-picture")).to_have_text("Not analysed: there is no overview image.")


def test_a_study_page_tells_the_whole_story_and_keeps_current(tab: Tab, page: Page, journal: Journal) -> None:
    worklists.fill(journal, TWELVE, time.time())
    tab.goto(f"{page.url}studies/{NEXT.study}")
    study = tab.locator("#study")
    expect(study).to_contain_text("Not judged yet")
    worklists.judge_next(journal, {NEXT.study: replace(NEXT, right=0.5, warnings=("a tilted gantry",))}, time.time())
    expect(study.locator(".numbers .large").first).to_have_text("50%")
    expect(study.locator("img.overview")).to_have_js_property("naturalWidth", 480)
    expect(study.locator(".warnings")).to_contain_text("a tilted gantry")
    expect(study.locator(".numbers tbody tr").nth(3)).to_have_text("consolidation313 ml · 13%0 ml · 0%313 ml · 6%")
    expect(study.locator(".parameters")).to_contain_text("CT-1, CT-2 and CT-3 up to 25%, 50%, 75%")
    for words in ("preferred by the selection rule", "nothing new", "sent nowhere", "study judged", "ground glass"):
        expect(study).to_contain_text(words)


def test_what_a_ris_was_told_and_acknowledged_stands_on_the_study_page(tab: Tab, page: Page, journal: Journal) -> None:
    worklists.fill(journal, TWELVE, time.time())
    tab.goto(f"{page.url}studies/{NEXT.study}")
    study = tab.locator("#study")
    expect(study).to_contain_text("Results and their delivery")
    expect(study).not_to_contain_text("Messages to other systems")
    worklists.judge_next(journal, {NEXT.study: NEXT}, time.time(), systems=("ris",))
    expect(study).to_contain_text("Messages to other systems")
    told = study.locator("table.ledger", has_text="Receiver").locator("tbody tr")
    expect(told).to_contain_text("queued")
    (message,) = messages.due(journal, "ris", time.time())
    assert messages.begin(journal, message, time.time())
    messages.record(journal, message, "refused", code="AR", words="unknown patient", now=time.time(), retry_at=None)
    tab.reload()
    expect(told).to_contain_text("refused AR: unknown patient")


def test_a_probability_is_shown_beside_how_far_it_can_be_trusted(tab: Tab, page: Page, journal: Journal) -> None:
    case = replace(SEVERE, trust="Learnt from few patients: <b>it ranks</b>, it is no proof.")
    worklists.fill(journal, (case, TWELVE[4]), time.time())
    for address in ("", f"studies/{case.study}"):
        tab.goto(f"{page.url}{address}")
        shown = tab.locator("#study .trust" if address else "#panel .trust")
        expect(shown).to_have_text(f"How far P(COVID-19) can be trusted: {case.trust}")
    tab.goto(f"{page.url}studies/{TWELVE[4].study}")
    expect(tab.locator("#study .numbers")).to_contain_text("not provided")
    expect(tab.locator("#study .trust")).to_have_count(0)


def test_an_unknown_study_is_said_to_be_unknown(tab: Tab, page: Page) -> None:
    tab.goto(f"{page.url}studies/1.2.3")
    expect(tab.locator("#study")).to_contain_text("No study 1.2.3 is known to this node")


def test_text_from_a_header_is_never_markup(tab: Tab, page: Page, journal: Journal) -> None:
    case = Case(accession_number=HOSTILE[:16], description=HOSTILE, refusal=f"the series {HOSTILE} has a gap")
    worklists.fill(journal, (case,), time.time())
    open_list(tab, page)
    row = tab.locator("#rows .row")
    expect(row.locator(".study .about .dicom")).to_have_text(HOSTILE)
    expect(row.locator(".state")).to_contain_text(HOSTILE)
    expect(tab.locator("#panel")).to_contain_text(HOSTILE)
    assert tab.locator("#rows img[src='x'], #panel img, #main script").count() == 0
    tab.keyboard.press("Enter")
    expect(tab.locator("#study")).to_contain_text(HOSTILE)
    assert tab.locator("#study img, #study script").count() == 0
    assert tab.title() not in ("1", "2")


def test_a_lost_node_is_never_silent_and_comes_back_by_itself(tab: Tab, journal: Journal) -> None:
    worklists.fill(journal, TWELVE, time.time())
    settings = Settings(folder=journal.state_dir)
    first = Page(settings, journal, port=0)
    first.start()
    open_list(tab, first)
    expect(tab.locator("#banner")).to_be_hidden()
    first.stop()
    expect(tab.locator("#banner")).to_contain_text("This list may be out of date since", timeout=10_000)
    expect(tab.locator("#connection")).to_contain_text("reconnecting")
    expect(tab.locator("#rows .row")).to_have_count(12)
    second = Page(settings, journal, port=first.port)
    second.start()
    expect(tab.locator("#connection")).to_have_attribute("data-state", "live", timeout=15_000)
    expect(tab.locator("#banner")).to_be_hidden()
    second.stop()


def test_a_node_that_cannot_read_its_journal_is_shown_as_such(tab: Tab, page: Page, journal: Journal) -> None:
    worklists.fill(journal, TWELVE[:2], time.time())
    open_list(tab, page)
    with journal.writing() as database:
        database.conn.execute("alter table events rename to elsewhere")
    expect(tab.locator("#banner")).to_contain_text("The node says: the journal cannot be read", timeout=10_000)
    expect(tab.locator("#connection")).to_have_attribute("data-state", "trouble")


def test_an_empty_list_says_what_to_do(tab: Tab, page: Page, journal: Journal) -> None:
    open_list(tab, page)
    expect(tab.locator("#empty")).to_contain_text("TRIAGE@127.0.0.1:11112")
    worklists.arrive(journal, NEXT, time.time())
    expect(tab.locator("#rows .row .study b")).to_have_text(NEXT.accession_number)
    expect(tab.locator("#empty")).to_be_hidden()


# ---- many studies


def test_ten_thousand_studies_stay_quick_to_walk_through(tab: Tab, page: Page, journal: Journal) -> None:
    now = time.time()
    worklists.fill(journal, TWELVE, now)
    worklists.crowd(journal, 9_990, now - 600)
    open_list(tab, page)
    expect(tab.locator("#grid")).to_have_attribute("aria-rowcount", "10003", timeout=30_000)
    assert tab.locator("#rows .row").count() < 60
    tab.keyboard.press("End")
    bottom = tab.locator('#rows .row[aria-selected="true"]')
    expect(bottom).to_be_in_viewport(ratio=0.9)
    expect(bottom.locator(".rank > b")).to_have_text("10002")
    tab.keyboard.press("PageUp")
    expect(tab.locator('#rows .row[aria-selected="true"] .rank > b')).not_to_have_text("10002")
    tab.keyboard.press("Home")
    expect(tab.locator('#rows .row[aria-selected="true"]')).to_be_in_viewport(ratio=0.9)
    tab.keyboard.press("/")
    tab.keyboard.type("crowd-00777")
    expect(tab.locator("#matches")).to_have_text("1 of 10,002 shown")
    tab.keyboard.press("Escape")
    tab.keyboard.press("Home")
    worklists.judge_next(journal, {NEXT.study: replace(NEXT, right=0.99, left=0.99)}, now)
    row = tab.locator(f'#rows .row[data-uid="{NEXT.study}"]')
    started = time.monotonic()
    expect(row.locator(".rank > b")).to_have_text("1", timeout=30_000)
    print(f"one of ten thousand is on screen {time.monotonic() - started:.2f} s after its result was committed")
    longest_ms = tab.evaluate(
        """async () => {
            const scroll = document.getElementById("scroll");
            let longest = 0;
            let last = await new Promise(requestAnimationFrame);
            for (let step = 0; step < 60; step += 1) {
                scroll.scrollTop += 4000;
                const now = await new Promise(requestAnimationFrame);
                longest = Math.max(longest, now - last);
                last = now;
            }
            return longest;
        }"""
    )
    print(f"longest frame while scrolling {longest_ms:.0f} ms")
    assert tab.locator("#rows .row").count() < 60


# ---- filters


def test_filters_show_what_they_say_alone_and_together(tab: Tab, page: Page, journal: Journal) -> None:
    worklists.fill(journal, TWELVE, time.time())
    workitems.claim(journal, TWELVE[0].study, "local", time.time())
    workitems.claim(journal, TWELVE[1].study, "anna", time.time())
    open_list(tab, page)
    rows = tab.locator("#rows .row")
    expect(rows).to_have_count(12)
    for presses, count in (
        (("not_analysed",), 2),
        (("waiting",), 4),  # of one group either
        (("waiting", "HIGH"), 0),  # of two groups both
        (("not_analysed", "judged"), 4),
    ):
        for chip in presses:
            tab.locator(f'[data-chip="{chip}"]').click()
        expect(tab.locator("#grid")).to_have_attribute("aria-rowcount", str(count + 1))
    tab.keyboard.press("x")
    expect(rows).to_have_count(12)
    tab.keyboard.press("1")
    expect(rows).to_have_count(4)
    expect(tab.locator('[data-chip="HIGH"]')).to_have_attribute("aria-pressed", "true")
    tab.keyboard.press("1")
    tab.locator('[data-chip="mine"]').click()
    expect(rows).to_have_count(1)
    expect(rows.locator(".state b")).to_have_text(re.compile("being read by you since"))
    tab.keyboard.press("j")
    tab.keyboard.press("Enter")
    expect(tab.locator("#study h2")).to_have_text(TWELVE[0].accession_number)
    tab.keyboard.press("Escape")  # back from the study's page the filter is as it was
    expect(rows).to_have_count(1)
    tab.keyboard.press("t")
    tab.reload()
    expect(tab.locator("#arrival")).to_have_attribute("aria-pressed", "true")


def test_a_filter_without_studies_says_so_and_how_to_leave_it(tab: Tab, page: Page, journal: Journal) -> None:
    worklists.fill(journal, TWELVE[:2], time.time())
    open_list(tab, page)
    tab.locator('[data-chip="not_analysed"]').click()
    expect(tab.locator("#empty")).to_contain_text("No study matches the filters")
    tab.keyboard.press("x")
    expect(tab.locator("#rows .row")).to_have_count(2)


# ---- claims


def test_a_study_is_claimed_read_and_put_back_by_keys_and_everybody_sees_it(
    tab: Tab, page: Page, journal: Journal
) -> None:
    worklists.fill(journal, TWELVE, time.time())
    open_list(tab, page)
    other = tab.context.new_page()
    open_list(other, page)
    row, seen = (one.locator(f'#rows .row[data-uid="{SEVERE.study}"]') for one in (tab, other))
    tab.keyboard.press("Home")
    tab.keyboard.press("c")
    for one in (row, seen):
        expect(one.locator(".state b")).to_have_text(re.compile("being read by you since"))
    expect(tab.locator("#said")).to_have_text("2026-004716 is claimed.")
    assert workitems.claims(journal)[SEVERE.study].performer == "local"
    tab.keyboard.press("m")
    expect(seen.locator(".state b")).to_have_text("read")
    expect(seen.locator(".rank > b")).to_have_text("12")
    assert selected(tab) == SEVERE.accession_number
    tab.keyboard.press("r")
    expect(seen.locator(".state b")).to_have_text("judged")
    expect(seen.locator(".rank > b")).to_have_text("1")


def test_what_somebody_else_reads_is_only_taken_from_him_after_a_question(
    tab: Tab, page: Page, journal: Journal
) -> None:
    worklists.fill(journal, TWELVE, time.time())
    workitems.claim(journal, SEVERE.study, "anna", time.time())
    open_list(tab, page)
    row = tab.locator(f'#rows .row[data-uid="{SEVERE.study}"]')
    row.click()
    expect(row.locator(".state b")).to_have_text(re.compile("being read by anna since"))
    expect(tab.locator("#panel [data-action]")).to_have_count(1)
    tab.keyboard.press("c")  # nothing that this study asks for
    tab.keyboard.press("r")
    expect(tab.locator("#force-question")).to_contain_text("the study is being read by anna since")
    tab.get_by_role("button", name="No", exact=True).click()
    assert SEVERE.study in workitems.claims(journal)
    tab.locator('#panel [data-action="release"]').click()
    tab.get_by_role("button", name="Yes").click()
    expect(row.locator(".state b")).to_have_text("judged")


def test_the_next_study_is_claimed_and_opened(tab: Tab, page: Page, journal: Journal) -> None:
    worklists.fill(journal, TWELVE, time.time())
    workitems.claim(journal, SEVERE.study, "anna", time.time())
    open_list(tab, page)
    second = shown(tab)[1]
    tab.keyboard.press("n")
    expect(tab.locator("#study h2")).to_have_text(second)
    expect(tab.locator("#study .standing")).to_contain_text("being read by you")
    tab.keyboard.press("m")
    expect(tab.locator("#study .standing")).to_contain_text("read")
    expect(tab.locator("#said")).to_have_text(f"{second} is marked as read.")
    tab.keyboard.press("n")
    expect(tab.locator("#study h2")).not_to_have_text(second)


def test_a_claim_that_does_not_reach_the_node_says_that_nothing_was_changed(tab: Tab, journal: Journal) -> None:
    worklists.fill(journal, TWELVE[:2], time.time())
    page = Page(Settings(folder=journal.state_dir), journal, port=0)
    page.start()
    open_list(tab, page)
    page.stop()
    tab.keyboard.press("c")
    expect(tab.locator("#said")).to_have_text("The node is not reached: nothing was changed.")
    assert workitems.claims(journal) == {}


# ---- slices


@pytest.fixture(scope="module")
def judged_case(tmp_path_factory: pytest.TempPathFactory) -> results_cases.Case:
    return results_cases.by_class(tmp_path_factory.mktemp("series"))


def on_slice(tab: Tab, number: int) -> None:
    expect(tab.locator(f'.stage[data-slice="{number}"]:not(.loading)')).to_be_visible()


def pixels(tab: Tab) -> list[list[int]]:
    """[y][x] the grey values on the canvas."""
    found: list[list[int]] = tab.evaluate(
        """() => {
            const { width, height } = document.querySelector(".film canvas");
            const copy = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
            copy.drawImage(document.querySelector(".film canvas"), 0, 0);
            const { data } = copy.getImageData(0, 0, width, height);
            return Array.from({ length: height }, (_, y) =>
                Array.from({ length: width }, (_, x) => data[4 * (y * width + x)]));
        }"""
    )
    return found


def drawn(tab: Tab) -> dict[str, str]:
    """Kind of segment -> path on screen."""
    paths = tab.locator(".film path").all()
    return {str(path.get_attribute("data-kind")): str(path.get_attribute("d")) for path in paths}


def test_every_slice_shows_its_own_pixels_and_outlines(
    tab: Tab, page: Page, journal: Journal, judged_case: results_cases.Case
) -> None:
    study = judged.put(journal, judged_case, time.time())
    findings, units = judged_case.findings, judged_case.volume.hounsfield
    assert findings.consolidation is not None
    depth = len(units)
    tab.goto(f"{page.url}studies/{study}")
    worst = depth - int(np.argmax(findings.lesions.sum(axis=(1, 2))))
    on_slice(tab, worst)  # it opens at the slice with most lesion
    tab.keyboard.press("Home")
    for number, z in enumerate(range(depth - 1, -1, -1), start=1):
        on_slice(tab, number)
        assert (np.array(pixels(tab)) == window.grey(units[z], window.WINDOWS["lung"])).all()
        masks = {
            "right-lung": findings.lungs[z] == 1,
            "left-lung": findings.lungs[z] == 2,
            "ground-glass": findings.lesions[z] & ~findings.consolidation[z],
            "consolidation": findings.lesions[z] & findings.consolidation[z],
        }
        assert drawn(tab) == {kind: outline.path(mask) for kind, mask in masks.items() if mask.any()}
        expect(tab.locator(".profile .track")).to_have_attribute("aria-valuenow", str(number))
        tab.keyboard.press("j")
    on_slice(tab, depth)  # there is no further one
    tab.keyboard.press("w")
    on_slice(tab, worst)
    share = findings.lesions[depth - worst].sum() / (findings.lungs[depth - worst] > 0).sum()
    expect(tab.locator(".where")).to_contain_text(f"lesion {share:.0%} of the lung on this slice")
    expect(tab.locator(".burned")).to_be_in_viewport()


def test_windows_outlines_wheel_and_bar_of_the_slices(
    tab: Tab, page: Page, journal: Journal, judged_case: results_cases.Case
) -> None:
    study = judged.put(journal, judged_case, time.time())
    units = judged_case.volume.hounsfield
    tab.goto(f"{page.url}studies/{study}")
    tab.locator(".stage canvas").wait_for()
    tab.keyboard.press("Home")
    on_slice(tab, 1)
    for key, name in (("2", "mediastinum"), ("3", "bone"), ("1", "lung")):
        tab.keyboard.press(key)
        expect(tab.locator(".stage")).to_have_attribute("data-window", name)
        assert (np.array(pixels(tab)) == window.grey(units[-1], window.WINDOWS[name])).all()
    stage = tab.locator(".stage").bounding_box()
    assert stage is not None
    tab.mouse.move(stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2)
    for number in (2, 3, 4, 5, 6):
        tab.mouse.wheel(0, 120)
        on_slice(tab, number)
    tab.mouse.wheel(0, -120)
    on_slice(tab, 5)
    assert tab.evaluate("() => scrollY") == 0, "the wheel goes through the slices, the page stays"
    track = tab.locator(".profile .track").bounding_box()
    assert track is not None
    tab.mouse.click(track["x"] + 5, track["y"] + track["height"] * 0.99)
    on_slice(tab, len(units))
    tab.keyboard.press("w")
    expect(tab.locator('.film path[data-kind="ground-glass"]')).to_have_count(1)
    tab.keyboard.press("o")
    expect(tab.locator('.film path[data-kind="ground-glass"]')).to_have_count(0)
    expect(tab.locator('.film path[data-kind="left-lung"]')).to_have_count(1)
    tab.keyboard.press("l")
    expect(tab.locator(".film path")).to_have_count(0)
    before = tab.locator(".film").bounding_box()
    tab.keyboard.press("+")
    after = tab.locator(".film").bounding_box()
    assert before is not None
    assert after is not None
    assert after["width"] == pytest.approx(1.25 * before["width"], rel=0.01)
    tab.keyboard.press("0")
    expect(tab.locator(".film")).to_have_css("transform", "matrix(1, 0, 0, 1, 0, 0)")


def test_slices_that_cannot_be_shown_say_why_and_never_show_another(
    tab: Tab, page: Page, journal: Journal, judged_case: results_cases.Case
) -> None:
    study = judged.put(journal, judged_case, time.time())
    worklists.arrive(journal, NEXT, time.time())
    tab.goto(f"{page.url}studies/{NEXT.study}")
    expect(tab.locator(".slices .no-picture")).to_contain_text("The slices cannot be shown")
    depth = len(judged_case.volume.instances)
    damaged = judged_case.volume.instances[depth - 3].sop_instance_uid
    (path,) = (journal.state_dir / "archive" / study).rglob(f"{damaged}.dcm")
    path.write_bytes(path.read_bytes()[:-100])
    tab.goto(f"{page.url}studies/{study}")
    tab.locator(".stage canvas").wait_for()
    tab.keyboard.press("Home")
    tab.keyboard.press("j")
    on_slice(tab, 2)
    tab.keyboard.press("j")
    expect(tab.locator(".stage .trouble")).to_contain_text("This slice cannot be shown: the pixel data of image")
    expect(tab.locator(".where")).to_have_text(f"slice 3 of {depth}")
    assert not np.array(pixels(tab)).any()
    expect(tab.locator(".film path")).to_have_count(0)
    tab.keyboard.press("j")
    on_slice(tab, 4)
    expect(tab.locator(".stage .trouble")).to_be_hidden()


def test_a_new_answer_brings_its_own_outlines_to_an_open_page(
    tab: Tab, page: Page, journal: Journal, judged_case: results_cases.Case
) -> None:
    judged.arrive(journal, judged_case.built.series.instances, time.time())
    study = judged_case.identity.study_instance_uid
    tab.goto(f"{page.url}studies/{study}")
    tab.locator(".stage canvas").wait_for()
    expect(tab.locator("#study")).to_contain_text("Not judged yet")
    expect(tab.locator("[data-outlines]")).to_have_count(0)
    tab.keyboard.press("Home")
    tab.keyboard.press("j")
    on_slice(tab, 2)
    judged.judge(journal, judged_case, time.time())
    expect(tab.locator("[data-outlines]")).to_have_count(2)
    on_slice(tab, 2)  # whoever looks is not taken elsewhere
    expect(tab.locator(".film path").first).to_be_attached()


def test_reduced_motion_is_respected(browser: Browser, page: Page, journal: Journal) -> None:
    worklists.fill(journal, TWELVE[:2], time.time())
    context = browser.new_context(reduced_motion="reduce")
    tab = context.new_page()
    open_list(tab, page)
    expect(tab.locator("#rows .row").first).to_have_css("transition-property", "none")
    context.close()


@pytest.mark.parametrize("size", [(1920, 1080), (1024, 768), (768, 1024)])
def test_nothing_sticks_out_of_the_screen(
    browser: Browser, page: Page, journal: Journal, judged_case: results_cases.Case, size: tuple[int, int]
) -> None:
    study = judged.put(journal, judged_case, time.time())
    worklists.fill(journal, TWELVE, time.time())
    context = browser.new_context(viewport={"width": size[0], "height": size[1]})
    tab = context.new_page()
    open_list(tab, page)
    assert tab.evaluate("() => document.documentElement.scrollWidth") <= size[0]
    expect(tab.locator(".notice")).to_be_in_viewport()
    expect(tab.locator("#rows .row").first).to_be_in_viewport()
    expect(tab.locator("#panel h2")).to_be_in_viewport()
    tab.goto(f"{page.url}studies/{study}")
    expect(tab.locator(".stage canvas")).to_be_in_viewport(ratio=0.9)
    assert tab.evaluate("() => document.documentElement.scrollWidth") <= size[0]
    tab.evaluate("() => scrollTo(0, document.documentElement.scrollHeight)")
    expect(tab.locator(".top .notice")).to_be_in_viewport()
    context.close()
