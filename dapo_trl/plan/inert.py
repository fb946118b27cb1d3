"""What a configuration will not do: settings that have no effect, or the reverse one, as they stand."""

from __future__ import annotations

from typing import cast

from ..config import DAPOConfig


def inert_settings(args: DAPOConfig) -> list[str]:
    """One sentence for each setting that cannot act as it is meant to, with the change that would make it act."""
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
