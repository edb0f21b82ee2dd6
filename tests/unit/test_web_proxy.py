"""A reverse proxy that says who asks: real connections from the proxy's address and from others."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests import guarded, peers
from tests.guarded import AUTHORITIES, PASSWORDS, served
from triage_node.journal import Journal, audit, sessions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from triage_node.web import Page

PROXY = "127.0.0.2"  # every address of 127/8 is this machine's
NAMED = ({"name": "doe", "role": "administrator"}, {"name": "roe"})


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path, "test")
    yield journal
    journal.close()


@pytest.fixture
def page(tmp_path: Path, journal: Journal) -> Iterator[Page]:
    chosen = guarded.settings(tmp_path, users=(*guarded.USERS, *NAMED), proxy_addresses=(PROXY,))
    with served(chosen, journal) as page:
        yield page


def asking(page: Page, *, by: str = PROXY, user: str | None = None, **headers: str) -> httpx.Client:
    """A client that connects from the address `by`; `user` is what stands in the proxy's header."""
    named: dict[str, Any] = {} if user is None else {"X-Remote-User": user}
    transport = httpx.HTTPTransport(local_address=by, verify=AUTHORITIES)
    return httpx.Client(base_url=page.url, transport=transport, headers={**named, **headers}, timeout=20.0)


def test_whom_the_proxy_names_is_let_in_with_the_role_that_is_listed(page: Page, journal: Journal) -> None:
    forwarded = {"X-Forwarded-For": "192.0.2.7"}
    for name, role in (("doe", "administrator"), ("roe", "reader"), ("reader", "reader")):
        with asking(page, user=name, **forwarded) as client:
            facts = client.get("/session").json()
            assert (facts["name"], facts["role"], facts["how"]) == (name, role, "proxy")
    rows = audit.rows(journal)
    assert [(row.user_name, row.kind, row.address) for row in rows] == [
        ("doe", "Login", "192.0.2.7"),
        ("roe", "Login", "192.0.2.7"),
        ("reader", "Login", "192.0.2.7"),
    ]
    assert sessions.current(journal) == []


def test_the_header_from_another_address_says_nothing(page: Page) -> None:
    """Header spoofing: whoever reaches the port himself writes what he likes."""
    for name in ("doe", "reader"):
        with asking(page, by="127.0.0.1", user=name, **{"X-Forwarded-For": PROXY}) as client:
            assert client.get("/api/worklist").status_code == 401
            assert client.get("/session").status_code == 401


def test_a_header_of_another_name_says_nothing(page: Page) -> None:
    for header in ("X-Remote-Users", "X_Remote_User", "Remote-User", "X-Forwarded-User"):
        with asking(page, **{header: "doe"}) as client:
            assert client.get("/session").status_code == 401, header


def test_a_proxy_that_adds_to_what_the_browser_sends_is_refused(page: Page) -> None:
    with asking(page) as client:
        answer = client.get("/session", headers=[("X-Remote-User", "doe"), ("X-Remote-User", "roe")])
    assert answer.status_code == 400
    assert "it must overwrite what the browser sends" in answer.text


def test_whom_nobody_has_listed_is_refused_with_what_to_do(page: Page, journal: Journal) -> None:
    with asking(page, user="stranger", Accept="text/html") as client:
        answer = client.get("/")
    assert answer.status_code == 403
    assert "the proxy says that you are 'stranger'" in answer.text
    assert 'set web.proxy_unlisted = "reader"' in answer.text
    (row,) = audit.rows(journal)
    assert (row.event, row.user_name, row.outcome) == ("Security Alert", "stranger", 4)


def test_whom_nobody_has_listed_is_a_reader_where_that_is_configured(tmp_path: Path, journal: Journal) -> None:
    chosen = guarded.settings(tmp_path, users=(), proxy_addresses=(PROXY,), proxy_unlisted="reader")
    with served(chosen, journal) as page:
        with asking(page, user="stranger") as client:
            assert client.get("/session").json()["role"] == "reader"
            assert client.post("/api/requeue", json={}).status_code == 403
        with asking(page, by="127.0.0.1", user="stranger", Accept="text/html") as client:
            assert client.get("/").headers["location"] == "/login?next=%2F"
            assert "ask for this page through the proxy" in client.get("/login").text


def test_a_browser_behind_the_proxy_writes_with_its_token_alone(page: Page) -> None:
    with asking(page, user="doe", Accept="text/html", **{"Sec-Fetch-Site": "same-origin"}) as client:
        token = client.get("/").cookies["csrf"]
        assert client.post("/api/requeue", json={}).status_code == 403
        assert client.post("/api/requeue", json={}, headers={"X-CSRF-Token": token}).status_code == 200
        foreign = {"X-CSRF-Token": token, "Sec-Fetch-Site": "cross-site"}
        assert client.post("/api/requeue", json={}, headers=foreign).status_code == 403


def test_what_the_proxy_says_goes_before_an_older_session(page: Page) -> None:
    with asking(page, by="127.0.0.1", Accept="text/html") as client:
        token = client.get("/login").cookies["login"]
        form = {"csrf": token, "name": "chief", "password": PASSWORDS["chief"]}
        cookie = client.post("/login", data=form).cookies["session"]
    with asking(page, user="roe", Cookie=f"session={cookie}") as client:
        assert client.get("/session").json()["name"] == "roe"


def test_without_tls_only_the_proxy_and_this_machine_are_answered(tmp_path: Path, journal: Journal) -> None:
    """A page on all interfaces: from elsewhere passwords would travel in the clear."""
    chosen = guarded.settings(tmp_path, host="0.0.0.0", proxy_addresses=(PROXY,))
    address = _own_address()
    with served(chosen, journal) as page:
        here = page.url.replace("0.0.0.0", address)
        assert guarded.get(f"{here}login").status_code == 403
        assert "reached through the proxy alone" in guarded.get(f"{here}login").text
        assert guarded.get(page.url.replace("0.0.0.0", "127.0.0.1")).status_code == 401


def _own_address() -> str:
    """An address of this machine that is not loopback; asked of the kernel, nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError as error:
            peers.missing(f"this machine has no address but loopback: {error}")
        return str(probe.getsockname()[0])
