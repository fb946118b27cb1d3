"""The overlong penalty, both formulas."""

from __future__ import annotations

import math
from typing import Any, Literal

import gymnasium

from .shaping import RewardShaping

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
        return 0.0 - coefficient * max(0, length - max_length)
    if shape == "soft":
        if length > max_length:
            return -1.0
        return min(0.0, (max_length - cache_length - length) / cache_length) if cache_length else 0.0
    raise ValueError(f"overlong_penalty: shape={shape!r} must be 'linear' or 'soft'")


class OverlongPenalty(RewardShaping):
    """Add the `overlong_penalty` of an episode's length to its reward, as "overlong".

    The length is that of all its turns together: the sum of their `n_tokens`.

    Args:
        env: The environment to shape.
        shape: See `overlong_penalty`, as for the other arguments.
        max_length: In tokens.
        cache_length: In tokens.
        coefficient: Reward per token.

    Raises:
        ValueError: An argument is out of range, or (in `step`) the action does not know its length.
    """

    component = "overlong"

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
        super().__init__(env, **settings)
        self._settings = settings
        overlong_penalty(0, **settings)  # refuse bad settings before the first rollout

    def check(self, action: str) -> None:
        if getattr(action, "n_tokens", None) is None:
            raise ValueError(
                f"OverlongPenalty: the action ({type(action).__name__}) does not know its length in tokens: "
                "send Completion(text, n_tokens=...)"
            )

    def shape(self, turns: tuple[str, ...]) -> float:
        return overlong_penalty(sum(turn.n_tokens for turn in turns), **self._settings)  # type: ignore[attr-defined]
