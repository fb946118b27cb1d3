"""What a trainer is asked for and cannot be."""

from __future__ import annotations

from typing import Any

from .config import DAPOConfig
from .errors import ConfigError

NO_VISION = (
    "the model has a vision processor: DAPOTrainer trains on text alone. Pass the model's tokenizer and a text task."
)


def check_request(args: DAPOConfig, *, has_tools: bool, has_rewards: bool) -> None:
    """Refuse what a `DAPOTrainer` cannot be made of.

    Args:
        has_tools: TRL's ``tools`` or ``environment_factory`` are in use.
        has_rewards: there is an environment or a reward function.

    Raises:
        ConfigError: with the way out.
    """
    if not isinstance(args, DAPOConfig):
        raise ConfigError(
            f"args is a {type(args).__name__}: DAPOTrainer needs a DAPOConfig (the fields of GRPOConfig and DAPO's "
            "own)."
        )
    if args.filters_groups and has_tools:
        raise ConfigError(
            f"group_filter is {args.group_filter!r} and TRL's tools or environment_factory are in use: dynamic "
            "sampling cannot replay their episodes. Set group_filter to 'none', or make the task an `env`."
        )
    if not has_rewards:
        raise ConfigError(
            "neither env nor reward_funcs is given: rewards come from an environment (env='math/Arithmetic-v0') or "
            "from reward functions beside a train_dataset."
        )


def check_context(config: Any, *, prompt: int, completion: int) -> None:
    """Refuse a prompt and a completion, in tokens, that a model's context cannot hold together.

    Raises:
        ConfigError: with the sum.
    """
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and prompt + completion > limit:
        raise ConfigError(
            f"a prompt of {prompt} tokens + max_completion_length {completion} = {prompt + completion}, but the "
            f"model's context holds {limit} tokens. Lower max_completion_length, drop the long prompts, or use a model "
            "with a longer context."
        )
