"""From a rollout batch to this process's rows of each optimizer step.

All groups of the batch, surplus and fresh, are shuffled into optimizer steps first and dealt to the processes after
that, so the completions of a step do not depend on the number of processes. Members of a group stay together where the
numbers allow, because they share their prompt in a microbatch; without a filter rows are shuffled, as in TRL.
Log-probabilities are computed once, when a group is fresh; surplus brings those of the policy that sampled it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, gather_object
from torch import Tensor

from ..algorithm import token_advantages
from ..rollout.types import Group, Rollout, TrainingRow
from ..sampling.collector import RolloutBatch
from .batching import deal, split_evenly

ScoreFn = Callable[[list[Rollout], Tensor, list[int], bool], list[TrainingRow]]
"""``score(rollouts, rewards, order, keep)``: TRL's tensors of this process's rollouts, equally many on every process
and whole groups in total. ``rewards`` is ``[N, F]``, groups side by side; ``order`` gives the row of each rollout in
it, those of the first process first; ``keep`` asks for old log-probabilities even where one update could do without."""


class TrainedRecorder(Protocol):
    """Marks the rows of some completions, to record how their log-probabilities change."""

    def mark(
        self,
        steps: list[list[TrainingRow]],
        plan: list[list[int]],
        fresh: list[Rollout],
        advantages: Tensor,
        size: int,
    ) -> None: ...


@dataclass
class LocalSteps:
    """This process's rows of each optimizer step on a rollout batch."""

    steps: list[list[TrainingRow]]
    filler: TrainingRow | None
    """Any row, for a process without one of its own; None when there is nothing to train on at all."""

    @classmethod
    def of_checkpoint(
        cls, states: Sequence[Sequence[dict[str, Any] | None]], process: int, processes: int, device: torch.device
    ) -> LocalSteps:
        """The optimizer steps of a checkpoint, dealt out anew.

        Args:
            states: Of each process that wrote it, its optimizer steps; None for one without tokens.
            process, processes: The share that is wanted; 0 of 1 takes all rows as they are.
        """
        steps, fillers = [], []
        for parts in zip(*states, strict=True):
            fillers += [TrainingRow(**part["filler"]).to(device) for part in parts if part]
            rows = [TrainingRow(**row).to(device) for part in parts if part for row in part["rows"]]
            numbers: dict[tuple[int, ...], int] = {}
            groups = [numbers.setdefault(tuple(row.prompt_ids.tolist()), len(numbers)) for row in rows]
            steps.append([rows[i] for i in deal([row.length for row in rows], processes, groups)[process]])
        return cls(steps, fillers[0] if fillers else None)


