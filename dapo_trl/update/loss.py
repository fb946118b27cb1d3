"""The loss of one microbatch, put together from `algorithm`; and the seam for a loss of your own.

A loss of your own is a class with one method, named in the settings as ``loss_type: my_module:MyLoss``::

    class Reinforce(Loss):
        def per_token(self, batch, logps, entropies):
            return -logps * batch.token_advantages, {}

Its reduction over tokens or completions, exact over microbatches and processes, is `Loss`'s business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, cast

from torch import Tensor

from .. import algorithm
from ..config import DAPOConfig
from ..errors import ConfigError
from ..settings import load_object
from .batching import Microbatch

RATIO_LEVELS = {"token": "token", "sequence_product": "sequence"}
LOSS_MODES = {"dapo": "token", "grpo": "sequence"}
TRL_TOKEN_LOSSES = ("dapo", "cispo", "vespo")
"""Losses that TRL divides by the token count it is given; its others are means over rows."""


class Loss(ABC):
    """A loss given token by token, and its reduction to a scalar.

    Args:
        args: The settings of the run.
    """

    mode: str = "token"
    """Reduction over the optimizer step: ``"token"`` or ``"sequence"``, as in `algorithm.aggregate_loss`."""

    def __init__(self, args: DAPOConfig):
        self.args = args

    @abstractmethod
    def per_token(self, batch: Microbatch, logps: Tensor, entropies: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of each token, to be minimised.

        Args:
            batch: The completions, ``[N, T]``; see `Microbatch` for its fields.
            logps: ``[N, T]`` log-probabilities under the policy being trained; gradients flow through them.
            entropies: ``[N, T]`` of the next-token distributions, in nats; None where the model gives none.

        Returns:
            The loss ``[N, T]``, and metrics by name, ``[N, T]`` or ``[N, 1]`` each, whose means over the optimizer
            step are logged. Both count only where ``batch.loss_mask`` is 1.
        """

    def __call__(
        self, batch: Microbatch, logps: Tensor, entropies: Tensor | None, *, processes: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a microbatch as a scalar: its part of the optimizer step, or, without ``batch.step_tokens``
        (evaluation), that of the microbatch alone.

        Args:
            processes: Gradients are averaged over this many afterwards, so the loss is multiplied by it.
        """
        loss, logged = self.per_token(batch, logps, entropies)
        if entropies is not None:  # alarms and the diagnosis look at it, whatever the loss
            logged = {"entropy": entropies} | logged
        normalizer: Any = batch.step_tokens if self.mode == "token" else batch.step_rows
        if normalizer is not None:
            normalizer = normalizer / processes
        return algorithm.aggregate_loss(loss, batch.loss_mask, mode=self.mode, normalizer=normalizer), logged


class DAPOLoss(Loss):
    """DAPO's loss and GRPO's: clipped surrogate (eq. 8, 10) and KL penalty."""

    def __init__(self, args: DAPOConfig):
        super().__init__(args)
        self.mode = LOSS_MODES.get(args.loss_type, "token")  # the loss may be a class derived from this one
        self.level = RATIO_LEVELS[args.importance_sampling_level]
        self.epsilon_high = args.epsilon if args.epsilon_high is None else args.epsilon_high

    def per_token(self, batch: Microbatch, logps: Tensor, entropies: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        args = self.args
        old_logps = logps.detach() if batch.old_logps is None else batch.old_logps  # sampled by the policy as it is
        ratio = algorithm.importance_ratio(logps, old_logps, batch.loss_mask, level=self.level)
        loss, is_low_clipped, is_high_clipped = algorithm.clipped_surrogate(
            ratio, batch.advantages, epsilon_low=args.epsilon, epsilon_high=self.epsilon_high
        )
        if batch.sampling_ratio is not None:  # vLLM samples from slightly other probabilities
            loss = loss * batch.sampling_ratio
        logged = {
            "importance_ratio/deviation": (ratio - 1).abs(),
            "clip_ratio/low_mean": is_low_clipped,
            "clip_ratio/high_mean": is_high_clipped,
            "clip_ratio/region_mean": is_low_clipped | is_high_clipped,
        }
        if args.beta != 0.0:
            correction = ratio if args.use_bias_correction_kl else None
            kl = algorithm.kl_estimate(logps, cast(Tensor, batch.ref_logps), ratio=correction)
            loss = loss + args.beta * kl
            logged["kl"] = kl
        return loss, logged


def make_loss(args: DAPOConfig, *, has_auxiliary_loss: bool) -> Loss | None:
    """The loss that the settings ask for; None for one that TRL computes, on our microbatches.

    Raises:
        ConfigError: ``loss_type`` names no loss, or a setting does not go with it.
    """
    if ":" in args.loss_type:
        return _own_loss(args)
    if uses_trl_loss(args, has_auxiliary_loss=has_auxiliary_loss):
        return None
    return DAPOLoss(args)


def _own_loss(args: DAPOConfig) -> Loss:
    loss = load_object(args.loss_type, what="loss_type")
    if not (isinstance(loss, type) and issubclass(loss, Loss)):
        raise ConfigError(
            f"loss_type is {args.loss_type!r}, which is no loss: it must name a class derived from "
            "dapo_trl.update.loss.Loss."
        )
    return loss(args)


def uses_trl_loss(args: DAPOConfig, *, has_auxiliary_loss: bool) -> bool:
    """Whether the settings ask for a loss that TRL computes.

    Raises:
        ConfigError: They ask for something of ours at the same time.
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
    if foreign and args.turn_credit != "episode":
        raise ConfigError(
            f"turn_credit is {args.turn_credit!r} together with a setting whose loss TRL computes, with one advantage "
            "for each completion: use loss_type 'dapo' or 'grpo' without entropy bonus, delta or off-policy mask, or "
            "set turn_credit to episode."
        )
    return foreign
