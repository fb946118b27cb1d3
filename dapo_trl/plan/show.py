"""A plan as text and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .planner import Plan, size_text
from .remedies import Remedy
from .schedule import seconds_per_step

SHARDING = {
    "none": "",
    "ddp": ", DDP",
    "zero2": ", ZeRO-2",
    "zero3": ", ZeRO-3",
    "fsdp2": ", FSDP2",
}


def as_text(plan: Plan, sentences: Sequence[str], changes: Sequence[Remedy]) -> str:
    """The plan as a page of text."""
    lines = [*_model(plan), "", *_memory(plan), "", *_schedule(plan)]
    if sentences:
        lines += ["", "Warnings", *(f"  - {sentence}" for sentence in sentences)]
    lines += ["", _verdict(plan)]
    if not plan.fits and changes:
        lines.append("What would help most, each by itself:")
        lines += [
            f"  {number}. {remedy.change}: saves {size_text(remedy.saves)}, then {size_text(remedy.peak)}"
            f"{', fits' if remedy.fits else ''}"
            for number, remedy in enumerate(changes, 1)
        ]
    return "\n".join(lines)


def as_dict(plan: Plan, sentences: Sequence[str], changes: Sequence[Remedy]) -> dict[str, Any]:
    """The plan as plain data; sizes in bytes, times in seconds, infinity as null."""
    s, weights = plan.schedule, plan.weights
    return {
        "model": plan.run.model,
        "env": plan.run.env,
        "device": {
            "name": plan.devices.card.name,
            "memory": plan.devices.card.memory,
            "planned_for": plan.capacity,
            "count": plan.devices.count,
            "sharding": plan.devices.sharding,
        },
        "parameters": {"trained": weights.trained, "frozen": weights.frozen, "in_4_bits": weights.quantized},
        "memory": {
            "held": dict(plan.memory.held),
            "phases": {name: dict(parts) for name, parts in plan.memory.phases.items()},
            "fullest": plan.memory.fullest,
            "peak": plan.memory.peak,
        },
        "schedule": {
            "optimizer_steps": s.steps,
            "rollout_batches": s.rollout_batches,
            "groups": s.groups,
            "completions": s.completions,
            "updates_per_rollout_batch": s.updates,
            "completions_per_update": s.completions_per_update,
            "passes_per_update": s.passes,
            "tokens_per_pass": s.pass_tokens,
            "warmup_steps": s.warmup_steps,
            "warmup_rollout_batches": s.warmup_batches,
            "epochs": s.epochs,
            "refill_factor": _finite(s.refill),
            "generated_tokens_per_rollout_batch": _finite(s.generated_tokens),
            "trained_tokens_per_rollout_batch": s.trained_tokens,
            "total_tokens": _finite(s.total_tokens),
            "seconds_per_step": _finite(_seconds(plan)),
            "total_seconds": _finite(_seconds(plan) * s.steps),
        },
        "warnings": list(sentences),
        "fits": plan.fits,
        "changes": [{"change": c.change, "saves": c.saves, "peak": c.peak, "fits": c.fits} for c in changes],
    }


def _model(plan: Plan) -> list[str]:
    w, run = plan.weights, plan.run
    what = f"LoRA of rank {run.lora_rank} on {w.base:,} weights" if run.lora_rank else f"all {w.base:,} weights"
    lines = [f"{run.model} on {run.env}: trains {what}"]
    if run.lora_rank:
        bits = f", {w.quantized:,} of them in 4 bits" if w.quantized else ""
        lines.append(f"  {w.trained:,} parameters trained ({w.trained / w.base:.2%}), {w.frozen:,} frozen{bits}")
    card = plan.devices.card
    lines.append(
        f"  on {plan.devices.count} x {card.name} ({size_text(card.memory)}){SHARDING[plan.devices.sharding]}; "
        f"context {plan.context or 'unlimited'} tokens"
    )
    return lines


def _memory(plan: Plan) -> list[str]:
    memory = plan.memory
    lines = ["Memory of each device (estimate)"]
    lines += [f"  {name:<38} {size_text(size):>12}" for name, size in memory.held.items()]
    for name, parts in memory.phases.items():
        mark = "  <- the most" if name == memory.fullest else ""
        lines.append(f"  {f'in {name}':<38} {'+ ' + size_text(sum(parts.values())):>12}{mark}")
        lines += [f"    {part:<36} {size_text(size):>12}" for part, size in parts.items() if size]
    lines.append(f"  {'peak':<38} {size_text(memory.peak):>12}  of {size_text(plan.capacity)} planned for")
    return lines


def _schedule(plan: Plan) -> list[str]:
    s, args = plan.schedule, plan.args
    epochs = "" if s.epochs is None else f", {s.epochs:.2g} walks through the data"
    bound = "at most " if plan.assumed.completion_tokens is None else ""
    rates = ", ".join(f"{rate:g}" for rate in plan.assumed.pass_rates)
    lines = [
        "What the run does",
        f"  {s.steps:,} optimizer steps on {s.rollout_batches:,} rollout batches{epochs}",
        f"  a rollout batch: {s.groups} groups x {s.group_size} = {s.completions:,} completions, {s.updates} update(s)",
        f"  an update: {s.completions_per_update:,} completions, {s.passes} pass(es) a device of at most "
        f"{s.pass_tokens:,} tokens",
        f"  warm-up: {s.warmup_steps} optimizer steps = {s.warmup_batches:g} rollout batches",
        f"  prompts: {s.prompt_tokens:.0f} tokens on average, {plan.task.prompt_longest} at most seen",
        f"  at pass rate {rates}: {s.refill:.2f} groups generated for each trained on, in {s.rounds:.1f} round(s); "
        f"{s.filled:.0%} of a full batch is trained on",
        f"  completion tokens of a rollout batch: {bound}{s.generated_tokens:,.0f} generated, "
        f"{bound}{s.trained_tokens:,.0f} trained on",
        f"  in the run: {bound}{s.total_tokens:,.0f} generated",
    ]
    if plan.task.note:
        lines.append(f"  ({plan.task.note})")
    if plan.assumed.speed is None:
        lines.append("  time: unknown; --calibration RUN_DIR takes the speed of an earlier run")
    else:
        each = _seconds(plan)
        lines.append(
            f"  time: {each:,.2f} s a step, {_duration(each * s.steps)} in all, at the speed of "
            f"{plan.assumed.speed.source} "
            f"({plan.assumed.speed.generated:,.0f} tokens/s generated, {plan.assumed.speed.trained:,.0f} trained)"
        )
        if args.use_vllm or plan.devices.count > 1:
            lines.append("  (a lower bound: what devices tell each other is not in it)")
    return lines


def _seconds(plan: Plan) -> float:
    if plan.assumed.speed is None:
        return math.nan
    return seconds_per_step(
        plan.schedule, plan.assumed.speed, devices=plan.devices.count, iterations=plan.args.num_iterations
    )


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "forever"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def _verdict(plan: Plan) -> str:
    need, have = size_text(plan.memory.peak), size_text(plan.capacity)
    if plan.fits:
        return f"It fits: {need} of {have}."
    if plan.memory.peak > plan.capacity:
        return f"It does not fit: {need}, and {have} are planned for."
    if plan.vllm_shortage:
        return f"It does not fit: vLLM's share lacks {size_text(plan.vllm_shortage)}."
    return f"It does not fit: rows of {plan.longest} tokens, and the model's context holds {plan.context}."


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
