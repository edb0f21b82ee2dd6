"""Lets people in and out: passwords, sessions and what a trusted proxy says, with an audit entry for each.

All of it reads or writes the journal or computes a hash, so everything here runs in worker threads but `Gate.log_in`,
which keeps the number of hashes at a time small (each takes 64 MiB and a core for a moment).
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import anyio
from starlette.concurrency import run_in_threadpool

from triage_node import audit, passwords
from triage_node.audit import AuditEvent, AuditType, Entry, Outcome
from triage_node.journal import sessions
from triage_node.web import session, throttle
from triage_node.web.rights import Role, User

if TYPE_CHECKING:
    from triage_node.config import UserSection, WebSection
    from triage_node.journal import Journal

HASHES_AT_A_TIME: Final = 2
WAITING_AT_MOST: Final = 16
# A program that sends its password with every request has it hashed again after so many seconds.
REMEMBERED_S: Final = 120.0
REMEMBERED_AT_MOST: Final = 4096  # users or programs, each some hundred bytes
# Failed attempts that are told one by one: so many at once, and one more each few seconds; the others are counted.
TOLD: Final = throttle.Limit(at_once=100, every_s=10.0)
_NOBODY: Final = "unknown user"


class NotLetIn(Exception):
    """The log-in failed; the text is for whoever tried, and tells nothing of who exists."""

    def __init__(self, words: str, *, retry_s: float | None = None) -> None:
        super().__init__(words)
        self.retry_s = retry_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What became of a session's cookie: a user, or the reason why there is none."""

    digest: str
    user: User | None
    ending: str | None


