"""The paper's ladder (arXiv 2503.14476, table 1) in small: one technique after another, and the whole without each.

    python benchmarks/ladder.py                            # 5 seeds
    python benchmarks/ladder.py --seeds 1                  # the small table
    python benchmarks/ladder.py --quick                    # one seed of the arms that the claims compare
    python benchmarks/ladder.py --seeds 10 --arms "naive GRPO" "+ dynamic-sampling"    # more seeds of some
    python benchmarks/ladder.py --show                     # the table and the plot of the runs that are there

Every run trains models/rambling-0.8m on math/Arithmetic-v0 with configs/ladder/base.yaml and the files of its
techniques, on one core. It goes on until it has both taken STEPS optimizer steps and generated TOKENS completion
tokens, so that it can be read at the same number of steps as the others and at the same budget of tokens. Finished runs
are kept in a folder, one file each: what is there is not run again.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ladder_table
from common import console, finish, parser_of, show
from measured import ROOT, carry_out, kept, measure, ours, quieten, settings_of, write_runs

RUNGS = ("overlong-filtering", "clip-higher", "soft-overlong", "token-level", "dynamic-sampling")
"""The techniques in the order of the paper's table."""
ARMS: dict[str, tuple[str, ...]] = {
    "naive GRPO": (),
    **{f"+ {name}": RUNGS[: count + 1] for count, name in enumerate(RUNGS)},
    **{f"all but {name}": tuple(rung for rung in RUNGS if rung != name) for name in RUNGS[:-1]},
}
"""Techniques that are on; all but the last is the rung before it."""
EVERY = 80
"""Optimizer steps between two measurements."""
PROBLEMS, SAMPLES = 150, 4
KEPT = (
    *("step", "entropy", "grad_norm", "clip_ratio/low_mean", "clip_ratio/high_mean", "frac_reward_zero_std"),
    *("completions/mean_length", "completions/clipped_ratio", "groups/sampled", "groups/kept", "time/rollout"),
)
"""Logged metrics that are kept of a run."""
CLAIMED = {
    "full": list(ARMS)[len(RUNGS)],
    "naive": "naive GRPO",
    "before_clip": "+ overlong-filtering",
    "with_clip": "+ clip-higher",
}
"""The arms that the claims compare."""


def settings(techniques: Iterable[str], **flags: Any) -> AbstractContextManager[tuple[Any, Any, dict[str, Any]]]:
    """Those of a run with some techniques on."""
    return settings_of([ROOT / "configs" / "ladder" / f"{name}.yaml" for name in ("base", *techniques)], **flags)


def train(arm: str, seed: int) -> dict[str, Any]:
    """Carry out one run."""
    quieten()
    with settings(ARMS[arm], seed=seed, max_steps=100_000) as (run, args, _):
        trainer, generated = ours(run, args)
        measured = measure(
            trainer,
            run,
            problems=PROBLEMS,
            samples=SAMPLES,
            every=EVERY,
            generated=generated,
            enough=lambda done: done[-1].step >= ladder_table.STEPS and done[-1].tokens >= ladder_table.TOKENS,
        )
        trainer.train()
    return {
        "arm": arm,
        "seed": seed,
        "measured": [asdict(measurement) for measurement in measured],
        "log": [{name: row[name] for name in KEPT} for row in trainer.state.log_history if "entropy" in row],
    }


def read(folder: Path) -> list[dict[str, Any]]:
    """The finished runs in a folder, in the order of arms and seeds."""
    order = list(ARMS)
    return sorted(
        (run for run in kept(folder) if run["arm"] in ARMS), key=lambda run: (order.index(run["arm"]), run["seed"])
    )


def main() -> None:
    parser = parser_of(__doc__ or "")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each arm (default: 5)")
    parser.add_argument("--arms", nargs="+", choices=ARMS, metavar="ARM", help=f"only these; of {', '.join(ARMS)}")
    parser.add_argument("--show", action="store_true", help="run nothing")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "ladder", help="where finished runs are kept")
    options = parser.parse_args()
    if not options.show:
        arms = options.arms or (CLAIMED.values() if options.quick else ARMS)
        seeds = range(1 if options.quick else options.seeds)
        jobs = {f"{arm.replace(' ', '_')}-{seed}": (arm, seed) for seed in seeds for arm in arms}
        for name, _ in carry_out(train, jobs, options.folder):
            console.print(name)
    runs = read(options.folder)
    report(runs, options.json)
    ladder_table.plot(runs, list(ARMS)[: len(RUNGS) + 1], options.folder / "ladder.png")
    console.print(f"plot: {options.folder / 'ladder.png'}")


def report(runs: list[dict[str, Any]], path: Path | None) -> None:
    """Show the tables and the claims, and write them."""
    for title, figures in (("Results", ladder_table.RESULTS), ("What acted", ladder_table.MECHANISMS)):
        show(
            f"{title} (mean and 95 % interval over seeds)",
            ["", *figures],
            ladder_table.table(runs, list(ARMS), figures),
        )
    if len({run["seed"] for run in runs}) > 1:
        finish(ladder_table.claims(runs, **CLAIMED), path)
    else:
        console.print("The claims are intervals over seeds: run at least two.")
    if path is not None:
        write_runs(runs, path)


if __name__ == "__main__":
    main()
