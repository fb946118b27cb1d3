"""PURE: a tile of TRL's language-model head in fewer passes over its scores, where there is no Triton.

TRL's `ChunkedLogProbFunction` multiplies hidden states ``[n, H]`` with a slice of the vocabulary, ``[n, C]`` scores at
a time, and calls a function on each such tile, forward and backward. Written with one tensor operation for each term it
reads and writes a tile a dozen times; with a vocabulary of 49,152 that is a sixth of an update of a model of 135 M
weights. These do the same in place. What they do not know goes to TRL's own functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

TileFn = Callable[..., None]


def forward_tile(theirs: TileFn) -> TileFn:
    """TRL's ``_forward_tile``: adds a tile to the running sums of log-probabilities and entropies.

    Args:
        theirs: TRL's own, for soft caps and outputs beside these two.
    """

    def fold(
        tile: Tensor,
        stride: int,
        targets: Tensor,
        running_max: Tensor,
        sum_exp: Tensor,
        x_sum_exp: Tensor,
        *others: Any,
        **flags: Any,
    ) -> None:
        *_, target_logit, first, columns = others
        more = ("HAS_SOFTCAP", "HAS_LOG_SUM_SQ_PROBS", "HAS_MEAN_LOGITS", "HAS_IS_TOP1")
        if any(flags[name] for name in more):
            return theirs(tile, stride, targets, running_max, sum_exp, x_sum_exp, *others, **flags)
        scores = _scaled(tile, flags)
        inside, places = _places(targets, first, columns)
        found = scores.gather(1, places[:, None]).squeeze(1)
        target_logit.copy_(torch.where(inside, found, target_logit))
        most = torch.maximum(running_max, scores.amax(dim=1))
        shrunk = torch.exp(running_max - most)
        scores.sub_(most[:, None])
        exps = scores.exp()
        added = exps.sum(dim=1)
        if flags["HAS_ENTROPY"]:
            with torch.autocast(tile.device.type, enabled=False):
                products = torch.bmm(exps[:, None], scores[:, :, None]).flatten()
            x_sum_exp.mul_(shrunk).add_(products).addcmul_(most, added)
        sum_exp.mul_(shrunk).add_(added)
        running_max.copy_(most)
        return None

    return fold


def backward_tile(theirs: TileFn) -> TileFn:
    """TRL's ``_backward_tile``: a tile of scores becomes the gradient of the loss by them.

    Args:
        theirs: TRL's own, for soft caps and gradients of entropies.
    """

    def fold(
        tile: Tensor,
        stride: int,
        targets: Tensor,
        log_z: Tensor,
        entropy: Tensor,
        grad: Tensor,
        grad_entropy: Tensor,
        first: int,
        columns: int,
        **flags: Any,
    ) -> None:
        if flags["HAS_SOFTCAP"] or flags["HAS_ENTROPY_GRAD"] or not flags["HAS_LOGPROB_GRAD"]:
            return theirs(tile, stride, targets, log_z, entropy, grad, grad_entropy, first, columns, **flags)
        scale = flags["logit_scale"] * flags["inv_t"]
        inside, places = _places(targets, first, columns)
        scores = _scaled(tile, flags).sub_(log_z[:, None]).exp_()
        scores.scatter_add_(1, places[:, None], -inside.float()[:, None]).mul_(-scale * grad[:, None])
        if scores.data_ptr() != tile.data_ptr():
            tile.copy_(scores)
        return None

    return fold


def _scaled(tile: Tensor, flags: dict[str, Any]) -> Tensor:
    """The scores of a tile in float32, divided by the temperature; in place where it is float32 itself."""
    scale = flags["logit_scale"] * flags["inv_t"]
    return tile.float() if scale == 1.0 else tile.float().mul_(scale)


def _places(targets: Tensor, first: int, columns: int) -> tuple[Tensor, Tensor]:
    """Whether each target lies in a tile, and its column, ``[n]`` each."""
    local = targets - first
    return (local >= 0) & (local < columns), local.clamp(0, columns - 1)
