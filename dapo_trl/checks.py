"""Checks that refuse invalid trainer arguments, and warnings of settings that do nothing or harm.

Both are made before a run starts; `dapo-trl plan` gives the same warnings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from accelerate.utils import DistributedType
from peft import PeftModel
from torch import nn
from transformers.integrations import integration_utils
from transformers.utils import is_liger_kernel_available

from .config import DAPOConfig
from .distributed import weight_count
from .errors import ConfigError
from .update import mismatch

FULL_RATE_LIMIT = 1e-5
"""Learning rate well above which full training of a large model diverges; the paper's, and the usual one, is 1e-6."""
LORA_RATE_LEAST = 5e-6
"""Smallest learning rate that moves an adapter. The best one is about ten times that of full training, at every rank
(Schulman et al., LoRA Without Regret, 2025)."""
LARGE_MODEL = 100_000_000
"""Parameters from which `FULL_RATE_LIMIT` holds; small models take larger rates (the quick start 2e-4)."""
USUAL_SPREAD = 0.02
"""Standard deviation, in nats, of the difference of a token's log-probability between vLLM and the trainer that is
assumed where it is not measured yet; models/rambling-0.8m in bfloat16 and in float32 differs by as much."""
LEAST_WEIGHT = 0.95
"""Share of the gradient of a completion of full length that the correction for vLLM must be expected to leave."""
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""Names that model configs give to the number of experts of a layer."""
NO_VISION = (
    "the model has a vision processor: DAPOTrainer trains on text alone. Pass the model's tokenizer and a text task."
)


def check_request(args: DAPOConfig, *, has_tools: bool, has_rewards: bool) -> None:
    """Refuse arguments that no `DAPOTrainer` can be made of.

    Args:
        has_tools: Whether TRL's ``tools`` or ``environment_factory`` are in use.
        has_rewards: Whether there is an environment or a reward function.

    Raises:
        ConfigError: with the fix.
    """
    if not isinstance(args, DAPOConfig):
        raise ConfigError(
            f"args is a {type(args).__name__}: DAPOTrainer needs a DAPOConfig (the fields of GRPOConfig and DAPO's "
            "own)."
        )
    _check_packages(args)
    if args.filters_groups and has_tools:
        raise ConfigError(
            f"group_filter is {args.group_filter!r} and TRL's tools or environment_factory are in use: dynamic "
            "sampling cannot replay their episodes. Set group_filter to 'none', or make the task an `env`."
        )
    if not has_rewards:
        raise ConfigError(
            "No reward source provided: neither env nor reward_funcs is given. Rewards come from an environment "
            "(env='math/Arithmetic-v0') or from reward functions together with a train_dataset."
        )


def check_trainable(model: Any, optimizer: Any, *, new_adapter: bool) -> None:
    """Refuse a model in which nothing can be trained.

    Args:
        model: A model, or its name, which says nothing yet.
        optimizer: The user's own optimizer, or None.
        new_adapter: Whether an adapter will be added to the model.

    Raises:
        ConfigError: An optimizer would have no parameter to change.
    """
    if optimizer is not None:
        if not any(p.requires_grad for group in optimizer.param_groups for p in group["params"]):
            raise ConfigError("the optimizer has no parameter that requires a gradient: training would change nothing.")
    elif isinstance(model, nn.Module) and not new_adapter and not any(p.requires_grad for p in model.parameters()):
        fix = (
            "Load the adapter with PeftModel.from_pretrained(base, adapter, is_trainable=True)."
            if isinstance(model, PeftModel)
            else "Set requires_grad of the parameters to train, or pass a peft_config."
        )
        raise ConfigError(f"no parameter of the model requires a gradient: training would change nothing. {fix}")


def check_tokenizer(tokenizer: Any, stop_ids: Sequence[int | None], *, embeddings: int) -> None:
    """Refuse a tokenizer that cannot end or pad a completion.

    Args:
        stop_ids: Tokens that end the model's turn.
        embeddings: Tokens that the model has embeddings for.

    Raises:
        ConfigError: It has no end token, or pads with a token that the model does not know.
    """
    if not stop_ids or None in stop_ids:
        raise ConfigError(
            "the tokenizer has no end token, so no completion could end: set tokenizer.eos_token to the token that "
            "ends the model's turn."
        )
    if tokenizer.pad_token_id >= embeddings:
        raise ConfigError(
            f"the tokenizer pads with {tokenizer.pad_token!r}, token {tokenizer.pad_token_id}, and the model has "
            f"embeddings for {embeddings}: set tokenizer.pad_token to a token that the model knows."
        )


def _check_packages(args: DAPOConfig) -> None:
    """Refuse settings that need a package which is not installed."""
    for name in args.report_to or ():
        installed = getattr(integration_utils, f"is_{name.removesuffix('_ml')}_available", None)
        if installed is not None and not installed():
            raise ConfigError(
                f"report_to names {name!r}, which is not installed: pip install {name.replace('_', '-')}, or set "
                "report_to to none."
            )


def check_kernels(args: DAPOConfig) -> None:
    """Refuse kernels that are not installed; after TRL has said what they cannot be combined with."""
    if args.use_liger_kernel and not is_liger_kernel_available():
        raise ConfigError(
            "use_liger_kernel is on and liger-kernel is not installed: pip install liger-kernel, or switch it off."
        )


def context_length(config: Any) -> int | None:
    """Tokens that a model takes, by its config; None where it names no limit."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def context_overflow(
    config: Any, *, prompt: int, completion: int, what: str = "a prompt", examples: int = 0
) -> str | None:
    """How a prompt and a completion exceed a model's context, in one sentence; None if they fit.

    Args:
        prompt: Tokens.
        completion: Tokens.
        what: whose prompt it is, for the sentence.
        examples: Tokens of the prompt that are few-shot examples.
    """
    limit = context_length(config)
    if limit is None or prompt + completion <= limit:
        return None
    shown = f" ({examples} of them few_shot examples: show fewer)" if examples else ""
    return (
        f"{what} of {prompt} tokens{shown} + max_completion_length {completion} = {prompt + completion}, but the "
        f"model's context holds {limit} tokens. Lower max_completion_length, drop the long prompts, or use a model "
        "with a longer context."
    )


