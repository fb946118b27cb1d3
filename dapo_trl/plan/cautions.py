"""Warnings of a run that fits: mistakes and settings without effect; one sentence each, with the change that helps."""

from __future__ import annotations

import torch

from ..checks import context_overflow, inert_settings, learning_rate_cautions, vllm_cautions
from ..run.lora import idle_adapter_settings
from .planner import Plan

NEAR_THE_LIMIT = 0.8
"""Share of max_completion_length; with a mean length above it, many completions are truncated."""
FEWEST_GROUPS = 4
"""Smallest sensible number of groups in a rollout batch; with fewer, one dropped group is a quarter of it or more."""


def cautions(plan: Plan) -> list[str]:
    """All warnings of a plan."""
    weights, sharded = plan.weights, plan.args.placement.sharding not in ("none", "ddp")
    return [
        *inert_settings(plan.args),
        *vllm_cautions(plan.args, plan.config),
        *idle_adapter_settings(plan.run),
        *_lengths(plan),
        *_batches(plan),
        *learning_rate_cautions(
            plan.args.learning_rate,
            parameters=weights.base,
            adapter=plan.run.lora_rank > 0,
            half=not sharded and weights.trained_bytes < 4 * weights.trained,
        ),
        *_time(plan),
        *_devices(plan),
    ]


def _lengths(plan: Plan) -> list[str]:
    args, found = plan.args, []
    limit = args.max_completion_length
    task = plan.task
    if sentence := context_overflow(plan.config, prompt=task.prompt_longest, completion=limit, examples=task.examples):
        found.append(f"the run will stop at once: {sentence}")
    shape, longest = args.overlong_shape, args.overlong_max_length
    if shape != "none" and longest is not None and longest > limit:
        found.append(
            f"completions are cut off at max_completion_length {limit} before the overlong penalty reaches its end at "
            f"overlong_max_length {longest}. Raise the first or lower the second."
        )
    mean, cut_off = plan.assumed.completion_tokens, plan.assumed.cut_off
    if cut_off > 0.1:
        found.append(
            f"{cut_off:.0%} of the completions were cut off at the limit in the run that the figures are from. Raise "
            f"max_completion_length above {limit}."
        )
    elif mean is not None and mean > NEAR_THE_LIMIT * limit:
        found.append(
            f"completions of {mean:.0f} tokens on average leave little room below max_completion_length {limit}: many "
            "will be cut off. Raise it."
        )
    return found


def _batches(plan: Plan) -> list[str]:
    schedule, found = plan.schedule, []
    if schedule.completions_per_update < schedule.group_size:
        found.append(
            f"an optimizer step has {schedule.completions_per_update} completions, less than a group of "
            f"{schedule.group_size}: it rarely sees a right and a wrong answer to the same prompt. Raise "
            "gradient_accumulation_steps and steps_per_generation together."
        )
    if plan.args.filters_groups and schedule.groups < FEWEST_GROUPS:
        found.append(
            f"a rollout batch has fewer than {FEWEST_GROUPS} groups ({schedule.groups}), so a single one that is "
            "dropped or kept decides much. Raise steps_per_generation, or lower num_generations."
        )
    rows = plan.task.rows
    if rows is not None and rows < schedule.groups:
        found.append(
            f"the data have {rows} prompts and a rollout batch takes {schedule.groups} groups: the same prompt comes "
            "several times in one batch. Lower steps_per_generation, or use more data."
        )
    if schedule.filled == 0:
        found.append("at this pass rate no group is ever informative: there is nothing to train on.")
    elif schedule.refill > 4:
        found.append(
            f"at this pass rate {schedule.refill:.1f} groups are generated for each that is trained on. Take problems "
            "of another difficulty, raise num_generations, or set prompt_selection to predicted."
        )
    return found


def _time(plan: Plan) -> list[str]:
    args, steps, warmup, found = plan.args, plan.schedule.steps, plan.schedule.warmup_steps, []
    if steps is not None and warmup is not None and warmup >= steps:
        found.append(
            f"the warm-up of {warmup} steps is as long as the run of {steps}: the learning rate is never reached. "
            "Lower warmup_steps."
        )
    if plan.assumed.unlike:
        found.append(
            f"{plan.assumed.unlike}: nothing of that run is used, and the time is not known. Give --calibration a run "
            "of this model on such a device."
        )
    strategy = str(getattr(args.save_strategy, "value", args.save_strategy))
    if strategy == "no" or (strategy == "steps" and steps is not None and args.save_steps > steps):
        why = "save_strategy is 'no'" if strategy == "no" else f"save_steps is {args.save_steps:g}, the run has {steps}"
        found.append(
            f"no checkpoint is written ({why}): an interrupted run cannot go on, unless it is stopped cleanly."
        )
    return found


def _devices(plan: Plan) -> list[str]:
    args, found = plan.args, []
    halves = plan.dtype == torch.bfloat16
    if not args.card.bf16 and (args.bf16 or halves):
        switches = ["bf16 to false", "fp16 to true"] if args.bf16 else []
        other = "float16" if plan.run.lora_rank else "float32"  # a gradient in float16 cannot be unscaled
        switches += [f"dtype in model_init_kwargs to {other}"] if halves else []
        found.append(f"{args.card.name} does not compute in bfloat16. Set {' and '.join(switches)}.")
    if plan.vllm_shortage:
        found.append(
            f"vLLM's share of {args.vllm_gpu_memory_utilization:.0%} is too small for the model and one sequence of "
            "full length. Raise vllm_gpu_memory_utilization or vllm_tensor_parallel_size."
        )
    return found
