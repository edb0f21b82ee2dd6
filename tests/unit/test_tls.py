"""The page by TLS: a real server, real handshakes, and every way to name the wrong file."""

from __future__ import annotations

import socket
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests import certificates, guarded, peers
from tests.guarded import Browser, served
from triage_node import tls
from triage_node.config import Settings
from triage_node.errors import ConfigurationError
from triage_node.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from triage_node.web import Page

CASES = (
    "no certificate",
    "no key",
    "exchanged",
    "a certificate twice",
    "of somebody else",
    "authority first",
    "with a passphrase",
    "DER",
    "text",
    "empty",
    "empty key",
    "cut off",
    "key cut off",
)
FILES = {"certificate": "page.pem", "key": "page.key"}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path, "test")
    yield journal
    journal.close()


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return certificates.write_pair(tmp_path, "localhost", "127.0.0.1", "triage.hospital.example")


@pytest.fixture
def settings(tmp_path: Path, pair: tuple[Path, Path]) -> Settings:
    assert all(file.exists() for file in pair)
    return guarded.settings(tmp_path, **FILES)


@pytest.fixture
def page(settings: Settings, journal: Journal) -> Iterator[Page]:
    with served(settings, journal) as page:
        yield page


def trusting(pair: tuple[Path, Path]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(pair[0]))


def handshake(page: Page, context: ssl.SSLContext) -> ssl.SSLSocket:
    with socket.create_connection(("127.0.0.1", page.port), timeout=10) as raw:
        return context.wrap_socket(raw, server_hostname="localhost")


# ---- over the wire


def test_the_page_is_there_by_tls_for_whoever_trusts_its_authority(page: Page, pair: tuple[Path, Path]) -> None:
    assert page.url == f"https://127.0.0.1:{page.port}/"
    with Browser(page, verify=trusting(pair)) as browser:
        assert browser.log_in().status_code == 303
        assert browser.get("/api/worklist").json() == []
    with pytest.raises(httpx.ConnectError, match="self-signed certificate"):
        guarded.get(f"{page.url}health")


def test_without_tls_nothing_is_answered_there(page: Page) -> None:
    with pytest.raises(httpx.HTTPError):
        guarded.get(page.url.replace("https", "http"))


def test_cookies_travel_by_tls_alone(page: Page, pair: tuple[Path, Path]) -> None:
    with Browser(page, verify=trusting(pair)) as browser:
        lines = browser.log_in().headers.get_list("set-cookie")
    cookies = {name: morsel for line in lines for name, morsel in SimpleCookie(line).items()}
    assert set(cookies) == {"__Host-session", "csrf", "login"}
    for name in ("__Host-session", "csrf"):
        assert cookies[name]["secure"] is True
    # what a browser asks of the prefix __Host- (RFC 6265bis section 4.1.3.2)
    assert (cookies["__Host-session"]["path"], cookies["__Host-session"]["domain"]) == ("/", "")
    assert cookies["__Host-session"]["httponly"] is True


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_of_today_are_spoken(page: Page, pair: tuple[Path, Path], version: ssl.TLSVersion) -> None:
    context = trusting(pair)
    context.minimum_version = context.maximum_version = version
    with handshake(page, context) as connection:
        name, _, bits = connection.cipher() or ("", "", 0)
        assert connection.version() == version.name.replace("_", ".")
    assert bits >= 128
    assert "GCM" in name or "CHACHA20" in name
    assert version is ssl.TLSVersion.TLSv1_3 or name.startswith("ECDHE-")


def asked_by_openssl(page: Page, *words: str) -> subprocess.CompletedProcess[bytes]:
    openssl = peers.require("openssl", package="openssl")
    command = [openssl, "s_client", "-connect", f"127.0.0.1:{page.port}", *words]
    return subprocess.run(command, input=b"", capture_output=True, check=False, timeout=20)


@pytest.mark.peers
def test_versions_and_ciphers_of_yesterday_are_not(page: Page) -> None:
    """Asked by openssl with everything switched on that it still knows."""
    everything = "ALL:@SECLEVEL=0"
    assert asked_by_openssl(page, "-tls1_2", "-cipher", everything).returncode == 0
    for words in (
        ("-tls1", "-cipher", everything),
        ("-tls1_1", "-cipher", everything),
        ("-tls1_2", "-cipher", "kRSA:@SECLEVEL=0"),
        ("-tls1_2", "-cipher", "ECDHE+AES:!AESGCM:!AESCCM:@SECLEVEL=0"),  # CBC
    ):
        done = asked_by_openssl(page, *words)
        assert done.returncode != 0, words
        assert b"Cipher is (NONE)" in done.stdout, words


def test_the_names_of_the_certificate_are_names_of_the_page(page: Page, pair: tuple[Path, Path]) -> None:
    with Browser(page, verify=trusting(pair)) as browser:
        for host, status in (("triage.hospital.example", 200), ("evil.example", 400), ("hospital.example", 400)):
            assert browser.get("/login", headers={"Host": host}).status_code == status
        words = browser.get("/login", headers={"Host": "evil.example"}).text
    assert words == "this page is not served as 'evil.example'; if it should be, add the name to web.names\n"


def test_a_page_for_others_than_this_machine_is_served_by_tls(journal: Journal, tmp_path: Path) -> None:
    pair = certificates.write_pair(tmp_path, "localhost", "127.0.0.1")
    chosen = guarded.settings(tmp_path, host="0.0.0.0", names=("*.ward.example",), **FILES)
    with served(chosen, journal) as page, httpx.Client(verify=trusting(pair)) as client:
        address = f"https://127.0.0.1:{page.port}/"
        assert client.get(f"{address}api/worklist").status_code == 401
        assert client.get(f"{address}login", headers={"Host": "x.ward.example:8443"}).status_code == 200
        assert client.get(f"{address}login", headers={"Host": "ward.example"}).status_code == 400


