"""Where the rows of a task come from: given directly, from a local file, or from a data set on the Hub."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_ROWS_AT_A_TIME = 1000
_MISSING = object()


def read_file(path: Path) -> Iterator[Mapping[str, Any]]:
    """Read the rows of a jsonl (also gzipped) or parquet file one after another, never all of them at once.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Another kind of file, or a line of it is not a JSON object; the message has its number.
    """
    if not path.is_file():
        raise FileNotFoundError(f"path={str(path)!r}: there is no such file (looked from {Path.cwd()})")
    if path.suffix == ".parquet":
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS_AT_A_TIME):
                yield from batch.to_pylist()
    elif path.suffix == ".jsonl" or path.suffixes[-2:] == [".jsonl", ".gz"]:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
            yield from (_json_object(line, number, path) for number, line in enumerate(lines, 1) if line.strip())
    else:
        raise ValueError(f"path={str(path)!r} ends in {path.suffix!r}: give a .jsonl, .jsonl.gz or .parquet file")


def read_dataset(
    dataset: str, name: str | None, split: str, revision: str | None = None
) -> Iterator[Mapping[str, Any]]:
    """Read the rows of a data set on the Hub (or in its local cache, or in a local folder) one after another.

    Args:
        dataset: Its name.
        name: The configuration, if it has several.
        split: The split.
        revision: A branch, such as the one in which the Hub keeps Parquet copies; the main one by default.

    Raises:
        ValueError: It can not be loaded; the message has the reason.
    """
    import datasets

    try:
        branch = {} if revision is None else {"revision": revision}
        rows = datasets.load_dataset(dataset, name, split=split, **branch)
    except Exception as error:  # the library raises many kinds, all for a wrong name or a missing network
        raise ValueError(
            f"dataset={dataset!r} (name={name!r}, split={split!r}) can not be loaded: {str(error).rstrip('.')}; "
            'without the Hub, give a copy of it as path="data.jsonl" (or .jsonl.gz, .parquet)'
        ) from error
    for table in rows.with_format("arrow").iter(_ROWS_AT_A_TIME):
        yield from table.to_pylist()


def column(row: Any, place: str, name: str, argument: str, meaning: str, *, may_be_none: bool = False) -> Any:
    """Return what a row has in the column `name`, which may be a path to a nested one: `reward_model.ground_truth`.

    Args:
        row: The row.
        place: Where it is, for messages, such as "row 3 of data.jsonl".
        name: The column.
        argument: The argument that maps this column, for messages.
        meaning: What every row needs, for messages.
        may_be_none: Whether None will do, as long as there is such a column.

    Raises:
        ValueError: The row is no mapping, or has no such column or None in it.
    """
    if not isinstance(row, Mapping):
        raise ValueError(f"{place} is a {type(row).__name__}: every row must be a dict")
    value = row.get(name, _MISSING)
    if value is _MISSING:
        value = row
        for part in name.split("."):
            value = value.get(part, _MISSING) if isinstance(value, Mapping) else _MISSING
    if value is _MISSING or (value is None and not may_be_none):
        columns = ", ".join(map(str, row)) or "none"
        raise ValueError(
            f"{place} has no {name!r} (columns: {columns}): every row needs {meaning}; "
            f"map the column with {argument}=..."
        )
    return value


def text_of(value: Any, place: str, name: str, meaning: str) -> str:
    """Return a column's text, or its number as text.

    Raises:
        ValueError: It is something else, or blank.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"{place}: {name!r} is {value!r}: it must be text or a number")
    text = str(value)
    if not text.strip():
        raise ValueError(f"{place}: {name!r} is blank: every row needs {meaning}")
    return text


def user_text(value: Any, place: str, name: str) -> Any:
    """Return the text of the one user message if `value` is a list of chat messages, else `value` as it is.

    Raises:
        ValueError: There is no user message, or there are several.
    """
    if not isinstance(value, list):
        return value
    texts = [message.get("content") for message in value if isinstance(message, Mapping) and _is_user(message)]
    if len(texts) != 1:
        raise ValueError(
            f"{place}: {name!r} is a list with {len(texts)} user messages: a prompt in chat format must have one"
        )
    return texts[0]


def one_source(**sources: object) -> str:
    """Return the name of the one source that is given.

    Raises:
        ValueError: None is given, or several.
    """
    given = [name for name, value in sources.items() if value is not None]
    if len(given) != 1:
        raise ValueError(
            f"{' and '.join(f'{name}=' for name in given) or 'no rows'} given: pass exactly one of "
            'rows=[{"prompt": ..., "answer": ...}], path="data.jsonl" (or .jsonl.gz, .parquet), '
            'or dataset="name on the Hub"'
        )
    return given[0]


def _is_user(message: Mapping[str, Any]) -> bool:
    return message.get("role") == "user"


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


def published_split(split: str | None, hub: Mapping[str, Any]) -> str:
    """Return the split to load, the first by default.

    Raises:
        ValueError: There is no such split.
    """
    splits = hub["splits"]
    if split is not None and split not in splits:
        has = f"one split, {splits[0]!r}, with all its rows" if len(splits) == 1 else f"splits {', '.join(splits)}"
        raise ValueError(f"split={split!r}: {hub['dataset']} has {has}: leave split out or set it accordingly")
    return split or splits[0]
