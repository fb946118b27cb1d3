"""How many rollouts dynamic sampling generates for every group it trains on, and in how many rounds.

No model: prompts have simulated pass rates that rise as training goes on, and outcomes are drawn from them. The classes
that decide (`PromptStream`, `Difficulty`, `PromptSelector`, `DynamicSampler`, `SurplusBuffer`, `Ledger`) are those of
the project, called as `dapo_trl.sampling.collector` calls them. Beside them, on the same pass rates and the same drift:

- *whole batch*: rounds of three rollout batches until one is full of informative groups, the surplus dropped (verl).
- *one at a time*: a rollout batch first, then one new prompt for each group that is still missing, all of these side by
  side in one round, until none is missing (OpenRLHF). It never generates surplus and pays for that in rounds. Refilling
  without rounds, each free slot at once, would generate as many rollouts.

Ours, with ``prompt_selection`` *uniform* and *predicted*, has the same bound on one round, three rollout batches. All
want a full batch (``min_valid_fraction`` 1). A walk is one pass of a method's own prompt stream over the data, whether
prompts are drawn or passed over; it is the epoch of the claims, which speak of *predicted*.

    python benchmarks/sampling.py [--quick] [--json FILE]
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from common import Claim, arguments, console, finish, show

from dapo_trl.config import REFILL_SIGMAS
from dapo_trl.prompts.difficulty import Difficulty
from dapo_trl.prompts.selector import RAREST_DRAW, make_selector
from dapo_trl.prompts.stream import PromptStream
from dapo_trl.rollout.types import Group
from dapo_trl.sampling.group_filter import DynamicSampler
from dapo_trl.sampling.surplus import SurplusBuffer
from dapo_trl.sampling.token_ledger import Ledger

NEVER, ALWAYS, LEARNABLE, WOKEN = range(4)
KINDS = ("never right", "always right", "learnable")
REFILL_LIMIT = 20
EDGES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


@dataclass(frozen=True)
class Scenario:
    """A data set and the sizes of a run on it."""

    prompts: int = 17_398
    groups: int = 512
    """of a rollout batch"""
    size: int = 16
    """completions of a group"""
    updates: int = 16
    """optimizer steps per rollout batch"""
    widest: int = 3 * 512
    """the most groups of one round"""
    never: float = 0.3
    always: float = 0.3
    drift: float = 0.001
    """mean rise of a learnable prompt's log-odds per optimizer step"""
    bank: bool = True


class SimulatedPolicy:
    """Pass rates of all prompts, and outcomes drawn from them.

    Learnable prompts start at Beta(2, 2) and drift upwards in log-odds, each at its own speed from 0 to twice the mean.
    """

    def __init__(self, scenario: Scenario, seed: int):
        rng = np.random.default_rng([seed, 0])
        n, never, always = scenario.prompts, scenario.never, scenario.always
        self.kinds = np.full(n, LEARNABLE)
        self.kinds[: round(n * never)] = NEVER
        self.kinds[round(n * never) : round(n * (never + always))] = ALWAYS
        rng.shuffle(self.kinds)
        first = rng.beta(2, 2, n)
        self._odds = np.log(first / (1 - first))
        self._odds[self.kinds == NEVER] = -np.inf
        self._odds[self.kinds == ALWAYS] = np.inf
        self._speed = 2 * scenario.drift * rng.random(n)
        self._size = scenario.size
        self._rng, self._dice = rng, np.random.default_rng([seed, 1])
        self.step = 0
        """optimizer steps so far"""

    def rates(self, keys: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-(self._odds[keys] + self._speed[keys] * self.step)))

    def sample(self, keys: np.ndarray) -> np.ndarray:
        """``[n, G]`` scores of one group each."""
        return (self._dice.random((len(keys), self._size)) < self.rates(keys)[:, None]).astype(float)

    def wake(self, share: float, rate: float) -> np.ndarray:
        """Some prompts that were never right have this pass rate from now on; returns their keys."""
        asleep = np.flatnonzero(self.kinds == NEVER)
        woken = self._rng.choice(asleep, round(share * len(asleep)), replace=False)
        self._odds[woken] = np.log(rate / (1 - rate)) - self._speed[woken] * self.step
        self.kinds[woken] = WOKEN
        return woken


