"""Dynamic sampling: which groups enter the rollout batch, and when to draw more.

Pure bookkeeping, driven by scores that every process sees alike: the same calls with the same scores take the same
decisions, so processes cannot disagree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from ..algorithm import informative_groups
from .token_ledger import MOSTLY_TRUNCATED

SOLVED_BATCHES = 5
SOLVED_PROMPTS = 100


@dataclass
class GroupCounts:
    """Groups sampled, by the filter's decision. Every group is counted in exactly one field."""

    kept: int = 0
    """Informative; or any, where nothing is filtered."""
    all_right: int = 0
    """Dropped: every completion has the highest possible score of 1 (or more)."""
    all_wrong: int = 0
    """Dropped: every completion has a score of 0 (or less)."""
    constant: int = 0
    """Dropped: equal scores strictly between 0 and 1."""
    unscorable: int = 0
    """Dropped: no completion could be scored."""

    @property
    def sampled(self) -> int:
        return self.kept + self.all_right + self.all_wrong + self.constant + self.unscorable

    def summary(self, *, filtered: bool) -> str:
        """One sentence on the counts; without a filter it is not known which groups were informative."""
        if not filtered:
            return f"{self.sampled} groups sampled and trained on, informative or not: group_filter is none."
        return (
            f"{self.sampled} groups sampled: {self.kept} informative, {self.all_wrong} all wrong, {self.all_right} all "
            f"correct, {self.constant} constant, {self.unscorable} unscorable."
        )

    def __add__(self, other: GroupCounts) -> GroupCounts:
        return GroupCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass
class DynamicSampler:
    """Fills one rollout batch with informative groups (eq. 11).

    While `missing` is not 0, sample a round of at least `least` groups and hand their scores to `add`. How many groups
    a round takes is `selection.PromptSelector`'s business.
    """

    target: int
    """Groups of a full rollout batch."""
    rule: str = "zero_variance"
    """Rule of `algorithm.informative_groups`; ``"none"`` keeps every group."""
    min_valid_fraction: float = 1.0
    """The batch is accepted once this share of ``target`` is informative."""
    max_refill_rounds: int = 0
    """Limit on rounds after the first."""
    banked: int = 0
    """Informative groups kept from earlier batches, at most ``target``."""
    counts: GroupCounts = field(default_factory=GroupCounts)
    rounds: int = 0
    completions: int = 0
    truncated: int = 0
    """Completions sampled so far that were cut off at the length limit."""

    @property
    def have(self) -> int:
        """Groups for the batch so far; more than ``target`` when a round had more luck than expected."""
        return self.banked + self.counts.kept

    @property
    def used(self) -> int:
        """Groups of the batch as it is accepted."""
        return min(self.have, self.target)

    @property
    def enough(self) -> bool:
        return self.rule == "none" or self.have >= self.min_valid_fraction * self.target

    @property
    def refill_rounds(self) -> int:
        return max(self.rounds - 1, 0)

    @property
    def least(self) -> int:
        """The fewest groups that the next round may have: the first makes the batch full if all are informative."""
        return 1 if self.rounds else self.target - self.banked

    @property
    def missing(self) -> int:
        """Informative groups that the next round should yield; 0 when the batch is accepted or the limit is reached."""
        needed = math.ceil(self.min_valid_fraction * self.target - 1e-9) - self.have
        if self.rounds == 0:
            return 0 if self.banked >= self.target else max(needed, 1)
        return 0 if self.enough or self.refill_rounds >= self.max_refill_rounds else needed

    def add(self, scores: Tensor, *, to_go: Tensor | None = None, truncated: int = 0) -> list[str]:
        """Take one round of groups in.

        Args:
            scores: ``[groups, G]``, the score that the filter compares; NaN for unscorable completions.
            to_go: ``[groups, G, K]``: the same with the rewards of turns, from each turn on, NaN where there is no such
                turn; a group that is informative at one of them is kept too. None: there are no turns.
            truncated: Completions of the round that were cut off at the length limit.

        Returns:
            For each group the field of `GroupCounts` it was counted in.
        """
        if scores.dim() != 2:
            raise ValueError(f"scores has shape {tuple(scores.shape)}: expected [groups, G].")
        self.rounds += 1
        self.completions += scores.numel()
        self.truncated += truncated
        keep = torch.ones(len(scores), dtype=torch.bool, device=scores.device)
        if self.rule != "none":
            keep = informative_groups(scores, rule=self.rule)
            keep |= keep if to_go is None else informative_groups(to_go, rule=self.rule)
        found = ["kept" if kept else _why_dropped(row) for row, kept in zip(scores, keep.tolist(), strict=True)]
        for name in found:
            self.counts += GroupCounts(**{name: 1})
        return found


