"""Who may look at the page: real requests to the real server."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING

import httpx
import pytest

from tests import guarded, worklists
from tests.guarded import HASHES, PASSWORDS, Browser, field, served
from tests.worklists import TWELVE
from triage_node.config import Settings
from triage_node.journal import Journal, audit, sessions
from triage_node.web import Page, access, gate, throttle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SEVERE = TWELVE[5]
STUDY = f"/studies/{SEVERE.study}"
# What the page has for those who are logged in.
INSIDE = ("/", STUDY, f"{STUDY}/overview.png", "/api/worklist", f"/api/study/{SEVERE.study}", "/api/status", "/events")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled")
    journal = Journal(folder, "test")
    worklists.fill(journal, TWELVE, time.time())
    journal.close()
    return folder


@pytest.fixture
def journal(tmp_path: Path, filled: Path) -> Iterator[Journal]:
    shutil.copytree(filled, tmp_path, dirs_exist_ok=True)
    journal = Journal(tmp_path, "test")
    yield journal
    journal.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return guarded.settings(tmp_path)


@pytest.fixture
def page(settings: Settings, journal: Journal) -> Iterator[Page]:
    with served(settings, journal) as page:
        yield page


@pytest.fixture(scope="module")
def common(tmp_path_factory: pytest.TempPathFactory, filled: Path) -> Iterator[Page]:
    """One page for all tests that leave no trace in it; starting a server takes longer than most of them."""
    folder = tmp_path_factory.mktemp("common")
    shutil.copytree(filled, folder, dirs_exist_ok=True)
    journal = Journal(folder, "test")
    with served(guarded.settings(folder), journal) as page:
        yield page
    journal.close()


@pytest.fixture
def visitor(common: Page) -> Iterator[Browser]:
    """A new browser at the common page."""
    with Browser(common) as browser:
        yield browser


@pytest.fixture
def browser(page: Page) -> Iterator[Browser]:
    with Browser(page) as browser:
        yield browser


def told(journal: Journal, event: str = "User Authentication") -> list[tuple[str, str, int, str]]:
    """The audit's entries of one kind: type, user, outcome and words."""
    return [(row.kind, row.user_name, row.outcome, row.words) for row in audit.rows(journal) if row.event == event]


def cookies_of(answer: httpx.Response) -> dict[str, str]:
    """Name -> the whole line of each cookie that an answer sets."""
    return {line.partition("=")[0]: line for line in answer.headers.get_list("set-cookie")}


# ---- nothing without a log-in


@pytest.mark.parametrize("address", INSIDE)
def test_nothing_is_shown_to_whoever_is_not_logged_in(visitor: Browser, address: str) -> None:
    answer = visitor.get(address)
    assert SEVERE.accession_number not in answer.text
    if address.startswith(("/api", "/events")):
        assert answer.status_code == 401
        assert answer.json()["error"] == "Log in first."
    else:
        assert answer.status_code == 303
        assert answer.headers["location"] == f"/login?next={address.replace('/', '%2F')}"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "PROPFIND"])
def test_nothing_can_be_written_by_whoever_is_not_logged_in(visitor: Browser, method: str) -> None:
    for address in ("/api/requeue", f"/api/study/{SEVERE.study}/claim", "/session/active", "/nowhere"):
        assert visitor.request(method, address).status_code == 401, address


@pytest.mark.parametrize(
    "address", ["//", "/./", "/%2e/", "/static/../api/worklist", "/login/../api/worklist", "/API/worklist"]
)
def test_no_way_of_writing_an_address_goes_around_the_log_in(common: Page, address: str) -> None:
    answer = httpx.Client(base_url=common.url).send(
        httpx.Request("GET", f"{common.url.rstrip('/')}{address}", extensions={})
    )
    assert answer.status_code in (303, 401)
    assert SEVERE.accession_number not in answer.text


def test_health_and_style_are_there_for_everybody_and_show_no_study(visitor: Browser) -> None:
    assert visitor.get("/health").text == "ok\n"
    assert visitor.get("/static/page.css").status_code == 200
    assert visitor.get("/login").status_code == 200


def test_after_the_log_in_everything_of_a_reader_is_there(visitor: Browser) -> None:
    answer = visitor.log_in(next=STUDY)
    assert (answer.status_code, answer.headers["location"]) == (303, STUDY)
    for address in INSIDE[:-1]:
        assert visitor.get(address).status_code == 200, address
    assert visitor.get("/session").json() == {
        "name": "reader",
        "role": "reader",
        "rights": ["CLAIM", "READ"],
        "how": "session",
        "idle_min": 30.0,
    }


