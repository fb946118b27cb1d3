"""Reward functions around a rollout: a user's checked, the overlong penalty, and the columns they fill together."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from trl.trainer.utils import get_callable_name, is_async_callable

from envs import overlong_penalty
from envs.numeric import is_number
from envs.text import brief

from ..algorithm import decoupled_advantages, group_advantages, returns_to_go, turn_advantages
from ..errors import ConfigError, RewardError
from .types import Outcome, Sampled


@dataclass(frozen=True)
class RewardColumns:
    """The reward functions' columns: how they make up the reward, and which of them the group filter compares.

    ``rewards`` is ``[N, F]`` throughout, NaN where a function does not apply.
    """

    names: Sequence[str]
    """``F`` reward functions; the overlong penalty, if any, is the last."""
    weights: Tensor
    """``[F]``"""
    task: int
    """Number of columns before the overlong penalty's."""

    def total(self, rewards: Tensor) -> Tensor:
        """The reward: ``[N]``; NaN where no function applies."""
        return self._sum(rewards, len(self.names))

    def unshaped(self, rewards: Tensor) -> Tensor:
        """The reward before the overlong penalty."""
        return self._sum(rewards, self.task)

    def scores(self, rewards: Tensor, accuracy: Tensor, key: str) -> Tensor:
        """``[N]`` scores by which the filter named ``key`` compares completions; never the overlong penalty."""
        if key == "accuracy":
            return accuracy
        return self.unshaped(rewards) if key == "reward" else rewards[:, self.names.index(key)]

    def scores_to_go(self, rewards: Tensor, turns: Tensor, key: str) -> Tensor | None:
        """``[N, K]`` scores from each turn on, by which the filter named ``key`` compares completions besides `scores`;
        None where it is a reward function that knows nothing of turns.

        Args:
            turns: ``[N, K]`` rewards of turns as `turn_scores` gives them; NaN where there is no turn.
        """
        if key == "reward":
            return self._from_each_turn(rewards, turns, self.task)
        return returns_to_go(turns) if key in ("accuracy", self.names[0]) else None

    def advantages(self, rewards: Tensor, group_size: int, *, scale: str, aggregation: str) -> Tensor:
        """``[N]`` advantages, groups side by side; scales and aggregations as in `DAPOConfig`."""
        if aggregation == "sum_then_normalize":
            return group_advantages(self.total(rewards), group_size, scale=scale)
        return decoupled_advantages(rewards, self.weights.to(rewards.device), group_size)

    def turn_advantages(self, rewards: Tensor, turns: Sequence[Sequence[float]], group_size: int, scale: str) -> Tensor:
        """``[N, K]`` advantages of the turns of each completion, groups side by side, as `algorithm.turn_advantages`.

        Args:
            turns: ``[N][K]`` rewards of the environment's turns.
        """
        returns = self._from_each_turn(rewards, padded_turns(turns, rewards.device), len(self.names))
        return turn_advantages(returns, group_size, scale=scale)

    def _from_each_turn(self, rewards: Tensor, turns: Tensor, columns: int) -> Tensor:
        """``[N, K]``: the sum of the first ``columns``; the environment's, which is the first, from each turn on. The
        others judge a completion at its end, so they belong to the last turn."""
        whole = self._sum(rewards, columns)
        later = returns_to_go(turns)[:, 1:].unbind(dim=1)
        parts = [self._sum(torch.cat([part.unsqueeze(1), rewards[:, 1:]], dim=1), columns) for part in later]
        return torch.stack([whole, *parts], dim=1).masked_fill(turns.isnan(), torch.nan)

    def check_key(self, key: str) -> None:
        """Refuse a ``filter_key`` that names nothing here."""
        allowed = ["accuracy", "reward", *self.names[: self.task]]
        if key not in allowed:
            raise ConfigError(
                f"filter_key is {key!r}: it must be one of {', '.join(allowed)} (after the first two: the reward "
                "functions of this run)."
            )

    def _sum(self, rewards: Tensor, columns: int) -> Tensor:
        rewards = rewards[:, :columns]
        total = (rewards * self.weights[:columns].to(rewards.device)).nansum(dim=1)
        return total.masked_fill(rewards.isnan().all(dim=1), torch.nan)


def padded_turns(turns: Sequence[Sequence[float]], device: torch.device | str) -> Tensor:
    """``[n, K]`` rewards of turns, NaN where a completion has fewer."""
    rows = [torch.tensor(rewards, dtype=torch.float32, device=device) for rewards in turns]
    return pad_sequence(rows, batch_first=True, padding_value=math.nan)


def turn_scores(outcomes: Sequence[Outcome], key: str) -> list[list[float]]:
    """``[n][K]``: what each turn adds to the score that the filter named ``key`` compares."""
    return [one.turn_scores if key == "accuracy" else one.turns for one in outcomes]