@dataclass
class Batch:
    """One rollout batch as a method filled it; keys are rows of the data."""

    began: float
    """walks through the data by then"""
    drawn: np.ndarray
    """key of each group generated for it"""
    trained: np.ndarray
    """key of each group trained on"""
    rates: np.ndarray
    """true pass rates of those when trained on"""
    rounds: int
    ages: list[int] = field(default_factory=list)
    """optimizer steps since the groups from the bank were sampled"""

    @property
    def walk(self) -> int:
        """The walk in which it began, from 0."""
        return int(self.began)


class Refill:
    """The two competitors: uniform draws, no memory, no bank. ``ask`` says how many prompts the next round takes, from
    the scenario, the number of informative groups missing, and the number of rounds so far."""

    def __init__(
        self, scenario: Scenario, policy: SimulatedPolicy, seed: int, ask: Callable[[Scenario, int, int], int]
    ):
        self.scenario, self.policy, self.ask = scenario, policy, ask
        self.stream = PromptStream(range(scenario.prompts), size=scenario.prompts, seed=seed)

    def fill(self) -> Batch:
        s, began, rounds = self.scenario, self.stream.epochs, 0
        drawn = kept = np.empty(0, dtype=int)
        while len(kept) < s.groups:
            start = self.stream.position
            self.stream.advance(start + self.ask(s, s.groups - len(kept), rounds))
            keys = np.array([self.stream.key(at) for at in range(start, self.stream.position)])
            passes = self.policy.sample(keys).sum(axis=1)
            kept = np.append(kept, keys[(passes > 0) & (passes < s.size)])
            drawn, rounds = np.append(drawn, keys), rounds + 1
        trained = kept[: s.groups]
        return Batch(began, drawn, trained, self.policy.rates(trained), rounds)


class Ours:
    """The project's classes, with the bookkeeping of `dapo_trl.collect`. The ledger counts rollouts as tokens."""

    def __init__(self, scenario: Scenario, policy: SimulatedPolicy, seed: int, mode: str):
        self.scenario, self.policy = scenario, policy
        n = scenario.prompts
        self.stream = PromptStream([{"key": key} for key in range(n)], size=n, seed=seed)
        self.selector = make_selector(mode, self.stream, Difficulty(n, group_size=scenario.size), seed=seed)
        self.surplus = SurplusBuffer(max_age=scenario.updates if scenario.bank else 0, capacity=scenario.groups)
        self.ledger = Ledger()

    def fill(self) -> Batch:
        s, began, step = self.scenario, self.stream.epochs, self.policy.step
        self._move(self.surplus.expire(step), "surplus_expired")
        banked = self.surplus.take(s.groups)
        self._move(banked, "trained")
        sampler = DynamicSampler(target=s.groups, max_refill_rounds=REFILL_LIMIT, banked=len(banked))
        drawn = found = np.empty(0, dtype=int)
        while missing := sampler.missing:
            keys, kept = self._round(missing, sampler)
            drawn, found = np.append(drawn, keys), np.append(found, keys[kept])
        self.selector.tick()
        needed = sampler.used - sampler.banked
        room = needed + self.surplus.room
        for account, keys in (("trained", found[:needed]), ("surplus_kept", found[needed:room])):
            self._enter(account, len(keys))
        self._enter("surplus_expired", len(found[room:]))
        self.surplus.put([self._group(key) for key in found[needed:room]])
        trained = np.append([group.rows[0]["key"] for group in banked], found[:needed]).astype(int)
        ages = [step - group.step for group in banked]
        return Batch(began, drawn, trained, self.policy.rates(trained), sampler.rounds, ages)

    def _round(self, missing: int, sampler: DynamicSampler) -> tuple[np.ndarray, np.ndarray]:
        s = self.scenario
        choice = self.selector.choose(
            missing, at_least=sampler.least, at_most=s.widest, sigmas=REFILL_SIGMAS if s.bank else 0.0
        )
        rows = self.selector.take(choice)
        keys = np.array([row["key"] for row in rows])
        scores = self.policy.sample(keys)
        names = np.array(sampler.add(torch.from_numpy(scores)))
        self.selector.observe(choice, rows, scores, names == "kept")
        for name, count in zip(*np.unique(names[names != "kept"], return_counts=True), strict=True):
            self._enter(str(name), int(count))
        return keys, names == "kept"

    def _group(self, key: int) -> Group:
        size = self.scenario.size
        return Group(
            rows=[{"key": int(key)}] * size,
            rewards=[],
            tokens=[1] * size,
            accounts=["trained"] * size,
            seconds=0.0,
            step=self.policy.step,
        )

    def _enter(self, account: str, groups: int) -> None:
        self.ledger.enter(account, groups * self.scenario.size, 0.0)

    def _move(self, groups: list[Group], account: str) -> None:
        self._enter("surplus_kept", -len(groups))
        self._enter(account, len(groups))


