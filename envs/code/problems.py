"""From rows to problems whose tests can be run; read and checked once per process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..rows import BadRows, warn_of_bad_rows
from ..verifiers.code.tests import Tests


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
    warn_of_bad_rows(source, bad, len(problems) + len(bad))
    return tuple(problems)
