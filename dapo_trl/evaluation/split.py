"""The held-out problems of a run: the rows that are measured, and the training rows that are skipped for it.

A problem that is measured is never trained on, wherever it comes from: rows are recognised by their content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium

from envs import TaskEnv
from envs.description import describe

from ..errors import ConfigError
from ..rollout.environments import EnvironmentRows, env_name, row_count
from ..rollout.prompting import is_example, measured_rows

SHARE = 8
"""Of endless data one problem in this many is kept apart from training."""
MAX_SEARCHED = 100
"""Rows of endless data that are looked through for each problem wanted."""
MIN_LEFT = 10_000
"""Rows of endless data among which there must be one to train on."""
RECORD = "environment.json"
MEASURED = ("eval_env", "eval_env_kwargs", "eval_problems")
"""The settings that choose the held-out problems of a run."""


@dataclass(frozen=True)
class Split:
    """The problems that a run measures, apart from those that it trains on."""

    env: gymnasium.Env
    """The held-out environment."""
    indices: tuple[int, ...]
    """Its rows that are measured."""
    skips: Callable[[Mapping[str, Any]], bool]
    """Whether a row of the training environment is a held-out problem."""
    kept_apart: int = 0
    """Problems that must have been kept apart since the run began; 0: they come from another environment."""
    note: str = ""
    """One sentence for the console; empty where the settings name the held-out problems."""

    def described(self) -> dict[str, Any]:
        """The split as data, for the run's folder."""
        return {"held_out": describe(self.env), "kept_apart": self.kept_apart}

    def check_resumed(self, folder: Path) -> None:
        """Refuse to measure problems that the run in ``folder`` has trained on before it is resumed.

        Raises:
            ConfigError: the run kept fewer problems apart.
        """
        before = kept_apart_in(folder)
        if self.kept_apart > before:
            advice = f"set it to {before}, or" if before else "set it to 0, or"
            raise ConfigError(
                f"eval_problems is {len(self.indices)}, but the run to be resumed kept {before} problems apart and has "
                f"trained on the others: {advice} measure on other rows (eval_env, eval_env_kwargs)."
            )


def kept_apart_in(folder: Path) -> int:
    """The `Split.kept_apart` that a run wrote into its folder; 0 where there is none."""
    found = _record(folder).get("kept_apart", 0)
    return found if isinstance(found, int) else 0


def measured_in(folder: Path) -> dict[str, Any]:
    """The values of `MEASURED` that a run began with; empty where its folder does not say."""
    found = _record(folder).get("measured")
    return {name: found[name] for name in MEASURED if name in found} if isinstance(found, dict) else {}


def _record(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def split_off(env: gymnasium.Env, count: int) -> Split:
    """Keep ``count`` problems of the training environment apart, by a hash of their content.

    Of finite data they are the problems with the smallest hashes; of endless data the first ones among those whose
    hash is a multiple of `SHARE`. So they stay the same when rows change places, and nearly the same when rows are
    added. Examples among them are not measured either.

    Raises:
        ConfigError: there are too few different problems.
    """
    size, content = row_count(env), _content_of(env)
    found: dict[int, int] = {}
    if size is None:
        for index in range(MAX_SEARCHED * count):
            if (key := content(index)) % SHARE == 0 and not is_example(env, index):
                found.setdefault(key, index)
            if len(found) == count:
                break
        else:
            raise _too_few(env, count, f"its first {MAX_SEARCHED * count:,} rows hold {len(found)} of them")
        skips = _Skips(content, lambda key: key % SHARE == 0)
        _check_left(env, skips)
        note = (
            f"One problem in {SHARE}, by a hash of its text, is kept apart from training; {count} of them are measured."
        )
        return Split(env, tuple(found.values()), skips, 1, note)
    keys = [content(index) for index in range(size)]
    for index, key in enumerate(keys):
        found.setdefault(key, index)
    if len(found) <= count:
        raise _too_few(env, count, f"it has {len(found)} different problems in {size:,} rows")
    chosen = dict(sorted(found.items())[:count])
    indices = tuple(index for index in sorted(chosen.values()) if not is_example(env, index))
    skips = _Skips(content, chosen.__contains__)
    _check_left(env, skips)
    apart, measured = sum(key in chosen for key in keys), len(indices)
    some = f"{apart} of the {size:,} rows, chosen by a hash of their text, are kept apart from training"
    note = f"{some}; the {measured} different ones among them are measured."
    if measured < count:
        note = f"{some}; {measured} of them are measured, without the few_shot examples."
    return Split(env, indices, skips, count, f"{some} and measured." if apart == measured else note)


def measured_elsewhere(env: gymnasium.Env, held_out: gymnasium.Env, count: int) -> Split:
    """The first ``count`` rows of another environment; a training row with the same content is skipped.

    Raises:
        ConfigError: the other environment has fewer rows, or no row is left to train on.
    """
    size = row_count(held_out)
    if size is not None and size < count:
        raise ConfigError(f"eval_problems is {count}, but the held-out environment has {size} rows.")
    content, indices = _content_of(held_out), measured_rows(held_out, count)
    measured = {content(index) for index in indices}
    skips = _Skips(_content_of(env), measured.__contains__)
    _check_left(env, skips)
    return Split(held_out, tuple(indices), skips)


@dataclass(frozen=True)
class _Skips:
    """Whether a row of an environment is a held-out problem."""

    content: Callable[..., int]
    held_out: Callable[[int], bool]

    def __call__(self, row: Mapping[str, Any]) -> bool:
        return self.held_out(self.content(row["index"], row.get("question")))


def _content_of(env: gymnasium.Env) -> Callable[..., int]:
    """A function that hashes the problem at an index: the same for the same problem.

    A problem is its question. In episodes of many turns the first question need not tell problems apart, so that the
    solution, or else the index, belongs to it.
    """
    rows, task = EnvironmentRows(env, None), env.unwrapped
    many_turns = isinstance(task, TaskEnv) and task.max_turns > 1

    def content(index: int, question: Any = None) -> int:
        parts = [rows.look(index)[0] if question is None else question]
        if many_turns:
            solution = task.solution(index)  # type: ignore[attr-defined]
            parts.append(str(index) if solution is None else solution)
        return int.from_bytes(hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).digest())

    return content


def _check_left(env: gymnasium.Env, skips: _Skips) -> None:
    size = row_count(env)
    looked_at = MIN_LEFT if size is None else size
    if all(skips({"index": index}) or is_example(env, index) for index in range(looked_at)):
        raise ConfigError(
            f"every one of the {'first ' if size is None else ''}{looked_at:,} rows of {env_name(env)} is a held-out "
            "problem or an example, and those are never trained on: lower eval_problems, or measure on other rows "
            "(eval_env, eval_env_kwargs)."
        )


def _too_few(env: gymnasium.Env, count: int, found: str) -> ConfigError:
    return ConfigError(
        f"eval_problems is {count}, and so many problems of {env_name(env)} would be kept apart from training: "
        f"{found}. Lower eval_problems, or measure on other rows (eval_env, eval_env_kwargs)."
    )
