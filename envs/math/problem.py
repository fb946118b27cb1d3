"""`math/Problem-v0`: mathematical problems from rows, each with a gold answer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..base import Judgement, TaskEnv
from ..verifiers.math import check_gold, judge
from .answers import ANSWER_STYLES, gold_answer
from .rows import column, one_source, read_dataset, read_file

Question = tuple[str, str]
"""A question, without instructions on how to answer, and its gold answer."""


class ProblemEnv(TaskEnv):
    r"""Solve a problem from a list, a file or the Hub, and give one final answer.

    ## Description
    Every row has a question and a gold answer. A worked solution will do for the latter: what follows "####"
    (GSM8K), or else its last `\boxed{}` (MATH), is the gold answer, and the text as a whole if it has
    neither. A gold answer that could never be matched is refused when the task is made, naming its row.

    ## Action Space
    `UnicodeText`: the model's answer, in the form that the prompt asks for, after any thinking.

    ## Observation Space
    `UnicodeText`: the question, and how to give the answer.

    ## Reward
    `correct_reward` for an answer equal to the gold answer, else `wrong_reward`. Whole numbers and fractions
    compare exactly; formulas are compared by math-verify in a separate process, in bounded time.

    ## Episode End
    After one step: terminated, or truncated if the action is a `Completion` with `finish_reason="length"`.

    ## Information
    `reset` and `step`: "index". `step`: also "verdict", "accuracy", "cause" and "rewards"; see `TaskEnv`.

    ## Arguments
    Exactly one of the first three:
    - `rows=[{"prompt": ..., "answer": ...}]`: the rows themselves.
    - `path="data.jsonl"`: a local jsonl or parquet file, read once per process and again when it changes.
    - `dataset="..."`: a data set on the Hub, read once per process, with `name=None` (its configuration) and
      `split="train"`.
    - `prompt_column="prompt"`, `answer_column="answer"`: where the question and the gold answer are.
    - `answer_style="auto"`: how the answer is asked for and found: "answer_line" (`Answer: 34`), "boxed"
      (`\boxed{34}`), "hash" (`#### 34`), or "auto", which asks for an answer line and accepts a box too.
    - `correct_reward=1.0`, `wrong_reward=0.0`: see `TaskEnv`.

    ## Version History
    - v0: first version.
    """

    def __init__(
        self,
        *,
        rows: Sequence[Mapping[str, Any]] | None = None,
        path: str | os.PathLike[str] | None = None,
        dataset: str | None = None,
        name: str | None = None,
        split: str = "train",
        prompt_column: str = "prompt",
        answer_column: str = "answer",
        answer_style: str = "auto",
        correct_reward: float = 1.0,
        wrong_reward: float = 0.0,
    ) -> None:
        super().__init__(correct_reward=correct_reward, wrong_reward=wrong_reward)
        if answer_style not in ANSWER_STYLES:
            raise ValueError(f"answer_style={answer_style!r} must be one of {', '.join(ANSWER_STYLES)}")
        self.style = ANSWER_STYLES[answer_style]
        columns = prompt_column, answer_column
        source = one_source(rows=rows, path=path, dataset=dataset)
        self._questions: Sequence[Question]
        if source == "path":
            file = Path(os.fspath(path)).expanduser()  # type: ignore[arg-type]
            state = (file.stat().st_mtime_ns, file.stat().st_size) if file.is_file() else None
            self._questions = _file_questions(file.absolute(), state, *columns)
        elif source == "dataset":
            self._questions = _dataset_questions(str(dataset), name, split, *columns)
        else:
            self._questions = _questions(rows or (), "rows", *columns)
        self.num_rows = len(self._questions)

    def row(self, index: int) -> dict[str, Any]:
        question, gold = self._questions[index]
        return {"prompt": self.style.prompt(question), "answer": gold}

    def verify(self, row: Mapping[str, Any], completion: str) -> Judgement:
        return self.style.judge(completion, row["answer"], judge)


@lru_cache(maxsize=8)
def _file_questions(path: Path, state: object, prompt_column: str, answer_column: str) -> Sequence[Question]:
    """Read a file once; `state` changes when the file does."""
    return _questions(read_file(path), path.name, prompt_column, answer_column)


@lru_cache(maxsize=8)
def _dataset_questions(
    dataset: str, name: str | None, split: str, prompt_column: str, answer_column: str
) -> Sequence[Question]:
    return _questions(read_dataset(dataset, name, split), dataset, prompt_column, answer_column)


def _questions(
    rows: Iterable[Mapping[str, Any]], source: str, prompt_column: str, answer_column: str
) -> Sequence[Question]:
    """Read every row and check every gold answer, so that a bad one stops the run before it starts."""
    questions = []
    for number, row in enumerate(rows):
        question = column(row, number, source, prompt_column, "prompt_column", "a prompt")
        solution = column(row, number, source, answer_column, "answer_column", "a gold answer")
        gold = gold_answer(solution)
        try:
            _check_gold(gold)
        except ValueError as error:
            raise ValueError(f"row {number} of {source}: {error}") from error
        questions.append((question, gold))
    if not questions:
        raise ValueError(f"{source} has no rows: a task needs at least one")
    return tuple(questions)


_check_gold = lru_cache(maxsize=2**16)(check_gold)
