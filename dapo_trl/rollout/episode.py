"""One episode of a Gymnasium environment for language models, and what it said in the end.

An environment is driven row by row: ``reset(options={"index": i})`` gives the prompt, each ``step(completion)`` a
reward and either the end or a reply to go on from.
"""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import gymnasium

from envs import Completion, RewardShaping
from envs.observations import clean

from ..errors import RewardError, one_line
from .environments import author_errors, env_name, layers
from .rewards import is_number


@dataclass(frozen=True)
class Outcome:
    """What an environment said of one episode."""

    reward: float
    """sum over the episode; NaN if it cannot be scored"""
    accuracy: float
    """raw correctness in [0, 1]; without one, the reward before shaping"""
    verdict: str
    components: dict[str, float]
    """the parts of the reward by name, each summed over the episode"""
    answer: str | None = None
    """what the environment read as the model's answer, by which votes are counted; None where it names none"""
    cause: str = ""
    """why, in words"""


class Episode:
    """An episode, action by action.

    Many share one environment: the first action resets it, and a episode that goes on takes a copy along.

    Args:
        env: the environment.
        index: its row.
        prompt: what the model was shown; None: whatever the environment shows.
    """

    def __init__(self, env: gymnasium.Env, index: int, prompt: str | None = None):
        self.env = env
        self.index = index
        self.prompt = prompt
        self.over = False
        self._started = False
        self._info: dict[str, Any] = {}
        self._reward = 0.0
        self._components: Counter[str] = Counter()

    def step(self, action: Completion) -> str | None:
        """Take the model's turn.

        Returns:
            The environment's reply; None when the episode is over.

        Raises:
            RewardError: the environment showed another prompt than the one answered, raised an exception, or returned
                something else than a step.
        """
        if not self._started:
            self._reset()
        with author_errors(self.env, self.index, "step"):
            result = self.env.step(action)
        reply, reward, self.over, self._info = self._read(result)
        self._reward += reward
        for name, value in self._info.get("rewards", {}).items():
            self._components[name] += value
        if self.over:
            return None
        if not self._started:
            self._started = True
            self.env = duplicate(self.env)
        return reply

    def use_env(self, env: gymnasium.Env) -> None:
        """Take another copy of the environment for the first action; one that goes on has its own by then."""
        if not self._started:
            self.env = env

    def truncate(self) -> None:
        """Tell the environment that no tokens are left: an empty answer, cut off."""
        if not self.over:
            self.step(Completion(n_tokens=0, finish_reason="length"))
            self.over = True

    @property
    def outcome(self) -> Outcome:
        shaping = sum(self._components[name] for name in shaped_by(self.env))
        unshaped = self._reward - shaping
        return Outcome(
            reward=self._reward,
            accuracy=float(self._info.get("accuracy", unshaped)),
            verdict=str(self._info.get("verdict", "unknown")),
            components=dict(self._components),
            answer=None if (answer := self._info.get("answer")) is None else str(answer),
            cause=str(self._info.get("cause", "")),
        )

    def _reset(self) -> None:
        with author_errors(self.env, self.index, "reset"):
            prompt, _ = self.env.reset(options={"index": self.index})
        if not isinstance(prompt, str):
            raise RewardError(
                f"env {env_name(self.env)} returned the prompt {prompt!r} ({type(prompt).__name__}) from reset() for "
                f"index {self.index}: it must be a str."
            )
        if self.prompt is not None and prompt != self.prompt:
            raise RewardError(
                f"env {env_name(self.env)} gave two different prompts for index {self.index} ({prompt[:80]!r}, then "
                f'{self.prompt[:80]!r}): reset(options={{"index": i}}) must always give the same row, or completions '
                "of one group cannot be compared."
            )

    def _read(self, result: Any) -> tuple[str, float, bool, dict[str, Any]]:
        """What `step` returned as (reply, reward, over, info)."""
        where = f"env {env_name(self.env)}"
        if not isinstance(result, tuple) or len(result) != 5:
            shape = f"{len(result)} values" if isinstance(result, tuple) else f"a {type(result).__name__}"
            raise RewardError(
                f"{where} returned {shape} from step() for index {self.index}: it must return (observation, reward, "
                "terminated, truncated, info)."
            )
        reply, reward, terminated, truncated, info = result
        if isinstance(reward, bool) or not is_number(reward):
            raise RewardError(
                f"{where} returned the reward {reward!r} ({type(reward).__name__}) for index {self.index}: step() "
                "must return a float, or NaN for a completion that cannot be scored."
            )
        if not isinstance(info, dict):
            raise RewardError(
                f"{where} returned the info {info!r} ({type(info).__name__}) for index {self.index}: it must be a dict."
            )
        parts = info.get("rewards", {})
        if not isinstance(parts, dict) or not all(is_number(part) for part in parts.values()):
            raise RewardError(
                f'{where} returned info["rewards"] {parts!r} for index {self.index}: it must be a dict of numbers, the '
                "parts of the reward by name."
            )
        accuracy = info.get("accuracy", 0.0)
        if not is_number(accuracy) or float(accuracy) < 0 or float(accuracy) > 1:
            raise RewardError(
                f'{where} returned info["accuracy"] {accuracy!r} for index {self.index}: it must be a number from 0 to '
                "1, or NaN for a completion that cannot be scored."
            )
        over = bool(terminated or truncated)
        if not over and not isinstance(reply, str):
            raise RewardError(
                f"{where} returned {reply!r} ({type(reply).__name__}) for index {self.index} and does not end: it must "
                "reply with a str, or end the episode (terminated or truncated)."
            )
        return clean(reply) if isinstance(reply, str) else reply, float(reward), over, info


def shaped_by(env: gymnasium.Env) -> set[str]:
    """The names of the components that only shape the reward."""
    return {layer.component for layer in layers(env) if isinstance(layer, RewardShaping)}


def duplicate(env: gymnasium.Env) -> gymnasium.Env:
    """A copy of an environment in the middle of its episode, wrappers and all. Specs, whose arguments may hold all the
    rows, are shared.

    Raises:
        RewardError: it, or one of its wrappers, cannot be copied.
    """
    specs = (vars(layer).get(name) for layer in layers(env) for name in ("spec", "_cached_spec"))
    try:
        return deepcopy(env, {id(spec): spec for spec in specs if spec is not None})
    except Exception as error:  # whatever an author's objects raise
        raise RewardError(
            f"env {env_name(env)} cannot be copied ({type(error).__name__}: {one_line(error)}), which several episodes "
            "at once need: give what cannot be copied a __deepcopy__, or set concurrent = False in a task of one turn."
        ) from error
