"""The held-out problems of a run: the rows that are measured, and the training rows that are skipped for it.

A problem that is measured is never trained on, wherever it comes from: rows are recognised by their content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium

from envs import TaskEnv

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
    questions: frozenset[int] = frozenset()
    """Hashes of the questions that are measured; empty in a task of many turns, where a problem is more than that."""

    def check_resumed(self, folder: Path, name: str) -> None:
        """Refuse to measure problems that the run in ``folder`` has trained on before it is resumed.

        Args:
            name: The environment's name in the run.

        Raises:
            ConfigError: the run kept fewer problems apart.
        """
        before = kept_apart_in(folder, name)
        if self.kept_apart > before:
            advice = f"set it to {before}, or" if before else "set it to 0, or"
            raise ConfigError(
                f"eval_problems is {len(self.indices)}, but the run to be resumed kept {before} problems apart and has "
                f"trained on the others: {advice} measure on other rows (eval_env, eval_env_kwargs)."
            )


def kept_apart_in(folder: Path, name: str) -> int:
    """The `Split.kept_apart` that a run wrote into its folder for an environment; 0 where there is none."""
    found = _record(folder).get("kept_apart", 0)
    if isinstance(found, dict):  # else a run of an earlier version: the largest of all
        found = found.get(name, 0)
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
        return Split(env, tuple(found.values()), skips, 1, note, _questions(env, found))
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
    note = f"{some} and measured." if apart == measured else note
    return Split(env, indices, skips, count, note, _questions(env, chosen))


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
    return Split(held_out, tuple(indices), skips, questions=_questions(held_out, measured))


def rows_apart(
    env: gymnasium.Env, own: Sequence[Split], others: Sequence[Split]
) -> Callable[[Mapping[str, Any]], bool]:
    """Whether a row of an environment is never trained on: it is a held-out problem of its own or of another one.

    Args:
        own: The splits of this environment.
        others: Those of the other environments of the run, whose questions are looked for among its rows.

    Raises:
        ConfigError: no row is left to train on.
    """
    rows = EnvironmentRows(env, None)
    questions = frozenset[int]().union(*(split.questions for split in others))
    a_share = row_count(env) is None and any(
        split.questions and split.kept_apart and row_count(split.env) is None for split in others
    )

    def skips(row: Mapping[str, Any]) -> bool:
        if any(split.skips(row) for split in own):
            return True
        if not questions:
            return False
        key = _hash([row["question"] if "question" in row else rows.look(row["index"])[0]])
        return key in questions or (a_share and key % SHARE == 0)

    if questions:
        _check_left(env, skips)
    return skips


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
    rows, task, many_turns = EnvironmentRows(env, None), env.unwrapped, _has_many_turns(env)

    def content(index: int, question: Any = None) -> int:
        parts = [rows.look(index)[0] if question is None else question]
        if many_turns:
            solution = task.solution(index)  # type: ignore[attr-defined]
            parts.append(str(index) if solution is None else solution)
        return _hash(parts)

    return content


def _hash(parts: list[Any]) -> int:
    return int.from_bytes(hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).digest())


def _has_many_turns(env: gymnasium.Env) -> bool:
    return isinstance(env.unwrapped, TaskEnv) and env.unwrapped.max_turns > 1


def _questions(env: gymnasium.Env, contents: Iterable[int]) -> frozenset[int]:
    return frozenset() if _has_many_turns(env) else frozenset(contents)


def _check_left(env: gymnasium.Env, skips: Callable[[Mapping[str, Any]], bool]) -> None:
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
