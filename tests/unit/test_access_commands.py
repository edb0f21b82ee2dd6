"""`hash-password`, `sessions`, `audit` and what `study` and `check-config` say of access, as programs."""

from __future__ import annotations

import getpass
import json
import os
import pty
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest

from tests import certificates, filed, guarded
from tests.guarded import PASSWORDS, Browser, served
from triage_node import __main__ as command_line
from triage_node import config, logbook, passwords
from triage_node.journal import Journal, audit

if TYPE_CHECKING:
    from pathlib import Path

STUDY = "1.2.826.1"
SECRET = "four words in a row"


@dataclass(frozen=True)
class Done:
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """The command line as `triage-node ARGUMENTS`, in this process; `text` comes by a pipe."""

    def call(*arguments: str, text: str = "") -> Done:
        monkeypatch.setattr(sys, "argv", ["triage-node", *arguments])
        monkeypatch.setattr(sys, "stdin", StringIO(text))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        written = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int | None)
        return Done(code or 0, written.out, written.err)

    return call


def toml(**web: Any) -> str:
    """A configuration with the users of the tests."""
    users = "".join(
        f'[[web.users]]\nname = "{user["name"]}"\nrole = "{user["role"]}"\npassword_hash = "{user["password_hash"]}"\n'
        for user in guarded.USERS
    )
    keys = "".join(f"{key} = {json.dumps(value)}\n" for key, value in web.items())
    return f'[analysis]\nmethod = "threshold"\n[web]\n{keys}{users}'


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """A node that has one study."""
    file = tmp_path / "node.toml"
    file.write_text(toml())
    journal = Journal(config.load(file).state_dir, "test")
    filed.queued(journal, STUDY, now=time.time() - 100)
    journal.close()
    return file


@pytest.fixture
def journal(config_file: Path):
    journal = Journal(config.load(config_file).state_dir, "test")
    yield journal
    journal.close()


# ---- hash-password


def typed(*lines: str) -> tuple[int, str, str]:
    """The command at a terminal at which somebody types; status, what the terminal showed, standard output."""
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "triage_node", "hash-password"],
        stdin=its,
        stdout=subprocess.PIPE,
        stderr=its,
        start_new_session=True,
    )
    os.close(its)
    shown = b""
    for line in lines:
        while not shown.endswith(b": "):
            shown += os.read(ours, 1024)
        os.write(ours, f"{line}\n".encode())
        shown += b"|"
    output, _ = process.communicate(timeout=30)
    while True:
        try:
            part = os.read(ours, 1024)
        except OSError:  # the other end is closed
            break
        shown += part
    os.close(ours)
    return process.returncode, shown.decode(), output.decode()


def test_a_password_is_asked_for_twice_and_never_shown() -> None:
    status, shown, output = typed(SECRET, SECRET)
    assert status == 0
    assert shown.replace("\r\n", "") == "Password: |The same again: |"
    assert passwords.Passwords({"a": output.strip()}).right("a", SECRET)


def test_two_different_passwords_make_no_hash() -> None:
    status, shown, output = typed(SECRET, f"{SECRET}.")
    assert (status, output) == (1, "")
    assert "two different passwords" in shown
    assert SECRET not in shown


def test_a_program_gives_the_password_by_a_pipe(run) -> None:
    done = run("hash-password", text=f"{SECRET}\n")
    assert done.returncode == 0, done.stderr
    assert passwords.Passwords({"a": done.stdout.strip()}).right("a", SECRET)
    assert run("hash-password", text="short\n").returncode == 1


# ---- check-config


