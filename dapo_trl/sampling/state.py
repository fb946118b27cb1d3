"""The state of dynamic sampling: carried from one rollout batch to the next, and through checkpoints."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

from ..config import DAPOConfig
from ..prompts.difficulty import Difficulty
from ..prompts.selector import make_selector
from ..prompts.stream import PromptStream, StreamedPrompts
from .group_filter import SOLVED_PROMPTS, GroupCounts, SolvedWatch
from .surplus import SurplusBuffer
from .token_ledger import Ledger


class SamplingState:
    """The same on every process, because it changes by gathered values alone."""

    def __init__(self, stream: PromptStream | StreamedPrompts, args: DAPOConfig):
        difficulty = Difficulty(stream.size or 0, group_size=args.num_generations, rule=args.group_filter)
        self.selector = make_selector(args.prompt_selection, stream, difficulty, seed=args.seed)
        self.surplus = SurplusBuffer(max_age=cast(int, args.surplus_max_age), capacity=args.groups_per_rollout)
        self.ledger = Ledger()
        self.counts = GroupCounts()
        """Groups sampled in this run, by the filter's decision."""
        self.rollout_batches = 0
        """Rollout batches so far in this run."""
        self.solved = SolvedWatch(prompts=min(stream.size or SOLVED_PROMPTS, SOLVED_PROMPTS))

    def running_totals(self) -> dict[str, float]:
        """Metrics that count up over the run."""
        return {
            "sampling/rollout_batches": self.rollout_batches,
            "sampling/prompts": self.selector.drawn,
            "sampling/epochs": self.selector.stream.epochs,
            "ledger/tokens": self.ledger.generated,
            **{f"ledger/{account}_tokens": count for account, count in self.ledger.tokens.items()},
            **{f"ledger/{account}_seconds": spent for account, spent in self.ledger.seconds.items()},
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "selector": self.selector.state_dict(),
            "surplus": self.surplus.state_dict(),
            "ledger": self.ledger.state_dict(),
            "counts": dataclasses.asdict(self.counts),
            "rollout_batches": self.rollout_batches,
            "solved": dataclasses.asdict(self.solved),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.selector.load_state_dict(state["selector"])
        self.surplus.load_state_dict(state["surplus"])
        self.ledger.load_state_dict(state["ledger"])
        self.counts = GroupCounts(**state["counts"])
        self.rollout_batches = state["rollout_batches"]
        self.solved = SolvedWatch(**state["solved"])
