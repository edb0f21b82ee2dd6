from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from triage_node import config, operating
from triage_node.errors import ConfigurationError
from triage_node.study import NO_CARD

COMPLETE_FILE = Path(__file__).parents[2] / "conf" / "node.toml"
# DESIGN.md, "Interfaces that others rely on"
SMALLEST = """
[node]
ae_title = "TRIAGE"
state_dir = "state"            # relative to the file's folder, or absolute

[intake]
host = "127.0.0.1"
port = 11112
[[intake.peers]]               # who may send; nobody else gets an association
ae_title = "*"
address = "127.0.0.1"

[completion]
quiet_s = 2.0                  # released, no gap
long_quiet_s = 30.0            # everything else

[analysis]
method = "threshold"           # "multitask" once the networks are there
device = "auto"

[worklist]
strategy = "combined"          # "identification", "severity"
max_wait_min = 120

[[destinations]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = 11113
storage_commitment = false

[web]
host = "127.0.0.1"
port = 8080
"""
DESTINATION = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 11113}

HASH = f"$argon2id$v=19$m=65536,t=3,p=4${'A' * 22}${'A' * 43}"
USER = f'[[web.users]]\nname = "a"\npassword_hash = "{HASH}"\n'


def parsed(text: str, folder: Path = Path("/etc/triage")) -> config.Settings:
    return config.parse(text, folder=folder, name="node.toml")


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parsed(text)
    first, *lines = str(caught.value).splitlines()
    assert first == "node.toml:"
    assert all(line.startswith("  ") for line in lines)
    return [line.strip() for line in lines]


# ---------------------------------------------------------------------- what is right


def test_the_smallest_configuration_is_valid_and_an_empty_file_too() -> None:
    settings = parsed(SMALLEST)
    assert settings.state_dir == Path("/etc/triage/state")
    assert [destination.name for destination in settings.destinations] == ["pacs"]
    only_method = parsed('[analysis]\nmethod = "threshold"')
    assert only_method.model_copy(update={"destinations": settings.destinations}) == settings


def test_an_absolute_state_directory_is_taken_as_it_is() -> None:
    assert parsed('[node]\nstate_dir = "/var/lib/triage"').state_dir == Path("/var/lib/triage")


def test_the_complete_file_says_every_key_with_its_default() -> None:
    table = tomllib.loads(COMPLETE_FILE.read_text())
    defaults = config.Settings().model_dump(mode="json", exclude_none=True)
    assert defaults.pop("destinations") == []
    assert defaults.pop("hl7") == []
    assert defaults["web"].pop("users") == []
    assert defaults["ups"].pop("subscribers") == []
    assert table == defaults
    assert same_types(table, defaults)
    assert config.load(COMPLETE_FILE).destinations == ()


def test_the_keys_that_the_model_card_answers_stand_behind_a_sign_with_the_published_values() -> None:
    left_to_the_card = {
        (name, key)
        for name, section in config.Settings().model_dump().items()
        if isinstance(section, dict)
        for key, value in section.items()
        if value is None
    }
    text = COMPLETE_FILE.read_text().split("# [[destinations]]")[0]
    given = re.sub(r"^# (?=[a-z_]+ = )", "", text, flags=re.MULTILINE)
    settings = parsed(given)
    found = {(name, key) for name, key in left_to_the_card if getattr(getattr(settings, name), key) is not None}
    assert found == left_to_the_card
    point = operating.resolved(NO_CARD, analysis=settings.analysis, worklist=settings.worklist)
    assert replace(point, source=NO_CARD.source) == NO_CARD


def same_types(one: object, other: object) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return all(same_types(value, other[key]) for key, value in one.items())
    return type(one) is type(other)


def test_the_example_of_a_destination_in_the_complete_file_has_every_key_and_loads() -> None:
    text = COMPLETE_FILE.read_text()
    example = text[text.index("# [[destinations]]") : text.index("\n# Which RIS")]
    table = tomllib.loads(re.sub(r"^# ?", "", example, flags=re.MULTILINE))
    whole = config.DestinationSection(**DESTINATION).model_dump(mode="json")
    assert table == {"destinations": [whole]}
    assert parsed(re.sub(r"^# ?", "", example, flags=re.MULTILINE)).destinations[0].name == "pacs"


