"""The checker's subprocess: makes the environment and serves the checker's requests, one at a time.

An environment that hangs, leaks or ends its process takes this one along and not the checker's.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection
from types import CodeType, FunctionType
from typing import Any

import cloudpickle
import gymnasium

from ..base import Completion, TaskEnv, judges_of
from ..contract import reset_to_row
from ..interop.doors import make, spec_from_json
from ..numeric import is_count
from ..text import brief, one_line, place_of
from .episode import MAX_STEPS, Fault, ProbeResult, Prompt, Raised, answer, present
from .persuasion import persuasions

MAX_CONSTANTS, MAX_CONSTANT_LENGTH = 40, 60
"""Texts in an environment's own code that are tried as answers, and their characters."""
_PR_SET_PDEATHSIG = 1  # of linux/prctl.h


@dataclass(frozen=True)
class Description:
    """An environment's own description.

    Attributes:
        name: Its id, or its class.
        num_rows: None for an endless one.
        reward_range: The lowest and the highest reward, None where it names none.
        many_turns: Whether an episode may have several actions.
        judging_seconds: Seconds within which it judges any action, as it states.
        has_judge: Whether it is known to ask a judge elsewhere.
        weakness: Why its answer style is easier to game than others; empty if it is not.
    """

    name: str
    num_rows: int | None
    reward_range: tuple[float, float] | None
    many_turns: bool
    judging_seconds: float
    has_judge: bool = False
    weakness: str = ""


class Worker:
    """The environment and the requests that it takes; each method is one kind of request."""

    def __init__(self, make: Callable[[], gymnasium.Env]) -> None:
        self._make = make
        self._env = make()
        self._others: dict[str, gymnasium.Env] = {}
        self._thread: ThreadPoolExecutor | None = None

    def describe(self) -> Description:
        """Return the environment's own description."""
        task = self._env.unwrapped
        name = self._env.spec.id if self._env.spec is not None else type(task).__name__
        count = getattr(task, "num_rows", None)
        if isinstance(task, TaskEnv) and not hasattr(task, "num_rows"):
            raise Fault("it has no num_rows: set it to the number of rows, or None if it is endless")
        if count is not None and not is_count(count):
            raise Fault(f"num_rows is {brief(count)}: it must be an integer of at least 1, or None if it is endless")
        bounds = (task.wrong_reward, task.correct_reward) if isinstance(task, TaskEnv) else None
        many_turns = getattr(task, "max_turns", 1) > 1
        seconds = getattr(task, "judging_seconds", TaskEnv.judging_seconds)
        weakness = str(getattr(getattr(task, "style", None), "weakness", ""))
        return Description(name, count, bounds, many_turns, seconds, bool(judges_of(task)), weakness)

    def present(self, index: int | None = None, seed: int | None = None, other: str = "") -> Prompt:
        """Return the prompt of a row or a seed."""
        prompt = present(self._instance(other), index=index, seed=seed)
        return Prompt(prompt.text, _plain(prompt.info), prompt.faults)

    def solution(self, index: int) -> str | None:
        """Return the right answer to a row as the environment states it; None if it states none."""
        known = getattr(self._env.unwrapped, "solution", None)
        if known is None:
            return None
        try:
            text = known(index)
        except Exception as error:
            raise Raised(f"solution({index}) raised {type(error).__name__}: {one_line(error)}") from error
        if text is not None and not isinstance(text, str):
            raise Fault(f"solution({index}) returned {type(text).__name__}: return a str, or None if none is known")
        return text

    def answer(self, index: int, text: str, other: str = "") -> ProbeResult:
        """Return the outcome of an answer in this instance, or in another: "second", or "json" (from its spec)."""
        env = self._instance(other)
        present(env, index=index)
        return answer(env, text)[0]

    def answer_after(self, index: int, text: str, before: Sequence[str]) -> ProbeResult:
        """Return the outcome of an answer that follows other answers of the same episode."""
        present(self._env, index=index)
        return answer(self._env, text, before=before)[0]

    def rewards(self, asked: Sequence[tuple[int, str]], with_turns: bool = True) -> list[float]:
        """Return the reward of each of some (index, answer), with the rewards of turns or that of the verdict alone.

        It is NaN where the environment raised or broke its contract.
        """
        found = []
        for index, text in asked:
            try:
                present(self._env, index=index, watch=False)
                outcome = answer(self._env, text, watch=False)[0]
                found.append(outcome.total if with_turns else outcome.reward)
            except Fault:
                found.append(math.nan)
        return found

    def soak(self, rows: Sequence[int], count: int, seconds: float) -> int:
        """Give a wrong answer up to `count` times in a row, for some seconds at most, and return how often."""
        end = time.perf_counter() + seconds
        for done in range(count):
            if time.perf_counter() > end:
                return done
            try:
                reset_to_row(self._env, rows[done % len(rows)])
                for _ in range(MAX_STEPS):
                    _, _, terminated, truncated, _ = self._env.step(Completion("pneumonoultramicroscopic", n_tokens=1))
                    if terminated or truncated:
                        break
            except Exception as error:
                raise Raised(f"{type(error).__name__}: {one_line(error)} ({place_of(error)})") from error
        return count

    def constants(self) -> list[str]:
        """Return the short texts in the code that judges: of `verify`, `reply` and `step`, and what these call."""
        return list(islice(dict.fromkeys(_texts_of_code(self._env.unwrapped)), MAX_CONSTANTS))

    def persuasions(self) -> dict[str, str]:
        """Return answers that are written for a judge, by name; in the form of its verdicts where it states that."""
        return persuasions(next((judge.full_marks for judge in judges_of(self._env.unwrapped)), ""))

    def answer_in_thread(self, index: int, text: str) -> ProbeResult:
        """Return the outcome of an answer judged in another thread, which keeps an instance of its own."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1)
        return self._thread.submit(self.answer, index, text, "thread").result()

    def answer_after_vandalism(self, index: int, text: str) -> ProbeResult:
        """Return the outcome of an answer after all dicts that the environment gave out for it were changed."""
        prompt = present(self._env, index=index)
        _, info = answer(self._env, text)
        before = deepcopy(prompt.info)
        _vandalise(prompt.info)
        _vandalise(info)
        again = present(self._env, index=index)
        if again.info is prompt.info or again.info != before:
            raise Fault(
                "changing the info of one reset() changes that of the next: return a new dict each time, not one that "
                "the environment keeps"
            )
        second, other = answer(self._env, text)
        if other is info or (isinstance(info.get("rewards"), dict) and other.get("rewards") is info["rewards"]):
            raise Fault("step() returned the same dict twice: return a new info with a new info['rewards'] each time")
        return second

    def answer_in_copy(self, index: int, text: str, elsewhere: int) -> ProbeResult:
        """Return the outcome of an episode that a deep copy goes on with after its reset."""
        present(self._env, index=index)
        twin = deepcopy(self._env)
        present(self._env, index=elsewhere)
        return answer(twin, text)[0]

    def to_json(self) -> str | None:
        """Return the spec of the environment as JSON, None if it was not made from a spec."""
        return None if self._env.spec is None else self._env.spec.to_json()

    def close(self) -> None:
        """Close every instance."""
        for env in (self._env, *self._others.values()):
            env.close()

    def _instance(self, name: str) -> gymnasium.Env:
        if not name:
            return self._env
        if name not in self._others:
            if name == "json":
                self._others[name] = make(spec_from_json(self.to_json() or ""))
            else:
                self._others[name] = self._make()
        return self._others[name]


def _plain(value: Any) -> Any:
    """Return a value as containers and text, which any process can read back."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return str(value)


