"""Training on recorded rollouts: what is sampled depends on the prompt and the member of its group alone, so the same
data reaches the loss however the batch is split.

Run as a script (`accelerate launch ... recorded.py MODEL OUTPUT`) it takes one optimizer step and saves the weights.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
from accelerate import DistributedType, PartialState
from datasets import Dataset

from dapo_trl import DAPOConfig, DAPOTrainer

GROUP = 4
KINDS = ("mixed", "right", "wrong")


def completion(prompt: str, member: int) -> str:
    """`prompt` is "<kind> <number>": the first letter tells right (R) from wrong (W), the length varies."""
    kind = prompt.split()[0]
    right = {"right": True, "wrong": False, "mixed": member % 2 == 0}[kind]
    filler = random.Random(f"{prompt} {member}").randint(0, 20)
    return ("R" if right else "W") + "." * filler


def recorded_rollouts(prompts, trainer):
    """TRL's `rollout_func`: tokens of `completion`, the member counted over all processes."""
    tokenizer, first = trainer.processing_class, trainer.accelerator.process_index * len(prompts)
    texts = [completion(prompt, (first + i) % GROUP) for i, prompt in enumerate(prompts)]
    return {
        "prompt_ids": tokenizer(prompts)["input_ids"],
        "completion_ids": [[*ids, tokenizer.eos_token_id] for ids in tokenizer(texts)["input_ids"]],
        "logprobs": None,
    }


def correctness(prompts, completions, **_):
    return [float(text.startswith("R")) for text in completions]


def prompts_of(*kinds: str) -> Dataset:
    return Dataset.from_dict({"prompt": [f"{kind} {i}" for i, kind in enumerate(kinds)]})


def config(output: Path | str, **changes) -> DAPOConfig:
    return DAPOConfig(
        **{
            "output_dir": str(output),
            "per_device_train_batch_size": 8,
            "num_generations": GROUP,
            "max_completion_length": 32,
            "max_steps": 1,
            "learning_rate": 1e-2,
            "max_grad_norm": 0.0,
            "overlong_max_length": 10,
            "lr_scheduler_type": "constant",
            "optim": "sgd",  # one step of it shows the gradient itself
            "beta": 0.04,
            "shuffle_dataset": False,
            "gradient_checkpointing": False,
            "save_strategy": "no",
            "logging_steps": 1,
            "report_to": [],
            "disable_tqdm": True,
            "ddp_find_unused_parameters": False,
            "bf16": False,
            "use_cpu": True,
            **changes,
        }
    )


def trainer(model: str, args: DAPOConfig, dataset: Dataset, **changes) -> DAPOTrainer:
    return DAPOTrainer(
        **{
            "model": model,
            "reward_funcs": correctness,
            "args": args,
            "train_dataset": dataset,
            "rollout_func": recorded_rollouts,
            **changes,
        }
    )


def weights(trainer: DAPOTrainer) -> dict[str, torch.Tensor]:
    model = trainer.accelerator.unwrap_model(trainer.model)
    return {name: value.detach().clone() for name, value in model.named_parameters()}


UNEVEN = ("mixed", "wrong", "mixed", "right", "mixed", "mixed", "wrong", "mixed")


def one_step(
    model: str, output: Path, micro_batch: int, peft=None, rollout_func=recorded_rollouts, **changes
) -> DAPOTrainer:
    """One optimizer step on the 16 completions of four groups, cut into micro-batches of the given size."""
    processes = int(os.environ.get("WORLD_SIZE", 1))
    args = config(
        output,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=16 // (micro_batch * processes),
        learning_rate=1.0,  # so that the change of the weights is the gradient
        **{"min_valid_fraction": 1.0, **changes},
    )
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        # accelerate shards between GPUs alone; told that these processes are such, it shards on the CPU all the same
        PartialState().distributed_type = DistributedType.MULTI_GPU
    run = trainer(model, args, prompts_of(*UNEVEN), peft_config=peft, rollout_func=rollout_func)
    run.train()
    return run


if __name__ == "__main__":
    model, output = sys.argv[1:3]
    budget = int(sys.argv[5]) if len(sys.argv) > 5 else None
    run = one_step(model, Path(output), int(sys.argv[3]), max_refill_rounds=int(sys.argv[4]), microbatch_tokens=budget)
    trained = run.accelerator.get_state_dict(run.model_wrapped)  # gathered, where it is sharded
    if run.accelerator.is_main_process:
        found = {
            "weights": {name: trained[name] for name in weights(run)},
            "kind": run.accelerator.distributed_type.value,
            "logs": run.state.log_history[0],
            "processes": run.accelerator.num_processes,
        }
        torch.save(found, Path(output) / "found.pt")
    run.close()
