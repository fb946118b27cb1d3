"""Dynamic sampling: which groups enter the rollout batch, and when to draw more.

Pure bookkeeping, driven by scores that every process sees alike: the same calls with the same scores take the same
decisions, so processes cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from torch import Tensor

from .algorithm import informative_groups


@dataclass
class GroupCounts:
    """What became of the groups sampled. Every group is counted in exactly one field."""

    kept: int = 0
    all_right: int = 0
    """dropped: every completion has the highest possible score of 1 (or more)"""
    all_wrong: int = 0
    """dropped: every completion has a score of 0 (or less)"""
    constant: int = 0
    """dropped: equal scores strictly between 0 and 1"""
    unscorable: int = 0
    """dropped: no completion could be scored"""

    @property
    def sampled(self) -> int:
        return self.kept + self.all_right + self.all_wrong + self.constant + self.unscorable

    def __add__(self, other: GroupCounts) -> GroupCounts:
        return GroupCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass
class DynamicSampler:
    """Fills one rollout batch with informative groups (eq. 11).

    Ask `groups_wanted`, sample at least that many groups, hand their scores to `add`; repeat until it answers 0. A
    round never asks for more than is missing, so that no informative group is left over, whatever the limit; where a
    round has to be larger to divide evenly, all its informative groups are kept.
    """

    target: int
    """groups of a full rollout batch"""
    rule: str = "zero_variance"
    """as in `algorithm.informative_groups`; ``"none"`` keeps every group"""
    min_valid_fraction: float = 1.0
    """the batch is accepted once this share of ``target`` is informative"""
    max_refill_rounds: int = 0
    """rounds after the first"""
    counts: GroupCounts = field(default_factory=GroupCounts)
    rounds: int = 0

    @property
    def enough(self) -> bool:
        return self.rule == "none" or self.counts.kept >= self.min_valid_fraction * self.target

    @property
    def refill_rounds(self) -> int:
        return max(self.rounds - 1, 0)

    def groups_wanted(self) -> int:
        """Groups to sample in the next round; 0 when the batch is accepted or the limit is reached."""
        if self.rounds == 0:
            return self.target
        if self.enough or self.refill_rounds >= self.max_refill_rounds:
            return 0
        return self.target - self.counts.kept

    def add(self, scores: Tensor) -> list[bool]:
        """Take one round of groups in.

        Args:
            scores: ``[groups, G]``, what the filter looks at; NaN for unscorable completions.

        Returns:
            For each group, whether to keep it.
        """
        if scores.dim() != 2:
            raise ValueError(f"scores has shape {tuple(scores.shape)}: expected [groups, G].")
        self.rounds += 1
        keep = [True] * len(scores) if self.rule == "none" else informative_groups(scores, rule=self.rule).tolist()
        for row, kept in zip(scores, keep, strict=True):
            self.counts += GroupCounts(kept=1) if kept else _dropped(row)
        return keep

    @property
    def advice(self) -> str:
        """What to do about the commonest reason why groups were dropped."""
        return _ADVICE[max(_ADVICE, key=lambda name: getattr(self.counts, name))]

    def explain(self) -> str:
        """One sentence on why too few groups are informative, and what to do about it."""
        c = self.counts
        return (
            f"{c.kept} of {self.target} groups are informative after {self.rounds} round(s): of {c.sampled} groups "
            f"sampled {c.all_wrong} were all wrong, {c.all_right} all right, {c.constant} constant in between and "
            f"{c.unscorable} unscorable. {self.advice}"
        )


def _dropped(scores: Tensor) -> GroupCounts:
    scorable = scores[~scores.isnan()]
    if scorable.numel() == 0:
        return GroupCounts(unscorable=1)
    if scorable.max() <= 0:
        return GroupCounts(all_wrong=1)
    return GroupCounts(all_right=1) if scorable.min() >= 1 else GroupCounts(constant=1)


_ADVICE = {
    "all_wrong": (
        "The task is too hard for this model, or its answers are not recognised: look at some completions, use easier "
        "problems or a stronger (warm-started) model, raise num_generations or max_completion_length."
    ),
    "all_right": "The task is solved at this difficulty: use harder problems, or stop here.",
    "constant": "Scores do not vary within a prompt: filter on a finer score with filter_key, or raise temperature.",
    "unscorable": "Completions cannot be scored: look at the reward function or the environment's infra_failure.",
}
