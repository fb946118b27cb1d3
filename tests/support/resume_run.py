"""Ten optimizer steps that can be killed, and what they ended in.

Run as a module (`tests.support.resume_run MODEL FOLDER '{"die_in_step": 7}'`, in one process or several) it trains and
saves the outcome in `FOLDER/outcome.pt`, unless it is killed before that.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
from datasets import Dataset

from dapo_trl import DAPOTrainer
from dapo_trl.run.lora import peft_config, quantization_config
from dapo_trl.run.settings import RunConfig

from .recorded import config, weights

STEPS = 10
SUMS = Dataset.from_dict({"prompt": [f"{i}+{i}=" for i in range(8)]})


def has_vowel(completions, **_):
    return [float(any(c in "aeiou" for c in text)) for text in completions]


class Mortal(DAPOTrainer):
    """Dies of SIGKILL, all processes at once, in the middle of an optimizer step or of a checkpoint."""

    die_in_step = 0
    die_in_checkpoint = 0
    micro_batches_trained = 0

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        self.micro_batches_trained += 1
        if self.state.global_step + 1 == self.die_in_step:
            self._die()
        return loss

    def _save_optimizer_and_scheduler(self, output_dir):
        if self.state.global_step == self.die_in_checkpoint:
            assert any(Path(output_dir).glob("*.safetensors")) or not self.args.should_save
            self._die()
        super()._save_optimizer_and_scheduler(output_dir)

    def _die(self):
        self.accelerator.wait_for_everyone()
        os.kill(os.getpid(), signal.SIGKILL)


def ten_steps(
    model: str,
    folder: Path | str,
    *,
    resume=None,
    die_in_step: int = 0,
    die_in_checkpoint: int = 0,
    cls: type[Mortal] = Mortal,
    eval_dataset=None,
    lora: dict[str, Any] | None = None,
    **changes,
) -> Mortal:
    """Train with dynamic sampling, four optimizer steps of two micro-batches on each rollout batch.

    Args:
        lora: settings of an adapter, as a run's.
    """
    settings: dict[str, Any] = {
        "max_steps": STEPS,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "steps_per_generation": 8,
        "max_completion_length": 16,
        "min_valid_fraction": 1.0,
        "shuffle_dataset": True,
        "optim": "adamw_torch",
        "learning_rate": 1e-3,
        "save_strategy": "steps",
        "save_steps": 5,
    }
    args = config(folder, **{**settings, **changes})
    asked = RunConfig(**(lora or {}))
    run = cls(
        model=model,
        reward_funcs=has_vowel,
        args=args,
        train_dataset=SUMS,
        eval_dataset=eval_dataset,
        peft_config=peft_config(asked),
        quantization_config=quantization_config(asked),
    )
    run.die_in_step, run.die_in_checkpoint = die_in_step, die_in_checkpoint
    run.train(resume_from_checkpoint=resume)
    return run


def outcome(run: Mortal) -> dict[str, Any]:
    """What two runs must have in common, and how many optimizer steps this one took."""
    return {
        "weights": weights(run),
        "prompts": [log["sampling/prompts"] for log in run.state.log_history if "sampling/prompts" in log][-1],
        "processes": run.accelerator.num_processes,
        "steps": run.micro_batches_trained // run.args.gradient_accumulation_steps,
    }


if __name__ == "__main__":
    model, folder, asked = sys.argv[1:]
    torch.set_num_threads(1)
    run = ten_steps(model, folder, **json.loads(asked))
    if run.accelerator.is_main_process:
        torch.save(outcome(run), Path(folder) / "outcome.pt")
    run.close()
