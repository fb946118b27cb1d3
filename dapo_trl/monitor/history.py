"""What a run logged, as series: the newest values, trends, and whether something rises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Row = Mapping[str, Any]
"""one log: numbers by name, with its ``step``"""

HELD_OUT = "eval_accuracy"
"""avg@k on held-out problems; with ``_low`` and ``_high``, the ends of its 95 % interval"""
_OLDER_NAMES = ("held_out/accuracy", "eval/accuracy", "eval_accuracy/sampled")


def series(rows: Sequence[Row], name: str) -> np.ndarray:
    """The values that were logged, in order."""
    return np.array([row[name] for row in rows if row.get(name) is not None], dtype=float)


def trend(rows: Sequence[Row], name: str) -> tuple[float, float]:
    """Means of the first and of the last third of what was logged."""
    values = series(rows, name)
    third = max(len(values) // 3, 1)
    return (float(values[:third].mean()), float(values[-third:].mean())) if len(values) else (0.0, 0.0)


def rises(values: np.ndarray) -> bool:
    """Whether the last third of a series lies above the first by more than twice the error of the difference."""
    third = len(values) // 3
    if third < 2:
        return bool(len(values) > 1 and values[-1] > values[0])
    head, tail = values[:third], values[-third:]
    error = np.sqrt((head.var(ddof=1) + tail.var(ddof=1)) / third)
    return bool(tail.mean() - head.mean() > max(2 * error, 1e-6))


def held_out(row: Row) -> float | None:
    """The held-out accuracy that a log holds."""
    return next((float(row[name]) for name in (HELD_OUT, *_OLDER_NAMES) if row.get(name) is not None), None)
