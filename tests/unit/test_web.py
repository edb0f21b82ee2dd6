"""The worklist page's answers, from a real journal."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import json
import re
import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING

import httpx
import pytest
from PIL import Image

from tests import filed, guarded, judged, worklists
from tests.unit import results_cases
from tests.worklists import TWELVE, Case
from triage_node import __version__, frontal
from triage_node.config import Settings, WorklistSection
from triage_node.journal import Journal, queue, workitems
from triage_node.web import Page, feed, serve
from triage_node.web.facts import strategy_words
from triage_node.web.routes import STATIC

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SEVERE = TWELVE[5]
REFUSED = TWELVE[3]
WAITING = TWELVE[-1]


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
    return Settings(folder=tmp_path)


@pytest.fixture
def page(settings: Settings, journal: Journal) -> Iterator[Page]:
    page = Page(settings, journal, port=0)
    page.start()
    yield page
    page.stop()


@pytest.fixture
def client(page: Page) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=page.url) as client:
        yield client


# ---- the list and the studies as JSON


def test_the_list_is_the_one_of_the_command_line_in_reading_order(client: httpx.Client) -> None:
    studies = client.get("/api/worklist").json()
    assert [study["rank"] for study in studies] == list(range(1, 13))
    assert studies[0]["accession_number"] == SEVERE.accession_number
    assert studies[0]["reading_priority"] == "HIGH"
    assert {study["state"] for study in studies} == {"waiting", "judged", "not_analysed"}


def test_a_study_tells_its_series_measurements_objects_and_events(client: httpx.Client) -> None:
    report = client.get(f"/api/study/{SEVERE.study}").json()
    assert report["measurements"]["right"]["affected_fraction"] == pytest.approx(0.62)
    assert {entry["kind"] for entry in report["objects"]} == {"report", "lesions", "lungs", "overview"}
    assert report["events"][-1]["event"] == "study judged"


def test_an_unknown_study_is_answered_with_words(client: httpx.Client) -> None:
    answer = client.get("/api/study/1.2.3")
    assert answer.status_code == 404
    assert answer.json() == {"error": "no study 1.2.3 is known to this node"}
    assert client.get("/studies/1.2.3").status_code == 404


def test_the_status_names_the_node_its_rules_and_its_version(client: httpx.Client) -> None:
    status = client.get("/api/status").json()
    assert status["version"] == __version__
    assert status["ae_title"] == "TRIAGE"
    assert status["intake"] == {"host": "127.0.0.1", "port": 11112}
    assert status["studies"] == 12
    assert status["jobs"] == {"done": 10, "queued": 2}
    assert status["notice"] == "NOT FOR DIAGNOSTIC USE"


STRATEGIES = {
    "identification": "HIGH from 50%, MEDIUM from 20% on, by probability of COVID-19.",
    "severity": "HIGH from 50%, MEDIUM from 12.5% on, by affected fraction of the worse lung; LOW where",
    "combined": "The higher of the two counts.",
}
THRESHOLDS = {"probability_high": 0.5, "probability_medium": 0.2, "fraction_high": 0.5, "fraction_medium": 0.125}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_strategy_is_explained_with_its_own_thresholds(strategy: str) -> None:
    rules = {"strategy": strategy, "max_wait_min": 90.0, **THRESHOLDS}
    sentences = strategy_words(WorklistSection.model_validate(rules))
    assert any(STRATEGIES[strategy] in sentence for sentence in sentences)
    assert any("90 min" in sentence for sentence in sentences)
    assert not any("model card" in sentence or "name the thresholds" in sentence for sentence in sentences)


def test_thresholds_that_are_left_to_the_model_card_are_not_given_numbers() -> None:
    sentences = " ".join(strategy_words(WorklistSection(probability_high=0.62)))
    assert "HIGH from 62%, MEDIUM from the threshold of the model card on, by probability of COVID-19." in sentences
    assert "The reasons of each study name the thresholds that gave it its level." in sentences


# ---- claims


def state_of(client: httpx.Client, case: Case) -> tuple[str, int]:
    found = client.get(f"/api/place/{case.study}").json()
    return found["state"], found["rank"]


def test_a_study_is_claimed_released_and_finished(client: httpx.Client, journal: Journal) -> None:
    before = state_of(client, SEVERE)
    assert client.post(f"/api/study/{SEVERE.study}/claim").status_code == 200
    assert state_of(client, SEVERE) == ("reading", 1)
    assert workitems.claims(journal)[SEVERE.study].performer == "local"
    assert client.post(f"/api/study/{SEVERE.study}/release").status_code == 200
    assert state_of(client, SEVERE) == before
    assert client.post(f"/api/study/{SEVERE.study}/finish").status_code == 200
    assert state_of(client, SEVERE) == ("read", 12)
    assert [row["event"] for row in client.get(f"/api/study/{SEVERE.study}").json()["events"]][-1] == "reading finished"


def test_what_somebody_else_reads_is_refused_in_words_and_given_to_an_administrator_who_insists(
    client: httpx.Client, journal: Journal
) -> None:
    workitems.claim(journal, SEVERE.study, "anna", time.time())
    for action in ("claim", "release", "finish"):
        answer = client.post(f"/api/study/{SEVERE.study}/{action}", json={"force": False})
        assert answer.status_code == 409
        assert "being read by anna since" in answer.json()["error"] or action == "claim"
    assert client.post(f"/api/study/{SEVERE.study}/release").json()["may_force"] is True
    assert client.post(f"/api/study/{SEVERE.study}/release", json={"force": True}).status_code == 200
    assert SEVERE.study not in workitems.claims(journal)


def test_a_reader_cannot_take_what_another_reads(tmp_path: Path, journal: Journal) -> None:
    workitems.claim(journal, SEVERE.study, "anna", time.time())
    with guarded.served(guarded.settings(tmp_path), journal) as page, guarded.Browser(page) as browser:
        browser.log_in("reader")
        answer = browser.say(f"/api/study/{SEVERE.study}/release", json={"force": True})
        assert (answer.status_code, answer.json()["may_force"]) == (409, False)
        assert browser.say(f"/api/study/{TWELVE[0].study}/claim").status_code == 200
    assert {uid: one.performer for uid, one in workitems.claims(journal).items()} == {
        SEVERE.study: "anna",
        TWELVE[0].study: "reader",
    }


def test_the_next_study_is_the_first_that_nobody_reads(client: httpx.Client, journal: Journal) -> None:
    order = [study["study_instance_uid"] for study in client.get("/api/worklist").json()]
    workitems.claim(journal, order[0], "anna", time.time())
    claimed = [client.post("/api/claims/next").json()["study_instance_uid"] for _ in range(11)]
    assert claimed[0] == order[1]
    assert sorted(claimed) == sorted(order[1:])
    answer = client.post("/api/claims/next")
    assert (answer.status_code, "being read or has been read" in answer.json()["error"]) == (404, True)


def test_several_readers_who_ask_at_once_get_different_studies(client: httpx.Client) -> None:
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: client.post("/api/claims/next"), range(6)))
    # one user may claim a study twice; the journal gives each study away once
    assert {answer.status_code for answer in answers} == {200}
    assert [state for state in (study["state"] for study in client.get("/api/worklist").json()) if state == "reading"]


def test_senseless_claims_are_refused_with_words(client: httpx.Client) -> None:
    answer = client.post("/api/study/1.2.3/claim")
    assert (answer.status_code, answer.json()["error"]) == (404, "no study 1.2.3 is known to this node")
    for body in (b"[]", b"nonsense", b'{"force": 1}', b'{"by": "anna"}', b" " * 2000):
        assert client.post(f"/api/study/{SEVERE.study}/release", content=body).status_code == 400


def test_the_place_of_a_study_is_explained(client: httpx.Client) -> None:
    found = client.get(f"/api/place/{SEVERE.study}").json()
    assert found["rank"] == 1
    assert any("71% of the left lung affected" in reason for reason in found["reasons"])
    assert client.get("/api/place/1.2.3").status_code == 404


# ---- slices


def test_slices_come_as_png_and_json_under_a_token(client: httpx.Client, journal: Journal, tmp_path: Path) -> None:
    while (job := queue.claim(journal, "other", 1.0)) is not None:  # the two that wait
        assert queue.finish(journal, job, "other", filed.result(job, refusal="not of interest here"), (), 1.0)
    study = judged.put(journal, results_cases.build(tmp_path / "series"), time.time())
    facts = client.get(f"/studies/{study}/slices").json()
    address = f"/studies/{study}/slices/{facts['token']}/{facts['worst']}"
    picture = client.get(f"{address}.png", params={"window": "bone"})
    assert (picture.headers["content-type"], picture.headers["cache-control"]) == ("image/png", "no-store")
    assert Image.open(BytesIO(picture.content)).size == (facts["columns"], facts["rows"])
    assert "lesion" in client.get(f"{address}.json").json()
    assert client.get(f"{address}.png", params={"window": "liver"}).status_code == 400
    for wrong in (f"{facts['token']}/99", "other/1"):
        for kind in ("png", "json"):
            assert client.get(f"/studies/{study}/slices/{wrong}.{kind}").status_code == 404
    assert client.get(f"/studies/{WAITING.study}/slices").status_code == 404


# ---- the overview image


def test_the_overview_comes_as_a_png_of_the_asked_width(client: httpx.Client) -> None:
    full = client.get(f"/studies/{SEVERE.study}/overview.png")
    assert full.headers["content-type"] == "image/png"
    assert Image.open(BytesIO(full.content)).size == (480, 400)
    small = client.get(f"/studies/{SEVERE.study}/overview.png?width=120")
    assert Image.open(BytesIO(small.content)).size == (120, 100)


def test_the_overview_shows_the_pixels_of_the_dicom_file(client: httpx.Client) -> None:
    image = Image.open(BytesIO(client.get(f"/studies/{SEVERE.study}/overview.png").content))
    assert image.getpixel((0, 0)) == (0, 60, 60)
    assert image.getpixel((479, 399)) == (200, 60, 60)


def test_the_frontal_projection_comes_alone_and_as_large_as_it_is_drawn(client: httpx.Client) -> None:
    address = f"/studies/{SEVERE.study}/overview.png"
    image = Image.open(BytesIO(client.get(address, params={"part": "frontal"}).content))
    scale = 480 / frontal.SIZE
    assert image.size == (round(scale * frontal.WIDTH), round(scale * frontal.HEIGHT))
    whole = Image.open(BytesIO(client.get(address).content))
    assert image.getpixel((0, 0)) == whole.getpixel((round(scale * frontal.LEFT), round(scale * frontal.TOP)))
    assert client.get(address, params={"part": "table"}).status_code == 400


def test_an_overview_that_has_not_changed_is_not_sent_again(client: httpx.Client) -> None:
    address = f"/studies/{SEVERE.study}/overview.png?width=120"
    tag = client.get(address).headers["etag"]
    again = client.get(address, headers={"If-None-Match": tag})
    assert again.status_code == 304
    assert again.content == b""


def test_a_new_answer_brings_a_new_overview(client: httpx.Client, journal: Journal) -> None:
    address = f"/studies/{SEVERE.study}/overview.png"
    tag = client.get(address).headers["etag"]
    now = time.time()
    while (job := queue.claim(journal, "other", now)) is not None:  # the two that wait
        assert queue.finish(journal, job, "other", filed.result(job, refusal="not of interest here"), (), now)
    late = filed.header(SEVERE.study, f"{SEVERE.study}.1", 99)
    filed.arrive(journal, late, now=now)
    filed.close_all(journal, now)
    worklists.judge_next(journal, {SEVERE.study: SEVERE}, now)
    answer = client.get(address, headers={"If-None-Match": tag})
    assert answer.status_code == 200
    assert answer.headers["etag"] != tag


@pytest.mark.parametrize("case", [REFUSED, WAITING, Case(accession_number="unknown")])
def test_a_study_without_an_overview_says_so(client: httpx.Client, case: Case) -> None:
    answer = client.get(f"/studies/{case.study}/overview.png")
    assert answer.status_code == 404
    assert "there is no overview image" in answer.text


def test_an_overview_that_is_gone_or_broken_is_answered_with_words(client: httpx.Client, journal: Journal) -> None:
    (file,) = (journal.state_dir / "results" / SEVERE.study).glob("*overview.dcm")
    file.write_bytes(b"not an image")
    assert "cannot be read" in client.get(f"/studies/{SEVERE.study}/overview.png").text
    file.unlink()
    answer = client.get(f"/studies/{SEVERE.study}/overview.png")
    assert (answer.status_code, answer.text) == (404, "the overview image is no longer on disk\n")


@pytest.mark.parametrize("width", ["0", "-5", "99999", "1e3", "１２０", "", "000160999999", "0000160"])
def test_a_senseless_width_is_refused(client: httpx.Client, width: str) -> None:
    answer = client.get(f"/studies/{SEVERE.study}/overview.png", params={"width": width})
    assert answer.status_code == 400
    assert "from 16 to 4096" in answer.text


# ---- what a browser is told


def test_every_answer_forbids_what_the_page_does_not_need(client: httpx.Client) -> None:
    for address in ("/", "/api/worklist", "/static/page.js", "/nowhere", f"/studies/{SEVERE.study}/overview.png"):
        headers = client.get(address).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"


def test_the_page_has_no_inline_script_or_style_and_names_no_other_host(client: httpx.Client) -> None:
    files = [client.get("/").text, *(file.read_text() for file in STATIC.iterdir() if file.suffix != ".svg")]
    for text in files:
        assert "http://" not in text.replace('"http://www.w3.org/2000/svg"', "")  # a name, which nobody asks for
        assert "https://" not in text
        assert "innerHTML" not in text
        assert "<style" not in text
        assert "style=" not in text


def test_every_key_is_explained(client: httpx.Client) -> None:
    program = (STATIC / "page.js").read_text()
    keys = set(re.findall(r'^    "?([\w/?+-]+)"?: (?:\(\) =>|help)', program, re.MULTILINE))
    assert {"n", "w", "ArrowDown", "/", "?", "+", "1"} <= keys
    explained = client.get("/").text.partition('<dialog id="keys"')[2].partition("</dialog>")[0]
    names = {"ArrowDown": "&darr;", "ArrowUp": "&uarr;", "PageDown": "Page Down", "PageUp": "Page Up", "Escape": "Esc"}
    missing = [key for key in keys - {"?"} if f"<kbd>{names.get(key, key)}</kbd>" not in explained]
    assert missing == []


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "[::1]:8080", "LOCALHOST"])
def test_this_machine_may_ask(client: httpx.Client, host: str) -> None:
    assert client.get("/api/status", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8080", "localhost.evil.example", ""])
def test_a_page_under_another_name_may_not(client: httpx.Client, host: str) -> None:
    answer = client.get("/api/worklist", headers={"Host": host})
    assert answer.status_code == 400
    assert SEVERE.accession_number not in answer.text


def test_nothing_can_be_written(client: httpx.Client) -> None:
    assert client.post("/api/worklist").status_code == 405
    assert client.delete(f"/api/study/{SEVERE.study}").status_code == 405


@pytest.mark.parametrize("address", ["/static/../routes.py", "/static/%2e%2e/routes.py", "/static/%2e%2e%2froutes.py"])
def test_no_address_leads_out_of_the_static_folder(page: Page, address: str) -> None:
    with socket.create_connection(("127.0.0.1", page.port)) as raw:
        raw.sendall(f"GET {address} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: raw.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 404")


def test_hostile_text_stays_data(client: httpx.Client, journal: Journal) -> None:
    case = replace(WAITING, accession_number="X1", description="</script><img src=x onerror=alert(1)>")
    worklists.arrive(journal, case, time.time())
    assert case.description not in client.get("/").text
    assert case.description not in client.get(f"/studies/{case.study}").text
    answer = client.get("/api/worklist")
    assert answer.headers["content-type"] == "application/json"
    assert case.description in {study["description"] for study in answer.json()}


# ---- health


def test_a_healthy_page_says_ok(client: httpx.Client) -> None:
    answer = client.get("/health")
    assert (answer.status_code, answer.text) == (200, "ok\n")


def test_an_unreadable_journal_is_an_answer_and_not_a_traceback(client: httpx.Client, journal: Journal) -> None:
    with journal.writing() as database:
        database.conn.execute("alter table events rename to elsewhere")
        database.conn.execute("alter table studies rename to nowhere")
    assert client.get("/health").status_code == 503
    answer = client.get("/api/worklist")
    assert answer.status_code == 503
    assert "the journal cannot be read" in answer.json()["error"]


# ---- the stream of events


@contextmanager
def listening(page: Page) -> Iterator[Iterator[tuple[str, dict[str, object]]]]:
    """The events of one open page: name and data."""

    def events(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, object]]]:
        name = ""
        for line in lines:
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield name, json.loads(line.removeprefix("data: "))

    with httpx.stream("GET", f"{page.url}events", timeout=15.0) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield events(answer.iter_lines())


def test_an_open_page_gets_status_and_list_and_then_what_changes(page: Page, journal: Journal) -> None:
    with listening(page) as events:
        assert next(events)[0] == "status"
        name, first = next(events)
        assert name == "list"
        assert len(first["studies"]) == 12
        worklists.judge_next(journal, {TWELVE[-2].study: replace(TWELVE[-2], right=0.99)}, time.time())
        changed = next(data["changed"] for name, data in events if name == "change" and data["changed"])
    (values,) = changed
    study = dict(zip(first["fields"], values, strict=True))
    assert study["accession_number"] == TWELVE[-2].accession_number
    assert study["affected_fraction_right"] == pytest.approx(0.99)


def test_a_browser_that_reconnects_is_told_what_it_has_missed(page: Page, journal: Journal) -> None:
    with httpx.stream("GET", f"{page.url}events", timeout=15.0) as answer:
        lines = answer.iter_lines()
        heard = next(line.removeprefix("id: ") for line in lines if line.startswith("id: "))
        workitems.claim(journal, SEVERE.study, "anna", time.time())
        for ask in ({"headers": {"Last-Event-ID": heard}}, {"params": {"heard": heard}}):
            with httpx.stream("GET", f"{page.url}events", timeout=15.0, **ask) as again:
                event = next(line for line in again.iter_lines() if line.startswith("event: "))
            assert event in ("event: change", "event: status")


def test_all_open_pages_are_told_the_same_and_the_list_is_computed_once(
    page: Page, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = []
    original = feed.Feed._read
    monkeypatch.setattr(feed.Feed, "_read", lambda self, at: computed.append(at) or original(self, at))
    with listening(page) as one, listening(page) as two, listening(page) as three:
        pages = (one, two, three)
        for events in pages:
            assert next(name for name, _ in events if name == "list")
        computed.clear()
        worklists.arrive(journal, Case(accession_number="new", right=0.5), time.time())
        told = [next(data for name, data in events if name == "change" and data["changed"]) for events in pages]
    assert told[0] == told[1] == told[2]
    assert len(computed) == len(set(computed))


def test_a_journal_that_cannot_be_read_is_told_to_open_pages(page: Page, journal: Journal) -> None:
    with listening(page) as events:
        assert any(name == "list" for name, _ in events)
        with journal.writing() as database:
            database.conn.execute("alter table events rename to elsewhere")
        words = next(data["words"] for name, data in events if name == "trouble")
        assert "the journal cannot be read" in str(words)
        with journal.writing() as database:
            database.conn.execute("alter table elsewhere rename to events")
        assert any(name == "change" for name, _ in events)


def test_nothing_is_computed_while_no_page_is_open(settings: Settings, journal: Journal) -> None:
    looked = []

    class Watched(feed.Feed):
        async def _look(self) -> float:
            looked.append(1)
            return await super()._look()

    async def wait() -> None:
        async with Watched(journal, settings, poll_s=0.01).running():
            await asyncio.sleep(0.2)

    asyncio.run(wait())
    assert looked == []


# ---- listening and stopping


def test_a_port_in_use_is_a_clear_error_before_anything_starts(settings: Settings, journal: Journal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        page = Page(settings, journal, port=port)
        with pytest.raises(OSError, match=f"the page cannot listen on 127.0.0.1 port {port}") as raised:
            page.start()
    assert raised.value.errno == errno.EADDRINUSE
    assert "[web]" in str(raised.value.strerror)
    assert not page.running
    page.stop()


def test_it_stops_within_a_second_with_streams_open_and_frees_its_port(settings: Settings, journal: Journal) -> None:
    page = Page(settings, journal, port=0)
    page.start()
    with listening(page) as one, listening(page) as two:
        for events in (one, two):
            assert any(name == "list" for name, _ in events)
        started = time.monotonic()
        page.stop()
        took_s = time.monotonic() - started
        assert list(one) == list(two) == []
    assert not page.running
    assert took_s < 1.0
    again = Page(settings, journal, port=page.port)
    again.start()
    assert httpx.get(f"{again.url}health").text == "ok\n"
    again.stop()


def test_serving_ends_when_it_is_told_to(settings: Settings, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    started: list[Page] = []
    original = Page.start
    monkeypatch.setattr(Page, "start", lambda page: (started.append(page), original(page)))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    chosen = settings.model_copy(update={"web": settings.web.model_copy(update={"port": port})})
    thread = threading.Thread(target=serve, args=(chosen, journal, stop))
    thread.start()
    deadline = time.monotonic() + 5
    while not (started and started[0].running) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    stop.set()
    thread.join(3.0)
    assert not thread.is_alive()


def test_a_stop_amid_a_flood_of_connections_leaves_nothing_open(settings: Settings, journal: Journal) -> None:
    page = Page(settings, journal, port=0)
    page.start()
    opened: list[socket.socket] = []

    def flood() -> None:
        with contextlib.suppress(OSError):
            while True:
                opened.append(socket.create_connection(("127.0.0.1", page.port), timeout=1.0))
                opened[-1].sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
                time.sleep(0.002)

    thread = threading.Thread(target=flood)
    thread.start()
    time.sleep(0.2)
    page.stop()
    thread.join()
    for one in opened:
        one.close()
    gc.collect()  # an unclosed transport warns when it is collected, and warnings are errors
    assert len(opened) > 1
    assert not page.running
