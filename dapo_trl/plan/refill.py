"""The amount that dynamic sampling generates at given pass rates, by running the sampling code without a model.

`PromptSelector`, `Difficulty`, `DynamicSampler` and `SurplusBuffer` decide as they do in a run; only the outcomes of
the completions are drawn from the pass rates. So there is no second formula for the size of a round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from ..sampling.group_filter import DynamicSampler, most_groups_each
from ..sampling.quotas import Quotas
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


def expected_refill(
    args: DAPOConfig,
    rates: Mapping[float, float],
    *,
    rows: int | None,
    mixture: Sequence[tuple[float, int | None]] = (),
) -> Refill:
    """Simulate `BATCHES` rollout batches.

    Args:
        rates: pass rates of the prompts, with the share of the prompts that has each; the same for every source.
        rows: of the data; None: endless.
        mixture: the share of the places, and the rows, of each source, which refills by itself; empty: one source.
    """
    if not args.filters_groups:
        return Refill(args.groups_per_rollout, 1.0, 1.0)
    simulation = _Simulation(args, rates, mixture or [(1.0, rows)])
    for _ in range(WARM_UP):
        simulation.batch()
    banked = simulation.banked
    found = np.array([simulation.batch() for _ in range(BATCHES)], dtype=float)
    sampled, used, rounds = found.sum(axis=0) / BATCHES
    # Groups in the buffer before were generated for these batches; groups left in it were not.
    sampled += (banked - simulation.banked) / BATCHES
    return Refill(float(sampled), float(rounds), float(used / args.groups_per_rollout))


def most_groups(args: DAPOConfig) -> int:
    """Groups that a rollout batch generates at most, whatever the pass rate: every round as large as allowed."""
    if not args.filters_groups:
        return args.groups_per_rollout
    return (1 + args.max_refill_rounds) * args.groups_per_round


class _Source:
    """The prompts of one source: their pass rates, the choice among them, and the surplus."""

    def __init__(self, args: DAPOConfig, rates: Mapping[float, float], rows: int | None, dice: np.random.Generator):
        size = None if rows is None else min(rows, MAX_PROMPTS)
        values, weights = np.array(list(rates)), np.array(list(rates.values()))
        self.rates = dice.choice(values, size or MAX_PROMPTS, p=weights / weights.sum())
        stream = PromptStream(_Keys(), size=size, seed=args.seed, shuffle=size is not None)
        difficulty = Difficulty(size or 0, group_size=args.num_generations, rule=args.group_filter)
        self.selector = make_selector(args.prompt_selection, stream, difficulty, seed=args.seed)
        self.surplus = SurplusBuffer(max_age=cast(int, args.surplus_max_age), capacity=args.groups_per_rollout)


class _Simulation:
    """The bookkeeping of `sampling.collector`, group by group, on one process; no source rests."""

    def __init__(self, args: DAPOConfig, rates: Mapping[float, float], sources: Sequence[tuple[float, int | None]]):
        self.args = args
        self._dice = np.random.default_rng(args.seed)
        self._sources = [_Source(args, rates, rows, self._dice) for _, rows in sources]
        self._quotas = Quotas([share for share, _ in sources])
        self._step = 0

    @property
    def banked(self) -> int:
        """Groups in the surplus buffers."""
        return sum(len(source.surplus.groups) for source in self._sources)

    def batch(self) -> tuple[int, int, int]:
        """Groups generated, groups trained on, rounds."""
        args = self.args
        places = self._quotas.deal(args.groups_per_rollout, [True] * len(self._sources))
        parts = [(source, self._sampler(source, count)) for source, count in zip(self._sources, places, strict=True)]
        while wanting := [part for part in parts if part[1].missing]:
            most = most_groups_each([sampler for _, sampler in wanting], args.groups_per_round)
            for (source, sampler), at_most in zip(wanting, most, strict=True):
                self._round(source, sampler, at_most)
        for source, sampler in parts:
            source.selector.tick()
            surplus = min(sampler.have - sampler.used, source.surplus.room)
            source.surplus.put([Group([], [], [], 0.0, self._step) for _ in range(surplus)])
        self._step += args.updates_per_rollout
        samplers = [sampler for _, sampler in parts]
        return (
            sum(sampler.counts.sampled for sampler in samplers),
            sum(sampler.used for sampler in samplers),
            max(sampler.rounds for sampler in samplers),
        )

    def _sampler(self, source: _Source, places: int) -> DynamicSampler:
        args = self.args
        source.surplus.expire(self._step)
        return DynamicSampler(
            target=places,
            rule=args.group_filter,
            min_valid_fraction=args.min_valid_fraction,
            max_refill_rounds=args.max_refill_rounds,
            banked=len(source.surplus.take(places)),
        )

    def _round(self, source: _Source, sampler: DynamicSampler, at_most: int) -> None:
        """One source's part of a round."""
        choice = source.selector.choose(
            sampler.missing, at_least=sampler.least, at_most=at_most, sigmas=self.args.refill_sigmas
        )
        rows = source.selector.take(choice)
        rates = source.rates[[row["key"] % len(source.rates) for row in rows]]
        passes = self._dice.random((len(rows), self.args.num_generations)) < rates[:, None]
        scores = passes.astype(float)
        kept = [name == "kept" for name in sampler.add(torch.from_numpy(scores))]
        source.selector.observe(choice, rows, scores, np.array(kept))


class _Keys:
    """Rows that consist of their number."""

    def __getitem__(self, index: int) -> dict[str, int]:
        return {"key": index}
