"""Where the rows of a task come from: given directly, from a local file, or from a data set on the Hub."""

from __future__ import annotations

import codecs
import gzip
import json
import os
import warnings
import zlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from .text import one_line

_ROWS_AT_A_TIME = 1000
_NAMED = 3  # rows named in the warning of those left out
_MISSING = object()


BadRows = Literal["raise", "skip"]
"""Whether a row that cannot be used is an error, or is left out with a warning."""

T = TypeVar("T")
Parse = Callable[..., tuple[T, ...]]
"""Makes a task's rows of raw ones: it takes these, where they are from (for messages) and any settings of its own."""


@dataclass(frozen=True)
class Source:
    """Where rows come from: exactly one of `rows`, `path` and `dataset` is given.

    Attributes:
        rows: The rows themselves.
        path: A local jsonl (also gzipped) or parquet file.
        dataset: A data set on the Hub or a local folder of one, with its configuration `name`, `split` and `revision`.
    """

    rows: Sequence[Mapping[str, Any]] | None = None
    path: Path | None = None
    dataset: str | None = None
    name: str | None = None
    split: str = "train"
    revision: str | None = None

    @classmethod
    def of(
        cls,
        *,
        rows: Sequence[Mapping[str, Any]] | None,
        path: str | os.PathLike[str] | None,
        dataset: str | None,
        name: str | None,
        split: str | None,
        hub: Mapping[str, Any] | None,
    ) -> Source:
        """Return the source that an environment's arguments give.

        Args:
            rows, path, dataset, name, split: See `ProblemEnv`.
            hub: Of a registered data set: "dataset", "name", "revision" and "splits", the first being the default.

        Raises:
            ValueError: No source is given, or several, or a split that there is not.

        A split beside ``path`` or ``rows``, which have none, is not looked at; a warning says so, unless it is that of
        training.
        """
        asked, revision = split, None
        if hub is not None and dataset is None:
            split = _published_split(split, hub)
            if rows is None and path is None:
                dataset, name, revision = hub["dataset"], name or hub.get("name"), hub.get("revision")
        if asked not in (None, "train") and dataset is None and (rows is not None or path is not None):
            beside = "rows=" if path is None else f"path={str(path)!r}"
            warnings.warn(
                f"split={asked!r} beside {beside}: these rows have no splits, and all of them are taken. Leave split "
                "out, or take the split of a data set, with path=None and rows=None",
                stacklevel=2,
            )
        sources = {"rows": rows, "path": path, "dataset": dataset}
        given = [f"{source}=" for source, value in sources.items() if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"{' and '.join(given) or 'no rows'} given: pass exactly one of "
                'rows=[{"prompt": ..., "answer": ...}], path="data.jsonl" (or .jsonl.gz, .parquet), '
                'or dataset="name on the Hub"'
            )
        file = None if path is None else Path(os.fspath(path)).expanduser().absolute()
        return cls(rows, file, dataset, name, split or "train", revision)

    def read(self, parse: Parse[T], *settings: Hashable) -> tuple[T, ...]:
        """Return the rows as `parse(raw rows, where they are from, *settings)` makes them.

        A data set is read once per process, a file again when it has changed; what comes from them is pickled as the
        way to read it again.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The source or a row cannot be read.
        """
        if self.rows is not None:
            return parse(self.rows, "rows", *settings)
        state = None
        if self.path is not None and self.path.is_file():
            found = self.path.stat()
            state = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        return read_once(self, state, parse, settings)


class _Reread(tuple[T, ...]):
    """Rows that are pickled as the way to read them again: another process reads them there."""

    read_again: tuple[Any, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        source, *arguments = self.read_again
        return source.read, tuple(arguments)


@lru_cache(maxsize=8)
def read_once(source: Source, state: object, parse: Parse[T], settings: tuple[Hashable, ...]) -> tuple[T, ...]:
    """Read a file, as it is in this `state`, or a data set; see `Source.read`."""
    if source.path is not None:
        found = parse(read_file(source.path), source.path.name, *settings)
    else:
        assert source.dataset is not None
        found = parse(
            read_dataset(source.dataset, source.name, source.split, source.revision), source.dataset, *settings
        )
    rows = _Reread(found)
    rows.read_again = (source, parse, *settings)
    return rows


def warn_of_bad_rows(source: str, bad: Sequence[str], count: int) -> None:
    """Warn that of `count` rows some are left out, naming the first few; `bad` has a message for each."""
    if bad:
        more = f"; and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        warnings.warn(
            f"{source}: {len(bad)} of {count} rows are left out (bad_rows='skip'): {'; '.join(bad[:_NAMED])}{more}",
            stacklevel=3,
        )


def read_file(path: Path) -> Iterator[Mapping[str, Any]]:
    """Read the rows of a jsonl (also gzipped) or parquet file one after another, never all of them at once.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Another kind of file, or a line of it is not a JSON object in UTF-8 (or UTF-16 with its mark); the
            message has its number.
    """
    if not path.is_file():
        raise FileNotFoundError(f"path={str(path)!r}: there is no such file (looked from {Path.cwd()})")
    if path.suffix == ".parquet":
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(_ROWS_AT_A_TIME):
                    yield from batch.to_pylist()
        except pyarrow.ArrowException as error:
            raise ValueError(f"{path.name} cannot be read as a parquet file: {one_line(error)}") from error
    elif path.suffix == ".jsonl" or path.suffixes[-2:] == [".jsonl", ".gz"]:
        yield from (_json_object(line, number, path) for number, line in _lines(path) if line.strip())
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
    """Return the value of a row in the column `name`, which may be a path to a nested one: `reward_model.ground_truth`.

    Args:
        row: The row.
        place: Where it is, for messages, such as "row 3 of data.jsonl".
        name: The column.
        argument: The argument that maps this column, for messages.
        meaning: The thing that every row needs, for messages.
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


def _is_user(message: Mapping[str, Any]) -> bool:
    return message.get("role") == "user"


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file, also a gzipped one, with their numbers from 1 on.

    Raises:
        ValueError: It is not gzipped, or a line is not UTF-8 (nor UTF-16 with a byte order mark).
    """
    open_file = gzip.open if path.suffix == ".gz" else open
    try:
        with open_file(path, "rb") as file:
            wide = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        if wide:
            with open_file(path, "rt", encoding="utf-16") as lines:
                yield from enumerate(lines, 1)
            return
        with open_file(path, "rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise ValueError(
                        f"line {number} of {path.name} is not UTF-8 (byte {error.start + 1} of it is "
                        f"0x{line[error.start]:02x}): save the file as UTF-8"
                    ) from error
    except UnicodeError as error:
        raise ValueError(f"{path.name} begins with the mark of UTF-16 and is not UTF-16: save it as UTF-8") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path.name} cannot be read as a gzip file: {one_line(error)}") from error


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


def _published_split(split: str | None, hub: Mapping[str, Any]) -> str:
    """Return the split to load, the first by default.

    Raises:
        ValueError: There is no such split.
    """
    splits = hub["splits"]
    if split is not None and split not in splits:
        has = f"one split, {splits[0]!r}, with all its rows" if len(splits) == 1 else f"splits {', '.join(splits)}"
        raise ValueError(f"split={split!r}: {hub['dataset']} has {has}: leave split out or set it accordingly")
    return split or splits[0]
