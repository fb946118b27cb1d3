"""How fast a run was and how long its completions, from the metrics that it left."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import yaml

from ..callbacks import read_metrics
from ..errors import ConfigError
from .schedule import Speed


@dataclass(frozen=True)
class Calibration:
    """What a run was like."""

    speed: Speed
    completion_tokens: float
    """mean"""
    cut_off: float
    """share of the completions that were cut off at the limit, of late"""


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
    speed = Speed(generated / generating, _iterations(Path(folder)) * trained / (seconds - generating), folder)
    mean = sum(row["completions/mean_length"] for row in rows) / len(rows)
    return Calibration(speed, mean, last["completions/clipped_ratio"])


def _iterations(folder: Path) -> int:
    """Passes over each rollout batch, from the settings that the run kept."""
    path = folder / "config.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    return int((values or {}).get("num_iterations", 1))
