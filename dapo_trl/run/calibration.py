"""A minute of training on the device at hand, for the speed of a planned run (``dapo-trl plan --calibrate DIR``)."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from ..config import DAPOConfig
from ..errors import ConfigError
from ..monitor.callbacks import WriteMetrics
from ..monitor.metrics_file import MetricsFile
from ..trainer import DAPOTrainer
from .changes import plain
from .lora import start_model
from .settings import RunConfig, load_settings
from .startup import check_folder, quieten, share_cores
from .train import explain_model_errors, training_environments

SECONDS = 60
"""Time that is measured, at least; the rollout batch that is begun then is finished."""
_WITHOUT = {
    "eval_problems": 0,
    "eval_every": 0,
    "eval_without_adapter": False,
    "max_steps": 10**6,
    "save_strategy": "no",
    "report_to": "none",
    "push_to_hub": False,
    "resume_from_checkpoint": None,
}
"""Settings that would change the time, or end the run, in place of those of the planned run."""


def calibrate(files: list[str], flags: list[str], folder: Path) -> None:
    """Train with the settings of a planned run and keep the metrics; neither the model nor a checkpoint is kept.

    Args:
        files: Configuration files of the planned run.
        flags: Its flags.
        folder: Receives ``metrics.jsonl`` and ``config.yaml``, as `plan.schedule.read_run` reads them.

    Raises:
        ConfigError: The folder is in use, or the run cannot be made.
    """
    check_folder("calibrate", folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(
            f"calibrate is {folder}: it exists already. Take its speed with --calibration {folder}, or name another."
        )
    more = {**_WITHOUT, "output_dir": str(folder)}
    run, args, asked = load_settings(files, [*flags, *(f"--{name}={_written(more[name])}" for name in more)])
    args.logging_steps, args.group_filter = args.updates_per_rollout, "none"  # every batch is trained on
    quieten(Console(quiet=True))
    share_cores(args.device, args.world_size)
    trainer = _trainer(run, args)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(plain(asked), sort_keys=False), encoding="utf-8")
    for default in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(default)
    trainer.add_callback(WriteMetrics(MetricsFile(folder / "metrics.jsonl")))
    trainer.add_callback(_TimeLimit(args.updates_per_rollout))
    try:
        trainer.train()
    finally:
        trainer.close()


def _trainer(run: RunConfig, args: DAPOConfig) -> DAPOTrainer:
    entries = [replace(entry, group_filter=None) for entry in training_environments(run, args)]
    with explain_model_errors(run, args):
        return DAPOTrainer(args=args, env=entries, **start_model(run, args))


def _written(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).split("\n")[0]


class _TimeLimit(TrainerCallback):
    """Ends training after `SECONDS`, once a rollout batch is trained on."""

    def __init__(self, updates: int):
        self.updates, self.start = updates, 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.start = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self.updates == 0 and time.perf_counter() - self.start >= SECONDS:
            control.should_training_stop = True
