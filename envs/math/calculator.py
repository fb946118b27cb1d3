"""`math/Calculator-v0`: long calculations with a calculator at hand, a task of many turns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ..base import Judgement
from ..verifiers.answer_extraction import after_thinking, answer_line
from .answers import AnswerStyle
from .procedural import ProceduralEnv, Split, draws, same_integer, split_of

_OPERATIONS = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
_SIGNS = str.maketrans("−–×·⋅", "--***")
_MOST_DIGITS = 150  # of an operand: more than any of these tasks comes to, and nothing to work on for long
_CALL = re.compile(r"<calc>([^<>]*)</calc>\s*\Z")
_EXPRESSION = re.compile(rf"\s*(-?\d{{1,{_MOST_DIGITS}}})\s*([-+*])\s*(-?\d{{1,{_MOST_DIGITS}}})\s*", re.ASCII)

STYLE = AnswerStyle(
    template=(
        "Compute {question}.\n\nYou have a calculator for one operation (+, - or *) on two whole numbers: end a "
        "message with <calc>12 * 34</calc> and its result is the next message. When you know the value, give it as "
        '"Answer: <number>".'
    ),
    form='a line "Answer: <number>"',
    extract=answer_line,
)


@dataclass(frozen=True)
class Problem:
    """`((a op b) op c) ...`, worked from the inside out."""

    numbers: tuple[int, ...]
    operations: str
    """a sign between each two numbers"""

    @property
    def values(self) -> list[int]:
        """The first number, and what it is after each operation."""
        values = [self.numbers[0]]
        for sign, number in zip(self.operations, self.numbers[1:], strict=True):
            values.append(_OPERATIONS[sign](values[-1], number))
        return values

    @property
    def answer(self) -> int:
        return self.values[-1]

    @property
    def prompt(self) -> str:
        text = str(self.numbers[0])
        for sign, number in zip(self.operations, self.numbers[1:], strict=True):
            text = f"({text}) {sign} {number}" if " " in text else f"{text} {sign} {number}"
        return STYLE.prompt(text)

    @property
    def level(self) -> int:
        return len(self.operations)

    @property
    def split(self) -> Split:
        """The split this problem belongs to, whatever the settings; `a * b` and `b * a` belong together."""
        first, second, *rest = self.numbers
        if self.operations[0] != "-":
            first, second = sorted((first, second))
        return split_of(self.operations, first, second, *rest)


class CalculatorEnv(ProceduralEnv[Problem]):
    """Work out an expression of large whole numbers, one operation at a time, with a calculator.

    ## Description
    Every index is a problem, the same in every process and on every machine; each problem belongs to either the train
    or the test split, for all settings. A message that ends with `<calc>a * b</calc>` is a call: the
    environment replies with the result, or with what was wrong with the call, and the model goes on. Any other message
    ends the episode and is judged. Knowing when to call and what to do with the results is what is learnt.

    ## Action Space
    `UnicodeText`: a message that ends with a call, or one with a line "Answer: <number>".

    ## Observation Space
    `UnicodeText`: the expression and how to use the calculator; later the calculator's replies, such as
    `Result: 408`.

    ## Reward
    0 for a call. In the end `correct_reward` for the right number, else `wrong_reward`.

    ## Episode End
    With the first message that is no call, or the turn after `4 * level` calls: terminated; truncated if the action is
    a `Completion` with `finish_reason="length"`.

    ## Information
    `reset` and `step`: "index" and "level". The last `step`: also "verdict", "accuracy", "cause" and "rewards"; see
    `TaskEnv`.

    ## Arguments
    - `levels=(1, 2, 3)`: operations in the expression, from 1 to 8, one level or several, each drawn equally often.
    - `digits=4`: of every number in it, from 2 to 12.
    - `split="train"`: or "test".
    - `correct_reward=1.0`, `wrong_reward=0.0`: see `TaskEnv`.

    ## Version History
    - v0: first version.
    """

    level_range = range(1, 9)
    level_unit = "operations"

    def __init__(
        self,
        *,
        levels: int | Iterable[int] = (1, 2, 3),
        digits: int = 4,
        split: Split = "train",
        correct_reward: float = 1.0,
        wrong_reward: float = 0.0,
    ) -> None:
        super().__init__(levels=levels, split=split, correct_reward=correct_reward, wrong_reward=wrong_reward)
        if type(digits) is not int or not 2 <= digits <= 12:
            raise ValueError(f"CalculatorEnv: digits={digits!r} must be an integer from 2 to 12")
        self.digits = digits
        self._settings += (digits,)
        self.max_turns = 4 * max(self.levels) + 1

    def draw(self, level: int, choice: int, key: tuple[object, ...]) -> Problem:
        least = 10 ** (self.digits - 1)
        *numbers, signs = islice(draws(*key), level + 2)
        operations = "".join("+-*"[signs // 3**place % 3] for place in range(level))
        return Problem(tuple(least + number % (9 * least) for number in numbers), operations)

    def reply(self, row: Mapping[str, Any], turns: Sequence[str]) -> str | None:
        call = _call(turns[-1])
        if call is None or len(turns) > 4 * row["info"]["level"]:
            return None
        return f"Result: {calculate(call)}\n"

    def verify(self, row: Mapping[str, Any], completion: str) -> Judgement:
        return STYLE.judge(completion, str(row["answer"]), same_integer)

    def dialogue(self, index: int) -> list[str]:
        """Return the turns of a model that calculates everything and then answers."""
        problem = self.problem(index)
        steps = zip(problem.values, problem.operations, problem.numbers[1:], strict=False)
        return [
            *(f"<calc>{value} {sign} {number}</calc>" for value, sign, number in steps),
            f"Answer: {problem.answer}",
        ]


def calculate(call: str) -> str:
    """Return the result of one operation on two whole numbers as text, or what is wrong with the call."""
    match = _EXPRESSION.fullmatch(call.translate(_SIGNS))
    if match is None:
        return "none, the calculator takes one operation (+, - or *) on two whole numbers"
    return str(_OPERATIONS[match[2]](int(match[1]), int(match[3])))


def _call(message: str) -> str | None:
    """Return what a message asks of the calculator, None if it does not end with a call outside of thinking."""
    text = after_thinking(message)
    match = None if text is None else _CALL.search(text)
    return match and match[1]