def test_check_config_refuses_a_page_for_everybody_and_says_what_to_do(run, tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('[web]\nhost = "0.0.0.0"')
    done = run("check-config", "--config", str(file))
    assert done.returncode == 2
    for words in ("[[web.users]]", "triage-node hash-password", "certificate and key", "proxy_addresses", "127.0.0.1"):
        assert words in done.stderr


def test_check_config_reads_certificate_and_key(run, tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(toml(host="0.0.0.0", certificate="page.pem", key="page.key"))
    done = run("check-config", "--config", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"web.certificate: cannot read {tmp_path}/page.pem: No such file or directory\n"
    assert run("serve", "--config", str(file)).stderr == done.stderr
    certificates.write_pair(tmp_path, days=3)
    done = run("check-config", "--config", str(file))
    assert done.returncode == 0
    assert done.stderr.startswith(f"warning: the certificate {tmp_path}/page.pem expires on ")


def test_check_config_prints_no_hash(run, config_file: Path) -> None:
    done = run("check-config", "--config", str(config_file), "--json")
    assert "argon2" not in done.stdout
    users = json.loads(done.stdout)["web"]["users"]
    assert users[0] == {"name": "reader", "role": "reader", "password_hash": "hidden"}
    assert "argon2" not in repr(config.load(config_file))


# ---- sessions


def test_sessions_are_listed_and_ended_and_open_pages_notice(run, config_file: Path, journal: Journal) -> None:
    settings = config.load(config_file)
    with served(settings, journal) as page, Browser(page) as one, Browser(page) as other:
        one.log_in("reader")
        other.log_in("chief")
        listed = json.loads(run("sessions", "--config", str(config_file), "--json").stdout)
        assert [(row["user_name"], row["address"]) for row in listed] == [
            ("reader", "127.0.0.1"),
            ("chief", "127.0.0.1"),
        ]
        assert set(listed[0]) == {"user_name", "address", "begun_at", "used_at"}
        done = run("sessions", "--config", str(config_file), "--end", "reader")
        assert done.stdout == "1 sessions ended\n"
        answer = one.get("/api/worklist")
        assert answer.json()["error"] == "Log in first. The session has ended: by an administrator."
        assert other.get("/api/worklist").status_code == 200
        assert run("sessions", "--config", str(config_file), "--end", "reader").returncode == 1
        assert "chief" in run("sessions", "--config", str(config_file)).stdout
        assert json.loads(run("sessions", "--config", str(config_file), "--end-all", "--json").stdout) == {"ended": 1}
        assert other.get("/api/worklist").status_code == 401
    assert run("sessions", "--config", str(config_file)).stdout == "nobody is logged in\n"
    ended = [row for row in audit.rows(journal) if row.kind == "Logout"]
    assert [(row.user_name, row.role) for row in ended] == [("reader", "reader"), ("chief", "administrator")]
    assert f"{getpass.getuser()} on this machine" in ended[0].words


# ---- audit


def test_audit_tells_who_came_and_who_looked_and_that_it_was_read(run, config_file: Path, journal: Journal) -> None:
    settings = config.load(config_file)
    with served(settings, journal) as page, Browser(page) as browser:
        browser.log_in("reader", "wrong")
        browser.log_in("reader")
        browser.get(f"/studies/{STUDY}")
    first = json.loads(run("audit", "--config", str(config_file), "--json").stdout)
    told = [(row["event"], row["code"], row["kind"], row["type_code"], row["outcome"]) for row in first]
    assert told == [
        ("User Authentication", "110114", "Login", "110122", 4),
        ("User Authentication", "110114", "Login", "110122", 0),
        ("DICOM Instances Accessed", "110103", "", None, 0),
    ]
    assert first[2]["study_instance_uid"] == STUDY
    assert first[2]["at"].endswith("+00:00")
    again = json.loads(run("audit", "--config", str(config_file), "--json").stdout)
    assert again[:3] == first
    assert (again[3]["event"], again[3]["user_name"]) == ("Audit Log Used", getpass.getuser())
    assert PASSWORDS["reader"] not in str(again)


def test_audit_is_narrowed_by_study_user_time_and_number(run, config_file: Path, journal: Journal) -> None:
    row = audit.AuditRow(
        at=0.0,
        process="desk",
        event="DICOM Instances Accessed",
        kind="",
        outcome=0,
        user_name="reader",
        role="reader",
        address="10.0.0.1",
        study_instance_uid=STUDY,
        words="the page",
    )
    for at, user, study in ((1e9, "reader", STUDY), (1.1e9, "chief", STUDY), (1.2e9, "reader", "9.9")):
        audit.add(journal, replace(row, at=at, user_name=user, study_instance_uid=study))

    def ask(*words: str) -> list[float]:
        rows = json.loads(run("audit", "--config", str(config_file), "--json", *words).stdout)
        return [row["at"][:4] for row in rows if row["event"] != "Audit Log Used"]

    assert ask() == ["2001", "2004", "2008"]
    assert ask("--study", STUDY) == ["2001", "2004"]
    assert ask("--user", "reader") == ["2001", "2008"]
    assert ask("--since", "2004-01-01") == ["2004", "2008"]
    assert ask("--user", "reader", "--last", "1") == ["2008"]
    wrong = run("audit", "--config", str(config_file), "--since", "yesterday")
    assert wrong.returncode == 2
    shown = run("audit", "--config", str(config_file), "--user", "chief").stdout
    assert "2004-11-09 11:33:20" in shown
    assert "DICOM Instances Accessed" in shown


def test_a_look_by_the_command_line_is_a_look_too_and_study_shows_them_all(
    run, config_file: Path, journal: Journal
) -> None:
    settings = config.load(config_file)
    with served(settings, journal) as page, Browser(page) as browser:
        browser.log_in("reader")
        browser.get(f"/studies/{STUDY}")
    done = run("study", STUDY, "--config", str(config_file), "--json")
    assert done.stderr == ""
    looks = json.loads(done.stdout)["audit"]
    assert [(row["user_name"], row["address"]) for row in looks] == [("reader", "127.0.0.1"), (getpass.getuser(), "")]
    shown = run("study", STUDY, "--config", str(config_file)).stdout
    assert "Who looked at it" in shown
    assert "reader (reader)" in shown
    written = [event for event in logbook.read(settings.state_dir, study=STUDY) if "user" in event]
    assert (written[-1]["event"], written[-1]["user"]) == ("DICOM Instances Accessed", getpass.getuser())


def test_an_unknown_study_is_no_look(run, config_file: Path, journal: Journal) -> None:
    assert run("study", "9.9.9", "--config", str(config_file)).returncode == 1
    assert audit.rows(journal) == []


@pytest.mark.parametrize("command", ["sessions", "audit"])
def test_a_node_that_was_never_started_is_told_and_nothing_is_made(run, tmp_path: Path, command: str) -> None:
    file = tmp_path / "node.toml"
    file.write_text(toml())
    done = run(command, "--config", str(file))
    assert done.returncode == 1
    assert "has not been started" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["node.toml"]
