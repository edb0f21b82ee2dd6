"""UPS-RS: the reading worklist for programs that speak DICOMweb, over the wire."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from tests import programs
from tests.programs import DELIVERED
from tests.running import until
from tests.worklists import TWELVE
from triage_node.api import dicom_json, query
from triage_node.api.operation import BadRequest
from triage_node.journal import Journal, transitions, workitems
from triage_node.ups import procedure_step, values
from triage_node.ups.catalogue import Catalogue
from triage_node.ups.service import FILTERED, GLOBAL
from triage_node.workitem import EventKind, uid_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from triage_node.web import Page

SEVERE, WAITING = TWELVE[5].study, TWELVE[10].study
TRANSACTION = "2.25.4711"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled")
    programs.fill(folder)
    return folder


@pytest.fixture(scope="module")
def common(tmp_path_factory: pytest.TempPathFactory, filled: Path) -> Iterator[Page]:
    """For tests that change nothing."""
    folder = tmp_path_factory.mktemp("common")
    shutil.copytree(filled, folder, dirs_exist_ok=True)
    with programs.served(programs.settings(folder), folder) as page:
        yield page


@pytest.fixture
def reader(common: Page) -> Iterator[httpx.Client]:
    with programs.program(common) as client:
        yield client


@pytest.fixture
def page(tmp_path: Path, filled: Path) -> Iterator[Page]:
    shutil.copytree(filled, tmp_path, dirs_exist_ok=True)
    with programs.served(programs.settings(tmp_path), tmp_path) as page:
        yield page


@pytest.fixture
def own(page: Page) -> Iterator[httpx.Client]:
    with programs.program(page) as client:
        yield client


@pytest.fixture
def chief(page: Page) -> Iterator[httpx.Client]:
    with programs.program(page, "chief") as client:
        yield client


def said(answer: httpx.Response, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].split(";")[0] == "application/dicom+json"
    return answer.json()


def first(data: dict[str, Any], keyword: str) -> Any:
    """The first value of an attribute by keyword; not through pydicom, which objects to what some images say."""
    return data[f"{tag_for_keyword(keyword):08X}"]["Value"][0]


@contextmanager
def audited(page: Page) -> Iterator[Callable[..., list[Any]]]:
    """The journal of a page, to be asked in SQL."""
    journal = Journal(page._feed._journal.state_dir, "test")
    try:
        yield journal.rows
    finally:
        journal.close()


def of_study(client: httpx.Client, study: str) -> str:
    """The UID of a study's workitem, found by a search."""
    (one,) = said(client.get("/ups-rs/workitems", params={"StudyInstanceUID": study}))
    return str(first(one, "SOPInstanceUID"))


def state(wanted: str, transaction: str = TRANSACTION) -> dict[str, Any]:
    return {"00741000": {"vr": "CS", "Value": [wanted]}, "00081195": {"vr": "UI", "Value": [transaction]}}


# ---------------------------------------------------------------------- search


def test_a_search_lists_every_workitem_in_reading_order(reader: httpx.Client) -> None:
    found = said(reader.get("/ups-rs/workitems"))
    listed = [one["study_instance_uid"] for one in reader.get("/api/v1/worklist").json()["studies"]]
    assert [first(one, "StudyInstanceUID") for one in found] == listed
    levels = [first(one, "ScheduledProcedureStepPriority") for one in found]
    assert levels == sorted(levels, key=["HIGH", "MEDIUM", "LOW"].index)
    assert {first(one, "ProcedureStepState") for one in found} == {"SCHEDULED"}


