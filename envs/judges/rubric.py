"""The questions that a judge answers: criteria with weights, and how several votes on them become one score."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ..numeric import is_count, is_number
from ..text import brief

Scores = Mapping[str, int]
"""One vote: for each criterion its points, or a bool where the question is one of yes or no."""
_NAME = re.compile(r"[A-Za-z_][\w-]{0,39}", re.ASCII)
_MAX_POINTS = 100


@dataclass(frozen=True)
class Criterion:
    """A question about an answer.

    Attributes:
        name: A word, by which the judge names it in its reply.
        ask: The question.
        weight: Its share of the whole, relative to the other weights.
        points: It is answered with an integer from 0 to this number; None: with yes or no.

    Raises:
        ValueError: One of these is something else.
    """

    name: str
    ask: str
    weight: float = 1.0
    points: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ValueError(
                f"rubric: the criterion {brief(self.name)} must have a name of up to 40 letters, digits, '_' and '-'"
            )
        place = f"rubric: criterion {self.name!r} has"
        if not isinstance(self.ask, str) or not self.ask.strip():
            raise ValueError(f"{place} ask={brief(self.ask)}: it must be a question, as text")
        if isinstance(self.weight, bool) or not is_number(self.weight) or not float(self.weight) > 0:
            raise ValueError(f"{place} weight={brief(self.weight)}: it must be a number above 0")
        if self.points is not None and not (is_count(self.points) and self.points <= _MAX_POINTS):
            raise ValueError(
                f"{place} points={brief(self.points)}: it must be an integer from 1 to {_MAX_POINTS}, or None for a "
                "question of yes or no"
            )

    @property
    def most(self) -> int:
        """The highest score."""
        return self.points or 1

    def shown(self, score: int) -> str:
        """A score in words: "brief yes", "reason 7/10"."""
        return f"{self.name} {('no', 'yes')[score] if self.points is None else f'{score}/{self.points}'}"


@dataclass(frozen=True)
class Rubric:
    """One or more criteria with different names."""

    criteria: tuple[Criterion, ...]

    @classmethod
    def of(cls, given: Any) -> Rubric:
        """Read a rubric from a setting.

        Args:
            given: A mapping from the name of each criterion to its question, or to a mapping of `Criterion`'s
                attributes: `{"reason": {"ask": "Does it ...?", "points": 10, "weight": 3}, "brief": "Is it ...?"}`;
                or a sequence of criteria.

        Raises:
            ValueError: It is something else, or a criterion is wrong.
        """
        if isinstance(given, Rubric):
            return given
        if isinstance(given, Mapping):
            criteria = tuple(_criterion(name, value) for name, value in given.items())
        elif isinstance(given, Sequence) and not isinstance(given, str):
            criteria = tuple(given)
        else:
            criteria = ()
        if not criteria or not all(isinstance(one, Criterion) for one in criteria):
            raise ValueError(
                f"rubric={brief(given)} must name at least one criterion with its question, as in "
                '{"reason": "Does the answer give the reason?"}'
            )
        names = [one.name for one in criteria]
        if len(set(names)) < len(names):
            raise ValueError(f"rubric: the names {', '.join(names)} must be different")
        return cls(criteria)

    def as_data(self) -> dict[str, dict[str, Any]]:
        """The rubric as `of` reads it, for JSON."""
        return {one.name: {"ask": one.ask, "weight": float(one.weight), "points": one.points} for one in self.criteria}

    def read(self, given: Any) -> dict[str, int]:
        """Read the scores of a vote: for each criterion `true` or `false`, or an integer in its range.

        Raises:
            ValueError: Anything else; nothing is guessed.
        """
        names = {one.name for one in self.criteria}
        if not isinstance(given, Mapping) or set(given) != names:
            raise ValueError(f"the scores are {brief(given)}, and not those of {', '.join(sorted(names))}")
        for one in self.criteria:
            score = given[one.name]
            fits = isinstance(score, bool) if one.points is None else is_count(score, 0) and score <= one.points
            if not fits:
                form = "true or false" if one.points is None else f"an integer from 0 to {one.points}"
                raise ValueError(f"the score of {one.name} is {brief(score)}, and not {form}")
        return {one.name: given[one.name] for one in self.criteria}

    def middle(self, votes: Sequence[Scores]) -> dict[str, int]:
        """For each criterion the median of the votes, of two in the middle the lower: a majority of yes and no."""
        return {one.name: statistics.median_low([vote[one.name] for vote in votes]) for one in self.criteria}

    def total(self, scores: Scores) -> float:
        """The weighted mean of the scores, each as a share of its highest: in [0, 1]."""
        earned = sum(one.weight * (scores[one.name] / one.most) for one in self.criteria)
        total = sum(one.weight for one in self.criteria)
        return 1.0 if all(scores[one.name] == one.most for one in self.criteria) else float(earned / total)

    def shown(self, scores: Scores) -> str:
        """The scores in words."""
        return ", ".join(one.shown(scores[one.name]) for one in self.criteria)


def _criterion(name: Any, value: Any) -> Criterion:
    if not isinstance(value, Mapping):
        return Criterion(name, value)
    known = [item.name for item in fields(Criterion) if item.name != "name"]
    if "ask" not in value or (unknown := sorted(map(str, set(value) - set(known)))):
        fault = "has no 'ask'" if "ask" not in value else f"has unknown keys {unknown}"
        raise ValueError(f"rubric: criterion {brief(name)} {fault}: it takes {', '.join(known)}")
    return Criterion(name, **value)