def whole_batch(scenario: Scenario, policy: SimulatedPolicy, seed: int) -> Refill:
    return Refill(scenario, policy, seed, lambda s, missing, rounds: s.widest)


def one_at_a_time(scenario: Scenario, policy: SimulatedPolicy, seed: int) -> Refill:
    return Refill(scenario, policy, seed, lambda s, missing, rounds: missing)


def uniform(scenario: Scenario, policy: SimulatedPolicy, seed: int) -> Ours:
    return Ours(scenario, policy, seed, "uniform")


def predicted(scenario: Scenario, policy: SimulatedPolicy, seed: int) -> Ours:
    return Ours(scenario, policy, seed, "predicted")


OURS = ("uniform", "predicted")
METHODS: dict[str, Callable[..., Any]] = {
    "whole batch": whole_batch,
    "one at a time": one_at_a_time,
    "uniform": uniform,
    "predicted": predicted,
}


@dataclass
class Run:
    """A method's way through one simulated training."""

    batches: list[Batch]
    kinds: np.ndarray
    walks: float
    unaccounted: int
    """rollouts by which the ledger is wrong"""


def train(make: Callable[..., Any], scenario: Scenario, seed: int, walks: int) -> Run:
    policy = SimulatedPolicy(scenario, seed)
    method = make(scenario, policy, seed)
    batches = []
    while method.stream.epochs < walks:
        batches.append(method.fill())
        policy.step += scenario.updates
    wrong = _unaccounted(method, batches) if isinstance(method, Ours) else 0
    return Run(batches, policy.kinds, method.stream.epochs, wrong)


def _unaccounted(method: Ours, batches: list[Batch]) -> int:
    """The ledger beside what was counted apart from it: all rollouts, those trained on, those still in the bank."""
    size, tokens = method.scenario.size, method.ledger.tokens
    return (
        abs(method.ledger.generated - size * sum(len(batch.drawn) for batch in batches))
        + abs(tokens["trained"] - size * sum(len(batch.trained) for batch in batches))
        + abs(tokens["surplus_kept"] - size * len(method.surplus.groups))
    )


@dataclass(frozen=True)
class Figures:
    """A method's figures over some rollout batches."""

    cost: float
    """rollouts generated per group trained on"""
    rounds: float
    """per rollout batch"""
    banked: float
    """share of the groups trained on that came from the bank"""
    age: float
    """mean, of those, in optimizer steps"""


def figures(runs: list[Run], scenario: Scenario, walks: range) -> Figures:
    batches = [batch for run in runs for batch in run.batches if batch.walk in walks]
    trained = sum(len(batch.trained) for batch in batches)
    ages = [age for batch in batches for age in batch.ages]
    return Figures(
        cost=scenario.size * sum(len(batch.drawn) for batch in batches) / trained,
        rounds=float(np.mean([batch.rounds for batch in batches])),
        banked=len(ages) / trained,
        age=float(np.mean(ages)) if ages else 0.0,
    )


