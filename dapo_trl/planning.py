"""What a configuration will not do: settings that have no effect as they stand."""

from __future__ import annotations

from .config import DAPOConfig


def inert_settings(args: DAPOConfig) -> list[str]:
    """One sentence for each setting that is switched on and cannot act, with the change that would make it act."""
    found = []
    if args.updates_per_rollout < 2:
        found.append(
            "clip-higher is inert: each rollout batch gets a single update, so the ratio is always 1. Raise "
            f"steps_per_generation above gradient_accumulation_steps ({args.gradient_accumulation_steps}), or "
            "num_iterations above 1."
        )
    limit = args.max_completion_length
    if args.overlong_shape == "linear" and limit is not None and args.overlong_max_length >= limit:
        found.append(
            f"the overlong penalty is inert: it starts at overlong_max_length {args.overlong_max_length}, and no "
            f"completion is longer than max_completion_length {limit}. Set overlong_max_length below it."
        )
    if args.overlong_shape == "soft" and limit is not None:
        start = args.overlong_max_length - args.overlong_cache_length
        if start >= limit:
            found.append(
                f"the overlong penalty is inert: it starts at overlong_max_length - overlong_cache_length = {start}, "
                f"and no completion is longer than max_completion_length {limit}."
            )
    return found
