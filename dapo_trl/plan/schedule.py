"""What a run will do: steps, rollouts, tokens, warm-up and time. Numbers in, numbers out."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Speed:
    """Tokens per second of one device."""

    generated: float
    """completion tokens generated and scored"""
    trained: float
    """completion tokens trained on, log-probabilities and everything else included"""
    source: str
    """where the figures come from"""


@dataclass(frozen=True)
class Schedule:
    """Of all devices together. A completion counts as ``completion_tokens``."""

    steps: int | None
    """optimizer steps of the run; None: not known, because the number of rows is not"""
    rollout_batches: int | None
    groups: int
    """of a rollout batch"""
    group_size: int
    updates: int
    """optimizer steps on each rollout batch"""
    completions_per_update: int
    passes: int
    """of each device in an optimizer step, when all completions have the longest length"""
    pass_tokens: int
    """prompts included"""
    warmup_steps: int | None
    """None: a share of steps that are not known"""
    epochs: float | None
    """walks through the data; None: endless"""
    sampled: float
    """groups generated for a rollout batch"""
    rounds: float
    """of generation for a rollout batch"""
    filled: float
    """share of a full rollout batch that is trained on (``min_valid_fraction`` lets it be less than 1)"""
    prompt_tokens: float
    completion_tokens: float

    @property
    def completions(self) -> int:
        """Of a full rollout batch."""
        return self.groups * self.group_size

    @property
    def warmup_batches(self) -> float | None:
        return None if self.warmup_steps is None else self.warmup_steps / self.updates

    @property
    def refill(self) -> float:
        """Groups generated for each that is trained on; infinite if nothing is ever informative."""
        return self.sampled / (self.filled * self.groups) if self.filled else math.inf

    @property
    def trained_tokens(self) -> float:
        """Completion tokens trained on of a rollout batch, however many passes over it there are."""
        return self.filled * self.completions * self.completion_tokens

    @property
    def generated_tokens(self) -> float:
        """Completion tokens generated for a rollout batch."""
        return self.sampled * self.group_size * self.completion_tokens

    @property
    def total_tokens(self) -> float | None:
        """Completion tokens generated in the run; None: its length is not known."""
        return None if self.rollout_batches is None else self.rollout_batches * self.generated_tokens


def optimizer_steps(
    *, max_steps: int, epochs: float, rows: int | None, groups: int, updates: int
) -> tuple[int | None, float | None]:
    """Optimizer steps of a run and its walks through the data, as the trainer's clock counts them: an epoch has as many
    rollout batches as the rows make full ones, one at least.

    Args:
        rows: of the data; None: endless, or not known, and then ``epochs`` of them are steps that are not known either.
    """
    if max_steps > 0:
        return max_steps, None if rows is None else max_steps / updates * groups / rows
    if rows is None:
        return None, epochs
    return math.ceil(epochs * max(rows // groups, 1) * updates), epochs


def passes_per_update(rows: int, *, longest: int, budget: int) -> int:
    """MicrobatchRunner of one device in an optimizer step of ``rows`` completions that all have the longest length.

    Args:
        longest: tokens of a row, prompt included.
        budget: tokens of a pass; a row longer than that has a pass of its own.
    """
    return math.ceil(rows / max(budget // longest, 1))


def seconds_per_step(schedule: Schedule, speed: Speed, *, devices: int, iterations: int) -> float:
    """Mean seconds of an optimizer step, its share of the rollout batch included.

    Generation and training follow one another, and both are shared out evenly. Every device is as fast as the one
    measured: communication costs nothing here, so this is the least that it will take.
    """
    generation = schedule.generated_tokens / (speed.generated * devices)
    training = iterations * schedule.trained_tokens / (speed.trained * devices)
    return (generation + training) / schedule.updates
