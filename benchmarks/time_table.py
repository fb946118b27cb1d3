"""What the runs of time_to_accuracy.py come to: the cost of each goal, where seconds go, the claims and the plot."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common import Claim

GOALS = (0.8, 0.9, 0.95)
"""Held-out accuracies to be reached."""
WINDOW = 4
"""Measurements in a running mean."""
SIDES = ("TRL", "ours")
HEADINGS = (
    "held-out accuracy",
    *(f"seconds, {side}" for side in SIDES),
    *(f"ours / TRL, {what}" for what in ("seconds", "tokens", "optimizer steps")),
    *(f"reached, {side}" for side in SIDES),
)

Run = Mapping[str, Any]


def curve(measured: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Running means of everything measured."""
    windows = (measured[start : start + WINDOW] for start in range(len(measured) - WINDOW + 1))
    return [{name: statistics.fmean(row[name] for row in window) for name in window[0]} for window in windows]


def reached(measured: Sequence[Mapping[str, float]], goal: float) -> bool:
    return any(row["accuracy"] >= goal for row in curve(measured))


def cost(run: Run, goal: float, name: str) -> float:
    """What a run had cost when it first came to the goal; all that it took if it never did."""
    means = curve(run["measured"])
    for before, after in itertools.pairwise([means[0], *means]):
        if after["accuracy"] >= goal:
            rise = after["accuracy"] - before["accuracy"]
            share = (goal - before["accuracy"]) / rise if rise > 0 else 1.0
            return before[name] + share * (after[name] - before[name])
    return float(run["measured"][-1][name])


def of_side(runs: Sequence[Run], side: str) -> list[Run]:
    return [run for run in runs if run["side"] == side]


def ratios(runs: Sequence[Run], goal: float, name: str) -> list[float]:
    """Cost of ours over TRL's, seed by seed."""
    theirs, ours = ({run["seed"]: cost(run, goal, name) for run in of_side(runs, side)} for side in SIDES)
    return [ours[seed] / theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]


def rows(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """For every goal the mean seconds of each side, the ratios' median and range, and how many runs reached it."""
    found = []
    for goal in GOALS:
        seconds = [statistics.fmean(cost(run, goal, "seconds") for run in of_side(runs, side)) for side in SIDES]
        quotients = [ratios(runs, goal, name) for name in ("seconds", "tokens", "step")]
        cells = (f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})" for each in quotients)
        counts = [(sum(reached(run["measured"], goal) for run in mine), len(mine)) for mine in _by_side(runs)]
        found.append((f"{goal}", *(f"{s:.0f}" for s in seconds), *cells, *(f"{n} of {all_}" for n, all_ in counts)))
    return found


def sections(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """Milliseconds of an optimizer step by section and side, with their share: means over all runs."""
    found = []
    for name in of_side(runs, SIDES[0])[0]["sections"]:
        cells = []
        for mine in _by_side(runs):
            steps, total = (sum(run["measured"][-1][what] for run in mine) for what in ("step", "seconds"))
            seconds = sum(run["sections"][name] for run in mine)
            cells.append(f"{1000 * seconds / steps:.0f} ({seconds / total:.0%})")
        found.append((name, *cells))
    return found


def claims(runs: Sequence[Run]) -> list[Claim]:
    """The ratios of seconds, at every goal."""
    return [
        Claim(
            f"seconds to {goal}, ours / TRL (median over seeds)", statistics.median(ratios(runs, goal, "seconds")), 0.4
        )
        for goal in GOALS
    ]


def plot(runs: Sequence[Run], path: Path) -> None:
    """Running means of held-out accuracy of every run against seconds and against tokens."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    picture = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(picture)
    by_seconds, by_tokens = picture.subplots(1, 2, sharey=True)
    for number, (side, mine) in enumerate(zip(SIDES, _by_side(runs), strict=True)):
        for nth, run in enumerate(mine):
            means = curve(run["measured"])
            accuracy = [row["accuracy"] for row in means]
            style = {"color": f"C{number}", "alpha": 0.7, "label": side if nth == 0 else None}
            by_seconds.plot([row["seconds"] for row in means], accuracy, **style)
            by_tokens.plot([row["tokens"] / 1000 for row in means], accuracy, **style)
    by_seconds.set(xlabel="seconds of processor time in training", ylabel="held-out accuracy")
    by_tokens.set(xlabel="tokens generated, thousands")
    by_seconds.legend()
    for axes in (by_seconds, by_tokens):
        for goal in GOALS:
            axes.axhline(goal, color="grey", linewidth=0.8, linestyle="dotted")
        axes.grid(alpha=0.3)
    picture.savefig(path, dpi=110)


def _by_side(runs: Sequence[Run]) -> list[list[Run]]:
    return [of_side(runs, side) for side in SIDES]
