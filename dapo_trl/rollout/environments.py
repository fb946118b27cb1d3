"""Environments by id, and whose fault it is when one cannot be used. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium

import envs
from envs import OverlongPenalty, TaskEnv
from envs.reasoning_gym_tasks import checked

from ..errors import ConfigError, RewardError, did_you_mean, one_line, place_of


def make_env(env: str | gymnasium.Env, **kwargs: Any) -> gymnasium.Env:
    """The environment of an id (``"math/Arithmetic-v0"``, ``"my_pkg:my/Task-v0"``); an instance passes through.

    Raises:
        ConfigError: the id is unknown (the message names the nearest ones), its module cannot be imported, or it
            rejects ``kwargs``.
    """
    if isinstance(env, gymnasium.Env):
        return env
    try:
        return gymnasium.make(env, disable_env_checker=True, **kwargs)  # what it returns is checked here, in words
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


def env_name(env: gymnasium.Env) -> str:
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


def has_overlong_penalty(env: gymnasium.Env) -> bool:
    """Whether the environment already subtracts an overlong penalty of its own."""
    return any(isinstance(layer, OverlongPenalty) for layer in layers(env))


def layers(env: gymnasium.Env) -> Iterator[gymnasium.Env]:
    """An environment's wrappers from the outside in, and itself."""
    while isinstance(env, gymnasium.Wrapper):
        yield env
        env = env.env
    yield env


@contextmanager
def author_errors(env: gymnasium.Env, index: int, method: str) -> Iterator[None]:
    """Say which environment, row and method an exception of the author's code comes from."""
    try:
        yield
    except Exception as error:
        raise RewardError(
            f"env {env_name(env)}, index {index}: {method}() raised {type(error).__name__}: {one_line(error)} "
            f"({place_of(error)})."
        ) from error


def _told(error: Exception) -> str:
    """An exception in one line; one that is not ours to explain with its type and the place that raised it."""
    if isinstance(error, ValueError | TypeError | OSError | gymnasium.error.Error):
        return one_line(error)
    return f"{type(error).__name__}: {one_line(error)} ({place_of(error)})"


def _brief(kwargs: dict[str, Any]) -> str:
    text = ", ".join(f"{key}={value!r}" for key, value in kwargs.items())
    return text if len(text) <= 200 else f"{text[:197]}..."


def _unknown_env(env: str) -> str:
    if env in (refused := {f"reasoning_gym/{task}-v0": reason for task, reason in checked().refused.items()}):
        return f"env is {env!r}: it is not offered, because its reward fails the check. {refused[env]}"
    ours = sorted(
        spec.id
        for spec in gymnasium.registry.values()
        if str(spec.entry_point).startswith(envs.__name__ + ".") and spec.namespace != "reasoning_gym"
    )
    hint = did_you_mean(env, gymnasium.registry, most=2, cutoff=0.5)
    return (
        f"env is {env!r}: no such environment is registered.{hint} This package has {', '.join(ours)} and more (see "
        "dapo-trl envs list); an environment of your own is named 'your_module:your/Task-v0'."
    )
