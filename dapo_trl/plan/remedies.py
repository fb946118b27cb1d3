"""The changes that would help most when a run does not fit, found by planning again with each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from .devices import Devices
from .planner import Plan, init_kwargs, pass_shape

RANK = 32
MOST_DEVICES = 64


@dataclass(frozen=True)
class Remedy:
    """One change, and what the run would need with it alone."""

    change: str
    saves: int
    """bytes of the peak"""
    peak: int
    """bytes"""
    fits: bool


Candidate = tuple[str, dict[str, Any], Devices]
Replan = Callable[[dict[str, Any], Devices], Plan]
"""plans again with some settings replaced, on these devices"""


def remedies(plan: Plan, replan: Replan, *, most: int = 3) -> list[Remedy]:
    """The changes that save the most bytes of the peak, each tried by itself."""
    found = []
    for change, values, devices in _candidates(plan):
        try:
            changed = replan(values, devices)
        except ConfigError:
            continue  # it does not go together with the other settings
        saved = plan.memory.peak - changed.memory.peak
        if saved > 0 or (changed.fits and not plan.fits):
            found.append(Remedy(change, saved, changed.memory.peak, changed.fits))
    return sorted(found, key=lambda remedy: -remedy.saves)[:most]


def _candidates(plan: Plan) -> Iterator[Candidate]:
    if plan.run.eval_problems:
        yield "eval_problems: 0 (measure the saved model afterwards)", {"eval_problems": 0}, plan.devices
    yield from _of_training(plan)
    yield from _of_the_batch(plan)
    yield from _of_vllm(plan)
    yield from _of_the_devices(plan)


def _of_training(plan: Plan) -> Iterator[Candidate]:
    run, args, devices = plan.run, plan.args, plan.devices
    if not args.gradient_checkpointing:
        yield "gradient_checkpointing: true (a third more computing)", {"gradient_checkpointing": True}, devices
    half = devices.card.kind == "cuda" and devices.card.bf16
    weights_in_half = {"model_init_kwargs": {**init_kwargs(args), "dtype": "bfloat16"}}
    if not run.lora_rank:
        lora = {"lora_rank": RANK, "learning_rate": 1e-5}
        dtype = weights_in_half if half else {}
        yield f"LoRA: lora_rank: {RANK}{', dtype: bfloat16' if dtype else ''}", {**lora, **dtype}, devices
        if args.beta:
            yield "beta: 0 (no reference model, as in the paper)", {"beta": 0.0}, devices
        if devices.card.kind == "cuda" and "8bit" not in str(args.optim):
            yield "optim: adamw_bnb_8bit", {"optim": "adamw_bnb_8bit"}, devices
    elif half and plan.weights.frozen_bytes > 2 * plan.weights.frozen and not run.quantization:
        yield "model_init_kwargs: {dtype: bfloat16} (the weights are frozen)", weights_in_half, devices
    if run.quantization is None and devices.card.kind == "cuda":
        rank = run.lora_rank or RANK
        quantized = {"quantization": "4bit", "lora_rank": rank, "learning_rate": max(args.learning_rate, 1e-5)}
        yield f"QLoRA: quantization: 4bit, lora_rank: {rank}", {**quantized, **weights_in_half}, devices
    if half and not args.bf16 and not args.fp16:
        yield "bf16: true", {"bf16": True}, devices


def _of_the_batch(plan: Plan) -> Iterator[Candidate]:
    args, devices = plan.args, plan.devices
    rows, _ = pass_shape(args, plan.longest)
    if rows > 1:
        tokens = plan.longest * max(rows // 2, 1)
        yield f"microbatch_tokens: {tokens} (half)", {"microbatch_tokens": tokens}, devices
    if args.max_completion_length > 256:
        half = args.max_completion_length // 2
        shorter: dict[str, Any] = {"max_completion_length": half}
        if args.overlong_max_length and args.overlong_max_length > half:
            shorter |= {"overlong_max_length": None, "overlong_cache_length": None}
        yield f"max_completion_length: {half} (half)", shorter, devices
    steps, accumulation = args.micro_batches_per_rollout, args.gradient_accumulation_steps
    if not args.use_vllm and steps > accumulation and steps // 2 % accumulation == 0:
        fewer = {"steps_per_generation": steps // 2, "max_round_sequences": None}
        yield f"steps_per_generation: {steps // 2} (half a rollout batch)", fewer, devices


def _of_vllm(plan: Plan) -> Iterator[Candidate]:
    args, devices = plan.args, plan.devices
    if not args.use_vllm or args.vllm_mode != "colocate":
        return
    if not args.vllm_enable_sleep_mode:
        yield "vllm_enable_sleep_mode: true", {"vllm_enable_sleep_mode": True}, devices
    share = round(args.vllm_gpu_memory_utilization / 2, 3)
    yield f"vllm_gpu_memory_utilization: {share:g} (half)", {"vllm_gpu_memory_utilization": share}, devices


def _of_the_devices(plan: Plan) -> Iterator[Candidate]:
    devices = plan.devices
    if devices.card.kind != "cuda" or plan.run.quantization:
        return
    if not devices.shards_weights and devices.count > 1:
        yield f"FSDP2 over the {devices.count} devices", {}, dataclasses.replace(devices, sharding="fsdp2")
    count = 2 * devices.count
    if count <= MOST_DEVICES and not plan.run.lora_rank:
        kind = devices.sharding if devices.shards_weights else "fsdp2"
        name = {"fsdp2": "FSDP2", "zero3": "ZeRO-3"}[kind]
        yield f"{name} over {count} devices", {}, dataclasses.replace(devices, count=count, sharding=kind)
