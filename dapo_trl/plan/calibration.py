"""Tokens per second, from the metrics of a run that was."""

from __future__ import annotations

import itertools
from pathlib import Path

import yaml

from ..callbacks import read_metrics
from ..errors import ConfigError
from .schedule import Speed


def speed_of(folder: str) -> tuple[Speed, float, float]:
    """How fast a run was, and how long its completions were.

    Generation: tokens and seconds of the run's ledger, verification included. Training: what else an optimizer step
    took, log-probabilities, the optimizer and everything else included, for the tokens trained on.

    Args:
        folder: of a run by `dapo-trl train`, on one device, with the same model and like lengths.

    Returns:
        Tokens per second; mean tokens of a completion; share of the completions cut off at the limit.

    Raises:
        ConfigError: it is not the folder of a run, or the run trained on nothing.
    """
    rows = [
        row for row in read_metrics(Path(folder) / "metrics.jsonl") if "step_time" in row and "ledger/tokens" in row
    ]
    if not rows:
        raise ConfigError(
            f"calibration is {folder!r}: there is no metrics.jsonl with optimizer steps in it. Give the folder of a "
            "run by dapo-trl train."
        )
    last = rows[-1]
    counts = [
        b - a for a, b in itertools.pairwise([0, *(row["step"] for row in rows)])
    ]  # each row is a mean over these
    seconds = sum(row["step_time"] * count for row, count in zip(rows, counts, strict=True))
    spent = [value for name, value in last.items() if name.startswith("ledger/") and name.endswith("_seconds")]
    generating, generated, trained = sum(spent), last["ledger/tokens"], last["ledger/trained_tokens"]
    if not (trained and generating and seconds > generating):
        raise ConfigError(
            f"calibration is {folder!r}: a run that trained on {trained:.0f} tokens in {last['step']} steps says "
            "nothing of the speed."
        )
    lengths = [row for row in rows if "completions/mean_length" in row]
    mean = sum(row["completions/mean_length"] for row in lengths) / len(lengths)
    cut = lengths[-1].get("completions/clipped_ratio", 0.0)
    passes = _iterations(Path(folder))
    return Speed(generated / generating, passes * trained / (seconds - generating), folder), mean, cut


def _iterations(folder: Path) -> int:
    """Passes over each rollout batch, from the settings that the run kept."""
    path = folder / "config.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    return int((values or {}).get("num_iterations", 1))
