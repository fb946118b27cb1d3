"""A plan of a run: its task, its schedule, the memory of each device, and whether that suffices."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedConfig

from ..checks import context_length
from ..config import DAPOConfig
from ..errors import ConfigError
from ..rollout.chat_format import ChatFormat
from ..rollout.dataset_prompts import example_tokens
from ..rollout.environments import EnvironmentRows, row_count
from ..rollout.mixture import EnvEntry, share_of
from ..rollout.prompting import prompted, prompting_of
from ..run.settings import RunConfig
from ..update.memory_probe import SAFETY
from .devices import PlannedConfig
from .estimate import Estimate, loaded_dtype
from .memory import FullestPass, Memory
from .refill import expected_refill, most_groups
from .schedule import Schedule, Speed, optimizer_steps
from .trace import Weights

CPU_SHARE = 0.95
"""Share of a CPU's free memory that is planned for; of a GPU's it is the share that ``microbatch_tokens: auto``
uses."""


@dataclass(frozen=True)
class Assumed:
    """Assumptions that no setting gives."""

    pass_rates: dict[float, float]
    completion_tokens: float | None = None
    """Mean completion length in tokens; None: the limit."""
    speed: Speed | None = None
    cut_off: float = 0.0
    """Share of completions that were truncated at the limit, in the run used for calibration."""
    unlike: str = ""
    """How the calibration run differs from this one; nothing of it is used then."""


@dataclass(frozen=True)
class Plan:
    run: RunConfig
    args: PlannedConfig
    config: PreTrainedConfig
    task: TaskFacts
    assumed: Assumed
    weights: Weights
    memory: Memory
    vllm_shortage: int
    """Bytes that vLLM's share lacks to hold the model and one sequence; 0: enough, or no vLLM."""
    schedule: Schedule

    @property
    def capacity(self) -> int:
        """Bytes of a device that are planned for."""
        return int(self.args.card.memory * (SAFETY if self.args.card.kind == "cuda" else CPU_SHARE))

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights as they are loaded."""
        return loaded_dtype(self.config, self.args)

    @property
    def longest(self) -> int:
        """Tokens of the longest row, prompt and completion."""
        return self.task.prompt_longest + self.args.max_completion_length

    @property
    def context(self) -> int | None:
        """Tokens that the model takes; None: no limit is known."""
        return context_length(self.config)

    @property
    def exceeds_context(self) -> bool:
        """Whether the longest row is longer than the model's context."""
        return self.context is not None and self.longest > self.context

    @property
    def fits(self) -> bool:
        """Whether memory, vLLM's share and the context suffice."""
        return self.memory.peak <= self.capacity and not self.vllm_shortage and not self.exceeds_context


def make_plan(run: RunConfig, args: PlannedConfig, config: PreTrainedConfig, task: TaskFacts, assumed: Assumed) -> Plan:
    """Plan a run on the devices that ``args`` names.

    Raises:
        ConfigError: it has no end, or the model or its adapter cannot be built.
    """
    found = Estimate(run, args, config, task.prompt_longest)
    schedule = _schedule(args, task, assumed, found.fullest)
    return Plan(run, args, config, task, assumed, found.weights, found.memory, found.vllm_shortage, schedule)


