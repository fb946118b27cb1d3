"""A run on an environment of many turns: `python -m tests.support.turns_run MODEL FOLDER ROWS STEPS`, alone or under
`accelerate launch`. What is said is scripted, everything else is real; what it did is saved in FOLDER/found.pt."""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
from accelerate.utils import gather_object

from dapo_trl import DAPOTrainer
from dapo_trl.generation.params import Turns
from envs import TaskEnv

from . import recorded

REPLY = "ask on\n"


class Haggle(TaskEnv):
    """A question is answered, anything else ends the episode: right if it ends with "R"."""

    num_rows = 8
    max_turns = 4

    def row(self, index):
        return {"prompt": f"row {index}: "}

    def reply(self, row, turns):
        return REPLY if turns[-1].endswith("?") else None

    def verify(self, row, completion):
        return completion.endswith("R")


class Paid(Haggle):
    """Pays for the first question, and takes half of it back for each that follows."""

    def reply(self, row, turns):
        text = super().reply(row, turns)
        return None if text is None else (text, 0.5 if len(turns) == 1 else -0.25)


class Dawdling(Paid):
    """Judges three turns at once, in times that nobody knows."""

    max_concurrency = 3

    def reply(self, row, turns):
        time.sleep(random.SystemRandom().random() * 0.01)
        return super().reply(row, turns)


def said(context: str, member: int) -> str:
    """The next turn: a few questions, then the answer. The first turn names the member of its group."""
    prompt, _, rest = context.partition(": ")
    mark, member, asked = ("", int(rest[0]), rest.count(REPLY)) if rest else (str(member), member, 0)
    questions = (int(prompt.removeprefix("row ")) + member) % 3
    return mark + ("." * asked + "?" if asked < questions else "RW"[member % 2])


class Scripted(DAPOTrainer):
    """Its own generation backend."""

    calls = 0

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.backend = self

    def generate(self, contexts, *, limit, group_size, on_finished):
        self.calls += 1
        tokenizer, first = self.processing_class, self.accelerator.process_index * len(contexts)
        texts = [
            said(tokenizer.decode(ids, skip_special_tokens=True), (first + i) % 4) for i, ids in enumerate(contexts)
        ]
        ids = [[*ids, tokenizer.eos_token_id] for ids in tokenizer(texts)["input_ids"]]
        for place in random.SystemRandom().sample(range(len(ids)), len(ids) // 2):
            on_finished(place, ids[place])
        return Turns(ids, [[-1.0] * len(row) for row in ids])

    def _compute_loss(self, model, inputs):
        foreign = inputs.completion_mask.bool() & ~inputs.loss_mask.bool()
        text = [
            self.processing_class.decode(row[keep]) for row, keep in zip(inputs.completion_ids, foreign, strict=True)
        ]
        self.foreign = [*getattr(self, "foreign", []), *text[: inputs.rows]]
        return super()._compute_loss(model, inputs)


def main(model: str, folder: str, rows: int, steps: int) -> None:
    args = recorded.config(
        folder,
        per_device_train_batch_size=rows,
        steps_per_generation=steps,
        max_steps=steps * 2,
        group_filter="none",
        learning_rate=0.1,
        max_completion_length=48,
        overlong_max_length=4,
        turn_credit="to_go",
    )
    run = Scripted(model, args=args, env=Dawdling())
    run.train()
    gathered = gather_object([{"calls": run.calls, "foreign": run.foreign}])
    if run.accelerator.is_main_process:
        found = {
            "weights": recorded.weights(run),
            "processes": run.accelerator.num_processes,
            "calls": [each["calls"] for each in gathered],
            "foreign": sorted(text for each in gathered for text in each["foreign"]),
            "log": run.state.log_history[0],
        }
        torch.save(found, Path(folder) / "found.pt")
    run.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
