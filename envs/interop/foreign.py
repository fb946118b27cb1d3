"""The base of environments from other packages: their rows, their episodes, their failures, and the rules that they
break."""

from __future__ import annotations

import inspect
import math
import random
import threading
import time
import warnings
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import copy, deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded

from ..base import ENDLESS_INDICES, Completion, Verdict
from ..chat import Message, checked_messages, plain_text
from ..event_loop import LoopThread
from ..observations import clean
from ..spaces import UnicodeText
from ..text import brief, one_line
from .sessions import AwayError, Played, Reply, Session, SessionError, Sessions, Shown

EVENT_LOOP = LoopThread("foreign environments")
"""Where their asynchronous packages run."""

MAX_PROMPTS = 65_536
"""Prompts that are remembered, so that a failure while an answer is judged needs no prompt."""
PROBED_ROWS = 3
"""Rows that are looked at when an environment is made."""
_GENERATORS = threading.RLock()


class ForeignWarning(UserWarning):
    """An environment of another package breaks a rule of this one's."""


class RuleError(ValueError):
    """An environment of another package breaks a rule without which nothing works."""


@dataclass(frozen=True)
class BrokenRule:
    """A rule that an environment breaks.

    Attributes:
        rule: The rule, as a sentence.
        found: What the environment does instead, and what still works.
        usable: Whether completions can still be judged and compared.
    """

    rule: str
    found: str
    usable: bool = True

    def __str__(self) -> str:
        return f"{self.rule}: {self.found}"