def test_every_kind_of_matching_is_that_of_a_query_by_dicom(reader: httpx.Client) -> None:
    def studies(**parameters: str) -> set[str]:
        answer = reader.get("/ups-rs/workitems", params=parameters)
        return {first(one, "StudyInstanceUID") for one in said(answer)} if answer.status_code == 200 else set()

    everything = studies()
    assert len(everything) == len(TWELVE) + 1
    assert studies(**{"0020000D": SEVERE}) == studies(StudyInstanceUID=SEVERE) == {SEVERE}
    assert studies(StudyInstanceUID=f"{SEVERE},{WAITING},1.2") == {SEVERE, WAITING}
    assert studies(StudyInstanceUID=f"{SEVERE}\\{WAITING}") == {SEVERE, WAITING}
    assert studies(ScheduledProcedureStepPriority="HIGH") < everything
    assert studies(ProcedureStepState="COMPLETED") == set()
    assert studies(**{"ReferencedRequestSequence.AccessionNumber": "2026-00471*"}) == {
        case.study for case in TWELVE if case.accession_number.startswith("2026-00471")
    }
    assert studies(**{"00404018.00080100": "110005"}) == everything, "coded as an interpretation"
    assert studies(ScheduledProcedureStepStartDateTime="20200101-20210101") == set()
    assert studies(PatientName="doe*") == studies(PatientID="P-1") == {DELIVERED}
    assert studies(PatientName="*") == everything


def test_a_search_without_an_answer_has_no_content(reader: httpx.Client) -> None:
    answer = reader.get("/ups-rs/workitems", params={"StudyInstanceUID": "1.9.9"})
    assert (answer.status_code, answer.content) == (204, b"")


def test_pages_follow_each_other_and_a_warning_says_how_many_are_left(reader: httpx.Client) -> None:
    whole = [first(one, "SOPInstanceUID") for one in said(reader.get("/ups-rs/workitems"))]
    paged: list[str] = []
    for offset in range(0, len(whole), 5):
        answer = reader.get("/ups-rs/workitems", params={"limit": 5, "offset": offset})
        paged += [first(one, "SOPInstanceUID") for one in said(answer)]
        left = len(whole) - offset - 5
        expected = f"There are {left} additional results that can be requested." if left > 0 else None
        warned = answer.headers.get("warning")
        assert (expected is None) == (warned is None)
        if expected is not None and warned is not None:
            assert expected in warned
            assert warned.startswith("299 ")
    assert paged == whole


def test_the_images_and_attributes_that_nobody_asked_for_are_left_out(reader: httpx.Client) -> None:
    def attributes(**parameters: str) -> set[str]:
        (one,) = said(reader.get("/ups-rs/workitems", params={"StudyInstanceUID": DELIVERED, **parameters}))
        return set(one)

    images, study_id = "00404021", "00200010"
    assert images not in attributes()
    assert images in attributes(includefield="all")
    assert images in attributes(includefield=f"{study_id},InputInformationSequence")
    assert "00081195" in attributes(includefield="all"), "the attribute, always empty"
    (one,) = said(reader.get("/ups-rs/workitems", params={"StudyInstanceUID": DELIVERED, "includefield": "all"}))
    assert "Value" not in one["00081195"]


