"""Environments by id, their wrappers by name, their rows as prompts; and whose fault it is when one cannot be used.

Imports nothing heavy.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

import envs
from envs import TaskEnv
from envs.chat import Message, own_messages, plain_text
from envs.contract import reset_to_row
from envs.description import misfit
from envs.math.answers import bare_question
from envs.reasoning_gym_tasks import checked
from envs.text import brief
from envs.wrappers import FormatReward, OverlongPenalty, RecordVerdicts, RepetitionPenalty, RewardShaping

from ..errors import ConfigError, RewardError, did_you_mean, one_line, place_of
from ..settings import load_object

WRAPPERS: dict[str, Callable[..., gymnasium.Env]] = {
    wrapper.__name__: wrapper for wrapper in (FormatReward, OverlongPenalty, RepetitionPenalty)
}
"""Wrappers known by their names alone; any other is named ``module:Class``."""
TRAINING_ONLY = (RewardShaping, gymnasium.RewardWrapper, RecordVerdicts)
"""Wrappers that change nothing a model sees, so that a measurement does without them."""


def make_env(env: str | gymnasium.Env, **kwargs: Any) -> gymnasium.Env:
    """The environment of an id: ``"math/Arithmetic-v0"``, ``"my_pkg:my/Task-v0"`` or ``"openenv:URL"``. An instance
    passes through.

    Raises:
        ConfigError: the id is unknown (the message names the nearest ones), its module cannot be imported, or it
            rejects ``kwargs``.
    """
    if isinstance(env, gymnasium.Env):
        return env
    try:
        return envs.make(env, **kwargs)
    except (gymnasium.error.NameNotFound, gymnasium.error.NamespaceNotFound) as error:
        raise ConfigError(_unknown_env(env)) from error
    except gymnasium.error.UnregisteredEnv as error:
        raise ConfigError(f"env is {env!r}: {error}") from error
    except ModuleNotFoundError as error:
        hint = "Install the package or fix the part before the colon."
        raise ConfigError(f"env is {env!r}: {str(error).rstrip('.')}. {hint}") from error
    except Exception as error:  # whatever the author's code raises
        if problem := misfit(env, kwargs):
            raise ConfigError(f"env {env!r} cannot be made: {problem}.") from error
        arguments = f" with {_brief(kwargs)}" if kwargs else ""
        raise ConfigError(f"env {env!r} cannot be made{arguments}: {_explained(error)}") from error


def row_count(env: gymnasium.Env) -> int | None:
    """Rows of an environment; None for an endless one.

    Raises:
        ConfigError: It does not give the number, or gives something else.
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


def may_reply(env: gymnasium.Env) -> bool:
    """Whether an episode may have several turns; of somebody else's environment it is not known, so it may."""
    task = env.unwrapped
    return not isinstance(task, TaskEnv) or task.max_turns > 1


def layers(env: gymnasium.Env) -> Iterator[gymnasium.Env]:
    """An environment's wrappers from the outside in, and itself."""
    while isinstance(env, gymnasium.Wrapper):
        yield env
        env = env.env
    yield env


@contextmanager
def author_errors(env: gymnasium.Env, index: int, method: str) -> Iterator[None]:
    """Name the environment, row and method that an exception of the author's code comes from."""
    try:
        yield
    except Exception as error:
        raise RewardError(
            f"env {env_name(env)}, index {index}: {method}() raised {type(error).__name__}: {one_line(error)} "
            f"({place_of(error)})."
        ) from error


def as_prompt(messages: list[Message], tokenizer: Any) -> str | list[Message]:
    """The prompt in the form that the model expects: chat messages if the tokenizer has a chat template, else text."""
    return messages if getattr(tokenizer, "chat_template", None) else plain_text(messages)