def _texts_of_code(task: gymnasium.Env) -> Iterator[str]:
    """Yield the texts that the judging methods of an environment have as constants, or name.

    Followed are the attributes of the environment and the functions of the modules of its own classes.
    """
    classes = [one for one in type(task).__mro__ if not one.__module__.startswith(("gymnasium.", TaskEnv.__module__))]
    attributes = {name: value for one in reversed(classes) for name, value in vars(one).items()} | vars(task)
    modules = {one.__module__ for one in classes}
    todo, seen = [attributes.get(name) for name in ("verify", "reply", "step")], set[Any]()
    while todo:
        value = todo.pop()
        if isinstance(value, (staticmethod, classmethod)):
            value = value.__func__
        if isinstance(value, str) and 0 < len(value.strip()) <= MAX_CONSTANT_LENGTH:
            yield value.strip()
        elif isinstance(value, (tuple, list, set, frozenset)):
            todo += [item for item in value if isinstance(item, str)]
        elif isinstance(value, CodeType):
            todo += [
                constant for constant in value.co_consts if isinstance(constant, (str, tuple, frozenset, CodeType))
            ]
        elif isinstance(value, FunctionType) and value.__module__ in modules and value not in seen:
            seen.add(value)
            names = {**value.__globals__, **attributes}
            todo += [value.__code__, *(names.get(name) for name in value.__code__.co_names)]


def _vandalise(value: Any) -> None:
    """Empty a dict and all that is in it."""
    if isinstance(value, dict):
        for item in value.values():
            _vandalise(item)
        value.clear()
    elif isinstance(value, list):
        value.clear()


def serve(handle: int) -> None:
    """Answer requests on an inherited connection until it is closed.

    The first message makes the environment. Replies are `("ok", result)`, `("raised", text)`, `("fault", text)` or,
    where the fault is not the environment's, `("error", text)`.
    """
    if sys.platform == "linux":  # end with the checker, in the middle of a computation too
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    connection = Connection(handle)
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(silence, stream.fileno())
    worker: Worker | None = None
    with contextlib.suppress(EOFError):
        while True:
            method, *arguments = cloudpickle.loads(connection.recv_bytes())
            try:
                if worker is None:
                    worker, result = Worker(*arguments), None
                else:
                    result = getattr(worker, method)(*arguments)
                reply = ("ok", result)
            except Raised as fault:
                reply = ("raised", str(fault))
            except Fault as fault:
                reply = ("fault", str(fault))
            except Exception as error:
                reply = ("error", f"{type(error).__name__}: {one_line(error)}")
            connection.send_bytes(cloudpickle.dumps(reply))