class Gate:
    """The users of the configuration and their sessions."""

    def __init__(self, rules: WebSection, journal: Journal) -> None:
        self.rules = rules
        self._journal = journal
        self._users = {user.name: user for user in rules.users}
        self._passwords = passwords.Passwords({u.name: u.password_hash for u in rules.users if u.password_hash})
        self._throttle = throttle.Throttle()
        self._told = throttle.Buckets(TOLD)
        self._untold = 0
        self._hashing = anyio.Semaphore(HASHES_AT_A_TIME)
        self._waiting = 0
        self._secret = secrets.token_bytes(32)
        self._remembered: OrderedDict[bytes, float] = OrderedDict()
        self._seen: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._seen_lock = threading.Lock()

    @property
    def has_passwords(self) -> bool:
        """Whether anybody can log in here."""
        return bool(self._passwords)

    # ---- by password

    async def log_in(self, name: str, password: str, address: str, *, replaces: str | None = None) -> tuple[User, str]:
        """A new session's user and token. Raises NotLetIn; `replaces` is the cookie that the browser sent along."""
        user = await self.check(name, password, address)
        token = session.new_token()
        await run_in_threadpool(self._begin, user, token, address, session.digest_of(replaces))
        return user, token

    async def check(self, name: str, password: str, address: str) -> User:
        """The user whose password this is. Raises NotLetIn."""
        now = time.monotonic()
        known = name in self._users
        was_here = known and await run_in_threadpool(sessions.was_here, self._journal, name, address)
        wait_s = self._throttle.wait_s(name, address, now, was_here=was_here)
        if wait_s > 0:
            words = f"Too many failed attempts. Try again in {_pause(wait_s)}."
            await run_in_threadpool(self._failed, name, address, "too many failed attempts: not tried")
            raise NotLetIn(words, retry_s=wait_s)
        if self._waiting >= WAITING_AT_MOST:
            raise NotLetIn("Too many people log in at this moment. Try again in a few seconds.", retry_s=5.0)
        self._throttle.add(name, address, now)
        self._waiting += 1
        try:
            async with self._hashing:
                right = await run_in_threadpool(self._passwords.right, name, password)
        finally:
            self._waiting -= 1
        if not right:
            await run_in_threadpool(self._failed, name, address, "wrong password" if known else "no such user")
            raise NotLetIn("This name and this password do not belong together.")
        self._throttle.succeeded(name, address, now)
        return self._user(self._users[name])

    async def check_each_time(self, name: str, password: str, address: str) -> User:
        """The user of a program that sends its password with every request. Raises NotLetIn."""
        key = hashlib.blake2b(f"{name}\0{password}".encode(errors="replace"), key=self._secret).digest()
        now = time.monotonic()
        if now - self._remembered.get(key, -REMEMBERED_S) < REMEMBERED_S:
            return self._user(self._users[name])
        user = await self.check(name, password, address)
        self._remembered[key] = now
        while len(self._remembered) > REMEMBERED_AT_MOST:
            self._remembered.popitem(last=False)
        await run_in_threadpool(self.seen, user, address, "by password, without a session")
        return user

    def _begin(self, user: User, token: str, address: str, replaced: str | None) -> None:
        now = time.time()
        if replaced is not None:
            self._end(replaced, "another log-in in the same browser", now)
        digest = session.digest_of(token)
        assert digest is not None
        mark = passwords.mark(self._users[user.name].password_hash)
        sessions.begin(self._journal, digest=digest, user_name=user.name, password_mark=mark, address=address, now=now)
        self._tell(user, AuditType.LOGIN, address, "by password", now)

    def _failed(self, name: str, address: str, words: str) -> None:
        """An attempt that failed. A name that nobody has is not kept: people type their password there."""
        now = time.monotonic()
        if self._told.wait_s("", now) > 0:
            self._untold += 1
            return
        self._told.add("", now)
        untold, self._untold = self._untold, 0
        user = self._users.get(name)
        entry = Entry(
            event=AuditEvent.USER_AUTHENTICATION,
            kind=AuditType.LOGIN,
            outcome=Outcome.MINOR_FAILURE,
            user=user.name if user else _NOBODY,
            role=user.role if user else "",
            address=address,
            words=f"{words}; {untold} more failed attempts before are not listed" if untold else words,
        )
        audit.record(self._journal, entry, time.time())

    # ---- by proxy

    def named(self, name: str) -> User | None:
        """Who the user is whom a trusted proxy names; None if he is refused."""
        listed = self._users.get(name)
        if listed is not None:
            return self._user(listed)
        return User(name=name, role=Role.READER) if self.rules.proxy_unlisted == "reader" else None

    def seen(self, user: User, address: str, how: str) -> None:
        """Write the log-in of a user without a session: when he comes, and again after the idle time-out."""
        now, key = time.time(), (user.name, address)
        with self._seen_lock:
            before = self._seen.pop(key, 0.0)
            self._seen[key] = now
            if len(self._seen) > REMEMBERED_AT_MOST:
                self._seen.popitem(last=False)
        if now - before >= self.rules.idle_min * 60:
            self._tell(user, AuditType.LOGIN, address, how, now)

    # ---- sessions

    def standing(self, token: str | None, *, used: bool = False) -> Standing | None:
        """What the session of this cookie is worth now; None where there never was one. `used`: somebody is there."""
        digest = session.digest_of(token)
        row = None if digest is None else sessions.find(self._journal, digest)
        if row is None:
            return None
        now = time.time()
        listed = self._users.get(row.user_name)
        why = session.ending(row, listed, self.rules, now)
        if why is not None or listed is None:
            if row.ended_at is None:
                self._end(row.digest, why or "ended", now)
            return Standing(digest=row.digest, user=None, ending=why)
        if used and session.due(row, now):
            sessions.use(self._journal, row.digest, now)
        return Standing(digest=row.digest, user=self._user(listed), ending=None)

    def lasts(self, token: str) -> str | None:
        """Why a session that was there is over now, or None."""
        standing = self.standing(token)
        return "ended" if standing is None else standing.ending

    def log_out(self, digest: str) -> None:
        """End a session because its user wishes so."""
        self._end(digest, "by the user", time.time())

    def sweep(self) -> None:
        """End what is over though nobody asked, and forget what ended long ago."""
        now = time.time()
        for row in sessions.current(self._journal):
            why = session.ending(row, self._users.get(row.user_name), self.rules, now)
            if why is not None:
                self._end(row.digest, why, now)
        sessions.forget(self._journal, now)

    def _end(self, digest: str, why: str, now: float) -> None:
        row = sessions.find(self._journal, digest)
        if row is None or not sessions.end(self._journal, digest, why, now):
            return
        listed = self._users.get(row.user_name)
        user = self._user(listed) if listed else User(name=row.user_name, role=Role.READER)
        self._tell(user, AuditType.LOGOUT, row.address, why, now)

    def _tell(self, user: User, kind: AuditType, address: str, words: str, now: float) -> None:
        audit.record(
            self._journal,
            Entry(
                event=AuditEvent.USER_AUTHENTICATION,
                kind=kind,
                user=user.name,
                role=user.role,
                address=address,
                words=words,
            ),
            now,
        )

    @staticmethod
    def _user(listed: UserSection) -> User:
        return User(name=listed.name, role=Role(listed.role))


def _pause(seconds: float) -> str:
    whole = max(1, round(seconds))
    return f"{whole} s" if whole < 120 else f"{round(whole / 60)} min"
