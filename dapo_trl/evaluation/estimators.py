"""Accuracy from a few samples of each problem, with its uncertainty: avg@k, pass@k, maj@k and their intervals.

Pure functions of NumPy arrays, with one figure for each problem. Chance draws problems: samples of one problem resemble
each other, so an interval resamples problems, never samples.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np

from ..monitor.trend import student_quantile

MAX_SAMPLES = 1024
"""Most samples of a problem; with more, the number of subsets does not fit a float."""
RESAMPLES = 4000
FEW = 10
"""Number of problems below which an interval allows for what was not seen."""
_NORMAL = NormalDist()


def avg_at_k(accuracy: np.ndarray) -> np.ndarray:
    """Mean accuracy of each problem.

    Args:
        accuracy: ``[P, n]`` in [0, 1]; NaN for a sample that could not be scored.

    Returns:
        ``[P]``; NaN for a problem without a scored sample.
    """
    scored = ~np.isnan(accuracy)
    return _ratio(np.where(scored, accuracy, 0.0).sum(axis=1), scored.sum(axis=1))


def pass_at_k(accuracy: np.ndarray, k: int) -> np.ndarray:
    """Chance that at least one of ``k`` samples is right (accuracy 1), from ``n >= k`` of them.

    The unbiased estimator ``1 - C(n - c, k) / C(n, k)`` with ``c`` right samples (Chen et al. 2021, arXiv 2107.03374).

    Args:
        accuracy: ``[P, n]``; NaN for a sample that could not be scored, which is not counted in ``n``.
        k: at least 1.

    Returns:
        ``[P]``; NaN for a problem with fewer than ``k`` scored samples.
    """
    scored, right = (~np.isnan(accuracy)).sum(axis=1), (accuracy == 1.0).sum(axis=1)
    steps = np.arange(k)
    with np.errstate(divide="ignore", invalid="ignore"):  # C(n - c, k) / C(n, k), factor by factor
        factors = 1.0 - right[:, None] / np.maximum(scored[:, None] - steps, 0)
    none_right = np.prod(np.clip(factors, 0.0, 1.0), axis=1)
    return np.where(scored >= k, 1.0 - none_right, np.nan)


def maj_at_k(accuracy: np.ndarray, answers: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """Expected accuracy of the answer that most of ``k`` samples give: the mean over all subsets of ``k`` samples.

    A tie is decided by lot. A sample without an answer has no vote; a subset without any vote is wrong. Equal answers
    are one: their accuracy is the mean of theirs.

    Args:
        accuracy: ``[P, n]``, ``n`` at most `MAX_SAMPLES`; NaN for a sample that could not be scored: left out.
        answers: ``[P, n]`` hashable objects; None for no answer.
        ks: sizes of the subsets, each at least 1.

    Returns:
        ``[P, len(ks)]``; NaN where a problem has fewer than ``k`` scored samples.
    """
    found = np.full((len(accuracy), len(ks)), np.nan)
    for problem, (scores, given) in enumerate(zip(accuracy, answers, strict=True)):
        scored = np.flatnonzero(~np.isnan(scores))
        votes = Counter(given[i] for i in scored)
        blank = votes.pop(None, 0)
        by_size = np.zeros(len(scored) + 1)
        for answer, count in votes.items():
            value = np.mean([scores[i] for i in scored if given[i] == answer])
            if value:
                others = Counter(votes.values())
                others[count] -= 1
                by_size += value * _wins(count, tuple(sorted(others.elements())), blank)
        for place, k in enumerate(ks):
            if k <= len(scored):
                found[problem, place] = by_size[k]
    return found


@lru_cache(maxsize=1024)
def _wins(count: int, others: tuple[int, ...], blank: int) -> np.ndarray:
    """Chance that an answer given ``count`` times is the choice of a subset, by the subset's size: ``[n + 1]``.

    Subsets are counted by generating functions. For those in which the answer appears ``t`` times, ``ways[r, s]`` is
    the number of choices of ``s`` other samples in which ``r`` other answers appear ``t`` times and none more often;
    the lot then falls on it once in ``r + 1`` times.
    """
    n = count + sum(others) + blank
    wins = np.zeros(n + 1)
    for t in range(1, count + 1):
        ways = np.zeros((1 + sum(other >= t for other in others), n + 1))
        ways[0, : blank + 1] = [math.comb(blank, s) for s in range(blank + 1)]
        for other in others:
            tied = math.comb(other, t) * _shifted(ways, t)
            ways = np.sum([math.comb(other, s) * _shifted(ways, s) for s in range(min(t, other + 1))], axis=0)
            ways[1:] += tied[:-1]
        lots = (ways / np.arange(1, len(ways) + 1)[:, None]).sum(axis=0)
        wins += math.comb(count, t) * _shifted(lots, t)
    return wins / [float(math.comb(n, size)) for size in range(n + 1)]


def _shifted(ways: np.ndarray, by: int) -> np.ndarray:
    """The same counts with ``by`` more samples chosen."""
    moved = np.zeros_like(ways)
    moved[..., by:] = ways[..., : ways.shape[-1] - by]
    return moved


def sizes(samples: int) -> list[int]:
    """The numbers of samples for which pass@k and maj@k are given: powers of two, and all."""
    return [*(2**power for power in range(samples.bit_length()) if 2**power < samples), samples]


def voted(answers: np.ndarray) -> bool:
    """Whether there is an answer to vote on: None is none."""
    return any(answer is not None for answer in answers.flat)


def mean_of(scores: np.ndarray) -> float:
    """Mean over the problems that have a figure; NaN if none has."""
    known = scores[~np.isnan(scores)]
    return float(known.mean()) if len(known) else math.nan


def interval(
    scores: np.ndarray,
    *,
    confidence: float = 0.95,
    bounds: tuple[float, float] = (0.0, 1.0),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Confidence interval of the mean over problems like these, by the bootstrap over problems.

    Bias-corrected and accelerated (BCa; Efron 1987), because figures near 0 or 1 are skewed, with quantiles of
    Student's t and the factor ``sqrt(n / (n - 1))`` in place of normal ones, because the plain bootstrap is too narrow
    for few problems (Hesterberg 2015).

    If all problems have the same figure there is nothing to resample, and with fewer than `FEW` there is too little:
    problems unlike all observed ones then set the least width. A share of up to ``1 - ((1 -
    confidence) / 2) ** (1 / n)`` of the problems may be unlike all ``n``, with any figure within ``bounds``. If all
    are right that is the exact binomial interval: 0.884 to 1 for 30 problems.

    Args:
        scores: ``[P]``, one figure for each problem; NaN is left out.
        bounds: the least and the greatest figure that a problem may have.

    Returns:
        The lower and the upper end; NaN without problems.
    """
    known = scores[~np.isnan(scores)]
    if not len(known):
        return math.nan, math.nan
    mean, tail = float(known.mean()), (1 - confidence) / 2
    unseen = 1 - tail ** (1 / len(known))
    low, high = mean - unseen * (mean - bounds[0]), mean + unseen * (bounds[1] - mean)
    if is_constant(known):
        return low, high
    means = _resampled_means(known, resamples, np.random.default_rng(seed))
    ends = np.quantile(means, _bca_levels(known, means, tail))
    if len(known) < FEW:
        return float(min(low, ends[0])), float(max(high, ends[1]))
    return float(ends[0]), float(ends[1])