def most_groups_each(samplers: Sequence[DynamicSampler], groups: int) -> list[int]:
    """Groups that each source's next round has at most, where their common round has room for ``groups``: what is left
    beside the fewest that each needs is shared out by the groups that are missing."""
    room = max(groups - sum(sampler.least for sampler in samplers), 0)
    missing = sum(sampler.missing for sampler in samplers)
    return [
        sampler.least + (0 if sampler.rule == "none" else room * sampler.missing // missing) for sampler in samplers
    ]


def reason(samplers: Sequence[DynamicSampler]) -> str:
    """The commonest reason why groups of a rollout batch were dropped; "truncated" where completions were mostly cut
    off and wrong. The samplers are those of its sources."""
    counts = sum((sampler.counts for sampler in samplers), GroupCounts())
    found = max(_DROPPED, key=lambda name: getattr(counts, name))
    cut_off = _truncated(samplers) >= MOSTLY_TRUNCATED
    return "truncated" if found == "all_wrong" and cut_off else found


def explain(samplers: Sequence[DynamicSampler]) -> str:
    """One sentence on why too few groups of a rollout batch are informative, and what to do about it."""
    c = sum((sampler.counts for sampler in samplers), GroupCounts())
    used, target = (sum(getattr(sampler, name) for sampler in samplers) for name in ("used", "target"))
    return (
        f"{used} of {target} groups are informative after {max(sampler.rounds for sampler in samplers)} round(s): of "
        f"{c.sampled} groups sampled {c.all_wrong} were all wrong, {c.all_right} all correct, {c.constant} constant in "
        f"between and {c.unscorable} unscorable. {_ADVICE[reason(samplers)].format(truncated=_truncated(samplers))}"
    )


def _truncated(samplers: Sequence[DynamicSampler]) -> float:
    """Share of the completions that were cut off."""
    return sum(sampler.truncated for sampler in samplers) / max(sum(sampler.completions for sampler in samplers), 1)


@dataclass
class SolvedWatch:
    """Notices that there is nothing left to learn: consecutive rollout batches in which every group was all correct."""

    prompts: int
    """Minimum prompts seen since a group was last not all-correct."""
    batches: int = 0
    seen: int = 0

    def see(self, sampler: DynamicSampler) -> None:
        """Take in a rollout batch in which prompts of the source were sampled."""
        counts = sampler.counts
        if sampler.used or counts.all_right < counts.sampled:
            self.batches = self.seen = 0
        else:
            self.batches += 1
            self.seen += counts.all_right

    @property
    def is_solved(self) -> bool:
        """Whether nothing is left to learn."""
        return self.batches >= SOLVED_BATCHES and self.seen >= self.prompts

    def explain(self) -> str:
        return (
            f"the data are solved: in the last {self.batches} rollout batches every completion of all {self.seen} "
            "groups was right."
        )


def _why_dropped(scores: Tensor) -> str:
    scorable = scores[~scores.isnan()]
    if scorable.numel() == 0:
        return "unscorable"
    if scorable.max() <= 0:
        return "all_wrong"
    return "all_right" if scorable.min() >= 1 else "constant"


_DROPPED = ("all_wrong", "all_right", "constant", "unscorable")
_ADVICE = {
    "truncated": (
        "{truncated:.0%} of the completions were cut off at the length limit before they ended: raise "
        "max_completion_length, or ask for shorter answers."
    ),
    "all_wrong": (
        "The task is too hard for this model, or its answers are not recognised: look at some completions, use easier "
        "problems or a stronger model, teach the form of the answers first (dapo-trl warmup), raise num_generations or "
        "max_completion_length."
    ),
    "all_right": "The task is solved at this difficulty: use harder problems, or stop here.",
    "constant": "Scores do not vary within a prompt: filter on a finer score with filter_key, or raise temperature.",
    "unscorable": "Completions cannot be scored: look at the reward function or the environment's infra_failure.",
}
