"""Mixtures: how many places of each rollout batch a source of prompts gets, and which sources rest.

Pure bookkeeping. One source is the case in which it gets every place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .group_filter import DynamicSampler

FIRST_REST, LONGEST_REST = 8, 64
"""Rollout batches that a source is left out; each rest in a row is twice as long as the one before."""
MIN_GROUPS = 24
"""Groups in a row, none of them informative, after which a source rests."""


@dataclass
class Quotas:
    """Deals the places of rollout batches to sources by their weights.

    Over any number of batches no source is a whole place off its exact share, as long as the same sources take part
    (Tijdeman, The chairman assignment problem, 1980): places are dealt one by one, each to the source that would fall
    short of its share first among those that it does not put too far ahead.
    """

    weights: Sequence[float]
    """Share of each source, up to a common factor."""
    owed: list[float] = field(default_factory=list)
    """Each source's exact share of the places so far less the places that it got; they sum to 0."""

    def __post_init__(self):
        self.owed = list(self.owed) or [0.0] * len(self.weights)

    def shares(self, active: Sequence[bool]) -> list[float]:
        """Each source's share of the places while these take part; the others' goes to them."""
        weights = [weight if takes_part else 0.0 for weight, takes_part in zip(self.weights, active, strict=True)]
        return [weight / sum(weights) for weight in weights]

    def deal(self, places: int, active: Sequence[bool]) -> list[int]:
        """The places of the next rollout batch that each source gets.

        Args:
            active: Whether each source takes part; at least one does.
        """
        shares = self.shares(active)
        left_over = sum(owed for owed, share in zip(self.owed, shares, strict=True) if not share)
        self.owed = [owed + share * left_over if share else 0.0 for owed, share in zip(self.owed, shares, strict=True)]
        taking = [i for i, share in enumerate(shares) if share]
        slack = 1.0 / max(2 * len(taking) - 2, 1)
        dealt = [0] * len(shares)
        for _ in range(places):
            for i in taking:
                self.owed[i] += shares[i]
            ready = [i for i in taking if self.owed[i] >= slack - 1e-9] or [max(taking, key=lambda i: self.owed[i])]
            chosen = min(ready, key=lambda i: (1.0 - slack - self.owed[i]) / shares[i])
            self.owed[chosen] -= 1.0
            dealt[chosen] += 1
        return dealt


@dataclass
class Rest:
    """Leaves a source out of the mixture while it has nothing to teach, and looks at it again now and then."""

    until: int = 0
    """Number of the first rollout batch that it takes part in again."""
    barren: int = 0
    """Groups sampled since one was informative."""
    length: int = 0
    """Rollout batches of its rest, in force or just over; 0: it has shown informative groups since."""

    def is_over(self, batch: int) -> bool:
        """Whether the source takes part in the rollout batch of this number."""
        return batch >= self.until

    @property
    def on_trial(self) -> bool:
        """Whether the source, if it takes part, is only looked at: it gets no refills."""
        return self.length > 0

    def see(self, sampler: DynamicSampler, batch: int, *, others_teach: bool) -> bool:
        """Take in the source's part of a rollout batch.

        Args:
            others_teach: Whether another source had informative groups, and so can use the share of this one.

        Returns:
            Whether a rest begins: none of many groups was informative, or none of few after a rest.
        """
        if sampler.have:
            self.barren = self.length = 0
            return False
        self.barren += sampler.counts.sampled
        if not others_teach or not sampler.counts.sampled or not (self.on_trial or self.barren >= MIN_GROUPS):
            return False
        self.length = min(2 * self.length, LONGEST_REST) or FIRST_REST
        self.until = batch + 1 + self.length
        return True
