"""A plan as text and as JSON."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ..rollout.mixture import share_of
from .devices import GIB, MIB
from .planner import Plan
from .remedies import PAPER_GROUP_SIZE, PAPER_GROUPS, PAPER_UPDATES, Remedy
from .schedule import Schedule, seconds_per_step

WIDTH = 100
"""Characters of a line."""
_UNBROKEN = "\0"
SHARDING = {"none": "", "ddp": ", DDP", "zero2": ", ZeRO-2", "zero3": ", ZeRO-3", "fsdp2": ", FSDP2"}


def as_text(plan: Plan, sentences: Sequence[str], changes: Sequence[Remedy], paper: Remedy | None = None) -> str:
    """The plan as a page of text.

    Args:
        changes: Those that make it fit, or those that fit too.
        paper: The change to the paper's batch, if that is another.
    """
    parts = [_model(plan), _memory(plan), [*_schedule(plan), *_paper(paper)]]
    if sentences:
        parts.append(["Warnings", *(_wrapped(f"- {sentence}", "  ", "    ") for sentence in sentences)])
    parts.append([_verdict(plan), *_changes(plan, changes)])
    return "\n\n".join("\n".join(lines) for lines in parts)


def as_dict(
    plan: Plan, sentences: Sequence[str], changes: Sequence[Remedy], paper: Remedy | None = None
) -> dict[str, Any]:
    """The plan as plain data; sizes in bytes, times in seconds, infinity and unknown values as null. Arguments as for
    `as_text`."""
    s, weights, card, seconds = plan.schedule, plan.weights, plan.args.card, _seconds(plan)
    found = {
        **asdict(s),
        "refill": s.refill,
        "completions": s.completions,
        "warmup_batches": s.warmup_batches,
        "generated_tokens": s.generated_tokens,
        "most_generated_tokens": s.most_generated_tokens,
        "trained_tokens": s.trained_tokens,
        "total_tokens": s.total_tokens,
        "seconds_per_step": seconds,
        "total_seconds": None if s.steps is None else seconds * s.steps,
    }
    return {
        "model": plan.run.model,
        "env": plan.run.env,
        "shares": {entry.name: share_of(entry, plan.run.entries()) for entry in plan.run.entries()},
        "card": {"name": card.name, "memory": card.memory, "planned_for": plan.capacity},
        "placement": asdict(plan.args.placement),
        "parameters": {"trained": weights.trained, "frozen": weights.frozen, "in_4_bits": weights.quantized},
        "memory": {**asdict(plan.memory), "fullest": plan.memory.fullest, "peak": plan.memory.peak},
        "schedule": {name: _finite(value) for name, value in found.items()},
        "warnings": list(sentences),
        "fits": plan.fits,
        "changes": [_as_data(remedy) for remedy in changes],
        "paper_batch": None if paper is None else _as_data(paper),
    }


def _as_data(remedy: Remedy) -> dict[str, Any]:
    return {**asdict(remedy), "change": remedy.change.name, "flags": " ".join(remedy.change.flags)}


def size_text(size: float) -> str:
    """A size in GiB, a small one in MiB."""
    return f"{size / GIB:,.1f} GiB" if size >= GIB else f"{size / MIB:,.0f} MiB"


def _model(plan: Plan) -> list[str]:
    w, run, card = plan.weights, plan.run, plan.args.card
    what = f"a LoRA of rank {run.lora_rank} on {w.base:,} weights" if run.lora_rank else f"all {w.base:,} weights"
    lines = [f"{run.model} on {run.env_text}", f"  trains {what}"]
    if run.lora_rank:
        bits = f", {w.quantized:,} of them in 4 bits" if w.quantized else ""
        lines.append(f"  {w.trained:,} parameters trained ({w.trained / w.base:.2%}), {w.frozen:,} frozen{bits}")
    placement = plan.args.placement
    lines.append(
        f"  on {placement.count} x {card.name} ({size_text(card.memory)}){SHARDING[placement.sharding]}; "
        f"context of {f'{plan.context:,}' if plan.context else 'any number of'} tokens"
    )
    return lines


def _memory(plan: Plan) -> list[str]:
    memory = plan.memory

    def line(name: str, size: str, note: str = "") -> str:
        return f"  {name:<38} {size:>12}  {note}".rstrip()

    lines = ["Memory of each device, at most (estimate)"]
    lines += [line(name, size_text(size)) for name, size in memory.held.items()]
    for name, parts in memory.phases.items():
        mark = "<- the most" if name == memory.fullest else ""
        lines.append(line(f"in {name}", f"+ {size_text(sum(parts.values()))}", mark))
        lines += [line(f"  {part}", size_text(size)) for part, size in parts.items() if size]
    lines.append(line("peak", size_text(memory.peak), f"of {size_text(plan.capacity)} planned for"))
    if plan.args.card.kind == "cpu":
        lines += [
            "  (tensors alone: the C library may keep as much again of freed memory, unless",
            "  MALLOC_MMAP_THRESHOLD_=131072 is set)",
        ]
    return lines


def _schedule(plan: Plan) -> list[str]:
    s, placement = plan.schedule, plan.args.placement
    length = "each as long as the limit" if plan.assumed.completion_tokens is None else "of the given mean length"
    rates = ", ".join(f"{rate:g}" for rate in plan.assumed.pass_rates)
    lines = [
        "What the run does",
        f"  {_length(s)}",
        f"  a rollout batch: {_count(s.groups, 'group')} x {s.group_size} = {s.completions:,} completions, "
        f"{_count(s.updates, 'update')}",
        *_mixture(plan),
        f"  an update: {s.completions_per_update:,} completions, {_count(s.passes, 'pass', 'passes')} a device of at "
        f"most {s.pass_tokens:,} tokens",
        f"  warm-up: {_warmup(plan)}",
    ]
    if plan.task.seen:
        lines.append(
            f"  prompts: {s.prompt_tokens:.0f} tokens on average, {plan.task.prompt_longest} at most of those seen"
        )
    if plan.task.note:
        lines.append(f"  ({plan.task.note})")
    each = f"{s.refill:.2f} groups generated for each trained on" if s.filled else f"{s.sampled:.0f} groups generated"
    lines += [
        f"  at pass rate {rates}: {each}, {_count(s.rounds, 'round', form='.1f')},",
        f"  {s.filled:.0%} of a full rollout batch trained on",
        f"  tokens of a rollout batch: {s.generated_tokens:,.0f} generated, {s.trained_tokens:,.0f} trained on",
    ]
    if s.total_tokens is not None:
        lines.append(f"  tokens of the run: {s.total_tokens:,.0f} generated")
    lines += [
        f"  (at this pass rate, with completions {length};",
        f"  at any other up to {s.most_generated_tokens:,.0f} in a rollout batch)",
    ]
    speed = plan.assumed.speed
    if speed is None:
        return [
            *lines,
            "  time: unknown; --calibrate DIR measures it in a minute, --calibration RUN_DIR takes a run's",
        ]
    seconds = _seconds(plan)
    in_all = "" if s.steps is None else f", {_duration(seconds * s.steps)} in all"
    lines += [
        f"  time: {seconds:,.2f} s a step{in_all}, at the speed of {speed.source}",
        f"  ({speed.generated:,.0f} tokens/s generated, {speed.trained:,.0f} trained on, a device)",
    ]
    if plan.args.use_vllm or placement.count > 1:
        lines.append("  (a lower bound: communication between devices is not included)")
    return lines


def _mixture(plan: Plan) -> list[str]:
    """The places of each environment in a rollout batch; empty without a mixture."""
    entries, groups = plan.run.entries(), plan.schedule.groups
    return [
        f"    {entry.name}: {share_of(entry, entries) * groups:.3g} groups of it on average, {entry.id}"
        for entry in (entries if len(entries) > 1 else [])
    ]


def _length(s: Schedule) -> str:
    """How long the run is."""
    epochs = "" if s.epochs is None else f"{s.epochs:.2g} epoch{'' if s.epochs == 1 else 's'}"
    if s.steps is None or s.rollout_batches is None:
        return f"{epochs}; optimizer steps are not known without the number of prompts: --rows N"
    walks = f", {epochs}" if epochs else ""
    return (
        f"{_count(s.steps, 'optimizer step')} on {_count(s.rollout_batches, 'rollout batch', 'rollout batches')}{walks}"
    )


def _warmup(plan: Plan) -> str:
    steps, batches = plan.schedule.warmup_steps, plan.schedule.warmup_batches
    if steps is None or batches is None:
        return f"{plan.args.warmup_steps:.2g} of the optimizer steps"
    return f"{_count(steps, 'optimizer step')} = {_count(batches, 'rollout batch', 'rollout batches', form='g')}"


def _count(number: float, one: str, many: str = "", *, form: str = ",") -> str:
    """A number with its noun."""
    return f"{number:{form}} {one if number == 1 else many or one + 's'}"


def _seconds(plan: Plan) -> float:
    if plan.assumed.speed is None:
        return math.nan
    devices, iterations = plan.args.placement.count, plan.args.num_iterations
    return seconds_per_step(plan.schedule, plan.assumed.speed, devices=devices, iterations=iterations)


def _duration(seconds: float) -> str:
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


def _changes(plan: Plan, changes: Sequence[Remedy]) -> list[str]:
    if not changes:
        return []
    lines = ["The memory that is left takes, each by itself:" if plan.fits else "What would help most, each by itself:"]
    for number, remedy in enumerate(changes, 1):
        fits = ", and it fits" if remedy.fits and not plan.fits else ""
        differs = f" ({size_text(abs(remedy.saves))} {'less' if remedy.saves > 0 else 'more'})" if remedy.saves else ""
        lines.append(f"  {number}. {remedy.change.name}: {size_text(remedy.peak)}{differs}{fits}")
        lines.append(_flags(remedy))
    return lines


def _paper(paper: Remedy | None) -> list[str]:
    """The settings that make the paper's batch of this one."""
    if paper is None:
        return []
    memory = f"{size_text(paper.peak)}, {'it fits' if paper.fits else 'it does not fit'}"
    size = f"{PAPER_GROUPS} groups x {PAPER_GROUP_SIZE} = {PAPER_GROUPS * PAPER_GROUP_SIZE:,} completions"
    return [f"  the paper's rollout batch is {size}, {PAPER_UPDATES} updates; here ({memory}):", _flags(paper)]


def _flags(remedy: Remedy) -> str:
    flags = " ".join(flag.replace(" ", _UNBROKEN) for flag in remedy.change.flags)
    return _wrapped(flags, "     ", "     ").replace(_UNBROKEN, " ")


def _wrapped(text: str, first: str, rest: str) -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