def test_fuzzy_matching_is_said_not_to_be_done(reader: httpx.Client) -> None:
    answer = reader.get("/ups-rs/workitems", params={"PatientName": "Dow^Jane", "fuzzymatching": "true"})
    assert answer.status_code == 204
    assert "Only literal matching has been performed" in answer.headers["warning"]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"NoSuchThing": "1"}, "'NoSuchThing' is no attribute"),
        ({"FFFFFFFF": "1"}, "is no attribute"),
        ({"limit": "-1"}, "limit is a number"),
        ({"offset": "x"}, "offset is a number"),
        ({"fuzzymatching": "maybe"}, "true or false"),
        ({"ScheduledProcedureStepStartDateTime": "yesterday"}, "cannot be matched on"),
        ({"ReferencedRequestSequence": "x"}, "is a sequence"),
        ({"PatientName.PatientID": "x"}, "only the last attribute"),
        ({"includefield": "NoSuchThing"}, "is no attribute"),
        ({"PatientSize": "abc"}, "PatientSize cannot be 'abc': that is no value of its kind (DS)"),
        ({"ReferencedFrameNumber": "one"}, "no value of its kind (IS)"),
        ({"PatientWeight": "1e9999999999999999999x"}, "no value of its kind (DS)"),
        ({"ReferencedRequestSequence": "", "ReferencedRequestSequence.AccessionNumber": "X"}, "not both"),
        ({"ReferencedRequestSequence.AccessionNumber": "X", "ReferencedRequestSequence": ""}, "not both"),
    ],
)
def test_a_search_that_cannot_be_understood_says_why(reader: httpx.Client, parameters: dict, words: str) -> None:
    answer = reader.get("/ups-rs/workitems", params=parameters)
    assert answer.status_code == 400
    assert words in answer.json()["error"]
    if not {"limit", "offset", "fuzzymatching", "includefield"} & set(parameters):
        filtered = ",".join(f"{name}={value}" for name, value in parameters.items())
        address = f"/ups-rs/workitems/{FILTERED}/subscribers/STATION"
        assert reader.post(address, params={"filter": filtered}).status_code == 400


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.text(max_size=12), st.text(max_size=12)), max_size=4), st.sampled_from(sorted({
    "PatientName", "ScheduledProcedureStepStartDateTime", "00404018.00080100", "StudyInstanceUID", "PatientBirthDate",
    "includefield", "limit", "PatientSize", "ReferencedRequestSequence", "ReferencedRequestSequence.AccessionNumber",
    "ReferencedFrameNumber", "FrameIncrementPointer", "SmallestImagePixelValue", "PixelData", "Rows",
})), st.text(max_size=20))  # fmt: skip
def test_no_parameter_does_anything_but_be_understood_or_refused(pairs: list, name: str, value: str) -> None:
    try:
        search = query.read([*pairs, (name, value)], 100)
    except BadRequest:
        return
    assert 0 <= search.limit <= 100


# ---------------------------------------------------------------------- retrieve


def test_a_workitem_has_patient_facts_images_and_no_transaction_uid(common: Page, reader: httpx.Client) -> None:
    uid = of_study(reader, DELIVERED)
    assert uid == uid_of(DELIVERED, 1)
    one = Dataset.from_json(said(reader.get(f"/ups-rs/workitems/{uid}")))
    assert (one.PatientID, str(one.PatientName)) == ("P-1", "Doe^Jane")
    codes = {item.ConceptNameCodeSequence[0].CodeValue for item in one.ScheduledProcessingParametersSequence}
    assert {"covid-prob", "affected-worse"} <= codes
    assert len(one.InputInformationSequence[0].ReferencedSOPSequence) == 3
    assert one.TransactionUID in ("", None)
    document = reader.get("/api/v1/openapi.json").json()
    schema = {"components": document["components"], **document["components"]["schemas"]["DataSet"]}
    jsonschema.Draft202012Validator(schema).validate(reader.get(f"/ups-rs/workitems/{uid}").json())
    journal = Journal(common._feed._journal.state_dir, "test")
    looked = journal.rows("select words from audit where study_instance_uid = ?", DELIVERED)
    journal.close()
    assert {row["words"] for row in looked} == {"workitem, by UPS-RS"}


def without_empty(said: Any) -> Any:
    """PS3.18 section F.2.5: an empty attribute has no values; pydicom writes an empty list."""
    if isinstance(said, dict):
        return {key: without_empty(value) for key, value in said.items() if (key, value) != ("Value", [])}
    return [without_empty(one) for one in said] if isinstance(said, list) else said


def test_data_sets_are_written_as_pydicom_would_write_them(common: Page) -> None:
    journal = Journal(common._feed._journal.state_dir, "test")
    catalogue = Catalogue(programs.settings(journal.state_dir), journal)
    compared = 0
    for entry in catalogue.entries():
        if not (entry.item.study_instance_uid or "").endswith("."):  # a UID that pydicom objects to
            found = procedure_step.attributes(entry)
            assert dicom_json.written(found) == without_empty(values.to_dataset(found).to_json_dict())
            compared += 1
    journal.close()
    assert compared == len(TWELVE)
    named = values.of(
        PatientName="Doe^Jane=山田^花子", PatientID="", ProcedureStepProgress="12.5", ReferringPhysicianName="Who=山"
    )
    assert dicom_json.written(named) == without_empty(values.to_dataset(named).to_json_dict())


