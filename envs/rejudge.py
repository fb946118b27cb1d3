"""Recorded episodes, judged again: does the environment still give the rewards that a run was trained on?"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium

from .contract import read_reset, read_step, reset_to_row
from .description import remake, versions
from .text import one_line
from .wrappers.recording import RecordedEpisode, read_verdicts

VERDICT_FILES = "verdicts-*.jsonl"
"""Files that the processes of a run record in its folder."""
TOLERANCE = 1e-9
"""Relative and absolute difference up to which two numbers count as the same."""


@dataclass(frozen=True)
class Difference:
    """An episode that is now judged differently.

    Attributes:
        file: Where it was recorded.
        line: In that file, from 1.
        recorded: The episode as it was.
        replayed: The episode as it is now, or None if the environment raised an error.
        error: That error.
    """

    file: Path
    line: int
    recorded: RecordedEpisode
    replayed: RecordedEpisode | None
    error: str = ""

    def __str__(self) -> str:
        what = self.error if self.replayed is None else "; ".join(_differences(self.recorded, self.replayed))
        return f"{self.file}:{self.line}: index {self.recorded.index}: {what}"


@dataclass
class Replay:
    """The outcome of judging again.

    Attributes:
        episodes: Number of episodes that were judged.
        differences: Episodes whose reward, in all or of a turn, components, accuracy or verdict differ.
        unreadable: Lines that could not be read, such as one torn when its process was killed.
        versions: Packages with another version now: (then, now).
    """

    episodes: int = 0
    differences: list[Difference] = field(default_factory=list)
    unreadable: int = 0
    versions: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [*map(str, self.differences)]
        lines.append(
            f"{self.episodes:,} episodes judged again: {len(self.differences):,} differ"
            + (f", {self.unreadable:,} lines could not be read." if self.unreadable else ".")
        )
        lines += [f"{name} was {then}, and is {now} now." for name, (then, now) in self.versions.items()]
        return "\n".join(lines)


def replay(path: str | os.PathLike[str], env: gymnasium.Env | None = None) -> Replay:
    """Judge every episode of a run, or of one file of `RecordVerdicts`, again.

    Each is repeated action by action in an environment made from the spec that was recorded with it, wrappers included.

    Args:
        path: The run's folder, or a file.
        env: The environment to judge with instead; for one whose spec could not be saved, or to compare another.

    Raises:
        FileNotFoundError: Nothing is recorded there.
        ValueError: An environment cannot be made again; pass `env`.
    """
    found, now = Replay(), versions()
    made: dict[str, gymnasium.Env] = {}
    try:
        for file in _files(Path(path)):
            for line in read_verdicts(file):
                if line.episode is None:
                    found.unreadable += 1
                    continue
                if line.key not in made and env is None:
                    made[line.key] = _environment(line.description)
                then = line.description["versions"]
                found.versions |= {name: (then[name], now.get(name)) for name in then if then[name] != now.get(name)}
                found.episodes += 1
                difference = _judge_again(env or made[line.key], file, line.number, line.episode)
                if difference is not None:
                    found.differences.append(difference)
    finally:
        for one in made.values():
            one.close()
    return found


def repeat_turns(env: gymnasium.Env, index: int | None, turns: tuple[str, ...]) -> RecordedEpisode:
    """Return the episode of row `index` with these actions, as far as it goes.

    Raises:
        ValueError: `index` is None, or the environment returned something that is no prompt or no step.
    """
    if index is None:
        raise ValueError('the environment gave no info["index"], so the row is not known')
    read_reset(reset_to_row(env, index))
    episode = RecordedEpisode()
    for turn in turns:
        step = read_step(env.step(turn))
        episode = episode.then(turn, step)
        if step.over:
            break
    return episode


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"there is no file or folder {path}")
    files = sorted(path.glob(VERDICT_FILES))
    if not files:
        raise FileNotFoundError(
            f"{path} holds no {VERDICT_FILES}: a run records them with record_verdicts: true, and "
            "RecordVerdicts(env, path) anywhere"
        )
    return files


def _environment(description: dict[str, Any]) -> gymnasium.Env:
    try:
        return remake(description)
    except Exception as error:  # whatever an author's code raises
        raise ValueError(
            f"environment {description['id']} cannot be made again: {one_line(error)}; make it yourself and pass it as "
            "env="
        ) from error


def _judge_again(env: gymnasium.Env, file: Path, line: int, recorded: RecordedEpisode) -> Difference | None:
    try:
        replayed = repeat_turns(env, recorded.index, recorded.turns)
    except Exception as error:  # whatever an author's code raises
        return Difference(file, line, recorded, None, f"{type(error).__name__}: {one_line(error)}")
    return Difference(file, line, recorded, replayed) if _differences(recorded, replayed) else None


def _differences(recorded: RecordedEpisode, replayed: RecordedEpisode) -> list[str]:
    """Describe the differences, in words."""
    found = []
    if recorded.verdict != replayed.verdict:
        found.append(f"verdict {recorded.verdict}, now {replayed.verdict}")
    if len(recorded.turns) != len(replayed.turns):
        found.append(f"over after {len(recorded.turns)} turns, now after {len(replayed.turns)}")
    then, now = _figures(recorded), _figures(replayed)
    if recorded.turn_rewards and len(recorded.turns) == len(replayed.turns) > 1:
        then, now = then | _by_turn(recorded), now | _by_turn(replayed)
    for name in {**then, **now}:
        before, after = then.get(name), now.get(name)
        if before is None or after is None or not _same(before, after):
            found.append(f"{name} {before}, now {after}")
    return found


def _figures(episode: RecordedEpisode) -> dict[str, float]:
    parts = {f'rewards["{name}"]': value for name, value in episode.rewards.items()}
    return {"reward": episode.reward, "accuracy": episode.accuracy, **parts}


def _by_turn(episode: RecordedEpisode) -> dict[str, float]:
    return {f"reward of turn {number}": reward for number, reward in enumerate(episode.turn_rewards, 1)}


def _same(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
