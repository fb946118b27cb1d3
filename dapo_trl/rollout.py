"""From environment rows to prompts, and from completions to outcomes.

The only file that knows both Gymnasium and TRL. An environment is driven row by row: ``reset(options={"index": i})``
gives the prompt, ``step(completion)`` the reward, and every member of a group must have seen the same prompt.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from datasets import Dataset

import envs
from envs import Completion, OverlongPenalty, TaskEnv

from .config import DAPOConfig
from .errors import ConfigError, RewardError, did_you_mean, one_line, place_of
from .rewards import is_number


@dataclass
class Rollout:
    """One completion with everything that training needs of it. Token lists are unpadded."""

    row: dict[str, Any]
    prompt: Any
    completion: Any
    prompt_ids: np.ndarray
    completion_ids: np.ndarray
    """int32, because rollouts travel between processes"""
    order: int
    """row of its round over all processes; completions of one group are neighbours"""
    tokens: int
    """of its own, foreign ones not counted"""
    fate: str
    """what its tokens are in the ledger once it is trained on"""
    logprobs: list[float] | None = None
    loss_mask: list[int] | None = None
    """1 for the model's own tokens, 0 for foreign ones (`rollout_func`'s ``env_mask``)"""
    rewards: list[float] = field(default_factory=list)
    """one per reward function; NaN where it does not apply"""
    log_columns: dict[str, Any] = field(default_factory=dict)
    """what reward functions logged of this completion (TRL's ``log_extra``)"""


@dataclass(frozen=True)
class Outcome:
    """What an environment said of one completion."""

    reward: float
    accuracy: float
    verdict: str
    components: dict[str, float]


def make_env(env: str | gymnasium.Env, **kwargs: Any) -> gymnasium.Env:
    """The environment of an id (``"math/Arithmetic-v0"``, ``"my_pkg:my/Task-v0"``); an instance passes through.

    Raises:
        ConfigError: the id is unknown (the message names the nearest ones), its module cannot be imported, or it
            rejects ``kwargs``.
    """
    if isinstance(env, gymnasium.Env):
        return env
    try:
        return gymnasium.make(env, **kwargs)
    except (gymnasium.error.NameNotFound, gymnasium.error.NamespaceNotFound) as error:
        raise ConfigError(_unknown_env(env)) from error
    except gymnasium.error.UnregisteredEnv as error:
        raise ConfigError(f"env is {env!r}: {error}") from error
    except ModuleNotFoundError as error:
        hint = "Install the package or fix the part before the colon."
        raise ConfigError(f"env is {env!r}: {str(error).rstrip('.')}. {hint}") from error
    except Exception as error:  # whatever the author's code raises
        arguments = f" with {_brief(kwargs)}" if kwargs else ""
        raise ConfigError(f"env {env!r} cannot be made{arguments}: {_told(error)}") from error


def row_count(env: gymnasium.Env) -> int | None:
    """Rows of an environment; None for an endless one.

    Raises:
        ConfigError: it does not say, or what it says is no number of rows.
    """
    task = env.unwrapped
    if isinstance(task, TaskEnv) and not hasattr(task, "num_rows"):
        raise ConfigError(f"env {env_name(env)} has no num_rows: set it to the number of rows, or None if endless.")
    count = getattr(task, "num_rows", None)
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise ConfigError(f"env {env_name(env)} has num_rows {count!r}: it must be 1 or more, or None if endless.")
    return count


def _told(error: Exception) -> str:
    """An exception in one line; one that is not ours to explain with its type and the place that raised it."""
    if isinstance(error, ValueError | TypeError | OSError | gymnasium.error.Error):
        return one_line(error)
    return f"{type(error).__name__}: {one_line(error)} ({place_of(error)})"


@contextmanager
def _author_errors(env: gymnasium.Env, index: int, method: str) -> Iterator[None]:
    """Say which environment, row and method an exception of the author's code comes from."""
    try:
        yield
    except Exception as error:
        raise RewardError(
            f"env {env_name(env)}, index {index}: {method}() raised {type(error).__name__}: {one_line(error)} "
            f"({place_of(error)})."
        ) from error


def _brief(kwargs: dict[str, Any]) -> str:
    text = ", ".join(f"{key}={value!r}" for key, value in kwargs.items())
    return text if len(text) <= 200 else f"{text[:197]}..."


def _unknown_env(env: str) -> str:
    ours = sorted(
        spec.id for spec in gymnasium.registry.values() if str(spec.entry_point).startswith(envs.__name__ + ".")
    )
    hint = did_you_mean(env, gymnasium.registry, most=2, cutoff=0.5)
    return (
        f"env is {env!r}: no such environment is registered.{hint} This package has {', '.join(ours)}; an "
        "environment of your own is named 'your_module:your/Task-v0'."
    )


def as_prompt(text: str, tokenizer: Any) -> str | list[dict[str, str]]:
    """The prompt in the form the model expects: one user message if the tokenizer has a chat template, else text."""
    return [{"role": "user", "content": text}] if getattr(tokenizer, "chat_template", None) else text


class EnvironmentRows:
    """The rows of an environment as a prompt source: ``rows[i]`` is ``{"prompt": ..., "index": i}``, with
    the ``level`` of difficulty if the environment names one."""

    def __init__(self, env: gymnasium.Env, tokenizer: Any):
        self.env = env
        self.tokenizer = tokenizer
        self.size = row_count(env)

    def __getitem__(self, index: int) -> dict[str, Any]:
        prompt, info = self.show(index)
        level = {"level": info["level"]} if "level" in info else {}
        return {"prompt": prompt, "index": index, **level}

    def show(self, index: int) -> tuple[str | list[dict[str, str]], dict[str, Any]]:
        """The prompt of a row, and what the environment says of it besides (``info`` of ``reset``)."""
        with _author_errors(self.env, index, "reset"):
            text, info = self.env.reset(options={"index": index})
        if not isinstance(text, str):
            raise ConfigError(
                f"env {env_name(self.env)} returned {text!r} ({type(text).__name__}) from reset(): a task for a "
                "language model must return the prompt as a str."
            )
        return as_prompt(text, self.tokenizer), info


def env_name(env: gymnasium.Env) -> str:
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


def has_overlong_penalty(env: gymnasium.Env) -> bool:
    """Whether the environment already subtracts an overlong penalty of its own."""
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, OverlongPenalty):
            return True
        env = env.env
    return False


