"""A run of many turns on `vllm_stand_in`: `python -m tests.support.vllm_run MODEL FOLDER '{"vllm_mode": "server"}'`,
alone or under `accelerate launch`. What it did is saved in FOLDER/found.pt."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
from accelerate.utils import gather_object

from dapo_trl import DAPOTrainer
from envs import TaskEnv

from . import recorded, vllm_stand_in


class Asking(TaskEnv):
    """Asks again by chance: some episodes take one turn, some three."""

    num_rows = 12
    max_turns = 3

    def row(self, index):
        return {"prompt": f"row {index}: "}

    def reply(self, row, turns):
        return "ask on\n" if len(turns[-1]) % 2 and len(turns) < 3 else None

    def verify(self, row, completion):
        return any(letter in "ae" for letter in completion)


class Watched(DAPOTrainer):
    rounds = 0

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.ratios: list[torch.Tensor] = []
        sample = self._collector._sample

        def counted(rows, numbers):
            self.rounds += 1
            return sample(rows, numbers)

        self._collector._sample = counted

    def _compute_loss(self, model, inputs):
        """The correction that the loss is multiplied by, as the mean difference of the log-probabilities per token."""
        rows, mask = inputs.rows, inputs.loss_mask
        difference = inputs.sampling_ratio.log()
        if self.args.mismatch_correction.startswith("sequence"):
            difference = difference / mask.sum(dim=1, keepdim=True)
        self.ratios.append(difference[:rows][mask[:rows].bool()])
        return super()._compute_loss(model, inputs)


def main(model: str, folder: str, changes: dict) -> dict:
    vllm_stand_in.install(model)
    processes = int(os.environ.get("WORLD_SIZE", 1))
    args = recorded.config(
        folder,
        use_vllm=True,
        num_generations=8,
        per_device_train_batch_size=8 // processes,
        steps_per_generation=3,  # three groups of eight: on two processes, one of them is on both
        max_steps=12,
        max_round_sequences=24,
        min_valid_fraction=1.0,
        learning_rate=1e-3,
        optim="adamw_torch",
        max_completion_length=24,
        vllm_importance_sampling_clip_max=1000.0,
        **changes,
    )
    run = Watched(model, args=args, env=Asking())
    run.train()
    engines = [(e.pushes, e.requests) for e in (*vllm_stand_in.LLM.made, *vllm_stand_in.Client.made)]
    found = {
        "engines": gather_object(engines),
        "ratios": torch.cat(gather_object([torch.cat(run.ratios)])),
        "rounds": run.rounds,
        "logs": run.state.log_history,
        "names": sorted(name for name, _ in run.accelerator.unwrap_model(run.model).named_parameters()),
    }
    run.close()
    return found


if __name__ == "__main__":
    model, folder, changes = sys.argv[1:]
    torch.set_num_threads(1)
    found = main(model, folder, json.loads(changes))
    if int(os.environ.get("RANK", 0)) == 0:
        torch.save(found, Path(folder) / "found.pt")
