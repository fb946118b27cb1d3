"""Golds that are probably wrong: confident majorities that contradict them, at a stated false discovery rate.

A model that is sure of another answer than the gold is either right, and the gold wrong, or wrong itself. The share of
the second kind among the doubted golds is the false discovery rate, and the row alone does not show which it is. Other
rows show how often this model is sure of a wrong answer:

- Rows in which the majority contradicts the gold and some samples named the gold. Their golds are right, because a
  wrong one is rarely named by chance. Of the samples that named either, the gold's share varies from row to row by a
  Beta distribution, which is fitted to these rows; it says how many rows with right golds are to be expected in which
  no sample named the gold. The distribution is no steeper near 0 than ``x ** (STEEPEST - 1)``: how often shares too
  small to be seen occur is an assumption in any method. Wrong golds among these rows make the estimate larger.
  The same count is made where the truth is known: how many rows name nothing but the gold, judged by the rows in which
  the gold leads and some samples named another answer. Where samples hardly vary, at a low temperature, there are many
  times as many (`understated`), and all estimates are multiplied by that.
- Rows of which the golds are known to be right, if there are any (``trusted``). They need no such assumption.

Of the contradicted golds at or above a confidence, the rate is then at most the expected number of right ones, and one
more, over their number (as in target-decoy searches and knockoffs, Barber and Candes 2015; with trusted rows it is the
Benjamini-Hochberg procedure on conformal p-values, Bates et al. 2023).

A model with a misconception from which it never departs, not once in all samples of a row, never names the gold. No
number of samples of that model tells it from a wrong gold; trusted rows do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

STEEPEST = 0.5
"""First parameter of the Beta distribution of the gold's share, at least."""
CONFIDENT = 0.7
"""Share of the samples that named the gold or the leader from which a row counts in the fit."""
MIN_SAMPLES = 4
"""Scored samples below which no majority is confident."""
_SHAPES = [(first, second) for first in (STEEPEST, 0.7, 1.0, 1.4, 2.0, 3.0) for second in (1, 2, 4, 8, 16, 32)]
"""The Beta distributions that the fit weighs against each other."""


@dataclass(frozen=True)
class Votes:
    """The samples of ``R`` rows, counted."""

    right: np.ndarray
    """Samples that named the gold, ``[R]``."""
    leader: np.ndarray
    """Samples that named the most frequent other answer, ``[R]``; 0 where the gold leads."""
    others: np.ndarray
    """Samples that named any other answer, ``[R]``."""
    scored: np.ndarray
    """Samples that could be judged, ``[R]``; a failure of the judge is none."""

    @property
    def agreed(self) -> np.ndarray:
        """Samples that named the gold or the leader, ``[R]``."""
        return self.right + self.leader

    @property
    def contradicted(self) -> np.ndarray:
        """Whether the leader was named more often than the gold, and most samples named one of them: ``[R]`` bool."""
        return (self.leader > self.right) & (2 * self.agreed > self.scored) & (self.scored >= MIN_SAMPLES)

    @property
    def confidence(self) -> np.ndarray:
        """Share of the samples that named the gold or the leader, ``[R]``."""
        return self.agreed / np.maximum(self.scored, 1)


def doubts(votes: Votes, trusted: Votes | None = None) -> np.ndarray:
    """The false discovery rate at which each gold is among the doubted ones.

    Args:
        votes: Of the rows in question.
        trusted: Of rows with right golds, sampled in the same way; None: the rows themselves show how sure the model is
            when it is wrong.

    Returns:
        ``[R]`` rates in (0, 1]; NaN for a gold that was named, or that no majority contradicts.
    """
    if trusted is None:
        decoys = votes.contradicted & (votes.right > 0)
        one_more = understated(votes)
        known, weights = votes.confidence[decoys], unnamed(votes)[decoys] * one_more
    else:
        decoys = trusted.contradicted & (trusted.right == 0)
        one_more = len(votes.scored) / (len(trusted.scored) + 1)
        known, weights = trusted.confidence[decoys], np.full(int(decoys.sum()), one_more)
    candidates = votes.contradicted & (votes.right == 0)
    found = np.full(len(votes.scored), np.nan)
    found[candidates] = rates(votes.confidence[candidates], known, weights, one_more)
    return found


def rates(scores: np.ndarray, decoys: np.ndarray, weights: np.ndarray, one_more: float) -> np.ndarray:
    """The least false discovery rate of a set of the best candidates that each is in.

    Args:
        scores: ``[n]`` of the candidates; the higher, the better.
        decoys: ``[d]`` scores of decoys.
        weights: ``[d]`` candidates without merit that each decoy stands for, at its score.
        one_more: Candidates without merit that every set is charged with besides.

    Returns:
        ``[n]`` rates, at most 1.
    """
    at_least = np.unique(scores)  # from the lowest on: sets from the largest to the smallest
    sizes = len(scores) - np.searchsorted(np.sort(scores), at_least)
    expected = one_more + (weights * (decoys >= at_least[:, None])).sum(axis=1)
    rate = np.minimum.accumulate(np.minimum(expected / np.maximum(sizes, 1), 1.0))
    return rate[np.searchsorted(at_least, scores)]


def understated(votes: Votes) -> float:
    """How many times as many rows name nothing but the gold as `unnamed` says, when asked of these in the same way.

    Returns:
        1 or more; very large where no sample ever departs from the gold, or none ever names it.
    """
    mirrored = Votes(votes.others, votes.right, votes.right, votes.scored)
    unanimous = int((mirrored.contradicted & (mirrored.right == 0)).sum())
    return max((unanimous + 1) / max(float(unnamed(mirrored).sum()), 1e-9), 1.0)


def unnamed(votes: Votes) -> np.ndarray:
    """How many rows with right golds that never name the gold each contradicted row that names it stands for.

    Returns:
        ``[R]``; 0 for all other rows.
    """
    decoys = np.flatnonzero(votes.contradicted & (votes.right > 0))
    fitted = decoys[votes.confidence[decoys] >= CONFIDENT]
    agreed = votes.agreed
    likelihood = np.zeros(len(_SHAPES))
    for row in fitted:
        likelihood += _named(int(agreed[row]))[0][:, votes.right[row] - 1]
    shapes = np.exp(likelihood - likelihood.max())
    found = np.zeros(len(agreed))
    found[decoys] = [shapes @ _named(int(agreed[row]))[1] / shapes.sum() for row in decoys]
    return found


@lru_cache(maxsize=4096)
def _named(agreed: int) -> tuple[np.ndarray, np.ndarray]:
    """How often the gold is named by so many samples that name it or the leader, for each of `_SHAPES`, as long as the
    leader is named more often.

    Returns:
        The logarithms of the probabilities that it is named 1, 2, ... times, ``[S, m]``, given that it is named; and
        the odds that it is not, ``[S]``.
    """
    counts = range((agreed - 1) // 2 + 1)
    logs = np.array([[_log_beta_binomial(agreed, count, *shape) for count in counts] for shape in _SHAPES])
    named = np.log(np.exp(logs[:, 1:]).sum(axis=1))
    return logs[:, 1:] - named[:, None], np.exp(logs[:, 0] - named)


def _log_beta_binomial(n: int, count: int, a: float, b: float) -> float:
    ways = math.lgamma(n + 1) - math.lgamma(count + 1) - math.lgamma(n - count + 1)
    return ways + _log_beta(count + a, n - count + b) - _log_beta(a, b)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
