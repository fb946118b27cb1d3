"""A plan of a run, put together of what the other modules count, trace and work out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, cast

import torch
from peft import LoraConfig
from transformers import PreTrainedConfig

from ..adapters import peft_config
from ..autobudget import SAFETY
from ..config import DAPOConfig
from ..errors import ConfigError
from ..evaluation import evaluated_at_once
from ..settings import RunConfig
from . import memory
from .cards import GIB, MIB
from .devices import Devices, PlannedConfig
from .memory import Memory
from .refill import expected_refill
from .schedule import Schedule, Speed, optimizer_steps, passes_per_update
from .task import Task
from .trace import Footprint, footprint
from .weights import Weights, count_weights, weight_dtype

NEARLY_ALL = 0.95
"""share of a CPU's free memory that is planned for; of a GPU's it is that of ``microbatch_tokens: auto``"""


@dataclass(frozen=True)
class Assumed:
    """What no setting says."""

    pass_rates: dict[float, float]
    completion_tokens: float | None = None
    """mean; None: they are as long as they may be"""
    speed: Speed | None = None


@dataclass(frozen=True)
class Plan:
    run: RunConfig
    args: DAPOConfig
    devices: Devices
    config: PreTrainedConfig
    task: Task
    weights: Weights
    memory: Memory
    vllm_shortage: int
    """bytes that vLLM's share lacks to hold the model and one sequence; 0: it suffices, or there is none"""
    schedule: Schedule
    assumed: Assumed

    @property
    def capacity(self) -> int:
        """Bytes of a device that are planned for."""
        card = self.devices.card
        return int(card.memory * (SAFETY if card.kind == "cuda" else NEARLY_ALL))

    @property
    def longest(self) -> int:
        """Tokens of the longest row, prompt and completion."""
        return self.task.prompt_longest + self.args.max_completion_length

    @property
    def context(self) -> int | None:
        """Tokens that the model takes."""
        return getattr(self.config.get_text_config(), "max_position_embeddings", None)

    @property
    def fits(self) -> bool:
        return self.memory.peak <= self.capacity and not self.vllm_shortage and not self.exceeds_context

    @property
    def exceeds_context(self) -> bool:
        return self.context is not None and self.longest > self.context


def make_plan(run: RunConfig, args: DAPOConfig, config: PreTrainedConfig, task: Task, assumed: Assumed) -> Plan:
    """Plan a run.

    Args:
        args: made by `planned_config`, for the devices that it names.
    """
    devices = cast(PlannedConfig, args).devices
    dtype = weight_dtype(config, init_kwargs(args))
    four_bit = run.quantization == "4bit"
    weights = count_weights(config, dtype=dtype, adapter=peft_config(run), four_bit=four_bit)
    found, shortage = _memory(run, args, devices, config, task, weights, dtype)
    schedule = _schedule(args, devices, task, assumed)
    return Plan(run, args, devices, config, task, weights, found, shortage, schedule, assumed)


def init_kwargs(args: DAPOConfig) -> dict[str, Any]:
    """What the model is loaded with."""
    return args.model_init_kwargs if isinstance(args.model_init_kwargs, dict) else {}


