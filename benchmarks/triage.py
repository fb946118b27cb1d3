"""Golds that are probably wrong, and rows that teach nothing: claims of `dapo-trl triage` beside the truth.

    python benchmarks/triage.py            # 40 seeds, and 300 rows sampled by the shipped model: minutes
    python benchmarks/triage.py --quick    # 10 seeds and 150 rows

Simulated: 2,000 rows with one right answer each, of which 5 % have another gold, half of them a number that nobody
names and half a mistake that the model makes too. Each kind of model says how likely it gives the right answer and each
of ten wrong ones in a row; every row is sampled k times. "Temperature" models draw scores of the answers, and at a low
temperature give the same answer in nearly all samples of a row, right or wrong. "Systematic" models believe a wrong
answer in 3 % of the rows, and "stubborn" ones in 1 % without a single exception: no method finds those among the wrong
golds without rows whose golds are known to be right ("trusted", 1,000 of them).

Refill: pass rates of rows are drawn, rows are sampled, sorted and left out by `dapo_trl.triage`, and the rollouts per
trained group that it predicts are compared with those of the project's own sampler at the true rates.

Real: sums of two to four digits, 5 % of their golds corrupted, sampled by models/arithmetic-0.8m at temperature 0.5: at
1 it is right in 41 % of its samples, and sure of nothing. The rate is 0.2: so few rows cannot show a lower one.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import Claim, arguments, console, finish, show

from dapo_trl.config import DAPOConfig
from dapo_trl.plan.refill import expected_refill
from dapo_trl.triage.golds import Votes, doubts
from dapo_trl.triage.samples import Row
from dapo_trl.triage.sorting import chances, cost

ROOT = Path(__file__).resolve().parent.parent
ROWS, WRONG, OTHERS = 2000, 0.05, 10
"""Rows, the share of wrong golds, and the wrong answers that a model may give in a row."""
RATE, REAL_RATE = 0.05, 0.2
SAMPLES = (8, 16, 32)
SUMS = """
import json
from pathlib import Path

import gymnasium
from envs import TaskEnv
from envs.math.arithmetic import STYLE
from envs.math.procedural import same_integer


class Sums(TaskEnv):
    def __init__(self, *, path):
        super().__init__()
        self.rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
        self.num_rows = len(self.rows)

    def row(self, index):
        row = self.rows[index]
        return {**row, "info": {"level": row["level"]}}

    def verify(self, row, completion):
        return STYLE.judge(completion, row["answer"], same_integer)


