"""`RecordVerdicts`: a file of every episode with its reward, to be judged again by `envs.rejudge`."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple, SupportsFloat

import gymnasium
from gymnasium.utils import RecordConstructorArgs

from ..base import Completion
from ..contract import Step, read_step
from ..description import describe


@dataclass(frozen=True)
class RecordedEpisode:
    """An episode as it is recorded: its actions, and the outcome.

    Attributes:
        index: The row, or None for an environment that does not name it.
        turns: The actions, in order.
        reward: Sum over the steps; NaN where nothing is known about the answer.
        rewards: The reward's components, each summed over the steps.
        accuracy: In [0, 1]; NaN where nothing is known about the answer, or the environment gives none.
        verdict: One of `Verdict`, or None before the end and for an environment that gives none.
        cause: Why, in words.
        turn_rewards: The reward of each step; empty in a record that does not have them.
    """

    index: int | None = None
    turns: tuple[str, ...] = ()
    reward: float = 0.0
    rewards: dict[str, float] = field(default_factory=dict)
    accuracy: float = math.nan
    verdict: str | None = None
    cause: str = ""
    turn_rewards: tuple[float, ...] = ()

    def then(self, action: str, step: Step) -> RecordedEpisode:
        """Return the episode with one more action and the step that it led to."""
        index = step.info.get("index")
        return RecordedEpisode(
            index=None if index is None else int(index),
            turns=(*self.turns, action),
            reward=self.reward + step.reward,
            rewards=self.rewards | {name: self.rewards.get(name, 0.0) + part for name, part in step.rewards.items()},
            accuracy=math.nan if step.accuracy is None else step.accuracy,
            verdict=step.verdict,
            cause=step.cause,
            turn_rewards=(*self.turn_rewards, step.reward),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as data that JSON can hold; NaN becomes None."""
        turns = [
            {
                "text": str(turn),
                "n_tokens": getattr(turn, "n_tokens", None),
                "finish_reason": getattr(turn, "finish_reason", None),
                **({"thinking": True} if getattr(turn, "thinking", False) else {}),
                **({} if reward is None else {"reward": _null(reward)}),
            }
            for turn, reward in zip_longest(self.turns, self.turn_rewards)
        ]
        return {
            "index": self.index,
            "turns": turns,
            "reward": _null(self.reward),
            "rewards": {name: _null(value) for name, value in self.rewards.items()},
            "accuracy": _null(self.accuracy),
            "verdict": self.verdict,
            "cause": self.cause,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RecordedEpisode:
        """Return the episode of `to_dict`."""
        turns = tuple(
            Completion(
                turn["text"],
                n_tokens=turn["n_tokens"],
                finish_reason=turn["finish_reason"],
                thinking=turn.get("thinking", False),
            )
            for turn in data["turns"]
        )
        return cls(
            index=data["index"],
            turns=turns,
            reward=_number(data["reward"]),
            rewards={name: _number(value) for name, value in data["rewards"].items()},
            accuracy=_number(data["accuracy"]),
            verdict=data["verdict"],
            cause=data["cause"],
            turn_rewards=tuple(_number(turn["reward"]) for turn in data["turns"] if "reward" in turn),
        )


class RecordVerdicts(gymnasium.Wrapper[str, str, str, str], RecordConstructorArgs):
    """Append every finished episode to a file of JSON lines: all that `envs.rejudge` needs to judge it again.

    Put it around the other wrappers, for it records the reward that it sees. A description of the environment inside
    (its spec with all wrappers, and package versions) goes into the file before the first episode of each process.

    A line is one write to a file opened for appending, so that threads, and processes on one machine, may share the
    file. What is written survives the process being killed; a line torn by that is passed over by the reader. A line
    takes the text (6 bytes for a character that is not ASCII) and some 300 bytes besides.

    Args:
        env: The environment to record.
        path: The file; it and its folder are made with the first episode, and what is there already is kept.

    Raises:
        OSError: The file cannot be written (in `step`).
    """

    def __init__(self, env: gymnasium.Env[str, str], path: str | os.PathLike[str]) -> None:
        RecordConstructorArgs.__init__(self, path=os.fspath(path))
        gymnasium.Wrapper.__init__(self, env)
        self._file = _VerdictFile(Path(path), describe(env))
        self._episode = RecordedEpisode()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Reset the environment, and begin a new record."""
        self._episode = RecordedEpisode()
        return self.env.reset(seed=seed, options=options)

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step the environment, and write the record if that ends the episode.

        Raises:
            ContractError: The environment returned something that is no step.
        """
        result = self.env.step(action)
        step = read_step(result)
        self._episode = self._episode.then(action, step)
        if step.over:
            self._file.append(self._episode)
        return result


class _VerdictFile:
    """Where episodes are appended; copies of a wrapper write to the same one."""

    def __init__(self, path: Path, description: dict[str, Any]) -> None:
        text = json.dumps(description)
        self.path = path
        self._key = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
        self._opening = f'{{"environment": "{self._key}", "description": {text}}}\n'.encode()
        self._begun = False

    def __deepcopy__(self, memo: dict[int, Any]) -> _VerdictFile:
        return self

    def append(self, episode: RecordedEpisode) -> None:
        data = f"{json.dumps({'environment': self._key, **episode.to_dict()})}\n".encode()
        if not self._begun:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            data = b"\n" * _is_torn(self.path) + self._opening + data
        with self.path.open("ab", buffering=0) as file:
            if file.write(data) != len(data):
                raise OSError(f"RecordVerdicts: {self.path} could not be written as a whole: is the disk full?")
        self._begun = True


class RecordedLine(NamedTuple):
    """A line of a file of `RecordVerdicts` that holds an episode."""

    number: int
    """Number of the line, from 1."""
    key: str
    """Key of its environment, the same for the same description."""
    description: dict[str, Any]
    """Made by `envs.description.describe`."""
    episode: RecordedEpisode | None
    """None where the line cannot be read, because its process was killed while writing it."""


def read_verdicts(path: str | os.PathLike[str]) -> Iterator[RecordedLine]:
    """Read the episodes of a file, one at a time."""
    descriptions: dict[str, dict[str, Any]] = {}
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                data = json.loads(line)
                key = data["environment"]
                if "description" in data:
                    descriptions[key] = data["description"]
                else:
                    yield RecordedLine(number, key, descriptions[key], RecordedEpisode.from_dict(data))
            except (ValueError, KeyError, TypeError):
                yield RecordedLine(number, "", {}, None)


def _is_torn(path: Path) -> bool:
    """Whether the last line of a file was not written to its end."""
    if not path.exists() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _null(value: float) -> float | None:
    return None if math.isnan(value) else value


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
