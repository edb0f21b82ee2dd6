"""The JSON API and its description: every address against what is said of it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from openapi_spec_validator import validate
from starlette.routing import Route

from tests import programs
from tests.programs import DELIVERED
from tests.worklists import TWELVE
from triage_node import config
from triage_node.api import Api
from triage_node.config import Settings
from triage_node.errors import ConfigurationError
from triage_node.journal import Journal, workitems
from triage_node.web.looking import look
from triage_node.web.rights import READING_METHODS, Right, needed
from triage_node.web.routes import application

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from triage_node.web import Page

SEVERE, WAITING, REFUSED = TWELVE[5].study, TWELVE[10].study, TWELVE[3].study


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled")
    programs.fill(folder)
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, filled: Path) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(filled, folder, dirs_exist_ok=True)
    with programs.served(programs.settings(folder), folder) as page:
        page.folder = folder  # type: ignore[attr-defined]
        yield page


@pytest.fixture
def reader(page: Page) -> Iterator[httpx.Client]:
    with programs.program(page) as client:
        yield client


@pytest.fixture
def chief(page: Page) -> Iterator[httpx.Client]:
    with programs.program(page, "chief") as client:
        yield client


@pytest.fixture(scope="module")
def document(page: Page) -> dict[str, Any]:
    with programs.program(page) as client:
        found: dict[str, Any] = client.get("/api/v1/openapi.json").json()
    return found


def conforms(document: dict[str, Any], answer: httpx.Response, path: str, status: int = 200) -> Any:
    """The JSON of an answer, which must be what the description says of this address and status."""
    assert answer.status_code == status, answer.text
    said = document["paths"][path][answer.request.method.lower()]["responses"][str(status)]
    if "content" not in said:
        assert not answer.content
        return None
    media = answer.headers["content-type"].split(";")[0]
    schema = {"components": document["components"], **said["content"][media]["schema"]}
    jsonschema.Draft202012Validator(schema).validate(answer.json())
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()


# ---------------------------------------------------------------------- the description


def test_the_description_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    validate(document)
    assert "NOT FOR DIAGNOSTIC USE" in document["info"]["description"]


def test_every_schema_is_valid_and_every_reference_leads_to_one(document: dict[str, Any]) -> None:
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    named = set(re.findall(r"'#/components/schemas/([^']+)'", str(document)))
    assert named <= set(document["components"]["schemas"])


def routes_of(settings: Settings, folder: Path) -> set[tuple[str, str]]:
    journal = Journal(folder, "test")
    app = application(settings, journal, also=Api(settings, journal))
    journal.close()
    return {
        (route.path, method)
        for route in app.routes
        if isinstance(route, Route) and route.path.startswith(("/api/v1", "/ups-rs"))
        for method in (route.methods or set()) - {"HEAD"}
    }


def test_every_route_is_described_and_every_description_has_a_route(document: dict[str, Any], tmp_path: Path) -> None:
    described = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    assert routes_of(programs.settings(tmp_path), tmp_path) == described
    assert len(described) == 21
    names = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(set(names)) == len(names)


def test_every_parameter_of_a_path_is_described(document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for operation in methods.values():
            found = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"}
            assert found == set(re.findall(r"{(\w+)}", path)), path


def test_the_access_control_asks_for_the_right_that_the_description_names(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "test")
    for operation in Api(programs.settings(tmp_path), journal).operations:
        path = re.sub(r"{\w+}", "1.2.3", operation.path)
        assert needed(operation.method, path) is operation.right, operation.name
        assert (operation.method in READING_METHODS) == (operation.right is Right.READ)
    journal.close()


# What is read and tells of no patient, or (a workitem) tells the audit itself.
NO_LOOK = frozenset({
    "/login", "/session", "/health", "/api/status", "/api/v1/status", "/api/v1/openapi.json", "/api/v1/dead-letters",
    "/ups-rs/workitems/{workitem}",
})  # fmt: skip


def test_every_address_that_is_read_is_a_look_or_known_to_be_none(tmp_path: Path) -> None:
    journal, chosen = Journal(tmp_path, "test"), programs.settings(tmp_path)
    served = application(chosen, journal, also=Api(chosen, journal))
    journal.close()
    read = {route.path for route in served.routes if isinstance(route, Route) and "GET" in (route.methods or ())}
    none = {path for path in read if look(re.sub(r"{[^}]+}", "1.2.3", path), "") is None}
    assert none == NO_LOOK


def test_each_kind_is_off_until_it_is_switched_on(tmp_path: Path) -> None:
    chosen = Settings.model_validate({"folder": tmp_path})
    assert routes_of(chosen, tmp_path) == set()
    only_json = programs.settings(tmp_path, api={"enabled": True})
    assert {path.split("/")[1] for path, _ in routes_of(only_json, tmp_path)} == {"api"}
    only_ups = programs.settings(tmp_path, api={"ups_rs": True})
    assert {path.split("/")[1] for path, _ in routes_of(only_ups, tmp_path)} == {"ups-rs"}


def test_without_the_page_there_is_no_api() -> None:
    with pytest.raises(ConfigurationError, match=r"api: enabled and ups_rs need web\.enabled"):
        config.parse("[web]\nenabled = false\n[api]\nenabled = true\n", folder=Path())


# ---------------------------------------------------------------------- reading


def test_the_list_is_that_of_the_page_and_of_the_command_line(reader: httpx.Client, document: dict[str, Any]) -> None:
    told = conforms(document, reader.get("/api/v1/worklist"), "/api/v1/worklist")
    assert [one["study_instance_uid"] for one in told["studies"]] == [
        one["study_instance_uid"] for one in reader.get("/api/worklist").json()
    ]
    assert told["total"] == len(told["studies"]) == len(TWELVE) + 1
    assert told["notice"] == "NOT FOR DIAGNOSTIC USE"


def test_the_list_may_be_cut_and_chosen_by_state(reader: httpx.Client, document: dict[str, Any]) -> None:
    first = conforms(document, reader.get("/api/v1/worklist", params={"first": 3}), "/api/v1/worklist")
    assert [one["rank"] for one in first["studies"]] == [1, 2, 3]
    assert first["total"] == len(TWELVE) + 1
    chosen = reader.get("/api/v1/worklist", params={"state": ["not_analysed", "waiting"], "first": 3})
    states = [one["state"] for one in conforms(document, chosen, "/api/v1/worklist")["studies"]]
    assert len(states) == 3
    assert set(states) <= {"not_analysed", "waiting"}
    for wrong in ({"first": "0"}, {"first": "many"}, {"state": "lost"}):
        conforms(document, reader.get("/api/v1/worklist", params=wrong), "/api/v1/worklist", 400)


@pytest.mark.parametrize("study", [SEVERE, WAITING, REFUSED, DELIVERED])
def test_a_study_of_every_kind_is_as_described(reader: httpx.Client, document: dict[str, Any], study: str) -> None:
    told = conforms(document, reader.get(f"/api/v1/studies/{study}"), "/api/v1/studies/{study_instance_uid}")
    assert told == reader.get(f"/api/study/{study}").json()
    if study == DELIVERED:
        assert {one["state"] for one in told["objects"]} == {"stored"}
        assert [(one["state"], one["code"]) for one in told["messages"]] == [("refused", "AE")]


def test_an_unknown_study_is_not_there(reader: httpx.Client, document: dict[str, Any]) -> None:
    path = "/api/v1/studies/{study_instance_uid}"
    assert "no study 9.9" in conforms(document, reader.get("/api/v1/studies/9.9"), path, 404)["error"]
    conforms(document, reader.get("/api/v1/studies/9.9/claim"), f"{path}/claim", 404)


def test_destinations_are_for_administrators(
    reader: httpx.Client, chief: httpx.Client, document: dict[str, Any]
) -> None:
    known = conforms(document, chief.get("/api/v1/status"), "/api/v1/status")
    assert {one["name"] for one in known["destinations"]} == {"pacs", "ris"}
    assert conforms(document, reader.get("/api/v1/status"), "/api/v1/status")["destinations"] == []
    (letter,) = conforms(document, chief.get("/api/v1/dead-letters"), "/api/v1/dead-letters")
    assert (letter["kind"], letter["study_instance_uid"]) == ("HL7 result", DELIVERED)
    assert conforms(document, reader.get("/api/v1/dead-letters"), "/api/v1/dead-letters") == []


# ---------------------------------------------------------------------- who may


def test_nobody_gets_an_answer_without_a_password(page: Page, document: dict[str, Any]) -> None:
    with programs.program(page, None) as nobody:
        for path, methods in document["paths"].items():
            for method in methods:
                answer = nobody.request(method, re.sub(r"{\w+}", "1.2", path))
                assert answer.status_code == 401, (method, path)
                assert answer.headers["www-authenticate"].startswith("Basic ")
    with programs.program(page, None, headers={"Authorization": "Basic cmVhZGVyOndyb25n"}) as wrong:
        assert wrong.get("/api/v1/worklist").status_code == 401


def test_a_reader_sends_nothing_again_and_orders_nothing(reader: httpx.Client, document: dict[str, Any]) -> None:
    conforms(document, reader.post("/api/v1/requeue"), "/api/v1/requeue", 403)
    assert reader.post("/ups-rs/workitems", json={}).status_code == 403


def test_without_users_a_program_of_this_machine_may_and_a_page_elsewhere_may_not(tmp_path: Path, filled: Path) -> None:
    shutil.copytree(filled, tmp_path, dirs_exist_ok=True)
    chosen = programs.settings(tmp_path, users=False)
    with programs.served(chosen, tmp_path) as page, programs.program(page, None) as client:
        address = f"/api/v1/studies/{SEVERE}/claim"
        assert client.post(address, headers={"Origin": "https://elsewhere.example"}).status_code == 403
        assert client.get(address).json()["state"] == "SCHEDULED"
        assert client.post(address).json()["performer"] == "local"


def test_a_look_at_a_study_or_the_list_is_told_to_the_audit(page: Page, reader: httpx.Client) -> None:
    reader.get(f"/api/v1/studies/{REFUSED}")
    reader.get("/api/v1/worklist")
    journal = Journal(page.folder, "test")  # type: ignore[attr-defined]
    rows = journal.rows("select event, study_instance_uid, user_name from audit")
    journal.close()
    assert {"event": "DICOM Instances Accessed", "study_instance_uid": REFUSED, "user_name": "reader"} in rows
    assert {"event": "Query", "study_instance_uid": None, "user_name": "reader"} in rows


# ---------------------------------------------------------------------- claims


CLAIM = "/api/v1/studies/{study_instance_uid}/claim"
FINISH = "/api/v1/studies/{study_instance_uid}/finish"


def test_a_study_is_claimed_once_released_and_finished_by_the_table_that_all_share(
    page: Page, reader: httpx.Client, chief: httpx.Client, document: dict[str, Any]
) -> None:
    address = f"/api/v1/studies/{SEVERE}/claim"
    assert conforms(document, reader.get(address), CLAIM)["state"] == "SCHEDULED"
    mine = conforms(document, reader.post(address), CLAIM)
    assert (mine["state"], mine["performer"]) == ("IN PROGRESS", "reader")
    assert conforms(document, reader.post(address), CLAIM)["transaction_uid"] == mine["transaction_uid"]
    said = conforms(document, chief.get(address), CLAIM)
    assert said["performer"] == "reader"
    assert "transaction_uid" not in said, "it is nobody else's to read"
    assert "being read by reader" in conforms(document, chief.post(address), CLAIM, 409)["error"]
    (claim,) = conforms(document, chief.get("/api/v1/claims"), "/api/v1/claims")
    assert (claim["study_instance_uid"], claim["performer"]) == (SEVERE, "reader")

    conforms(document, chief.delete(address), CLAIM, 409)
    conforms(document, chief.delete(address, params={"force": "perhaps"}), CLAIM, 400)
    conforms(document, chief.delete(address, params={"force": "true"}), CLAIM, 204)
    assert conforms(document, reader.get(address), CLAIM)["state"] == "SCHEDULED"

    conforms(document, chief.post(address), CLAIM)
    finish = address.replace("claim", "finish")
    conforms(document, reader.post(finish, json={"force": True}), FINISH, 409)  # a reader cannot insist
    assert conforms(document, chief.post(finish), FINISH)["state"] == "COMPLETED"
    conforms(document, reader.post(address), CLAIM, 409)
    journal = Journal(page.folder, "test")  # type: ignore[attr-defined]
    item = workitems.current(journal, SEVERE)
    journal.close()
    assert item is not None
    assert item.performer == "chief"


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"force": 1}', b'{"other": true}', b'{"force": true}' + b" " * 5000])
def test_a_body_that_says_something_else_is_refused_in_words(
    reader: httpx.Client, document: dict[str, Any], body: bytes
) -> None:
    answer = reader.post(f"/api/v1/studies/{WAITING}/finish", content=body)
    assert conforms(document, answer, FINISH, 400)["error"]


# ---------------------------------------------------------------------- requeue


def test_what_was_refused_is_sent_again_on_request(chief: httpx.Client, document: dict[str, Any]) -> None:
    address = "/api/v1/requeue"
    conforms(document, chief.post(address, json={"destination": "nowhere"}), address, 400)
    answer = chief.post(address, json={"study": DELIVERED, "destination": "ris"})
    assert conforms(document, answer, address) == {"requeued": 1}
    assert conforms(document, chief.get("/api/v1/dead-letters"), "/api/v1/dead-letters") == []