def test_without_users_the_page_on_loopback_is_open_as_before(tmp_path: Path, journal: Journal) -> None:
    with served(Settings(folder=tmp_path), journal) as page, Browser(page) as browser:
        assert browser.get("/api/worklist").status_code == 200
        assert browser.get("/session").json()["name"] == "local"
        assert browser.get("/session").json()["role"] == "administrator"
        assert browser.get("/login?next=/").headers["location"] == "/"


# ---- the password


@pytest.mark.parametrize(
    ("name", "password"),
    [("reader", "wrong"), ("reader", ""), ("nobody", PASSWORDS["reader"]), ("reader", HASHES["reader"]), ("", "")],
    ids=["wrong", "empty", "unknown name", "the hash itself", "nothing"],
)
def test_a_wrong_log_in_gives_nothing_and_does_not_tell_what_was_wrong(
    browser: Browser, name: str, password: str
) -> None:
    answer = browser.log_in(name, password)
    assert answer.status_code == 401
    assert "This name and this password do not belong together." in answer.text
    assert set(cookies_of(answer)) == {"login"}
    assert browser.get("/api/worklist").status_code == 401


def test_what_was_typed_comes_back_as_text(visitor: Browser) -> None:
    answer = visitor.log_in('"><script>alert(1)</script>', "x", next='/"><script>')
    assert "<script" not in answer.text
    assert "&lt;script&gt;" in answer.text


def test_a_name_that_nobody_has_is_not_kept_since_it_may_be_a_password(browser: Browser, journal: Journal) -> None:
    browser.log_in("my secret password", "")
    assert told(journal) == [("Login", "unknown user", 4, "no such user")]
    assert not any("my secret" in str(row) for row in journal.rows("select * from audit"))


def test_a_name_that_nobody_has_takes_as_long_as_a_wrong_password(settings: Settings, journal: Journal) -> None:
    """Compared by what is computed: both verify one hash of the same cost."""
    let_in = gate.Gate(settings.web, journal)
    computed: list[str] = []
    verify = let_in._passwords._hasher.verify

    class Counting:
        def verify(self, expected: str, password: str) -> bool:
            computed.append(expected.rpartition("$")[0].rpartition("$")[0])
            return verify(expected, password)

    let_in._passwords._hasher = Counting()
    assert not let_in._passwords.right("reader", "wrong")
    assert not let_in._passwords.right("nobody", "wrong")
    assert let_in._passwords.right("reader", PASSWORDS["reader"])
    assert computed == ["$argon2id$v=19$m=19456,t=2,p=1"] * 3


def test_a_form_that_is_too_long_is_not_read_to_its_end(visitor: Browser) -> None:
    answer = visitor.post("/login", content=b"csrf=" + b"x" * 5_000_000)
    assert answer.status_code in (403, 413)


# ---- guessing


def test_guessing_is_slowed_down_for_that_user_from_that_place_alone(browser: Browser, journal: Journal) -> None:
    token = browser.form_token()

    def attempt(name: str, password: str) -> httpx.Response:
        return browser.post("/login", data={"csrf": token, "name": name, "password": password})

    statuses = [attempt("reader", f"guess {number}").status_code for number in range(throttle.PAIR.at_once + 3)]
    assert statuses == [401] * throttle.PAIR.at_once + [429] * 3
    late = attempt("reader", PASSWORDS["reader"])
    assert late.status_code == 429
    assert 1 <= int(late.headers["retry-after"]) <= throttle.PAIR.every_s
    assert "Too many failed attempts. Try again in " in late.text
    assert attempt("other", PASSWORDS["other"]).status_code == 303
    assert told(journal)[-2] == ("Login", "reader", 4, "too many failed attempts: not tried")


