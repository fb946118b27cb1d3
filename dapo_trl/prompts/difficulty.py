"""Difficulty memory: each prompt's pass rate as known so far, and how likely its next group is informative.

Each prompt has a posterior over a grid of pass rates: a population prior, learnt from all prompts of its level, times
the likelihood of the prompt's own outcomes. Outcomes lose weight by half every `HALF_LIFE` rollout batches, because the
policy moves: a prompt that does not come again is forgotten, and falls back to the population.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

HALF_LIFE = 40.0
"""Rollout batches after which a prompt's outcome counts half."""
EARLIER_GROUPS = 0.5
"""Weight of all earlier outcomes at most once there is a newer one, in groups: a prompt may change."""
POPULATION_HALF_LIFE = 8.0
"""The same half-life for the population: it rests on many prompts, so it can follow the policy closely."""
MAX_LEVELS = 64
"""Levels beyond these share one population: a level that names single prompts tells nothing."""

_RATES = np.clip(np.sin(np.linspace(0, np.pi / 2, 25)) ** 2, 1e-4, 1 - 1e-4)  # denser where it matters: at the ends
_START = np.full(len(_RATES), 0.5 / len(_RATES))
"""The initial population: half of it spread evenly, the rest at 0 and 1."""
_START[[0, -1]] += 0.25
"""... a quarter hopeless and a quarter solved"""
_START_WEIGHT = 4.0
"""Weight of the initial population, in prompts."""


class Difficulty:
    """The posterior pass rates of ``size`` prompts (0: an endless source, whose prompts are known by level alone)."""

    def __init__(self, size: int, *, group_size: int, rule: str = "zero_variance"):
        """``rule`` as in `algorithm.informative_groups`; ``"none"`` reads as ``"zero_variance"``."""
        self.clock = 0
        """Rollout batches so far."""
        self._passes = np.zeros(size)
        self._failures = np.zeros(size)
        self._seen = np.zeros(size, dtype=np.int64)
        self._populations: dict[str, np.ndarray] = {}
        """Evidence for each pass rate by level, in prompts."""
        all_right = _RATES**group_size if rule != "all_zero" else 0.0
        self._informative = 1.0 - all_right - (1.0 - _RATES) ** group_size

    def tick(self) -> None:
        """A rollout batch has been trained on: everything known is a little older."""
        self.clock += 1
        for name in self._populations:
            self._populations[name] *= 0.5 ** (1.0 / POPULATION_HALF_LIFE)

    def chances(self, keys: Sequence[int], levels: Sequence[Hashable]) -> np.ndarray:
        """How likely each prompt's next group is informative.

        Args:
            keys: ``[n]`` positions in the data; ignored for an endless source.
            levels: ``[n]`` difficulty levels as the data name them; None where they do not.

        Returns:
            ``[n]`` probabilities.
        """
        return self._posterior(np.asarray(keys, dtype=np.int64), levels) @ self._informative

    @property
    def average(self) -> float:
        """How likely the group of a prompt picked from all the data at random is informative."""
        evidence = sum(self._populations.values(), _START_WEIGHT * _START)
        return float(evidence @ self._informative / evidence.sum())

    def observe(
        self,
        keys: Sequence[int],
        levels: Sequence[Hashable],
        passes: np.ndarray,
        attempts: np.ndarray,
        weights: Any = 1,
    ) -> None:
        """Take in the outcomes of one group each.

        Args:
            passes, attempts: ``[n]`` completions that passed (fractions of one count as such), and that were scored. A
                group that was not scored at all teaches nothing.
            weights: ``[n]`` prompts of the data that each stands for: one over its probability of being drawn.
        """
        scored = np.flatnonzero(attempts).tolist()
        if not scored:
            return
        index, levels = np.asarray(keys, dtype=np.int64)[scored], [levels[i] for i in scored]
        passes, failures = passes[scored], (attempts - passes)[scored]
        if len(self._passes):
            faded = np.minimum(self._faded(index), EARLIER_GROUPS)
            self._passes[index] *= faded
            self._failures[index] *= faded
            self._seen[index] = self.clock
            np.add.at(self._passes, index, passes)
            np.add.at(self._failures, index, failures)
            posterior = self._posterior(index, levels)
        else:
            posterior = self._given(self._priors(levels), passes, failures)
        stands_for = np.broadcast_to(np.asarray(weights, dtype=float), len(attempts))[scored]
        for level, weight, rates in zip(levels, stands_for, posterior, strict=True):
            name = self._name(level)
            self._populations[name] = self._populations.get(name, 0.0) + weight * rates

    def state_dict(self) -> dict[str, Any]:
        return {
            "clock": self.clock,
            "passes": self._passes.tolist(),
            "failures": self._failures.tolist(),
            "seen": self._seen.tolist(),
            "populations": {name: values.tolist() for name, values in self._populations.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.clock = state["clock"]
        self._passes, self._failures = np.array(state["passes"]), np.array(state["failures"])
        self._seen = np.array(state["seen"], dtype=np.int64)
        self._populations = {name: np.array(values) for name, values in state["populations"].items()}

    def _name(self, level: Hashable) -> str:
        """The population that speaks for a level."""
        name = str(level)
        return name if name in self._populations or len(self._populations) < MAX_LEVELS else str(None)

    def _priors(self, levels: Sequence[Hashable]) -> np.ndarray:
        nothing = np.zeros_like(_START)
        evidence = np.stack([self._populations.get(self._name(level), nothing) for level in levels])
        evidence += _START_WEIGHT * _START
        return evidence / evidence.sum(axis=1, keepdims=True)

    def _posterior(self, index: np.ndarray, levels: Sequence[Hashable]) -> np.ndarray:
        priors = self._priors(levels)
        if not len(self._passes):
            return priors
        faded = self._faded(index)
        return self._given(priors, faded * self._passes[index], faded * self._failures[index])

    def _faded(self, index: np.ndarray) -> np.ndarray:
        """The weight that the outcomes of these prompts still have."""
        return 0.5 ** ((self.clock - self._seen[index]) / HALF_LIFE)

    @staticmethod
    def _given(priors: np.ndarray, passes: np.ndarray, failures: np.ndarray) -> np.ndarray:
        logs = np.log(priors) + np.outer(passes, np.log(_RATES)) + np.outer(failures, np.log1p(-_RATES))
        odds = np.exp(logs - logs.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)
