"""What ``k`` samples of each of some problems come to: every figure with its interval over problems."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .estimators import avg_at_k, interval, is_constant, maj_at_k, mean_of, pass_at_k, sizes, voted

_ARRAYS = ("accuracy", "lengths", "truncated", "verdicts", "answers")


@dataclass(frozen=True)
class Evaluation:
    """``k`` samples of each of ``P`` problems."""

    accuracy: np.ndarray
    """``[P, k]`` raw correctness in [0, 1]; NaN where it could not be told"""
    lengths: np.ndarray
    """``[P, k]`` tokens of the model's own"""
    truncated: np.ndarray
    """``[P, k]`` bool: cut off at the length limit"""
    verdicts: np.ndarray
    """``[P, k]`` str: how judging ended"""
    answers: np.ndarray
    """``[P, k]`` what the environment read as the answer, None where it names none"""
    levels: list[Any]
    """the environment's ``info["level"]`` of each problem, or None"""
    room: int
    """tokens that a completion may have"""

    @property
    def mean(self) -> float:
        """avg@k: the mean over problems of the mean over samples."""
        return mean_of(avg_at_k(self.accuracy))

    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of avg@k; see `estimators.interval`."""
        return interval(avg_at_k(self.accuracy))

    def by_level(self) -> dict[Any, float]:
        """avg@k of the problems of each level, in the order of the levels; empty without levels."""
        return {level: part.mean for level, part in self.levels_apart().items()}

    def levels_apart(self) -> dict[Any, Evaluation]:
        """The problems of each level, in the order of the levels."""
        found = {level for level in self.levels if level is not None}
        order = sorted(found) if len({type(level) for level in found}) == 1 else sorted(found, key=str)
        return {level: self.part([row for row, of in enumerate(self.levels) if of == level]) for level in order}

    def part(self, rows: Sequence[int]) -> Evaluation:
        """Some of the problems, by their places."""
        parts = {name: getattr(self, name)[rows] for name in _ARRAYS}
        return replace(self, **parts, levels=[self.levels[row] for row in rows])

    @property
    def ks(self) -> list[int]:
        """The numbers of samples for which pass@k and maj@k are given: powers of two, and all."""
        return sizes(self.accuracy.shape[1])

    def summary(self) -> dict[str, Any]:
        """The figures as plain data; beside each ``figure`` its ``figure_interval_95``, avg@k's in ``interval_95``."""
        problems, samples = self.accuracy.shape
        return plain(
            {
                "problems": problems,
                "samples": samples,
                "unscorable": int(np.isnan(self.accuracy).sum()),
                "accuracy": self.mean,
                "interval_95": self.interval(),
                "all_alike": is_constant(avg_at_k(self.accuracy)),
                **_figure("truncated", self.truncated.mean(axis=1)),
                **_figure("mean_length", self.lengths.mean(axis=1), bounds=(0.0, float(self.room))),
                "by_level": {str(level): value for level, value in self.by_level().items()},
                "verdicts": self.verdict_counts(),
                "by_k": self._by_k(),
                "levels": [part._of_level(level) for level, part in self.levels_apart().items()],
                "verdict_shares": [self._of_verdict(verdict) for verdict in self.verdict_counts()],
            }
        )

    def verdict_counts(self) -> dict[str, int]:
        """Samples of each verdict, the most frequent first."""
        return dict(Counter(self.verdicts.ravel().tolist()).most_common())

    def _by_k(self) -> list[dict[str, Any]]:
        """pass@k and maj@k; the latter is None where no answer was read: the environment names none, or the model never
        gave one."""
        majority = maj_at_k(self.accuracy, self.answers, self.ks) if voted(self.answers) else None
        return [
            {
                "k": k,
                **_figure("pass_at_k", pass_at_k(self.accuracy, k)),
                **_figure("maj_at_k", None if majority is None else majority[:, place]),
            }
            for place, k in enumerate(self.ks)
        ]

    def _of_level(self, level: Any) -> dict[str, Any]:
        problems, samples = self.accuracy.shape
        return {
            "level": level,
            "problems": problems,
            "accuracy": self.mean,
            "interval_95": self.interval(),
            **_figure("pass_at_k", pass_at_k(self.accuracy, samples)),
            "truncated": float(self.truncated.mean()),
            "mean_length": float(self.lengths.mean()),
        }

    def _of_verdict(self, verdict: str) -> dict[str, Any]:
        given = self.verdicts == verdict
        return {
            "verdict": verdict,
            "samples": int(given.sum()),
            **_figure("share", given.mean(axis=1)),
            "truncated": float(self.truncated[given].mean()),
            "mean_length": float(self.lengths[given].mean()),
        }


def merge(parts: Sequence[Evaluation]) -> Evaluation:
    """One evaluation from those of several processes, each of other problems."""
    arrays: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS}
    return replace(parts[0], **arrays, levels=[level for part in parts for level in part.levels])


def plain(value: Any) -> Any:
    """As JSON can hold it: NaN and infinity become null."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _figure(name: str, scores: np.ndarray | None, **options: Any) -> dict[str, Any]:
    """The mean of one figure per problem, with its interval; None for what there is not."""
    if scores is None:
        return {name: None, f"{name}_interval_95": None}
    return {name: mean_of(scores), f"{name}_interval_95": interval(scores, **options)}
