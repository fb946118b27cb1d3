"""`math/Arithmetic-v0`: endless sums and differences, from single digits to twelve."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..base import Judgement, TaskEnv
from ..verifiers.extraction import answer_line
from .answers import AnswerStyle
from .worked import Operation, worked_solution

MAX_LEVEL = 12
_TEST_SHARE = 8  # one problem in this many belongs to the test split
_INTEGER = re.compile(r"[$*\s]*(?P<minus>-?)(?P<digits>\d+|\d{1,3}(?:,\d{3})+)[$*.\s]*")

STYLE = AnswerStyle(
    template='Compute {question} digit by digit, then give the result as "Answer: <number>".',
    form='a line "Answer: <number>"',
    extract=answer_line,
)

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Problem:
    """`a operation b`, with non-negative operands and result."""

    a: int
    operation: Operation
    b: int

    @property
    def answer(self) -> int:
        return self.a + self.b if self.operation == "+" else self.a - self.b

    @property
    def prompt(self) -> str:
        return STYLE.prompt(f"{self.a} {self.operation} {self.b}")

    @property
    def split(self) -> Split:
        """The split this problem belongs to, whatever the settings; `a + b` and `b + a` belong together."""
        operands = sorted((self.a, self.b))
        return "test" if _entropy(self.operation, *operands) % _TEST_SHARE == 0 else "train"


class ArithmeticEnv(TaskEnv):
    """Add or subtract two whole numbers, working digit by digit.

    ## Description
    Every index is a problem, the same in every process and on every machine. Problems of the train and the
    test split are disjoint by construction: each problem belongs to one of them (about one in eight to
    test), for all settings. How hard they are is set by the number of digits: level 1 is trivial, level 12
    beyond small models.

    ## Action Space
    `UnicodeText`: the model's answer. Its last line of the form "Answer: 132" counts, outside of thinking.

    ## Observation Space
    `UnicodeText`: such as `Compute 47 + 85 digit by digit, then give the result as "Answer: <number>".`

    ## Reward
    `correct_reward` for the right number, else `wrong_reward`.

    ## Episode End
    After one step: terminated, or truncated if the action is a `Completion` with `finish_reason="length"`.

    ## Information
    `reset` and `step`: "index" and "level". `step`: also "verdict", "accuracy", "cause" and "rewards"; see
    `TaskEnv`.

    ## Arguments
    - `levels=(1, 2, 3, 4)`: digits of the larger operand, from 1 to 12, one level or several; each is drawn
      equally often. The other operand has from one digit to as many, each count drawn equally often before
      it is put in order.
    - `operations=("+", "-")`: any of them; differences are never negative.
    - `split="train"`: or "test".
    - `correct_reward=1.0`, `wrong_reward=0.0`: see `TaskEnv`.

    ## Version History
    - v0: first version.
    """

    num_rows = None

    def __init__(
        self,
        *,
        levels: int | Iterable[int] = (1, 2, 3, 4),
        operations: Operation | Iterable[Operation] = ("+", "-"),
        split: Split = "train",
        correct_reward: float = 1.0,
        wrong_reward: float = 0.0,
    ) -> None:
        super().__init__(correct_reward=correct_reward, wrong_reward=wrong_reward)
        self.levels = (levels,) if isinstance(levels, int) else tuple(levels)
        self.operations: tuple[Operation, ...] = tuple(operations)  # type: ignore[arg-type]
        self.split = split
        if not self.levels or any(type(level) is not int or not 1 <= level <= MAX_LEVEL for level in self.levels):
            raise ValueError(f"math/Arithmetic-v0: levels={levels!r} must be integers from 1 to {MAX_LEVEL} (digits)")
        if not self.operations or not set(self.operations) <= set(get_args(Operation)):
            raise ValueError(f"math/Arithmetic-v0: operations={operations!r} must be one or more of '+' and '-'")
        if split not in get_args(Split):
            raise ValueError(f"math/Arithmetic-v0: split={split!r} must be 'train' or 'test'")

    def problem(self, index: int) -> Problem:
        """Return the problem at `index`, at least 0."""
        seed = (self.split, self.levels, self.operations, index)
        entropy, pick = divmod(_entropy(*seed), len(self.levels))
        level = self.levels[pick]
        operation = self.operations[entropy % len(self.operations)]
        attempt = 0
        while (problem := _draw(level, operation, _entropy(*seed, attempt))).split != self.split:
            attempt += 1
        return problem

    def solution(self, index: int) -> str:
        """Return the worked solution of the problem at `index`: a line per digit, then the answer."""
        problem = self.problem(index)
        return worked_solution(problem.a, problem.operation, problem.b)

    def row(self, index: int) -> dict[str, Any]:
        problem = self.problem(index)
        level = len(str(max(problem.a, problem.b)))
        return {"prompt": problem.prompt, "answer": problem.answer, "info": {"level": level}}

    def verify(self, row: Mapping[str, Any], completion: str) -> Judgement:
        return STYLE.judge(completion, str(row["answer"]), _same_integer)


def _same_integer(answer: str, gold: str) -> Judgement:
    """Compare as text, because a hostile answer may have more digits than can be converted."""
    number = _INTEGER.fullmatch(answer)
    if number is None:
        return Judgement.of(False, f"{answer[:80]!r} is not one whole number")
    minus, digits = number["minus"], number["digits"].replace(",", "").lstrip("0")
    return Judgement.of((minus + digits if digits else "0") == gold)


def _draw(level: int, operation: Operation, entropy: int) -> Problem:
    """Draw the problem that `entropy` (256 bits, of which at most 90 are used) stands for."""
    entropy, larger = _draw_number(level, entropy)
    entropy, digits = divmod(entropy, level)
    entropy, smaller = _draw_number(digits + 1, entropy)
    smaller, larger = sorted((smaller, larger))
    if operation == "+" and entropy % 2:
        return Problem(smaller, operation, larger)
    return Problem(larger, operation, smaller)


def _draw_number(digits: int, entropy: int) -> tuple[int, int]:
    """Return what is left of `entropy`, and a number of that many digits (0 is one of those of one digit)."""
    least = 0 if digits == 1 else 10 ** (digits - 1)
    entropy, offset = divmod(entropy, 10**digits - least)
    return entropy, least + offset


def _entropy(*key: object) -> int:
    """Hash `key` to 256 bits, the same in every process and on every machine, unlike `hash`."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=32).digest(), "big")
