"""`TaskEnv`, the base of every task, and the three types that go into it and come out of it.

A model's answer goes in as a `Completion`, a verifier judges it with a `Judgement`, and the `Verdict` says
how it ended.
"""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from enum import StrEnum
from numbers import Real
from typing import Any, ClassVar, Literal, cast, get_args

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded

from .chat import checked_messages, plain_text
from .observations import clean
from .spaces import UnicodeText
from .text import brief

FinishReason = Literal["stop", "length"]
ENDLESS_INDICES = 2**31
"""An endless task is drawn from the indices below this one; larger ones are still valid in `reset`."""


class Completion(str):
    """A model's answer: a `str` that remembers how it was generated.

    Args:
        text: The decoded answer, without the prompt.
        n_tokens: Its length in tokens, or None when unknown.
        finish_reason: "stop" when the model ended it, "length" when the token limit cut it off, or None when
            unknown.
        thinking: Whether the prompt ended inside of an open `<think>`, as some chat templates do, so that the text
            begins in the middle of the model's thinking.

    Raises:
        ValueError: `n_tokens` is negative or no integer, or `finish_reason` is not one of the above.
    """

    n_tokens: int | None
    finish_reason: FinishReason | None
    thinking: bool

    def __new__(
        cls,
        text: str = "",
        *,
        n_tokens: int | None = None,
        finish_reason: FinishReason | None = None,
        thinking: bool = False,
    ) -> Completion:
        if n_tokens is not None and (_as_index(n_tokens) is None or n_tokens < 0):
            raise ValueError(f"Completion: n_tokens={n_tokens!r} must be an integer of at least 0 (tokens) or None")
        if finish_reason is not None and finish_reason not in get_args(FinishReason):
            raise ValueError(f"Completion: finish_reason={finish_reason!r} must be 'stop', 'length' or None")
        self = super().__new__(cls, text)
        self.n_tokens = None if n_tokens is None else int(n_tokens)
        self.finish_reason = finish_reason
        self.thinking = thinking
        return self


class Verdict(StrEnum):
    """How judging one answer ended; each member equals its plain string."""

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    """The answer never took the form that was asked for."""
    TIMEOUT = "timeout"
    """The answer could not be judged within the bounds on time or memory, which is the answer's fault."""
    CRASH = "crash"
    """The program that the model wrote failed."""
    INFRA_FAILURE = "infra_failure"
    """Our own machinery failed: nothing is known about the answer, and it must not be trained on."""


@dataclass(frozen=True)
class Judgement:
    """A verifier's finding.

    Attributes:
        verdict: How judging ended.
        accuracy: Correctness in [0, 1]; NaN for `infra_failure` and only there.
        cause: Why, in words; empty when there is nothing to explain.
        details: More that goes into the info of the last step, such as {"tests_passed": 3}.

    Raises:
        ValueError: `accuracy` contradicts `verdict` or is out of range.
    """

    verdict: Verdict
    accuracy: float
    cause: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if math.isnan(self.accuracy) != (self.verdict is Verdict.INFRA_FAILURE):
            raise ValueError(
                f"Judgement: accuracy={self.accuracy} with verdict={self.verdict.value!r}: accuracy is NaN "
                "for 'infra_failure' and a number in [0, 1] for every other verdict"
            )
        if not math.isnan(self.accuracy) and not 0.0 <= self.accuracy <= 1.0:
            raise ValueError(f"Judgement: accuracy={self.accuracy} must be in [0, 1]")

    @classmethod
    def of(cls, finding: Judgement | Verdict | bool | float, cause: str = "") -> Judgement:
        """Read what `TaskEnv.verify` may return: a judgement, a verdict, a bool, or an accuracy in [0, 1].

        Raises:
            TypeError: `finding` is none of these.
            ValueError: An accuracy outside [0, 1].
        """
        if isinstance(finding, Judgement):
            return finding
        if isinstance(finding, Verdict):
            accuracy = {Verdict.CORRECT: 1.0, Verdict.INFRA_FAILURE: math.nan}.get(finding, 0.0)
            return cls(finding, accuracy, cause)
        if isinstance(finding, (Real, np.bool_)):
            accuracy = float(finding)
            return cls(Verdict.CORRECT if accuracy == 1.0 else Verdict.WRONG, accuracy, cause)
        raise TypeError(
            f"verify returned {finding!r} ({type(finding).__name__}): return a bool, an accuracy in [0, 1], "
            "a Verdict or a Judgement"
        )


