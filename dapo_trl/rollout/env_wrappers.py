"""The wrappers of a run's environment, by name: what ``env_wrappers`` says, checked and put around."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium

from envs.wrappers import FormatReward, OverlongPenalty, RecordVerdicts, RepetitionPenalty, RewardShaping

from ..errors import ConfigError, did_you_mean, one_line, place_of
from ..settings import load_object

WRAPPERS: dict[str, Callable[..., gymnasium.Env]] = {
    wrapper.__name__: wrapper for wrapper in (FormatReward, OverlongPenalty, RepetitionPenalty)
}
"""known by their names alone; any other is named ``module:Class``"""
TRAINING_ONLY = (RewardShaping, gymnasium.RewardWrapper, RecordVerdicts)
"""they change nothing that a model sees, so a measurement does without"""


def wrapper_settings(wrappers: Sequence[Any]) -> list[tuple[str, dict[str, Any]]]:
    """``env_wrappers`` as names and arguments, from the inside out.

    Raises:
        ConfigError: an item that is neither a name nor one name with its arguments.
    """
    found = []
    for place, item in enumerate(wrappers):
        where = f"env_wrappers[{place}] is {item!r}"
        if isinstance(item, str):
            item = {item: None}
        if not isinstance(item, dict) or len(item) != 1:
            raise ConfigError(
                f"{where}: it must be the name of one wrapper, or one name with its arguments, as in "
                "{RepetitionPenalty: {max_penalty: 0.5}}."
            )
        ((name, arguments),) = item.items()
        if not isinstance(name, str) or not (arguments is None or isinstance(arguments, dict)):
            raise ConfigError(
                f"{where}: a wrapper's arguments must be a mapping, as in {{RepetitionPenalty: {{max_penalty: 0.5}}}}."
            )
        if name not in WRAPPERS and ":" not in name:
            raise ConfigError(
                f"env_wrappers names {name!r}: there is no such wrapper.{did_you_mean(name, WRAPPERS)} This package "
                f"has {', '.join(WRAPPERS)}; a wrapper of your own is named 'your_module:YourWrapper'."
            )
        found.append((name, {str(key): value for key, value in (arguments or {}).items()}))
    return found


def wrap_env(env: gymnasium.Env, wrappers: Sequence[Any], *, training: bool = True) -> gymnasium.Env:
    """Put wrappers around an environment, the first innermost.

    Args:
        wrappers: see `RunConfig.env_wrappers`.
        training: False leaves out those that only shape the reward (`TRAINING_ONLY`).

    Raises:
        ConfigError: there is no such wrapper, or it refuses its arguments.
    """
    for name, arguments in wrapper_settings(wrappers):
        wrapper = WRAPPERS.get(name) or _load(name)
        if not training and isinstance(wrapper, type) and issubclass(wrapper, TRAINING_ONLY):
            continue
        env = _wrapped(env, name, wrapper, arguments)
    return env


def _load(name: str) -> Callable[..., gymnasium.Env]:
    wrapper = load_object(name, what="env_wrappers")
    if not callable(wrapper):
        raise ConfigError(f"env_wrappers names {name!r}, a {type(wrapper).__name__}: it must be a gymnasium.Wrapper.")
    return wrapper


def _wrapped(
    env: gymnasium.Env, name: str, wrapper: Callable[..., gymnasium.Env], arguments: dict[str, Any]
) -> gymnasium.Env:
    known = list(inspect.signature(wrapper).parameters.values())[1:]
    names = [parameter.name for parameter in known if parameter.kind is not parameter.VAR_KEYWORD]
    if len(names) == len(known):
        for argument in arguments:
            if argument not in names:
                raise ConfigError(
                    f"env_wrappers: {name} has no argument {argument!r}.{did_you_mean(argument, names)} It takes "
                    f"{', '.join(names) or 'none'}."
                )
    try:
        wrapped = wrapper(env, **arguments)
    except Exception as error:  # whatever the author's code raises
        told = one_line(error)
        if not isinstance(error, ValueError | TypeError):
            told = f"{type(error).__name__}: {told} ({place_of(error)})"
        raise ConfigError(f"env_wrappers: {name} cannot be made: {told}") from error
    if not isinstance(wrapped, gymnasium.Env):
        raise ConfigError(
            f"env_wrappers: {name} made a {type(wrapped).__name__}: a wrapper must return a Gymnasium environment."
        )
    return wrapped
