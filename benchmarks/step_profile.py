"""What an update of 135 M weights computes, and the share of it that is no matrix product.

    python benchmarks/step_profile.py            # about two minutes on one core
    python benchmarks/step_profile.py --quick    # 30 M weights

One rollout batch of recorded groups with shared prompts, as in shared_prompts.py: two updates by `DAPOTrainer`, of
which the second is profiled, with the optimizer and everything else of a step. Attention is counted as a product: it is
two of them and what lies between, in one operation.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from dataclasses import replace
from typing import Any

import shared_prompts
from common import Claim, arguments, finish, show
from measured import quieten
from shared_prompts import Case
from torch.profiler import ProfilerActivity, profile

PRODUCTS = ("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm", "aten::baddbmm")
ATTENTION = "scaled_dot_product"
PARTS = (
    "products and attention",
    "TRL's language-model head",
    "the model's layers",
    "weights and gradients",
    "the rest",
)


class Profiled(shared_prompts.Seen):
    """Profiles each update; the last one stays."""

    def on_step_begin(self, args, state, control, **kwargs):
        super().on_step_begin(args, state, control, **kwargs)
        self.profile = profile(activities=[ProfilerActivity.CPU], record_shapes=True)
        self.profile.__enter__()

    def on_step_end(self, args, state, control, **kwargs):
        self.profile.__exit__(None, None, None)
        super().on_step_end(args, state, control, **kwargs)


def part_of(event: Any, tokens: int, scored: int, weights: set[tuple[int, ...]]) -> str:
    """Where an operation belongs, by its name and the shapes of its inputs.

    Args:
        tokens: That enter the model.
        scored: That the head scores: those of the completions.
        weights: Shapes of the trained weights.
    """
    products, head, layers, trained, rest = PARTS
    shapes = [tuple(shape) for shape in event.input_shapes if shape]
    if event.key in PRODUCTS or ATTENTION in event.key:
        return products
    if event.key.startswith("ChunkedLogProb") or any(one[0] == scored for one in shapes):
        return head
    if any(one in weights for one in shapes):
        return trained
    return layers if any(tokens in one for one in shapes) else rest


def shares(seen: Any, case: Case) -> dict[str, float]:
    """The share of each part in the processor time that operations take."""
    weights = {tuple(value.shape) for value in seen.weights.values()}
    found = dict.fromkeys(PARTS, 0.0)
    for event in seen.profile.key_averages(group_by_input_shape=True):
        found[part_of(event, seen.computed, case.rows * case.completion, weights)] += event.self_cpu_time_total
    return {part: value / sum(found.values()) for part, value in found.items()}


def main() -> None:
    options = arguments(__doc__ or "")
    quieten()
    shared_prompts.Seen = Profiled  # type: ignore[misc]
    name = "30 M" if options.quick else "135 M"
    case = replace(Case.of(name, "1:1"), prompt=128, completion=128, groups=2)
    seen = shared_prompts.train("shared", case)
    found = shares(seen, case)
    show(
        f"{name} weights, {seen.computed:,} tokens: share of an update's processor time",
        ["part", "share"],
        [(part, f"{share:.3f}") for part, share in found.items()],
    )
    claims = [
        Claim(f"share that is no matrix product, {name} weights", 1 - found[PARTS[0]], 0.1),
        Claim("share that is neither the model's nor its head's", found[PARTS[3]] + found[PARTS[4]], 0.1),
    ]
    finish(claims, options.json)


if __name__ == "__main__":
    main()
