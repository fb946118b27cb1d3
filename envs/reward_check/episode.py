"""One episode of an environment, and what is wrong with what it returned. Runs in the checker's subprocess."""

from __future__ import annotations

import math
import pickle
import random
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from ..base import Completion, TaskEnv, Verdict

MAX_STEPS = 64
"""An episode that is not over after as many actions is taken for one that never ends."""
_VERDICTS = frozenset(verdict.value for verdict in Verdict)


class Fault(Exception):
    """What an environment did wrong, in one line that names the fix."""


class Raised(Fault):
    """An exception in the environment's own code."""


@dataclass(frozen=True)
class Prompt:
    """What `reset` returned."""

    text: str
    info: dict[str, Any]
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProbeResult:
    """What an environment said of one answer.

    Attributes:
        reward: Summed over the episode, for a `TaskEnv` before any shaping; NaN after an infrastructure failure.
        verdict: `info["verdict"]` of the last step, None if there is none.
        cause: `info["cause"]` of the last step.
        seconds: The longest that a single step took.
        steps: Actions until the episode was over.
        faults: What is wrong with the info, and which global random generator was used.
    """

    reward: float
    verdict: str | None = None
    cause: str = ""
    seconds: float = 0.0
    steps: int = 1
    faults: tuple[str, ...] = field(default=(), compare=False)

    @property
    def unknown(self) -> bool:
        """Whether nothing is known about the answer."""
        return math.isnan(self.reward)


def present(env: gymnasium.Env, *, index: int | None = None, seed: int | None = None) -> Prompt:
    """Reset to a row, or by a seed.

    Raises:
        Fault: It raised, or did not return a text and a dict.
    """
    options, faults = None if index is None else {"index": index}, list[str]()
    with _authors("reset", "for this seed" if index is None else "for this index", faults):
        returned = env.reset(seed=seed, options=options)
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise Fault(f"reset() returned {shape(returned)}: return (prompt, info), a str and a dict")
    text, info = returned
    if not isinstance(text, str):
        raise Fault(
            f"reset() returned {brief(text)} ({type(text).__name__}) as the observation: return the prompt as a str"
        )
    if not isinstance(info, dict):
        raise Fault(f"reset() returned the info {brief(info)} ({type(info).__name__}): return a dict")
    return Prompt(text, info, tuple(faults))


def answer(env: gymnasium.Env, text: str) -> tuple[ProbeResult, dict[str, Any]]:
    """Give the same answer turn after turn until the episode, which `present` has begun, is over.

    The answer is sent as one token long, so that a penalty on length stays out of the reward.

    Returns:
        The outcome, and the info of the last step.

    Raises:
        Fault: It raised, returned something else than a step, or never ended.
    """
    reward, longest, faults = 0.0, 0.0, list[str]()
    judged_by = "correctness" if isinstance(env.unwrapped, TaskEnv) else None
    for step in range(1, MAX_STEPS + 1):
        start = time.perf_counter()
        with _authors("step", f"for the answer {brief(text)}", faults):
            returned = env.step(Completion(text, n_tokens=1, finish_reason="stop"))
        longest = max(longest, time.perf_counter() - start)
        info, gained, over = _read(returned)
        rewards = info.get("rewards")
        reward += rewards[judged_by] if isinstance(rewards, dict) and judged_by in rewards else gained
        faults += _info_faults(info, gained, over)
        if over:
            verdict = info.get("verdict")
            cause = str(info.get("cause", ""))
            return ProbeResult(
                reward, None if verdict is None else str(verdict), cause, longest, step, tuple(faults)
            ), info
    raise Fault(f"the episode is not over after {MAX_STEPS} steps: return terminated=True when it ends")


