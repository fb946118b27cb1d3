"""Steps, rollout batches, tokens, warm-up and time of a planned run; and the speed of a run that has ended."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig

from ..errors import ConfigError
from ..monitor.metrics_file import read_metrics
from ..settings import read_mapping
from .devices import Card
from .trace import count_weights, read_config


@dataclass(frozen=True)
class Speed:
    """Tokens per second of one device."""

    generated: float
    """Completion tokens generated and scored per second."""
    trained: float
    """Completion tokens trained on per second, log-probabilities and everything else included."""
    source: str
    """Where the figures come from."""


@dataclass(frozen=True)
class Schedule:
    """Figures of all devices together. A completion counts as ``completion_tokens``."""

    steps: int | None
    """Optimizer steps of the run; None: unknown, because the number of rows is."""
    rollout_batches: int | None
    groups: int
    """Groups of a rollout batch."""
    group_size: int
    updates: int
    """Optimizer steps on each rollout batch."""
    completions_per_update: int
    passes: int
    """Microbatches of each device in an optimizer step, when all completions have the longest length."""
    pass_tokens: int
    """Tokens of a microbatch then, prompts included."""
    warmup_steps: int | None
    """Optimizer steps of the warm-up; None: a share of an unknown number of steps."""
    epochs: float | None
    """Walks through the data; None: the data are endless."""
    sampled: float
    """Groups generated for a rollout batch."""
    most_sampled: int
    """Groups generated for a rollout batch at most, whatever the pass rate."""
    rounds: float
    """Rounds of generation for a rollout batch."""
    filled: float
    """Share of a full rollout batch that is trained on; ``min_valid_fraction`` allows less than 1."""
    prompt_tokens: float
    completion_tokens: float

    @property
    def completions(self) -> int:
        """Completions of a full rollout batch."""
        return self.groups * self.group_size

    @property
    def warmup_batches(self) -> float | None:
        """Rollout batches of the warm-up; None: unknown."""
        return None if self.warmup_steps is None else self.warmup_steps / self.updates

    @property
    def refill(self) -> float:
        """Groups generated per group trained on; infinite if no group is ever informative."""
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
    def most_generated_tokens(self) -> float:
        """The same at most, whatever the pass rate."""
        return self.most_sampled * self.group_size * self.completion_tokens

    @property
    def total_tokens(self) -> float | None:
        """Completion tokens generated in the run; None: its length is not known."""
        return None if self.rollout_batches is None else self.rollout_batches * self.generated_tokens


def optimizer_steps(
    *, max_steps: int, epochs: float, rows: int | None, groups: int, updates: int
) -> tuple[int | None, float | None]:
    """Optimizer steps of a run and its walks through the data, as the trainer counts them: an epoch has as many rollout
    batches as the rows fill, and at least one.

    Args:
        rows: rows of the data; None: endless or unknown, and then the steps of ``epochs`` are unknown too.
    """
    if max_steps > 0:
        return max_steps, None if rows is None else max_steps / updates * groups / rows
    if rows is None:
        return None, epochs
    return math.ceil(epochs * max(rows // groups, 1) * updates), epochs


def seconds_per_step(schedule: Schedule, speed: Speed, *, devices: int, iterations: int) -> float:
    """Mean seconds of an optimizer step, its share of the rollout batch included.

    Generation and training follow one another, and both are shared out evenly. Every device is as fast as the one
    measured: communication costs nothing here, so this is a lower bound.
    """
    generation = schedule.generated_tokens / (speed.generated * devices)
    training = iterations * schedule.trained_tokens / (speed.trained * devices)
    return (generation + training) / schedule.updates


# Calibration: speed and lengths of a run, from its folder

SAME_SIZE = 0.1
"""Relative difference in parameters up to which two models count as equally fast."""


@dataclass(frozen=True)
class Calibration:
    """Speed and lengths of a run that has ended."""

    speed: Speed
    completion_tokens: float
    """Mean completion length, in tokens."""
    cut_off: float
    """Share of the last logged completions that were truncated at the limit."""
    model: PreTrainedConfig | None = None
    """Config of the model; None: unknown from the run's folder."""
    on_cpu: bool = False
    """Whether ``use_cpu`` was set."""


def read_run(folder: str) -> Calibration:
    """Measure the speed of a run and the length of its completions.

    Generation: tokens and seconds of the run's ledger, verification included. Training: what else an optimizer step
    took, log-probabilities, the optimizer and everything else included, for the tokens trained on.

    Args:
        folder: of a run by `dapo-trl train`, on one device, with the same model and like lengths.

    Raises:
        ConfigError: it is not the folder of a run, or the run trained on nothing.
    """
    needed = ("step_time", "ledger/tokens", "completions/mean_length", "completions/clipped_ratio")
    rows = [row for row in read_metrics(Path(folder) / "metrics.jsonl") if all(name in row for name in needed)]
    if not rows:
        raise ConfigError(
            f"calibration is {folder!r}: there is no metrics.jsonl with optimizer steps in it. Give the folder of a "
            "run by dapo-trl train."
        )
    last = rows[-1]
    steps = [b - a for a, b in itertools.pairwise([0, *(row["step"] for row in rows)])]  # that each row is a mean over
    seconds = sum(row["step_time"] * count for row, count in zip(rows, steps, strict=True))
    generating = sum(value for name, value in last.items() if name.startswith("ledger/") and name.endswith("_seconds"))
    generated, trained = last["ledger/tokens"], last["ledger/trained_tokens"]
    if not (trained and generating and seconds > generating):
        raise ConfigError(
            f"calibration is {folder!r}: a run that trained on {trained:.0f} tokens in {last['step']} steps shows "
            "no speed."
        )
    settings = _settings(Path(folder))
    iterations = int(settings.get("num_iterations", 1))
    speed = Speed(generated / generating, iterations * trained / (seconds - generating), folder)
    mean = sum(row["completions/mean_length"] for row in rows) / len(rows)
    model = _model(Path(folder), settings)
    return Calibration(speed, mean, last["completions/clipped_ratio"], model, bool(settings.get("use_cpu")))


def unlike(known: Calibration, model: PreTrainedConfig, card: Card) -> str:
    """How a run differs from one of this model on this card; empty when no difference is known."""
    if known.model is not None:
        theirs, ours = (count_weights(shape, dtype=torch.float32).base for shape in (known.model, model))
        if abs(theirs - ours) > SAME_SIZE * ours:
            return f"the model of {known.speed.source} has {theirs:,} weights, and this one {ours:,}"
    if known.on_cpu and card.kind != "cpu":
        return f"{known.speed.source} ran on a CPU, and this is on {card.name}"
    return ""


def _settings(folder: Path) -> dict[str, Any]:
    """The settings that the run was given."""
    path = folder / "config.yaml"
    return read_mapping(path) if path.is_file() else {}


def _model(folder: Path, settings: dict[str, Any]) -> PreTrainedConfig | None:
    """Config of the saved model or, if that is an adapter, of its base model."""
    saved = folder / "model"
    try:
        return read_config(str(saved if (saved / "config.json").is_file() else settings["model"]))
    except (ConfigError, KeyError):
        return None
