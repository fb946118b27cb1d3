"""The mathematics of DAPO: tensors in, tensors out.

Everything the trainer optimises is computed here and nowhere else; this module imports torch alone and holds no state.
Equation numbers refer to DAPO (arXiv 2503.14476). Throughout, rows are grouped: row ``i`` belongs to prompt
``i // group_size``.

Shapes: ``B`` prompts, ``G`` completions each, ``N = B * G`` rows, ``T`` completion tokens (right-padded), ``K`` turns
of the longest episode. A tensor of another rank or size is a `ValueError` that names it; only an ``[N, 1]`` is
broadcast, where the docstring says so.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LARGEST_LOG_RATIO = 60.0
"""Beyond it a float32 ratio would overflow, and the gradient of a clipped infinity is NaN instead of 0."""


def _expect(name: str, tensor: Tensor, shape: str, *, rows: int | None = None, like: Tensor | None = None) -> None:
    """Refuse a tensor that does not have the shape it must have.

    Args:
        shape: The shape in words, such as ``"[N, T]"`` or ``"[N, T] or [N, 1]"``.
        rows: The size of its first dimension.
        like: A tensor of the same shape; the last dimension may be 1 where ``shape`` says so.

    Raises:
        ValueError: With the shape that it has and the one that it must have.
    """
    fits = tensor.dim() == shape.partition(" or ")[0].count(",") + 1 and (rows is None or tensor.shape[0] == rows)
    if fits and like is not None:
        fits = tensor.shape == like.shape or ("or [N, 1]" in shape and tensor.shape == (*like.shape[:-1], 1))
    if not fits:
        known = f", {rows} rows" if rows is not None else ""
        known += f", like the {tuple(like.shape)} beside it" if like is not None else ""
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}: expected {shape}{known}.")


def group_advantages(rewards: Tensor, group_size: int, *, scale: str = "none", eps: float = 1e-4) -> Tensor:
    """Advantage of each completion over its own group (eq. 9; without the division: Dr. GRPO, arXiv 2503.20783).

    Args:
        rewards: ``[N]``. NaN marks a completion that could not be scored: it gets advantage 0 and moves neither the
            mean nor the standard deviation of its group.
        group_size: ``G``, completions of one prompt; ``N`` must be a multiple of it.
        scale: ``"none"`` for ``R - mean``; ``"group"`` divides by the group's standard deviation plus ``eps`` (the
            paper); ``"batch"`` by that of all ``N`` rewards. Standard deviations are unbiased (Bessel), as in TRL.
        eps: Added to the standard deviation.

    Returns:
        ``[N]`` advantages.
    """
    if rewards.dim() != 1 or group_size < 1 or rewards.numel() % group_size:
        raise ValueError(
            f"rewards has shape {tuple(rewards.shape)} and group_size is {group_size}: expected a vector whose length "
            "is a multiple of group_size, rows of one prompt side by side."
        )
    groups = rewards.view(-1, group_size)
    centred = groups - groups.nanmean(dim=1, keepdim=True)
    if scale != "none":
        std = _nanstd(groups, dim=1) if _is_of_group(scale) else _nanstd(rewards, dim=0)
        centred = centred / (std + eps)
    return centred.reshape(-1).nan_to_num(nan=0.0)


def _is_of_group(scale: str) -> bool:
    """Whether a scale is the standard deviation of the group, else it is that of the batch.

    Raises:
        ValueError: It is neither.
    """
    if scale not in ("group", "batch"):
        raise ValueError(f"scale is {scale!r}: expected 'none', 'group' or 'batch'.")
    return scale == "group"


def returns_to_go(rewards: Tensor) -> Tensor:
    """What each episode earns from each of its turns on: ``G_i,t = r_i,t + r_i,t+1 + ...``, without a discount (the
    reward to go of policy gradients: what a turn earns cannot be owed to a later one).

    Args:
        rewards: ``[N, K]`` rewards of turns; NaN beyond the last turn of an episode, and throughout one that could not
            be scored.

    Returns:
        ``[N, K]``, NaN where ``rewards`` is.
    """
    _expect("rewards", rewards, "[N, K]")
    return rewards.nan_to_num(nan=0.0).flip(1).cumsum(dim=1).flip(1).masked_fill(rewards.isnan(), torch.nan)


def turn_advantages(returns: Tensor, group_size: int, *, scale: str = "none", eps: float = 1e-4) -> Tensor:
    """Advantage of each turn over the same turn of its own group: ``A_i,t = G_i,t - mean over j of G_j,t``.

    Each turn is compared by itself: its mean is that of the group's episodes that have a turn ``t``. A turn that no
    other episode of the group has gets advantage 0: there is nothing to compare it with.

    With ``scale`` all turns, of the group or of the batch, share one standard deviation, pooled over them::

        std^2 = sum over j, t of (G_j,t - mean of G_t)^2 / sum over t of (episodes that have a turn t, less 1)

    So a turn at which few episodes differ by little stays small beside one at which they differ by much, and equal
    totals of other turns are not divided by their standard deviation of 0. For one turn it is `group_advantages`.

    Args:
        returns: ``[N, K]``, such as those of `returns_to_go`; NaN where an episode has no such turn or no score.
        group_size, scale, eps: As in `group_advantages`.

    Returns:
        ``[N, K]``, 0 where ``returns`` is NaN.
    """
    _expect("returns", returns, "[N, K]")
    centred = torch.stack([group_advantages(column, group_size) for column in returns.unbind(dim=1)], dim=1)
    if scale == "none":
        return centred
    compared = returns.view(-1, group_size if _is_of_group(scale) else len(returns), returns.shape[1])
    deviations = (compared - compared.nanmean(dim=1, keepdim=True)).square().nansum(dim=(1, 2), keepdim=True)
    others = ((~compared.isnan()).sum(dim=1, keepdim=True) - 1).clamp(min=0).sum(dim=2, keepdim=True)
    std = (deviations / others).sqrt()
    return (centred.view_as(compared) / (std + eps)).nan_to_num(nan=0.0).view_as(returns)


def token_advantages(advantages: Tensor, starts: Tensor, tokens: int) -> Tensor:
    """Advantage of each token of one completion: that of its turn.

    Args:
        advantages: ``[K]`` of its turns; more than ``S`` where another episode has more.
        starts: ``[S]``: the first token of each of its turns, the first of them 0. What lies between two turns, such as
            a reply, counts as part of the earlier one.
        tokens: ``T``.

    Returns:
        ``[T]``.
    """
    _expect("advantages", advantages, "[K]")
    _expect("starts", starts, "[S]")
    if not 1 <= len(starts) <= len(advantages) or starts[0] != 0:
        raise ValueError(
            f"starts is {starts.tolist()} and advantages has {len(advantages)} turns: expected 1 to as many starts, "
            "the first of them 0."
        )
    places = torch.arange(tokens, device=starts.device)
    return advantages[torch.searchsorted(starts, places, right=True) - 1]


def decoupled_advantages(rewards: Tensor, weights: Tensor, group_size: int, *, eps: float = 1e-4) -> Tensor:
    """Advantage over several rewards, each normalised by itself before they are summed (GDPO, arXiv 2601.05242).

    Args:
        rewards: ``[N, F]``; NaN where a reward does not apply. A row of nothing but NaN gets advantage 0.
        weights: ``[F]``.
        group_size: ``G``; ``N`` must be a multiple of it.
        eps: Added to the standard deviations.

    Returns:
        ``[N]`` advantages, centred and scaled over all ``N``.
    """
    _expect("rewards", rewards, "[N, F]")
    _expect("weights", weights, "[F]", rows=rewards.shape[1])
    if group_size < 1 or rewards.shape[0] % group_size:
        raise ValueError(
            f"rewards has {rewards.shape[0]} rows and group_size is {group_size}: expected a multiple of it."
        )
    groups = rewards.view(-1, group_size, rewards.shape[1])
    each = (groups - groups.nanmean(dim=1, keepdim=True)) / (_nanstd(groups, dim=1) + eps)
    total = (each.view_as(rewards) * weights).nansum(dim=1)
    total = total.masked_fill(rewards.isnan().all(dim=1), torch.nan)
    return ((total - total.nanmean()) / (_nanstd(total, dim=0) + eps)).nan_to_num(nan=0.0)


def _nanstd(x: Tensor, dim: int) -> Tensor:
    """Unbiased standard deviation over ``dim`` (kept), ignoring NaN; NaN where fewer than two values remain."""
    count = (~x.isnan()).sum(dim=dim, keepdim=True)
    squares = (x - x.nanmean(dim=dim, keepdim=True)).square().nansum(dim=dim, keepdim=True)
    return (squares / (count - 1)).sqrt()


def informative_groups(scores: Tensor, *, rule: str = "zero_variance", tol: float = 1e-6) -> Tensor:
    """Which groups carry a learning signal (dynamic sampling, eq. 11).

    Args:
        scores: ``[B, G]``, normally the raw accuracy, or ``[B, G, K]``, one for each turn: a group is informative if
            it is at any turn. NaN entries (unscorable completions, turns that an episode does not have) are ignored; a
            group of nothing but NaN is not informative.
        rule: ``"zero_variance"`` keeps a group whose scores differ. ``"all_zero"`` keeps a group with any non-zero
            score, the literal textbook rule: it also keeps groups that are all correct, whose advantages are all 0.
        tol: Scores closer than this are equal. The comparison is max - min: a float32 standard deviation of eight
            times 0.3 is 3e-8, not 0.

    Returns:
        ``[B]`` bool.
    """
    _expect("scores", scores, "[B, G, K]" if scores.dim() == 3 else "[B, G]")
    if scores.dim() == 3:
        return torch.stack([informative_groups(turn, rule=rule, tol=tol) for turn in scores.unbind(dim=2)]).any(dim=0)
    unscorable = scores.isnan()
    if rule == "zero_variance":
        highest = scores.masked_fill(unscorable, -torch.inf).amax(dim=1)
        lowest = scores.masked_fill(unscorable, torch.inf).amin(dim=1)
        return highest - lowest > tol
    if rule == "all_zero":
        return (scores.nan_to_num(nan=0.0).abs() > tol).any(dim=1)
    raise ValueError(f"rule is {rule!r}: expected 'zero_variance' or 'all_zero'.")


def importance_ratio(logps: Tensor, old_logps: Tensor, mask: Tensor, *, level: str = "token") -> Tensor:
    """Probability ratio of the policy being trained to the policy that sampled.

    Args:
        logps: ``[N, T]`` log-probabilities of the sampled tokens under the policy being trained.
        old_logps: ``[N, T]`` the same under the policy that sampled them.
        mask: ``[N, T]``, 1 for tokens that count, 0 for padding and foreign tokens.
        level: ``"token"`` gives each token its own ratio (eq. 9). ``"sequence"`` gives the ratio of whole
            completions, the product over their tokens.

    Returns:
        ``[N, T]`` for ``"token"`` (1 where masked), ``[N, 1]`` for ``"sequence"``.
    """
    _expect("logps", logps, "[N, T]")
    _expect("old_logps", old_logps, "[N, T]", like=logps)
    _expect("mask", mask, "[N, T]", like=logps)
    log_ratio = torch.where(mask.bool(), logps - old_logps, 0.0)
    if level == "sequence":
        log_ratio = log_ratio.sum(dim=1, keepdim=True)
    elif level != "token":
        raise ValueError(f"level is {level!r}: expected 'token' or 'sequence'.")
    return log_ratio.clamp(max=_LARGEST_LOG_RATIO).exp()


def clipped_surrogate(
    ratio: Tensor, advantages: Tensor, *, epsilon_low: float = 0.2, epsilon_high: float = 0.28
) -> tuple[Tensor, Tensor, Tensor]:
    """Clip-Higher (eq. 8, 10): the lower and the upper bound of the ratio are set apart.

    For A > 0 the objective is ``min(r, 1 + epsilon_high) * A``, for A < 0 it is ``max(r, 1 - epsilon_low) * A``;
    both are PPO's ``min(r * A, clip(r) * A)``.

    Args:
        ratio: ``[N, T]`` or ``[N, 1]``.
        advantages: ``[N]``, or ``[N, T]``, one for each token, beside a ratio of that shape.
        epsilon_low: How far the ratio may fall below 1 before a negative advantage stops pushing.
        epsilon_high: How far it may rise above 1 before a positive advantage stops pulling.

    Returns:
        The loss (minus the objective), and two bool masks of the entries whose gradient was cut off at the lower and
        at the upper bound; all shaped like ``ratio``.
    """
    _expect("ratio", ratio, "[N, T] or [N, 1]")
    if advantages.dim() == 2:
        _expect("advantages", advantages, "[N, T]", like=ratio)
        a = advantages
    else:
        _expect("advantages", advantages, "[N]", rows=ratio.shape[0])
        a = advantages.unsqueeze(1)
    bounded = torch.where(a >= 0, ratio.clamp(max=1 + epsilon_high), ratio.clamp(min=1 - epsilon_low))
    is_low_clipped = (ratio < 1 - epsilon_low) & (a < 0)
    is_high_clipped = (ratio > 1 + epsilon_high) & (a > 0)
    return -bounded * a, is_low_clipped, is_high_clipped


def kl_estimate(logps: Tensor, ref_logps: Tensor, *, ratio: Tensor | None = None) -> Tensor:
    """Per-token estimate of KL(policy || reference): ``exp(d) - d - 1`` with ``d = ref_logps - logps``, never negative
    and unbiased for tokens sampled from the policy (Schulman's k3; GRPO, arXiv 2402.03300, eq. 4).

    Args:
        logps, ref_logps: ``[N, T]`` log-probabilities of the sampled tokens.
        ratio: ``[N, T]`` or ``[N, 1]`` importance ratio; multiplied in, it makes the estimate unbiased for tokens that
            an earlier policy sampled (DeepSeek-V3.2, arXiv 2512.02556).

    Returns:
        ``[N, T]``.
    """
    _expect("logps", logps, "[N, T]")
    _expect("ref_logps", ref_logps, "[N, T]", like=logps)
    if ratio is not None:
        _expect("ratio", ratio, "[N, T] or [N, 1]", like=logps)
    difference = ref_logps - logps
    estimate = difference.exp() - difference - 1
    return estimate if ratio is None else estimate * ratio


def aggregate_loss(
    loss: Tensor, mask: Tensor, *, mode: str = "token", normalizer: Tensor | float | None = None
) -> Tensor:
    """Reduce a per-token loss to a scalar.

    ``"token"`` (eq. 12) weighs every token alike, so a long completion counts for its length. ``"sequence"`` is GRPO's
    mean over completions of the mean over tokens.

    Args:
        loss: ``[N, T]``, or ``[N, 1]``: the same for every token of a completion.
        mask: ``[N, T]``, 1 for tokens that count.
        mode: ``"token"`` or ``"sequence"``.
        normalizer: The divisor of the sum: active tokens (``"token"``) or completions (``"sequence"``). Give that
            of the whole optimizer step over all processes, and the sum over micro-batches and processes is exactly
            the loss of the undivided batch. By default that of the arguments.

    Returns:
        A scalar.
    """
    _expect("mask", mask, "[N, T]")
    _expect("loss", loss, "[N, T] or [N, 1]", like=mask)
    active = mask.bool()
    loss = torch.where(active, loss, 0.0)
    if mode == "token":
        default = active.sum().clamp(min=1)
        total = loss.sum()
    elif mode == "sequence":
        default = torch.tensor(max(loss.shape[0], 1), device=loss.device)
        total = (loss.sum(dim=1) / active.sum(dim=1).clamp(min=1)).sum()
    else:
        raise ValueError(f"mode is {mode!r}: expected 'token' or 'sequence'.")
    return total / (default if normalizer is None else normalizer)
