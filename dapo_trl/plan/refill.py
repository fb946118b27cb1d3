"""The amount that dynamic sampling generates at given pass rates, by running the sampling code without a model.

`PromptSelector`, `Difficulty`, `DynamicSampler` and `SurplusBuffer` decide as they do in a run; only the outcomes of
the completions are drawn from the pass rates. So there is no second formula for the size of a round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from ..config import DAPOConfig
from ..errors import ConfigError
from ..prompts.difficulty import Difficulty
from ..prompts.selector import make_selector
from ..prompts.stream import PromptStream
from ..rollout.types import Group
from ..sampling.group_filter import DynamicSampler
from ..sampling.surplus import SurplusBuffer

WARM_UP, BATCHES = 4, 40
"""Rollout batches until predictions have settled, and rollout batches that are counted."""
MAX_PROMPTS = 20_000
"""Rows of data that are simulated; pass rates repeat beyond them."""


@dataclass(frozen=True)
class Refill:
    """Means over rollout batches."""

    sampled: float
    """Groups generated."""
    rounds: float
    filled: float
    """Share of a full batch that is trained on."""


def read_rates(given: Any) -> dict[float, float]:
    """Pass rates and the weight of each: a number, or a mapping of rates to weights.

    Raises:
        ConfigError: a rate is outside [0, 1], a weight is not positive, or it is neither a number nor a mapping.
    """
    pairs = list(given.items()) if isinstance(given, dict) else [(given, 1.0)]
    numbers = all(isinstance(value, int | float) for pair in pairs for value in pair)
    if not (pairs and numbers and all(0 <= rate <= 1 and weight > 0 for rate, weight in pairs)):
        raise ConfigError(
            f"pass_rate is {given!r}: it must be a number in [0, 1], or a mapping of such numbers to how many prompts "
            "have them, as in {0: 3, 0.5: 7}."
        )
    return {float(rate): float(weight) for rate, weight in pairs}


def expected_refill(args: DAPOConfig, rates: Mapping[float, float], *, rows: int | None) -> Refill:
    """Simulate `BATCHES` rollout batches.

    Args:
        rates: pass rates of the prompts, with the share of the prompts that has each.
        rows: of the data; None: endless.
    """
    if not args.filters_groups:
        return Refill(args.groups_per_rollout, 1.0, 1.0)
    simulation = _Simulation(args, rates, rows)
    for _ in range(WARM_UP):
        simulation.batch()
    banked = len(simulation.surplus.groups)
    found = np.array([simulation.batch() for _ in range(BATCHES)], dtype=float)
    sampled, used, rounds = found.sum(axis=0) / BATCHES
    # Groups in the buffer before were generated for these batches; groups left in it were not.
    sampled += (banked - len(simulation.surplus.groups)) / BATCHES
    return Refill(float(sampled), float(rounds), float(used / args.groups_per_rollout))


def most_groups(args: DAPOConfig) -> int:
    """Groups that a rollout batch generates at most, whatever the pass rate: every round as large as allowed."""
    if not args.filters_groups:
        return args.groups_per_rollout
    return (1 + args.max_refill_rounds) * args.groups_per_round


class _Simulation:
    """The bookkeeping of `sampling.collector`, group by group, on one process."""

    def __init__(self, args: DAPOConfig, rates: Mapping[float, float], rows: int | None):
        size = None if rows is None else min(rows, MAX_PROMPTS)
        self.args = args
        self._dice = np.random.default_rng(args.seed)
        values, weights = np.array(list(rates)), np.array(list(rates.values()))
        self._rates = self._dice.choice(values, size or MAX_PROMPTS, p=weights / weights.sum())
        stream = PromptStream(_Keys(), size=size, seed=args.seed, shuffle=size is not None)
        difficulty = Difficulty(size or 0, group_size=args.num_generations, rule=args.group_filter)
        self.selector = make_selector(args.prompt_selection, stream, difficulty, seed=args.seed)
        self.surplus = SurplusBuffer(max_age=cast(int, args.surplus_max_age), capacity=args.groups_per_rollout)
        self._step = 0

    def batch(self) -> tuple[int, int, int]:
        """Groups generated, groups trained on, rounds."""
        args = self.args
        self.surplus.expire(self._step)
        banked = self.surplus.take(args.groups_per_rollout)
        sampler = DynamicSampler(
            target=args.groups_per_rollout,
            rule=args.group_filter,
            min_valid_fraction=args.min_valid_fraction,
            max_refill_rounds=args.max_refill_rounds,
            banked=len(banked),
        )
        while missing := sampler.missing:
            choice = self.selector.choose(
                missing, at_least=sampler.least, at_most=args.groups_per_round, sigmas=args.refill_sigmas
            )
            rows = self.selector.take(choice)
            rates = self._rates[[row["key"] % len(self._rates) for row in rows]]
            passes = self._dice.random((len(rows), args.num_generations)) < rates[:, None]
            scores = passes.astype(float)
            kept = [name == "kept" for name in sampler.add(torch.from_numpy(scores))]
            self.selector.observe(choice, rows, scores, np.array(kept))
        self.selector.tick()
        surplus = min(sampler.have - sampler.used, self.surplus.room)
        self.surplus.put([Group([], [], [], 0.0, self._step) for _ in range(surplus)])
        self._step += args.updates_per_rollout
        return sampler.counts.sampled, sampler.used, sampler.rounds


class _Keys:
    """Rows that consist of their number."""

    def __getitem__(self, index: int) -> dict[str, int]:
        return {"key": index}
