"""A source of prompts, an environment or a part of a data set, with everything that dynamic sampling keeps of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

from ..config import DAPOConfig
from ..prompts.difficulty import Difficulty
from ..prompts.selector import make_selector
from ..prompts.stream import PromptStream, StreamedPrompts
from .group_filter import SOLVED_PROMPTS, GroupCounts, SolvedWatch
from .quotas import Rest
from .surplus import SurplusBuffer
from .token_ledger import Ledger


class Source:
    """One source of a run. It changes by gathered values alone, so it is the same on every process.

    Args:
        stream: Its prompts.
        args: The settings of the run.
        name: Its name in metrics and checkpoints.
        weight: Its share of the rollout batches, relative to the weights of the other sources.
        group_filter: As in `DAPOConfig`; None: the run's.
    """

    def __init__(
        self,
        stream: PromptStream | StreamedPrompts,
        args: DAPOConfig,
        *,
        name: str = "",
        weight: float = 1.0,
        group_filter: str | None = None,
    ):
        self.name, self.weight = name, weight
        self.rule = group_filter or args.group_filter
        difficulty = Difficulty(stream.size or 0, group_size=args.num_generations, rule=self.rule)
        self.selector = make_selector(args.prompt_selection, stream, difficulty, seed=args.seed)
        self.surplus = SurplusBuffer(max_age=cast(int, args.surplus_max_age), capacity=args.groups_per_rollout)
        self.ledger = Ledger()
        self.counts = GroupCounts()
        """Groups sampled in this run, by the filter's decision."""
        self.trained = 0
        """Groups of the rollout batches so far."""
        self.solved = SolvedWatch(prompts=min(stream.size or SOLVED_PROMPTS, SOLVED_PROMPTS))
        self.rest = Rest()
        self.levels: set[str] = set()
        """Levels of difficulty seen since the run began or was resumed, as metrics name them."""

    @property
    def stream(self) -> PromptStream | StreamedPrompts:
        return self.selector.stream

    def named(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Metrics of this source under names of their own, for a run that has several."""
        return {f"env/{self.name.replace('/', '-')}/{name}": value for name, value in metrics.items()}

    def running_totals(self) -> dict[str, float]:
        """Metrics that count up over the run."""
        return {
            "sampling/prompts": self.selector.drawn,
            "sampling/groups_trained": self.trained,
            "sampling/epochs": self.stream.epochs,
            **self.ledger.metrics(),
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "selector": self.selector.state_dict(),
            "surplus": self.surplus.state_dict(),
            "ledger": self.ledger.state_dict(),
            "counts": dataclasses.asdict(self.counts),
            "trained": self.trained,
            "solved": dataclasses.asdict(self.solved),
            "rest": dataclasses.asdict(self.rest),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.selector.load_state_dict(state["selector"])
        self.surplus.load_state_dict(state["surplus"])
        self.ledger.load_state_dict(state["ledger"])
        self.counts = GroupCounts(**state["counts"])
        self.trained = state["trained"]
        self.solved = SolvedWatch(**state["solved"])
        self.rest = Rest(**state["rest"])
