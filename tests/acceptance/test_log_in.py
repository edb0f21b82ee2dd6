"""Coming in and going out as a person sees it, in a real browser; and a node of real processes that keeps sessions."""

from __future__ import annotations

import os
import re
import signal
import time
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect, sync_playwright

from tests import certificates, guarded, peers, running, worklists
from tests.acceptance.test_page import ARGUMENTS, CONNECTION
from tests.guarded import PASSWORDS, served
from tests.worklists import TWELVE
from triage_node.journal import Journal, audit, sessions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser
    from playwright.sync_api import Page as Tab

    from triage_node.web import Page

pytestmark = pytest.mark.peers
SEVERE = TWELVE[5]


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
    worklists.fill(journal, TWELVE, time.time())
    yield journal
    journal.close()


@pytest.fixture
def page(tmp_path: Path, journal: Journal) -> Iterator[Page]:
    with served(guarded.settings(tmp_path), journal) as page:
        yield page


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    """A tab whose test fails when its console says anything but that an address was refused."""
    context = browser.new_context(viewport={"width": 1920, "height": 1080})
    tab = context.new_page()
    said: list[str] = []
    tab.on(
        "console",
        lambda message: (
            said.append(message.text)
            if message.type in ("error", "warning") and not CONNECTION.search(message.text)
            else None
        ),
    )
    tab.on("pageerror", lambda error: said.append(str(error)))
    yield tab
    context.close()
    assert said == []


def log_in(tab: Tab, name: str = "reader") -> None:
    tab.get_by_label("Name").fill(name)
    tab.get_by_label("Password").fill(PASSWORDS[name])
    tab.get_by_role("button", name="Log in").click()


def test_one_logs_in_by_keyboard_sees_his_name_and_logs_out_for_good(tab: Tab, page: Page, journal: Journal) -> None:
    tab.goto(page.url)
    expect(tab).to_have_url(re.compile(r"/login\?next=%2F$"))
    expect(tab.get_by_text("NOT FOR DIAGNOSTIC USE")).to_be_visible()
    expect(tab.get_by_label("Name")).to_be_focused()
    tab.keyboard.type("reader")
    tab.keyboard.press("Tab")
    tab.keyboard.type(PASSWORDS["reader"])
    tab.keyboard.press("Enter")
    expect(tab.locator("#connection")).to_have_attribute("data-state", "live")
    expect(tab.locator("#rows .row")).to_have_count(12)
    expect(tab.locator("#who b")).to_have_text("reader")
    expect(tab.locator("#who")).to_be_in_viewport()
    assert tab.evaluate("() => document.cookie").startswith("csrf=")
    assert "session" not in tab.evaluate("() => document.cookie")
    tab.get_by_role("button", name="log out").click()
    expect(tab.get_by_role("button", name="Log in")).to_be_visible()
    tab.go_back()
    expect(tab.get_by_role("button", name="Log in")).to_be_visible()
    assert sessions.current(journal) == []
    assert [row.words for row in audit.rows(journal) if row.kind == "Logout"] == ["by the user"]


def test_the_log_in_works_without_javascript_and_leads_to_where_one_wanted_to_go(browser: Browser, page: Page) -> None:
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(f"{page.url}studies/{SEVERE.study}")
    log_in(tab)
    expect(tab).to_have_url(f"{page.url}studies/{SEVERE.study}")
    tab.goto(f"{page.url}login")
    expect(tab.get_by_role("heading", name="You are logged in as reader")).to_be_visible()
    expect(tab.get_by_label("Password")).to_be_hidden()
    tab.get_by_role("button", name="Log out").click()
    expect(tab.get_by_role("button", name="Log in")).to_be_visible()
    tab.goto(page.url)
    expect(tab).to_have_url(re.compile("/login"))
    context.close()


def test_a_wrong_password_is_said_and_the_name_stays(tab: Tab, page: Page) -> None:
    tab.goto(page.url)
    tab.get_by_label("Name").fill("reader")
    tab.get_by_label("Password").fill("wrong")
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("alert")).to_have_text("This name and this password do not belong together.")
    expect(tab.get_by_label("Name")).to_have_value("reader")
    expect(tab.get_by_label("Password")).to_have_value("")
    expect(tab.get_by_label("Password")).to_be_focused()
    tab.keyboard.type(PASSWORDS["reader"])
    tab.keyboard.press("Enter")
    expect(tab.locator("#rows .row")).to_have_count(12)


