"""The table of labels that people write beside their studies: rows, answers, and where each stands."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from annotations.unusable import Unusable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FILE = "labels.csv"
ANSWERS = {"yes": True, "true": True, "1": True, "y": True, "no": False, "false": False, "0": False, "n": False}

Row = dict[str, str]  # by column, without blanks around; a column that is not there is not in it


def rows(path: Path) -> tuple[Sequence[str], list[tuple[str, Row]]]:
    """The columns, and every row with the words for where it stands. Raises Unusable for a file that is no table."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise Unusable(f"{path} is not UTF-8: save it as CSV in UTF-8") from error
    separator = max(",;\t", key=lines[0].count) if lines else ","  # spreadsheets write what their country is used to
    reader = csv.DictReader(lines, delimiter=separator)
    found = [
        (
            f"{path}, line {reader.line_num}",
            {key: (value or "").strip() for key, value in row.items() if isinstance(key, str)},
        )
        for row in reader
    ]
    return reader.fieldnames or (), found
