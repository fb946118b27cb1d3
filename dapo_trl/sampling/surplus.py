"""The surplus buffer: informative groups beyond a full batch, kept for the next ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..rollout.types import Group


@dataclass
class SurplusBuffer:
    """Groups by the age of the policy that sampled them; the same on every process."""

    max_age: int
    """Optimizer steps that a group may wait; 0: nothing is kept."""
    capacity: int
    """Groups."""
    groups: list[Group] = field(default_factory=list)
    """The oldest first."""

    def expire(self, step: int) -> list[Group]:
        """Remove the groups that are too old for an update after ``step`` optimizer steps; returns them."""
        old = [group for group in self.groups if step - group.step > self.max_age]
        self.groups = [group for group in self.groups if step - group.step <= self.max_age]
        return old

    def take(self, count: int) -> list[Group]:
        """Remove up to ``count`` groups, the oldest first; returns them."""
        taken, self.groups = self.groups[:count], self.groups[count:]
        return taken

    @property
    def room(self) -> int:
        """Groups that can still be put in."""
        return max(self.capacity - len(self.groups), 0) if self.max_age else 0

    def put(self, groups: list[Group]) -> None:
        """Add groups, the newest last.

        Raises:
            ValueError: There are more than there is `room` for.
        """
        if len(groups) > self.room:
            raise ValueError(f"{len(groups)} groups do not fit into a surplus buffer with room for {self.room}.")
        self.groups += groups

    def state_dict(self) -> list[dict[str, Any]]:
        return [group.state_dict() for group in self.groups]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        self.groups = [Group.from_state(group) for group in state]
