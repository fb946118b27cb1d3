"""TRL's own batch of rollouts that exist already: its generation and rewards are answered from what was kept."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..algorithm import informative_groups
from ..rollout.trl_bridge import Rollout
from .batching import Batch

if TYPE_CHECKING:
    from ..trainer import DAPOTrainer


@dataclass(frozen=True)
class Replay:
    """What `DAPOTrainer` answers with, in place of generating and scoring."""

    rollouts: list[Rollout]
    """those of this process; equally many on every process"""
    rewards: Tensor
    """``[n, F]``: those of all processes, this order"""

    def generated(self) -> tuple[Any, ...]:
        """What TRL's ``_generate`` returns."""
        first = self.rollouts[0]
        return (
            [rollout.prompt_ids.tolist() for rollout in self.rollouts],
            [rollout.completion_ids.tolist() for rollout in self.rollouts],
            None if first.loss_mask is None else [rollout.loss_mask for rollout in self.rollouts],
            [rollout.completion for rollout in self.rollouts],
            None if first.logprobs is None else [rollout.logprobs for rollout in self.rollouts],
            {},
            None,
            [],
        )


def replay(trainer: DAPOTrainer, rollouts: list[Rollout], rewards: Tensor, order: list[int]) -> Batch:
    """TRL's batch of the rollouts, with old and reference log-probabilities where TRL computes them.

    Args:
        rollouts: those of this process; equally many on every process, and whole groups in total.
        rewards: ``[N, F]``, groups side by side.
        order: which row of ``rewards`` each rollout has, those of the first process first.
    """
    for name in {name for rollout in rollouts for name in rollout.log_columns}:
        trainer._pending_extra_logs[name] = [rollout.log_columns.get(name) for rollout in rollouts]
    trainer.replay = Replay(rollouts, rewards[order])
    try:
        batch = trainer._generate_and_score_completions([rollout.row for rollout in rollouts])
    finally:
        trainer.replay = None
    _correct_logs(trainer, rewards, order)
    return batch


def _correct_logs(trainer: DAPOTrainer, rewards: Tensor, order: list[int]) -> None:
    """TRL takes neighbours for a group, which they are not here: put right what it logged on that assumption."""
    shown = trainer._logs["advantages"]
    assert isinstance(shown, deque)
    for _ in range(min(len(order), len(shown))):
        shown.pop()
    shown.extend(trainer.advantages_of(rewards)[order].tolist())
    varied = informative_groups(trainer.columns.total(rewards).view(-1, trainer.num_generations))
    trainer._metrics["train"]["frac_reward_zero_std"][-1] = 1.0 - varied.float().mean().item()
