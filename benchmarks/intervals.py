"""How often the intervals of an evaluation hold the truth: models known exactly, many times over.

Each model says how its chance on a problem is distributed over problems; `k` samples of each are drawn. Beside the
intervals of `dapo_trl.evaluation.estimators` are those of the plain bootstrap, the percentiles of the same means.
"""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

import numpy as np
from common import Claim, arguments, console, finish, show

from dapo_trl.evaluation import estimators

NOMINAL = 0.95
PROBLEMS = (10, 30, 100, 500)
LEVELS = {"easy to hard": (0.2, 0.5, 0.8, 0.95), "near 1": (0.9, 0.95, 0.99), "near 0": (0.0, 0.02, 0.1)}
Rates = Callable[[np.random.Generator, int], np.ndarray]


def of_levels(rates: tuple[float, ...]) -> Rates:
    """Right with a probability that is the same for all problems of a level."""
    return lambda rng, count: np.array(rates)[rng.integers(len(rates), size=count)]


def beta(a: float, b: float) -> Rates:
    return lambda rng, count: rng.beta(a, b, size=count)


MODELS: dict[str, tuple[Rates, int, float]] = {
    # what a problem's chance is, samples, the truth
    **{f"levels {name}": (of_levels(rates), 8, float(np.mean(rates))) for name, rates in LEVELS.items()},
    "0.9, 1 sample": (of_levels((0.9,)), 1, 0.9),
    "0.99, 1 sample": (of_levels((0.99,)), 1, 0.99),
    "solved or hopeless": (beta(0.3, 0.3), 32, 0.5),
    "few are ever solved": (beta(0.1, 2.0), 32, 0.1 / 2.1),
}


def plain_bootstrap(scores: np.ndarray, means: np.ndarray, tail: float) -> list[float]:
    return [tail, 1 - tail]


def coverage(model: str, problems: int, trials: int) -> tuple[float, float]:
    """How often our interval and that of the plain bootstrap hold the truth."""
    rates, samples, truth = MODELS[model]
    rng, held = np.random.default_rng(0), np.zeros(2)
    for trial in range(trials):
        scores = rng.binomial(samples, rates(rng, problems)) / samples
        ours = estimators.interval(scores, seed=trial, resamples=1000)
        with patch.object(estimators, "_bca_levels", plain_bootstrap):
            theirs = estimators.interval(scores, seed=trial, resamples=1000)
        if estimators.is_constant(scores):
            theirs = (scores[0], scores[0])
        held += [low - 1e-12 <= truth <= high + 1e-12 for low, high in (ours, theirs)]
    return float(held[0] / trials), float(held[1] / trials)


def main() -> None:
    options = arguments(__doc__ or "")
    trials = 200 if options.quick else 2000
    found = {(model, problems): coverage(model, problems, trials) for model in MODELS for problems in PROBLEMS}
    rows = [
        (model, *(f"{found[model, problems][0]:.3f} ({found[model, problems][1]:.3f})" for problems in PROBLEMS))
        for model in MODELS
    ]
    show(
        f"Share of {trials} intervals of {NOMINAL:.0%} that hold the truth (in brackets: plain bootstrap)",
        ["model", *(f"{problems} problems" for problems in PROBLEMS)],
        rows,
    )
    known = [ours for (model, problems), (ours, _) in found.items() if problems >= 30 and model.startswith("levels")]
    skewed = [ours for (_, problems), (ours, _) in found.items() if problems >= 30]
    large = [ours for (_, problems), (ours, _) in found.items() if problems >= 100]
    console.print()
    claims = [
        Claim("least coverage, right by level, 30 problems or more", min(known), 0.93, higher_is_better=True),
        Claim("least coverage, all models, 100 problems or more", min(large), 0.93, higher_is_better=True),
        Claim("least coverage, all models, 30 problems or more", min(skewed), 0.88, higher_is_better=True),
    ]
    finish(claims, options.json)


if __name__ == "__main__":
    main()
