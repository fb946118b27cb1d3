"""`RewardShaping`: the base of every wrapper that adds a component to the reward."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, SupportsFloat

import gymnasium
from gymnasium.utils import RecordConstructorArgs


class RewardShaping(gymnasium.Wrapper[str, str, str, str], RecordConstructorArgs, ABC):
    """Add one component to the reward of an episode, when it ends; the steps before the end add 0.

    It stands in `info["rewards"]` under its own name, so that the components go on summing to the reward. Nothing
    else changes: not the observation, not `info["accuracy"]` or `info["verdict"]`, and a NaN reward (an
    `infra_failure`) stays NaN. Wrappers of this kind can be stacked in any order. A new one names its component and
    writes `shape`:

        class Brevity(RewardShaping):
            component = "brevity"

            def shape(self, turns):
                return 0.1 if len(turns[-1]) <= 200 else 0.0

    Args:
        env: The environment to shape.
        arguments: The subclass's own arguments, kept in the spec so that it can be made again.
    """

    component: ClassVar[str]
    """Name in `info["rewards"]`; where that name is taken already, the two are added up."""

    def __init__(self, env: gymnasium.Env[str, str], **arguments: Any) -> None:
        RecordConstructorArgs.__init__(self, **arguments)
        gymnasium.Wrapper.__init__(self, env)
        self._turns: tuple[str, ...] = ()

    @abstractmethod
    def shape(self, turns: tuple[str, ...]) -> float:
        """Return what the reward gains from an episode; `turns` are all its actions, the last one included."""

    def check(self, action: str) -> None:
        """Raise an error if `action` cannot be shaped; it is asked before the environment sees the action."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Reset the environment, and forget the turns of the last episode."""
        self._turns = ()
        return self.env.reset(seed=seed, options=options)

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step the environment, and shape the reward if that ends the episode.

        Raises:
            ValueError: `shape` returned a number that is not finite.
        """
        self.check(action)
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._turns = (*self._turns, action)
        amount = self.shape(self._turns) if terminated or truncated else 0.0
        if not math.isfinite(amount):
            raise ValueError(f"{type(self).__name__}: shape returned {amount}: it must be a finite number")
        rewards = dict(info.get("rewards", {"reward": float(reward)}))
        rewards[self.component] = rewards.get(self.component, 0.0) + amount
        return observation, float(reward) + amount, terminated, truncated, {**info, "rewards": rewards}