def _read(returned: Any) -> tuple[dict[str, Any], float, bool]:
    """Return the info, the reward and whether the episode is over."""
    if not isinstance(returned, tuple) or len(returned) != 5:
        raise Fault(f"step() returned {shape(returned)}: return (observation, reward, terminated, truncated, info)")
    observation, reward, terminated, truncated, info = returned
    for name, value in (("terminated", terminated), ("truncated", truncated)):
        if not isinstance(value, (bool, np.bool_)):
            raise Fault(f"step() returned {name}={brief(value)} ({type(value).__name__}): return a bool")
    if not isinstance(info, dict):
        raise Fault(f"step() returned the info {brief(info)} ({type(info).__name__}): return a dict")
    if isinstance(reward, (bool, np.bool_)) or not isinstance(reward, Real):
        raise Fault(
            f"step() returned the reward {brief(reward)} ({type(reward).__name__}): return a float, such as 1.0 or 0.0"
        )
    gained = float(reward)
    if math.isinf(gained) or (math.isnan(gained) and info.get("verdict") != Verdict.INFRA_FAILURE.value):
        raise Fault(
            f'step() returned the reward {gained}: return a finite number, or NaN together with info["verdict"] = '
            '"infra_failure" where nothing is known about the answer'
        )
    over = bool(terminated or truncated)
    if not isinstance(observation, str):
        raise Fault(
            f"step() returned {brief(observation)} ({type(observation).__name__}) as the observation: return "
            + ('a str, "" at the end' if over else "the reply as a str")
        )
    return info, gained, over


def _info_faults(info: Mapping[str, Any], reward: float, over: bool) -> Iterator[str]:
    """Find what contradicts the meaning of "verdict", "accuracy" and "rewards"; all of them are optional."""
    verdict, accuracy, rewards = (info.get(key) for key in ("verdict", "accuracy", "rewards"))
    if "verdict" in info and (not isinstance(verdict, str) or str(verdict) not in _VERDICTS):
        yield f'info["verdict"] is {brief(verdict)}: give one of {", ".join(sorted(_VERDICTS))}'
    if "accuracy" in info:
        number = isinstance(accuracy, Real) and not isinstance(accuracy, bool)
        if not number or not (0.0 <= accuracy <= 1.0 or (math.isnan(accuracy) and math.isnan(reward))):  # type: ignore[operator, arg-type]
            yield f'info["accuracy"] is {brief(accuracy)}: give the raw correctness as a number in [0, 1]'
    if "rewards" in info:
        if not isinstance(rewards, dict) or not all(isinstance(part, Real) for part in rewards.values()):
            yield f'info["rewards"] is {brief(rewards)}: give a dict of numbers, the parts of the reward by name'
        elif not math.isnan(reward) and not math.isclose(sum(rewards.values()), reward, rel_tol=1e-6, abs_tol=1e-6):
            yield (
                f'info["rewards"] sums to {sum(rewards.values()):g} where the reward is {reward:g}: the parts must sum '
                "to it"
            )
    if not over and "verdict" in info:
        yield 'info has a "verdict" before the episode is over: leave it out until the last step'


@contextmanager
def _authors(method: str, case: str, faults: list[str]) -> Iterator[None]:
    """Turn an exception of the author's code into a fault, and note the use of a global random generator."""
    before = _generators()
    try:
        yield
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        fix = (
            "judge any text, and give what cannot be read the lowest reward"
            if method == "step"
            else "every index below num_rows (any, if that is None) and every seed must show a prompt"
        )
        said = " ".join(str(error).split())
        said = said if len(said) <= 200 else f"{said[:200]}..."
        raise Raised(f"{method}() raised {type(error).__name__}: {said} ({place}) {case}: {fix}") from error
    faults += [
        f"{method}() changes the global generator of {name}, which training and other environments draw from too: use "
        "self.np_random or a generator of its own"
        for name, state in _generators().items()
        if state != before[name]
    ]


def _generators() -> dict[str, Any]:
    """Return the states of the global generators, as values that compare."""
    return {"random": random.getstate(), "numpy.random": pickle.dumps(np.random.get_state())}


def shape(value: Any) -> str:
    """Describe what stands where a tuple should."""
    return f"a tuple of {len(value)}" if isinstance(value, tuple) else f"{brief(value)} ({type(value).__name__})"


def brief(value: Any) -> str:
    """Write a value in at most 60 characters."""
    text = repr(str(value)) if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:45]}... ({len(text):,} characters)"
