"""The state of dynamic sampling: carried from one rollout batch to the next, and through checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

from ..config import DAPOConfig
from ..errors import ConfigError
from ..rollout.types import Group
from .group_filter import GroupCounts
from .quotas import Quotas
from .sources import Source
from .token_ledger import Ledger


class SamplingState:
    """The same on every process, because it changes by gathered values alone.

    Args:
        sources: One or more, with different names.

    Raises:
        ConfigError: A rollout batch has fewer groups than there are sources.
    """

    def __init__(self, sources: Sequence[Source], args: DAPOConfig):
        if len(sources) > args.groups_per_rollout:
            raise ConfigError(
                f"{len(sources)} tasks are mixed, and a rollout batch has {args.groups_per_rollout} "
                "group(s): each needs one. Raise steps_per_generation or per_device_train_batch_size, or mix fewer."
            )
        self.sources = list(sources)
        self.quotas = Quotas([source.weight for source in sources])
        self.rollout_batches = 0
        """Rollout batches so far in this run."""

    @property
    def mixes(self) -> bool:
        """Whether there are several sources, whose metrics are logged one by one."""
        return len(self.sources) > 1

    @property
    def ledger(self) -> Ledger:
        """The ledgers of all sources, added up."""
        return reduce(add, (source.ledger for source in self.sources))

    @property
    def counts(self) -> GroupCounts:
        """Groups sampled in this run, of all sources, by the filter's decision."""
        return reduce(add, (source.counts for source in self.sources))

    @property
    def drawn(self) -> int:
        """Prompts drawn so far."""
        return sum(source.selector.drawn for source in self.sources)

    @property
    def size(self) -> int | None:
        """Rows of all sources; None where one of them is endless."""
        sizes = [source.stream.size for source in self.sources]
        return None if None in sizes else sum(size for size in sizes if size)

    @property
    def epochs(self) -> float:
        """Walks through the data so far: prompts behind the streams by their rows; 0 for endless data."""
        return sum(source.stream.position for source in self.sources) / self.size if self.size else 0.0

    @property
    def is_solved(self) -> bool:
        """Whether nothing is left to learn in any source."""
        return all(source.solved.is_solved for source in self.sources)

    def explain_solved(self) -> str:
        """That the data are solved, in a sentence for each source."""
        if not self.mixes:
            return self.sources[0].solved.explain()
        return " ".join(f"{source.name}: {source.solved.explain()}" for source in self.sources)

    def put_surplus(self, groups: list[Group]) -> None:
        """Keep surplus groups for the next batches, each with its source."""
        for source in self.sources:
            source.surplus.put([group for group in groups if group.source == source.name])

    def taking_part(self) -> list[bool]:
        """Whether each source takes part in the next rollout batch: all do when those that do not rest are solved."""
        awake = [source.rest.is_over(self.rollout_batches) for source in self.sources]
        solved = [source.solved.is_solved for source, is_awake in zip(self.sources, awake, strict=True) if is_awake]
        return [True] * len(awake) if all(solved) else awake

    def running_totals(self) -> dict[str, float]:
        """Metrics that count up over the run."""
        totals: dict[str, float] = {
            "sampling/rollout_batches": self.rollout_batches,
            "sampling/prompts": self.drawn,
            "sampling/groups_trained": sum(source.trained for source in self.sources),
            "sampling/epochs": self.epochs,
            **self.ledger.metrics(),
        }
        if self.mixes:
            for source in self.sources:
                totals |= source.named(source.running_totals())
        return totals

    def state_dict(self) -> dict[str, Any]:
        return {
            "sources": {source.name: source.state_dict() for source in self.sources},
            "owed": list(self.quotas.owed),
            "rollout_batches": self.rollout_batches,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint. A source that it does not know begins anew, and the mixture with it.

        Raises:
            ConfigError: The checkpoint is of an earlier version, which kept the state in another form.
        """
        if "sources" not in state:
            raise ConfigError(
                "the checkpoint was written by an earlier version of dapo-trl, which kept the state of its sampler in "
                "another form: go on with that version, or begin a new run with the checkpoint's folder as model."
            )
        known = state["sources"]
        for source in self.sources:
            if source.name in known:
                source.load_state_dict(known[source.name])
        if list(known) == [source.name for source in self.sources]:
            self.quotas.owed = list(state["owed"])
        self.rollout_batches = state["rollout_batches"]