def score(env: gymnasium.Env, index: int, completion: Completion, *, expected_prompt: str | None = None) -> Outcome:
    """Run one completion through the environment's row ``index``.

    Raises:
        RewardError: the environment showed another prompt than the one answered, or returned something that is not a
            reward.
    """
    with _author_errors(env, index, "reset"):
        prompt, _ = env.reset(options={"index": index})
    if expected_prompt is not None and prompt != expected_prompt:
        raise RewardError(
            f"env {env_name(env)} gave two different prompts for index {index} ({prompt[:80]!r}, then "
            f'{expected_prompt[:80]!r}): reset(options={{"index": i}}) must always give the same row, or completions '
            "of one group cannot be compared."
        )
    with _author_errors(env, index, "step"):
        _, reward, _, _, info = env.step(completion)
    if reward is None or isinstance(reward, bool) or not is_number(reward):
        raise RewardError(
            f"env {env_name(env)} returned the reward {reward!r} ({type(reward).__name__}) for index {index}: step() "
            "must return a float, or NaN for a completion that cannot be scored."
        )
    components = dict(info.get("rewards", {}))
    return Outcome(
        reward=float(reward),
        accuracy=float(info.get("accuracy", float(reward) - components.get("overlong", 0.0))),
        verdict=str(info.get("verdict", "unknown")),
        components=components,
    )


def as_completion(tokenizer: Any, ids: list[int], stop_ids: Collection[int]) -> Completion:
    """What the environment is given for the tokens that the model wrote. The text is decoded from the tokens: a chat
    parser may have split the reasoning off the message."""
    ended = bool(ids) and ids[-1] in stop_ids
    text = tokenizer.decode(ids, skip_special_tokens=True)
    return Completion(text, n_tokens=len(ids), finish_reason="stop" if ended else "length")


class EnvironmentReward:
    """An environment as a TRL reward function. The outcomes of the last call stay in ``outcomes``."""

    __name__ = "environment"

    def __init__(self, env: gymnasium.Env):
        self.env = env
        self.outcomes: list[Outcome] = []
        self.tokenizer: Any = None
        self.stop_ids: frozenset[int] = frozenset()

    def bind(self, tokenizer: Any, stop_ids: Iterable[int]) -> None:
        """Say how completions are decoded and which last tokens mean that the model ended by itself."""
        self.tokenizer = tokenizer
        self.stop_ids = frozenset(stop_ids)

    def __call__(
        self, prompts: list, completions: list, completion_ids: list[list[int]], index: list[int], **_: Any
    ) -> list[float]:
        self.outcomes = []
        for prompt, ids, row in zip(prompts, completion_ids, index, strict=True):
            action = as_completion(self.tokenizer, ids, self.stop_ids)
            shown = prompt if isinstance(prompt, str) else prompt[-1]["content"]
            self.outcomes.append(score(self.env, row, action, expected_prompt=shown))
        return [outcome.reward for outcome in self.outcomes]


def clock_rows(env: gymnasium.Env, args: DAPOConfig, train_dataset, eval_dataset) -> Dataset:
    """What TRL takes for a training set when an environment supplies the prompts: as many rows, and nothing in them."""
    if train_dataset is not None or eval_dataset is not None:
        which = "train_dataset" if train_dataset is not None else "eval_dataset"
        raise ConfigError(
            f"both env ({env_name(env)}) and {which} are given: prompts and rewards come from the environment. Drop "
            "one of the two (dapo_trl.evaluation.evaluate measures a model in an environment)."
        )
    size = row_count(env)
    if size is None and args.max_steps <= 0:
        raise ConfigError(
            f"env {env_name(env)} is endless and max_steps is {args.max_steps}: an epoch of it never ends. Set "
            "max_steps to the number of optimizer steps."
        )
    return Dataset.from_dict({"prompt": [""] * (size or args.groups_per_rollout)})