class RemoteJudge(ABC):
    """A judge elsewhere, as `envs.judges.Judge` is: a task that keeps it in an attribute waits for it as it must."""

    @property
    @abstractmethod
    def max_concurrency(self) -> int:
        """Answers that it may be asked about at a time."""

    @property
    @abstractmethod
    def judging_seconds(self) -> float:
        """Seconds within which it judges any answer."""

    @property
    @abstractmethod
    def full_marks(self) -> str:
        """The reply by which it pays most."""


def judges_of(task: gymnasium.Env) -> list[RemoteJudge]:
    """Return the judges elsewhere among the attributes of a task."""
    return [value for value in vars(task).values() if isinstance(value, RemoteJudge)]


class _OfJudges:
    """An attribute of a task that its judges decide, unless the task sets it.

    Args:
        default: Of a task without a judge.
        combined: Makes one value of those of the judges.
    """

    def __init__(self, default: Any, combined: Callable[[Iterable[Any]], Any]) -> None:
        self._default, self._combined = default, combined

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, task: TaskEnv | None, owner: type) -> Any:
        found = [] if task is None else judges_of(task)
        return self._combined([getattr(one, self._name) for one in found]) if found else self._default


class TaskEnv(gymnasium.Env[str, str], ABC):
    """A text task: the prompt is the observation, the answer the action, the reward verifiable.

    A new task sets `num_rows` and writes two methods, `row` and `verify`:

        class Reverse(TaskEnv):
            words = ("stressed", "drawer", "parts")
            num_rows = len(words)

            def row(self, index):
                return {"prompt": f"Spell {self.words[index]} backwards.", "word": self.words[index]}

            def verify(self, row, completion):
                return completion.strip() == row["word"][::-1]

    A task of many turns also sets `max_turns` and writes `reply`. All state of an episode is kept here: `row`,
    `reply` and `verify` depend on their arguments alone and change nothing, so that one instance serves episodes
    of every row in any order, and a deep copy of it goes on with its episode without copying the rows.

    Args:
        correct_reward: Reward of a fully correct answer.
        wrong_reward: Reward of a wrong answer; partial accuracies are interpolated linearly between the two.

    Raises:
        ValueError: The rewards are not finite, or `correct_reward` is not above `wrong_reward`.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}  # type: ignore[misc]
    num_rows: int | None
    """Number of rows, or None for an endless task."""
    max_turns: int = 1
    """Maximum of actions in one episode; beyond 1 `reply` decides whether it goes on."""
    max_concurrency: int | Literal["cores"] = cast(Any, _OfJudges(1, min))
    """Judgements in flight at a time, in threads, shared by the processes of a machine. 1: one after another, when all
    completions are there. Beyond 1, `reply` and `verify` run in several threads, beside the generation of other
    completions: a number for a judge that waits, as for a server, or "cores", as many as there are, for one that
    computes. By default that of the `RemoteJudge` among its attributes, if there is one."""
    judging_seconds: float = cast(Any, _OfJudges(5.0, sum))
    """Seconds within which any one action is judged, however hostile; `check_reward_env` tests it. By default those of
    the `RemoteJudge` among its attributes, if there is one."""

    def __init__(self, *, correct_reward: float = 1.0, wrong_reward: float = 0.0) -> None:
        if not (math.isfinite(correct_reward) and math.isfinite(wrong_reward) and correct_reward > wrong_reward):
            raise ValueError(
                f"{type(self).__name__}: correct_reward={correct_reward} must be above "
                f"wrong_reward={wrong_reward}, both finite; the usual pairs are 1.0 and 0.0, or 1.0 and -1.0"
            )
        self.correct_reward = float(correct_reward)
        self.wrong_reward = float(wrong_reward)
        self.observation_space = UnicodeText()
        self.action_space = UnicodeText()
        self._current: tuple[int, Mapping[str, Any]] | None = None
        self._turns: tuple[str, ...] = ()

    @abstractmethod
    def row(self, index: int) -> Mapping[str, Any]:
        """Return row `index`, always the same one for the same index.

        Its "prompt" (str) becomes the observation. In its place it may have "messages", a chat that ends with the
        user's turn: these are then `info["messages"]` of `reset`, and the observation is their plain text. Its
        optional "info" (a dict, such as {"level": 2}) is added to the info of `reset` and `step`; all its other keys,
        such as the gold answer, are seen by `verify` alone.
        """

    @abstractmethod
    def verify(self, row: Mapping[str, Any], completion: str) -> Judgement | Verdict | bool | float:
        """Judge an answer to `row`: return a bool, an accuracy in [0, 1], a `Verdict` or a `Judgement`.

        In a task of many turns `completion` is the last of them.
        """

    def reply(self, row: Mapping[str, Any], turns: Sequence[str]) -> str | tuple[str, float] | None:
        """Answer the last of `turns`, the model's actions so far, and go on; None ends the episode.

        A pair of the text and a finite number also rewards that turn, or punishes it; the rewards of the turns and that
        of the verdict add up. Asked while fewer than `max_turns` were taken and the last one was not cut off.
        """
        return None

    def solution(self, index: int) -> str | None:
        """Return a text that earns the maximum at row `index`, for checkers and people; None if none is known.

        As it stands it is an answer line with the row's "answer": override it where another form is asked for.
        """
        answer = self.row(index).get("answer")
        return None if answer is None else f"Answer: {answer}"

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Present a row: the one at `options["index"]`, else one drawn from the environment's own generator.

        Returns:
            The prompt, and info with "index" and the row's public information; never the gold answer.

        Raises:
            IndexError: The index is out of range.
            ValueError: The index is not an integer, or `options` has another key.
        """
        super().reset(seed=seed)
        unset = type(self).max_turns == 1 and "max_turns" not in vars(self)
        if unset and type(self).reply is not TaskEnv.reply:
            raise TypeError(f"{type(self).__name__} has a reply and max_turns=1: set max_turns to the most turns")
        index = self._choose_index(options or {})
        row = _checked(self.row(index), f"{type(self).__name__}.row({index})")
        self._current, self._turns = (index, row), ()
        info = {**deepcopy(row.get("info", {})), "index": index}
        if "messages" not in row:
            return row["prompt"], info
        messages = checked_messages(row["messages"], f"{type(self).__name__}.row({index})['messages']")
        return plain_text(messages), {**info, "messages": messages}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take the model's turn: judge it and end the episode, or reply to it and go on.

        Args:
            action: The answer; a `Completion` may say that it was cut off (`finish_reason="length"`), which
                truncates the episode instead of terminating it. It is judged all the same.

        Returns:
            `(observation, reward, terminated, truncated, info)`. At the end of an episode the observation is "", and
            info adds to that of `reset` "verdict" (a plain str), "accuracy" (in [0, 1]), "cause" (str), "rewards"
            (components that sum to the reward) and the judgement's details, among them often "answer": what was read
            as the model's answer, in one spelling. After an `infra_failure` accuracy and reward are NaN: mask such an
            answer, do not score it. Before the end the observation is the reply, the reward that of the turn (the part
            "turns" of "rewards") or 0, and there is nothing of a verdict.

        Raises:
            ResetNeeded: There is no row to answer, because the episode is over or `reset` was never called.
            ValueError: The action is not a string.
            TypeError: `reply` or `verify` returned something else than they may.
            ValueError: `reply` returned a reward that is not finite.
        """
        name = type(self).__name__
        if self._current is None:
            raise ResetNeeded(f"{name}.step: the episode is over, or never began: call reset() first")
        if not isinstance(action, str):
            raise ValueError(
                f"{name}.step: the action is {action!r} ({type(action).__name__}): send the answer as a str or a "
                "Completion"
            )
        index, row = self._current
        self._turns = (*self._turns, action)
        truncated = getattr(action, "finish_reason", None) == "length"
        info = {**deepcopy(row.get("info", {})), "index": index}
        if not truncated and len(self._turns) < self.max_turns:
            reply = self.reply(row, self._turns)
            if reply is not None:
                text, rewards = _read_reply(reply)
                return clean(text), sum(rewards.values()), False, False, {**info, "rewards": rewards}
        judgement = Judgement.of(self.verify(row, action))
        self._current = None
        reward = self.wrong_reward + judgement.accuracy * (self.correct_reward - self.wrong_reward)
        info |= {
            **judgement.details,
            "verdict": judgement.verdict.value,
            "accuracy": judgement.accuracy,
            "cause": judgement.cause,
            "rewards": {"correctness": reward},
        }
        return "", reward, not truncated, truncated, info

    def __deepcopy__(self, memo: dict[int, Any]) -> TaskEnv:
        """Copy the episode, share the rows; a task that has its own `step` or `reset` is copied as a whole."""
        own_state = type(self).step is not TaskEnv.step or type(self).reset is not TaskEnv.reset
        twin = object.__new__(type(self))
        twin.__dict__ = deepcopy(self.__dict__, memo) if own_state else dict(self.__dict__)
        twin._np_random = deepcopy(self._np_random)
        return twin

    def _choose_index(self, options: Mapping[str, Any]) -> int:
        name = type(self).__name__
        if not hasattr(self, "num_rows"):
            raise TypeError(f"{name} has no num_rows: set it to the number of rows, or None for an endless task")
        unknown = sorted(map(str, set(options) - {"index"}))
        if unknown:
            raise ValueError(f"{name}.reset: unknown options {unknown}: the only option is 'index'")
        if "index" not in options:
            return int(self.np_random.integers(ENDLESS_INDICES if self.num_rows is None else self.num_rows))
        index = _as_index(options["index"])
        if index is None:
            raise ValueError(f"{name}.reset: index={options['index']!r} must be an integer")
        if index < 0 or (self.num_rows is not None and index >= self.num_rows):
            last = "any integer from 0 on" if self.num_rows is None else f"0 to {self.num_rows - 1}"
            raise IndexError(f"{name}.reset: index={index} is out of range: valid is {last}")
        return index


def _checked(row: Any, place: str) -> Mapping[str, Any]:
    """Return the result of an author's `row`, if it is a row."""
    if not isinstance(row, Mapping):
        raise TypeError(f"{place} returned {row!r} ({type(row).__name__}): it must be a dict with a 'prompt'")
    prompt, info = row.get("prompt"), row.get("info", {})
    if "prompt" in row and "messages" in row:
        raise TypeError(f"{place} has a prompt and messages: give one of the two")
    if "messages" not in row and not isinstance(prompt, str):
        raise TypeError(f"{place} has the prompt {prompt!r} ({type(prompt).__name__}): row['prompt'] must be a str")
    if not isinstance(info, Mapping):
        raise TypeError(f"{place} has the info {info!r} ({type(info).__name__}): row['info'] must be a dict")
    return row


def _read_reply(reply: Any) -> tuple[str, dict[str, float]]:
    """Return the text of an author's `reply`, and the parts of the reward that it gives."""
    if isinstance(reply, str):
        return reply, {"correctness": 0.0}
    if not (isinstance(reply, tuple) and len(reply) == 2 and isinstance(reply[0], str) and isinstance(reply[1], Real)):
        raise TypeError(
            f"reply returned {brief(reply)} ({type(reply).__name__}): return a str, a pair (str, reward), or None to "
            "end"
        )
    text, reward = reply[0], float(reply[1])
    if isinstance(reply[1], bool) or not math.isfinite(reward):
        raise ValueError(f"reply returned the reward {reply[1]!r}: give a finite number such as 0.5 or -0.1")
    return text, {"correctness": 0.0, "turns": reward}


def _as_index(value: Any) -> int | None:
    """Return an integer of any kind (NumPy's too, but no bool) as an `int`, anything else as None."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None
