"""The README's examples of other systems are what the node says.

After a change run `python -m tests.unit.test_readme_examples` to write them anew.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

from tests import programs
from tests.guarded import PASSWORDS
from tests.peers import require
from tests.unit.test_hl7_message import answer, envelope, header
from tests.unit.test_readme import README, between
from tests.worklists import TWELVE
from triage_node.hl7 import oru, subject
from triage_node.ups.service import GLOBAL
from triage_node.workitem import uid_of

SHOWN = ("covid-prob", "affected-right", "ct-grade", "reading-prio", "113014")
STUDY = TWELVE[5].study
WORKITEM = uid_of(TWELVE[0].study, 1)
PAGE, PASSWORD = "http://127.0.0.1:8080/", "reader:PASSWORD"
DICOM = "-H 'Content-Type: application/dicom+json'"
CLAIM = '{"00741000": {"vr": "CS", "Value": ["IN PROGRESS"]}, "00081195": {"vr": "UI", "Value": ["2.25.1"]}}'
COMMANDS = (
    f"curl -s -u {PASSWORD} '{PAGE}api/v1/worklist?first=1' | cut -c1-200",
    f"curl -s -u {PASSWORD} -X POST {PAGE}api/v1/studies/{STUDY}/claim",
    f"curl -s -u {PASSWORD} {PAGE}api/v1/claims",
    f"curl -s -u {PASSWORD} -X DELETE -w '%{{http_code}}\\n' {PAGE}api/v1/studies/{STUDY}/claim",
    f"curl -s -u {PASSWORD} '{PAGE}ups-rs/workitems?ScheduledProcedureStepPriority=HIGH&limit=1' | cut -c1-200",
    f"curl -s -u {PASSWORD} -X POST -w '%{{http_code}}\\n' {PAGE}ups-rs/workitems/{GLOBAL}/subscribers/STATION",
    f"curl -s -u {PASSWORD} -X PUT {DICOM} -w '%{{http_code}}\\n' -d '{CLAIM}' {PAGE}ups-rs/workitems/{WORKITEM}/state",
    f"curl -sN -m 4 -u {PASSWORD} {PAGE}ups-rs/subscribers/STATION | tr -d '\\r' | grep -m 1 ^data | cut -c1-200",
)
# What is another one each time: times, waiting times, random UIDs, report numbers
VOLATILE = (
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", "2026-01-01T08:00:00.000+00:00"),
    (r'"transaction_uid":"[0-9.]+"', '"transaction_uid":"2.25.1"'),
    (r'"waiting_s":[0-9.]+', '"waiting_s":0.0'),
    (r'"0000(0110|1000)": \{"vr": "(US|UI)", "Value": \[[^]]*\]\}', r'"0000\1": {}'),
    (r'"00081195":[^}]*\}', ""),
    (r"\b\d{14}\.\d{6}\b", "20260101080000.000000"),
)


def message() -> str:
    """Some segments of a message, whole."""
    text = oru.build(answer(), subject.of_header(header()), envelope()).decode()
    lines = text.rstrip("\r").split("\r")
    chosen = [line for line in lines if not line.startswith("OBX") or line.split("|")[3].split("^")[0] in SHOWN]
    return "\n".join(["```", *chosen, "```"])


def session() -> str:
    """The commands, run against a page with the API, each followed by what it says."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        programs.fill(folder)
        chosen = programs.settings(folder)
        said = ["```"]
        with programs.served(chosen, folder) as page:
            for command in COMMANDS:
                real = command.replace(PAGE, page.url).replace(PASSWORD, f"reader:'{PASSWORDS['reader']}'")
                done = subprocess.run(["bash", "-c", real], capture_output=True, text=True, check=False, timeout=60)
                said += [f"$ {command}", done.stdout.strip().replace(page.url, PAGE)]
    return "\n".join([*(line for line in said if line), "```"])


def masked(text: str) -> str:
    for pattern, stand_in in VOLATILE:
        text = re.sub(pattern, stand_in, text)
    return text


EXAMPLES = {"message": message, "curl": session}


def test_the_message_in_the_readme_is_what_the_code_makes() -> None:
    assert between(README.read_text(encoding="utf-8"), "message") == message()


def test_the_requests_in_the_readme_are_answered_as_it_says() -> None:
    require("curl", package="curl")
    said, shown = session(), between(README.read_text(encoding="utf-8"), "curl")
    assert masked(said).splitlines() == masked(shown).splitlines()
    assert said.count("$ curl") == len(COMMANDS)


if __name__ == "__main__":
    whole = README.read_text(encoding="utf-8")
    for title, example in EXAMPLES.items():
        head = re.search(rf"<!-- {title}:[^>]*-->\n", whole)
        assert head is not None
        whole = f"{whole[: head.end()]}{example()}\n{whole[whole.index(f'<!-- end of {title} -->') :]}"
    README.write_text(whole, encoding="utf-8")
