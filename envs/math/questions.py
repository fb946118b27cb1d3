"""From rows to questions with gold answers that can be verified; read and checked once per process."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from ..rows import BadRows, column, text_of, user_text, warn_of_bad_rows
from ..verifiers.math.judge import check_gold
from ..verifiers.math.sympy_pool import SymbolicTimeout
from .answers import bare_question, gold_answer, worked_solution

_LEVEL = re.compile(r"(?:level\s*)?(\d+)", re.IGNORECASE)
_NO_LEVEL = re.compile(r"(?:level)?[\s?]*", re.IGNORECASE)


class Question(NamedTuple):
    """A question without instructions on how to answer, its gold answer, its level of difficulty if known, and the
    worked solution that the gold answer is from, if it is from one."""

    text: str
    gold: str
    level: int | float | str | None = None
    worked: str | None = None


@dataclass(frozen=True)
class Reading:
    """How rows are read.

    Attributes:
        prompt_column: Where the question is, as text or as chat messages with one user message.
        answer_column: Where the gold answer or a worked solution is.
        level_column: Where the level of difficulty is, or None for none.
        deduplicate: Keep the first of the rows with the same question.
        bad_rows: What to do with a row that can not be used: "raise" an error, or "skip" it with a warning.
    """

    prompt_column: str = "prompt"
    answer_column: str = "answer"
    level_column: str | None = None
    deduplicate: bool = False
    bad_rows: BadRows = "raise"

    def question(self, row: Any, place: str) -> Question:
        """Read one row.

        Raises:
            ValueError: Something is missing, or of the wrong kind; the message says where.
        """
        prompt = column(row, place, self.prompt_column, "prompt_column", "a prompt")
        prompt = text_of(user_text(prompt, place, self.prompt_column), place, self.prompt_column, "a prompt")
        answer = column(row, place, self.answer_column, "answer_column", "a gold answer")
        answer = text_of(answer, place, self.answer_column, "a gold answer")
        gold = gold_answer(answer)
        level = None
        if self.level_column is not None:
            level = read_level(column(row, place, self.level_column, "level_column", "a level", may_be_none=True))
        return Question(bare_question(prompt), gold, level, worked_solution(answer, gold))


def read_questions(rows: Iterable[Mapping[str, Any]], source: str, how: Reading) -> tuple[Question, ...]:
    """Read every row and check every gold answer, so that a bad one stops the run before it starts.

    No more than the questions that are kept is held in memory, and equal ones are held once.

    Args:
        rows: The rows, one after another.
        source: Where they are from, for messages.
        how: Where in a row things are, and what to do with bad ones.

    Raises:
        ValueError: A row can not be used (with `bad_rows="skip"`: none can), or there are no rows at all.
    """
    kept: dict[Any, tuple[int, Question]] = {}
    bad: dict[int, str] = {}
    disputed = set()
    raises = how.bad_rows == "raise"

    def refuse(number: int, message: str, cause: Exception | None = None) -> None:
        if raises:
            raise ValueError(f"{message}; bad_rows='skip' leaves such rows out") from cause
        bad[number] = message

    number = -1
    for number, row in enumerate(rows):
        try:
            question = how.question(row, f"row {number} of {source}")
        except ValueError as error:
            refuse(number, str(error), error)
            continue
        key = " ".join(question.text.split()) if how.deduplicate else number
        first, twin = kept.setdefault(key, (number, question))
        if twin.gold != question.gold and key not in disputed:
            disputed.add(key)
            refuse(
                first,
                f"row {number} of {source} asks what row {first} asks and has another gold answer, "
                f"{question.gold!r} instead of {twin.gold!r}",
            )
    if number < 0:
        raise ValueError(f"{source} has no rows: a task needs at least one")
    for key in disputed:
        del kept[key]
    errors = unverifiable((question.gold for _, question in kept.values()), first_only=raises)
    for place, question in kept.values():
        if fault := errors.get(question.gold):
            refuse(place, f"row {place} of {source}: {fault}", fault)
    questions = tuple(question for place, question in kept.values() if place not in bad)
    if not questions:
        raise ValueError(f"{source}: none of its {number + 1} rows can be used; the first one: {bad[min(bad)]}")
    warn_of_bad_rows(source, [bad[place] for place in sorted(bad)], number + 1)
    return _one_of_each(questions)


def unverifiable(golds: Iterable[str], *, first_only: bool) -> dict[str, ValueError]:
    """Return the gold answers that no answer could match, and why.

    Symbolic ones are checked by as many workers as there are cores (at most 8); one that took too long while all of
    them were busy is checked once more when they are not.

    Args:
        golds: The gold answers; each is checked once in this process.
        first_only: Stop at the first.

    Raises:
        SymbolicFailure: The workers could not be used.
    """
    distinct = [gold for gold in dict.fromkeys(golds) if gold not in _verified]
    errors: dict[str, ValueError] = {}
    slow: list[str] = []
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        for gold, error in zip(distinct, pool.map(_fault_of, distinct), strict=True):
            if error is not None and isinstance(error.__cause__, SymbolicTimeout):
                slow.append(gold)
            elif error is not None:
                errors[gold] = error
                if first_only:
                    break
    finally:
        pool.shutdown(cancel_futures=True)
    for gold in slow:
        if first_only and errors:
            break
        if error := _fault_of(gold):
            errors[gold] = error
    return errors


def read_level(value: Any) -> int | float | str | None:
    """Read a level of difficulty: "Level 3" and "3" as 3, "Level ?" and "" as None, anything else as it is."""
    if value is None or isinstance(value, (int, float)):
        return value
    text = str(value).strip()
    if _NO_LEVEL.fullmatch(text):
        return None
    number = _LEVEL.fullmatch(text)
    return int(number[1]) if number else text


@lru_cache(maxsize=8)
def _one_of_each(questions: tuple[Question, ...]) -> tuple[Question, ...]:
    return questions


_verified: set[str] = set()
"""Gold answers that were found to be good."""


def _fault_of(gold: str) -> ValueError | None:
    try:
        check_gold(gold)
    except ValueError as error:
        return error
    _verified.add(gold)
    return None
