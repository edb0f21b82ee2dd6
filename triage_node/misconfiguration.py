"""What is wrong with a configuration, in words: every fault at once, with its path, what was found, what is allowed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_LISTS_OF_TABLES = ("destinations", "peers")


def mend(table: dict[str, Any], path: tuple[int | str, ...]) -> None:
    """Take away what is wrong at `path`, so that its default holds; what has no default becomes something harmless."""
    while isinstance(path[-1], int) and path[-2] not in _LISTS_OF_TABLES:
        path = path[:-1]  # one wrong entry of a plain list: the whole list
    section: Any = table
    for part in path[:-1]:
        section = section[part]
    key = path[-1]
    stand_in = {"name": f"destination {path[1:2]}", "ae_title": "X", "host": "x", "port": 1}
    if isinstance(key, int):
        section[key] = stand_in if path[0] == "destinations" else {}
    elif path[0] == "destinations" and len(path) == 3 and key in stand_in:
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
            lines.append(f"{path}: found {_shown(found)}; allowed: {_allowed(problem['loc'], kind, problem)}")
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
