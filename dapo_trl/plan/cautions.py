"""What will go wrong, or do nothing, though it fits."""

from __future__ import annotations

from importlib.util import find_spec

from ..adapters import has_bitsandbytes
from .inert import inert_settings
from .planner import Plan

FULL_RATE_LIMIT = 1e-5
"""Full training of a large model is commonly run at 1e-6 (the paper's), and diverges well above this."""
LORA_RATE_LEAST = 5e-6
"""An adapter's best learning rate is about ten times that of full training, whatever its rank (Schulman et al., LoRA
Without Regret, 2025), so that what suits full training hardly moves it."""
LARGE_MODEL = 100_000_000
"""parameters from which the limits on the learning rate hold; small models take more"""
NEAR_THE_LIMIT = 0.8
FEWEST_GROUPS = 4
"""in a rollout batch: with fewer, one dropped group is a quarter of it or more"""


def cautions(plan: Plan, *, cut_off: float = 0.0) -> list[str]:
    """One sentence each, with the change that helps.

    Args:
        cut_off: share of the completions that were cut off at the limit, in the run that figures were taken from.
    """
    return [
        *inert_settings(plan.args),
        *_lengths(plan, cut_off),
        *_batches(plan),
        *_learning(plan),
        *_time(plan),
        *_parts(plan),
    ]


def _lengths(plan: Plan, cut_off: float) -> list[str]:
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
    mean = plan.assumed.completion_tokens
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
            f"a rollout batch has {schedule.groups} group(s), so a single one that is dropped or kept decides much. "
            f"Raise steps_per_generation to {FEWEST_GROUPS} groups or more, or lower num_generations."
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


def _learning(plan: Plan) -> list[str]:
    rate, large, found = plan.args.learning_rate, plan.weights.base >= LARGE_MODEL, []
    if plan.run.lora_rank and large and rate < LORA_RATE_LEAST:
        found.append(
            f"learning_rate {rate:g} suits full training: an adapter hardly moves with it. Take ten times as much "
            "(1e-5 to 2e-5)."
        )
    if not plan.run.lora_rank and large and rate > FULL_RATE_LIMIT:
        found.append(
            f"learning_rate {rate:g} is that of an adapter: full training of a model of this size is likely to "
            "diverge. Take 1e-6, or set lora_rank."
        )
    kept_in_half = plan.devices.sharding in ("none", "ddp") and plan.weights.trained_bytes < 4 * plan.weights.trained
    if not plan.run.lora_rank and large and kept_in_half:
        found.append(
            f"the trained weights are in half precision: an update at learning_rate {rate:g} is mostly rounded away. "
            "Leave dtype out of model_init_kwargs (float32), or set lora_rank."
        )
    return found


def _time(plan: Plan) -> list[str]:
    args, steps, found = plan.args, plan.schedule.steps, []
    if plan.schedule.warmup_steps >= steps:
        found.append(
            f"the warm-up of {plan.schedule.warmup_steps} steps is as long as the run of {steps}: the learning rate is "
            "never reached. Lower warmup_steps."
        )
    strategy = str(getattr(args.save_strategy, "value", args.save_strategy))
    every = args.save_steps if args.save_steps >= 1 else args.save_steps * steps
    if strategy == "no" or (strategy == "steps" and every > steps):
        why = "save_strategy is 'no'" if strategy == "no" else f"save_steps is {args.save_steps:g}, the run has {steps}"
        found.append(
            f"no checkpoint is written ({why}): an interrupted run cannot go on, unless it is stopped cleanly."
        )
    if not plan.run.eval_problems:
        found.append("nothing is measured on held-out problems: eval_problems is 0.")
    return found


def _parts(plan: Plan) -> list[str]:
    found = []
    if plan.run.quantization and not has_bitsandbytes():
        found.append("quantization needs bitsandbytes, which is not installed here: pip install 'dapo-trl[quant]'.")
    if plan.args.use_vllm and find_spec("vllm") is None:
        found.append("use_vllm needs vLLM, which is not installed here: pip install 'dapo-trl[vllm]'.")
    if plan.devices.sharding.startswith("zero") and find_spec("deepspeed") is None:
        found.append("ZeRO needs DeepSpeed, which is not installed here: pip install deepspeed.")
    card = plan.devices.card
    if plan.args.bf16 and not card.bf16:
        found.append(f"{card.name} does not compute in bfloat16. Set bf16 to false and fp16 to true.")
    if plan.vllm_shortage:
        found.append(
            f"vLLM's share of {plan.args.vllm_gpu_memory_utilization:.0%} is too small for the model and one sequence "
            "of full length. Raise vllm_gpu_memory_utilization or vllm_tensor_parallel_size."
        )
    return found
