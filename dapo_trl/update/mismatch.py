"""The correction for a sampler whose probabilities differ a little from the trainer's, and what it costs.

vLLM samples with other kernels and other rounding than the trainer computes with. The gradient of a token is then
weighted with the trainer's probability over the sampler's. Written d = log p_trainer - log p_sampler, a token drawn by
the sampler has E[exp d] = 1; with d of standard deviation s, nearly normal, its mean is -s^2/2. Over a completion of T
tokens the sum of d has mean -s^2 T / 2 and standard deviation s sqrt(T): a bound that is far away for one token is
passed by many completions of thousands.

================= ============================== ===============================
mode              weight of a token              expected weight
================= ============================== ===============================
none              1                              1
token_truncate    min(exp d, C)                  1, unless s is near 1
token_mask        exp d, 0 above C               Phi((ln C - s^2/2) / s)
sequence_truncate min(exp sum d, C)              falls with T
sequence_mask     exp sum d, 0 above C           Phi((ln C - s^2 T/2)/(s sqrt T))
geometric_mask    exp mean d, 0 outside 1/C to C exp(-s^2/2)
================= ============================== ===============================

Sum and mean are over the completion; C is ``vllm_importance_sampling_clip_max``; TRL's default is `sequence_mask`.
`none` is biased by the mismatch and has no variance of its own; a ratio of single tokens is biased too, since the
tokens before are taken as they are, and stays near 1; a ratio of whole completions without a bound is unbiased, but
its variance grows as exp(s^2 T): what a bound then takes away is most of the gradient of long completions.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..config import MISMATCH_CORRECTIONS, DAPOConfig

MODES = MISMATCH_CORRECTIONS
_PHI = NormalDist().cdf


class Expected(NamedTuple):
    """What a correction is expected to do to completions of one length."""

    weight: float
    """Mean weight of a token's gradient; 1: nothing is lost."""
    sample_size: float
    """Effective sample size, as a share of the completions: 1 where all weigh the same."""


def asked(args: DAPOConfig) -> dict[str, Any]:
    """``mode``, ``low`` and ``high`` of the settings, as the functions here take them."""
    low, high = args.vllm_importance_sampling_clip_min, args.vllm_importance_sampling_clip_max
    return {"mode": args.mismatch_correction, "low": low, "high": high}


def correction(differences: Tensor, mask: Tensor, mode: str, *, low: float | None, high: float | None) -> Tensor:
    """The weight of each token.

    Args:
        differences: ``[N, T]``: the trainer's log-probability less the sampler's; NaN, where the sampler gave none,
            counts as no difference.
        mask: ``[N, T]``: 1 for the tokens that the model wrote.
        mode: One of `MODES`.
        low, high: Bounds on the ratio; None: there is none.

    Returns:
        ``[N, T]``; 0 for a token whose gradient is dropped.

    Raises:
        ValueError: The mode is unknown.
    """
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}: it must be one of {', '.join(MODES)}.")
    differences = torch.nan_to_num(differences * mask, nan=0.0)
    if mode == "none":
        return torch.ones_like(differences)
    if mode.startswith("sequence"):
        differences = differences.sum(dim=1, keepdim=True).expand_as(differences)
    elif mode == "geometric_mask":
        differences = differences.sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp(min=1)
        differences = differences.expand_as(mask)
        low = 1.0 / high if low is None and high is not None else low
    ratio = differences.exp()
    if mode.endswith("truncate"):
        return ratio if low is None and high is None else ratio.clamp(low, high)
    inside = torch.ones_like(ratio, dtype=torch.bool)
    if low is not None:
        inside &= ratio >= low
    if high is not None:
        inside &= ratio <= high
    return ratio * inside


def expected(spread: float, tokens: int, mode: str, *, low: float | None, high: float | None) -> Expected:
    """What a correction does to completions of ``tokens`` tokens.

    Args:
        spread: Standard deviation of a token's log-ratio, in nats; the log-ratios are taken as independent and normal.
        mode: One of `MODES`.
        low, high: As in `correction`.
    """
    if mode == "none" or spread == 0:
        return Expected(1.0, 1.0)
    mean, width = -(spread**2) / 2, spread
    if mode.startswith("sequence"):
        mean, width = mean * tokens, width * math.sqrt(tokens)
    elif mode == "geometric_mask":
        width /= math.sqrt(tokens)
        low = 1.0 / high if low is None and high is not None else low
    bottom = -math.inf if low is None or low <= 0 else math.log(low)
    top = math.inf if high is None else math.log(high)

    def moment(power: int) -> float:
        """E[exp(power x)] over the part of the normal distribution within the bounds."""
        shifted = mean + power * width**2
        inside = _PHI((top - shifted) / width) - _PHI((bottom - shifted) / width)
        return math.exp(power * mean + (power * width) ** 2 / 2 + math.log(inside)) if inside > 0 else 0.0

    first, second = moment(1), moment(2)
    if mode.endswith("truncate"):
        beyond = 1.0 - _PHI((top - mean) / width)
        below = _PHI((bottom - mean) / width)
        for share, at in ((beyond, high), (below, low)):
            if share and at is not None:
                first, second = first + share * at, second + share * at**2
    return Expected(first, first**2 / second if second else 0.0)