def pass_shape(args: DAPOConfig, longest: int) -> tuple[int, int]:
    """Rows of the fullest pass, and its budget in tokens; ``auto`` is taken as unset, because it fits by itself."""
    asked = args.microbatch_tokens
    budget = asked if isinstance(asked, int) else args.per_device_train_batch_size * longest
    rows = args.per_device_train_batch_size * args.gradient_accumulation_steps
    return min(max(budget // longest, 1), rows), budget


def _memory(
    run: RunConfig,
    args: DAPOConfig,
    devices: Devices,
    config: PreTrainedConfig,
    task: Task,
    weights: Weights,
    dtype: torch.dtype,
) -> tuple[Memory, int]:
    """What one device holds, and what vLLM's share lacks."""
    cuda, optimizer = devices.card.kind == "cuda", str(getattr(args.optim, "value", args.optim))
    half = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else None
    held, gradients = memory.model_bytes(
        weights,
        sharding=devices.sharding,
        devices=devices.count,
        optimizer=optimizer,
        mixed=half is not None,
        offload=(devices.offload_optimizer, devices.offload_weights),
    )
    if args.beta and not run.lora_rank:
        held["reference model"] = memory.reference_bytes(
            weights, dtype.itemsize, sharding=devices.sharding, devices=devices.count
        )
    held |= {"CUDA context": memory.CUDA_CONTEXT} if cuda else {"interpreter and libraries": memory.LIBRARIES}
    passes = _Passes(config, peft_config(run), weights, devices, dtype, half, task.prompt_longest, args)
    own = 0 if devices.offload_optimizer else gradients["gradients"]
    phases = {
        "training": passes.training(gradients["gradients"]),
        "optimizer step": {
            **gradients,
            "scratch": memory.optimizer_scratch(
                optimizer, own, round(weights.trained_bytes * weights.largest / max(weights.trained, 1)), cuda=cuda
            ),
        },
    }
    shortage = 0
    if not args.use_vllm:
        phases["generation"] = passes.generation(cast(int, args.max_round_sequences) // devices.count)
    elif args.vllm_mode == "colocate":
        share = int(args.vllm_gpu_memory_utilization * devices.card.memory)
        sequence = passes.cache(1, args.vllm_max_model_length or passes.longest, memory.HALF)
        least = memory.vllm_needs(weights.base * memory.HALF, sequence, args.vllm_tensor_parallel_size)
        shortage = max(least - share, 0)
        if args.vllm_enable_sleep_mode:
            phases["generation"] = {"vLLM": share}
        else:
            held["vLLM"] = share
    if run.eval_problems:
        rows = min(evaluated_at_once(args), -(-run.eval_problems * run.eval_samples // devices.count))
        before = passes.generation(rows, prepared=False)
        before["optimizer states, not there yet"] = -held.get("optimizer states", 0)
        after = passes.generation(rows)
        phases["measuring accuracy"] = max(before, after, key=lambda parts: sum(parts.values()))
    return Memory(held, phases), shortage


@dataclass(frozen=True)
class _Passes:
    """Forward and backward passes, and generation, on one device."""

    config: PreTrainedConfig
    adapter: LoraConfig | None
    weights: Weights
    devices: Devices
    dtype: torch.dtype
    half: torch.dtype | None
    """the precision computed in, where it is not that of the weights"""
    prompt: int
    """tokens"""
    args: DAPOConfig

    @property
    def longest(self) -> int:
        return self.prompt + self.args.max_completion_length

    @property
    def text(self) -> PreTrainedConfig:
        return self.config.get_text_config()

    def training(self, gradients: int) -> dict[str, int]:
        """Activations, and the most that is there beside them.

        Gradients of an earlier pass of the optimizer step are there throughout. In a single pass they come as the
        activations go, so that it is the beginning or the end of the backward pass that needs the most.
        """
        rows, _ = pass_shape(self.args, self.longest)
        single = rows >= self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps
        cuda = self.devices.card.kind == "cuda"
        traced = self._traced(rows, self.longest, checkpointing=self.args.gradient_checkpointing)
        forward, backward = memory.head_bytes(
            rows * (self.args.max_completion_length if cuda else self.longest),
            vocabulary=self.text.vocab_size,
            hidden=self.text.hidden_size,
            size=(self.half or self.dtype).itemsize,
            weight_size=self.dtype.itemsize,
            trained=self.weights.head_trained,
            cuda=cuda,
        )
        peak = max(traced.forward_peak + forward, traced.kept + backward, traced.backward_peak)
        end = gradients + traced.backward_peak - traced.kept
        if single and end > peak:
            return {"gradients": gradients, "a layer's pass": end - gradients}
        parts = {"activations": traced.kept, "a layer's or the head's pass": peak - traced.kept}
        return parts if single else {"gradients": gradients, **parts}

    def generation(self, rows: int, *, prepared: bool = True) -> dict[str, int]:
        """Transformers' ``generate``.

        Args:
            prepared: in mixed precision, as the trainer prepares the model; before that it is computed as it is stored.
        """
        compute = (self.half or self.dtype) if prepared else self.dtype
        prompts = self._traced(rows, self.prompt, prepared=prepared).inference_peak
        scores = memory.sampling_bytes(rows, self.text.vocab_size)
        parts = {
            "keys and values": self.cache(rows, self.longest, compute.itemsize),
            "the prompts' pass, or scores": max(prompts, scores),
        }
        if self.devices.sharding == "zero3" and self.args.ds3_gather_for_generation:
            parts["weights gathered"] = compute.itemsize * self.weights.total
        return parts

    def cache(self, rows: int, length: int, size: int) -> int:
        text = self.text
        return memory.kv_cache_bytes(
            rows,
            length,
            layers=text.num_hidden_layers,
            heads=getattr(text, "num_key_value_heads", None) or text.num_attention_heads,
            head_size=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
            size=size,
        )

    def _traced(self, rows: int, length: int, *, checkpointing: bool = False, prepared: bool = True) -> Footprint:
        """With sharded states the weights that are computed with are in half precision, else they are cast."""
        whole = self.half is not None and self.devices.sharding in ("zero2", "zero3", "fsdp2")
        deepspeed = self.devices.sharding.startswith("zero")
        return footprint(
            self.config,
            rows=rows,
            length=length,
            dtype=cast(torch.dtype, self.half) if whole else self.dtype,
            autocast=self.half if prepared and not deepspeed else None,
            adapter=self.adapter,
            checkpointing=checkpointing,
        )


def _schedule(args: DAPOConfig, devices: Devices, task: Task, assumed: Assumed) -> Schedule:
    try:
        steps, epochs = optimizer_steps(
            max_steps=args.max_steps,
            epochs=args.num_train_epochs,
            rows=task.rows,
            groups=args.groups_per_rollout,
            updates=args.updates_per_rollout,
        )
    except ValueError as error:
        raise ConfigError(
            f"max_steps is {args.max_steps} and the data have no known end ({task.note or 'they are endless'}): set "
            "max_steps to the number of optimizer steps, or --rows to the number of prompts."
        ) from error
    longest = task.prompt_longest + args.max_completion_length
    rows = args.per_device_train_batch_size * args.gradient_accumulation_steps
    _, budget = pass_shape(args, longest)
    refill = expected_refill(args, assumed.pass_rates, rows=task.rows)
    return Schedule(
        steps=steps,
        rollout_batches=-(-steps // args.updates_per_rollout),
        groups=args.groups_per_rollout,
        group_size=args.num_generations,
        updates=args.updates_per_rollout,
        completions_per_update=rows * devices.count,
        passes=passes_per_update(rows, longest=longest, budget=budget),
        pass_tokens=budget,
        warmup_steps=args.get_warmup_steps(steps),
        epochs=epochs,
        refill=refill.factor,
        rounds=refill.rounds,
        filled=refill.filled,
        prompt_tokens=task.prompt_mean,
        completion_tokens=assumed.completion_tokens or float(args.max_completion_length),
    )


def with_rows(task: Task, rows: int | None) -> Task:
    """The task, as it would be with so many rows of data."""
    return task if rows is None else dataclasses.replace(task, rows=rows)


def size_text(size: float) -> str:
    """A size in GiB, a small one in MiB."""
    return f"{size / GIB:,.1f} GiB" if size >= GIB else f"{size / MIB:,.0f} MiB"