def test_many_guesses_at_once_do_not_slip_through(page: Page) -> None:
    with Browser(page) as browser:
        token = browser.form_token()
        statuses: list[int] = []

        def attempt(number: int) -> None:
            form = {"csrf": token, "name": "chief", "password": f"guess {number}"}
            answer = guarded.post(f"{page.url}login", data=form, cookies={"login": token}, timeout=30.0)
            statuses.append(answer.status_code)

        threads = [threading.Thread(target=attempt, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert statuses.count(401) == throttle.PAIR.at_once
    assert statuses.count(429) == 20 - throttle.PAIR.at_once


def test_one_place_cannot_go_through_all_names(browser: Browser) -> None:
    token = browser.form_token()
    statuses = [
        browser.post("/login", data={"csrf": token, "name": f"name {number}", "password": "x"}).status_code
        for number in range(throttle.ADDRESS.at_once + 2)
    ]
    assert statuses == [401] * throttle.ADDRESS.at_once + [429] * 2


def test_a_right_password_costs_no_attempt(visitor: Browser) -> None:
    assert {visitor.log_in().status_code for _ in range(throttle.PAIR.at_once * 2)} == {303}


def test_a_flood_of_attempts_leaves_a_bounded_trace(settings: Settings, journal: Journal) -> None:
    let_in = gate.Gate(settings.web, journal)
    for number in range(gate.TOLD.at_once * 3):
        let_in._failed("reader", f"10.0.{number // 250}.{number % 250}", "wrong password")
    assert len(told(journal)) == gate.TOLD.at_once
    let_in._told = throttle.Buckets(gate.TOLD)  # time passes
    let_in._failed("reader", "10.0.0.1", "wrong password")
    words = told(journal)[-1][3]
    assert words == f"wrong password; {gate.TOLD.at_once * 2} more failed attempts before are not listed"


# ---- cookies


def test_the_session_cookie_is_out_of_reach_of_scripts_and_other_sites(visitor: Browser) -> None:
    cookies = cookies_of(visitor.log_in())
    session = SimpleCookie(cookies["session"])["session"]
    assert session["httponly"] is True
    assert (session["samesite"], session["path"], session["domain"], session["max-age"]) == ("lax", "/", "", "")
    assert len(session.value) == 43
    csrf = SimpleCookie(cookies["csrf"])["csrf"]
    assert (csrf["samesite"], csrf["path"], csrf["httponly"]) == ("Strict", "/", "")


def test_the_journal_holds_nothing_that_one_could_log_in_with(browser: Browser, journal: Journal) -> None:
    browser.log_in()
    token = browser.cookies["session"]
    journal.rows("pragma wal_checkpoint(truncate)")
    stored = b"".join(path.read_bytes() for path in journal.state_dir.glob("journal.sqlite*"))
    assert token.encode() not in stored
    assert PASSWORDS["reader"].encode() not in stored
    (row,) = sessions.current(journal)
    with Browser(str(browser.base_url)) as thief:
        for stolen in (row.digest, row.password_mark):
            thief.cookies.set("session", stolen)
            assert thief.get("/api/worklist").status_code == 401


def test_a_cookie_that_somebody_planted_before_is_worth_nothing_after_the_log_in(common: Page) -> None:
    """Session fixation: the log-in makes a token of its own, also where the planted one is a real session."""
    with Browser(common) as attacker, Browser(common) as victim:
        attacker.log_in("other")
        planted = attacker.cookies["session"]
        victim.cookies.set("session", planted, domain="127.0.0.1")
        victim.post(
            "/login",
            data={"csrf": victim.form_token(), "name": "reader", "password": PASSWORDS["reader"]},
        )
        values = {cookie.value for cookie in victim.cookies.jar if cookie.name == "session"}
        (own,) = values - {planted}
        assert guarded.get(f"{common.url}session", cookies={"session": own}).json()["name"] == "reader"
        assert attacker.get("/api/worklist").status_code == 401


@pytest.mark.parametrize("value", ["", "x", "A" * 43, "' or 1=1 --", "a" * 100_0])
def test_an_invented_cookie_is_no_session(common: Page, value: str) -> None:
    assert guarded.get(f"{common.url}api/worklist", headers={"Cookie": f"session={value}"}).status_code == 401


# ---- the end of a session


def test_a_log_out_ends_the_session_for_every_copy_of_its_cookie(browser: Browser, journal: Journal) -> None:
    browser.log_in()
    stolen = {"session": browser.cookies["session"]}
    answer = browser.post("/logout", data={"csrf": browser.cookies["csrf"]})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert answer.headers["clear-site-data"] == '"cache"'
    assert "session" not in browser.cookies
    assert "csrf" not in browser.cookies
    assert guarded.get(f"{browser.base_url}api/worklist", cookies=stolen).status_code == 401
    assert told(journal) == [("Login", "reader", 0, "by password"), ("Logout", "reader", 0, "by the user")]


def test_one_can_log_out_without_javascript(visitor: Browser) -> None:
    visitor.log_in()
    inside = visitor.get("/login?next=/")
    assert "You are logged in as reader" in inside.text
    token = re.findall(r'name="csrf" value="([^"]+)"', inside.text)[-1]
    assert visitor.post("/logout", data={"csrf": token}).status_code == 303
    assert visitor.get("/api/worklist").status_code == 401


def test_a_session_survives_a_restart_of_the_desk(settings: Settings, journal: Journal) -> None:
    with served(settings, journal) as page, Browser(page) as browser:
        browser.log_in()
        cookies, port = dict(browser.cookies), page.port
    again = Journal(journal.state_dir, "desk")
    with served(settings, again, port=port) as page:
        assert guarded.get(f"{page.url}session", cookies=cookies).json()["name"] == "reader"
    again.close()


def aged(journal: Journal, *, begun_s: float = 0.0, used_s: float = 0.0) -> None:
    with journal.writing() as database:
        database.conn.execute("update sessions set begun_at = begun_at - ?, used_at = used_at - ?", (begun_s, used_s))


def test_a_session_that_nobody_uses_ends_and_says_why(browser: Browser, journal: Journal) -> None:
    browser.log_in()
    aged(journal, begun_s=1900, used_s=1790)
    assert browser.get("/api/worklist").status_code == 200
    aged(journal, used_s=20)
    answer = browser.get("/api/worklist")
    assert answer.status_code == 401
    assert answer.json()["error"] == "Log in first. The session has ended: not used for 30 min."
    assert browser.get("/api/worklist").status_code == 401
    assert told(journal)[1:] == [("Logout", "reader", 0, "not used for 30 min")]
    assert "Your session has ended: not used for 30 min." in browser.get("/login").text


def test_what_a_page_does_by_itself_is_no_use_of_a_session_and_what_a_person_does_is(
    browser: Browser, journal: Journal
) -> None:
    browser.log_in()
    for address in ("/api/worklist", "/api/status", "/session", f"{STUDY}/overview.png?width=100"):
        aged(journal, used_s=100)
        browser.get(address, headers={"Accept": "*/*"})
    (row,) = sessions.current(journal)
    assert row.used_at < time.time() - 300
    assert browser.say("/session/active").status_code == 204
    (row,) = sessions.current(journal)
    assert row.used_at > time.time() - 10
    aged(journal, used_s=100)
    browser.get(STUDY)
    (row,) = sessions.current(journal)
    assert row.used_at > time.time() - 10


def test_no_session_lasts_for_ever(browser: Browser, journal: Journal) -> None:
    browser.log_in()
    aged(journal, begun_s=12 * 3600)
    assert browser.get("/api/worklist").json()["error"].endswith("12 h have passed since the log-in.")


@pytest.mark.parametrize("change", ["another password", "no such user", "no password"])
def test_whoever_is_taken_out_of_the_configuration_is_out(
    settings: Settings, journal: Journal, tmp_path: Path, change: str
) -> None:
    with served(settings, journal) as page, Browser(page) as browser:
        browser.log_in()
        cookies = dict(browser.cookies)
    users = [user for user in guarded.USERS if user["name"] != "reader"]
    if change != "no such user":
        users.append(
            {"name": "reader", "role": "reader", "password_hash": HASHES["other"] if "another" in change else ""}
        )
    with served(guarded.settings(tmp_path, users=tuple(users)), journal) as page:
        answer = guarded.get(f"{page.url}session", cookies=cookies)
    assert answer.status_code == 401
    assert ("password was changed" if "another" in change else "not in the configuration") in answer.json()["error"]


def test_another_role_holds_at_once_for_open_sessions(settings: Settings, journal: Journal, tmp_path: Path) -> None:
    with served(settings, journal) as page, Browser(page) as browser:
        browser.log_in("chief")
        cookies = dict(browser.cookies)
    users = tuple({**user, "role": "reader"} for user in guarded.USERS)
    with served(guarded.settings(tmp_path, users=users), journal) as page:
        assert guarded.get(f"{page.url}session", cookies=cookies).json()["role"] == "reader"


def test_sessions_that_nobody_asks_for_are_ended_and_forgotten(settings: Settings, journal: Journal) -> None:
    with served(settings, journal) as page, Browser(page) as browser:
        browser.log_in()
    aged(journal, begun_s=3600, used_s=3600)
    let_in = gate.Gate(settings.web, journal)
    let_in.sweep()
    assert sessions.current(journal) == []
    assert told(journal)[-1] == ("Logout", "reader", 0, "not used for 30 min")
    assert sessions.was_here(journal, "reader", "127.0.0.1")
    with journal.writing() as database:
        database.conn.execute("update sessions set ended_at = ended_at - ?", (sessions.KEPT_S + 1,))
    let_in.sweep()
    assert not sessions.was_here(journal, "reader", "127.0.0.1")


def test_an_open_stream_ends_with_its_session(browser: Browser, journal: Journal) -> None:
    browser.log_in()
    (row,) = sessions.current(journal)
    with browser.stream("GET", "/events", headers={"Accept": "text/event-stream"}) as answer:
        lines = answer.iter_lines()
        assert next(line for line in lines if line.startswith("event: ")) != "event: ended"
        started = time.monotonic()
        assert sessions.end(journal, row.digest, "by an administrator", time.time())
        rest = list(lines)
        took_s = time.monotonic() - started
    assert rest[-3:-1] == ["event: ended", 'data: {"words": "by an administrator", "login": "/login"}']
    assert took_s < access.CHECK_S + 2
    assert browser.get("/events", headers={"Accept": "text/event-stream"}).status_code == 401


def test_an_open_stream_keeps_no_session_alive(browser: Browser, journal: Journal) -> None:
    browser.log_in()
    with browser.stream("GET", "/events", headers={"Accept": "text/event-stream"}) as answer:
        lines = answer.iter_lines()
        next(lines)
        aged(journal, begun_s=1900, used_s=1900)
        assert 'data: {"words": "not used for 30 min", "login": "/login"}' in list(lines)


# ---- requests that another page makes


def test_a_writing_request_needs_the_token_of_its_session(visitor: Browser, common: Page) -> None:
    visitor.log_in("chief")
    assert visitor.say("/api/requeue", json={}).status_code == 200
    for token in ("", "x", visitor.cookies["session"]):
        answer = visitor.say("/api/requeue", headers={"X-CSRF-Token": token}, json={})
        assert answer.status_code == 403, token
        assert "token of the page" in answer.json()["error"]
    with Browser(common) as other:
        other.log_in("other")
        assert visitor.say("/api/requeue", headers={"X-CSRF-Token": other.cookies["csrf"]}).status_code == 403


def test_a_token_that_somebody_planted_as_a_cookie_is_not_that_of_the_session(visitor: Browser) -> None:
    visitor.log_in("chief")
    planted = "A" * 43
    cookies = f"session={visitor.cookies['session']}; csrf={planted}"
    headers = {"Cookie": cookies, "X-CSRF-Token": planted, "Sec-Fetch-Site": "same-origin"}
    assert guarded.post(f"{visitor.base_url}api/requeue", headers=headers).status_code == 403


FOREIGN = (
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "http://127.0.0.1.evil.example"},
)


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_another_page_in_the_same_browser_writes_nothing_even_with_the_token(
    visitor: Browser, headers: dict[str, str]
) -> None:
    visitor.log_in("chief")
    if "Origin" in headers:
        del visitor.headers["Sec-Fetch-Site"]
    assert visitor.say("/api/requeue", headers=headers, json={}).status_code == 403
    assert visitor.say("/session/active", headers=headers).status_code == 403
    logged_in = visitor.post("/logout", data={"csrf": visitor.cookies["csrf"]}, headers=headers)
    assert logged_in.status_code == 403
    assert visitor.get("/session").status_code == 200


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_another_page_cannot_log_its_visitor_in(visitor: Browser, headers: dict[str, str]) -> None:
    if "Origin" in headers:
        del visitor.headers["Sec-Fetch-Site"]
    form = {"csrf": visitor.form_token(), "name": "other", "password": PASSWORDS["other"]}
    answer = visitor.post("/login", data=form, headers=headers)
    assert answer.status_code == 403
    assert "session" not in cookies_of(answer)
    forged = guarded.post(f"{visitor.base_url}login", data={"name": "other", "password": PASSWORDS["other"]})
    assert forged.status_code == 403


def test_without_users_another_page_writes_nothing_either(tmp_path: Path, journal: Journal) -> None:
    with served(Settings(folder=tmp_path), journal) as page, Browser(page) as browser:
        browser.get("/")
        assert browser.say("/api/requeue", json={}).status_code == 200
        assert browser.post("/api/requeue", json={}).status_code == 403
        for headers in FOREIGN:
            assert guarded.post(f"{page.url}api/requeue", headers=headers, content=b"{}").status_code == 403
            silent = {"X-CSRF-Token": browser.cookies["csrf"], "Cookie": f"csrf={browser.cookies['csrf']}", **headers}
            assert guarded.post(f"{page.url}api/requeue", headers=silent, json={}).status_code == 403, headers
        assert guarded.post(f"{page.url}api/requeue", json={}).status_code == 200, "a program on this machine"


# ---- where the log-in leads


@pytest.mark.parametrize(
    "wish",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "/%5Cevil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        " //evil.example",
        "javascript:alert(1)",
        "/a//evil.example",
        "/@evil.example",
        "/:80",
        "http:evil.example",
        "/" + "a" * 600,
        "/\r\nSet-Cookie: session=x",
        "/studies/１",
    ],
)
def test_the_log_in_leads_nowhere_else(visitor: Browser, wish: str) -> None:
    answer = visitor.log_in(next=wish)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert set(cookies_of(answer)) == {"session", "csrf", "login"}
    shown = visitor.get("/login", params={"next": wish})
    assert field(shown, "next") == "/"


