"""Seconds and generated tokens to a held-out accuracy: DAPOTrainer beside TRL's GRPOTrainer with its own DAPO settings.

    python benchmarks/time_to_accuracy.py            # 5 seeds
    python benchmarks/time_to_accuracy.py --quick    # 1 seed

Both train models/rambling-0.8m on math/Arithmetic-v0 with the same batch, learning rate, clip, token-level loss and
soft overlong penalty: configs/ladder/base.yaml and all the techniques above it, of which TRL gets everything that
GRPOConfig knows and its own penalty. Dynamic sampling is ours alone, with prompts chosen by predicted difficulty, and
so is the way the batch is cut. Seconds are of processor time, each run on one thread; measuring does not count.
Accuracy and cost are running means over four measurements; where they first come to a goal is found on the line between
two of them. A run that does not get there counts with all that it took. Finished runs are kept in a folder, one file
each: what is there is not run again.
"""

from __future__ import annotations

import dataclasses
from dataclasses import asdict
from pathlib import Path
from typing import Any

import time_table
from common import console, finish, parser_of, show
from ladder import RUNGS, settings
from measured import ROOT, carry_out, kept, measure, ours, quieten, write_runs
from sections import timed

PATIENCE = 640
"""Optimizer steps after which a run is given up."""
EVERY = 16
PROBLEMS, SAMPLES = 50, 4
PROMPTS = 20_000
"""Rows of the data set that TRL is given; it needs one of a fixed size."""


def train(side: str, seed: int) -> dict[str, Any]:
    """One run to the goal."""
    quieten()
    with settings(RUNGS, seed=seed, max_steps=PATIENCE, prompt_selection="predicted") as (run, args, given):
        trainer, generated = ours(run, args) if side == "ours" else _theirs(run, args, given)
        measured = measure(
            trainer,
            run,
            problems=PROBLEMS,
            samples=SAMPLES,
            every=EVERY,
            generated=generated,
            enough=lambda done: time_table.reached([asdict(row) for row in done], time_table.GOALS[-1]),
        )
        with timed(trainer) as timers:
            trainer.train()
    sections = timers.by_section(measured[-1].seconds)
    return {"side": side, "seed": seed, "measured": [asdict(row) for row in measured], "sections": sections}


def _theirs(run: Any, args: Any, given: dict[str, Any]) -> tuple[Any, Any]:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer
    from trl.rewards import get_soft_overlong_punishment

    from dapo_trl.rollout.environments import make_env
    from envs import Completion

    env = make_env(run.env, **run.env_kwargs)
    lengths: list[int] = []

    def correctness(completions, completion_ids, index, **_) -> list[float]:
        lengths.extend(map(len, completion_ids))
        rewards = []
        for messages, row in zip(completions, index, strict=True):
            env.reset(options={"index": row})
            rewards.append(float(env.step(Completion(messages[0]["content"]))[1]))
        return rewards

    prompts = [env.unwrapped.row(index)["prompt"] for index in range(PROMPTS)]
    known = {field.name for field in dataclasses.fields(GRPOConfig)}
    trainer = GRPOTrainer(
        model=str(ROOT / run.model),
        args=GRPOConfig(**{name: value for name, value in given.items() if name in known}),
        reward_funcs=[
            correctness,
            get_soft_overlong_punishment(args.overlong_max_length, args.overlong_cache_length),
        ],
        train_dataset=Dataset.from_list(
            [{"prompt": [{"role": "user", "content": text}], "index": index} for index, text in enumerate(prompts)]
        ),
    )
    return trainer, lambda: (len(lengths), sum(lengths))


def main() -> None:
    parser = parser_of(__doc__ or "")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "time_to_accuracy", help="of finished runs")
    options = parser.parse_args()
    seeds = range(1 if options.quick else 5)
    jobs = {f"{side}-{seed}": (side, seed) for seed in seeds for side in time_table.SIDES}
    for name, run in carry_out(train, jobs, options.folder):
        end = run["measured"][-1]
        console.print(f"{name}: {end['step']} steps, {end['tokens']:,} tokens, {end['seconds']:.0f} s")
    runs = [run for run in kept(options.folder) if run["seed"] in seeds]
    title = f"Cost of a held-out accuracy, {len(seeds)} seeds (means; ratios: median and range)"
    show(title, time_table.HEADINGS, time_table.rows(runs))
    show("Where a step's seconds go", ["", *time_table.SIDES], time_table.sections(runs))
    finish(time_table.claims(runs), options.json)
    if options.json is not None:
        write_runs(runs, options.json)
    time_table.plot(runs, options.folder / "time_to_accuracy.png")
    console.print(f"plot: {options.folder / 'time_to_accuracy.png'}")


if __name__ == "__main__":
    main()
