"""A cold start: the form of the answers is learnt from the environment's own solutions (``dapo-trl warmup``).

Rewards teach what is sampled at least now and then. For a model whose groups are all wrong because its answers have
another form, supervised training on a few hundred solutions comes first. A row is what training will see: the tokens of
its prompt, then those of a completion, and the loss is that of the completion alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium
from datasets import Dataset
from rich.console import Console
from transformers import AutoTokenizer, PrinterCallback, ProgressCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from envs import TaskEnv
from envs.contract import reset_to_row

from ..config import DAPOConfig
from ..errors import ConfigError
from ..evaluation.loading import base_and_adapter, is_adapter
from ..prompts.stream import PromptStream
from ..rollout.chat_format import ChatFormat, turn_end
from ..rollout.environments import EnvironmentRows, author_errors, env_name, row_count
from ..rollout.mixture import share_of
from .lora import check_targets, start_model
from .settings import RunConfig
from .startup import check_folder, quieten, share_cores
from .train import explain_model_errors, held_out_rows, training_environments

IGNORED = -100
"""The label of a token without loss."""
MAX_SEARCHED = 10
"""Rows that are looked through for each one wanted."""
FULL_RATE, ADAPTER_RATE = 1e-5, 2e-4
"""Learning rates of the two kinds of training, unless one is given."""
LINES = 10
"""Lines that report the loss, at most."""
_SHARED = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "gradient_checkpointing_kwargs",
    "bf16",
    "fp16",
    "use_cpu",
    "seed",
    "optim",
    "optim_args",
    "weight_decay",
    "max_grad_norm",
    "ddp_find_unused_parameters",
    "model_init_kwargs",
    "trust_remote_code",
)
"""Settings of training that hold here too."""


def warm_up(run: RunConfig, args: DAPOConfig, *, rows: int, epochs: float, learning_rate: float | None = None) -> int:
    """Carry out ``dapo-trl warmup``; returns the exit code.

    Args:
        run: As for the training that follows: model, adapter, environment, held-out problems.
        args: As for the training that follows: prompts, length limit, batch, device, folder.
        rows: Solutions that are learnt; of several environments each gives its share.
        epochs: How often each of them is.
        learning_rate: At its peak; None: `FULL_RATE`, or `ADAPTER_RATE` for an adapter.

    Raises:
        ConfigError: The folder is in use, the model cannot be loaded, or the environment has no solutions to learn.
    """
    folder = Path(str(args.output_dir))
    check_folder("output_dir", folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"output_dir is {folder}: it exists already. Name a folder that does not, or empty it.")
    console = Console(soft_wrap=True, highlight=False, quiet=int(os.environ.get("RANK", 0)) != 0)
    quieten(console)
    share_cores(args.device, args.world_size)
    entries = training_environments(run, args)
    splits, skips = held_out_rows(run, entries)
    for split in splits.values():
        if split.note:
            console.print(split.note)
    check_targets(run)
    with explain_model_errors(run, args):
        model = start_model(run, args)
        tokenizer = model.pop("processing_class", None) or AutoTokenizer.from_pretrained(str(model["model"]))
        examples = []
        for entry in entries:
            share = max(round(rows * share_of(entry, entries)), 1)
            limit = entry.max_completion_length or int(args.max_completion_length)
            examples += _examples(entry.make(), tokenizer, args, skips[entry.name], share, console, limit=limit)
        rate = learning_rate or (ADAPTER_RATE if run.lora_rank or is_adapter(run.model) else FULL_RATE)
        trainer = SFTTrainer(
            args=_settings(args, len(examples), epochs, rate),
            train_dataset=Dataset.from_list(examples),
            processing_class=tokenizer,
            **model,
        )
    for default in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(default)
    trainer.add_callback(_Lines(console))
    trainer.train()
    trainer.save_model(str(folder))
    kind = f"adapter of {base_and_adapter(str(folder), None)[0]}" if is_adapter(str(folder)) else "model"
    console.print(f"{kind}: {folder}   (dapo-trl train ... --model {folder} goes on with it)", markup=False)
    return 0


def _settings(args: DAPOConfig, rows: int, epochs: float, rate: float) -> SFTConfig:
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    steps = max(round(epochs * rows / batch), 1)
    return SFTConfig(
        **{name: getattr(args, name) for name in _SHARED},
        output_dir=str(args.output_dir),
        max_steps=steps,
        learning_rate=rate,
        lr_scheduler_type="linear",
        warmup_steps=min(steps // 10, 20),
        logging_steps=-(-steps // LINES),
        max_length=None,
        save_strategy="no",
        report_to=[],
    )


class _Lines(TrainerCallback):
    """Prints the loss."""

    def __init__(self, console: Console):
        self.console = console

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if "loss" in (logs or {}):
            self.console.print(
                f"step {state.global_step} of {state.max_steps}   loss {float(logs['loss']):.3f} nats per token"
            )


def _examples(
    env: gymnasium.Env,
    tokenizer: Any,
    args: DAPOConfig,
    skips: Callable[[Mapping[str, Any]], bool],
    rows: int,
    console: Console,
    *,
    limit: int,
) -> list[dict[str, list[int]]]:
    """The rows to learn, as ``input_ids`` and ``labels``, of completions of at most ``limit`` tokens.

    Raises:
        ConfigError: The environment has none.
    """
    template: Any = args.chat_template_kwargs or {}
    chat_format = ChatFormat(tokenizer, (turn_end(tokenizer, template),), template)
    stream = PromptStream(
        EnvironmentRows(env, tokenizer), size=row_count(env), seed=int(args.seed), shuffle=bool(args.shuffle_dataset)
    )
    searched = min(MAX_SEARCHED * rows, stream.size or MAX_SEARCHED * rows)
    candidates = (row for row in map(stream.row, range(searched)) if not (row.get("is_example") or skips(row)))
    examples: list[dict[str, list[int]]] = []
    refused: list[str] = []
    for prompt, completion, fault in _solved(env, chat_format, candidates, limit):
        if fault:
            refused.append(fault)
        else:
            examples.append({"input_ids": prompt + completion, "labels": [IGNORED] * len(prompt) + completion})
        if len(examples) == rows:
            break
    if not examples:
        reason = f"; {refused[0]}" if refused else ""
        raise ConfigError(
            f"env {env_name(env)} has no solution that can be learnt among {searched:,} rows{reason}. An environment "
            "gives its solutions with solution(index), rows of math/Problem-v0 with a worked solution as the answer."
        )
    lengths = sorted(sum(label != IGNORED for label in example["labels"]) for example in examples)
    left_out = f", {len(refused)} left out ({refused[0]})" if refused else ""
    console.print(
        f"{len(examples)} solutions of {env_name(env)}, {lengths[0]} to {lengths[-1]} tokens{left_out}.", markup=False
    )
    return examples


def _solved(
    env: gymnasium.Env, chat_format: ChatFormat, rows: Iterator[Mapping[str, Any]], limit: int
) -> Iterator[tuple[list[int], list[int], str]]:
    """The prompt's tokens of each row, those of its solution with the end of the turn, and why it cannot be learnt
    ("": it can): the environment judges it as it judges a completion in training.

    Raises:
        ConfigError: The environment has no solutions, or none of a single turn.
    """
    task = env.unwrapped
    if not isinstance(task, TaskEnv) or task.max_turns > 1:
        why = "its episodes have several turns" if isinstance(task, TaskEnv) else "it is no TaskEnv, with a solution()"
        raise ConfigError(f"env is {env_name(env)}: {why}. A cold start learns solutions of one turn.")
    (end,) = chat_format.stop_ids
    for row in rows:
        with author_errors(env, row["index"], "solution"):
            text = task.solution(row["index"])
        if text is None:
            yield [], [], f"row {row['index']} has none"
            continue
        prompt = chat_format.prompt_ids(row["prompt"])
        completion = [*chat_format.tokenizer(text, add_special_tokens=False)["input_ids"], end]
        fault = ""
        if len(completion) > limit:
            fault = f"that of row {row['index']} has {len(completion)} tokens, and max_completion_length is {limit}"
        else:
            with author_errors(env, row["index"], "step"):
                reset_to_row(env, row["index"])
                info = env.step(chat_format.completion(completion, prompt))[4]
            if info["accuracy"] != 1.0:
                fault = f"that of row {row['index']} is judged {info['verdict']}: {info['cause']}"
        yield prompt, completion, fault