def test_the_example_of_a_ris_in_the_complete_file_has_every_key_and_loads() -> None:
    text = COMPLETE_FILE.read_text()
    example = re.sub(r"^# ?", "", text[text.index("# [[hl7]]") : text.index("\n[ups]")], flags=re.MULTILINE)
    whole = config.Hl7Section(name="ris", host="127.0.0.1", port=2575).model_dump(mode="json")
    assert tomllib.loads(example) == {"hl7": [whole]}
    assert parsed(example).destination_names == ("ris",)


def test_the_example_of_a_subscriber_has_every_key_and_loads() -> None:
    text = COMPLETE_FILE.read_text()
    example = re.sub(
        r"^# ?",
        "",
        text[text.index("# [[ups.subscribers]]") : text.index("\n[web]")],
        flags=re.MULTILINE,
    )
    whole = config.SubscriberSection(ae_title="VIEWER", host="127.0.0.1", port=11115).model_dump(mode="json")
    assert tomllib.loads(example) == {"ups": {"subscribers": [whole]}}
    assert parsed(example).ups.subscribers[0].ae_title == "VIEWER"


def test_the_worklist_needs_a_port_and_its_subscribers_need_titles_of_their_own() -> None:
    assert problems("[ups]\nenabled = true\nport = 11112") == [
        "ups.port and intake.port are both 11112; each needs its own"
    ]
    viewer = '[[ups.subscribers]]\nae_title = "V"\nhost = "h"\nport = 1\n'
    assert problems(viewer * 2) == ["ups: subscribers: the AE title 'V' is named 2 times"]


def test_a_ris_and_an_archive_cannot_have_one_name() -> None:
    found = problems(
        '[[destinations]]\nname="a"\nae_title="A"\nhost="h"\nport=1\n[[hl7]]\nname="a"\nhost="h"\nport=2\n'
    )
    assert found == ["hl7: the name 'a' is used 2 times; each needs its own"]


def test_a_ris_is_not_named_with_signs_that_part_fields() -> None:
    (line,) = problems('[[hl7]]\nname="a"\nhost="h"\nport=2\nreceiving_application="A|B"\n')
    assert line.startswith('hl7[0].receiving_application: found "A|B"; allowed: a name such as "RIS"')


def test_the_example_of_a_user_has_every_key_and_no_hash_that_anybody_could_use() -> None:
    text = COMPLETE_FILE.read_text()
    example = re.sub(
        r"^# ?",
        "",
        text[text.index("# [[web.users]]") : text.index("\n# The list and its studies for programs")],
        flags=re.MULTILINE,
    )
    (user,) = tomllib.loads(example)["web"]["users"]
    assert list(user) == list(config.UserSection.model_fields)
    (line,) = problems(example)
    assert line.startswith("web.users[0].password_hash: found something else; allowed: the line that `triage-node ")
    assert "argon2id" not in text


@pytest.mark.parametrize("name", config.SECTIONS)
def test_every_key_of_the_complete_file_is_described_above_it_and_in_the_code(name: str) -> None:
    text = COMPLETE_FILE.read_text()
    lists = {"destinations": "[[destinations]]", "hl7": "[[hl7]]", "users": "[[web.users]]"}
    lists["subscribers"] = "[[ups.subscribers]]"
    if name in lists:
        text = re.sub(r"^# ?", "", text[text.index(f"# {lists[name]}") :], flags=re.MULTILINE)
    header = {**lists, "peers": "[[intake.peers]]"}.get(name, f"[{name}]")
    section = text[text.index(f"{header}\n") + len(header) :].split("\n[")[0].splitlines()
    for key, field in config.SECTIONS[name].model_fields.items():
        if key in ("peers", "subscribers", "users"):  # sections of their own
            continue
        place = next(number for number, line in enumerate(section) if line.startswith((f"{key} = ", f"# {key} = ")))
        while re.match(r"(# )?[a-z_]+ = ", section[place]):  # two thresholds share a comment
            place -= 1
        assert section[place].startswith("# "), f"{name}.{key}"
        assert field.description, f"{name}.{key} has no docstring"