@pytest.mark.parametrize("wish", ["/", STUDY, f"/#{SEVERE.study}", "/?filter=a%20b", "/static/page.css"])
def test_the_log_in_leads_back_to_where_one_wanted_to_go(visitor: Browser, wish: str) -> None:
    assert visitor.log_in(next=wish).headers["location"] == wish


# ---- roles


def test_a_reader_may_not_do_what_is_for_administrators_and_that_is_told(browser: Browser, journal: Journal) -> None:
    browser.log_in()
    for address in ("/api/requeue", "/api/anything/else"):
        answer = browser.say(address, json={})
        assert answer.status_code == 403
        assert answer.json()["error"].startswith("As a reader you may not ")
    assert told(journal, "Security Alert") == [
        ("Use of Restricted Function", "reader", 4, "POST /api/requeue"),
        ("Use of Restricted Function", "reader", 4, "POST /api/anything/else"),
    ]


def test_an_administrator_sends_results_again(visitor: Browser) -> None:
    visitor.log_in("chief")
    assert visitor.say("/api/requeue", json={"study": SEVERE.study}).json() == {"requeued": 0}
    for wrong, words in (
        ({"destination": "nowhere"}, "no such destination; configured are: none"),
        ({"studies": 1}, "each of which may be left out"),
        ({"study": 5}, "each of which may be left out"),
        ([], "not a JSON object"),
    ):
        answer = visitor.say("/api/requeue", json=wrong)
        assert answer.status_code == 400
        assert words in answer.json()["error"]


