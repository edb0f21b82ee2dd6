"""Addresses of the slices: /studies/UID/slices says what there is, /studies/UID/slices/TOKEN/N.png shows one.

The token names images and answer, so that a picture under one address is always the same and may be kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from triage_node.web import lightbox, window

if TYPE_CHECKING:
    from starlette.requests import Request

    from triage_node.web.lightbox import Lightbox

# Images of a patient are kept in the memory of the open page alone.
_HEADERS = {"Cache-Control": "no-store"}


class Viewing:
    """Answers from one lightbox; the methods run in worker threads."""

    def __init__(self, box: Lightbox) -> None:
        self._box = box

    def routes(self) -> list[Route]:
        """To be mounted at the root."""
        return [
            Route("/studies/{uid}/slices", self.facts),
            Route("/studies/{uid}/slices/{token}/{number:int}.png", self.picture),
            Route("/studies/{uid}/slices/{token}/{number:int}.json", self.outlines),
        ]

    def facts(self, request: Request) -> Response:
        """What a viewer has to know before it shows the first slice."""
        try:
            return JSONResponse(self._box.facts(request.path_params["uid"]), headers=_HEADERS)
        except lightbox.NoSlices as error:
            return JSONResponse({"error": str(error)}, 404, headers=_HEADERS)

    def picture(self, request: Request) -> Response:
        """One slice as PNG; ?window= names how attenuation becomes grey."""
        try:
            chosen = window.named(request.query_params.get("window", "lung"))
        except ValueError as error:
            return PlainTextResponse(f"{error}\n", 400)
        try:
            data = self._box.picture(*_which(request), chosen)
        except lightbox.NoSlices as error:
            return PlainTextResponse(f"{error}\n", 404, headers=_HEADERS)
        return Response(data, media_type="image/png", headers=_HEADERS)

    def outlines(self, request: Request) -> Response:
        """Kind of segment -> SVG path on one slice, in pixels."""
        try:
            return JSONResponse(self._box.outlines(*_which(request)), headers=_HEADERS)
        except lightbox.NoSlices as error:
            return JSONResponse({"error": str(error)}, 404, headers=_HEADERS)


def _which(request: Request) -> tuple[str, str, int]:
    found = request.path_params
    return found["uid"], found["token"], found["number"]