def test_an_unknown_workitem_is_not_there(reader: httpx.Client) -> None:
    for answer in (
        reader.get("/ups-rs/workitems/1.2.3"),
        reader.put("/ups-rs/workitems/1.2.3/state", json=state("IN PROGRESS")),
        reader.post("/ups-rs/workitems/1.2.3/cancelrequest"),
        reader.post("/ups-rs/workitems/1.2.3", json={}),
        reader.post("/ups-rs/workitems/1.2.3/subscribers/STATION"),
        reader.delete("/ups-rs/workitems/1.2.3/subscribers/STATION"),
    ):
        assert answer.status_code == 404, answer.request.url
        assert "there is no such workitem" in answer.json()["error"]


# ---------------------------------------------------------------------- claim, describe, complete


def test_a_workitem_is_claimed_described_and_completed_by_its_performer(own: httpx.Client, chief: httpx.Client) -> None:
    uid = of_study(own, SEVERE)
    address, body = f"/ups-rs/workitems/{uid}", state("IN PROGRESS")
    assert own.put(f"{address}/state", json=state("COMPLETED")).status_code == 409  # not yet in progress
    assert own.put(f"{address}/state", json=body).status_code == 200
    assert own.get(f"/api/v1/studies/{SEVERE}/claim").json()["performer"] == "reader"
    again = chief.put(f"{address}/state", json=body)
    assert again.status_code == 409
    assert "already" in again.json()["error"]
    assert "299 " in again.headers["warning"]

    progress = {
        "00741002": {"vr": "SQ", "Value": [{"00741004": {"vr": "DS", "Value": [50]}}]},
        "00081195": {"vr": "UI", "Value": ["2.25.1"]},
    }
    assert own.post(address, json=progress).status_code == 400  # another Transaction UID
    del progress["00081195"]
    assert own.post(address, json=progress).status_code == 400  # none
    assert own.post(f"{address}?transaction-uid={TRANSACTION}", json=progress).status_code == 200
    one = Dataset.from_json(own.get(address).json())
    assert one.ProcedureStepProgressInformationSequence[0].ProcedureStepProgress == 50

    early = own.put(f"{address}/state", json=state("COMPLETED"))
    assert early.status_code == 409
    assert "set first: " in early.json()["error"]
    done = {
        "00741216": {
            "vr": "SQ",
            "Value": [
                {
                    "00404028": {"vr": "SQ", "Value": [code("STATION", "99TEST")]},
                    "00404019": {"vr": "SQ", "Value": [code("110005", "DCM")]},
                    "00404050": {"vr": "DT", "Value": ["20260101100000"]},
                    "00404051": {"vr": "DT", "Value": ["20260101101000"]},
                    "00404033": {"vr": "SQ"},
                }
            ],
        }
    }
    assert own.post(f"{address}?transaction-uid={TRANSACTION}", json=[done]).status_code == 200
    assert own.put(f"{address}/state", json=state("COMPLETED")).status_code == 200
    assert own.get(f"/api/v1/studies/{SEVERE}").json()["state"] == "read"
    twice = own.put(f"{address}/state", json=state("COMPLETED"))
    assert twice.status_code == 200
    assert "already in the requested state of COMPLETED" in twice.headers["warning"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"00404034": {"vr": "LO", "Value": ["x"]}},
        {"00741002": {"vr": "SQ", "Value": [{"00741006": {"vr": "DS", "Value": [5]}}]}},
        {"00741216": {"vr": "LO", "Value": ["x"]}},
        {"00280010": {"vr": "US", "Value": ["x"]}},
        {"00741002": {"vr": "SQ", "Value": [{"00720074": {"vr": "FD", "Value": ["NaN"]}}]}},
    ],
)
def test_an_element_that_is_not_of_its_kind_is_refused_and_breaks_nothing(own: httpx.Client, wrong: dict) -> None:
    uid = of_study(own, SEVERE)
    address = f"/ups-rs/workitems/{uid}"
    assert own.put(f"{address}/state", json=state("IN PROGRESS")).status_code == 200
    before = len(said(own.get("/ups-rs/workitems")))
    refused = own.post(f"{address}?transaction-uid={TRANSACTION}", json=wrong)
    assert refused.status_code == 400, refused.text
    assert len(said(own.get("/ups-rs/workitems", params={"includefield": "all"}))) == before
    assert first(said(own.get(address)), "ProcedureStepState") == "IN PROGRESS"