def _bca_levels(scores: np.ndarray, means: np.ndarray, tail: float) -> list[float]:
    """The levels of the resampled ``means`` that are the ends of the interval."""
    count, deviations = len(scores), scores - scores.mean()
    near = 1e-9 * np.ptp(scores)  # of the mean itself: half of such resamples count as below it
    below = ((means < scores.mean() - near).mean() + (means <= scores.mean() + near).mean()) / 2
    bias = _NORMAL.inv_cdf(float(np.clip(below, 1 / len(means), 1 - 1 / len(means))))
    acceleration = (deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5)
    width = math.sqrt(count / (count - 1)) * student_quantile(1 - tail, count - 1)
    return [_NORMAL.cdf(bias + z / (1 - acceleration * z)) for z in (bias - width, bias + width)]


def is_constant(scores: np.ndarray) -> bool:
    """Whether all problems that have a figure have the same one."""
    known = scores[~np.isnan(scores)]
    return len(known) > 0 and bool(np.ptp(known) <= 1e-12 * max(1.0, float(np.abs(known).max())))


def difference(first: np.ndarray, second: np.ndarray, **options: Any) -> tuple[float, tuple[float, float]]:
    """The gain of ``second`` over ``first``, problem by problem, with the paired interval of the mean.

    Args:
        first, second: ``[P]`` in [0, 1], figures of the same problems; a problem that lacks either is left out.
        **options: of `interval`.
    """
    gains = second - first
    return mean_of(gains), interval(gains, bounds=(-1.0, 1.0), **options)


def _ratio(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)


def _resampled_means(scores: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Means of ``resamples`` draws of as many problems, a few at a time."""
    values, counts = np.unique(scores, return_counts=True)
    count, means = len(scores), np.empty(resamples)
    few = len(values) <= 64  # equal figures are drawn together then, by how often each comes
    for first in range(0, resamples, at_once := max(1, 2**22 // count)):
        size = min(at_once, resamples - first)
        if few:
            drawn = rng.multinomial(count, counts / count, size=size) @ values / count
        else:
            drawn = scores[rng.integers(count, size=(size, count))].mean(axis=1)
        means[first : first + size] = drawn
    return means
