"""`math/Chain-v0`: a running total over a list of small steps, from one step to sixty-four."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..base import Judgement
from ..verifiers.answer_extraction import answer_line
from .answers import AnswerStyle
from .procedural import ProceduralEnv, Split, draws, same_integer, split_of

MODULUS = 1000
_FACTORS = (3, 7, 9)  # without a factor in common with 1000: no total is likelier than another

Corrupt = Callable[[int, int], int]
"""`corrupt(step, total) -> total`: what a step writes instead; step 0 is the first."""

STYLE = AnswerStyle(
    template='{question}\nWrite a line for each step, then give the result as "Answer: <number>".',
    form='a line "Answer: <number>"',
    extract=answer_line,
)


@dataclass(frozen=True)
class Step:
    """Add, subtract or multiply by one digit, and keep the last three digits."""

    operation: Literal["+", "-", "*"]
    operand: int

    def __call__(self, total: int) -> int:
        if self.operation == "*":
            return total * self.operand % MODULUS
        return (total + (self.operand if self.operation == "+" else -self.operand)) % MODULUS

    def __str__(self) -> str:
        return f"{self.operation}{self.operand}"


@dataclass(frozen=True)
class Chain:
    """Steps to be done one after another, from a number of at most three digits; no total is ever negative."""

    start: int
    steps: tuple[Step, ...]

    @property
    def answer(self) -> int:
        total = self.start
        for step in self.steps:
            total = step(total)
        return total

    @property
    def level(self) -> int:
        return len(self.steps)

    @property
    def prompt(self) -> str:
        steps = "\n".join(f"{number}: {step}" for number, step in enumerate(self.steps, 1))
        ask = f"Start with {self.start} and do these steps in order, keeping only the last three digits of each result:"
        return STYLE.prompt(f"{ask}\n{steps}")

    @property
    def split(self) -> Split:
        """The split this problem belongs to, whatever the settings."""
        return split_of("chain", self.start, *map(str, self.steps))


class ChainEnv(ProceduralEnv[Chain]):
    """Follow a list of small steps with a running total, and give the last one.

    ## Description
    Every step adds or subtracts a digit, or multiplies by 3, 7 or 9, and keeps the last three digits. No step is
    hard; what is hard is to make no slip in many of them, because one slip changes every total that follows. The
    length of a solution is proportional to the number of steps, which is the level: the default levels double each
    time, so that lengths have a long tail and, for a given model, some levels are easy, some hopeless. All of the
    thousand totals are about equally likely as the answer.

    Every index is a problem, the same in every process and on every machine. Problems of the train and the
    test split are disjoint by construction: each problem belongs to one of them (about one in eight to
    test), for all settings.

    ## Action Space
    `UnicodeText`: the model's answer. Its last line of the form "Answer: 917" counts, outside of thinking.

    ## Observation Space
    `UnicodeText`: the first number, a numbered line for each step (such as `2: *7`), and how to answer.

    ## Reward
    `correct_reward` for the right number, else `wrong_reward`. The steps written down are not looked at.

    ## Episode End
    After one step: terminated, or truncated if the action is a `Completion` with `finish_reason="length"`.

    ## Information
    `reset` and `step`: "index" and "level". `step`: also "verdict", "accuracy", "cause" and "rewards"; see
    `TaskEnv`.

    ## Arguments
    - `levels=(2, 4, 8, 16, 32)`: number of steps, from 1 to 64, one level or several; each is drawn equally often.
    - `split="train"`: or "test".
    - `correct_reward=1.0`, `wrong_reward=0.0`: see `TaskEnv`.

    ## Version History
    - v0: first version.
    """

    level_range = range(1, 65)
    level_unit = "steps"

    def __init__(
        self,
        *,
        levels: int | Iterable[int] = (2, 4, 8, 16, 32),
        split: Split = "train",
        correct_reward: float = 1.0,
        wrong_reward: float = 0.0,
    ) -> None:
        super().__init__(levels=levels, split=split, correct_reward=correct_reward, wrong_reward=wrong_reward)

    def draw(self, level: int, choice: int, key: tuple[object, ...]) -> Chain:
        numbers = draws("chain", *key)
        total = start = next(numbers) % MODULUS
        steps: list[Step] = []
        for number in (next(numbers) for _ in range(level)):
            number, kind = divmod(number, 3)
            if kind == 2:
                step = Step("*", _FACTORS[number % len(_FACTORS)])
            else:
                operand = 1 + number % 9
                step = Step("-" if kind == 1 and operand <= total else "+", operand)
            steps.append(step)
            total = step(total)
        return Chain(start, tuple(steps))

    def solution(self, index: int) -> str:
        """Return the worked solution of the problem at `index`: a line per step, then the answer."""
        return worked_chain(self.problem(index))

    def verify(self, row: Mapping[str, Any], completion: str) -> Judgement:
        return STYLE.judge(completion, str(row["answer"]), same_integer)


def worked_chain(chain: Chain, *, corrupt: Corrupt | None = None) -> str:
    """Write a line for each step, such as `2: 884+8=892`, each going on from the one before, and the answer.

    Args:
        chain: The problem.
        corrupt: Called at every step with the total it should write; what it returns is written instead, and the
            steps after it go on from there.

    Raises:
        ValueError: `corrupt` returned no number from 0 to 999.
    """
    lines = []
    total = chain.start
    for index, step in enumerate(chain.steps):
        before, total = total, step(total)
        if corrupt is not None:
            total = corrupt(index, total)
            if total not in range(MODULUS):
                raise ValueError(f"corrupt returned {total!r}: a number from 0 to {MODULUS - 1}")
        lines.append(f"{index + 1}: {before}{step}={total}")
    return "\n".join([*lines, f"Answer: {total}"])