def test_a_page_whose_session_is_ended_asks_for_the_log_in_and_comes_back(
    tab: Tab, page: Page, journal: Journal
) -> None:
    tab.goto(f"{page.url}studies/{SEVERE.study}")
    log_in(tab)
    expect(tab.locator("#study h2").first).to_have_text(SEVERE.accession_number)
    expect(tab.locator("#connection")).to_have_attribute("data-state", "live")
    (row,) = sessions.current(journal)
    assert sessions.end(journal, row.digest, "by an administrator", time.time())
    started = time.monotonic()
    expect(tab.get_by_role("alert")).to_have_text("Your session has ended: by an administrator.", timeout=10_000)
    print(f"log-in on screen {time.monotonic() - started:.2f} s after the session was ended")
    log_in(tab)
    expect(tab).to_have_url(f"{page.url}studies/{SEVERE.study}")
    expect(tab.locator("#study h2").first).to_have_text(SEVERE.accession_number)


def test_a_claim_goes_by_the_name_of_whoever_is_logged_in(tab: Tab, page: Page) -> None:
    tab.goto(page.url)
    log_in(tab)
    row = tab.locator(f'#rows .row[data-uid="{SEVERE.study}"]')
    row.click()
    tab.keyboard.press("c")
    expect(row).to_have_attribute("data-state", "reading")
    facts = tab.evaluate(f"async () => (await fetch('/api/study/{SEVERE.study}')).json()")
    assert [entry["detail"]["by"] for entry in facts["events"] if entry["event"] == "reading begun"] == ["reader"]


def test_by_tls_it_is_the_same(browser: Browser, tmp_path: Path, journal: Journal) -> None:
    certificates.write_pair(tmp_path)
    context = browser.new_context(ignore_https_errors=True)
    with served(guarded.settings(tmp_path, certificate="page.pem", key="page.key"), journal) as page:
        tab = context.new_page()
        tab.goto(page.url)
        log_in(tab, "chief")
        expect(tab.locator("#connection")).to_have_attribute("data-state", "live")
        kept = {cookie["name"]: cookie for cookie in context.cookies()}
        assert kept["__Host-session"]["secure"]
        assert kept["__Host-session"]["httpOnly"]
        assert kept["csrf"]["secure"]
        tab.get_by_role("button", name="log out").click()
        expect(tab.get_by_role("button", name="Log in")).to_be_visible()
        assert "__Host-session" not in {cookie["name"] for cookie in context.cookies()}
        context.close()


def test_without_users_nobody_is_named_and_nobody_can_log_out(tab: Tab, tmp_path: Path, journal: Journal) -> None:
    with served(guarded.settings(tmp_path, users=()), journal) as page:
        tab.goto(page.url)
        expect(tab.locator("#connection")).to_have_attribute("data-state", "live")
        expect(tab.locator("#who")).to_be_hidden()
        tab.close()


@pytest.mark.parametrize("size", [(1920, 1080), (768, 1024)])
def test_nothing_of_the_log_in_sticks_out_of_the_screen(browser: Browser, page: Page, size: tuple[int, int]) -> None:
    context = browser.new_context(viewport={"width": size[0], "height": size[1]})
    tab = context.new_page()
    tab.goto(page.url)
    assert tab.evaluate("() => document.documentElement.scrollWidth") <= size[0]
    expect(tab.get_by_role("button", name="Log in")).to_be_in_viewport()
    log_in(tab)
    expect(tab.locator("#who button")).to_be_in_viewport()
    assert tab.evaluate("() => document.documentElement.scrollWidth") <= size[0]
    context.close()


def test_a_session_outlives_a_desk_that_is_killed(tmp_path: Path) -> None:
    users = "".join(
        f'[[web.users]]\nname = "{user["name"]}"\nrole = "{user["role"]}"\npassword_hash = "{user["password_hash"]}"\n'
        for user in guarded.USERS
    )
    node = running.Node(tmp_path)
    node.config.write_text(f"{node.config.read_text()}\n{users}")
    try:
        with guarded.Browser(f"http://127.0.0.1:{node.web}") as browser:
            node.start()
            running.until(lambda: running.listens(node.web), 30, "the page listens")
            assert browser.log_in("chief").status_code == 303
            os.kill(node.children()["desk"], signal.SIGKILL)
            running.until(lambda: not running.listens(node.web), 10, "the desk is gone")
            running.until(lambda: running.listens(node.web), 30, "the desk is back")
            assert browser.get("/session").json()["name"] == "chief"
            assert node.ask("sessions", "--end", "chief") == {"ended": 1}
            assert browser.get("/api/worklist").status_code == 401
    finally:
        assert node.stop() == 0
    events = [entry["words"] for entry in node.ask("audit") if entry["event"] == "User Authentication"]
    assert events[0] == "by password"
    assert events[1].startswith("by an administrator (")
