"""`math/Arithmetic-v0`: endless sums and differences, from single digits to twelve."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from ..base import Judgement
from ..verifiers.answer_extraction import answer_line
from .answers import AnswerStyle
from .procedural import ProceduralEnv, Split, entropy, same_integer, split_of
from .worked import Operation, worked_solution

STYLE = AnswerStyle(
    template='Compute {question} digit by digit, then give the result as "Answer: <number>".',
    form='a line "Answer: <number>"',
    extract=answer_line,
)


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
    def level(self) -> int:
        return len(str(max(self.a, self.b)))

    @property
    def split(self) -> Split:
        """The split this problem belongs to, whatever the settings; `a + b` and `b + a` belong together."""
        return split_of(self.operation, *sorted((self.a, self.b)))


class ArithmeticEnv(ProceduralEnv[Problem]):
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

    level_range = range(1, 13)
    level_unit = "digits"

    def __init__(
        self,
        *,
        levels: int | Iterable[int] = (1, 2, 3, 4),
        operations: Operation | Iterable[Operation] = ("+", "-"),
        split: Split = "train",
        correct_reward: float = 1.0,
        wrong_reward: float = 0.0,
    ) -> None:
        super().__init__(levels=levels, split=split, correct_reward=correct_reward, wrong_reward=wrong_reward)
        self.operations: tuple[Operation, ...] = tuple(operations)  # type: ignore[arg-type]
        self._settings += (self.operations,)
        if not self.operations or not set(self.operations) <= set(get_args(Operation)):
            raise ValueError(f"ArithmeticEnv: operations={operations!r} must be one or more of '+' and '-'")

    def draw(self, level: int, choice: int, key: tuple[object, ...]) -> Problem:
        operation = self.operations[choice % len(self.operations)]
        bits, larger = _draw_number(level, entropy(*key))
        bits, digits = divmod(bits, level)
        bits, smaller = _draw_number(digits + 1, bits)
        smaller, larger = sorted((smaller, larger))
        if operation == "+" and bits % 2:
            return Problem(smaller, operation, larger)
        return Problem(larger, operation, smaller)

    def solution(self, index: int) -> str:
        """Return the worked solution of the problem at `index`: a line per digit, then the answer."""
        problem = self.problem(index)
        return worked_solution(problem.a, problem.operation, problem.b)

    def verify(self, row: Mapping[str, Any], completion: str) -> Judgement:
        return STYLE.judge(completion, str(row["answer"]), same_integer)


def _draw_number(digits: int, bits: int) -> tuple[int, int]:
    """Return what is left of `bits`, and a number of that many digits (0 is one of those of one digit)."""
    least = 0 if digits == 1 else 10 ** (digits - 1)
    bits, offset = divmod(bits, 10**digits - least)
    return bits, least + offset