def show_costs(title: str, runs: dict[str, list[Run]], scenario: Scenario, spans: list[range]) -> None:
    headings = ["walk"]
    for name in runs:
        headings += [f"{name}\nrollouts", "\nrounds"] + ["\nbanked"] * (name in OURS)
    rows = []
    for span in spans:
        row = [str(span[0] + 1) if len(span) == 1 else f"{span[0] + 1} to {span[-1] + 1}"]
        for name, found in runs.items():
            f = figures(found, scenario, span)
            row += [f"{f.cost:.1f}", f"{f.rounds:.2f}"] + [f"{f.banked:.0%}"] * (name in OURS)
        rows.append(row)
    show(title, headings, rows)
    ages = [f"{figures(runs[name], scenario, range(len(spans) * 10)).age:.1f} ({name})" for name in OURS]
    console.print(f"mean age of banked groups when trained on, in optimizer steps: {', '.join(ages)}\n")


def show_bias(runs: dict[str, list[Run]]) -> None:
    """What *predicted* trains on beside *uniform*, in the same rollout batches: from its third walk on."""
    shares, noise = {}, []
    for name in OURS:
        rates = []
        for run, first in zip(runs[name], runs["predicted"], strict=True):
            rates += [batch.rates for batch in run.batches[sum(batch.walk < 2 for batch in first.batches) :]]
        shares[name] = _histogram(rates)
        noise.append(_distance(_histogram(rates[::2]), _histogram(rates[1::2])))
    show(
        "Groups trained on, by their true pass rate, from the third walk on",
        ["pass rate", *OURS],
        [
            (f"{low:g} to {high:g}", *(f"{shares[name][i]:.1%}" for name in OURS))
            for i, (low, high) in enumerate(itertools.pairwise(EDGES))
        ],
    )
    console.print(
        f"total variation distance between the two: {_distance(*shares.values()):.3f} (between every other rollout "
        f"batch of the same run: {noise[0]:.3f} and {noise[1]:.3f})\n"
    )
    show(
        "Walks between two draws of the same prompt, on average, from the third walk on",
        ["prompts", *OURS],
        [(kind, *(f"{revisit(runs[name], i):.2f}" for name in OURS)) for i, kind in enumerate(KINDS)],
    )
    console.print(f"stated: {1 / RAREST_DRAW:g} walks at most on average, for any prompt\n")


def revisit(runs: list[Run], kind: int) -> float:
    """Walks between two draws of a prompt of this kind, from the third walk on."""
    draws = chances = 0.0
    for run in runs:
        late = [batch for batch in run.batches if batch.walk >= 2]
        draws += sum(int((run.kinds[batch.drawn] == kind).sum()) for batch in late)
        chances += (run.walks - late[0].began) * int((run.kinds == kind).sum())
    return chances / draws


def _histogram(rates: list[np.ndarray]) -> np.ndarray:
    counts, _ = np.histogram(np.concatenate(rates), EDGES)
    return counts / counts.sum()


def _distance(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.abs(one - two).sum() / 2)


def waking(make: Callable[..., Any], scenario: Scenario, seed: int, walks: int) -> tuple[np.ndarray, np.ndarray]:
    """Walks and rollout batches until each prompt that woke up is trained on: infinite if it was not within ``walks``.

    After two walks a fifth of the prompts that were never right is right in a quarter of all attempts, all at once.
    """
    policy = SimulatedPolicy(scenario, seed)
    method = make(scenario, policy, seed)
    while method.stream.epochs < 2:
        method.fill()
        policy.step += scenario.updates
    woken, start, batches = policy.wake(0.2, 0.25), method.stream.epochs, 0
    when = np.full((2, scenario.prompts), np.inf)
    while method.stream.epochs < start + walks:
        trained = method.fill().trained
        policy.step += scenario.updates
        batches += 1
        now = np.array([[method.stream.epochs - start], [batches]])
        when[:, trained] = np.minimum(when[:, trained], now)
    return when[0, woken], when[1, woken]


