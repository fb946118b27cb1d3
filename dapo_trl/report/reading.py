"""A run's folder in any state: truncated, empty, huge, still growing, or of an older format.

Missing data (truncated, older or still-growing files) is reported in `Run.notes`; no content of a file is an error.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError
from ..monitor.metrics_file import json_lines
from ..monitor.status import QUIET, seen
from ..settings import MAX_DEPTH, read_yaml

MAX_ROWS = 200_000
"""Logs that are kept in memory; of a longer file every second, fourth, ... is read."""
OLDER_NAMES = {
    "completion_length": "completions/mean_length",
    "clip_ratio": "clip_ratio/region_mean",
    "completions/clip_ratio": "completions/clipped_ratio",
}
"""Metric names of earlier versions of this project or of TRL, with the names of today."""
COUNT_ON = ("seconds", "ledger/tokens", "num_tokens")
"""Metrics that count on when a run is resumed; earlier versions may have started them from 0 again."""


@dataclass
class Run:
    """A run, read from its folder."""

    folder: Path
    rows: list[dict[str, float]] = field(default_factory=list)
    """Logs in order: finite numbers by name, each with its ``step``."""
    config: dict[str, Any] = field(default_factory=dict)
    """The settings as they were given."""
    settings: dict[str, Any] = field(default_factory=dict)
    """All settings in force; empty for a run of an earlier version."""
    environment: dict[str, Any] = field(default_factory=dict)
    evaluations: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Results by name: "before", "after", ..."""
    status: str = "stopped"
    """A state of `monitor.status`; without a status file "finished", "running" or "stopped"."""
    why: str = ""
    """A sentence on the status."""
    notes: list[str] = field(default_factory=list)
    """Missing data, one sentence each."""

    @property
    def training(self) -> list[dict[str, float]]:
        """The logs of optimizer steps."""
        return [row for row in self.rows if "loss" in row]

    def setting(self, name: str) -> Any:
        """A setting as it was in force, or else as it was asked for; None where it is not known."""
        return self.settings.get(name, self.config.get(name))

    @property
    def max_steps(self) -> int | None:
        """Optimizer steps of the run; None: unknown."""
        found = self.setting("max_steps")
        return found if isinstance(found, int) and found > 0 else None


def read_run(folder: Path, *, may_be_empty: bool = False) -> Run:
    """Read a run's folder.

    Args:
        may_be_empty: accept a folder whose run has not begun.

    Raises:
        ConfigError: there is no such folder, or nothing of a run in it.
    """
    if not folder.is_dir():
        what = "is a file" if folder.is_file() else "does not exist"
        raise ConfigError(f"run {folder} {what}: give the folder that `dapo-trl train` wrote (its output_dir).")
    run = Run(folder)
    source = _metrics_source(folder)
    if source is None:
        run.notes.append("There is no metrics.jsonl: no curves.")
    else:
        run.rows = _sorted_rows(_counted_on(_read_rows(source, run.notes)), run.notes)
        if not run.rows:
            run.notes.append(f"{source.name} holds no logs yet: no curves.")
    run.config = _mapping(folder / "config.yaml", run.notes)
    if (folder / "settings.json").exists():
        run.settings = _mapping(folder / "settings.json", run.notes)
    run.environment = _mapping(folder / "environment.json", run.notes)
    for path in sorted(folder.glob("evaluation_*.json")):
        run.evaluations[path.stem.removeprefix("evaluation_")] = _mapping(path, run.notes)
    if not may_be_empty and source is None and not run.config and not list(folder.glob("rollouts-*.jsonl")):
        raise ConfigError(
            f"{folder} is not the folder of a run: it holds no metrics.jsonl, trainer_state.json or config.yaml."
        )
    newest = source.stat().st_mtime if source is not None else None
    run.status, run.why = seen(folder, newest=newest) or (_unsaid_status(run, newest), "")
    return run


