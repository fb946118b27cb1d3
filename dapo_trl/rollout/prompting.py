"""The settings `system_prompt`, `few_shot` and `prompt_template`, applied to environments. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import gymnasium

from envs import Prompting
from envs.text import brief

from ..errors import ConfigError, one_line, place_of
from .environments import EnvironmentRows, env_name, layers, row_count

NAMES = ("system_prompt", "few_shot", "prompt_template")
"""The settings of a prompt: in a `DAPOConfig`, in an `EvalConfig`, and as arguments of `Prompting`."""


def prompting_of(env: gymnasium.Env) -> Prompting | None:
    """The layer of an environment that puts its prompts together; None: it has none."""
    return next((layer for layer in layers(env) if isinstance(layer, Prompting)), None)


def prompted(env: gymnasium.Env, settings: Any, *, source: gymnasium.Env | None = None) -> gymnasium.Env:
    """An environment that asks as the settings say; the same one where they say nothing, or it does so already.

    Args:
        settings: Has the attributes of `NAMES`.
        source: The environment whose rows are the examples that a number asks for; None: this one.

    Raises:
        ConfigError: There are no such examples, or it has other prompts already.
    """
    asked = {name: getattr(settings, name) for name in NAMES}
    if not any(asked.values()):
        return env
    if (layer := prompting_of(env)) is not None:
        if layer.asked == asked:
            return env
        given = " and ".join(name for name, value in asked.items() if value)
        raise ConfigError(f"env {env_name(env)} has a Prompting wrapper and {given} is set: leave one of the two out.")
    try:
        return Prompting(env, **asked) if source is None else Prompting(source, **asked).around(env)
    except (ValueError, OSError) as error:
        raise ConfigError(f"{one_line(error)}.") from error
    except Exception as error:  # whatever the author's code raises
        cause = f"{type(error).__name__}: {one_line(error)} ({place_of(error)})"
        raise ConfigError(f"few_shot is {brief(asked['few_shot'])}, and env {env_name(env)} raised {cause}.") from error


def prompted_alike(env: gymnasium.Env, trained: gymnasium.Env) -> gymnasium.Env:
    """A held-out environment that asks as the one that is trained on does, with the same examples.

    Its own `Prompting` wrappers, if it has any, are replaced where they stand by those of the other.
    """
    theirs = (layer for layer in layers(trained) if isinstance(layer, Prompting))
    if prompting_of(env) is not None:
        return _replaced(env, theirs)
    layer = next(theirs, None)
    return env if layer is None else layer.around(env)


def _replaced(env: gymnasium.Env, theirs: Iterator[Prompting]) -> gymnasium.Env:
    if isinstance(env, Prompting):
        return next(theirs, env).around(_replaced(env.env, theirs))
    if isinstance(env, gymnasium.Wrapper):
        env.env = _replaced(env.env, theirs)
    return env


def is_example(env: gymnasium.Env, index: int) -> bool:
    """Whether a row of an environment is among the examples of its prompts, and so never trained or measured on."""
    layer = prompting_of(env)
    return (
        layer is not None and bool(layer.format.few_shot) and "is_example" in EnvironmentRows(env, None).look(index)[1]
    )


def measured_rows(env: gymnasium.Env, problems: int | None) -> list[int]:
    """The first rows of an environment, without those that are examples.

    Args:
        problems: As many rows; None: all of an environment that has an end.

    Raises:
        ConfigError: There are not as many, or one is among examples that were given.
    """
    size, layer, found = row_count(env), prompting_of(env), list[int]()
    for index in count() if size is None else range(size):
        if len(found) == problems:
            break
        if not is_example(env, index):
            found.append(index)
        elif layer is not None and not layer.drawn:
            raise ConfigError(overlap(f"row {index} of {env_name(env)}", EnvironmentRows(env, None).look(index)[0]))
    if problems is not None and len(found) < problems:
        raise ConfigError(
            f"eval_problems is {problems}, but {env_name(env)} has {size} rows, and {len(found)} of them are not among "
            "the few_shot examples: lower one of the two."
        )
    return found


def overlap(row: str, question: str) -> str:
    """Why a row cannot be measured with these examples, in two sentences."""
    return (
        f"few_shot holds the question of {row}, {brief(question)}, which is measured: a problem whose answer stands in "
        "the prompt measures nothing. Take it out of few_shot, or measure other rows."
    )
