"""What the runs of time_to_accuracy.py come to: the cost of each side, their ratios, the claims and the plot."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common import Claim
from ladder_table import interval, shown

GOAL = 0.8
"""Held-out accuracy to be reached."""
SMOOTHING = 3
"""Measurements on end whose mean is to reach it."""
SIDES = ("TRL", "ours")
COSTS = {"seconds": "seconds", "tokens": "tokens generated", "step": "optimizer steps"}
HEADINGS = ("", *COSTS.values(), "reached")

Run = Mapping[str, Any]


def smooth(measured: Sequence[Mapping[str, Any]]) -> float:
    """Mean accuracy of the last `SMOOTHING` measurements; 0 as long as there are fewer."""
    last = [row["accuracy"] for row in measured[-SMOOTHING:]]
    return statistics.fmean(last) if len(last) == SMOOTHING else 0.0


def costs(runs: Sequence[Run], side: str, name: str) -> dict[int, float]:
    """What each seed's run had cost at its end, which is where it reached the goal or was given up."""
    return {run["seed"]: float(run["measured"][-1][name]) for run in runs if run["side"] == side}


def ratios(runs: Sequence[Run], name: str) -> list[float]:
    """Cost of ours over TRL's, seed by seed."""
    ours, theirs = costs(runs, "ours", name), costs(runs, "TRL", name)
    return [ours[seed] / theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]


def rows(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """Mean and 95 % interval over seeds of each cost, and the ratios: median, least and most."""
    found = []
    for side in SIDES:
        mine = [run for run in runs if run["side"] == side]
        reached = sum(smooth(run["measured"]) >= GOAL for run in mine)
        cells = (shown(*interval(list(costs(runs, side, name).values()))) for name in COSTS)
        found.append((side, *cells, f"{reached} of {len(mine)}"))
    quotients = [ratios(runs, name) for name in COSTS]
    cells = (f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})" for each in quotients)
    return [*found, ("ours / TRL, median (range)", *cells, "")]


def claims(runs: Sequence[Run]) -> list[Claim]:
    return [
        Claim("seconds to the goal, ours / TRL (median over seeds)", statistics.median(ratios(runs, "seconds")), 0.4),
        Claim("tokens to the goal, ours / TRL (median over seeds)", statistics.median(ratios(runs, "tokens")), 1.0),
    ]


def plot(runs: Sequence[Run], path: Path) -> None:
    """Held-out accuracy of every run against seconds and against tokens."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    picture = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(picture)
    by_seconds, by_tokens = picture.subplots(1, 2, sharey=True)
    for number, side in enumerate(SIDES):
        for nth, run in enumerate(run for run in runs if run["side"] == side):
            accuracy = [row["accuracy"] for row in run["measured"]]
            style = {"color": f"C{number}", "alpha": 0.7, "label": side if nth == 0 else None}
            by_seconds.plot([row["seconds"] for row in run["measured"]], accuracy, **style)
            by_tokens.plot([row["tokens"] / 1000 for row in run["measured"]], accuracy, **style)
    by_seconds.set(xlabel="seconds", ylabel="held-out accuracy")
    by_tokens.set(xlabel="tokens generated, thousands")
    by_seconds.legend()
    for axes in (by_seconds, by_tokens):
        axes.axhline(GOAL, color="grey", linewidth=0.8)
        axes.grid(alpha=0.3)
    picture.savefig(path, dpi=110)