def test_one_that_cannot_be_answered_does_not_end_the_list(page: Page, own: httpx.Client) -> None:
    number = len(said(own.get("/ups-rs/workitems")))
    uid = of_study(own, SEVERE)
    journal = Journal(page._feed._journal.state_dir, "test")
    with journal.writing() as database:  # what no request of today would leave there
        ordered = json.dumps(
            {
                "00280010": {"vr": "US", "Value": ["x"]},
                "00741002": {"vr": "SQ", "Value": [{"00720074": {"vr": "FD", "Value": ["NaN"]}}]},
            }
        )
        database.conn.execute("update workitems set ordered_json = ? where workitem_uid = ?", (ordered, uid))
        transitions.tell(database, uid, EventKind.NONE, time.time(), {})
        journal.note(database, "spoilt")
    journal.close()
    assert own.get("/ups-rs/workitems", params={"Rows": "5"}).status_code == 204
    assert len(said(own.get("/ups-rs/workitems", params={"includefield": "Rows"}))) == number


def code(value: str, scheme: str) -> dict[str, Any]:
    return {
        "00080100": {"vr": "SH", "Value": [value]},
        "00080102": {"vr": "SH", "Value": [scheme]},
        "00080104": {"vr": "LO", "Value": [value]},
    }


def test_a_wrong_transaction_uid_changes_nothing(own: httpx.Client) -> None:
    uid = of_study(own, WAITING)
    assert own.put(f"/ups-rs/workitems/{uid}/state", json=state("IN PROGRESS")).status_code == 200
    wrong = own.put(f"/ups-rs/workitems/{uid}/state", json=state("CANCELED", "2.25.1"))
    assert wrong.status_code == 400
    assert "Transaction UID" in wrong.json()["error"]
    assert own.get(f"/api/v1/studies/{WAITING}").json()["state"] == "reading"
    assert own.put(f"/ups-rs/workitems/{uid}/state", json=state("CANCELED")).status_code == 200
    assert own.get(f"/api/v1/studies/{WAITING}").json()["state"] in ("waiting", "cancelled")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b"[1]", b"not json", b'{"00741000": {"vr": "CS", "Value": ["X"]}}']
)
def test_a_body_that_names_no_state_is_refused(reader: httpx.Client, body: bytes) -> None:
    answer = reader.put(f"/ups-rs/workitems/{uid_of(SEVERE, 1)}/state", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_what_nobody_reads_is_called_off_by_an_administrator_and_what_is_read_only_with_a_listener(
    own: httpx.Client, chief: httpx.Client, page: Page
) -> None:
    uid, other = of_study(own, WAITING), of_study(own, SEVERE)
    reason = {"00741238": {"vr": "LT", "Value": ["not needed any more"]}}
    before = own.get(f"/api/v1/studies/{WAITING}").json()["state"]
    refused = own.post(f"/ups-rs/workitems/{uid}/cancelrequest", json=reason)
    assert refused.status_code == 403
    assert "only an administrator calls it off" in refused.json()["error"]
    assert own.get(f"/api/v1/studies/{WAITING}").json()["state"] == before != "cancelled"
    with audited(page) as rows:
        (told,) = rows("select * from audit where kind = 'Use of Restricted Function'")
    assert (told["user_name"], told["outcome"]) == ("reader", 4)
    assert told["words"] == f"POST /ups-rs/workitems/{uid}/cancelrequest"
    assert chief.post(f"/ups-rs/workitems/{uid}/cancelrequest", json=reason).status_code == 202
    assert own.get(f"/api/v1/studies/{WAITING}").json()["state"] == "cancelled"
    assert "CANCELED" in own.post(f"/ups-rs/workitems/{uid}/cancelrequest").headers["warning"]
    assert own.put(f"/ups-rs/workitems/{other}/state", json=state("IN PROGRESS")).status_code == 200
    assert own.post(f"/ups-rs/workitems/{other}/cancelrequest").status_code == 409


def test_an_order_waits_for_its_images_and_names_what_was_filled_in(chief: httpx.Client, own: httpx.Client) -> None:
    order = {
        "00741000": {"vr": "CS", "Value": ["SCHEDULED"]},
        "00741200": {"vr": "CS", "Value": ["HIGH"]},
        "00080050": {"vr": "SH", "Value": ["ORDERED-1"]},
        "00081195": {"vr": "UI"},
    }
    assert own.post("/ups-rs/workitems?2.25.99", json=order).status_code == 403
    made = chief.post("/ups-rs/workitems?2.25.99", json=[order])
    assert made.status_code == 201
    assert made.headers["location"] == "/ups-rs/workitems/2.25.99"
    assert "created with modifications" in made.headers["warning"]
    one = Dataset.from_json(said(own.get(made.headers["location"])))
    assert (one.ProcedureStepState, one.ScheduledProcedureStepPriority) == ("SCHEDULED", "HIGH")
    assert one.InputReadinessState == "INCOMPLETE"
    assert chief.post("/ups-rs/workitems?2.25.99", json=order).status_code == 409
    chosen = chief.post("/ups-rs/workitems", json={**order, "00080050": {"vr": "SH", "Value": ["ORDERED-2"]}})
    assert chosen.headers["location"].startswith("/ups-rs/workitems/2.25.")
    assert chief.post("/ups-rs/workitems?nonsense", json=order).status_code == 400
    started = {**order, "00741000": {"vr": "CS", "Value": ["IN PROGRESS"]}}
    assert chief.post("/ups-rs/workitems?2.25.98", json=started).status_code == 400


# ---------------------------------------------------------------------- subscriptions


@contextmanager
def listening(page: Page, ae_title: str = "STATION") -> Iterator[list[dict[str, Any]]]:
    """The event reports that a subscriber hears from now on."""
    heard: list[dict[str, Any]] = []

    def listen() -> None:
        with (
            contextlib.suppress(httpx.HTTPError),
            programs.program(page) as client,
            client.stream("GET", f"/ups-rs/subscribers/{ae_title}") as stream,
        ):
            assert stream.headers["content-type"].startswith("text/event-stream")
            heard.extend(json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: "))

    threading.Thread(target=listen, daemon=True).start()
    yield heard  # the stream ends with the page, or with a newer one


def kinds(heard: list[dict[str, Any]], uid: str) -> list[tuple[int, str | None]]:
    """Event type and state of what was heard of a workitem."""
    return [
        (one["00001002"]["Value"][0], one.get("00741000", {}).get("Value", [None])[0])
        for one in heard
        if one["00001000"]["Value"] == [uid]
    ]


def test_a_subscriber_hears_where_it_stands_and_what_happens(page: Page, own: httpx.Client) -> None:
    uid = of_study(own, SEVERE)
    answer = own.post(f"/ups-rs/workitems/{uid}/subscribers/STATION")
    assert answer.status_code == 201
    assert answer.headers["content-location"] == "/ups-rs/subscribers/STATION"
    with listening(page) as heard:
        until(lambda: kinds(heard, uid) == [(1, "SCHEDULED")], 15, "the state now")
        own.put(f"/ups-rs/workitems/{uid}/state", json=state("IN PROGRESS"))
        until(lambda: (1, "IN PROGRESS") in kinds(heard, uid), 15, "the claim")
        assert (5, None) in kinds(heard, uid), "to whom it is assigned"
        assert own.post(f"/ups-rs/workitems/{uid}/cancelrequest").status_code == 202, "its performer listens"
        until(lambda: (2, None) in kinds(heard, uid), 15, "the request to cancel")
        assert own.delete(f"/ups-rs/workitems/{uid}/subscribers/STATION").status_code == 200
        own.put(f"/ups-rs/workitems/{uid}/state", json=state("CANCELED"))
        time.sleep(1.2)
        assert (1, "CANCELED") not in kinds(heard, uid)
    assert {one["00000002"]["Value"][0] for one in heard} == {"1.2.840.10008.5.1.4.34.6.1"}


def test_what_happens_while_nobody_listens_is_heard_later(page: Page, own: httpx.Client) -> None:
    uid = of_study(own, SEVERE)
    own.post(f"/ups-rs/workitems/{uid}/subscribers/STATION")
    own.put(f"/ups-rs/workitems/{uid}/state", json=state("IN PROGRESS"))
    with listening(page) as heard:
        until(lambda: [kind for kind, _ in kinds(heard, uid)].count(1) == 2, 15, "the subscription, and the claim")
        numbers = [one["00000110"]["Value"][0] for one in heard]
        assert numbers == sorted(numbers), "in the order in which it happened"


def test_a_filtered_subscription_hears_of_what_matches_alone(page: Page, own: httpx.Client) -> None:
    severe, waiting = of_study(own, SEVERE), of_study(own, WAITING)
    address = f"/ups-rs/workitems/{FILTERED}/subscribers/STATION"
    assert own.post(address, params={"filter": "nonsense"}).status_code == 400
    answer = own.post(address, params={"filter": f"StudyInstanceUID={SEVERE}", "deletionlock": "true"})
    assert answer.status_code == 201
    with listening(page) as heard:
        own.put(f"/ups-rs/workitems/{waiting}/state", json=state("IN PROGRESS", "2.25.1"))
        own.put(f"/ups-rs/workitems/{severe}/state", json=state("IN PROGRESS"))
        until(lambda: (1, "IN PROGRESS") in kinds(heard, severe), 15, "the claim")
        assert kinds(heard, waiting) == []


def test_a_global_subscription_is_suspended_and_ended(page: Page, own: httpx.Client) -> None:
    everything = f"/ups-rs/workitems/{GLOBAL}/subscribers/STATION"
    assert own.post(everything).status_code == 201
    with listening(page) as heard:
        until(lambda: len({one["00001000"]["Value"][0] for one in heard}) == len(TWELVE) + 1, 15, "every workitem")
    assert own.post(f"{everything}/suspend").status_code == 200
    assert own.post(f"/ups-rs/workitems/{uid_of(SEVERE, 1)}/subscribers/STATION/suspend").status_code == 400
    assert own.delete(everything).status_code == 200


def test_only_configured_ae_titles_subscribe_and_listen(own: httpx.Client) -> None:
    for answer in (
        own.post(f"/ups-rs/workitems/{GLOBAL}/subscribers/OTHER"),
        own.get("/ups-rs/subscribers/OTHER"),
    ):
        assert answer.status_code == 403
        assert "not among api.subscriber_ae_titles" in answer.json()["error"]


def test_a_newer_listener_takes_the_place_of_the_older(page: Page, own: httpx.Client) -> None:
    uid = of_study(own, SEVERE)
    own.post(f"/ups-rs/workitems/{uid}/subscribers/STATION")
    with listening(page) as older:
        until(lambda: older, 15, "the older one hears")
        with listening(page) as newer:
            time.sleep(1.0)
            own.put(f"/ups-rs/workitems/{uid}/state", json=state("IN PROGRESS"))
            until(lambda: (1, "IN PROGRESS") in kinds(newer, uid), 15, "the newer one hears")
            assert (1, "IN PROGRESS") not in kinds(older, uid)


def test_a_performer_by_this_way_is_the_user_by_name(own: httpx.Client, page: Page) -> None:
    uid = of_study(own, SEVERE)
    own.put(f"/ups-rs/workitems/{uid}/state", json=state("IN PROGRESS"))
    journal = Journal(page._feed._journal.state_dir, "test")
    item = workitems.by_uid(journal, uid)
    journal.close()
    assert item is not None
    assert (item.performer, item.transaction_uid) == ("reader", TRANSACTION)
    one = Dataset.from_json(own.get(f"/ups-rs/workitems/{uid}").json())
    assert one.ScheduledHumanPerformersSequence[0].HumanPerformerName == "reader"
