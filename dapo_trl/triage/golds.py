"""Golds that are probably wrong: confident majorities that contradict them, at a stated false discovery rate.

A model that is sure of another answer than the gold is either right, and the gold wrong, or wrong itself. The share of
the second kind is the false discovery rate, and the row alone does not show which it is. Two kinds of rows show how
often this model is sure of a wrong answer, the decoys:

- rows in which one sample named the gold and all others that agree named another answer. The gold of such a row is
  right, because a wrong one is hardly ever named by chance, and the model is nearly as sure against it as in a row that
  never named the gold. With a right gold, a row of so many votes never names it at most `UNNAMED` times as often as it
  names it once: for a share of the gold with density ``x ** (a - 1)`` near 0 the ratio is ``1 / a``;
- rows of which the golds are known to be right, if there are any (``trusted``). They need no such assumption.

Candidates and decoys compete by the same score, as in target-decoy searches and knockoffs: among candidates at or above
a score, at most ``ratio * (1 + decoys at or above it)`` are expected to have a right gold (Barber and Candes 2015; with
trusted rows it is the Benjamini-Hochberg procedure on conformal p-values, Bates et al. 2023).

A model with a misconception from which it never departs, not once in all samples of a row, names the gold neither once
nor ever. No number of samples of that model tells it from a wrong gold; trusted rows do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

UNNAMED = 2.0
"""Rows with a right gold that never name it, for each that names it once: a density as steep as ``x ** -0.5``."""
MIN_SAMPLES = 4
"""Scored samples below which no majority is confident."""


@dataclass(frozen=True)
class Votes:
    """The samples of ``R`` rows, counted."""

    right: np.ndarray
    """Samples that named the gold, ``[R]``."""
    leader: np.ndarray
    """Samples that named the most frequent other answer, ``[R]``."""
    scored: np.ndarray
    """Samples that could be judged, ``[R]``; a failure of the judge is none."""

    def confidence(self, named: int) -> np.ndarray:
        """The share of the samples that named the gold or the leader, where the gold was named so many times and the
        leader more often, by most samples together.

        Returns:
            ``[R]``; NaN for all other rows.
        """
        agreed = self.right + self.leader
        fits = (self.right == named) & (self.leader > named) & (2 * agreed > self.scored)
        return np.where(fits & (self.scored >= MIN_SAMPLES), agreed / np.maximum(self.scored, 1), np.nan)


def doubts(votes: Votes, trusted: Votes | None = None) -> np.ndarray:
    """The false discovery rate at which each gold is among the doubted ones.

    Args:
        votes: Of the rows in question.
        trusted: Of rows with right golds, sampled in the same way; None: the rows themselves show how sure the model is
            when it is wrong.

    Returns:
        ``[R]`` rates in (0, 1]; NaN for a gold that no confident majority contradicts.
    """
    scores = votes.confidence(0)
    if trusted is None:
        decoys, ratio = votes.confidence(1), UNNAMED
    else:
        decoys, ratio = trusted.confidence(0), len(scores) / (len(trusted.scored) + 1)
    found, candidates = np.full(len(scores), np.nan), ~np.isnan(scores)
    found[candidates] = rates(scores[candidates], decoys[~np.isnan(decoys)], ratio)
    return found


def rates(scores: np.ndarray, decoys: np.ndarray, ratio: float) -> np.ndarray:
    """The least false discovery rate of a set of the best candidates that each is in.

    Args:
        scores: ``[n]`` of the candidates; the higher, the better.
        decoys: ``[d]`` scores that candidates without merit have.
        ratio: Candidates without merit expected for each decoy, at every score.

    Returns:
        ``[n]`` rates, at most 1.
    """
    at_least = np.unique(scores)  # from the lowest on: sets from the largest to the smallest
    candidates = len(scores) - np.searchsorted(np.sort(scores), at_least)
    against = len(decoys) - np.searchsorted(np.sort(decoys), at_least)
    rate = np.minimum.accumulate(np.minimum(ratio * (1 + against) / np.maximum(candidates, 1), 1.0))
    return rate[np.searchsorted(at_least, scores)]
