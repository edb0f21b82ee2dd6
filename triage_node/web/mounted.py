"""What others serve beside the page: behind the same access control, on the same port."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from starlette.routing import Route


class Mounted(Protocol):
    """Routes, and what goes on beside them."""

    def routes(self) -> list[Route]:
        """To be mounted at the root."""

    def running(self) -> AbstractAsyncContextManager[None]:
        """Open as long as the page is served."""

    def close(self) -> None:
        """End open streams; called on the event loop when the page stops."""
