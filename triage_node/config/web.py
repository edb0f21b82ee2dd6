"""The worklist page: where it is served, who may look, and how that is kept to them."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PlainSerializer, model_validator

from triage_node.config.fields import Host, Network, Port, Section

# As argon2 writes it (PHC string format): memory in KiB, passes, lanes, salt of 16 bytes and more, 32 bytes and more.
_HASH = re.compile(
    r"\$argon2id\$v=19\$m=(\d{1,8}),t=(\d{1,3}),p=(\d{1,3})\$[A-Za-z0-9+/]{22,64}\$[A-Za-z0-9+/]{43,128}", re.ASCII
)
# At least what RFC 9106 and OWASP call acceptable (19 MiB, two passes); at most what a log-in may cost this machine.
_LEAST_KIB, _LEAST_PASSES, _MOST_KIB, _MOST_PASSES, _MOST_LANES = 19_456, 2, 1_048_576, 20, 16
HASH_COMMAND = "triage-node hash-password"
# Who performs a workitem by DICOM is known by this and its AE title; so nobody else is called that.
STATION_PREFIX = "AE "
# Headers that every client or proxy sends for another purpose and that name nobody.
_NOT_A_USER = {"host", "cookie", "authorization", "content-type", "content-length", "connection", "accept", "origin"}


def _user_name(value: str) -> str:
    if not 1 <= len(value) <= 64 or not value.isprintable() or value != value.strip() or ":" in value:
        raise ValueError("1 to 64 printable characters, no colon, no spaces around")
    if value.startswith(STATION_PREFIX):
        raise ValueError(f'names that do not begin with "{STATION_PREFIX}", as those of DICOM stations do')
    return value


def _password_hash(value: str) -> str:
    if value == "":
        return value
    match = _HASH.fullmatch(value)
    if match is None:
        raise ValueError(f"the line that `{HASH_COMMAND}` prints, never the password itself")
    memory, passes, lanes = map(int, match.groups())
    if memory < _LEAST_KIB or passes < _LEAST_PASSES:
        raise ValueError(f"a hash that costs more to guess: `{HASH_COMMAND}` makes one")
    if memory > _MOST_KIB or passes > _MOST_PASSES or not 1 <= lanes <= _MOST_LANES:
        raise ValueError(f"a hash that this machine can compute in a second: `{HASH_COMMAND}` makes one")
    return value


def _header(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", value, re.ASCII) or value.lower() in _NOT_A_USER:
        raise ValueError("the name of a header that nothing else uses: letters, digits and hyphens")
    return value


def _proxy(value: str) -> str:
    if value == "*" or ipaddress.ip_network(value, strict=False).prefixlen == 0:
        raise ValueError("the address of the proxy alone: whoever asks from there may call himself anybody")
    return value


def _name(value: str) -> str:
    if not re.fullmatch(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", value, re.ASCII) and not _is_address(value):
        raise ValueError('a host name, an address or "*.domain", without port and scheme')
    return value


def _is_address(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


class UserSection(Section):
    """Who may log in; one for each person, none by default."""

    name: Annotated[str, AfterValidator(_user_name)]
    """Name to log in with, or by which the proxy calls its user."""
    role: Literal["reader", "administrator"] = "reader"
    """"reader" looks and claims; "administrator" also marks others' claims, sends again, sees the destinations."""
    password_hash: Annotated[
        str,
        AfterValidator(_password_hash),
        PlainSerializer(lambda value: "hidden" if value else "", when_used="json"),
        Field(repr=False),
    ] = ""
    """What `triage-node hash-password` prints; without it the user comes through the proxy alone."""


class WebSection(Section):
    """The worklist page."""

    enabled: bool = True
    """Serve the page at all."""
    host: Host = "127.0.0.1"
    """Address to listen on; anything but loopback needs users and TLS, or a trusted proxy."""
    port: Port = 8080
    """TCP port to listen on."""
    names: tuple[Annotated[str, AfterValidator(_name)], ...] = ()
    """Names by which browsers ask for the page, besides those of the certificate and of this machine."""
    certificate: str = ""
    """PEM file of the certificate and those between it and its authority; empty: no TLS."""
    key: str = ""
    """PEM file of its private key, without a passphrase."""
    idle_min: Annotated[float, Field(ge=1, le=1440)] = 30.0
    """A session ends after so many minutes in which nobody used the page."""
    longest_h: Annotated[float, Field(gt=0, le=168)] = 12.0
    """A session ends this long after the log-in, in any case."""
    proxy_addresses: tuple[Annotated[Network, AfterValidator(_proxy)], ...] = ()
    """Addresses or networks of reverse proxies that say who asks; a header from elsewhere says nothing."""
    proxy_header: Annotated[str, AfterValidator(_header)] = "X-Remote-User"
    """Header in which the proxy names the user; it must overwrite what the browser sends under this name."""
    proxy_unlisted: Literal["refused", "reader"] = "refused"
    """What somebody is whom the proxy names and [[web.users]] does not."""
    users: tuple[UserSection, ...] = ()
    """Who may log in."""

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches the page."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def open_to_this_machine(self) -> bool:
        """Whether nobody has to say who he is: without users and proxy, on loopback alone."""
        return not self.users and not self.proxy_addresses

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        problems = []
        names = [user.name for user in self.users]
        problems += [
            f"the user {name!r} is there {names.count(name)} times"
            for name in sorted({name for name in names if names.count(name) > 1})
        ]
        if bool(self.certificate) != bool(self.key):
            given, missing = ("certificate", "key") if self.certificate else ("key", "certificate")
            problems.append(f"{given} is given without {missing}: TLS needs both, in PEM")
        problems += self._nobody_could_look()
        if self.enabled and not self.loopback:
            problems += self._anybody_could_look()
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _nobody_could_look(self) -> list[str]:
        if self.proxy_addresses and not self.users and self.proxy_unlisted == "refused":
            remedy = 'list them by [[web.users]], or set proxy_unlisted = "reader"'
            return [f"the proxy would name users and none is listed: {remedy}"]
        if self.users and not self.proxy_addresses and not any(user.password_hash for user in self.users):
            return [f"no user has a password_hash, so nobody could log in: `{HASH_COMMAND}` makes one"]
        return []

    def _anybody_could_look(self) -> list[str]:
        """Why the page must not be reached from elsewhere as it is configured, and what to do."""
        if self.proxy_addresses:
            return []
        missing = []
        if not self.users:
            missing.append(f"who may log in ([[web.users]], with a password_hash that `{HASH_COMMAND}` makes)")
        if not self.certificate:
            missing.append("TLS (certificate and key), without which passwords and studies travel in the clear")
        if not missing:
            return []
        instead = 'let a reverse proxy say who asks (proxy_addresses), or listen here alone (host = "127.0.0.1")'
        needed = " and ".join(missing)
        return [f"host {self.host!r} can be reached from elsewhere, and {needed} must be given first; or {instead}"]
