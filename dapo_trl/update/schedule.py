"""From a rollout batch to this process's rows of each optimizer step.

All groups of the batch, banked and fresh, are shuffled into optimizer steps first and dealt to the processes after
that, so which completions a step trains on does not depend on the number of processes. Log-probabilities are computed
once, when a group is fresh; a banked group brings those of the policy that sampled it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from accelerate.utils import broadcast, gather_object
from torch import Tensor

from ..rollout.trl_bridge import Rollout
from ..sampling.collector import Group, RolloutBatch
from ..sampling.surplus import BankedGroup
from .batching import Batch, Row, deal, split_evenly, unpad
from .trl_replay import replay

if TYPE_CHECKING:
    from ..trainer import DAPOTrainer

Assembled = tuple[list[list[Row]], Row | None]
"""this process's rows of each optimizer step, and a row to run without loss in place of missing ones; None when there
is nothing to train on at all"""


def assemble(trainer: DAPOTrainer, collected: RolloutBatch) -> Assembled:
    """The rows of a rollout batch that this process trains on; puts the surplus into the bank."""
    device, me = trainer.accelerator.device, trainer.accelerator.process_index
    banked = [row for group in collected.banked for row in group.rows]
    fresh = [rollout for group in collected.fresh for rollout in group.rollouts]
    surplus = [rollout for group in collected.surplus for rollout in group.rollouts]
    tokens = [count for group in collected.banked for count in group.tokens]
    tokens += [rollout.tokens for rollout in fresh]
    plan = shares(tokens, _shuffled(trainer, len(tokens)), trainer.args.updates_per_pass, _processes(trainer))

    rows: dict[int, Row] = dict(enumerate(banked))
    filler = banked[0] if banked else None
    if fresh or surplus:
        dealt = deal([rollout.tokens for rollout in surplus], _processes(trainer))
        wanted = [  # of each process: the surplus rows that it computes, then those that it trains on
            [len(fresh) + row for row in extra]
            + sorted(row - len(banked) for update in updates for row in update if row >= len(banked))
            for updates, extra in zip(plan, dealt, strict=True)
        ]
        found = _replayed(trainer, fresh + surplus, wanted, keep_log_probs=bool(banked or surplus))
        filler = found[0]
        rows |= {len(banked) + number: row for number, row in zip(wanted[me], found, strict=False)}
        if surplus:
            first = len(banked) + len(fresh)
            _put_into_bank(trainer, collected.surplus, {n - first: row for n, row in rows.items() if n >= first})
    if not tokens:
        return [[] for _ in plan[me]], None

    rewards = [values for group in collected.banked for values in group.rewards]
    rewards += [rollout.rewards for rollout in fresh]
    advantages = trainer.advantages_of(torch.tensor(rewards, device=device))

    def finished(row: Row, number: int) -> Row:
        return {key: value.to(device) for key, value in row.items()} | {"advantages": advantages[number]}

    assert filler is not None
    updates = [[finished(rows[number], number) for number in update] for update in plan[me]]
    filler = finished(filler, 0)
    if trainer.recorder is not None:
        trainer.recorder.mark(updates, plan[me], fresh, advantages, trainer.num_generations)
        filler["recorded"] = torch.tensor(-1)
    return updates, filler


def shares(tokens: Sequence[int], order: Sequence[int], updates: int, processes: int) -> list[list[list[int]]]:
    """Which rows each process trains on in each optimizer step.

    Args:
        tokens: of each row of the batch.
        order: a permutation of the rows; ``updates`` runs of neighbours in it make the optimizer steps.

    Returns:
        Row numbers by process, then optimizer step: in every step equally many on each process (to one row), with
        nearly equal tokens.
    """
    found: list[list[list[int]]] = [[] for _ in range(processes)]
    for update in split_evenly(len(tokens), updates):
        rows = [order[i] for i in update]
        for process, dealt in enumerate(deal([tokens[row] for row in rows], processes)):
            found[process].append([rows[i] for i in dealt])
    return found


def _processes(trainer: DAPOTrainer) -> int:
    return trainer.accelerator.num_processes


def _shuffled(trainer: DAPOTrainer, count: int) -> list[int]:
    """A permutation that all processes have alike; on a single one it is TRL's."""
    order = torch.randperm(count)
    return order.tolist() if _processes(trainer) == 1 else broadcast(order.to(trainer.accelerator.device)).tolist()


def _replayed(
    trainer: DAPOTrainer, rollouts: list[Rollout], wanted: list[list[int]], *, keep_log_probs: bool
) -> list[Row]:
    """TRL's tensors of the rollouts that each process wants; this one's come first, stand-ins after them.

    All processes hand equally many rollouts to TRL, and whole groups in total, which is what it logs.
    """
    mine, size = wanted[trainer.accelerator.process_index], trainer.num_generations
    count = max(map(len, wanted))
    while count * _processes(trainer) % size:
        count += 1
    rewards = torch.tensor([rollout.rewards for rollout in rollouts], device=trainer.accelerator.device)
    filled = [(rows + [0] * count)[:count] for rows in wanted]
    batch = replay(
        trainer,
        [rollouts[row] for row in filled[trainer.accelerator.process_index]],
        rewards,
        [row for rows in filled for row in rows],
    )
    if keep_log_probs and "old_per_token_logps" not in batch:  # on-policy updates alone would do without
        batch["old_per_token_logps"] = _log_probs(trainer, batch)
    untrained = [place for place, row in enumerate(mine) if rollouts[row].fate != "trained"]
    batch["completion_mask"][untrained] = 0
    del batch["advantages"]  # made when the whole batch is known
    return unpad(batch)


@torch.no_grad()
def _log_probs(trainer: DAPOTrainer, batch: Batch) -> Tensor:
    logps, _, _ = trainer._get_per_token_logps_and_entropies(
        trainer.model,
        torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1),
        torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1),
        batch["completion_ids"].shape[1],
        batch_size=trainer.args.per_device_train_batch_size,
    )
    return logps


def _put_into_bank(trainer: DAPOTrainer, groups: list[Group], mine: dict[int, Row]) -> None:
    """Every process keeps the whole surplus, so that any of them can train on any row of it.

    Args:
        mine: this process's rows of the surplus, by number.
    """
    compact = {
        number: {key: value.detach().cpu().clone() for key, value in row.items()} for number, row in mine.items()
    }
    everyones = gather_object([compact]) if _processes(trainer) > 1 else [compact]
    rows = {number: row for part in everyones for number, row in part.items()}
    size = trainer.num_generations
    trainer.sampling.bank.put(
        [
            BankedGroup(
                rows=[rows[first + member] for member in range(size)],
                rewards=[rollout.rewards for rollout in group.rollouts],
                tokens=group.tokens,
                fates=group.fates,
                seconds=group.seconds,
                step=trainer.state.global_step,
            )
            for first, group in zip(range(0, len(rows), size), groups, strict=True)
        ]
    )
