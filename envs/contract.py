"""The contract of an environment: what `reset`, `step` and the info must be, and the one place that checks it.

Training reads with `read_reset` and `read_step`, which refuse what cannot be trained on. The reward checker also
reports the `contradictions` of a step that can be read. A message names the value, its type, the rule and the fix; the
caller adds the environment and the row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import gymnasium
import numpy as np

from .base import TaskEnv, Verdict
from .chat import own_messages
from .numeric import is_number
from .text import brief

_VERDICTS = frozenset(verdict.value for verdict in Verdict)


class ContractError(ValueError):
    """`reset` or `step` returned something that cannot be used."""


@dataclass(frozen=True)
class Step:
    """The result of one `step`, checked and typed.

    Attributes:
        reply: The observation; "" where the episode is over and it is no text.
        reward: NaN for a completion that cannot be scored.
        over: Whether the episode is terminated or truncated.
        info: As it was returned.
        rewards: `info["rewards"]`, the parts of the reward by name; empty where there are none.
        accuracy: `info["accuracy"]` in [0, 1], or NaN for a completion that cannot be scored; None if there is none.
        verdict: `info["verdict"]`, None if there is none.
        cause: `info["cause"]`, empty if there is none.
        answer: `info["answer"]`, the model's answer as the environment read it; None if there is none.
        figures: `info["figures"]`, numbers by name that a run logs; empty where there are none.
    """

    reply: str = ""
    reward: float = 0.0
    over: bool = False
    info: dict[str, Any] = field(default_factory=dict)
    rewards: dict[str, float] = field(default_factory=dict)
    accuracy: float | None = None
    verdict: str | None = None
    cause: str = ""
    answer: str | None = None
    figures: dict[str, float] = field(default_factory=dict)


def reset_to_row(env: gymnasium.Env, index: int) -> Any:
    """Reset an environment to a row, and return what `reset` returned.

    A foreign environment, which may know nothing of `options["index"]`, gets the row's number as the seed too.
    """
    seed = None if isinstance(env.unwrapped, TaskEnv) else index
    return env.reset(seed=seed, options={"index": index})


def read_reset(returned: Any) -> tuple[str, dict[str, Any]]:
    """Return the prompt and the info that `reset` returned.

    Raises:
        ContractError: It returned something else.
    """
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise ContractError(f"reset() returned {_shape(returned)}: return (prompt, info), a str and a dict")
    prompt, info = returned
    if not isinstance(prompt, str):
        raise ContractError(f"reset() returned {_typed(prompt)} as the observation: return the prompt as a str")
    if not isinstance(info, dict):
        raise ContractError(f"reset() returned the info {_typed(info)}: return a dict")
    try:
        own_messages(prompt, info)
    except ValueError as error:
        raise ContractError(f"reset() returned a prompt that cannot be used: {error}") from error
    return prompt, info


def read_step(returned: Any) -> Step:
    """Return the result of `step` as a `Step`.

    Raises:
        ContractError: It returned something that cannot be trained on.
    """
    if not isinstance(returned, tuple) or len(returned) != 5:
        raise ContractError(
            f"step() returned {_shape(returned)}: return (observation, reward, terminated, truncated, info)"
        )
    reply, reward, terminated, truncated, info = returned
    if isinstance(reward, (bool, np.bool_)) or not is_number(reward):
        raise ContractError(
            f"step() returned the reward {_typed(reward)}: return a float such as 1.0 or 0.0, or NaN for a completion "
            "that cannot be scored"
        )
    if not isinstance(info, dict):
        raise ContractError(f"step() returned the info {_typed(info)}: return a dict")
    rewards = _numbers(info, "rewards", "the parts of the reward by name")
    figures = _numbers(info, "figures", "what a run is to log of it by name")
    accuracy = info.get("accuracy", 0.0)
    if not is_number(accuracy) or float(accuracy) < 0 or float(accuracy) > 1:
        raise ContractError(
            f'step() returned info["accuracy"] {_typed(accuracy)}: return the raw correctness as a number in [0, 1], '
            "or NaN for a completion that cannot be scored"
        )
    over = bool(terminated or truncated)
    if not over and not isinstance(reply, str):
        raise ContractError(
            f"step() returned {_typed(reply)} as the observation and does not end the episode: reply with a str, or "
            "return terminated or truncated as True"
        )
    return Step(
        reply=reply if isinstance(reply, str) else "",
        reward=float(reward),
        over=over,
        info=info,
        rewards=rewards,
        accuracy=float(accuracy) if "accuracy" in info else None,
        verdict=_text(info.get("verdict")),
        cause=_text(info.get("cause")) or "",
        answer=_text(info.get("answer")),
        figures=figures,
    )


def contradictions(returned: tuple[Any, Any, Any, Any, dict[str, Any]]) -> Iterator[str]:
    """Yield the faults of a step that `read_step` accepts.

    "verdict", "accuracy" and "rewards" are optional, but where they are given they must agree with each other.
    """
    step = read_step(returned)
    observation, reward, terminated, truncated, info = returned
    for name, value in (("terminated", terminated), ("truncated", truncated)):
        if not isinstance(value, (bool, np.bool_)):
            yield f"step() returned {name}={_typed(value)}: return a bool"
    if not isinstance(observation, str):
        yield f'step() returned {_typed(observation)} as the observation: return a str, "" at the end'
    if not isinstance(reward, Real):
        yield f"step() returned the reward {_typed(reward)}: return a float"
    unknown = math.isnan(step.reward)
    if unknown and step.verdict != Verdict.INFRA_FAILURE:
        yield (
            'step() returned the reward nan: return a finite number, or NaN together with info["verdict"] = '
            '"infra_failure" where nothing is known about the answer'
        )
    if "verdict" in info and (not isinstance(info["verdict"], str) or step.verdict not in _VERDICTS):
        yield f'info["verdict"] is {brief(info["verdict"])}: give one of {", ".join(sorted(_VERDICTS))}'
    if not step.over and "verdict" in info:
        yield 'info has a "verdict" before the episode is over: leave it out until the last step'
    if step.accuracy is not None and math.isnan(step.accuracy) and not unknown:
        yield f'info["accuracy"] is nan where the reward is {step.reward:g}: give a number in [0, 1]'
    total = sum(step.rewards.values())
    if "rewards" in info and not unknown and not math.isclose(total, step.reward, rel_tol=1e-6, abs_tol=1e-6):
        yield f'info["rewards"] sums to {total:g} where the reward is {step.reward:g}: the parts must sum to it'


def _numbers(info: dict[str, Any], key: str, meaning: str) -> dict[str, float]:
    """Return the dict of numbers in an info, empty where there is none."""
    found = info.get(key, {})
    if not isinstance(found, dict) or not all(is_number(value) for value in found.values()):
        raise ContractError(f'step() returned info["{key}"] {brief(found)}: return a dict of numbers, {meaning}')
    return {str(name): float(value) for name, value in found.items()}


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _typed(value: Any) -> str:
    return f"{brief(value)} ({type(value).__name__})"


def _shape(value: Any) -> str:
    """Describe a value that is not the tuple that it should be."""
    return f"a tuple of {len(value)}" if isinstance(value, tuple) else _typed(value)
