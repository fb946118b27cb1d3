"""`sql/Shop-v0`: write a query that answers a question about a shop."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any, get_args

from envs import Judgement, TaskEnv, Verdict

from .questions import SHOPS, Split, questions
from .shop import SCHEMA, Table, TooLong, query

_FENCE = "```sql\n"


class ShopEnv(TaskEnv):
    """Answer a question about a shop with one SQLite query.

    ## Description
    The prompt has the tables and a question. The query is run on several shops with other contents, and is right if it
    returns on each of them what the question's own query returns: the same rows, in the same order where the question
    asks for one. It can read the shop and nothing else, within a bound on its steps.

    ## Action Space
    `UnicodeText`: the model's answer; its last block fenced by "```sql" and "```" counts, outside of thinking.

    ## Observation Space
    `UnicodeText`: the tables, the question, and how to answer.

    ## Reward
    `correct_reward` for a right query, else `wrong_reward`.

    ## Episode End
    After one step: terminated, or truncated if the action is a `Completion` with `finish_reason="length"`.

    ## Information
    `reset` and `step`: "index". `step`: also "verdict", "accuracy", "cause" and "rewards"; see `TaskEnv`.

    ## Arguments
    - `split="train"`: or "test", which has other questions.
    - `correct_reward=1.0`, `wrong_reward=0.0`: see `TaskEnv`.

    ## Version History
    - v0: first version.
    """

    def __init__(self, *, split: Split = "train", correct_reward: float = 1.0, wrong_reward: float = 0.0) -> None:
        super().__init__(correct_reward=correct_reward, wrong_reward=wrong_reward)
        if split not in get_args(Split):
            raise ValueError(f"sql/Shop-v0: split={split!r} must be 'train' or 'test'")
        self._questions = questions(split)
        self.num_rows = len(self._questions)

    def row(self, index: int) -> dict[str, Any]:
        question = self._questions[index]
        prompt = (
            f"A shop keeps its records in these tables:\n\n{SCHEMA}\n{question.text}\n\nThink it through, then give "
            "one SQLite query that returns the answer and nothing else, between ```sql and ```."
        )
        return {"prompt": prompt, "question": question}

    def solution(self, index: int) -> str:
        return f"{_FENCE}{self._questions[index].sql}\n```"

    def verify(self, row: Mapping[str, Any], completion: str) -> Judgement:
        sql = _last_block(completion)
        if sql is None:
            return Judgement.of(Verdict.NO_ANSWER, "there is no block between ```sql and ``` after the thinking")
        question = row["question"]
        try:
            return Judgement.of(
                all(
                    _comparable(query(sql, shop), question.ordered)
                    == _comparable(query(question.sql, shop), question.ordered)
                    for shop in SHOPS
                )
            )
        except TooLong as error:
            return Judgement.of(Verdict.TIMEOUT, str(error))
        except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:  # ValueError: a null byte
            return Judgement.of(Verdict.CRASH, f"SQLite refuses the query: {error}")


def _last_block(completion: str) -> str | None:
    """Return the last fenced query after the thinking, None if there is none or the thinking never ends."""
    text = completion.rpartition("</think>")[2]
    before, closed, _ = text.rpartition("\n```")
    _, opened, sql = before.rpartition(_FENCE)
    return sql if opened and closed and "<think>" not in text else None


def _comparable(table: Table, ordered: bool) -> list[tuple[str, ...]]:
    """Write the rows as text, numbers to 6 digits behind the point, and sort them if their order does not matter."""
    rows = [tuple(f"{value:.6f}" if isinstance(value, (int, float)) else repr(value) for value in row) for row in table]
    return rows if ordered else sorted(rows)
