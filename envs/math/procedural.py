"""What endless, generated tasks share: problems by index, disjoint splits, and whole numbers compared exactly."""

from __future__ import annotations

import hashlib
import operator
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import count
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar, get_args

from ..base import Judgement, TaskEnv
from ..verifiers.answer_extraction import unwrapped

Split = Literal["train", "test"]

_TEST_SHARE = 8  # one problem in this many belongs to the test split
_INTEGER = re.compile(r"\s*(?P<minus>-?)(?P<digits>\d+|\d{1,3}(?:,\d{3})+)\s*")


class Problem(Protocol):
    """What a generated problem says of itself."""

    @property
    def prompt(self) -> str: ...

    @property
    def answer(self) -> int | str: ...

    @property
    def level(self) -> int: ...

    @property
    def split(self) -> Split: ...


AnyProblem = TypeVar("AnyProblem", bound=Problem)


class ProceduralEnv(TaskEnv, Generic[AnyProblem]):
    """A task without end in which every index is a problem, the same in every process and on every machine.

    A problem belongs to the train or the test split by the hash of the problem itself (see `split_of`), so that
    the splits are disjoint for all settings. A new task sets `level_range` and `level_unit` and writes `draw` and
    `verify`.

    Args:
        levels: How hard the problems are, one level or several; each is drawn equally often.
        split: "train" or "test".
        correct_reward: See `TaskEnv`.
        wrong_reward: See `TaskEnv`.

    Raises:
        ValueError: A level is out of range, or there is no such split.
    """

    num_rows = None
    level_range: ClassVar[range]
    level_unit: ClassVar[str]
    """What a level counts, for messages."""

    def __init__(
        self, *, levels: int | Iterable[int], split: Split, correct_reward: float = 1.0, wrong_reward: float = 0.0
    ) -> None:
        super().__init__(correct_reward=correct_reward, wrong_reward=wrong_reward)
        self.levels = tuple(levels) if isinstance(levels, Iterable) else (levels,)
        self.split = split
        self._settings: tuple[object, ...] = (split, self.levels)
        name, span = type(self).__name__, self.level_range
        if not self.levels or any(type(level) is not int or level not in span for level in self.levels):
            raise ValueError(
                f"{name}: levels={levels!r} must be one or more integers from {span[0]} to {span[-1]} "
                f"({self.level_unit})"
            )
        if split not in get_args(Split):
            raise ValueError(f"{name}: split={split!r} must be 'train' or 'test'")

    @abstractmethod
    def draw(self, level: int, choice: int, key: tuple[object, ...]) -> AnyProblem | None:
        """Draw the problem that `key` stands for, or None if that one will not do.

        Args:
            level: Its level.
            choice: 256 bits, the same for every attempt at one index: what must not depend on the split.
            key: What to hash (`entropy`, `draws`); another one for every attempt.
        """

    def problem(self, index: int) -> AnyProblem:
        """Return the problem at `index`, at least 0."""
        key = (*self._settings, operator.index(index))  # a NumPy integer has another repr
        choice, pick = divmod(entropy(*key), len(self.levels))
        for attempt in count():
            problem = self.draw(self.levels[pick], choice, (*key, attempt))
            if problem is not None and problem.split == self.split:
                return problem
        raise AssertionError("count() never ends")

    def row(self, index: int) -> dict[str, Any]:
        problem = self.problem(index)
        return {"prompt": problem.prompt, "answer": problem.answer, "info": {"level": problem.level}}


def split_of(*problem: object) -> Split:
    """Return the split that a problem belongs to, by its hash: one in eight is for the test."""
    return "test" if entropy(*problem) % _TEST_SHARE == 0 else "train"


def entropy(*key: object) -> int:
    """Hash `key` to 256 bits, the same in every process and on every machine, unlike `hash`."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=32).digest(), "big")


def draws(*key: object) -> Iterator[int]:
    """Yield an endless sequence of 256-bit numbers that depends on `key` alone."""
    seed = entropy(*key)
    return (entropy(seed, number) for number in count())


def same_integer(answer: str, gold: str) -> Judgement:
    """Whether `answer` is the whole number `gold`; compared as text, because a hostile answer may be endless."""
    number = _INTEGER.fullmatch(unwrapped(answer).replace("−", "-"))
    if number is None:
        return Judgement.of(False, f"{answer[:80]!r} is not one whole number")
    minus, digits = number["minus"], number["digits"].replace(",", "").lstrip("0")
    value = minus + digits if digits else "0"
    return replace(Judgement.of(value == gold), details={"answer": value})
