"""How the training step's cost grows: seconds against mean length and against the size of the batch, TRL's and ours.

    python benchmarks/scaling.py            # about 6 minutes on one core
    python benchmarks/scaling.py --quick    # about two minutes

Model, rollouts and what is timed are those of `train_step.py`; lengths are lognormal with sigma 0.8, cut at 5.7 times
their median. A line through the logarithms gives the exponent: 1 is proportional. The plot goes to
docs/performance.png, unless --quick is given.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from common import Claim, arguments, finish, show
from measured import quieten
from train_step import CUT, MEDIAN, PROMPT, Case, compare, median

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "performance.png"
COLOURS = {"theirs_s": "tab:gray", "ours_s": "tab:blue"}
NAMES = {"theirs_s": "TRL", "ours_s": "ours"}


def of_length(middle: float, rows: int) -> Case:
    return Case(rows=rows, median=middle, cut=round(CUT * middle / MEDIAN))


def points(cases: list[tuple[float | None, Case]], repetitions: int) -> list[dict[str, float]]:
    """Medians of each case; ``x`` is the given figure, or the mean tokens of a row, prompt included."""
    found = []
    for x, case in cases:
        runs = compare(case, repetitions, warm=not found)
        one = {name: median(runs, name) for name in runs[0]}
        found.append({**one, "rows": case.rows, "x": PROMPT + one["mean_length"] if x is None else x})
    return found


def exponent(found: list[dict[str, float]], side: str) -> float:
    return float(np.polyfit(np.log([p["x"] for p in found]), np.log([p[side] for p in found]), 1)[0])


def table(title: str, axis: str, found: list[dict[str, float]]) -> None:
    rows = [
        (f"{p['x']:.0f}", *(f"{p[side]:.2f} s" for side in NAMES), f"{p['speed_up']:.2f}", f"{p['padded_to_real']:.2f}")
        for p in found
    ]
    rows.append(("exponent", *(f"{exponent(found, side):.2f}" for side in NAMES), "", ""))
    show(title, [axis, *NAMES.values(), "speed-up", "padded/real in TRL"], rows)


def draw(lengths: list[dict[str, float]], batches: list[dict[str, float]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=False)
    for axis, found, label in (
        (axes[0], lengths, "mean tokens of a row, prompt included"),
        (axes[1], batches, "completions of an optimizer step"),
    ):
        x = np.array([p["x"] for p in found])
        for side, name in NAMES.items():
            y, slope = np.array([p[side] for p in found]), exponent(found, side)
            axis.loglog(x, y, "o", color=COLOURS[side], label=f"{name}: exponent {slope:.2f}")
            axis.loglog(x, np.exp(np.log(y).mean() + slope * (np.log(x) - np.log(x).mean())), color=COLOURS[side], lw=1)
        axis.set_xlabel(label)
        axis.set_xticks(x, [f"{value:.0f}" for value in x])
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    axes[0].set_ylabel("seconds of two optimizer steps\nand the old log-probabilities")
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=150)


def main() -> None:
    options = arguments(__doc__ or "")
    quieten()
    repetitions, rows = (1, 16) if options.quick else (2, 32)
    middles = (22.5, 90.0) if options.quick else (22.5, 45.0, 90.0, 180.0)
    sizes = (16, 32) if options.quick else (16, 32, 64, 128)
    lengths = points([(None, of_length(middle, rows)) for middle in middles], repetitions)
    table(f"Seconds against mean length, {rows} completions an optimizer step", "tokens of a row", lengths)
    batches = points([(size, Case(rows=size)) for size in sizes], repetitions)
    table(f"Seconds against the batch, median length {MEDIAN:.0f}", "completions", batches)
    claims = [
        Claim("exponent of ours against the batch", exponent(batches, "ours_s"), 1.1),
        Claim(
            "least speed-up / (padded/real)",
            min(p["of_the_padding"] for p in [*lengths, *batches]),
            0.9,
            higher_is_better=True,
        ),
    ]
    finish(claims, options.json)
    if options.json is not None:
        kept = json.loads(options.json.read_text()) | {"lengths": lengths, "batches": batches}
        options.json.write_text(json.dumps(kept, indent=2) + "\n")
    if not options.quick:
        draw(lengths, batches)


if __name__ == "__main__":
    main()
