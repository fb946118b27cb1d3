"""How fast a run was and how long its completions, from what it left in its folder."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import PreTrainedConfig

from ..errors import ConfigError
from ..monitor.metrics_file import read_metrics
from .devices import Card
from .schedule import Speed
from .weights import count_weights, read_config

SAME_SIZE = 0.1
"""share by which the parameters of two models may differ that are taken to be equally fast"""


@dataclass(frozen=True)
class Calibration:
    """What a run was like."""

    speed: Speed
    completion_tokens: float
    """mean"""
    cut_off: float
    """share of the completions that were cut off at the limit, of late"""
    model: PreTrainedConfig | None = None
    """shape of the model; None: its folder does not tell"""
    on_cpu: bool = False
    """``use_cpu`` was set"""


def read_run(folder: str) -> Calibration:
    """How fast a run was, and how long its completions were.

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
            f"calibration is {folder!r}: a run that trained on {trained:.0f} tokens in {last['step']} steps says "
            "nothing of the speed."
        )
    settings = _settings(Path(folder))
    iterations = int(settings.get("num_iterations", 1))
    speed = Speed(generated / generating, iterations * trained / (seconds - generating), folder)
    mean = sum(row["completions/mean_length"] for row in rows) / len(rows)
    model = _model(Path(folder), settings)
    return Calibration(speed, mean, last["completions/clipped_ratio"], model, bool(settings.get("use_cpu")))


def unlike(known: Calibration, model: PreTrainedConfig, card: Card) -> str:
    """How a run differs from one of this model on this card; empty when it does not, as far as its folder tells."""
    if known.model is not None:
        theirs, ours = (count_weights(shape, dtype=torch.float32).base for shape in (known.model, model))
        if abs(theirs - ours) > SAME_SIZE * ours:
            return f"the model of {known.speed.source} has {theirs:,} weights, and this one {ours:,}"
    if known.on_cpu and card.kind != "cpu":
        return f"{known.speed.source} ran on a CPU, and this is on {card.name}"
    return ""


def _settings(folder: Path) -> dict[str, Any]:
    """Those that the run kept."""
    path = folder / "config.yaml"
    return (yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None) or {}


def _model(folder: Path, settings: dict[str, Any]) -> PreTrainedConfig | None:
    """Of the saved model, or where that is an adapter, of the one it was trained on."""
    saved = folder / "model"
    try:
        return read_config(str(saved if (saved / "config.json").is_file() else settings["model"]))
    except (ConfigError, KeyError):
        return None
