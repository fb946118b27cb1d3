"""The main curves of a run as one PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .reading import Run
from .summary import held_out_points

matplotlib.use("Agg")

BLUE, ORANGE, GREEN, RED, GREY = "#3366aa", "#dd8833", "#44996b", "#c0504d", "#8a8f98"
HEADROOM = 1.25
"""Height of an axis relative to its curves; the legend stands above them."""


def plot_curves(run: Run, path: Path, *, title: str) -> Path:
    """Draw the main curves of a run into a PNG file; a curve without logs is replaced by a note."""
    rows = run.training
    figure = Figure(figsize=(13, 7), layout="constrained")
    axes = figure.subplots(2, 3)
    _accuracy(axes[0, 0], rows, run)
    _lines(axes[0, 1], rows, "Reward of all completions sampled", {"reward/sampled": ("reward", BLUE)})
    _groups(axes[0, 2], rows, filtered=run.setting("group_filter") != "none")
    _lines(axes[1, 0], rows, "Entropy per token (nats)", {"entropy": ("entropy", GREEN)}, floor=0)
    _length(axes[1, 1], rows)
    _lines(
        axes[1, 2],
        rows,
        "Tokens clipped (%)",
        {
            "clip_ratio/high_mean": ("at 1 + epsilon_high", ORANGE),
            "clip_ratio/low_mean": ("at 1 - epsilon", BLUE),
        },
        factor=100,
        floor=0,
    )
    for place, axis in enumerate(axes.flat):
        axis.set_xlabel("optimizer step")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        if not axis.lines and not axis.collections and not axis.containers:
            axis.text(0.5, 0.5, "nothing was logged", ha="center", transform=axis.transAxes, color=GREY)
        if axis.get_legend_handles_labels()[1]:
            axis.legend(frameon=False, fontsize=9, loc="best" if place < 3 else "upper right")
    figure.suptitle(title, fontsize=11, color=GREY, parse_math=False)
    figure.savefig(path, dpi=110)
    return path


def _series(rows: list[dict[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    return (np.array([p[0] for p in points]), np.array([p[1] for p in points], dtype=float))


def _smooth(values: np.ndarray, window: int = 5) -> np.ndarray:
    """Centred moving average that shrinks at the ends."""
    half = window // 2
    return np.array([values[max(i - half, 0) : i + half + 1].mean() for i in range(len(values))])


def _lines(
    axis: Axes,
    rows: list[dict[str, Any]],
    title: str,
    names: dict[str, tuple[str, str]],
    *,
    factor: float = 1.0,
    floor: float | None = None,
) -> None:
    for name, (label, colour) in names.items():
        steps, values = _series(rows, name)
        if len(steps):
            few = "o" if len(steps) < 12 else None  # a short run is shown as it was measured
            axis.plot(steps, factor * values, color=colour, alpha=0.9 if few else 0.25, linewidth=1, marker=few)
            shown = values if few else _smooth(values)
            axis.plot(steps, factor * shown, color=colour, linewidth=0 if few else 1.8, label=label, marker=few)
    axis.set_title(title, fontsize=11)
    if floor is not None:
        height = max(axis.dataLim.y1 - floor, 0) if axis.lines else 0
        axis.set_ylim(floor, floor + HEADROOM * (height or 1))


def _accuracy(axis: Axes, rows: list[dict[str, Any]], run: Run) -> None:
    _lines(
        axis,
        rows,
        "Accuracy",
        {
            "accuracy/sampled": ("sampled (before the filter)", BLUE),
            "accuracy/trained": ("trained on (after the filter)", GREY),
        },
    )
    points = held_out_points(run)
    values = np.array([point["value"] for point in points])
    bounds = {
        side: np.array([point["value"] if point[side] is None else point[side] for point in points])
        for side in ("low", "high")
    }
    if points:
        axis.errorbar(
            [point["step"] for point in points],
            values,
            yerr=[np.maximum(values - bounds["low"], 0), np.maximum(bounds["high"] - values, 0)],
            fmt="o",
            color=ORANGE,
            capsize=4,
            markersize=6,
            label="held out, 95 % interval",
            zorder=3,
        )
    axis.set_ylim(0, 1.03)


def _groups(axis: Axes, rows: list[dict[str, Any]], *, filtered: bool) -> None:
    parts = {
        "groups/kept": ("informative", GREEN) if filtered else ("kept (no filter)", GREY),
        "groups/all_right": ("dropped: all correct", BLUE),
        "groups/all_wrong": ("dropped: all wrong", RED),
        "groups/constant": ("dropped: constant", ORANGE),
        "groups/unscorable": ("dropped: unscorable", GREY),
    }
    rows = [row for row in rows if "groups/kept" in row]
    columns = {name: np.array([row.get(name, 0.0) for row in rows]) for name in parts}
    shown = {name: style for name, style in parts.items() if columns[name].sum() > 0}
    steps = np.array([row["step"] for row in rows])
    if shown:
        stacks = [columns[name] for name in shown]
        if len(steps) == 1:  # an area needs two points
            steps, stacks = np.array([steps[0] - 0.5, steps[0] + 0.5]), [np.repeat(stack, 2) for stack in stacks]
        axis.stackplot(
            steps,
            stacks,
            labels=[label for label, _ in shown.values()],
            colors=[c for _, c in shown.values()],
            alpha=0.8,
        )
    axis.set_title("Groups sampled per rollout batch", fontsize=11)


def _length(axis: Axes, rows: list[dict[str, Any]]) -> None:
    _lines(axis, rows, "Completion length (tokens)", {"completions/mean_length": ("mean length", BLUE)}, floor=0)
    steps, truncated = _series(rows, "completions/clipped_ratio")
    if len(steps):
        other = axis.twinx()
        other.plot(steps, 100 * truncated, color=RED, linewidth=1, alpha=0.6)
        other.set_ylabel("truncated at the limit (%)", color=RED, fontsize=9)
        other.set_ylim(0, max(5.0, 100 * HEADROOM * truncated.max()))
        other.spines[["top"]].set_visible(False)
