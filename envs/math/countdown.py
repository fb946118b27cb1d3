"""`math/Countdown-v0`: reach a target number from given numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import permutations
from math import prod
from typing import Any

from ..base import Judgement
from ..verifiers.answer_extraction import answer_line, unwrapped
from .answers import AnswerStyle
from .expression import ExpressionError, parse_expression
from .procedural import ProceduralEnv, Split, draws, split_of

_MAX_NUMBER = 99
_TARGETS = range(10, 1000)


STYLE = AnswerStyle(
    template='{question} Think step by step, then give it as "Answer: <expression>".',
    form='a line "Answer: <expression>"',
    extract=answer_line,
)


@dataclass(frozen=True)
class Countdown:
    """Numbers, a target, and one way to reach it with all of them."""

    numbers: tuple[int, ...]
    target: int
    answer: str

    @property
    def level(self) -> int:
        return len(self.numbers)

    @property
    def prompt(self) -> str:
        numbers = f"{', '.join(map(str, self.numbers[:-1]))} and {self.numbers[-1]}"
        return STYLE.prompt(
            f"Using the numbers {numbers}, each at most once, write an expression with +, -, *, / and parentheses "
            f"that equals {self.target}."
        )

    @property
    def split(self) -> Split:
        """The split this problem belongs to, whatever the settings and the order of its numbers."""
        return split_of("countdown", self.target, *sorted(self.numbers))


class CountdownEnv(ProceduralEnv[Countdown]):
    """Reach a target with given numbers, each used at most once, and + - * /.

    ## Description
    The answer is an expression, and any expression that equals the target will do. It is worked out with exact
    fractions and has whole numbers, the four operations and parentheses in it, nothing else: no signs, powers or
    digits put together to a new number. Operations may be written × · ÷ − or in LaTeX, and "= 65" after the
    expression is read over if 65 is the target.

    Every problem has a solution with all of its numbers. None is reached with one or two of them, nor by simply
    adding or multiplying them all.

    Every index is a problem, the same in every process and on every machine. Problems of the train and the
    test split are disjoint by construction: each problem belongs to one of them (about one in eight to
    test), for all settings and in any order of its numbers.

    ## Action Space
    `UnicodeText`: the model's answer. Its last line of the form "Answer: (55 - 36) * 7" counts, outside of thinking.

    ## Observation Space
    `UnicodeText`: the numbers (1 to 99), the target (10 to 999), and how to answer.

    ## Reward
    `correct_reward` for an expression that equals the target with the given numbers, each used at most as often as
    it is given, else `wrong_reward`. Coming close earns nothing.

    ## Episode End
    After one step: terminated, or truncated if the action is a `Completion` with `finish_reason="length"`.

    ## Information
    `reset` and `step`: "index" and "level". `step`: also "verdict", "accuracy", "cause" and "rewards"; see
    `TaskEnv`.

    ## Arguments
    - `levels=(3, 4)`: how many numbers are given, from 3 to 6, one level or several; each is drawn equally often.
    - `split="train"`: or "test".
    - `correct_reward=1.0`, `wrong_reward=0.0`: see `TaskEnv`.

    ## Version History
    - v0: first version.
    """

    level_range = range(3, 7)
    level_unit = "numbers"

    def __init__(
        self,
        *,
        levels: int | Iterable[int] = (3, 4),
        split: Split = "train",
        correct_reward: float = 1.0,
        wrong_reward: float = 0.0,
    ) -> None:
        super().__init__(levels=levels, split=split, correct_reward=correct_reward, wrong_reward=wrong_reward)

    def draw(self, level: int, choice: int, key: tuple[object, ...]) -> Countdown | None:
        bits = draws("countdown", *key)
        numbers = tuple(1 + next(bits) % _MAX_NUMBER for _ in range(level))
        target, expression = _combine(numbers, bits)
        done = target in _TARGETS and not _is_easy(numbers, target)
        return Countdown(numbers, target, expression) if done else None

    def row(self, index: int) -> dict[str, Any]:
        problem = self.problem(index)
        return {**super().row(index), "numbers": problem.numbers, "target": problem.target}

    def verify(self, row: Mapping[str, Any], completion: str) -> Judgement:
        def compare(answer: str, _: str) -> Judgement:
            judgement = _reaches(answer, row["numbers"], row["target"])
            return replace(judgement, details={"answer": "".join(answer.split())})

        return STYLE.judge(completion, row["answer"], compare)


def _reaches(answer: str, numbers: tuple[int, ...], target: int) -> Judgement:
    answer, equals, value = unwrapped(answer).partition("=")
    if equals and value.strip(" $") != str(target):
        return Judgement.of(False, f'what comes after "=" is not the target {target}')
    try:
        expression = parse_expression(answer)
    except ExpressionError as error:
        return Judgement.of(False, f"the answer can not be read: {error}")
    if added := Counter(expression.numbers) - Counter(numbers):
        return Judgement.of(False, f"it uses {min(added)} more often than it is given")
    if expression.value != target:
        return Judgement.of(False, f"it equals {expression.value}")
    return Judgement.of(True)


def _combine(numbers: tuple[int, ...], bits: Iterator[int]) -> tuple[int, str]:
    """Put all numbers together by random operations whose results are whole and positive."""
    parts = [(number, str(number)) for number in numbers]
    while len(parts) > 1:
        pair = [parts.pop(next(bits) % len(parts)) for _ in range(2)]
        (a, left), (b, right) = sorted(pair, reverse=True)
        results = _results(a, b)
        sign = list(results)[next(bits) % len(results)]
        text = f"{left} {sign} {right}"
        parts.append((results[sign], f"({text})" if parts else text))
    return parts[0]


def _results(a: int, b: int) -> dict[str, int]:
    """Return what `a`, the larger one, and `b` come to by each operation that is not in vain."""
    results = {"+": a + b}
    if a > b:
        results["-"] = a - b
    if b > 1:
        results["*"] = a * b
        if a % b == 0:
            results["/"] = a // b
    return results


def _is_easy(numbers: tuple[int, ...], target: int) -> bool:
    """Whether one or two of the numbers reach the target, or the sum or the product of all of them does."""
    if target in numbers or target in (sum(numbers), prod(numbers)):
        return True
    return any(target in (a + b, a - b, a * b) or a == target * b for a, b in permutations(numbers, 2))
