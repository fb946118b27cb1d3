"""What will go wrong, or do nothing, though it fits; one sentence each, with the change that helps.

Those of settings alone need no plan: training gives the same warnings when it starts.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, cast

import torch
from accelerate.utils import DistributedType
from peft import PeftModel

from ..config import DAPOConfig
from ..run.settings import RunConfig

if TYPE_CHECKING:
    from .planner import Plan

FULL_RATE_LIMIT = 1e-5
"""Full training of a large model is commonly run at 1e-6 (the paper's), and diverges well above this."""
LORA_RATE_LEAST = 5e-6
"""An adapter's best learning rate is about ten times that of full training, whatever its rank (Schulman et al., LoRA
Without Regret, 2025), so that what suits full training hardly moves it."""
LARGE_MODEL = 100_000_000
"""Parameters from which `FULL_RATE_LIMIT` holds; small models take more (the quick start 2e-4)."""
NEAR_THE_LIMIT = 0.8
"""of max_completion_length: with a mean above that, many completions are cut off"""
FEWEST_GROUPS = 4
"""in a rollout batch: with fewer, one dropped group is a quarter of it or more"""


def inert_settings(args: DAPOConfig) -> list[str]:
    """Settings that cannot act as they are meant to, or act the other way round."""
    found = []
    if args.updates_per_rollout < 2:
        found.append(
            "clip-higher is inert: each rollout batch gets a single update, so the ratio is always 1. Raise "
            f"steps_per_generation above gradient_accumulation_steps ({args.gradient_accumulation_steps}), or "
            "num_iterations above 1."
        )
    if args.epsilon_high is not None and args.epsilon_high < args.epsilon:
        found.append(
            f"the clip is wider below than above (epsilon {args.epsilon}, epsilon_high {args.epsilon_high}), the "
            "reverse of Clip-Higher. Raise epsilon_high above epsilon."
        )
    if args.microbatch_tokens == "auto" and args.device.type != "cuda":
        found.append(
            "microbatch_tokens is 'auto' and there is no GPU to measure: per_device_train_batch_size completions of "
            "the longest length are taken. Set a number of tokens to have another."
        )
    if 0 < cast(int, args.surplus_max_age) < args.updates_per_rollout:
        found.append(
            f"the surplus bank is inert: what it keeps is {args.updates_per_rollout} optimizer steps old by the next "
            f"rollout batch, and surplus_max_age is {args.surplus_max_age}. Raise it to {args.updates_per_rollout} or "
            "more, or set it to 0."
        )
    if args.prompt_selection != "uniform" and not args.filters_groups:
        found.append(
            "prompt_selection is 'predicted' and group_filter is 'none': prompts are still chosen by how likely they "
            "teach something, but what teaches nothing is trained on all the same."
        )
    if args.overlong_shape != "none":
        longest, cache = args.overlong["max_length"], args.overlong["cache_length"]
        start = longest - (cache if args.overlong_shape == "soft" else 0)
        if start >= args.max_completion_length:
            found.append(
                f"the overlong penalty is inert: it starts past {start} tokens, and no completion is longer than "
                f"max_completion_length {args.max_completion_length}. Lower overlong_max_length."
            )
    return found


def learning_rate_cautions(rate: float, *, parameters: int, adapter: bool, half: bool) -> list[str]:
    """Learning rates that suit another kind of training.

    Args:
        rate: at its highest.
        parameters: of the model, without adapter.
        adapter: it is an adapter that is trained.
        half: what is trained is kept in half precision.
    """
    if adapter:
        if rate >= LORA_RATE_LEAST:
            return []
        return [
            f"learning_rate {rate:g} suits full training: an adapter hardly moves with it. Take ten times as much "
            "(1e-5 to 2e-5)."
        ]
    if parameters < LARGE_MODEL:
        return []
    found = []
    if rate > FULL_RATE_LIMIT:
        found.append(
            f"learning_rate {rate:g} is that of an adapter: full training of a model of this size is likely to "
            "diverge. Take 1e-6, or set lora_rank."
        )
    if half:
        found.append(
            f"the trained weights are in half precision: an update at learning_rate {rate:g} is mostly rounded away. "
            "Leave dtype out of model_init_kwargs (float32), or set lora_rank."
        )
    return found


def cautions_at_start(model: Any, args: DAPOConfig) -> list[str]:
    """What a trainer warns of before it trains ``model``."""
    sharded = args.distributed_state.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
    halves = any(p.element_size() < 4 for p in model.parameters() if p.requires_grad)
    adapter, half = isinstance(model, PeftModel), halves and not sharded  # shards are kept in float32
    rate, size = args.learning_rate, model.num_parameters()
    return [*inert_settings(args), *learning_rate_cautions(rate, parameters=size, adapter=adapter, half=half)]


def idle_adapter_settings(run: RunConfig) -> list[str]:
    """Settings of an adapter that a run does not train."""
    if run.lora_rank:
        return []
    settings = [field for field in dataclasses.fields(run) if field.name.startswith("lora_")]
    idle = [field.name for field in settings if getattr(run, field.name) != field.default]
    return [f"{', '.join(idle)}: no effect, because lora_rank is 0 and all weights are trained."] if idle else []


def cautions(plan: Plan) -> list[str]:
    """All that is to be said of a plan."""
    weights, sharded = plan.weights, plan.args.placement.sharding not in ("none", "ddp")
    return [
        *inert_settings(plan.args),
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
    if plan.exceeds_context:
        found.append(
            f"the run will stop at once: prompts of up to {plan.task.prompt_longest} tokens + max_completion_length "
            f"{limit} = {plan.longest}, but the model's context holds {plan.context}. Lower max_completion_length."
        )
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
