"""Passes in bfloat16 (`cpu_precision: auto`) against float32 on a CPU, by the size of the model and of the microbatch.

    python benchmarks/cpu_precision.py            # about five minutes on one core
    python benchmarks/cpu_precision.py --quick    # about half a minute, without the largest model

Random Llama-shaped models, one row of tokens: a forward pass as for log-probabilities, and forward and backward as in
an update. Both types alternate in one process on one thread; seconds of processor time, medians of five.
"""

from __future__ import annotations

import os
import statistics
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from common import Claim, arguments, console, finish, show
from measured import quieten
from shared_prompts import MODELS, Case, new_model
from train_step import now

from dapo_trl.update.precision import cpu_has_bf16

TOKENS = (64, 512, 2_048)
REPETITIONS = 5


def seconds(model: Any, ids: torch.Tensor, *, half: bool, update: bool) -> float:
    """Of one pass in bfloat16 or float32, with its backward pass for an update."""
    since = now()[1]
    with torch.autocast("cpu", torch.bfloat16, enabled=half), torch.set_grad_enabled(update):
        loss = model(input_ids=ids, labels=ids).loss
    if update:
        loss.backward()
        model.zero_grad()
    return now()[1] - since


def speed_up(model: Any, tokens: int, *, update: bool) -> float:
    """Seconds in float32 over those in bfloat16, the median."""
    ids = torch.randint(2, 300, (1, tokens))
    found = [
        {half: seconds(model, ids, half=half, update=update) for half in (False, True)} for _ in range(REPETITIONS + 1)
    ]
    return statistics.median(one[False] / one[True] for one in found[1:])


def main() -> None:
    options = arguments(__doc__ or "")
    quieten()
    if not cpu_has_bf16():
        console.print("This processor has no instructions for bfloat16: `cpu_precision: auto` computes in float32.")
        return
    found: dict[str, list[float]] = {}
    for name in list(MODELS)[: 2 if options.quick else None]:
        model = new_model(Case.of(name, "1:1"))
        found[name] = [speed_up(model, tokens, update=update) for update in (False, True) for tokens in TOKENS]
    headings = [f"{kind}, {tokens} tokens" for kind in ("forward", "update") for tokens in TOKENS]
    show(
        "Speed-up by bfloat16",
        ["weights", *headings],
        [(name, *(f"{value:.2f}" for value in row)) for name, row in found.items()],
    )
    largest = list(found.values())[-1]
    finish([Claim("speed-up of an update of the largest model", largest[-1], 1.1, higher_is_better=True)], options.json)


if __name__ == "__main__":
    main()
