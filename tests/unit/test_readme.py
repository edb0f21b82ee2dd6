"""What the README says of commands, keys and conformance is what the code says.

After a change run `python -m tests.unit.test_readme` to write the three tables anew.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from triage_node import conformance
from triage_node.__main__ import app
from triage_node.config import SECTIONS, Settings

README = Path(__file__).parents[2] / "README.md"


def commands() -> str:
    group = typer.main.get_command(app)
    rows = [
        f"| `triage-node {name}` | {command.get_short_help_str(200)} |"
        for name, command in group.commands.items()  # type: ignore[attr-defined]
        if not command.hidden
    ]
    return "\n".join(["| command | what it does |", "| --- | --- |", *rows])


def keys() -> str:
    rows = ["| key | default | meaning |", "| --- | --- | --- |"]
    for name in Settings.model_fields:
        if name == "folder":
            continue
        lists = {"intake": ("peers",), "ups": ("peers", "subscribers"), "web": ("users",)}.get(name, ())
        for label, section in [(name, SECTIONS[name]), *((f"{name}.{inner}", SECTIONS[inner]) for inner in lists)]:
            for key, field in section.model_fields.items():
                if key in ("peers", "subscribers", "users"):
                    continue
                default = "must be given" if field.is_required() else f"`{_toml(field.default)}`"
                default = "the model card's" if field.default is None else default
                rows.append(f"| `{label}.{key}` | {default} | {field.description} |")
    return "\n".join(rows)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(entry) for entry in value) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


TABLES = {"commands": commands, "keys": keys, "conformance": conformance.statement}


def between(text: str, name: str) -> str:
    match = re.search(rf"<!-- {name}:[^>]*-->\n(.*?)<!-- end of {name} -->", text, re.DOTALL)
    assert match is not None, f"the README has no table of {name}"
    return match[1].strip()


@pytest.mark.parametrize("name", TABLES)
def test_the_readme_says_what_the_code_says(name: str) -> None:
    assert between(README.read_text(encoding="utf-8"), name) == TABLES[name]()


def test_every_picture_and_file_that_the_readme_names_exists() -> None:
    text = README.read_text(encoding="utf-8")
    for path in [*re.findall(r"!\[[^]]*\]\(([^)]+)\)", text), "conf/node.toml", "tools/demo", "tools/test"]:
        assert (README.parent / path).exists(), path


if __name__ == "__main__":
    whole = README.read_text(encoding="utf-8")
    for title, table in TABLES.items():
        head = re.search(rf"<!-- {title}:[^>]*-->\n", whole)
        assert head is not None
        end = whole.index(f"<!-- end of {title} -->")
        whole = f"{whole[: head.end()]}{table()}\n{whole[end:]}"
    README.write_text(whole, encoding="utf-8")
