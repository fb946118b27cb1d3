"""The surplus bank: informative groups beyond a full batch, kept for the next ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class BankedGroup:
    """One group with the log-probabilities of the policy that sampled it."""

    rows: list[dict[str, Any]]
    """as in `batching.unpad`, without advantages"""
    rewards: list[list[float]]
    """``[G][F]``"""
    tokens: list[int]
    """``[G]``: generated, per completion"""
    fates: list[str]
    """``[G]``: the fate in the ledger once the group is trained on"""
    seconds: float
    """of generating and scoring it"""
    step: int
    """optimizer steps taken when it was sampled"""


@dataclass
class SurplusBuffer:
    """Groups by the age of the policy that sampled them; the same on every process."""

    max_age: int
    """in optimizer steps; 0: nothing is kept"""
    capacity: int
    """in groups"""
    groups: list[BankedGroup] = field(default_factory=list)
    """the oldest first"""

    def expire(self, step: int) -> list[BankedGroup]:
        """Remove what is too old for an update after ``step`` optimizer steps; returns it."""
        old = [group for group in self.groups if step - group.step > self.max_age]
        self.groups = [group for group in self.groups if step - group.step <= self.max_age]
        return old

    def take(self, count: int) -> list[BankedGroup]:
        """Remove up to ``count`` groups, the oldest first; returns them."""
        taken, self.groups = self.groups[:count], self.groups[count:]
        return taken

    @property
    def room(self) -> int:
        """Groups that can still be put in."""
        return max(self.capacity - len(self.groups), 0) if self.max_age else 0

    def put(self, groups: list[BankedGroup]) -> None:
        """Add groups, the newest last.

        Raises:
            ValueError: there are more than there is `room` for.
        """
        if len(groups) > self.room:
            raise ValueError(f"{len(groups)} groups do not fit into a bank with room for {self.room}.")
        self.groups += groups

    def state_dict(self) -> list[dict[str, Any]]:
        return [vars(group) for group in self.groups]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        self.groups = [BankedGroup(**group) for group in state]
