"""Who may look, as rules without a server: rights, addresses, limits, endings."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from triage_node import audit, passwords
from triage_node.config import UserSection, WebSection
from triage_node.config.web import STATION_PREFIX
from triage_node.journal.sessions import SessionRow
from triage_node.ups import procedure_step
from triage_node.web import caller, forgery, looking, rights, session, throttle
from triage_node.web.login import next_page
from triage_node.web.rights import Right, Role, User

HASH = f"$argon2id$v=19$m=65536,t=3,p=4${'A' * 22}${'A' * 43}"
RULES = WebSection(users=(UserSection(name="a", password_hash=HASH),))
USER = RULES.users[0]
ROW = SessionRow(
    digest="d",
    user_name="a",
    password_mark=passwords.mark(HASH),
    address="10.0.0.1",
    begun_at=1000.0,
    used_at=1000.0,
    ended_at=None,
    ending=None,
)
READER, CHIEF = User(name="r", role=Role.READER), User(name="c", role=Role.ADMINISTRATOR)


# ---- rights


def test_an_administrator_may_everything_and_a_reader_reads_and_claims() -> None:
    assert {right for right in Right if READER.may(right)} == {Right.READ, Right.CLAIM}
    assert all(CHIEF.may(right) for right in Right)


@pytest.mark.parametrize("address", ["/login", "/health", "/static/page.css"])
def test_what_needs_no_user_is_a_short_list(address: str) -> None:
    assert rights.needed("GET", address) is None


@pytest.mark.parametrize(
    "address", ["/", "/login/", "/login/x", "/healthy", "/static", "/static/", "/static/../x", "/static/a/b", "/Login"]
)
def test_what_only_looks_like_it_needs_a_user(address: str) -> None:
    assert rights.needed("GET", address) is Right.READ


@given(st.sampled_from(["POST", "PUT", "PATCH", "DELETE", "MKCOL", "get"]), st.text(max_size=30))
def test_an_address_that_nobody_has_thought_of_is_written_to_by_administrators_alone(method: str, path: str) -> None:
    assert rights.needed(method, f"/api/new{path}") is Right.ADMINISTER
    assert not READER.may(Right.ADMINISTER)


@pytest.mark.parametrize("action", ["claim", "release", "finish"])
def test_readers_claim_release_and_finish(action: str) -> None:
    assert rights.needed("POST", f"/api/study/1.2.3/{action}") is Right.CLAIM
    assert rights.needed("POST", f"/api/study/1.2.3/{action}/more") is Right.ADMINISTER


# ---- who is at the other end

PROXIES = caller.networks(WebSection(proxy_addresses=("10.0.0.5", "10.1.0.0/16", "fd00::/64"), proxy_unlisted="reader"))


def asked(peer: str, *headers: tuple[str, str]) -> caller.Caller:
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    return caller.caller(peer, Headers(raw=raw), PROXIES, "X-Remote-User")


@pytest.mark.parametrize("peer", ["10.0.0.5", "10.1.255.255", "fd00::7", "::ffff:10.0.0.5"])
def test_a_trusted_proxy_says_who_asks_and_from_where(peer: str) -> None:
    found = asked(peer, ("X-Remote-User", "doe"), ("X-Forwarded-For", "192.0.2.7"))
    assert (found.by_proxy, found.user, found.address) == (True, "doe", "192.0.2.7")


@pytest.mark.parametrize("peer", ["10.0.0.6", "127.0.0.1", "fd00:0:0:1::7", "::ffff:10.0.0.6", "", "10.0.0.5.evil"])
def test_from_elsewhere_the_headers_say_nothing(peer: str) -> None:
    found = asked(peer, ("X-Remote-User", "chief"), ("X-Forwarded-For", "10.0.0.5"))
    assert (found.by_proxy, found.user) == (False, None)
    assert found.address != "10.0.0.5" or peer.startswith("10.0.0.5")


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("1.1.1.1, 192.0.2.7", "192.0.2.7"),  # what the browser itself had written stands before
        ("192.0.2.7, 10.1.0.9", "192.0.2.7"),  # two proxies in a row
        ("2001:db8::1", "2001:db8::1"),
        ("unknown", "10.0.0.5"),
        ("192.0.2.7, nonsense", "10.0.0.5"),
        ("10.1.0.9", "10.0.0.5"),
        ("", "10.0.0.5"),
    ],
)
def test_the_address_of_the_browser_is_the_last_that_no_proxy_has(forwarded: str, address: str) -> None:
    assert asked("10.0.0.5", ("X-Forwarded-For", forwarded)).address == address


def test_two_names_are_one_too_many() -> None:
    with pytest.raises(caller.Spoofed, match="must overwrite what the browser sends"):
        asked("10.0.0.5", ("X-Remote-User", "chief"), ("x-remote-user", "doe"))


@pytest.mark.parametrize("name", ["a" * 65, "a\x07b", "a\u202eb", "AE X", " AE X"])
def test_a_name_that_cannot_be_one_is_refused(name: str) -> None:
    with pytest.raises(caller.Spoofed):
        asked("10.0.0.5", ("X-Remote-User", name.encode().decode("latin-1")))


def test_what_no_user_is_called_is_what_a_station_is_called() -> None:
    assert STATION_PREFIX == procedure_step.AE_PREFIX


@pytest.mark.parametrize(
    ("sent", "name"), [("", None), ("  ", None), (" doe ", "doe"), ("Müller", "Müller"), ("AEX", "AEX")]
)
def test_a_name_is_read_as_latin_1_or_as_utf_8(sent: str, name: str | None) -> None:
    assert asked("10.0.0.5", ("X-Remote-User", sent)).user == name
    assert asked("10.0.0.5", ("X-Remote-User", sent.encode().decode("latin-1"))).user == name


# ---- limits

LIMIT = throttle.Limit(at_once=3, every_s=10.0)


def test_a_bucket_holds_its_drops_and_leaks_steadily() -> None:
    bucket = throttle.Buckets(LIMIT)
    for _ in range(3):
        assert bucket.wait_s("a", 100.0) == 0
        bucket.add("a", 100.0)
    assert bucket.wait_s("a", 100.0) == pytest.approx(10.0)
    assert bucket.wait_s("a", 104.0) == pytest.approx(6.0)
    assert bucket.wait_s("a", 110.0) == 0
    bucket.add("a", 110.0)
    assert bucket.wait_s("a", 110.0) == pytest.approx(10.0)
    assert bucket.wait_s("a", 1e9) == 0


@given(
    st.lists(st.tuples(st.floats(0, 60), st.booleans()), min_size=1, max_size=60),
    st.integers(1, 5),
    st.floats(0.5, 20),
)
def test_never_more_attempts_than_the_limit_in_any_time(
    steps: list[tuple[float, bool]], at_once: int, every_s: float
) -> None:
    bucket, now, made = throttle.Buckets(throttle.Limit(at_once=at_once, every_s=every_s)), 0.0, []
    for pause, _ in steps:
        now += pause
        if bucket.wait_s("key", now) == 0:
            bucket.add("key", now)
            made.append(now)
    for index, start in enumerate(made):
        for later, end in enumerate(made[index:], start=1):
            assert later <= at_once + (end - start) / every_s + 1e-6


def test_a_clock_that_goes_back_gives_no_room() -> None:
    bucket = throttle.Buckets(LIMIT)
    for _ in range(3):
        bucket.add("a", 1000.0)
    assert bucket.wait_s("a", 10.0) > 0


def test_a_million_names_take_no_more_memory_than_none() -> None:
    limits = throttle.Throttle()

    def size() -> int:
        buckets = (limits._pairs, limits._addresses, limits._users)
        return sum(sys.getsizeof(table) for one in buckets for table in (one._levels, one._times))

    before = size()
    for number in range(100_000):
        limits.add(f"user {number}", f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", float(number) / 1000)
    assert size() == before
    assert before < 4_000_000


def test_others_elsewhere_do_not_keep_somebody_out_of_his_usual_place() -> None:
    limits = throttle.Throttle()
    for number in range(200):
        limits.add("reader", f"10.9.{number}.1", 0.0)
    assert limits.wait_s("reader", "10.0.0.7", 0.0, was_here=False) > 0
    assert limits.wait_s("reader", "10.0.0.7", 0.0, was_here=True) == 0


def test_a_host_with_a_whole_ipv6_network_is_one_place() -> None:
    limits = throttle.Throttle()
    for number in range(throttle.ADDRESS.at_once):
        limits.add(f"user {number}", f"2001:db8::{number:x}", 0.0)
    assert limits.wait_s("another", "2001:db8::ffff", 0.0, was_here=False) > 0
    assert limits.wait_s("another", "2001:db8:0:1::1", 0.0, was_here=False) == 0


def test_a_success_takes_back_its_own_drop_and_no_other() -> None:
    limits = throttle.Throttle()
    for _ in range(throttle.PAIR.at_once):
        limits.add("a", "10.0.0.1", 0.0)
    limits.succeeded("a", "10.0.0.1", 0.0)
    assert limits.wait_s("a", "10.0.0.1", 0.0, was_here=True) == 0
    limits.add("a", "10.0.0.1", 0.0)
    assert limits.wait_s("a", "10.0.0.1", 0.0, was_here=True) > 0


# ---- endings


def test_a_session_lasts_while_it_is_used_and_not_too_old() -> None:
    assert session.ending(ROW, USER, RULES, 1000.0 + 1799) is None
    assert session.ending(ROW, USER, RULES, 1000.0 + 1800) == "not used for 30 min"
    old = replace(ROW, used_at=1000.0 + 12 * 3600)
    assert session.ending(old, USER, RULES, 999.0 + 12 * 3600) is None
    assert session.ending(old, USER, RULES, 1000.0 + 12 * 3600) == "12 h have passed since the log-in"


def test_a_session_ends_with_its_user_or_his_password() -> None:
    assert session.ending(ROW, None, RULES, 1000.0) == "the user is not in the configuration any more"
    other = USER.model_copy(update={"password_hash": HASH.replace("m=65536", "m=65537")})
    assert session.ending(ROW, other, RULES, 1000.0) == "the password was changed"
    assert session.ending(replace(ROW, ended_at=1.0, ending="why"), USER, RULES, 1000.0) == "why"


@given(st.text(max_size=60))
def test_only_a_token_of_ours_has_a_digest(text: str) -> None:
    assert session.digest_of(text) is None or len(text) == 43
    token = session.new_token()
    assert session.digest_of(token) != session.digest_of(session.new_token())
    assert token not in str(session.digest_of(token))


def test_by_tls_the_cookie_has_a_name_that_no_other_host_can_set() -> None:
    assert session.cookie_name(RULES) == "session"
    assert session.cookie_name(RULES.model_copy(update={"certificate": "a", "key": "b"})) == "__Host-session"


def test_the_token_of_a_session_follows_from_it_and_does_not_give_it_away() -> None:
    token = session.new_token()
    assert forgery.token_of(token) == forgery.token_of(token)
    assert token not in forgery.token_of(token)
    assert not forgery.same("", "")
    assert not forgery.same(None, None)


# ---- looks

UID = "1.2.826.0.1"


@pytest.mark.parametrize(
    ("address", "study"),
    [
        ("/", None),
        ("/events", None),
        ("/api/worklist", None),
        ("/ups-rs/workitems", None),
        ("/ups-rs/subscribers/STATION", None),
        (f"/studies/{UID}/overview.png?width=160", None),
        (f"/studies/{UID}/overview.png?width=000160", None),
        (f"/studies/{UID}/overview.png?width=000160999999", UID),
        (f"/studies/{UID}/overview.png?width=0000160", UID),
        (f"/studies/{UID}/overview.png?width=160&width=1024", UID),
        (f"/studies/{UID}/overview.png?width=160&width=", UID),
        (f"/api/place/{UID}", UID),
        (f"/studies/{UID}/overview.png?width=160&part=frontal", None),
        (f"/studies/{UID}", UID),
        (f"/studies/{UID}/", UID),
        (f"/api/study/{UID}", UID),
        (f"/studies/{UID}/overview.png", UID),
        (f"/studies/{UID}/overview.png?width=1024", UID),
        (f"/studies/{UID}/overview.png?width=", UID),
        (f"/studies/{UID}/slices/abc/12.png", UID),
    ],
)
def test_what_shows_a_study_and_what_the_list(address: str, study: str | None) -> None:
    path, _, query = address.partition("?")
    found = looking.look(path, query)
    assert found is not None
    assert found.study == study


@pytest.mark.parametrize("address", ["/session", "/api/status", "/static/page.js", "/login", "/health"])
def test_what_shows_no_patient_is_no_look(address: str) -> None:
    assert looking.look(address, "") is None


def test_a_look_is_told_again_after_a_while_and_what_was_told_is_forgotten_in_the_end() -> None:
    told = audit.Told()
    assert told.again(("a",), 0.0)
    assert not told.again(("a",), audit.AGAIN_AFTER_S - 1)
    assert told.again(("b",), 1.0)
    assert told.again(("a",), audit.AGAIN_AFTER_S)
    for number in range(audit._KEPT + 10):
        told.again((str(number),), 2000.0)
    assert len(told._at) == audit._KEPT


# ---- where to go next


@given(st.text(max_size=40))
def test_the_next_page_is_always_one_of_ours(wish: str) -> None:
    found = next_page(f"/{wish}")
    assert found.startswith("/")
    assert "//" not in found.partition("?")[0].partition("#")[0]
    assert "\\" not in found
    assert found.isascii()
    assert found.isprintable()
