"""What an address of the API is: the one row from which both its route and its description are made."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import JSONResponse

from triage_node.web.rights import Right

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.requests import Request
    from starlette.responses import Response

JSON: Final = "application/json"
DICOM_JSON: Final = "application/dicom+json"
EVENTS: Final = "text/event-stream"
Schema = dict[str, Any]


class BadRequest(Exception):
    """A request that cannot be understood; its words say what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of an address."""

    name: str
    where: str  # "path", "query"
    words: str
    schema: Schema = field(default_factory=lambda: {"type": "string"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One of the answers that an address gives."""

    words: str
    schema: Schema | None = None
    media: str = JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one address."""

    method: str
    path: str  # with {names}, as Starlette and OpenAPI both write them
    name: str  # operationId
    words: str  # one line
    tag: str
    answer: Callable[[Request], Any]
    answers: Mapping[int, Said]
    right: Right = Right.READ
    parameters: tuple[Parameter, ...] = ()
    body: Schema | None = None
    body_media: str = JSON
    body_required: bool = True


def answered(content: object, status: int = 200) -> Response:
    """An answer as JSON that no cache keeps: it may tell of patients."""
    return JSONResponse(content, status, headers={"Cache-Control": "no-store"})


def refused(words: str, status: int, **more: object) -> Response:
    """A refusal in a sentence."""
    return answered({"error": words, **more}, status)


async def body_of(request: Request, longest: int) -> Any:
    """The JSON of a request, None where it has no body. Raises BadRequest."""
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > longest:
            raise BadRequest(f"a request has at most {longest} bytes")
    if not data:
        return None
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {type(error).__name__}") from None
