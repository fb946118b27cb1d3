"""Where the rows of a task come from: given directly, from a local file, or from a data set on the Hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_file(path: Path) -> list[Mapping[str, Any]]:
    """Read the rows of a jsonl or parquet file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Another kind of file, or a line of it is not a JSON object; the message has its number.
    """
    if not path.is_file():
        raise FileNotFoundError(f"path={str(path)!r}: there is no such file (looked from {Path.cwd()})")
    if path.suffix == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_table(path).to_pylist()
    if path.suffix != ".jsonl":
        raise ValueError(f"path={str(path)!r} ends in {path.suffix!r}: give a .jsonl or .parquet file")
    with path.open(encoding="utf-8") as lines:
        return [_json_object(line, number, path) for number, line in enumerate(lines, 1) if line.strip()]


def read_dataset(dataset: str, name: str | None, split: str) -> list[Mapping[str, Any]]:
    """Read the rows of a data set on the Hub (or in its local cache).

    Raises:
        ValueError: It can not be loaded; the message has the reason.
    """
    import datasets

    try:
        return list(datasets.load_dataset(dataset, name, split=split))
    except Exception as error:  # the library raises many kinds, all for a wrong name or a missing network
        raise ValueError(f"dataset={dataset!r} (name={name!r}, split={split!r}) can not be loaded: {error}") from error


def column(row: Any, number: int, source: str, name: str, argument: str, meaning: str) -> str:
    """Return a row's text (or number, as text) in the column `name`.

    Args:
        row: The row.
        number: Its index, from 0.
        source: Where it is from, for messages.
        name: The column.
        argument: The argument that maps this column, for messages.
        meaning: What every row needs, for messages.

    Raises:
        ValueError: The row is no mapping, has no such column, or nothing in it.
    """
    if not isinstance(row, Mapping):
        raise ValueError(f"row {number} of {source} is a {type(row).__name__}: every row must be a dict")
    value = row.get(name)
    if value is None:
        columns = ", ".join(map(str, row)) or "none"
        raise ValueError(
            f"row {number} of {source} has no {name!r} (columns: {columns}): every row needs {meaning}; "
            f"map the column with {argument}=..."
        )
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"row {number} of {source}: {name!r} is {value!r}: it must be text or a number")
    text = str(value)
    if not text.strip():
        raise ValueError(f"row {number} of {source}: {name!r} is blank: every row needs {meaning}")
    return text


def one_source(**sources: object) -> str:
    """Return the name of the one source that is given.

    Raises:
        ValueError: None is given, or several.
    """
    given = [name for name, value in sources.items() if value is not None]
    if len(given) != 1:
        raise ValueError(
            f"{' and '.join(f'{name}=' for name in given) or 'no rows'} given: pass exactly one of "
            'rows=[{"prompt": ..., "answer": ...}], path="data.jsonl" (or .parquet), '
            'or dataset="name on the Hub"'
        )
    return given[0]


def _json_object(line: str, number: int, path: Path) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"line {number} of {path.name} is not valid JSON: {error.msg} (column {error.colno})"
        ) from error
    if not isinstance(row, dict):
        raise ValueError(f"line {number} of {path.name} is a JSON {type(row).__name__}: every line must be an object")
    return row
