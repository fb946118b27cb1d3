"""The loss of one micro-batch, put together from `algorithm` as the settings ask for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import algorithm
from ..config import DAPOConfig
from ..errors import ConfigError
from .batching import Batch, loss_mask

if TYPE_CHECKING:
    from ..trainer import DAPOTrainer

RATIO_LEVELS = {"token": "token", "sequence_product": "sequence"}
LOSS_MODES = {"dapo": "token", "grpo": "sequence"}
TRL_TOKEN_LOSSES = ("dapo", "cispo", "vespo")
"""losses that TRL divides by the token count we hand over; its others are means over rows"""


@dataclass(frozen=True)
class DAPOLoss:
    """DAPO's loss and GRPO's: clipped surrogate, KL penalty, and the reduction over tokens or completions."""

    epsilon_low: float
    epsilon_high: float
    beta: float
    level: str
    """as in `algorithm.importance_ratio`"""
    mode: str
    """as in `algorithm.aggregate_loss`"""
    corrects_kl: bool
    """whether the KL estimate is multiplied by the importance ratio (TRL's ``use_bias_correction_kl``)"""

    @classmethod
    def of(cls, args: DAPOConfig) -> DAPOLoss:
        return cls(
            epsilon_low=args.epsilon,
            epsilon_high=args.epsilon if args.epsilon_high is None else args.epsilon_high,
            beta=args.beta,
            level=RATIO_LEVELS[args.importance_sampling_level],
            mode=LOSS_MODES[args.loss_type],
            corrects_kl=args.use_bias_correction_kl,
        )

    def __call__(
        self, batch: Batch, logps: Tensor, entropies: Tensor | None, *, processes: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and what is logged of it per token.

        Args:
            batch: a micro-batch; with ``step_tokens`` and ``step_rows`` the loss is this micro-batch's part of the
                optimizer step, without them that of the micro-batch alone.
            logps, entropies: ``[N, T]`` under the policy being trained.
            processes: gradients are averaged over this many afterwards, so the loss is multiplied by it.
        """
        mask = loss_mask(batch)
        old_logps = batch.get("old_per_token_logps")
        old_logps = logps.detach() if old_logps is None else old_logps  # sampled by the policy as it is: ratio 1
        ratio = algorithm.importance_ratio(logps, old_logps, mask, level=self.level)
        loss, is_low_clipped, is_high_clipped = algorithm.clipped_surrogate(
            ratio, batch["advantages"], epsilon_low=self.epsilon_low, epsilon_high=self.epsilon_high
        )
        if "importance_sampling_ratio" in batch:  # vLLM samples from slightly other probabilities
            loss = loss * batch["importance_sampling_ratio"]
        logged = {
            "importance_ratio/deviation": (ratio - 1).abs(),
            "clip_ratio/low_mean": is_low_clipped,
            "clip_ratio/high_mean": is_high_clipped,
            "clip_ratio/region_mean": is_low_clipped | is_high_clipped,
        }
        if entropies is not None:
            logged["entropy"] = entropies
        if self.beta != 0.0:
            kl = algorithm.kl_estimate(logps, batch["ref_per_token_logps"], ratio=ratio if self.corrects_kl else None)
            loss = loss + self.beta * kl
            logged["kl"] = kl
        normalizer = batch.get("step_tokens" if self.mode == "token" else "step_rows")
        if normalizer is not None:
            normalizer = normalizer / processes
        return algorithm.aggregate_loss(loss, mask, mode=self.mode, normalizer=normalizer), logged


def uses_trl_loss(args: DAPOConfig, *, has_auxiliary_loss: bool) -> bool:
    """Whether the settings ask for a loss that is not ours: TRL then computes it, on our micro-batches.

    Raises:
        ConfigError: they ask for something of ours at the same time.
    """
    foreign = (
        args.loss_type not in LOSS_MODES
        or args.importance_sampling_level not in RATIO_LEVELS
        or args.top_entropy_quantile < 1
        or args.entropy_coef != 0
        or args.use_adaptive_entropy
        or args.off_policy_mask_threshold is not None
        or args.delta is not None
        or has_auxiliary_loss
    )
    if foreign and args.importance_sampling_level == "sequence_product":
        raise ConfigError(
            "importance_sampling_level is 'sequence_product' together with a setting whose loss TRL computes: use "
            "loss_type 'dapo' or 'grpo' without entropy bonus, delta or off-policy mask."
        )
    return foreign


@contextmanager
def scaled_for_trl(trainer: DAPOTrainer, batch: dict[str, Any]) -> Iterator[None]:
    """Make TRL's loss of a pass this pass's share of the optimizer step.

    TRL divides its means, and the entropy bonus and auxiliary loss with them, by the number of micro-batches, as if all
    held the same. Here that number is one over the share: of the step's tokens for losses that are means over tokens,
    of its completions for those that are means over completions. In evaluation there is nothing to share.
    """
    if "step_rows" not in batch:
        yield
        return
    processes, before = trainer.accelerator.num_processes, trainer.current_gradient_accumulation_steps
    if trainer.args.loss_type in TRL_TOKEN_LOSSES:
        share = loss_mask(batch).sum() / batch["step_tokens"] * processes
    else:
        share = torch.tensor(batch["row_count"] / batch["step_rows"] * processes, device=batch["advantages"].device)
    # TRL divides token losses by num_items_in_batch / processes * accumulation / steps_per_generation.
    batch["num_items_in_batch"] = batch["step_tokens"] * trainer.args.steps_per_generation * share
    trainer.current_gradient_accumulation_steps = 1.0 / share
    try:
        yield
    finally:
        trainer.current_gradient_accumulation_steps = before
