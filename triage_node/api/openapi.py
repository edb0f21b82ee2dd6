"""The OpenAPI 3.1 description of the API, made of the same rows as its routes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from triage_node import __version__
from triage_node.api import schemas
from triage_node.api.operation import JSON
from triage_node.study import NOT_FOR_DIAGNOSTIC_USE
from triage_node.web.rights import Right
from triage_node.web.session import cookie_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from triage_node.api.operation import Operation
    from triage_node.config import Settings

VERSION: Final = "3.1.0"
# What the access control in front of every address answers
_BEFORE: Final = {
    401: "Nobody is known to ask: name and password, a session, or a trusted proxy are needed.",
    403: "This user may not do this, or it was not he who wished it.",
    429: "Too many failed attempts; Retry-After says when to try again.",
    503: "The journal cannot be read.",
}
_WORDS: Final = (
    f"{NOT_FOR_DIAGNOSTIC_USE}. The reading worklist of a triage-node, its studies and their delivery. Every answer"
    " about a study is told to the audit trail. Times are ISO 8601 in UTC, fractions 0..1."
)


def document(settings: Settings, operations: Iterable[Operation]) -> dict[str, Any]:
    """The whole description of these operations."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    return {
        "openapi": VERSION,
        "info": {
            "title": f"triage-node {settings.node.ae_title}",
            "version": __version__,
            "summary": "Reading worklist, studies, claims and deliveries",
            "description": _WORDS,
        },
        "paths": paths,
        "components": {
            "schemas": schemas.components(),
            "securitySchemes": {
                "password": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "A user of [[web.users]]. Not needed on loopback where no users are configured.",
                },
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": cookie_name(settings.web),
                    "description": "That of the page; what writes needs its X-CSRF-Token, too.",
                },
            },
        },
        "security": [{"password": []}, {"session": []}, {}],
    }


def _described(operation: Operation) -> dict[str, Any]:
    who = "" if operation.right is Right.READ else f" Who asks must be allowed to {operation.right}."
    said: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.words,
        "description": f"{operation.words}{who}",
        "tags": [operation.tag],
        "responses": {
            **{
                str(status): {
                    "description": answer.words,
                    **({} if answer.schema is None else {"content": {answer.media: {"schema": answer.schema}}}),
                }
                for status, answer in operation.answers.items()
            },
            **{
                str(status): {"description": words, "content": {JSON: {"schema": schemas.ref("Error")}}}
                for status, words in _BEFORE.items()
                if status not in operation.answers
            },
        },
    }
    if operation.parameters:
        said["parameters"] = [
            {
                "name": parameter.name,
                "in": parameter.where,
                "description": parameter.words,
                "required": parameter.where == "path",
                "schema": parameter.schema,
            }
            for parameter in operation.parameters
        ]
    if operation.body is not None:
        said["requestBody"] = {
            "required": operation.body_required,
            "content": {operation.body_media: {"schema": operation.body}},
        }
    return said
