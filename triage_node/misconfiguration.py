"""What is wrong with a configuration, in words: every fault at once, with its path, what was found, what is allowed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_LISTS_OF_TABLES = ("destinations", "hl7", "peers", "users")
# Who writes a password there by mistake shall not find it in a log.
_SECRET = "password_hash"  # noqa: S105  the name of a key
# What stands in for a wrong entry of a list of tables, or for those of its keys that have no harmless default.
_STAND_INS: dict[str, dict[str, Any]] = {
    "destinations": {"ae_title": "X", "host": "x", "port": 1},
    "hl7": {"host": "x", "port": 1},
    "users": {_SECRET: f"$argon2id$v=19$m=65536,t=3,p=4${'A' * 22}${'A' * 43}"},
}


def mend(table: dict[str, Any], path: tuple[int | str, ...]) -> None:
    """Take away what is wrong at `path`, so that its default holds; what has no default becomes something harmless."""
    while isinstance(path[-1], int) and path[-2] not in _LISTS_OF_TABLES:
        path = path[:-1]  # one wrong entry of a plain list: the whole list
    section: Any = table
    for part in path[:-1]:
        section = section[part]
    key = path[-1]
    number = next((place for place, part in enumerate(path) if isinstance(part, int)), 0)
    stand_in: dict[str, Any] = dict(_STAND_INS.get(str(path[number - 1]), {})) if number else {}
    if stand_in:
        stand_in["name"] = f"entry {path[number]}"
    if isinstance(key, int):
        section[key] = stand_in
    elif key in stand_in:
        section[key] = stand_in[key]
    else:
        section.pop(key, None)


def problems(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """One line a problem: where, what was found, what is allowed."""
    lines = []
    for problem in error.errors():
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"]).lstrip(".")
        kind, found = problem["type"], problem["input"]
        if kind == "extra_forbidden":
            lines.append(f"{path}: unknown key; allowed here: {', '.join(keys(problem['loc'][:-1], root))}")
        elif kind == "missing":
            lines.append(f"{path}: this key must be given")
        elif kind == "value_error" and not path:
            lines += str(problem["ctx"]["error"]).splitlines()
        elif kind == "value_error" and len(problem["loc"]) == 1:
            lines.append(f"{path}: {problem['ctx']['error']}")
        else:
            shown = "something else" if problem["loc"][-1] == _SECRET else _shown(found)
            lines.append(f"{path}: found {shown}; allowed: {_allowed(problem['loc'], kind, problem)}")
    return lines


def _shown(found: object) -> str:
    """A value as TOML has it."""
    if isinstance(found, dict):
        return "a table"
    if isinstance(found, tuple):
        return "a list"
    return json.dumps(found) if isinstance(found, (bool, str)) else str(found)


def _allowed(path: tuple[int | str, ...], kind: str, problem: ErrorDetails) -> str:
    if kind == "value_error":
        return str(problem["ctx"]["error"])
    place = ".".join(part for part in path if isinstance(part, str))
    if kind == "model_type":
        return f"a table: {f'[[{place}]]' if isinstance(path[-1], int) else f'[{place}]'}"
    if kind == "tuple_type" and path[-1] in _LISTS_OF_TABLES:
        return f"a list of tables, each begun by [[{place}]]"
    if kind == "tuple_type":
        return "a list"
    return problem["msg"].removeprefix("Input should be ").removeprefix("String should have ")


def keys(path: tuple[int | str, ...], root: type[BaseModel]) -> list[str]:
    """Names of the keys of the section at this path."""
    model = root
    for part in path:
        if isinstance(part, str):
            annotation = model.model_fields[part].annotation
            model = next(kind for kind in (annotation, *get_args(annotation)) if _is_section(kind))
    return [name for name, field in model.model_fields.items() if not field.exclude]


def _is_section(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