def show_waking(scenario: Scenario, seeds: int, walks: int) -> None:
    def cell(values: np.ndarray, share: float, form: str) -> str:
        reached = np.quantile(values, share, method="higher")
        return format(reached, form) if np.isfinite(reached) else "later"

    rows = []
    for name in OURS:
        found = [waking(METHODS[name], scenario, seed, walks) for seed in range(seeds)]
        in_walks, in_batches = (np.concatenate(values) for values in zip(*found, strict=True))
        rows.append(
            [name]
            + [cell(in_walks, share, ".1f") for share in (0.5, 0.9)]
            + [cell(in_batches, share, ".0f") for share in (0.5, 0.9)]
        )
    show(
        "A fifth of the prompts never right is right in 25 % of attempts all of a sudden: time until it is trained on",
        ["", "walks\n50 % of them", "\n90 %", "rollout batches\n50 % of them", "\n90 %"],
        rows,
    )
    console.print(f"after two walks, watched for {walks} more\n")


def show_other_worlds(seeds: int) -> None:
    """Where the assumptions of the main scenario do not hold: figures of the third walk."""
    rows = []
    for name, scenario in {
        "as above": Scenario(),
        "drift five times as fast": Scenario(drift=0.005),
        "drift downwards": Scenario(drift=-0.001),
        "90 % never right, 5 % always": Scenario(never=0.9, always=0.05),
        "5 % never right, 90 % always": Scenario(never=0.05, always=0.9),
    }.items():
        row = [name]
        costs = []
        for method in ("whole batch", "predicted"):
            f = figures([train(METHODS[method], scenario, seed, 3) for seed in range(seeds)], scenario, range(2, 3))
            row += [f"{f.cost:.1f}", f"{f.rounds:.2f}"]
            costs.append(f.cost)
        rows.append([*row, f"{costs[1] / costs[0]:.2f}"])
    show(
        "Other worlds, third walk",
        ["", "whole batch\nrollouts", "\nrounds", "predicted\nrollouts", "\nrounds", "ratio"],
        rows,
    )
    console.print()


def show_small(seeds: int) -> None:
    small = Scenario(prompts=200, groups=8, size=8, updates=8, widest=8)
    for title, scenario in (
        ("8 groups of 8, 200 prompts, a round of at most one rollout batch", small),
        ("The same with the bank off", replace(small, bank=False)),
        ("The same with the bank on, a round of at most three rollout batches", replace(small, widest=24)),
    ):
        runs = {name: [train(make, scenario, seed, 12) for seed in range(seeds)] for name, make in METHODS.items()}
        show_costs(title, runs, scenario, [range(1), range(1, 2), range(2, 12)])


def claims_of(runs: dict[str, list[Run]], scenario: Scenario, walks: int) -> list[Claim]:
    whole, ours = runs["whole batch"], runs["predicted"]

    def ratio(name: str, span: range) -> float:
        return getattr(figures(ours, scenario, span), name) / getattr(figures(whole, scenario, span), name)

    return [
        Claim("rollouts per trained group in the first walk, ours / whole batch", ratio("cost", range(1)), 0.90),
        Claim(
            "rollouts per trained group from the third walk on (worst walk), ours / whole batch",
            max(ratio("cost", range(walk, walk + 1)) for walk in range(2, walks)),
            0.50,
        ),
        Claim("rounds per rollout batch, ours / whole batch", ratio("rounds", range(walks)), 1.0),
        Claim("walks between two draws of a hopeless prompt", revisit(ours, NEVER), 1 / RAREST_DRAW, unit="walks"),
        Claim(
            "rollouts that the ledger does not account for",
            sum(run.unaccounted for found in runs.values() for run in found),
            0,
            unit="rollouts",
        ),
    ]


def main() -> None:
    args = arguments("Rollouts generated per group trained on, in a simulation.")
    seeds, walks = (2, 4) if args.quick else (5, 6)
    scenario = Scenario()
    runs = {name: [train(make, scenario, seed, walks) for seed in range(seeds)] for name, make in METHODS.items()}
    title = (
        f"Rollouts generated per group trained on: {scenario.prompts:,} prompts, {scenario.groups} groups of "
        f"{scenario.size}, {seeds} seeds"
    )
    show_costs(title, runs, scenario, [range(walk, walk + 1) for walk in range(walks)])
    show_bias(runs)
    show_waking(scenario, 1 if args.quick else seeds, 6 if args.quick else 14)
    show_other_worlds(1 if args.quick else 3)
    show_small(2 if args.quick else 20)
    finish(claims_of(runs, scenario, walks), args.json)


if __name__ == "__main__":
    main()