gymnasium.register("own/Sums-v0", "sums:Sums")
"""
"""A task with rows from a file, in the words that the shipped model knows."""
World = Callable[[np.random.Generator, int], np.ndarray]
"""The chances of the right answer and of each of `OTHERS` in some rows: ``[rows, 1 + OTHERS]``."""


def scattered(a: float, b: float) -> World:
    """Right with a chance of Beta(a, b); the rest is shared by a few favourites among the wrong answers."""

    def world(rng: np.random.Generator, rows: int) -> np.ndarray:
        right = rng.beta(a, b, size=(rows, 1))
        return np.hstack([right, (1 - right) * rng.dirichlet([0.5] * OTHERS, size=rows)])

    return world


def believing(share: float, belief: tuple[float, float], rest: tuple[float, float]) -> World:
    """A strong model that in a share of the rows gives one wrong answer with a chance of Beta(*belief), and the right
    one with a part Beta(*rest) of what is left."""

    def world(rng: np.random.Generator, rows: int) -> np.ndarray:
        found = WORLDS["strong"](rng, rows)
        wrong = rng.beta(*belief, size=(rows, 1))
        right = (1 - wrong) * rng.beta(*rest, size=(rows, 1))
        others = (1 - wrong - right) * rng.dirichlet([0.5] * (OTHERS - 1), size=rows)
        return np.where(rng.random((rows, 1)) < share, np.hstack([right, wrong, others]), found)

    return world


def cooled(temperature: float) -> World:
    """Answers with random scores, sampled at this temperature: at a low one a row has hardly any but its first."""

    def world(rng: np.random.Generator, rows: int) -> np.ndarray:
        scores = rng.normal(size=(rows, 1 + OTHERS))
        scores[:, 0] += rng.normal(3.0, 2.0, size=rows)
        chances = np.exp((scores - scores.max(axis=1, keepdims=True)) / temperature)
        return chances / chances.sum(axis=1, keepdims=True)

    return world


WORLDS: dict[str, World] = {
    "weak": scattered(0.6, 1.0),
    "middling": scattered(1.2, 0.6),
    "strong": scattered(4.0, 0.5),
    "systematic": believing(0.03, (8.0, 2.0), (1.0, 1.0)),
    "systematic, the right answer rare": believing(0.03, (8.0, 2.0), (0.5, 1.0)),
    **{f"temperature {temperature:g}": cooled(temperature) for temperature in (1.0, 0.3, 0.1)},
    "temperature 0": cooled(1e-6),
    "stubborn": believing(0.01, (1e6, 1e-3), (1.0, 1.0)),
}


def sampled(world: World, rng: np.random.Generator, rows: int, k: int, wrong: float) -> tuple[Votes, np.ndarray]:
    """Votes on rows of a world, and which of their golds are wrong."""
    counts = rng.multinomial(k, world(rng, rows))
    counts = np.hstack([counts, np.zeros((rows, 1), dtype=int)])  # an answer that nobody gives
    bad = rng.random(rows) < wrong
    mistake = np.where(rng.random(rows) < 0.5, rng.integers(1, OTHERS + 1, size=rows), OTHERS + 1)
    gold = np.where(bad, mistake, 0)
    places = np.arange(rows)
    right = counts[places, gold]
    counts[places, gold] = 0
    return Votes(right, counts.max(axis=1), k - right, np.full(rows, k)), bad


def realised(name: str, k: int, seeds: int, *, trusted: int = 0) -> tuple[float, float, float]:
    """Means over seeds: golds doubted, the share of right ones among them, and the share of the wrong ones found."""
    found = []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, k])
        votes, bad = sampled(WORLDS[name], rng, ROWS, k, WRONG)
        clean = sampled(WORLDS[name], rng, trusted, k, 0.0)[0] if trusted else None
        doubted = doubts(votes, clean) <= RATE
        count = int(doubted.sum())
        found.append((count, float((doubted & ~bad).sum()) / max(count, 1), float((doubted & bad).sum() / bad.sum())))
    means = np.mean(found, axis=0)
    return float(means[0]), float(means[1]), float(means[2])


def golds(seeds: int) -> list[Claim]:
    """The table of worlds, and the claims on them."""
    rows, rates, recalls = [], {}, {}
    for name in WORLDS:
        for k in SAMPLES:
            for trusted in (0, 1000):
                count, rate, recall = realised(name, k, seeds, trusted=trusted)
                rates[name, k, trusted], recalls[name, k, trusted] = rate, recall
                rows.append(
                    (
                        f"{name}{', trusted rows' if trusted else ''}",
                        str(k),
                        f"{count:.1f}",
                        f"{rate:.3f}",
                        f"{recall:.2f}",
                    )
                )
    show(
        f"Golds doubted at a rate of {RATE:g}, {ROWS:,} rows with {WRONG:.0%} wrong golds, means of {seeds} seeds",
        ["model", "k", "doubted", "right among them", "wrong ones found"],
        rows,
    )
    fair = [rate for (name, _, trusted), rate in rates.items() if name != "stubborn" or trusted]
    return [
        Claim(f"false discovery rate at {RATE:g}, highest of all models but stubborn", max(fair), RATE),
        *(
            Claim(f"wrong golds found, {name} model, 16 samples", recalls[name, 16, 0], bar, higher_is_better=True)
            for name, bar in (("middling", 0.25), ("strong", 0.7))
        ),
    ]


def rows_of(rates: np.ndarray, rng: np.random.Generator, k: int) -> list[Row]:
    """Rows with these pass rates, sampled."""
    passes = rng.random((len(rates), k)) < rates[:, None]
    return [Row(place, "", None, accuracy=list(map(float, line)), lengths=[1] * k) for place, line in enumerate(passes)]


def refill(seeds: int) -> list[Claim]:
    """Predicted rollouts per trained group beside the sampler's, before and after rows are left out."""
    args = DAPOConfig(use_cpu=True, bf16=False, per_device_train_batch_size=64, steps_per_generation=4)
    shapes = {"weak": (0.3, 1.0), "halves": (0.5, 0.5), "strong": (1.0, 0.25), "nearly done": (3.0, 0.1)}
    table, worst = [], 0.0
    for name, shape in shapes.items():
        figures = []
        for seed in range(max(seeds // 10, 1)):
            rng = np.random.default_rng(seed)
            rates = rng.beta(*shape, size=ROWS)
            rows = rows_of(rates, rng, 16)
            likely = chances(rows, args.num_generations, args.group_filter)
            kept = likely >= 0.1
            parts = (np.full(ROWS, True), kept)
            predicted = [cost(rows, likely[part], args.num_generations).rollouts for part in parts]
            measured = [simulated(args, rates[part]) for part in parts]
            figures.append((*predicted, *measured, predicted[1] / predicted[0], measured[1] / measured[0], kept.mean()))
        before, after, ran_before, ran_after, fall, ran_fall, share = np.mean(figures, axis=0)
        worst = max(worst, *(abs(one[4] / one[5] - 1) for one in figures))
        cells = (before, ran_before, after, ran_after)
        table.append((name, f"{share:.0%}", *(f"{cell:.1f}" for cell in cells), f"{fall:.3f}", f"{ran_fall:.3f}"))
    headings = ["pass rates", "kept", "all rows, predicted", "sampler", "kept rows, predicted", "sampler"]
    show("Rollouts per trained group", [*headings, "falls to, predicted", "sampler"], table)
    return [Claim("fall of the rollouts per trained group, predicted / sampler, off by at most", worst, 0.1)]


def simulated(args: DAPOConfig, rates: np.ndarray) -> float:
    """Rollouts per trained group of the project's sampler at these pass rates."""
    values, counts = np.unique(np.round(rates, 4), return_counts=True)
    weights = {float(value): float(count) for value, count in zip(values, counts, strict=True)}
    found = expected_refill(args, weights, rows=len(rates))
    return args.num_generations * found.sampled / (found.filled * args.groups_per_rollout)


def real(rows: int) -> list[Claim]:
    """The shipped model on sums with corrupted golds."""
    dice, bad = random.Random(0), set()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
            for place in range(rows):
                digits = dice.choice((2, 3, 4))
                a, b = (dice.randrange(10 ** (digits - 1), 10**digits) for _ in range(2))
                gold = a + b
                if dice.random() < WRONG:
                    bad.add(place)
                    gold += dice.choice((-100, -10, -1, 1, 10, 100))
                ask = f'Compute {a} + {b} digit by digit, then give the result as "Answer: <number>".'
                file.write(json.dumps({"prompt": ask, "answer": str(gold), "level": digits}) + "\n")
        (folder / "sums.py").write_text(SUMS, encoding="utf-8")
        env = "sums:own/Sums-v0: {path: rows.jsonl}"
        command = [sys.executable, "-m", "dapo_trl", "triage", "--model", str(ROOT / "models" / "arithmetic-0.8m")]
        command += [
            "--env",
            env,
            "--max_completion_length",
            "96",
            "--temperature",
            "0.5",
            "--output_dir",
            "triage",
            "--use_cpu",
            "true",
        ]
        command += ["--k", "8", "--rate", str(REAL_RATE)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
        left_out = [json.loads(line) for line in (folder / "triage" / "left_out.jsonl").read_text().splitlines()]
    doubted = {line["index"] for line in left_out if line["reason"] == "gold probably wrong"}
    right, found = len(doubted - bad), len(doubted & bad)
    console.print(
        f"models/arithmetic-0.8m, {rows} rows, {len(bad)} wrong golds: {len(doubted)} doubted, {right} of them right"
    )
    return [
        Claim("right golds among the doubted ones, models/arithmetic-0.8m", right / max(len(doubted), 1), REAL_RATE),
        Claim("wrong golds found, models/arithmetic-0.8m", found / len(bad), 0.5, higher_is_better=True),
    ]


def main() -> None:
    options = arguments(__doc__ or "")
    seeds, rows = (10, 150) if options.quick else (40, 300)
    finish([*golds(seeds), *refill(seeds), *real(rows)], options.json)


if __name__ == "__main__":
    main()
