"""A run on three environments of a random model: `python -m tests.support.mixture_run MODEL FOLDER RESUME`, alone or
under `accelerate launch`. What it did is saved in FOLDER/found.pt."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch

from dapo_trl import DAPOTrainer
from envs import Judgement, TaskEnv

from . import recorded


class Holds(TaskEnv):
    """Right when the completion holds one of some letters."""

    num_rows = 9

    def __init__(self, name: str, letters: str):
        super().__init__()
        self.name, self.letters = name, letters

    def row(self, index):
        return {"prompt": f"{self.name} {index}: ", "level": index % 2}

    def verify(self, row, completion):
        found = sum(letter in self.letters for letter in completion)
        return replace(Judgement.of(found > 0), details={"figures": {"found": found}})


MIXTURE: list[Any] = [
    {"id": Holds("vowel", "aeiou"), "name": "vowels", "weight": 2},
    {"id": Holds("digit", "0123456789"), "name": "digits", "max_completion_length": 6},
    {"id": Holds("any", "abcdefghijklm"), "name": "early", "weight": 1.5, "group_filter": "all_zero"},
]


def train(model: str, folder: Path | str, resume: str | None = None, env: Any = None, **changes: Any) -> DAPOTrainer:
    settings: dict[str, Any] = {
        "max_steps": 8,
        "per_device_train_batch_size": 4,
        "steps_per_generation": 8,
        "gradient_accumulation_steps": 4,
        "max_completion_length": 12,
        "min_valid_fraction": 1.0,
        "max_refill_rounds": 30,
        "shuffle_dataset": True,
        "prompt_selection": "predicted",
        "optim": "adamw_torch",
        "learning_rate": 1e-3,
        "save_strategy": "steps",
        "save_steps": 3,
    }
    args = recorded.config(folder, **{**settings, **changes})
    run = DAPOTrainer(model, args=args, env=MIXTURE if env is None else env)
    run.train(resume_from_checkpoint=resume)
    return run


def outcome(run: DAPOTrainer) -> dict[str, Any]:
    """What an undisturbed and a resumed run have in common, seconds left out."""
    state = run.sampling.state_dict()
    for source in state["sources"].values():
        del source["ledger"]["seconds"]
        source["surplus"] = [group["tokens"] for group in source["surplus"]]
    return {"weights": recorded.weights(run), "state": state, "processes": run.accelerator.num_processes}


if __name__ == "__main__":
    torch.set_num_threads(1)
    model, folder, resume = sys.argv[1:]
    run = train(model, folder, resume or None, per_device_train_batch_size=2)
    if run.accelerator.is_main_process:
        torch.save({**outcome(run), "logs": run.state.log_history}, Path(folder) / "found.pt")
    run.close()