def _schedule(args: PlannedConfig, task: TaskFacts, assumed: Assumed, fullest: FullestPass) -> Schedule:
    steps, epochs = optimizer_steps(
        max_steps=args.max_steps,
        epochs=args.num_train_epochs,
        rows=task.rows,
        groups=args.groups_per_rollout,
        updates=args.updates_per_rollout,
    )
    if steps is None and task.endless:
        raise ConfigError(
            f"max_steps is {args.max_steps} and the data are endless: set max_steps to the number of optimizer steps."
        )
    share = steps is None and 0 < args.warmup_steps < 1
    rows = args.per_device_train_batch_size * args.gradient_accumulation_steps
    refill = expected_refill(args, assumed.pass_rates, rows=task.rows, mixture=task.mixture)
    return Schedule(
        steps=steps,
        rollout_batches=None if steps is None else -(-steps // args.updates_per_rollout),
        groups=args.groups_per_rollout,
        group_size=args.num_generations,
        updates=args.updates_per_rollout,
        completions_per_update=rows * args.world_size,
        passes=fullest.passes,
        pass_tokens=fullest.tokens,
        warmup_steps=None if share else args.get_warmup_steps(steps or 0),
        epochs=epochs,
        sampled=refill.sampled,
        most_sampled=most_groups(args),
        rounds=refill.rounds,
        filled=refill.filled,
        prompt_tokens=task.prompt_mean,
        completion_tokens=min(assumed.completion_tokens or math.inf, float(args.max_completion_length)),
    )


# The task: rows and prompts of its environment

LOOKED_AT = 64
"""Prompts that are measured."""
CHARACTERS_PER_TOKEN = 3.0
"""Characters of a prompt per token where there is no tokenizer; a cautious figure for English and numbers."""
UNKNOWN_PROMPT = 512
"""Tokens assumed of a prompt when nothing is known."""


@dataclass(frozen=True)
class TaskFacts:
    rows: int | None
    """Rows of the data; None: endless or unknown."""
    prompt_mean: float
    """Mean tokens of a prompt."""
    prompt_longest: int
    """Tokens of the longest prompt."""
    note: str = ""
    """Where the lengths come from when they are not measured; may be empty."""
    seen: int = 0
    """Prompts that were measured."""
    endless: bool = False
    """Whether the environment makes prompts without end."""
    examples: int = 0
    """Tokens of each prompt that are few-shot examples."""
    mixture: tuple[tuple[float, int | None], ...] = ()
    """The share of each of several environments, and its rows; None: endless or unknown."""


def look_at_task(
    run: RunConfig, args: DAPOConfig, *, prompt_tokens: int | None = None, rows: int | None = None
) -> TaskFacts:
    """Make the environments and measure their first prompts with the model's tokenizer.

    Args:
        prompt_tokens: length of every prompt, in place of the measurement.
        rows: rows of the data, in place of the environments'.

    Raises:
        ConfigError: an environment is unknown or rejects its arguments. A Hub that cannot be reached is no error.
    """
    assert run.model is not None
    tokenizer, entries = _tokenizer(run.model), run.entries()
    found = [_look_at(entry, args, tokenizer, prompt_tokens) for entry in entries]
    endless = any(one.endless for one in found)
    sizes = [one.rows for one in found if one.rows is not None]
    return TaskFacts(
        rows or (sum(sizes) if len(sizes) == len(found) else None),
        sum(share_of(entry, entries) * one.prompt_mean for entry, one in zip(entries, found, strict=True)),
        max(one.prompt_longest for one in found),
        "; ".join(dict.fromkeys(one.note for one in found if one.note)),
        sum(one.seen for one in found),
        endless,
        max(one.examples for one in found),
        _shares(entries, found) if len(found) > 1 else (),
    )


def _shares(entries: list[EnvEntry], found: list[TaskFacts]) -> tuple[tuple[float, int | None], ...]:
    return tuple((share_of(entry, entries), one.rows) for entry, one in zip(entries, found, strict=True))


def _look_at(entry: EnvEntry, args: DAPOConfig, tokenizer: Any, prompt_tokens: int | None) -> TaskFacts:
    """The facts of one environment."""
    try:
        env = prompted(entry.make(), args)
    except ConfigError as error:
        if not _out_of_reach(error):
            raise
        tokens = prompt_tokens or UNKNOWN_PROMPT
        return TaskFacts(None, tokens, tokens, f"the data cannot be read here; prompts are taken to be {tokens} tokens")
    size = row_count(env)
    if prompt_tokens is not None:
        note = f"prompts are taken to be {prompt_tokens} tokens"
        return TaskFacts(size, prompt_tokens, prompt_tokens, note, endless=size is None)
    examples = 0
    source = EnvironmentRows(env, tokenizer)
    prompts = [source[index]["prompt"] for index in range(min(size or LOOKED_AT, LOOKED_AT))]
    if tokenizer is None:
        lengths = [int(len(prompt) / CHARACTERS_PER_TOKEN) + 1 for prompt in prompts]
        note = f"no tokenizer at hand: {CHARACTERS_PER_TOKEN:g} characters of a prompt are taken for a token"
    else:
        template = args.chat_template_kwargs if isinstance(args.chat_template_kwargs, dict) else {}
        chat_format = ChatFormat(tokenizer, (), template)
        lengths, note = [len(chat_format.prompt_ids(prompt)) for prompt in prompts], ""
        if (layer := prompting_of(env)) is not None:
            examples = example_tokens(layer.format, chat_format)
    return TaskFacts(size, sum(lengths) / len(lengths), max(lengths), note, len(lengths), size is None, examples)


def _tokenizer(model: str) -> Any:
    try:
        return AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _out_of_reach(error: BaseException) -> bool:
    """Whether an error comes from the network."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ConnectionError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