def test_destinations_are_shown_to_administrators_alone(tmp_path: Path, journal: Journal) -> None:
    chosen = guarded.settings(tmp_path).model_dump()
    chosen["destinations"] = ({"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 104},)
    seen = {}
    with served(Settings.model_validate({**chosen, "folder": tmp_path}), journal) as page:
        for name in ("reader", "chief"):
            with Browser(page) as browser:
                browser.log_in(name)
                seen[name] = [browser.get("/api/status").json(), status_of_stream(browser)]
    for facts in seen["chief"]:
        assert [one["name"] for one in facts["destinations"]] == ["pacs"]
    for facts in seen["reader"]:
        assert facts["destinations"] == []
        assert facts["deliveries"] == {}
        assert facts["studies"] == 12


def status_of_stream(browser: Browser) -> dict:
    with browser.stream("GET", "/events", headers={"Accept": "text/event-stream"}) as answer:
        lines = answer.iter_lines()
        found: dict = json.loads(next(line for line in lines if line.startswith("data: ")).removeprefix("data: "))
        return found.get("status", found)


# ---- programs


def test_a_program_sends_its_password_with_every_request(page: Page, journal: Journal) -> None:
    with httpx.Client(base_url=page.url, auth=("chief", PASSWORDS["chief"])) as program:
        assert program.get("/api/worklist").status_code == 200
        assert program.post("/api/requeue", json={}).status_code == 200
        assert program.get("/api/worklist").cookies == {}
    assert told(journal) == [("Login", "chief", 0, "by password, without a session")]
    assert sessions.current(journal) == []


def test_a_program_with_a_wrong_password_is_slowed_down_as_well(common: Page) -> None:
    statuses = [
        guarded.get(f"{common.url}api/worklist", auth=("chief", f"guess {number}")).status_code
        for number in range(throttle.PAIR.at_once + 1)
    ]
    assert statuses == [401] * throttle.PAIR.at_once + [429]


def test_a_program_is_asked_for_a_password_and_a_page_never_asks_by_the_browsers_own_window(visitor: Browser) -> None:
    asked = guarded.get(f"{visitor.base_url}api/worklist")
    assert asked.headers["www-authenticate"].startswith("Basic ")
    by_page = visitor.get("/api/worklist", headers={"Accept": "*/*", "Sec-Fetch-Mode": "cors"})
    assert "www-authenticate" not in by_page.headers


@pytest.mark.parametrize("value", ["Basic", "Basic !!!", "Basic /w==", "Bearer x"])
def test_a_senseless_authorization_is_no_user(common: Page, value: str) -> None:
    answer = guarded.get(f"{common.url}api/worklist", headers={"Authorization": value})
    assert answer.status_code in (400, 401)


# ---- what is told


def test_a_view_of_a_study_is_told_once_with_who_when_and_from_where(browser: Browser, journal: Journal) -> None:
    browser.log_in()
    before = journal.version()
    for address in (STUDY, f"/api/study/{SEVERE.study}", f"{STUDY}/overview.png", STUDY):
        browser.get(address)
    (row,) = audit.rows(journal, study=SEVERE.study)
    assert (row.event, row.user_name, row.role, row.address, row.outcome) == (
        "DICOM Instances Accessed",
        "reader",
        "reader",
        "127.0.0.1",
        0,
    )
    assert abs(row.at - time.time()) < 10
    assert journal.version() == before, "a look changes no list"


def test_a_thumbnail_belongs_to_the_list_and_an_image_in_full_is_a_view(browser: Browser, journal: Journal) -> None:
    browser.log_in()
    browser.get(f"{STUDY}/overview.png?width=160")
    assert told(journal, "DICOM Instances Accessed") == []
    assert told(journal, "Query") == [("", "reader", 0, "the reading list")]
    browser.get(f"{STUDY}/overview.png?width=1024")
    assert len(told(journal, "DICOM Instances Accessed")) == 1


def test_no_way_of_writing_a_width_makes_a_large_image_a_thumbnail(browser: Browser, journal: Journal) -> None:
    browser.log_in()
    assert browser.get(f"{STUDY}/overview.png?width=000160999999").status_code == 400
    assert browser.get(f"{STUDY}/overview.png?width=160&width=1024").status_code == 200
    assert len(told(journal, "DICOM Instances Accessed")) == 1


def test_the_numbers_of_a_study_are_a_view_of_it(browser: Browser, journal: Journal) -> None:
    browser.log_in()
    assert browser.get(f"/api/place/{SEVERE.study}").status_code == 200
    (row,) = audit.rows(journal, study=SEVERE.study)
    assert (row.event, row.user_name) == ("DICOM Instances Accessed", "reader")


def test_a_new_log_in_is_a_new_view(browser: Browser, journal: Journal) -> None:
    for _ in range(2):
        browser.log_in()
        browser.get(STUDY)
    assert len(audit.rows(journal, study=SEVERE.study)) == 2


def test_a_study_that_is_not_there_has_no_view(browser: Browser, journal: Journal) -> None:
    browser.log_in()
    assert browser.get("/studies/1.2.3").status_code == 404
    assert told(journal, "DICOM Instances Accessed") == []


def test_an_audit_that_cannot_be_written_keeps_nobody_from_a_study(
    browser: Browser, journal: Journal, capsys: pytest.CaptureFixture[str]
) -> None:
    browser.log_in()
    with journal.writing() as database:
        database.conn.execute("alter table audit rename to elsewhere")
    assert browser.get(STUDY).status_code == 200
    said = capsys.readouterr().out
    assert "DICOM Instances Accessed" in said
    assert "in the log alone" in said


def test_a_journal_that_cannot_be_read_lets_nobody_in(browser: Browser, journal: Journal) -> None:
    browser.log_in()
    with journal.writing() as database:
        database.conn.execute("alter table sessions rename to elsewhere")
    answer = browser.get("/api/worklist")
    assert answer.status_code == 503
    assert "the journal cannot be read" in answer.json()["error"]
