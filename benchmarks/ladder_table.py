"""What the runs of the ladder come to: figures with intervals over seeds, the table, the claims and the plot."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import Claim

STEPS = 320
"""Optimizer steps at which the arms are compared."""
TOKENS = 65_000
"""Completion tokens generated at which the arms are compared."""
_T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
"""0.975 quantile of Student's t with 1 to 15 degrees of freedom: two and three seeds are too few for the expansion that
evaluations use."""

Run = Mapping[str, Any]
Figure = Callable[[Run], float]


def at_steps(name: str) -> Figure:
    """A measured figure after `STEPS` optimizer steps."""
    return lambda run: next(row[name] for row in run["measured"] if row["step"] == STEPS)


def accuracy_at_tokens(run: Run) -> float:
    """Held-out accuracy when `TOKENS` tokens had been generated, on the line between the measurements around it."""
    rows = run["measured"]
    for before, after in itertools.pairwise(rows):
        if after["tokens"] >= TOKENS:
            share = (TOKENS - before["tokens"]) / (after["tokens"] - before["tokens"])
            return before["accuracy"] + share * (after["accuracy"] - before["accuracy"])
    raise ValueError(f"{run['arm']}, seed {run['seed']}: it ends after {rows[-1]['tokens']:,} of {TOKENS:,} tokens")


def logged(name: str, *, last: int | None = None) -> Figure:
    """Mean of a logged metric over the rollout batches of the first `STEPS` optimizer steps, or their last few."""

    def mean(run: Run) -> float:
        values = [row[name] for row in run["log"] if row["step"] <= STEPS]
        return statistics.fmean(values[-last:] if last else values)

    return mean


def dropped(run: Run) -> float:
    """Share of the groups sampled that carried no signal and were replaced."""
    rows = [row for row in run["log"] if row["step"] <= STEPS]
    return 1 - sum(row["groups/kept"] for row in rows) / sum(row["groups/sampled"] for row in rows)


RESULTS: dict[str, Figure] = {
    "accuracy, same steps": at_steps("accuracy"),
    "accuracy, same tokens": accuracy_at_tokens,
    "entropy at the end": logged("entropy", last=4),
    "rollouts": at_steps("completions"),
    "seconds": at_steps("seconds"),
}
MECHANISMS: dict[str, Figure] = {
    "clipped low": logged("clip_ratio/low_mean"),
    "clipped high": logged("clip_ratio/high_mean"),
    "cut off": logged("completions/clipped_ratio"),
    "length": logged("completions/mean_length"),
    "groups dropped": dropped,
    "no signal": logged("frac_reward_zero_std"),
    "gradient norm": logged("grad_norm"),
}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval by Student's t; NaN for a single value."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, math.nan
    return mean, _T975[len(values) - 2] * statistics.stdev(values) / math.sqrt(len(values))


def of_arm(runs: Sequence[Run], arm: str, figure: Figure) -> dict[int, float]:
    """A figure of every run of an arm, by seed."""
    return {run["seed"]: figure(run) for run in runs if run["arm"] == arm}


def difference(runs: Sequence[Run], arm: str, other: str, figure: Figure) -> tuple[float, float]:
    """Mean over the seeds that both arms have of the difference, and half the width of its interval."""
    one, two = of_arm(runs, arm, figure), of_arm(runs, other, figure)
    return interval([one[seed] - two[seed] for seed in sorted(one.keys() & two.keys())])


def shown(mean: float, half: float) -> str:
    """A figure with its interval, as precise as its size asks for."""
    size = max(abs(mean), 0.0 if math.isnan(half) else half)
    digits = 0 if size >= 100 else 1 if size >= 10 else 3 if size >= 0.01 or mean == 0 else 4
    return f"{mean:,.{digits}f}" + ("" if math.isnan(half) else f" ± {half:,.{digits}f}")


def table(runs: Sequence[Run], arms: Sequence[str], figures: Mapping[str, Figure]) -> list[tuple[str, ...]]:
    """A row for each arm that has runs: its name, and each figure with its interval over seeds."""
    present = [arm for arm in arms if any(run["arm"] == arm for run in runs)]
    return [
        (arm, *(shown(*interval(list(of_arm(runs, arm, figure).values()))) for figure in figures.values()))
        for arm in present
    ]


def claims(runs: Sequence[Run], *, full: str, naive: str, before_clip: str, with_clip: str) -> list[Claim]:
    """The lower ends of the intervals of the differences that the ladder is about; each is to be above 0."""

    def least(name: str, arm: str, other: str, figure: Figure) -> Claim:
        mean, half = difference(runs, arm, other, figure)
        return Claim(f"{name} (mean {shown(mean, half)}), lower end", mean - half, 0.0, True, "difference")

    return [
        least("accuracy at the same steps, full - naive", full, naive, RESULTS["accuracy, same steps"]),
        least("accuracy at the same tokens, full - naive", full, naive, RESULTS["accuracy, same tokens"]),
        least("entropy at the end, clip-higher - symmetric", with_clip, before_clip, RESULTS["entropy at the end"]),
    ]


def plot(runs: Sequence[Run], arms: Sequence[str], path: Path) -> None:
    """Held-out accuracy of the arms against steps and against tokens, mean over seeds, and entropy against steps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Picture

    picture = Picture(figsize=(13, 4.2), layout="constrained")
    FigureCanvasAgg(picture)
    by_steps, by_tokens, entropy = picture.subplots(1, 3)
    for number, arm in enumerate(arms):
        mine = [run for run in runs if run["arm"] == arm]
        if not mine:
            continue
        style = {"color": f"C{number}", "label": arm}
        steps = sorted({row["step"] for run in mine for row in run["measured"] if row["step"] <= STEPS})
        by_steps.plot(steps, [_mean_at(mine, step, "accuracy") for step in steps], **style)
        by_tokens.plot(*_against_tokens(mine), **style)
        entropy.plot(*_entropy(mine), **style)
    for axes, label in ((by_steps, "optimizer steps"), (by_tokens, "tokens generated, thousands")):
        axes.set(xlabel=label, ylabel="held-out accuracy")
    entropy.set(xlabel="optimizer steps", ylabel="entropy, nats", ylim=(0, None))
    by_steps.legend(fontsize=8)
    for axes in (by_steps, by_tokens, entropy):
        axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=110)


def _mean_at(runs: Sequence[Run], step: int, name: str) -> float:
    return statistics.fmean(row[name] for run in runs for row in run["measured"] if row["step"] == step)


def _against_tokens(runs: Sequence[Run]) -> tuple[list[float], list[float]]:
    """Mean accuracy at budgets of tokens that all runs reached."""
    import numpy as np

    budgets = np.linspace(0, min(TOKENS, *(run["measured"][-1]["tokens"] for run in runs)), 40)
    curves = [
        np.interp(budgets, [row["tokens"] for row in run["measured"]], [row["accuracy"] for row in run["measured"]])
        for run in runs
    ]
    return list(budgets / 1000), list(np.mean(curves, axis=0))


def _entropy(runs: Sequence[Run]) -> tuple[list[int], list[float]]:
    steps = sorted({row["step"] for run in runs for row in run["log"] if row["step"] <= STEPS})
    means = [statistics.fmean(row["entropy"] for run in runs for row in run["log"] if row["step"] == s) for s in steps]
    return steps, means
