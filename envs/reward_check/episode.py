"""One episode of an environment, and the faults of what it returned. Runs in the checker's subprocess."""

from __future__ import annotations

import math
import pickle
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np

from ..base import Completion, TaskEnv
from ..contract import ContractError, contradictions, read_reset, read_step, reset_to_row
from ..text import brief, one_line, place_of, shortened

MAX_STEPS = 64
"""Episodes with more actions than this count as endless."""


class Fault(Exception):
    """A fault of an environment, in one line that names the fix."""


class Raised(Fault):
    """An exception in the environment's own code."""


@dataclass(frozen=True)
class Prompt:
    """The prompt and info that `reset` returned, and the faults of doing so."""

    text: str
    info: dict[str, Any]
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProbeResult:
    """The outcome of one answer.

    Attributes:
        reward: Summed over the episode, for a `TaskEnv` that of the verdict alone; NaN after an infrastructure failure.
        verdict: `info["verdict"]` of the last step, None if there is none.
        cause: `info["cause"]` of the last step.
        seconds: The longest that a single step took.
        steps: Actions until the episode was over.
        turns: The rewards of the actions before the last, without those of wrappers.
        total: All that the task paid in the episode: the reward of the verdict and those of the turns.
        faults: Contradictions in what `step` returned, and changes of a global random generator.
    """

    reward: float
    verdict: str | None = None
    cause: str = ""
    seconds: float = 0.0
    steps: int = 1
    turns: tuple[float, ...] = ()
    total: float = 0.0
    faults: tuple[str, ...] = field(default=(), compare=False)

    @property
    def unknown(self) -> bool:
        """Whether nothing is known about the answer."""
        return math.isnan(self.reward)


def present(env: gymnasium.Env, *, index: int | None = None, seed: int | None = None, watch: bool = True) -> Prompt:
    """Reset to a row, or by a seed; `watch` also looks whether that changes a global random generator.

    Raises:
        Fault: It raised, or did not return a text and a dict.
    """
    faults = list[str]()
    with _authors("reset", "for this seed" if index is None else "for this index", faults if watch else None):
        text, info = read_reset(env.reset(seed=seed) if index is None else reset_to_row(env, index))
    return Prompt(text, info, tuple(faults))


def answer(
    env: gymnasium.Env, text: str, *, before: Sequence[str] = (), watch: bool = True
) -> tuple[ProbeResult, dict[str, Any]]:
    """Give the same answer turn after turn until the episode, which `present` has begun, is over.

    The answer is sent as one token long, so that a penalty on length stays out of the reward. `before` holds the
    answers of the first turns, where they are others. `watch` is as for `present`.

    Returns:
        The outcome, and the info of the last step.

    Raises:
        Fault: It raised, returned something else than a step, or never ended.
    """
    reward, total, longest, faults, turns = 0.0, 0.0, 0.0, list[str](), list[float]()
    is_task = isinstance(env.unwrapped, TaskEnv)
    for step in range(1, MAX_STEPS + 1):
        given = before[step - 1] if step <= len(before) else text
        start = time.perf_counter()
        with _authors("step", f"for the answer {brief(given)}", faults if watch else None):
            returned = env.step(Completion(given, n_tokens=1, finish_reason="stop"))
            longest = max(longest, time.perf_counter() - start)
            last = read_step(returned)
        parts = last.rewards if is_task else {}
        judged = parts.get("correctness", last.reward)
        earned = judged + parts.get("turns", 0.0)
        reward, total = reward + judged, total + earned
        faults += contradictions(returned)
        if last.over:
            found = ProbeResult(reward, last.verdict, last.cause, longest, step, tuple(turns), total, tuple(faults))
            return found, last.info
        turns.append(earned)
    raise Fault(f"the episode is not over after {MAX_STEPS} steps: return terminated=True when it ends")


@contextmanager
def _authors(method: str, case: str, faults: list[str] | None) -> Iterator[None]:
    """Turn an exception of the author's code into a fault, and note in `faults` a change of a global generator."""
    before = {} if faults is None else _generators()
    try:
        yield
    except ContractError as error:
        raise Fault(str(error)) from error
    except Exception as error:
        fix = (
            "judge any text, and give what cannot be read the lowest reward"
            if method == "step"
            else "every index below num_rows (any, if that is None) and every seed must show a prompt"
        )
        reason = f"{type(error).__name__}: {shortened(one_line(error), 200)} ({place_of(error)})"
        raise Raised(f"{method}() raised {reason} {case}: {fix}") from error
    if faults is None:
        return
    faults += [
        f"{method}() changes the global generator of {name}, which training and other environments draw from too: use "
        "self.np_random or a generator of its own"
        for name, state in _generators().items()
        if state != before[name]
    ]


def _generators() -> dict[str, Any]:
    """Return the states of the global generators, as values that compare."""
    return {"random": random.getstate(), "numpy.random": pickle.dumps(np.random.get_state())}