class ForeignEnv(gymnasium.Env[str, str]):
    """An environment of another package, row by row: the index is its seed, its task's number or its server's row.

    A failure of the environment's machinery while an answer is judged is `infra_failure`; while a prompt is wanted,
    it is waited for. An episode that reaches `max_turns`, or whose answer was cut off, is truncated.

    ## Arguments
    - `num_rows=None`: rows that are used, None for as many as the environment has or for endless ones.
    - `max_turns=32`: the maximum of actions in an episode.
    - `best_reward=1.0`: the reward of a perfect episode; the accuracy is the reward divided by it, within [0, 1].
    - `max_concurrency`: actions that are judged at a time.
    - `timeout=30.0`: seconds within which the environment answers; a later answer counts as none.
    - `patience=60.0`: seconds that a prompt is waited for while the environment is away.
    - `check=True`: look when the environment is made which rules it keeps; False allows one that cannot be trained on.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}  # type: ignore[misc]
    extra: ClassVar[str]
    """The extra of this package that brings the environment's own."""
    judges_cut_off: bool = False
    """Whether an episode that has no tokens left is judged by the environment, as a `TaskEnv` does."""

    def __init_subclass__(cls, without: Iterable[str] = (), **kwargs: Any) -> None:
        """Name the arguments of every foreign environment in the signature of the class, beside its own.

        Args:
            without: Arguments of every foreign environment that this one does not take.
        """
        super().__init_subclass__(**kwargs)
        own, shared = (inspect.signature(init).parameters for init in (cls.__init__, ForeignEnv.__init__))
        known = [*own.values(), *(one for name, one in shared.items() if name not in (*own, *without))]
        cls.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [one for one in known if one.name != "self" and one.kind is not one.VAR_KEYWORD]
        )

    def __init__(
        self,
        *,
        num_rows: int | None = None,
        max_turns: int = 32,
        best_reward: float = 1.0,
        max_concurrency: int = 1,
        timeout: float = 30.0,
        patience: float = 60.0,
        check: bool = True,
    ) -> None:
        for name, value in (("num_rows", num_rows), ("max_turns", max_turns), ("max_concurrency", max_concurrency)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{type(self).__name__}: {name}={value!r} must be an integer of at least 1")
        for name, limit in (("best_reward", best_reward), ("timeout", timeout), ("patience", patience)):
            if not (math.isfinite(limit) and limit > 0):
                raise ValueError(f"{type(self).__name__}: {name}={limit!r} must be a finite number above 0")
        self.num_rows, self.max_turns, self.max_concurrency = num_rows, max_turns, max_concurrency
        self.best_reward, self.timeout, self.patience = float(best_reward), float(timeout), float(patience)
        self.judging_seconds = self.timeout
        self.observation_space = UnicodeText()
        self.action_space = UnicodeText()
        self.broken_rules: list[BrokenRule] = []
        self._sessions = Sessions(self._connect)
        self._shown: OrderedDict[int, Shown] = OrderedDict()
        self._played: Played | None = None
        self._total = 0.0
        if check:
            self._check_rules()

    @abstractmethod
    def _connect(self) -> Session:
        """Open a session with the environment.

        Raises:
            SessionError: It cannot be reached.
        """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Present the row at `options["index"]`, else one drawn from this environment's own generator.

        Raises:
            IndexError: The index is out of range.
            SessionError: The environment was away for longer than `patience`.
        """
        super().reset(seed=seed)
        index = (options or {}).get("index")
        if index is None:
            index = self.np_random.integers(ENDLESS_INDICES if self.num_rows is None else self.num_rows)
        index = int(index)
        if index < 0 or (self.num_rows is not None and index >= self.num_rows):
            last = "any integer from 0 on" if self.num_rows is None else f"0 to {self.num_rows - 1}"
            raise IndexError(f"{type(self).__name__}.reset: index={index} is out of range: valid is {last}")
        if self._played is not None:
            self._sessions.give_back(self._played)
        known = self._shown.get(index)
        played = self._sessions.begin(index, known)
        try:
            shown = self._present(played, patient=known is None)
        except SessionError as error:
            if known is None:
                raise
            shown, played.failure = known, one_line(error)
        self._played, self._total = played, 0.0
        info = {**deepcopy(shown.info), "index": index}
        if isinstance(shown.prompt, str):
            return shown.prompt, info
        return plain_text(shown.prompt), {**info, "messages": deepcopy(shown.prompt)}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take the model's turn; returns as `TaskEnv.step` does.

        Raises:
            ResetNeeded: There is no row to answer.
        """
        played = self._played
        if played is None:
            raise ResetNeeded(f"{type(self).__name__}.step: the episode is over, or never began: call reset() first")
        completion = action if isinstance(action, Completion) else Completion(action)
        cut_off = completion.finish_reason == "length"
        if cut_off and not completion and played.actions and not self.judges_cut_off:
            return self._ended(played, Reply("", info={"cause": "no tokens are left"}), truncated=True)
        try:
            if played.failure:
                raise SessionError(played.failure)
            with self._sessions.of(played) as session:
                reply = session.step(completion)
        except SessionError as error:
            return self._ended(played, Reply("", math.nan, True, {"cause": one_line(error)}))
        played.actions, played.replies = (*played.actions, completion), (*played.replies, reply.text)
        if math.isnan(reply.reward) or reply.done:
            return self._ended(played, reply, truncated=cut_off and not math.isnan(reply.reward))
        if cut_off or len(played.actions) >= self.max_turns:
            return self._ended(played, reply, truncated=True)
        self._total += reply.reward
        info = {"rewards": {"correctness": reply.reward}, **reply.info, "index": played.index}
        return clean(reply.text), reply.reward, False, False, info

    def close(self) -> None:
        """End the sessions with the environment."""
        if self._played is not None:
            self._sessions.give_back(self._played)
            self._played = None
        self._sessions.close()

    def __deepcopy__(self, memo: dict[int, Any]) -> ForeignEnv:
        """Return a copy that goes on with the episode; this one plays it again where it is asked to go on as well."""
        twin = copy(self)
        twin._np_random = copy(self._np_random)
        if (played := self._played) is not None:
            self._played = self._sessions.begin(played.index, played.shown)
            self._played.actions, self._played.replies = played.actions, played.replies
            self._played.failure = played.failure
        return twin

    def _present(self, played: Played, *, patient: bool) -> Shown:
        """Begin an episode, and remember its prompt; `patient` waits for an environment that is away."""
        end = time.monotonic() + (self.patience if patient else 0.0)
        pause = 0.2
        while True:
            try:
                with self._sessions.of(played):
                    break
            except AwayError:
                if time.monotonic() + pause > end:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, 5.0)
        assert played.shown is not None
        if not isinstance(played.shown.prompt, str):
            checked_messages(played.shown.prompt, f"the prompt of row {played.index}")
        self._shown[played.index] = played.shown
        if len(self._shown) > MAX_PROMPTS:
            self._shown.popitem(last=False)
        return played.shown

    def _ended(
        self, played: Played, reply: Reply, *, truncated: bool = False
    ) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Return the last step of an episode."""
        self._sessions.give_back(played)
        self._played = None
        unknown = math.isnan(reply.reward)
        accuracy = min(max((self._total + reply.reward) / self.best_reward, 0.0), 1.0) if not unknown else math.nan
        verdict = Verdict.INFRA_FAILURE if unknown else Verdict.CORRECT if accuracy == 1.0 else Verdict.WRONG
        info = {
            "cause": "",
            "accuracy": accuracy,
            "verdict": verdict.value,
            "rewards": {"correctness": reply.reward},
            **reply.info,
            "index": played.index,
        }
        return "", reply.reward, not truncated, truncated, info

    def _check_rules(self) -> None:
        """Look at a few rows twice, and report the rules that the environment breaks.

        Raises:
            RuleError: Completions of this environment could not be compared.
        """
        rows = range(PROBED_ROWS if self.num_rows is None else min(PROBED_ROWS, self.num_rows))
        prompts: list[str | list[Message]] = []
        for index in rows:
            first, second = self._sessions.begin(index), self._sessions.begin(index)
            prompt = self._present(first, patient=index == 0).prompt
            again = self._present(second, patient=False).prompt
            self._sessions.give_back(first)
            self._sessions.give_back(second)
            prompts.append(prompt)
            if prompt != again:
                self.broken_rules.append(
                    BrokenRule(
                        "a row always shows the same prompt",
                        f"row {index} shows {brief(prompt)}, then {brief(again)}, so the environment "
                        "follows no seed; completions of one prompt cannot be compared, which leaves `envs show` "
                        "(check=False)",
                        usable=False,
                    )
                )
                break
        self.broken_rules += self._own_broken_rules(prompts)
        if unusable := [rule for rule in self.broken_rules if not rule.usable]:
            self.close()
            raise RuleError("; ".join(map(str, unusable)))
        if self.broken_rules:
            warnings.warn("; ".join(map(str, self.broken_rules)), ForeignWarning, stacklevel=4)

    def _own_broken_rules(self, prompts: list[str | list[Message]]) -> Iterator[BrokenRule] | list[BrokenRule]:
        """Return further rules that this kind of environment breaks, given the prompts of its first rows."""
        if len(prompts) > 1 and all(prompt == prompts[0] for prompt in prompts):
            return [
                BrokenRule(
                    "rows have prompts of their own",
                    f"the first {len(prompts)} show the same one, and whether what they hide follows the index cannot "
                    "be seen; training and evaluation work, and take them for one question",
                )
            ]
        return []


@contextmanager
def untouched_generators(own: list[Any]) -> Iterator[None]:
    """Leave the global random generators as they were, whatever the block draws from them.

    Other threads that draw from them meanwhile are not considered: environments that need this judge one after another.

    Args:
        own: The generators' states that the block begins with, empty for the present ones; the block's last ones
            replace them.
    """
    with _GENERATORS:
        before = random.getstate(), np.random.get_state()
        if own:
            random.setstate(own[0])
            np.random.set_state(own[1])
        try:
            yield
        finally:
            own[:] = random.getstate(), np.random.get_state()
            random.setstate(before[0])
            np.random.set_state(before[1])