def check_context(config: Any, *, prompt: int, completion: int, what: str = "a prompt", examples: int = 0) -> None:
    """Refuse what `context_overflow` finds.

    Raises:
        ConfigError: with the sum.
    """
    if sentence := context_overflow(config, prompt=prompt, completion=completion, what=what, examples=examples):
        raise ConfigError(sentence)


def inert_settings(args: DAPOConfig) -> list[str]:
    """Warnings of settings that have no effect, or the opposite of the intended one."""
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
    upper = args.epsilon if args.epsilon_high is None else args.epsilon_high
    if zero := [name for name, value in (("epsilon", args.epsilon), ("epsilon_high", upper)) if value == 0]:
        found.append(
            f"{' and '.join(zero)} 0: from the second update on a rollout batch, a token has no gradient as soon as "
            "its ratio has moved at all. The usual values are epsilon 0.2 and epsilon_high 0.28."
        )
    if args.microbatch_tokens == "auto" and args.device.type != "cuda":
        found.append(
            "microbatch_tokens is 'auto' and there is no GPU to measure: a microbatch holds "
            "per_device_train_batch_size completions of the longest length. Set a number of tokens to change that."
        )
    if 0 < cast(int, args.surplus_max_age) < args.updates_per_rollout:
        found.append(
            f"the surplus buffer is inert: surplus groups are {args.updates_per_rollout} optimizer steps old by the "
            f"next rollout batch, and surplus_max_age is {args.surplus_max_age}. Raise it to "
            f"{args.updates_per_rollout} or more, or set it to 0."
        )
    if args.prompt_selection != "uniform" and not args.filters_groups:
        found.append(
            f"prompt_selection is {args.prompt_selection!r} and group_filter is 'none': prompts are still chosen by "
            "how likely their groups are informative, but uninformative groups are trained on all the same."
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


def vllm_cautions(args: DAPOConfig, config: Any) -> list[str]:
    """Warnings of what vLLM's probabilities, which are not quite the trainer's, do to the gradient.

    Args:
        config: The model's.
    """
    if not args.use_vllm:
        return []
    found: list[str] = []
    mode, limit = args.mismatch_correction, args.max_completion_length
    weight = mismatch.expected(USUAL_SPREAD, limit, **mismatch.asked(args)).weight
    if weight < LEAST_WEIGHT:
        found.append(
            f"mismatch_correction is {mode!r}: where log-probabilities of vLLM and of the trainer differ by "
            f"{USUAL_SPREAD} a token, completions of max_completion_length {limit} tokens keep {weight:.0%} of their "
            "gradient. Set it to token_truncate, which keeps it at any length."
        )
    truncating = {"top_p": args.top_p < 1, "top_k": args.top_k > 0, "min_p": bool(args.min_p)}
    if mode != "none" and (names := [name for name, truncates in truncating.items() if truncates]):
        values = " and ".join(f"{name} is {getattr(args, name):g}" for name in names)
        found.append(
            f"{values}: vLLM gives the probabilities of the truncated distribution and the trainer those of the whole "
            "one, so the correction shrinks every gradient by the probability that is left out. Train on the whole "
            "distribution (top_p 1, top_k 0, no min_p), or set mismatch_correction to none."
        )
    if any((getattr(config.get_text_config(), name, None) or 0) > 1 for name in EXPERTS):
        found.append(
            "the model is a mixture of experts, and vLLM may choose other experts for a token than the trainer does: "
            "routing is not replayed, the probabilities can differ by more than rounding, and training may collapse. "
            "Set mismatch_correction to token_mask, which drops such tokens, and watch "
            "sampling/sampling_logp_difference."
        )
    return found


def learning_rate_cautions(rate: float, *, parameters: int, adapter: bool, half: bool) -> list[str]:
    """Warnings of a learning rate that suits another kind of training.

    Args:
        rate: The highest of the schedule.
        parameters: Number of the model's parameters, without adapter.
        adapter: Whether an adapter is trained, and not the model's weights.
        half: Whether the trained weights are in half precision.
    """
    if rate == 0:
        return ["learning_rate is 0: no weight will change. Set it to 1e-6 (full training) or 1e-5 (an adapter)."]
    if adapter:
        if rate >= LORA_RATE_LEAST:
            return []
        return [
            f"learning_rate {rate:g} suits full training and is too small to move an adapter. Take ten times as "
            "much (1e-5 to 2e-5)."
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
    """Warnings of a trainer before it trains ``model``, one sentence each."""
    sharded = args.distributed_state.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
    halves = any(p.element_size() < 4 for p in model.parameters() if p.requires_grad)
    adapter, half = isinstance(model, PeftModel), halves and not sharded  # shards are kept in float32
    rate, size = args.learning_rate, weight_count(model)
    return [
        *inert_settings(args),
        *vllm_cautions(args, model.config),
        *learning_rate_cautions(rate, parameters=size, adapter=adapter, half=half),
    ]