def _metrics_source(folder: Path) -> Path | None:
    """The metrics file, or the state that Hugging Face's trainers leave."""
    states = [folder / "trainer_state.json", *folder.glob("checkpoint-*/trainer_state.json")]
    newest = sorted((path for path in states if path.is_file()), key=lambda path: path.stat().st_mtime)
    return next((path for path in [folder / "metrics.jsonl", *reversed(newest)] if path.is_file()), None)


def _read_rows(path: Path, notes: list[str]) -> list[dict[str, float]]:
    found: list[dict[str, float]] = []
    every, count, torn, unnumbered = 1, 0, 0, 0
    for content in _logs(path, notes):
        if content is None:
            torn += 1
            continue
        count += 1
        if count % every:
            continue
        row = _numbers(content)
        if "step" not in row:
            unnumbered += 1
            row["step"] = float(count)
        found.append(row)
        if len(found) > MAX_ROWS:
            found, every = found[1::2], 2 * every
    if torn:
        notes.append(f"{torn} line(s) of {path.name} cannot be read (torn by a crash, or no JSON) and are left out.")
    if every > 1:
        notes.append(f"{path.name} holds {count:,} logs: every {every}th is shown.")
    if unnumbered:
        notes.append(f"{unnumbered} log(s) of {path.name} do not name their step: they are counted instead.")
    return found


def _logs(path: Path, notes: list[str]) -> Iterator[dict[str, Any] | None]:
    if path.suffix == ".jsonl":
        yield from json_lines(path)
        return
    notes.append(f"There is no metrics.jsonl: the logs are those of {path.relative_to(path.parents[1])}.")
    history = _mapping(path, notes).get("log_history")
    yield from (row if isinstance(row, dict) else None for row in history or [])


def _numbers(content: dict[str, Any]) -> dict[str, float]:
    row = {}
    for name, value in content.items():
        try:
            number = float(value) if isinstance(value, int | float) else math.nan
        except OverflowError:
            continue
        if math.isfinite(number):
            row[OLDER_NAMES.get(name, name) if name not in OLDER_NAMES.values() else name] = number
    return row


def _counted_on(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """The logs with the sessions of a resumed run added up."""
    for name in COUNT_ON:
        before = last = 0.0
        for row in rows:
            if name in row:
                before = last if row[name] + before < last else before
                last = row[name] = row[name] + before
    return rows


def _sorted_rows(rows: list[dict[str, float]], notes: list[str]) -> list[dict[str, float]]:
    if any(later["step"] < row["step"] for row, later in itertools.pairwise(rows)):
        notes.append("The steps of the logs do not rise throughout: they are shown in order of their steps.")
        rows = sorted(rows, key=lambda row: row["step"])
    return rows


def _mapping(path: Path, notes: list[str]) -> dict[str, Any]:
    """A YAML or JSON file; empty, with a note, when it is missing or cannot be read."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        content = json.loads(text) if path.suffix == ".json" else read_yaml(text)
    except FileNotFoundError:
        notes.append(f"There is no {path.name}.")
        return {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        notes.append(f"{path.name} cannot be read ({type(error).__name__}).")
        return {}
    if _deeper(content, MAX_DEPTH):
        notes.append(f"{path.name} cannot be read (it is deeper than {MAX_DEPTH} levels).")
        return {}
    if not isinstance(content, dict):
        notes.append(f"{path.name} is empty or no mapping.")
        return {}
    return content


def _deeper(value: Any, most: int) -> bool:
    """Whether lists and mappings lie in one another in more than so many levels."""
    level = [value]
    for _ in range(most):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ())
        ]
    return bool(level)


def _unsaid_status(run: Run, newest: float | None) -> str:
    """The status of a run without a ``status.json``, from its logs."""
    last = max((row["step"] for row in run.rows), default=0)
    ended = next((name for row in reversed(run.rows) for name in ("train_runtime", "loss") if name in row), "")
    complete = last >= run.max_steps if run.max_steps else ended == "train_runtime"
    if complete or (run.folder / "model").is_dir():
        return "finished"
    if ended != "train_runtime" and newest is not None and time.time() - newest < QUIET:
        return "running"
    return "stopped"