@pytest.mark.parametrize("title", ["A", "0123456789ABCDEF", "PACS 1", "a-b_c.d"])
def test_a_usual_ae_title_is_accepted(title: str) -> None:
    assert parsed(f'[node]\nae_title = "{title}"').node.ae_title == title


@pytest.mark.parametrize("address", ["*", "10.0.0.5", "10.0.0.0/8", "10.0.0.5/8", "::1", "fd00::/8"])
def test_addresses_and_networks_are_accepted(address: str) -> None:
    assert parsed(f'[[intake.peers]]\naddress = "{address}"').intake.peers[0].address == address


def test_whole_numbers_stand_for_seconds() -> None:
    assert parsed("[completion]\nquiet_s = 3").completion.quiet_s == 3.0


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        parsed("").node.ae_title = "OTHER"


# ---------------------------------------------------------------------- what is wrong

WRONG = {
    "unknown section": (
        "[intakes]\nport = 1",
        "intakes: unknown key; allowed here: node, intake, completion, analysis",
    ),
    "unknown key": ("[node]\nname = 1", "node.name: unknown key; allowed here: ae_title, state_dir"),
    "unknown key of a peer": (
        "[[intake.peers]]\nip = 1",
        "intake.peers[0].ip: unknown key; allowed here: ae_title, add",
    ),
    "unknown key of a destination": (
        '[[destinations]]\nname="a"\nae_title="A"\nhost="h"\nport=1\ntls=true',
        "destinations[0].tls: unknown key; allowed here: name, ae_title, host, port, send",
    ),
    "our own field": ('folder = "x"', "folder: unknown key; allowed here: node"),
    "text for a number": ('[intake]\nport = "104"', 'intake.port: found "104"; allowed: a valid integer'),
    "truth for a number": ("[analysis]\nattempts = true", "analysis.attempts: found true; allowed: a valid integer"),
    "number for text": ("[node]\nae_title = 5", "node.ae_title: found 5; allowed: a valid string"),
    "number for truth": ("[web]\nenabled = 1", "web.enabled: found 1; allowed: a valid boolean"),
    "section that is none": ("node = 3", "node: found 3; allowed: a table: [node]"),
    "single brackets": (
        '[destinations]\nname = "pacs"',
        "destinations: found a table; allowed: a list of tables, each begun by [[destinations]]",
    ),
    "peers as text": (
        '[intake]\npeers = ["PACS"]',
        'intake.peers[0]: found "PACS"; allowed: a table: [[intake.peers]]',
    ),
    "port too high": ("[intake]\nport = 65536", "intake.port: found 65536; allowed: less than or equal to 65535"),
    "port zero": ("[web]\nport = 0", "web.port: found 0; allowed: greater than or equal to 1"),
    "no number": ("[completion]\nquiet_s = nan", "completion.quiet_s: found nan; allowed: a finite number"),
    "infinite": ("[completion]\nlong_quiet_s = inf", "completion.long_quiet_s: found inf; allowed: a finite number"),
    "negative": ("[completion]\nquiet_s = -1", "completion.quiet_s: found -1; allowed: greater than or equal to 0"),
    "fraction over one": ("[worklist]\nfraction_high = 50", "worklist.fraction_high: found 50; allowed: less than or"),
    "unknown strategy": (
        '[worklist]\nstrategy = "age"',
        "worklist.strategy: found \"age\"; allowed: 'identification', 'severity' or 'combined'",
    ),
    "unknown device": (
        '[analysis]\ndevice = "gpu"',
        'analysis.device: found "gpu"; allowed: "auto", "cpu", "cuda" or "c',
    ),
    "unknown kind of object": (
        '[[destinations]]\nname="a"\nae_title="A"\nhost="h"\nport=1\nsend=["report", "pdf"]',
        "destinations[0].send[1]: found \"pdf\"; allowed: 'lesions', 'lungs', 'report' or 'overview'",
    ),
    "missing": ('[[destinations]]\nae_title="A"\nhost="h"\nport=1', "destinations[0].name: this key must be given"),
    "empty AE title": ('[node]\nae_title = ""', 'node.ae_title: found ""; allowed: 1 to 16 printable ASCII characters'),
    "long AE title": ('[node]\nae_title = "SEVENTEEN LETTERS"', "allowed: 1 to 16 printable ASCII characters"),
    "AE title with a backslash": ('[node]\nae_title = "A\\\\B"', 'node.ae_title: found "A\\\\B"; allowed: 1 to 16'),
    "AE title in another script": ('[node]\nae_title = "Ä"', "allowed: 1 to 16 printable ASCII characters"),
    "AE title with spaces around": ('[node]\nae_title = " A"', "no leading and trailing spaces"),
    "address that is none": (
        '[[intake.peers]]\naddress = "300.1.1.1"',
        'intake.peers[0].address: found "300.1.1.1"; allowed: an address ("10.0.0.5"), a network ("10.0.0.0/8") or "*"',
    ),
    "host name as address": ('[[intake.peers]]\naddress = "pacs.local"', "host names are not looked up"),
    "prefix that is none": ('[[intake.peers]]\naddress = "10.0.0.0/33"', "a network"),
    "no host": ('[intake]\nhost = ""', 'intake.host: found ""; allowed: a host name or an address, without spaces'),
    "page for everybody": ('[web]\nhost = "0.0.0.0"', "web: host '0.0.0.0' can be reached from elsewhere, and who"),
    "page for everybody with users and without TLS": (
        f'[web]\nhost = "0.0.0.0"\n{USER}',
        "web: host '0.0.0.0' can be reached from elsewhere, and TLS (certificate and key), without which",
    ),
    "page for everybody with TLS and without users": (
        '[web]\nhost = "::"\ncertificate = "a"\nkey = "b"',
        "web: host '::' can be reached from elsewhere, and who may log in ([[web.users]], with a password_hash that",
    ),
    "certificate without key": ('[web]\ncertificate = "a"', "web: certificate is given without key: TLS needs both"),
    "key without certificate": ('[web]\nkey = "a"', "web: key is given without certificate"),
    "the same user twice": (f"{USER}{USER}", "web: the user 'a' is there 2 times"),
    "a user without a name": (USER.replace('name = "a"\n', ""), "web.users[0].name: this key must be given"),
    "a user without a password": (
        '[[web.users]]\nname = "a"',
        "web: no user has a password_hash, so nobody could log in",
    ),
    "a role that is none": (
        f'{USER}role = "root"',
        "web.users[0].role: found \"root\"; allowed: 'reader' or 'administrator'",
    ),
    "a password instead of its hash": (
        '[[web.users]]\nname = "a"\npassword_hash = "my secret"',
        "web.users[0].password_hash: found something else; allowed: the line that `triage-node hash-password` prints",
    ),
    "a key for the password itself": (
        f'{USER}password = "my secret"',
        "web.users[0].password: unknown key; allowed here: name, role, password_hash",
    ),
    "a hash of another kind": (
        USER.replace("argon2id", "argon2i"),
        "allowed: the line that `triage-node hash-password`",
    ),
    "a hash that is guessed quickly": (USER.replace("m=65536", "m=64"), "a hash that costs more to guess"),
    "a hash that takes the machine": (USER.replace("m=65536", "m=9999999"), "a hash that this machine can compute"),
    "a user who passes for a DICOM station": (
        USER.replace('"a"', '"AE X"'),
        'web.users[0].name: found "AE X"; allowed: names that do not begin with "AE "',
    ),
    "a user with a colon": (USER.replace('"a"', '"a:b"'), 'web.users[0].name: found "a:b"; allowed: 1 to 64 printable'),
    "every address as proxy": (
        '[web]\nproxy_addresses = ["*"]',
        "the address of the proxy alone: whoever asks from there",
    ),
    "the whole internet as proxy": ('[web]\nproxy_addresses = ["0.0.0.0/0"]', "the address of the proxy alone"),
    "a proxy whose users are all refused": (
        '[web]\nproxy_addresses = ["10.0.0.5"]',
        "web: the proxy would name users and none is listed: list them by [[web.users]], or set proxy_unlisted",
    ),
    "a header that is used for something else": ('[web]\nproxy_header = "Host"', "a header that nothing else uses"),
    "a name with a port": (
        '[web]\nnames = ["a:80"]',
        'web.names[0]: found "a:80"; allowed: a host name, an address or',
    ),
    "every name": ('[web]\nnames = ["*"]', 'web.names[0]: found "*"; allowed: a host name'),
    "a session that lasts for ever": (
        "[web]\nlongest_h = 1000",
        "web.longest_h: found 1000; allowed: less than or equal",
    ),
    "no state directory": ('[node]\nstate_dir = ""', 'node.state_dir: found ""; allowed: the path of a folder'),
    "sent again for ever": (
        '[[destinations]]\nname="a"\nae_title="A"\nhost="h"\nport=1\nresends=1000',
        "destinations[0].resends: found 1000; allowed: ",
    ),
    "quiet times in the wrong order": (
        "[completion]\nquiet_s = 40.0",
        "completion: long_quiet_s (30.0) must not be under quiet_s (40.0)",
    ),
    "thresholds in the wrong order": (
        "[worklist]\nfraction_high = 0.1\nfraction_medium = 0.25",
        "worklist: fraction_medium (0.25) must not be over fraction_high (0.1)",
    ),
    "cut-offs that fall": (
        "[analysis]\ngrades_up_to = [0.25, 0.2, 0.75]",
        "analysis: grades_up_to (0.25, 0.2, 0.75) must rise and begin above 0",
    ),
    "cut-offs from zero": ("[analysis]\ngrades_up_to = [0, 0.2, 0.75]", "must rise and begin above 0"),
    "a cut-off in percent": (
        "[analysis]\ngrades_up_to = [0.1, 0.2, 75]",
        "analysis.grades_up_to[2]: found 75; allowed: less than or equal to 1",
    ),
    "two cut-offs": ("[analysis]\ngrades_up_to = [0.1, 0.2]", "analysis.grades_up_to[2]: this key must be given"),
    "one cut-off": ("[analysis]\ngrades_up_to = 0.5", "analysis.grades_up_to: found 0.5; allowed: a list"),
    "lesion threshold in percent": (
        "[analysis]\nlesion_threshold = 50",
        "analysis.lesion_threshold: found 50; allowed: less than or equal to 1",
    ),
    "the same port twice": ("[web]\nport = 11112", "web.port and intake.port are both 11112; each needs its own"),
    "the same name twice": (
        '[[destinations]]\nname="a"\nae_title="A"\nhost="h"\nport=1\n' * 2,
        "destinations: the name 'a' is used 2 times; each needs its own",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_fault_is_told_with_its_path_what_was_found_and_what_is_allowed(case: str) -> None:
    text, expected = WRONG[case]
    (line,) = problems(text)
    assert expected in line


def test_every_fault_is_told_at_once_also_those_between_keys() -> None:
    text = """
folder = "x"
[node]
ae_title = ""
colour = "red"
[intake]
port = 8080
host = 5
[[intake.peers]]
address = "x"
[completion]
quiet_s = 50.0
[worklist]
strategy = "x"
probability_high = 0.1
probability_medium = 0.2
[[destinations]]
name = "a"
port = 0
[[destinations]]
name = "a"
ae_title = "A"
host = "h"
port = 1
send = ["x", "y"]
"""
    assert [line.split(": ")[0] for line in problems(text)] == [
        "folder",
        "node.ae_title",
        "node.colour",
        "intake.host",
        "intake.peers[0].address",
        "completion",
        "worklist.strategy",
        "destinations[0].ae_title",
        "destinations[0].host",
        "destinations[0].port",
        "destinations[1].send[0]",
        "destinations[1].send[1]",
        "worklist",
        "destinations",
        "web.port and intake.port are both 8080; each needs its own",
    ]


def test_the_port_of_a_page_that_is_not_served_disturbs_nobody() -> None:
    assert not parsed("[web]\nenabled = false\nport = 11112").web.enabled


@pytest.mark.parametrize(
    "keys",
    [
        f'certificate = "a"\nkey = "b"\n{USER}',
        f'proxy_addresses = ["10.0.0.5"]\n{USER}',
        'proxy_addresses = ["10.0.0.0/24"]\nproxy_unlisted = "reader"',
        'proxy_addresses = ["10.0.0.5"]\n[[web.users]]\nname = "a"',
        "enabled = false",
    ],
)
def test_a_page_for_others_than_this_machine_needs_users_and_tls_or_a_proxy(keys: str) -> None:
    settings = parsed(f'[web]\nhost = "0.0.0.0"\n{keys}')
    assert not settings.web.loopback
    assert not settings.web.enabled or not settings.web.open_to_this_machine


@pytest.mark.parametrize("host", ["127.0.0.1", "127.5.5.5", "::1", "localhost"])
def test_on_loopback_nobody_has_to_log_in_unless_users_are_there(host: str) -> None:
    assert parsed(f'[web]\nhost = "{host}"').web.open_to_this_machine
    assert not parsed(f'[web]\nhost = "{host}"\n{USER}').web.open_to_this_machine


def test_no_hash_is_shown_with_the_settings() -> None:
    settings = parsed(USER)
    assert settings.web.users[0].password_hash == HASH
    assert "argon2" not in f"{settings!r} {settings} {settings.model_dump_json()}"


def test_another_method_is_validated_too() -> None:
    assert parsed("").analysis.method == "multitask"
    assert config.with_method(parsed(""), "threshold") == parsed('[analysis]\nmethod = "threshold"')
    with pytest.raises(ConfigurationError, match=r"method: found .magic.; allowed: 'threshold' or 'multitask'"):
        config.with_method(parsed(""), "magic")


# ---------------------------------------------------------------------- the file


def test_a_file_that_is_not_there_a_folder_and_a_closed_one_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read the configuration .*node\.toml: No such file"):
        config.load(tmp_path / "node.toml")
    with pytest.raises(ConfigurationError, match=r"cannot read the configuration .*: Is a directory"):
        config.load(tmp_path)


def test_text_that_is_not_toml_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('[node]\nae_title = "TRIAGE\n')
    with pytest.raises(ConfigurationError, match=r"node\.toml is not TOML: .*line 2"):
        config.load(file)


def test_bytes_that_are_not_utf_8_are_told(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_bytes('[node]\nstate_dir = "/café"'.encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"node\.toml is not UTF-8 text"):
        config.load(file)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_bytes(b"\xef\xbb\xbf[node]\nae_title = 'X'")
    assert config.load(file).node.ae_title == "X"


keys = st.sampled_from(["node", "intake", "peers", "destinations", "port", "host", "ae_title", "send", "quiet_s", "x"])
values = st.recursive(
    st.one_of(st.booleans(), st.integers(-5, 70_000), st.floats(), st.sampled_from(["", "A", "*", "a\0", "ä"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=12,
)


@given(st.dictionaries(keys, values, max_size=4))
def test_no_table_whatever_brings_a_traceback(table: dict) -> None:
    """The parser behind TOML, given every shape of table: settings, or a list of what is wrong."""
    try:
        settings: config.Settings | str = config.validate(table, folder=Path("/"), name="node.toml")
    except ConfigurationError as error:
        settings = str(error)
    assert isinstance(settings, config.Settings) or len(settings.splitlines()) >= 2
