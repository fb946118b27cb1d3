"""Folders of runs, as a run leaves them, made up to any size and with any text in them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from dapo_trl.monitor.metrics import METRICS

CONFIG = {"model": "m", "env": "math/Arithmetic-v0", "max_steps": 100, "learning_rate": 1e-4, "env_kwargs": {"a": [1]}}
ENVIRONMENT = {
    "train": {"id": "e", "spec": {"kwargs": {"split": "train"}, "additional_wrappers": []}, "versions": {"sympy": "1"}},
    "held_out": {"id": "e", "spec": {"kwargs": {"split": "test"}, "additional_wrappers": []}, "versions": {}},
}
NAMES = [
    *(name for name in METRICS if "*" not in name and not name.startswith("eval_")),
    "grad_norm",
    "accuracy/level_2",
    "accuracy/level_3",
]


def row(step: int, of: int, **changes: Any) -> dict[str, Any]:
    """A log with every metric."""
    done = step / of
    values = {name: 0.5 + 0.3 * math.sin(6 * done + place) for place, name in enumerate(NAMES)}
    ledger = {name: 1000.0 * step for name in NAMES if name.startswith("ledger/")}
    return {"step": step, "seconds": 2.0 * step, "loss": 0.1, **values, **ledger, **changes}


def rollout(step: int = 0, **changes: Any) -> dict[str, Any]:
    """A line as the recorder writes it."""
    found = {
        "schema": 1,
        "batch": 1,
        "step": step,
        "index": 7,
        "level": 3,
        "prompt": "<|user|>Compute 1 + 2.<|end|>",
        "pieces": ["1", "+", "2", "=", "4", "<|end|>"],
        "tokens": 6,
        "left_out": [6, 0],
        "own": None,
        "account": "trained",
        "verdict": "wrong",
        "accuracy": 0.0,
        "rewards": {"environment": 0.0, "overlong": -0.1},
        "components": {"correctness": 0.0, "format": 0.1},
        "advantage": -0.5,
        "solution": "Answer: 3",
        "updates": 4,
    }
    found |= changes
    length = len(found["pieces"])
    if found["account"] == "trained" and "change" not in changes:
        found |= {"before": [-0.1] * length, "change": [0.01 * place for place in range(length)]}
    return found


def make_run(folder: Path, rows: Iterable[dict] = (), rollouts: Iterable[dict] = (), **files: str) -> Path:
    """A run's folder; ``files`` replace what is in it."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "metrics.jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        "config.yaml": yaml.safe_dump(CONFIG),
        "environment.json": json.dumps(ENVIRONMENT),
        "rollouts-0.jsonl": "".join(json.dumps(rollout) + "\n" for rollout in rollouts),
    }
    for name, text in (contents | files).items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def usual_run(folder: Path, *, steps: int = 40, **changes: Any) -> Path:
    """A run with everything: curves, held-out measurements, rollouts of several levels, verdicts and steps."""
    rows = [row(step, steps) for step in range(1, steps + 1)]
    for step in (20, 10):
        held_out = {"eval_accuracy": 0.3 + step / 100, "eval_accuracy_low": 0.2, "eval_accuracy_high": 0.6}
        rows.insert(step, {"step": step, **held_out})
    verdicts = ["correct", "wrong", "no_answer"]
    rollouts = [
        rollout(step, level=1 + i % 3, verdict=verdicts[i % 3], advantage=(-1) ** i * i / 10, index=i)
        for i, step in enumerate(step for step in range(0, steps, 8) for _ in range(6))
    ]
    return make_run(folder, rows, [*rollouts, rollout(0, account="all_wrong", advantage=0.0)], **changes)
