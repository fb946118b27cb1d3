"""The rows of an evaluation with their samples, and how these vote."""

from __future__ import annotations

import ast
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Number
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pyarrow.parquet

from envs import TaskEnv, Verdict
from envs.base import Judgement
from envs.description import remake
from envs.math.answers import bare_question

from ..errors import ConfigError, one_line, place_of
from ..evaluation.comparison import Saved
from ..evaluation.journal import PARQUET
from .golds import Votes

_COLUMNS = ["env", "index", "number", "level", "prompt", "completion", "accuracy", "answer", "length"]


@dataclass
class Row:
    """A row of the environment with those of its samples that could be scored."""

    index: int
    prompt: str
    """The row's own question, as the environment shows it."""
    level: str | None
    accuracy: list[float] = field(default_factory=list)
    answers: list[str | None] = field(default_factory=list)
    completions: list[str] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    """Tokens of the model's own."""
    unscored: int = 0
    """Samples that the judge failed on: they count nowhere."""

    @property
    def question(self) -> str:
        """The question without the instruction of a known answer style."""
        return bare_question(self.prompt)

    @property
    def right(self) -> int:
        """Samples that are fully correct."""
        return sum(value == 1.0 for value in self.accuracy)

    @property
    def others(self) -> int:
        """Samples that gave an answer and are not fully correct."""
        pairs = zip(self.answers, self.accuracy, strict=True)
        return sum(answer is not None and value < 1.0 for answer, value in pairs)


@dataclass(frozen=True)
class Sampled:
    """A complete evaluation of one environment."""

    folder: Path
    results: Mapping[str, Any]
    env: gymnasium.Env
    rows: list[Row]

    @property
    def task(self) -> gymnasium.Env:
        """The environment without its wrappers."""
        return self.env.unwrapped

    def gold(self, row: Row) -> str | None:
        """The row's gold answer; None where the environment keeps none."""
        answer = self.task.row(row.index).get("answer") if isinstance(self.task, TaskEnv) else None
        return None if answer is None else str(answer)


def read_samples(folder: Path) -> Sampled:
    """Read an evaluation's folder and make its environment again.

    Raises:
        ConfigError: The evaluation is not complete, is of several environments, or its environment cannot be made or
            has changed.
    """
    results = Saved.read(folder).results
    if len(results["environments"]) > 1:
        raise ConfigError(f"{folder} measures several environments: triage looks at one at a time.")
    [described] = results["environments"]
    try:
        env = remake(described)
    except Exception as error:  # whatever the author's module raises
        raise ConfigError(
            f"{described['id']}, the environment of {folder}, cannot be made: {one_line(error)}"
        ) from error
    found: dict[int, Row] = {}
    for line in pyarrow.parquet.read_table(folder / PARQUET, columns=_COLUMNS).to_pylist():
        row = found.setdefault(line["index"], Row(line["index"], line["prompt"], line["level"]))
        if line["accuracy"] is None or math.isnan(line["accuracy"]):
            row.unscored += 1
            continue
        row.accuracy.append(line["accuracy"])
        row.answers.append(line["answer"])
        row.completions.append(line["completion"])
        row.lengths.append(line["length"])
    sampled = Sampled(folder, results, env, [found[index] for index in sorted(found)])
    _check_unchanged(sampled)
    return sampled


def _check_unchanged(sampled: Sampled) -> None:
    task = sampled.task
    if not isinstance(task, TaskEnv):
        return
    for row in sampled.rows:
        shown = None if task.num_rows is not None and row.index >= task.num_rows else task.row(row.index).get("prompt")
        if shown is not None and shown != row.prompt:
            raise ConfigError(
                f"row {row.index} reads differently now than when the samples in {sampled.folder} were drawn: its data "
                "has changed. Sample it anew with --overwrite true."
            )


def why_no_golds(sampled: Sampled) -> str | None:
    """The reason why golds cannot be doubted in this environment, as a sentence; None where they can."""
    task = sampled.task
    if not isinstance(task, TaskEnv):
        return "The environment is not an envs.TaskEnv, so its golds are not known."
    if task.max_turns > 1:
        return "The task has many turns: no single answer is compared with a gold."
    if not any(answer is not None for row in sampled.rows for answer in row.answers):
        return "The environment reads no answers (tests or a judge decide), so there are no majorities."
    if not any(sampled.gold(row) is not None for row in sampled.rows[:1]):
        return 'The rows have no "answer", so there is no gold to doubt.'
    return None


def vote(sampled: Sampled) -> tuple[Votes, list[str | None], list[str]]:
    """Count the samples of each row: those that named the gold, and those that named the leading other answer.

    Answers are the same if the environment judges so: a sample belongs to the leader if it is correct with the leader's
    answer in place of the gold.

    Returns:
        The votes, each row's leading answer (None where no majority contradicts the gold), and a line for each row
        whose leading answer cannot be judged as a gold: it counts as one without a majority.
    """
    counted, failures = [], []
    for row in sampled.rows:
        try:
            counted.append(_leader(sampled, row))
        except Exception as error:  # whatever the author's code raises
            counted.append((None, 0))
            failures.append(f"row {row.index}: {type(error).__name__}: {one_line(error)} ({place_of(error)})")
    votes = Votes(
        np.array([row.right for row in sampled.rows]),
        np.array([count for _, count in counted]),
        np.array([row.others for row in sampled.rows]),
        np.array([len(row.accuracy) for row in sampled.rows]),
    )
    return votes, [answer for answer, _ in counted], failures


def _leader(sampled: Sampled, row: Row) -> tuple[str | None, int]:
    task = sampled.task
    assert isinstance(task, TaskEnv)
    counts: Counter[str] = Counter()
    texts: dict[str, str] = {}
    for answer, accuracy, text in zip(row.answers, row.accuracy, row.completions, strict=True):
        if answer is not None and accuracy < 1.0:
            counts[answer] += 1
            texts.setdefault(answer, text)
    if counts.total() <= row.right or 2 * (counts.total() + row.right) <= len(row.accuracy):
        return None, 0  # whatever is the same, it is no majority against the gold
    leader = counts.most_common(1)[0][0]
    given = task.row(row.index)
    as_gold = {**given, "answer": _of_kind(given["answer"], leader)}
    same = {answer for answer, text in texts.items() if _is_right(task, as_gold, text)}
    return (leader, sum(counts[answer] for answer in same)) if leader in same else (None, 0)


def _of_kind(gold: Any, answer: str) -> Any:
    """An answer's text as a value of the gold's type; a number that this type cannot hold is a float.

    Raises:
        ValueError, SyntaxError: It is no such value.
    """
    if isinstance(gold, str):
        return answer
    if isinstance(gold, Number) and not isinstance(gold, bool):
        digits = answer.replace(",", "")
        try:
            return type(gold)(digits)  # type: ignore[call-arg]
        except (ValueError, ArithmeticError):
            return float(digits)
    value = ast.literal_eval(answer)
    if type(value) is not type(gold):
        raise ValueError(f"the answer {answer!r} is no {type(gold).__name__}, which its gold is")
    return value


def _is_right(task: TaskEnv, row: Mapping[str, Any], completion: str) -> bool:
    return Judgement.of(task.verify(row, completion)).verdict == Verdict.CORRECT