@dataclass
class Scheduler:
    """Deals rollout batches to optimizer steps and processes."""

    accelerator: Accelerator
    group_size: int
    steps: int
    """Optimizer steps of one pass over a rollout batch."""
    score: ScoreFn
    advantages: Callable[[Tensor, list[list[float]]], Tensor]
    """``[N, F]`` rewards, groups side by side, and ``[N][K]`` rewards of turns to ``[N]``, or to ``[N, K]`` where each
    turn has its own."""
    permute: Callable[[int], list[int]]
    """A permutation of so many groups, or rows; the main process's counts."""
    put_surplus: Callable[[list[Group]], None]
    whole_groups: bool = True
    """Shuffle groups; False: shuffle rows."""

    def schedule(self, batch: RolloutBatch, recorder: TrainedRecorder | None = None) -> LocalSteps:
        """The rows of a rollout batch that this process trains on; keeps the surplus for the next batch."""
        me, processes = self.accelerator.process_index, self.accelerator.num_processes
        device = self.accelerator.device
        trained = [*batch.kept, *batch.fresh]
        tokens = [count for group in trained for count in group.tokens]
        groups = [number for number, group in enumerate(trained) for _ in group.tokens]
        plan = shares(tokens, groups, self._order(groups), self.steps, processes)
        rows = dict(enumerate(row for group in batch.kept for row in group.rows))
        filler = rows.get(0)
        if batch.fresh or batch.surplus:
            scored, filler = self._score_fresh(batch, plan, first=len(rows))
            rows |= scored
            if batch.surplus:
                self._keep_surplus(batch.surplus, {n: row for n, row in rows.items() if n >= len(tokens)}, len(tokens))
        if not tokens:
            return LocalSteps([[] for _ in plan[me]], None)
        rewards = [values for group in trained for values in group.rewards]
        turns = [values for group in trained for values in group.turns]
        advantages = self.advantages(torch.tensor(rewards, device=device), turns)
        starts = [values for group in trained for values in group.turn_starts]

        def placed(n: int) -> TrainingRow:
            row, advantage = rows[n].to(device), advantages[n]
            if advantage.dim():
                advantage = token_advantages(advantage, torch.tensor(starts[n], device=device), len(row.completion_ids))
            return replace(row, advantage=advantage)

        assert filler is not None
        steps = [[placed(n) for n in numbers] for numbers in plan[me]]
        filler = replace(filler.to(device), advantage=torch.zeros((), device=device))
        if recorder is not None:
            fresh = [rollout for group in batch.fresh for rollout in group.rollouts]
            recorder.mark(steps, plan[me], fresh, advantages, self.group_size)
        return LocalSteps(steps, filler)

    def _score_fresh(
        self, batch: RolloutBatch, plan: list[list[list[int]]], *, first: int
    ) -> tuple[dict[int, TrainingRow], TrainingRow]:
        """TRL's tensors of this process's fresh and surplus rows, by number from ``first``, and any one of them.

        All processes hand equally many rollouts to TRL, and whole groups in total, which is what it logs.
        """
        me, processes = self.accelerator.process_index, self.accelerator.num_processes
        fresh = [rollout for group in batch.fresh for rollout in group.rollouts]
        surplus = [rollout for group in batch.surplus for rollout in group.rollouts]
        rollouts = fresh + surplus
        groups = [number for number, group in enumerate(batch.surplus) for _ in group.tokens]
        dealt = deal([rollout.tokens for rollout in surplus], processes, groups)
        wanted = [  # of each process: the surplus rows that it computes, then the ones that it trains on
            [len(fresh) + row for row in extra]
            + sorted(row - first for numbers in steps for row in numbers if row >= first)
            for steps, extra in zip(plan, dealt, strict=True)
        ]
        count = max(map(len, wanted))
        while count * processes % self.group_size:
            count += 1
        filled = [(rows + [0] * count)[:count] for rows in wanted]
        found = self.score(
            [rollouts[row] for row in filled[me]],
            torch.tensor([rollout.rewards for rollout in rollouts], device=self.accelerator.device),
            [row for rows in filled for row in rows],
            bool(batch.kept or surplus),
        )
        return {first + number: row for number, row in zip(wanted[me], found, strict=False)}, found[0]

    def _order(self, groups: Sequence[int]) -> list[int]:
        """The rows in the order in which they fill the optimizer steps, given the group of each."""
        if not self.whole_groups:
            return self._shuffled(len(groups))
        members: dict[int, list[int]] = {}
        for row, group in enumerate(groups):
            members.setdefault(group, []).append(row)
        return [row for group in self._shuffled(len(members)) for row in members[group]]

    def _shuffled(self, count: int) -> list[int]:
        """A permutation that all processes have alike."""
        order = self.permute(count)
        if self.accelerator.num_processes == 1:
            return order
        return broadcast(torch.tensor(order, device=self.accelerator.device)).tolist()

    def _keep_surplus(self, groups: list[Group], mine: dict[int, TrainingRow], first: int) -> None:
        """Give every process the whole surplus, so that any of them can train on any row of it.

        Args:
            mine: This process's rows of the surplus, by number from ``first``.
        """
        compact = {number: row.detached() for number, row in mine.items()}
        everyones = gather_object([compact]) if self.accelerator.num_processes > 1 else [compact]
        rows: dict[int, Any] = {number: row for part in everyones for number, row in part.items()}
        numbers = iter(range(first, first + len(rows)))
        self.put_surplus([group.kept([rows[next(numbers)] for _ in group.tokens]) for group in groups])


def shares(
    tokens: Sequence[int], groups: Sequence[int], order: Sequence[int], steps: int, processes: int
) -> list[list[list[int]]]:
    """The rows that each process trains on in each optimizer step.

    Args:
        tokens: Tokens of each row of the batch.
        groups: The number of each row's group.
        order: A permutation of the rows; ``steps`` runs of neighbours in it make the optimizer steps.

    Returns:
        Row numbers by process, then optimizer step: in every step equally many on each process (to one row), with
        nearly equal tokens, and members of a group on the same one where there is room.
    """
    found: list[list[list[int]]] = [[] for _ in range(processes)]
    for step in split_evenly(len(tokens), steps):
        rows = [order[i] for i in step]
        dealt = deal([tokens[row] for row in rows], processes, [groups[row] for row in rows])
        for process, share in enumerate(dealt):
            found[process].append([rows[i] for i in share])
    return found
