"""Runs as plain data for the page: curves thinned out, figures, alarms, settings side by side. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..monitor.alarms import alarms_in
from ..monitor.diagnosis import HELD_OUT, held_out, why_nothing_is_learnt
from ..monitor.metrics import INHERITED, METRICS
from ..monitor.status import FINISHED
from ..sampling.token_ledger import ACCOUNTS
from .reading import Run

MAX_POINTS = 500
"""Points of a curve; of more logs each point is the mean of several, with their smallest and largest value."""
_COUNTING_UP = (
    "ledger/",
    "sampling/rollout_batches",
    "sampling/prompts",
    "sampling/groups_trained",
    "sampling/epochs",
    "num_tokens",
    "epoch",
    "seconds",
)
"""Names, or their beginnings, of metrics that count up over the run; the last of several logs stands for them."""

_ENVIRONMENT = re.compile("^env/([^/]+)/")
"""The beginning of a metric's name that belongs to one environment of a mixture."""
_NO_SETTINGS = ("output_dir", "overwrite", "resume_from_checkpoint", "allow_changes")
"""Settings that do not make one run differ from another."""


def curves(rows: Sequence[dict[str, float]], *, most: int = MAX_POINTS) -> dict[str, Any]:
    """The logs of optimizer steps by column.

    Returns:
        "step" ``[n]`` with ``n`` at most ``most``, "values" ``{name: [n]}``, and, if several logs make a point, "low"
        and "high" alike; None where nothing was logged.
    """
    found: dict[str, Any] = {"step": [], "values": {}, "low": {}, "high": {}}
    if not rows:
        return found
    edges = np.linspace(0, len(rows), min(len(rows), most) + 1).round().astype(int)
    found["step"] = [int(rows[last - 1]["step"]) for last in edges[1:]]
    for name in sorted({name for row in rows for name in row} - {"step"}):
        column = np.array([row.get(name, np.nan) for row in rows])
        places = np.flatnonzero(~np.isnan(column))
        firsts = np.searchsorted(places, edges)
        full = firsts[1:] > firsts[:-1]
        values, starts, ends = column[places], firsts[:-1][full], firsts[1:][full]
        counts_up = _ENVIRONMENT.sub("", name).startswith(_COUNTING_UP)
        shown = {"values": values[ends - 1] if counts_up else np.add.reduceat(values, starts) / (ends - starts)}
        if len(rows) > most and not counts_up:
            shown |= {"low": np.minimum.reduceat(values, starts), "high": np.maximum.reduceat(values, starts)}
        for kind, points in shown.items():
            rest = iter(points.tolist())
            found[kind][name] = [_short(next(rest)) if some else None for some in full]
    return found


def held_out_points(run: Run) -> list[dict[str, Any]]:
    """Held-out accuracy by step with its 95 % interval, from the logs and the files of the measurements."""
    points: dict[int, dict[str, Any]] = {}
    last = max((int(row["step"]) for row in run.rows), default=0)
    for name, found in run.evaluations.items():
        step = {"before": 0, "after": last}.get(name, found.get("step"))
        value, interval = found.get("accuracy"), found.get("interval_95")
        if isinstance(step, int) and isinstance(value, int | float):
            pair = interval if isinstance(interval, list) and len(interval) == 2 else [None, None]
            points[step] = {"step": step, "value": value, "low": pair[0], "high": pair[1]}
    for row in run.rows:
        value = held_out(row)
        if value is not None:
            bounds = {side: row.get(f"{HELD_OUT}_{side}") for side in ("low", "high")}
            points.setdefault(int(row["step"]), {"step": int(row["step"]), "value": value, **bounds})
    return [points[step] for step in sorted(points)]


def describe_run(run: Run, label: str) -> dict[str, Any]:
    """Everything the page shows of one run, except its rollouts."""
    training = run.training
    newest = {name: value for row in training for name, value in row.items()}
    return {
        "label": label,
        "folder": str(run.folder),
        "status": run.status,
        "why": run.why,
        "diagnosis": _diagnosis(run) if run.status == FINISHED and not run.why else None,
        "steps": int(newest.get("step", 0)),
        "max_steps": run.max_steps,
        "filtered": run.setting("group_filter") != "none",
        "seconds": newest.get("seconds"),
        "tokens": newest.get("ledger/tokens", newest.get("num_tokens")),
        "newest": {name: newest.get(name) for name in ("reward/sampled", "reward", "accuracy/sampled", "entropy")},
        "curves": curves(training),
        "logs": len(training),
        "held_out": held_out_points(run),
        "environments": environments(run),
        "sampling": _sampling(run),
        "alarms": [
            {"name": alarm.name, "step": alarm.step, "cleared": alarm.cleared, "message": alarm.message}
            for alarm in alarms_in(run.rows, run.settings or run.config)
        ],
        "notes": run.notes,
    }


def environments(run: Run) -> list[dict[str, Any]]:
    """The environments of a mixture side by side; empty for a run on one."""
    names = dict.fromkeys(match[1] for row in run.training for name in row if (match := _ENVIRONMENT.match(name)))
    trained = {name: _ends(run.training, f"env/{name}/sampling/groups_trained")[1] or 0.0 for name in names}
    found = []
    for name in names:
        tokens, used = (_ends(run.rows, f"env/{name}/ledger/{unit}")[1] for unit in ("tokens", "trained_tokens"))
        found.append(
            {
                "name": name,
                "trained": trained[name],
                "share": trained[name] / max(sum(trained.values()), 1.0),
                "tokens": tokens,
                "trained_tokens": used / tokens if tokens and used is not None else None,
                "accuracy": _ends(run.training, f"env/{name}/accuracy/sampled"),
                "held_out": _held_out_ends(run, name),
            }
        )
    return found