@dataclass(frozen=True)
class Scores:
    """The scores of a round: ``N`` completions of all processes, ``n`` of this one."""

    rewards: Tensor
    """``[N, F]``"""
    accuracy: Tensor
    """``[n]`` raw correctness in [0, 1]; without an environment the reward before the overlong penalty."""
    outcomes: list[Outcome] | None
    """``[n]``; None without an environment."""
    log_columns: dict[str, list[Any]]
    """``[n]`` values by column that reward functions logged (TRL's ``log_extra``)."""


@dataclass(frozen=True)
class Scorer:
    """Judges and rewards completions."""

    columns: RewardColumns
    rewards: Callable[[list[dict[str, Any]], Sampled], tuple[Tensor, dict[str, list[Any]]]]
    """Calls the reward functions: ``[N, F]`` of all processes, and the columns they log."""
    judge_completions: Callable[[list[str], list[list[int]], list[int], list[str]], list[Outcome]] | None = None
    """The environment's judgement of completions that were not sampled in episodes of it; None without one."""

    def judge(self, rows: list[dict[str, Any]], sampled: Sampled) -> list[Outcome] | None:
        """``[n]`` judgements of the environment, made now or while the episodes ran; None without an environment."""
        if sampled.outcomes is not None or self.judge_completions is None:
            return sampled.outcomes
        questions, index, env = ([row[name] for row in rows] for name in ("question", "index", "env"))
        return self.judge_completions(questions, sampled.completion_ids, index, env)

    def score(self, rows: list[dict[str, Any]], sampled: Sampled, outcomes: list[Outcome] | None, first: int) -> Scores:
        """Call the reward functions.

        Args:
            rows: ``[n]``; further columns for reward functions are added to them.
            sampled: Their completions.
            outcomes: ``[n]``, of `judge`; reward functions get them as the column ``outcome``.
            first: Place of this process's first completion among all.
        """
        columns = sampled.columns if outcomes is None else {**sampled.columns, "outcome": outcomes}
        for name, values in columns.items():
            for i, row in enumerate(rows):
                row[name] = values[i] if isinstance(values, list) else values
        rewards, log_columns = self.rewards(rows, sampled)
        if outcomes is None:
            accuracy = self.columns.unshaped(rewards[first : first + len(rows)])
        else:
            accuracy = torch.tensor([one.accuracy for one in outcomes], dtype=torch.float32, device=rewards.device)
        return Scores(rewards, accuracy, outcomes, log_columns)


class OverlongReward:
    """The overlong penalty as a TRL reward function, for rewards that do not come from an environment wrapper."""

    __name__ = "overlong"

    def __init__(self, *, exempt: Collection[str] = (), **settings: Any):
        """Settings are those of `envs.overlong_penalty`; it does not apply to environments with ``exempt`` names."""
        self.settings, self.exempt = settings, exempt

    def __call__(
        self,
        completion_ids: list[list[int]],
        own_tokens: list[int] | None = None,
        env: list[str] | None = None,
        **_: Any,
    ) -> list[float]:
        """``own_tokens`` are the lengths without an environment's replies; None: there are no replies."""
        lengths = [len(ids) for ids in completion_ids] if own_tokens is None else own_tokens
        names = env if self.exempt and env is not None else [""] * len(lengths)
        return [
            0.0 if name in self.exempt else overlong_penalty(length, **self.settings)
            for name, length in zip(names, lengths, strict=True)
        ]


def checked(function: Any) -> Any:
    """A user's reward function that fails with one clear message when it does not return rewards.

    Reward models (a path or a module) and coroutines are TRL's business and pass through.
    """
    if not callable(function) or isinstance(function, nn.Module) or is_async_callable(function):
        return function
    name = get_callable_name(function)

    @functools.wraps(function, updated=())
    def call(prompts: list, **kwargs: Any) -> list[float | None]:
        _check_arguments(function, name, {"prompts": prompts, **kwargs})
        rewards = function(prompts=prompts, **kwargs)
        try:
            values = list(rewards)
        except TypeError:
            raise RewardError(
                f"reward function {name!r} returned {brief(rewards)}: it must return a list of {len(prompts)} floats, "
                "one per completion (None for a completion it does not apply to)."
            ) from None
        if len(values) != len(prompts):
            raise RewardError(
                f"reward function {name!r} returned {len(values)} rewards for {len(prompts)} completions: it must "
                "return one per completion."
            )
        for i, value in enumerate(values):
            if value is not None and not is_number(value):
                raise RewardError(
                    f"reward function {name!r} returned {brief(value)} for completion {i}: it must be a finite number, "
                    "or None (or NaN) for a completion that cannot be scored."
                )
        return [None if value is None else float(value) for value in values]

    call.__name__ = name
    return call


def _check_arguments(function: Callable[..., Any], name: str, given: dict[str, Any]) -> None:
    """Refuse a reward function that asks for something else than it gets.

    Raises:
        RewardError: With the names that it gets.
    """
    try:
        inspect.signature(function).bind(**given)
    except TypeError as error:
        raise RewardError(
            f"reward function {name!r} cannot be called: {error}. It gets {', '.join(given)}, by name: the columns of "
            "the data are among them. Take what it needs of these, and the rest as **kwargs."
        ) from None
    except ValueError:  # a function of C, without a signature
        pass
