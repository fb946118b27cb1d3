"""Rollouts to 0.9 held-out accuracy on the quick start's task: no dynamic sampling, `uniform`, `predicted`.

    python benchmarks/prompt_selection.py            # 5 seeds, about 15 minutes on two cores
    python benchmarks/prompt_selection.py --quick    # 1 seed, half the steps

Every run is the quick start with another seed. After each rollout batch the model is measured on the same 100 held-out
problems, 4 samples each; "reached" is the first time that the mean of three measurements on end is 0.9, and the cost
is the completions generated for training by then. A run that does not get there counts with all that it generated.
"""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import os
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from common import Claim, arguments, console, finish, show
from measured import ROOT, quieten, settings_of

ARMS: dict[str, dict[str, Any]] = {
    "no dynamic sampling": {"group_filter": "none"},
    "uniform": {"prompt_selection": "uniform"},
    "predicted": {"prompt_selection": "predicted"},
}
GOAL = 0.9
SMOOTHING = 3


def train(arm: str, seed: int, steps: int) -> dict[str, Any]:
    """One run; its measurements as (completions generated, held-out accuracy)."""
    from transformers import PrinterCallback, TrainerCallback

    from dapo_trl import DAPOTrainer
    from dapo_trl.evaluation import Sampling, evaluate
    from dapo_trl.rollout.environments import make_env

    quieten()
    shipped = ROOT / "models" / "arithmetic-0.8m"
    files = [ROOT / "configs" / "quickstart.yaml"]
    with settings_of(files, model=shipped, seed=seed, max_steps=steps, **ARMS[arm]) as (run, args, _):
        trainer = DAPOTrainer(model=run.model, args=args, env=make_env(run.env, **run.env_kwargs))
        held_out = make_env(run.env, **{**run.env_kwargs, **run.eval_env_kwargs})
        measured: list[tuple[int, float]] = []

        class Measure(TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                if state.global_step % trainer.args.updates_per_rollout == 0:
                    found = evaluate(
                        trainer.model,
                        trainer.processing_class,
                        held_out,
                        list(range(run.eval_problems)),
                        k=4,
                        sampling=Sampling(
                            top_p=1.0, max_completion_length=args.max_completion_length, seed=state.global_step
                        ),
                    )
                    generated = trainer.sampling.counts.sampled * args.num_generations
                    measured.append((generated, found.mean))

        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(Measure())
        trainer.train()
    return {"arm": arm, "seed": seed, "measured": measured, "trained_groups": trainer.sampling.counts.kept}


def reached(measured: list[tuple[int, float]]) -> int:
    """Completions generated when the goal was reached."""
    for i in range(SMOOTHING - 1, len(measured)):
        if sum(accuracy for _, accuracy in measured[i - SMOOTHING + 1 : i + 1]) / SMOOTHING >= GOAL:
            return measured[i][0]
    return measured[-1][0]


def final(measured: list[tuple[int, float]]) -> float:
    return sum(accuracy for _, accuracy in measured[-SMOOTHING:]) / SMOOTHING


def spread(values: list[float]) -> tuple[float, float]:
    """Mean and standard error."""
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1)
    return mean, (variance / len(values)) ** 0.5


def main() -> None:
    options = arguments(__doc__ or "")
    seeds, steps = (range(1), 80) if options.quick else (range(5), 160)
    jobs = [(arm, seed, steps) for seed in seeds for arm in ARMS]
    runs = []
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(min(os.cpu_count() or 1, 8), mp_context=context) as pool:
        for found in pool.map(train, *zip(*jobs, strict=True)):
            console.print(
                f"{found['arm']}, seed {found['seed']}: {reached(found['measured']):,} rollouts to {GOAL}, "
                f"{final(found['measured']):.3f} at the end"
            )
            runs.append(found)
    costs = {arm: [float(reached(run["measured"])) for run in runs if run["arm"] == arm] for arm in ARMS}
    ends = {arm: [final(run["measured"]) for run in runs if run["arm"] == arm] for arm in ARMS}
    everything = {arm: [float(run["measured"][-1][0]) for run in runs if run["arm"] == arm] for arm in ARMS}
    rows = []
    for arm in ARMS:
        cost, total, end = spread(costs[arm]), spread(everything[arm]), spread(ends[arm])
        rows.append(
            (
                arm,
                f"{cost[0]:,.0f} ± {cost[1]:,.0f}",
                f"{end[0]:.3f} ± {end[1]:.3f}",
                f"{total[0]:,.0f} ± {total[1]:,.0f}",
            )
        )
    show(
        f"{len(seeds)} seeds, {steps} optimizer steps (mean ± standard error)",
        ["prompts", f"rollouts to {GOAL}", "accuracy at the end", "rollouts in all"],
        rows,
    )

    def ratio(values: dict[str, list[float]], arm: str, other: str) -> float:
        return spread(values[arm])[0] / spread(values[other])[0]

    claims = [
        Claim("rollouts to 0.9, predicted / uniform", ratio(costs, "predicted", "uniform"), 1.0),
        Claim(
            "rollouts to 0.9, predicted / no dynamic sampling", ratio(costs, "predicted", "no dynamic sampling"), 1.0
        ),
        Claim("final accuracy, predicted / uniform", ratio(ends, "predicted", "uniform"), 0.99, higher_is_better=True),
    ]
    finish(claims, options.json)
    if options.json is not None:
        options.json.with_suffix(".runs.json").write_text(json.dumps(runs) + "\n")


if __name__ == "__main__":
    main()
