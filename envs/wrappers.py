"""Reward shaping as Gymnasium wrappers: each adds its own component and leaves `info["accuracy"]` alone."""

from __future__ import annotations

import math
from typing import Any, Literal, SupportsFloat

import gymnasium
from gymnasium.utils import RecordConstructorArgs

OverlongShape = Literal["linear", "soft"]


def overlong_penalty(
    length: int,
    *,
    shape: OverlongShape = "linear",
    max_length: int,
    cache_length: int = 0,
    coefficient: float = 0.01,
) -> float:
    """Return what an answer's length adds to its reward: 0 or less. All lengths are in tokens.

    - "linear" (textbook): `-coefficient * max(0, length - max_length)`.
    - "soft" (DAPO, arXiv 2503.14476, equation 13): 0 up to `max_length - cache_length`, from there linearly
      down to -1 at `max_length`, and -1 beyond. With `cache_length=0` it is a step: 0 up to and at
      `max_length`, -1 beyond.

    Args:
        length: Length of the answer.
        shape: Which of the two formulas.
        max_length: Longest answer that is not fully penalised.
        cache_length: Width of the soft ramp below `max_length`; "linear" has no ramp and does not use it.
        coefficient: Penalty per excess token of "linear"; "soft" does not use it.

    Raises:
        ValueError: An argument is out of its range; the message names it, its value and the rule.
    """
    if length < 0:
        raise ValueError(f"overlong_penalty: length={length} must be at least 0 (tokens)")
    if max_length < 1:
        raise ValueError(f"overlong_penalty: max_length={max_length} must be at least 1 (tokens)")
    if not 0 <= cache_length < max_length:
        raise ValueError(
            f"overlong_penalty: cache_length={cache_length} must be in [0, max_length={max_length}): it is "
            "the last part of max_length, in tokens"
        )
    if not (math.isfinite(coefficient) and coefficient >= 0):
        raise ValueError(
            f"overlong_penalty: coefficient={coefficient} must be finite and at least 0 (it is subtracted)"
        )
    if shape == "linear":
        return -coefficient * max(0, length - max_length)
    if shape == "soft":
        if length > max_length:
            return -1.0
        return min(0.0, (max_length - cache_length - length) / cache_length) if cache_length else 0.0
    raise ValueError(f"overlong_penalty: shape={shape!r} must be 'linear' or 'soft'")


class OverlongPenalty(gymnasium.Wrapper[str, str, str, str], RecordConstructorArgs):
    """Add `overlong_penalty` of `action.n_tokens` to the reward, and to `info["rewards"]` as "overlong".

    Args:
        env: The environment to shape.
        shape: See `overlong_penalty`, as for the other arguments.
        max_length: In tokens.
        cache_length: In tokens.
        coefficient: Reward per token.

    Raises:
        ValueError: An argument is out of range, or (in `step`) the action does not know its length.
    """

    def __init__(
        self,
        env: gymnasium.Env[str, str],
        *,
        shape: OverlongShape = "linear",
        max_length: int,
        cache_length: int = 0,
        coefficient: float = 0.01,
    ) -> None:
        settings: dict[str, Any] = {
            "shape": shape,
            "max_length": max_length,
            "cache_length": cache_length,
            "coefficient": coefficient,
        }
        RecordConstructorArgs.__init__(self, **settings)
        gymnasium.Wrapper.__init__(self, env)
        self._settings = settings
        overlong_penalty(0, **settings)  # refuse bad settings before the first rollout

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step the environment and shape its reward; a NaN reward stays NaN."""
        length = getattr(action, "n_tokens", None)
        if length is None:
            raise ValueError(
                f"OverlongPenalty: the action ({type(action).__name__}) does not know its length in tokens: "
                "send Completion(text, n_tokens=...)"
            )
        penalty = overlong_penalty(length, **self._settings)
        observation, reward, terminated, truncated, info = self.env.step(action)
        rewards = {**info.get("rewards", {"reward": float(reward)}), "overlong": penalty}
        return observation, float(reward) + penalty, terminated, truncated, {**info, "rewards": rewards}
