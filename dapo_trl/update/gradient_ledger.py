"""The gradient ledger: an account for every part of the gradient weight of an optimizer step.

A token of the model weighs |its advantage|, before anything is taken away. That weight acts, or is lost:

- ``mismatch``: a token with correction ``w`` (`mismatch.correction`) keeps the share ``w``, so ``1 - w`` is entered
  here. Where ``w`` is above 1 that is negative: the account is the net loss, 0 on average where nothing is cut off.
- ``clipped_low``, ``clipped_high``: the share that the correction keeps, of a token without gradient by the clip.
- ``truncated``: the whole weight of completions that are masked because they were cut off, with the advantage of their
  first turn where each turn has its own.
- ``zero``: completions with advantage 0, at every turn, have no weight, so each of their tokens is entered with the
  mean weight of the others; the share of this account is then the share of such tokens among all.

The accounts sum to the whole. A penalty or an entropy bonus beside the surrogate is not part of it, and losses that TRL
computes have no ledger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor

from .batching import Microbatch

ACCOUNTS = {
    "acting": "moves the policy",
    "clipped_low": "clipped at 1 - epsilon",
    "clipped_high": "clipped at 1 + epsilon_high",
    "mismatch": "taken away by mismatch_correction, less what it adds",
    "truncated": "of completions masked because cut off at the limit (mask_truncated_completions)",
    "zero": "of completions with advantage 0, by their tokens",
}
_SUMS = (*ACCOUNTS, "others", "squares", "long", "long_mismatch")
"""The sums of an optimizer step: the weight of each account (tokens for ``zero``), tokens with an advantage, the weight
times ``w`` squared, the weight of long completions, and the part of it that the correction takes."""


def gradient_sums(
    advantages: Tensor,
    mask: Tensor,
    *,
    masked_tokens: Tensor,
    is_low_clipped: Tensor | None = None,
    is_high_clipped: Tensor | None = None,
    weights: Tensor | None = None,
    long: int,
) -> Tensor:
    """The sums of a microbatch, from which `gradient_shares` makes the shares of an optimizer step.

    Args:
        advantages: ``[N]``, or ``[N, T]`` where each turn has its own.
        mask: ``[N, T]``: 1 for the tokens that the loss counts.
        masked_tokens: ``[N]``, or a scalar: tokens of a completion that is masked altogether, else 0.
        is_low_clipped, is_high_clipped: ``[N, T]`` or ``[N, 1]`` bool; None: nothing is clipped.
        weights: ``[N, T]``: the correction for the sampler's probabilities; None: there is none.
        long: Tokens above which a completion is long.

    Returns:
        One number for each of `_SUMS`; those of microbatches and processes are added.
    """
    size, tokens = advantages.abs().float().view(len(advantages), -1), mask.sum(dim=1) + masked_tokens
    first = size[:, 0]
    whole = size * mask
    weight = whole.sum(dim=1) + first * masked_tokens
    kept = whole if weights is None else whole * weights
    none = torch.zeros_like(mask[:, :1], dtype=torch.bool)
    low = none if is_low_clipped is None else is_low_clipped
    high = none if is_high_clipped is None else is_high_clipped & ~low
    taken, is_long = whole - kept, (tokens > long).unsqueeze(1)
    sums = {  # products, because choosing by a mask would wait for the device
        "acting": kept * ~(low | high),
        "clipped_low": kept * low,
        "clipped_high": kept * high,
        "mismatch": taken,
        "truncated": first * masked_tokens,
        "zero": tokens * (weight == 0),
        "others": tokens * (weight > 0),
        "squares": whole if weights is None else kept * weights,
        "long": whole * is_long,
        "long_mismatch": taken * is_long,
    }
    return torch.stack([sums[name].float().sum() for name in _SUMS])


def gradient_shares(sums: Sequence[float]) -> dict[str, float]:
    """The share of each account in the gradient weight of an optimizer step; they sum to 1.

    Args:
        sums: As `gradient_sums` gives them, of all microbatches and processes.

    Returns:
        Shares by account, ``sample_size``: the effective sample size of the correction, 1 where all tokens keep the
        same share of their weight, and ``mismatch_long``: the share that the correction takes of long completions,
        missing without any. Empty for a step without tokens.
    """
    of = dict(zip(_SUMS, sums, strict=True))
    tokens = of["zero"] + of["others"]
    if not tokens:
        return {}
    zero = of["zero"] / tokens
    weighted = [name for name in ACCOUNTS if name != "zero"]
    whole = sum(of[name] for name in weighted)
    found = {name: of[name] / whole * (1 - zero) if whole else 0.0 for name in weighted} | {"zero": zero}
    kept = of["acting"] + of["clipped_low"] + of["clipped_high"]
    corrected = kept + of["mismatch"]
    if corrected:
        found["sample_size"] = kept**2 / (corrected * of["squares"]) if of["squares"] else 0.0
    if of["long"]:
        found["mismatch_long"] = of["long_mismatch"] / of["long"]
    return found


class GradientLedger:
    """The sums of one optimizer step, kept on the device until they are read once.

    Args:
        long: Tokens above which a completion is long.
        corrects: Whether there is a correction; without it, its figures are left out.
    """

    def __init__(self, *, long: int, corrects: bool):
        self._long, self._corrects = long, corrects
        self._sums: Tensor | None = None

    def clear(self) -> None:
        self._sums = None

    @torch.no_grad()
    def add(self, batch: Microbatch, logged: Mapping[str, Tensor]) -> None:
        """Add a microbatch.

        Args:
            logged: The metrics of its loss, with what was clipped if the loss clips.
        """
        found = gradient_sums(
            batch.advantages,
            batch.loss_mask,
            masked_tokens=torch.tensor(list(batch.masked_tokens) or 0, device=batch.advantages.device),
            is_low_clipped=logged.get("clip_ratio/low_mean"),
            is_high_clipped=logged.get("clip_ratio/high_mean"),
            weights=batch.sampling_ratio,
            long=self._long,
        )
        self._sums = found if self._sums is None else self._sums + found

    def drain(self, accelerator: Accelerator) -> dict[str, float]:
        """The shares over all processes as metrics; empties the ledger."""
        if self._sums is None:
            return {}
        shares = gradient_shares(accelerator.reduce(self._sums, reduction="sum").tolist())
        self.clear()
        return {f"gradient/{name}": share for name, share in shares.items() if name in ACCOUNTS or self._corrects}
