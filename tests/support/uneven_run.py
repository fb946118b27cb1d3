"""A run whose informative groups come in clumps: `python -m tests.support.uneven_run MODEL FOLDER G ROWS STEPS`,
alone or under `accelerate launch`. What it did is saved in FOLDER/found.pt."""

from __future__ import annotations

import dataclasses
import os
import random
import sys
from pathlib import Path

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
from accelerate.utils import gather_object

from dapo_trl import DAPOTrainer

from . import recorded


class Counting(DAPOTrainer):
    """Counts the rows and tokens that this process trains on."""

    rows = tokens = 0

    def _compute_loss(self, model, inputs):
        self.rows += inputs["row_count"]
        self.tokens += int(inputs.loss_mask.sum())
        return super()._compute_loss(model, inputs)


def main(model: str, folder: str, generations: int, rows: int, steps: int) -> None:
    def rollouts(prompts, trainer):
        tokenizer, first = trainer.processing_class, trainer.accelerator.process_index * len(prompts)
        texts = []
        for i, prompt in enumerate(prompts):
            member = (first + i) % generations
            right = {"right": True, "wrong": False, "mixed": member % 2 == 0}[prompt.split()[0]]
            length = int(random.Random(f"{prompt} {member}").lognormvariate(2, 1))
            texts.append(("R" if right else "W") + "." * min(length, 29))
        return {
            "prompt_ids": tokenizer(prompts)["input_ids"],
            "completion_ids": [[*ids, tokenizer.eos_token_id] for ids in tokenizer(texts)["input_ids"]],
            "logprobs": None,
        }

    args = recorded.config(
        folder,
        per_device_train_batch_size=rows,
        num_generations=generations,
        steps_per_generation=steps,
        max_steps=steps * 3,
        min_valid_fraction=1.0,
        learning_rate=0.1,
        ddp_find_unused_parameters=False,
    )
    clumps = (["mixed"] * 3 + ["wrong"] * 5 + ["right"]) * 4
    run = Counting(model, recorded.correctness, args, recorded.prompts_of(*clumps), rollout_func=rollouts)
    run.train()
    counted = gather_object([(run.rows, run.tokens)])
    if run.accelerator.is_main_process:
        found = {
            "weights": recorded.weights(run),
            "processes": run.accelerator.num_processes,
            "counts": dataclasses.asdict(run.sampling.counts),
            "tokens": run.sampling.ledger.tokens,
            "rows": [rows for rows, _ in counted],
            "row_tokens": [tokens for _, tokens in counted],
            "updates": run.state.global_step,
        }
        torch.save(found, Path(folder) / "found.pt")
    run.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