class EnvironmentRows:
    """The rows of an environment as a prompt source: ``rows[i]`` is ``{"prompt": ..., "question": ..., "index": i,
    "level": ..., "env": ...}``, and has ``is_example`` if its question is among the examples of the prompts
    (`envs.Prompting`).

    The question is the row's own, in text. The level of difficulty is None where the environment names none: TRL asks
    for the same columns in all rows.

    Args:
        name: The environment's name in the run.
    """

    def __init__(self, env: gymnasium.Env, tokenizer: Any, name: str = ""):
        self.env = env
        self.tokenizer = tokenizer
        self.name = name
        self.size = row_count(env)

    def __getitem__(self, index: int) -> dict[str, Any]:
        prompt, question, info = self.show(index)
        row = {"prompt": prompt, "question": question, "index": index, "level": info.get("level"), "env": self.name}
        return {**row, "is_example": True} if info.get("is_example") else row

    def show(self, index: int) -> tuple[str | list[Message], str, dict[str, Any]]:
        """The prompt of a row, its own question, and the ``info`` that ``reset`` gave with it."""
        question, info = self.look(index)
        with author_errors(self.env, index, "reset"):
            messages = own_messages(question, info)
        return as_prompt(messages, self.tokenizer), question, info

    def look(self, index: int) -> tuple[str, dict[str, Any]]:
        """A row's own question, and the ``info`` that ``reset`` gave with it."""
        with author_errors(self.env, index, "reset"):
            text, info = reset_to_row(self.env, index)
        if not isinstance(text, str):
            raise ConfigError(
                f"env {env_name(self.env)} is not a task for a language model: reset() returned {brief(text)} "
                f"({type(text).__name__}), and a prompt is text (str). See docs/environments.md."
            )
        return text, info


def question_of(row: Mapping[str, Any]) -> str:
    """What a row asks, without the instructions of a known answer style, for a line of a list."""
    text = row.get("question", row["prompt"])
    text = text[-1]["content"] if isinstance(text, list) else text
    return bare_question(text if isinstance(text, str) else str(text))


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
        wrappers: As in `RunConfig.env_wrappers`.
        training: False leaves out wrappers that only shape the reward (`TRAINING_ONLY`).

    Raises:
        ConfigError: there is no such wrapper, or it refuses its arguments.
    """
    for name, arguments in wrapper_settings(wrappers):
        wrapper = WRAPPERS.get(name) or load_object(name, what="env_wrappers", kind="a gymnasium.Wrapper")
        if not training and isinstance(wrapper, type) and issubclass(wrapper, TRAINING_ONLY):
            continue
        env = _wrapped(env, name, wrapper, arguments)
    return env


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
    needed = [
        parameter.name
        for parameter in known
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and parameter.name not in arguments
    ]
    if needed:
        given = ", ".join(f"{argument}: ..." for argument in needed)
        raise ConfigError(f"env_wrappers: {name} needs {' and '.join(needed)}: give it as {{{name}: {{{given}}}}}.")
    try:
        wrapped = wrapper(env, **arguments)
    except Exception as error:  # whatever the author's code raises
        cause = one_line(error)
        if not isinstance(error, ValueError | TypeError):
            cause = f"{type(error).__name__}: {cause} ({place_of(error)})"
        raise ConfigError(f"env_wrappers: {name} cannot be made: {cause}") from error
    if not isinstance(wrapped, gymnasium.Env):
        raise ConfigError(
            f"env_wrappers: {name} made a {type(wrapped).__name__}: a wrapper must return a Gymnasium environment."
        )
    return wrapped


def _explained(error: Exception) -> str:
    """An exception in one line; one that is not ours to explain with its type and the place that raised it."""
    if isinstance(error, ValueError | TypeError | OSError | gymnasium.error.Error):
        return one_line(error)
    return f"{type(error).__name__}: {one_line(error)} ({place_of(error)})"


def _brief(kwargs: dict[str, Any]) -> str:
    text = ", ".join(f"{key}={value!r}" for key, value in kwargs.items())
    return text if len(text) <= 200 else f"{text[:197]}..."


def _made_in(spec: EnvSpec, module: str) -> bool:
    """Whether an environment's class lies in a module or below it."""
    point = spec.entry_point
    home = point.partition(":")[0] if isinstance(point, str) else str(getattr(point, "__module__", ""))
    return home == module or home.startswith(f"{module}.")


def _unknown_env(env: str) -> str:
    if env in (refused := {f"reasoning_gym/{task}-v0": reason for task, reason in checked().refused.items()}):
        return f"env is {env!r}: it is not offered, because its reward fails the check. {refused[env]}"
    module, colon, _ = env.partition(":")
    if colon:
        own = sorted(spec.id for spec in gymnasium.registry.values() if _made_in(spec, module))
        registers = f"registers {', '.join(own)}, not this" if own else "registers no environment"
        return f"env is {env!r}: module {module} was imported and {registers}. Call gymnasium.register(...) in it."
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
