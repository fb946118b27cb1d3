"""The rows of an environment as they were given, and files of some of them."""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import yaml

from envs import TaskEnv
from envs.rows import Source

from ..evaluation.journal import write_text

_SOURCE = ("rows", "path", "dataset", "name", "split", "hub")
"""Arguments of an environment that say where its rows come from."""


def given_rows(env: gymnasium.Env, indices: Sequence[int]) -> dict[int, Mapping[str, Any]] | None:
    """The rows as their source has them, all columns included, by the environment's index.

    An environment may leave rows of its source out: a row of the source is row ``i`` if an environment of it alone
    shows the prompt of row ``i``. One that cannot be given a single row must have them all.

    Returns:
        The rows of these indices; None for an environment that makes its rows itself.
    """
    task = env.unwrapped
    known = inspect.signature(type(task)).parameters
    kwargs = {name: one.default for name, one in known.items() if one.default is not one.empty}
    kwargs.update(env.spec.kwargs if env.spec is not None else {})
    if not isinstance(task, TaskEnv) or "path" not in known or task.num_rows is None or not _has_source(kwargs):
        return None
    others = {name: value for name, value in kwargs.items() if name not in _SOURCE}
    if kwargs.get("path") is not None:
        kwargs.pop("split", None)  # a file has none: it is an argument with another meaning
    source = Source.of(**{name: kwargs.get(name) for name in _SOURCE})
    rows = source.read(_as_given)
    if "rows" not in known:
        return {index: rows[index] for index in indices} if len(rows) == task.num_rows else None
    shown = ((raw, _prompt(type(task), raw, others)) for raw in rows)
    found: dict[int, Mapping[str, Any]] = {}
    for index in range(task.num_rows):
        prompt = task.row(index).get("prompt")
        raw = next((raw for raw, text in shown if text == prompt), None)
        if raw is None:
            return None
        found[index] = raw
    return {index: found[index] for index in indices}


def _has_source(kwargs: Mapping[str, Any]) -> bool:
    return any(kwargs.get(name) is not None for name in ("rows", "path", "dataset", "hub"))


def _as_given(rows: Iterable[Mapping[str, Any]], source: str) -> tuple[Mapping[str, Any], ...]:
    return tuple(rows)


def _prompt(make: Callable[..., TaskEnv], row: Mapping[str, Any], kwargs: Mapping[str, Any]) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make(**kwargs, rows=[row]).row(0).get("prompt")
    except ValueError:  # a row that cannot be used
        return None


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSONL file: complete, or not at all."""
    write_text(path, (f"{json.dumps(line, ensure_ascii=False, default=str)}\n" for line in lines))


def write_settings(
    path: Path, env: str, kwargs: Mapping[str, Any], rows: Path, measured: Mapping[str, Any] | None = None
) -> None:
    """Write the settings of a run on the environment with the rows of a file.

    Args:
        measured: Arguments that the run has in place of these where it measures. Without any, the run is measured on
            the last of several published splits.
    """
    others = {name: value for name, value in kwargs.items() if name not in _SOURCE}
    settings: dict[str, Any] = {"env": env, "env_kwargs": {**others, "path": str(rows.absolute())}}
    splits = (kwargs.get("hub") or {}).get("splits", ())
    if not measured and len(splits) > 1 and kwargs.get("path") is None:
        measured = {"split": splits[-1]}
    if measured:  # on the rows that were given, and not on the kept ones
        given = {name: kwargs[name] for name in _SOURCE if name != "hub" and kwargs.get(name) is not None}
        settings["eval_env_kwargs"] = {"path": None, **given, **measured}
    path.write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), encoding="utf-8")
