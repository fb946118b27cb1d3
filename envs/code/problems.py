"""From rows to problems whose tests can be run; read and checked once per process."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from ..rows import read_dataset, read_file
from ..verifiers.code.tests import Tests

BadRows = Literal["raise", "skip"]

_NAMED = 3  # rows named in the warning of those left out


@dataclass(frozen=True)
class Problem:
    """A programming problem.

    Attributes:
        text: What is asked, without instructions on how to answer.
        make_tests: Returns the tests; large ones are kept as they came and read when they are needed.
        shown: Tests, from the first, that `text` shows with what they expect; the others are hidden.
        preamble: Code that the tests put before every program.
        unfinished: A function without its body, which an answer may go on with; "" if there is none.
        level: Level of difficulty if known.
        solution: A right program if one is known.
    """

    text: str
    make_tests: Callable[[], Tests]
    shown: int = 0
    preamble: str = ""
    unfinished: str = ""
    level: int | float | str | None = None
    solution: str | None = None


ReadRow = Callable[[Any, str], Problem]
"""Reads a row; the second argument is where it is, for messages. Raises ValueError for one that cannot be used."""


def problems_of_file(path: Path, read_row: ReadRow, bad_rows: BadRows) -> tuple[Problem, ...]:
    """Read a file once, and again when it has changed; see `read_file` and `read_problems`."""
    state = (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else None
    return _problems_of_file(path.absolute(), state, read_row, bad_rows)


@lru_cache(maxsize=8)
def problems_of_dataset(
    dataset: str, name: str | None, split: str, revision: str | None, read_row: ReadRow, bad_rows: BadRows
) -> tuple[Problem, ...]:
    """Read a data set on the Hub once; see `read_dataset` and `read_problems`."""
    return read_problems(read_dataset(dataset, name, split, revision), dataset, read_row, bad_rows)


def read_problems(
    rows: Iterable[Mapping[str, Any]], source: str, read_row: ReadRow, bad_rows: BadRows
) -> tuple[Problem, ...]:
    """Read every row and check its tests, so that a bad one stops the run before it starts.

    Raises:
        ValueError: A row can not be used (with `bad_rows="skip"`: none can), or there are no rows at all.
    """
    problems: list[Problem] = []
    bad: list[str] = []
    for number, row in enumerate(rows):
        try:
            problem = read_row(row, f"row {number} of {source}")
            problem.make_tests()
        except ValueError as error:
            if bad_rows == "raise":
                raise ValueError(f"{error}; bad_rows='skip' leaves such rows out") from error
            bad.append(str(error))
        else:
            problems.append(problem)
    if not problems:
        why = f"none of its {len(bad)} rows can be used; the first one: {bad[0]}" if bad else "it has no rows"
        raise ValueError(f"{source}: {why}: a task needs at least one")
    if bad:
        more = f"; and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        named = "; ".join(bad[:_NAMED])
        warnings.warn(f"{source}: {len(bad)} rows are left out (bad_rows='skip'): {named}{more}", stacklevel=2)
    return tuple(problems)


@lru_cache(maxsize=8)
def _problems_of_file(path: Path, state: object, read_row: ReadRow, bad_rows: BadRows) -> tuple[Problem, ...]:
    return read_problems(read_file(path), path.name, read_row, bad_rows)
