"""A page with users, and a browser without a screen that logs in there."""

from __future__ import annotations

import re
import ssl
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
from argon2 import PasswordHasher

from triage_node.config import Settings
from triage_node.web import Page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from triage_node.journal import Journal

PASSWORDS = {"reader": "a horse in the corner", "chief": "some other words here", "other": "nobody knows this one"}
ROLES = {"reader": "reader", "chief": "administrator", "other": "reader"}
# The cheapest hash that the configuration takes: the tests make many attempts.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
# Read once: that takes longer than most tests.
AUTHORITIES = ssl.create_default_context()
# One request of something that is no browser.
get, post = partial(httpx.get, verify=AUTHORITIES), partial(httpx.post, verify=AUTHORITIES)
HASHES = {name: _HASHER.hash(password) for name, password in PASSWORDS.items()}
USERS = tuple({"name": name, "role": role, "password_hash": HASHES[name]} for name, role in ROLES.items())


def settings(folder: Any, **web: Any) -> Settings:
    """Settings with these keys of [web], users unless others are given."""
    return Settings.model_validate({"folder": folder, "web": {"users": USERS, **web}})


@contextmanager
def served(chosen: Settings, journal: Journal, *, port: int = 0) -> Iterator[Page]:
    """A page that is being served."""
    page = Page(chosen, journal, port=port)
    page.start()
    try:
        yield page
    finally:
        page.stop()


class Browser(httpx.Client):
    """Keeps cookies, sends what browsers send, and knows the form."""

    def __init__(self, page: Page | str, **options: Any) -> None:
        super().__init__(
            base_url=page if isinstance(page, str) else page.url,
            headers={"Accept": "text/html,application/json", "Sec-Fetch-Site": "same-origin"},
            timeout=20.0,
            **{"verify": AUTHORITIES, **options},
        )

    def form_token(self) -> str:
        """The token of the log-in form."""
        return field(self.get("/login"), "csrf")

    def log_in(self, name: str = "reader", password: str | None = None, **fields: str) -> httpx.Response:
        """Fill the form in and send it."""
        right = PASSWORDS.get(name, "") if password is None else password
        form = {"csrf": self.form_token(), "name": name, "password": right, "next": "/", **fields}
        return self.post("/login", data=form)

    def say(self, address: str, *, method: str = "POST", **options: Any) -> httpx.Response:
        """A writing request as the page's program makes it."""
        headers = {"X-CSRF-Token": self.cookies.get("csrf", ""), **options.pop("headers", {})}
        return self.request(method, address, headers=headers, **options)


def field(answer: httpx.Response, name: str) -> str:
    """The value of the first hidden field of this name."""
    found = re.search(rf'name="{name}" value="([^"]*)"', answer.text)
    assert found is not None, answer.text
    return found[1]