def test_a_renewed_certificate_is_taken_up_without_a_restart(
    settings: Settings, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    before = tls.pair(settings)
    assert before is not None
    context = tls.context(before)
    assert tls.renewed(settings, context, before) is before
    first = presented(context)
    # half of a renewal: the new certificate is there, its key not yet
    own = certificates.key()
    pair[0].write_bytes(certificates.pem(certificates.certificate(own, "new.example", "localhost")))
    with pytest.raises(ConfigurationError, match="is not the key of the certificate"):
        tls.renewed(settings, context, before)
    assert presented(context) == first
    pair[1].write_bytes(certificates.key_pem(own))
    after = tls.renewed(settings, context, before)
    assert after.names == ("new.example", "localhost")
    assert presented(context) != first
    (tmp_path / "page.key").unlink()
    with pytest.raises(ConfigurationError, match=r"page\.key: No such file"):
        tls.renewed(settings, context, after)


def presented(context: ssl.SSLContext) -> bytes:
    """The certificate that a client is shown in a handshake without a wire."""
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    client = anybody.wrap_bio(to_client, to_server)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    shown = client.getpeercert(binary_form=True)
    assert shown is not None
    return shown


# ---- the wrong file


def wrong_files() -> dict[str, tuple[Any, Any, str]]:
    """Case -> content of certificate and key (None: no file), and the words."""
    own, other = certificates.key(), certificates.key()
    right, authority = certificates.certificate(own), certificates.certificate(other)
    own_pem = certificates.key_pem(own)
    return {
        "no certificate": (None, own_pem, "web.certificate: cannot read {folder}/page.pem: No such file or directory"),
        "no key": (certificates.pem(right), None, "web.key: cannot read {folder}/page.key: No such file"),
        "exchanged": (own_pem, certificates.pem(right), "holds a private key: are certificate and key exchanged?"),
        "a certificate twice": (
            certificates.pem(right),
            certificates.pem(right),
            "web.key: {folder}/page.key holds a certificate: are certificate and key exchanged?",
        ),
        "of somebody else": (
            certificates.pem(authority),
            own_pem,
            "web.key: {folder}/page.key is not the key of the certificate in {folder}/page.pem",
        ),
        "authority first": (
            certificates.pem(authority, right),
            own_pem,
            "the certificate of this key is number 2; it must be the first",
        ),
        "with a passphrase": (
            certificates.pem(right),
            certificates.key_pem(own, b"secret"),
            "has a passphrase, which nobody could type when the node starts: `openssl pkey -in {folder}/page.key -out",
        ),
        "DER": (
            certificates.der(right),
            own_pem,
            "is not a certificate in PEM: `openssl x509 -inform der -in {folder}/page.pem -out FILE` makes one",
        ),
        "text": (b"hello", own_pem, "web.certificate: {folder}/page.pem is not a certificate in PEM"),
        "empty": (b"", own_pem, "is not a certificate in PEM"),
        "empty key": (certificates.pem(right), b"", "web.key: {folder}/page.key is not a private key in PEM"),
        "cut off": (certificates.pem(right)[:200], own_pem, "cannot be read as certificates"),
        "key cut off": (certificates.pem(right), own_pem[:120], "cannot be read as a private key"),
    }


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_file_is_told_with_what_is_wrong_and_what_to_do(tmp_path: Path, case: str) -> None:
    cases = wrong_files()
    assert set(cases) == set(CASES)
    certificate, key, words = cases[case]
    for name, content in (("page.pem", certificate), ("page.key", key)):
        if content is not None:
            (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        tls.pair(guarded.settings(tmp_path, **FILES))
    assert words.format(folder=tmp_path) in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_folder_is_no_key(settings: Settings, pair: tuple[Path, Path]) -> None:
    pair[1].unlink()
    pair[1].mkdir()
    with pytest.raises(ConfigurationError, match=r"web\.key: cannot read .*page\.key: Is a directory"):
        tls.pair(settings)


def test_a_certificate_that_ends_soon_or_has_ended_is_told_and_stops_nothing(tmp_path: Path) -> None:
    for days, words in ((30.0, None), (5.0, "expires on"), (-0.5, "has expired on")):
        certificates.write_pair(tmp_path, days=days)
        found = tls.pair(guarded.settings(tmp_path, **FILES))
        assert found is not None
        warnings = found.warnings(datetime.now(UTC))
        assert ([words in line for line in warnings] == [True]) if words else warnings == []
        early = found.warnings(datetime.now(UTC) - timedelta(days=2))
        assert ["is valid only from" in line for line in early] == [True]


def test_a_key_that_everybody_may_read_is_told(settings: Settings, pair: tuple[Path, Path]) -> None:
    pair[1].chmod(0o644)
    found = tls.pair(settings)
    assert found is not None
    assert found.warnings(datetime.now(UTC)) == [
        f"everybody on this machine may read the key {pair[1]}: chmod o= {pair[1]}"
    ]


def test_files_are_looked_at_only_where_they_are_needed(tmp_path: Path) -> None:
    assert tls.pair(Settings(folder=tmp_path)) is None
    assert tls.pair(guarded.settings(tmp_path, enabled=False, **FILES)) is None