def _ends(rows: Sequence[dict[str, float]], metric: str) -> tuple[float | None, float | None]:
    """The first and the last value of a metric; None twice where there is none."""
    values = [row[metric] for row in rows if metric in row]
    return (values[0], values[-1]) if values else (None, None)


def _held_out_ends(run: Run, name: str) -> tuple[float | None, float | None]:
    """The first and the last held-out accuracy of an environment, from the files of the measurements, else the logs."""
    found = (run.evaluations.get(when, {}).get("by_level") for when in ("before", "after"))
    values = [
        levels[name] for levels in found if isinstance(levels, dict) and isinstance(levels.get(name), int | float)
    ]
    return (values[0], values[-1]) if values else _ends(run.rows, f"env/{name}/{HELD_OUT}")


def _sampling(run: Run) -> str:
    """How the completions of the held-out problems were drawn; empty where it is not known."""
    found = run.evaluations.get("after") or run.evaluations.get("before") or {}
    given = [(name, found.get(name)) for name in ("temperature", "top_p")]
    return ", ".join(f"{name} {value:g}" for name, value in given if isinstance(value, int | float))


def _diagnosis(run: Run) -> str | None:
    """Why the run learnt nothing, as its console printed it."""
    updates = [run.setting(name) for name in ("steps_per_generation", "num_iterations", "gradient_accumulation_steps")]
    known = all(isinstance(value, int) and value > 0 for value in updates)
    passes, iterations, accumulated = updates if known else (2, 1, 1)  # unknown: taken for enough
    rows = [row for row in run.training if "groups/sampled" in row and "groups/kept" in row]
    return why_nothing_is_learnt(rows, updates_per_rollout=max(passes // accumulated * iterations, 1))


def settings_table(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The settings that any of the runs was given, each as it was in force; settings that differ come first.

    Returns:
        rows with "name", "values" (None: not known), "asked" (whether this run was given it) and "differs".
    """
    asked = [_flat({name: value for name, value in run.config.items() if name not in _NO_SETTINGS}) for run in runs]
    in_force = [_flat(run.settings) for run in runs]
    names = dict.fromkeys(name for column in asked for name in column)
    columns = [
        {name: found[name] for name in names if name in found}
        for found in (wanted | known for wanted, known in zip(asked, in_force, strict=True))
    ]
    return [{**row, "asked": [row["name"] in column for column in asked]} for row in _table(columns)]


def environment_table(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The environments with their arguments and the versions that their rewards depend on."""
    return _table([_environments(run.environment) for run in runs])


def meanings() -> dict[str, dict[str, str]]:
    """Definitions of the metrics and of the ledger's token uses."""
    found = {
        name: {"definition": metric.definition, "over": metric.over, "healthy": metric.healthy}
        for name, metric in (METRICS | INHERITED).items()
    }
    return found | {f"account/{account}": {"definition": meaning} for account, meaning in ACCOUNTS.items()}


def labels(folders: Sequence[Path]) -> list[str]:
    """A short name for each run: as much of the end of its path as makes it unique."""
    paths = [folder.resolve() for folder in folders]
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        found = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(found)) == len(found):
            break
    return found


def _table(columns: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    names = list(dict.fromkeys(name for column in columns for name in column))
    values = {name: [column.get(name) for column in columns] for name in names}
    rows = [{"name": name, "values": found, "differs": len(set(found)) > 1} for name, found in values.items()]
    return sorted(rows, key=lambda row: not row["differs"])


def _environments(described: dict[str, Any]) -> dict[str, str]:
    """The descriptions (`envs.description`) of the training and the held-out environment, for a person."""
    several, found = described.get("environments"), dict[str, str]()
    if isinstance(several, dict):
        parts = {name: _environments(one) for name, one in several.items() if isinstance(one, dict)}
        return {
            title if title.startswith("version") else f"{name}: {title}": text  # they have the versions in common
            for name, part in parts.items()
            for title, text in part.items()
        }
    for name, title in (("train", "train"), ("held_out", "held out")):
        one = described.get(name)
        if not isinstance(one, dict):
            continue
        spec = one["spec"] if isinstance(one.get("spec"), dict) else {}
        found |= _flat({title: {"id": one.get("id"), **(spec.get("kwargs") or {})}})
        if spec.get("additional_wrappers"):
            found |= _flat({title: {"wrappers": spec["additional_wrappers"]}})
        found |= _flat({"version": one.get("versions")}) if name == "train" else {}
    return found or _flat(described)


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    if not isinstance(value, dict) or not value:
        return {prefix: value if isinstance(value, str) else json.dumps(value, default=str)} if prefix else {}
    parts = (_flat(item, f"{prefix}.{name}" if prefix else str(name)) for name, item in value.items())
    return {name: text for part in parts for name, text in part.items()}


def _short(value: float) -> float:
    """To five digits."""
    number = float(f"{value:.5g}")
    return int(number) if number.is_integer() and abs(number) < 1e15 else number
