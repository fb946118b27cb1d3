"""The completions of a round in numbers, and the metrics made of them."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from envs import Verdict

VERDICTS = (*map(str, Verdict), "other")
"""Verdict names that are logged; unknown verdicts count as "other"."""
MAX_LEVELS = 12
"""Levels of difficulty whose accuracy is logged one by one; a run that meets more logs none of them."""
_DIFFICULTIES = {"unsolved": 0.0, "hard": 1 / 3, "medium": 2 / 3, "easy": 1 - 1e-6, "solved": float("inf")}
"""Upper bound of the share of a group that is correct."""


@dataclass(frozen=True)
class RoundStatistics:
    """The ``n`` completions of some rounds, of all processes, groups side by side: ``[n]`` each."""

    lengths: Tensor
    truncated: Tensor
    accuracy: Tensor
    """Raw correctness; without an environment the score that ``filter_key`` names."""
    totals: Tensor
    """Rewards with penalties; NaN where unscorable."""
    verdicts: Tensor
    """Places in `VERDICTS`; -1 without an environment."""
    kept: Tensor
    """Bool: passed the filter."""
    shaped: Tensor
    """Bool: in a dropped group whose rewards differ by what the filter leaves out alone."""
    levels: list[Hashable]
    """The level of each group, as the data name it; None where they do not."""
    figures: list[dict[str, float]] = field(default_factory=list)
    """``[n]``, or empty without an environment: numbers by name that it reports of a completion."""

    @classmethod
    def of(cls, rounds: Sequence[RoundStatistics]) -> RoundStatistics:
        """Those of several rounds together."""
        columns = [f.name for f in dataclasses.fields(cls) if f.name not in ("levels", "figures")]
        joined = {name: torch.cat([getattr(part, name) for part in rounds]) for name in columns}
        levels = [level for part in rounds for level in part.levels]
        return cls(**joined, levels=levels, figures=[figures for part in rounds for figures in part.figures])

    @property
    def group_size(self) -> int:
        return len(self.lengths) // len(self.levels)

    def of_groups(self, groups: range) -> RoundStatistics:
        """Those of some neighbouring groups."""
        rows = slice(groups.start * self.group_size, groups.stop * self.group_size)
        columns = [f.name for f in dataclasses.fields(self) if f.name != "levels"]
        parts = {name: getattr(self, name)[rows] for name in columns}
        return RoundStatistics(**parts, levels=self.levels[groups.start : groups.stop])

    def metrics(self) -> dict[str, Tensor | float]:
        """The metrics of a rollout batch, its speed left aside; NaN where there is nothing to average."""
        ended = self.lengths[self.truncated == 0]
        ended = ended if ended.numel() else torch.zeros(1)
        return {
            "completions/mean_length": self.lengths.mean(),
            "completions/min_length": self.lengths.min(),
            "completions/max_length": self.lengths.max(),
            "completions/clipped_ratio": self.truncated.mean(),
            "completions/mean_terminated_length": ended.mean(),
            "completions/min_terminated_length": ended.min(),
            "completions/max_terminated_length": ended.max(),
            "accuracy/sampled": self.accuracy.nanmean(),
            "accuracy/trained": self.accuracy[self.kept].nanmean(),
            "reward/sampled": self.totals.nanmean(),
            "groups/shaping_only": self.shaped[:: self.group_size].sum(),
            "sampling/unscorable": self.totals.isnan().float().mean(),
            **self._difficulties(),
            **self._verdicts(),
            **self._figures(),
        }

    def by_level(self) -> dict[str, float]:
        """``accuracy/level_<level>`` of every level that the data name."""
        rates = self._pass_rates()
        return {
            f"accuracy/level_{level}": float(rates[[found == level for found in self.levels]].nanmean())
            for level in sorted({level for level in self.levels if level is not None}, key=str)
        }

    def _pass_rates(self) -> Tensor:
        return self.accuracy.view(-1, self.group_size).nanmean(dim=1)

    def _difficulties(self) -> dict[str, Tensor]:
        rates = self._pass_rates()
        rates = rates[~rates.isnan()]
        place = torch.bucketize(rates.double(), torch.tensor([*_DIFFICULTIES.values()], device=rates.device).double())
        return {f"difficulty/{name}": (place == i).float().mean() for i, name in enumerate(_DIFFICULTIES)}

    def _verdicts(self) -> dict[str, Tensor]:
        if (self.verdicts < 0).any():
            return {}
        return {f"verdicts/{name}": (self.verdicts == i).float().mean() for i, name in enumerate(VERDICTS)}

    def _figures(self) -> dict[str, float]:
        """The mean of each figure over the completions that have it."""
        found = defaultdict[str, list[float]](list)
        for figures in self.figures:
            for name, value in figures.items():
                if not math.isnan(value):
                    found[name].append(value)
        return {f"figures/{name}": sum(values) / len(values) for name, values in sorted(found.items())}


def verdict_number(verdict: str) -> int:
    """Its place in `VERDICTS`."""
    return VERDICTS.index(verdict) if verdict in VERDICTS else len(VERDICTS) - 1
