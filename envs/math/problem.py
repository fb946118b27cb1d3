"""`math/Problem-v0`: mathematical problems from rows, each with a gold answer, and the well-known sets of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, get_args

from ..base import Judgement, TaskEnv
from ..rows import BadRows, Source
from ..verifiers.math.judge import judge
from .answers import ANSWER_STYLES
from .questions import Reading, read_questions


class ProblemEnv(TaskEnv):
    r"""Solve a problem from a list, a file or the Hub, and give one final answer.

    ## Description
    Every row has a question and a gold answer. A worked solution will do for the latter: what follows "####"
    (GSM8K), or else its last `\boxed{}` (MATH), is the gold answer, and the text as a whole if it has
    neither. A question may come as chat messages, of which the user's counts, and with the instructions of a known
    answer style, which are taken off. A gold answer that could never be matched is refused when the task is made,
    naming its row.

    The well-known data sets are registered with the arguments they need, as `envs.math.datasets` lists:
    `math/GSM8K-v0`, `math/MATH-v0`, `math/AIME2024-v0`, `math/AIME2025-v0` and `math/DAPO17k-v0`. They come from the
    Hub, or with `path=` or `rows=` from a copy with the same columns; `split=` picks one of their splits on the Hub.

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
    `reset` and `step`: "index", and "level" where a row has one. `step`: also "verdict", "accuracy", "cause" and
    "rewards"; see `TaskEnv`.

    ## Arguments
    Exactly one of the first three, or at most one for a registered data set:
    - `rows=[{"prompt": ..., "answer": ...}]`: the rows themselves.
    - `path="data.jsonl"`: a local jsonl or parquet file, read once per process and again when it changes.
    - `dataset="..."`: a data set on the Hub or a local folder of one, read once per process, with `name=None` (its
      configuration) and `split="train"`. A file has no splits: `split` is left out there.
    - `prompt_column="prompt"`, `answer_column="answer"`: where the question and the gold answer, or a worked solution
      that ends in it, are; a nested column has a dotted path, such as `reward_model.ground_truth`.
    - `level_column=None`: where the difficulty is, for info["level"]; "Level 3" becomes 3.
    - `answer_style="auto"`: how the answer is asked for and found: "answer_line" (`Answer: 34`), "dapo" (the same, in
      the DAPO paper's words), "boxed" (`\boxed{34}`), "hash" (`#### 34`), "auto", which asks for an answer line and
      accepts a box too, or "last_number", the last number of the text: for models too weak to keep to a form, and
      easier to game.
    - `deduplicate=False`: keep the first of the rows with the same question; with different gold answers they are
      bad rows.
    - `bad_rows="raise"`: refuse a source with a row that can not be used, or "skip" such rows with a warning.
    - `hub=None`: for registrations, where the rows are unless told otherwise: `{"dataset": ..., "name": ...,
      "splits": [...]}`, the first split being the default.
    - `correct_reward=1.0`, `wrong_reward=0.0`: see `TaskEnv`.

    ## Version History
    - v0: first version.
    """

    max_concurrency = "cores"

    def __init__(
        self,
        *,
        rows: Sequence[Mapping[str, Any]] | None = None,
        path: str | os.PathLike[str] | None = None,
        dataset: str | None = None,
        name: str | None = None,
        split: str | None = None,
        prompt_column: str = "prompt",
        answer_column: str = "answer",
        level_column: str | None = None,
        answer_style: str = "auto",
        deduplicate: bool = False,
        bad_rows: BadRows = "raise",
        hub: Mapping[str, Any] | None = None,
        correct_reward: float = 1.0,
        wrong_reward: float = 0.0,
    ) -> None:
        super().__init__(correct_reward=correct_reward, wrong_reward=wrong_reward)
        if answer_style not in ANSWER_STYLES:
            raise ValueError(f"answer_style={answer_style!r} must be one of {', '.join(ANSWER_STYLES)}")
        if bad_rows not in get_args(BadRows):
            raise ValueError(f"bad_rows={bad_rows!r} must be 'raise' or 'skip'")
        how = Reading(prompt_column, answer_column, level_column, deduplicate, bad_rows)
        source = Source.of(rows=rows, path=path, dataset=dataset, name=name, split=split, hub=hub)
        self.style = ANSWER_STYLES[answer_style]
        self._questions = source.read(read_questions, how)

    @property
    def num_rows(self) -> int:  # type: ignore[override]
        return len(self._questions)

    def row(self, index: int) -> dict[str, Any]:
        question, gold, level, _ = self._questions[index]
        info = {} if level is None else {"info": {"level": level}}
        return {"prompt": self.style.prompt(question), "answer": gold, **info}

    def verify(self, row: Mapping[str, Any], completion: str) -> Judgement:
        return self._judge(completion, row["answer"], self.style.question(row["prompt"]) or "")

    def solution(self, index: int) -> str:
        """Return the worked solution at `index`, if the rows have one, with the gold answer in the form that is asked
        for."""
        question = self._questions[index]
        answer = self.style.solution(question.gold)
        if question.worked is None:
            return answer
        worked = f"{question.worked}\n{answer}"
        return question.worked if self._judge(question.worked, question.gold, question.text).accuracy == 1 else worked

    def messages(self, index: int, *, system: bool = False) -> list[dict[str, str]]:
        """Return the prompt at `index` as chat messages; see `AnswerStyle.messages`."""
        return self.style.messages(self._questions[index].text, system=system)

    def _judge(self, completion: str, gold: str, question: str) -> Judgement:
        return self.style.judge(completion, gold, partial(judge, question=question))
