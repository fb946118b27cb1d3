"""What training an adapter takes beside training all weights: peak resident memory of the same run, on a CPU.

    python benchmarks/lora.py            # a model of 95 million weights, about five minutes on one core
    python benchmarks/lora.py --quick    # one of 29 million, about a minute

Each run is a process of its own, measured as in `planner.py`: the peak beyond what is resident when everything is
imported, freed blocks given back to the system at once. Both runs have a KL penalty: full training holds a second model
for it, an adapter is switched off.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from common import Claim, arguments, finish, show
from measured import quieten
from planner import ALLOCATORS, SMALL, Case, in_a_process, new_model

SETTINGS = SMALL | {"num_generations": 4, "per_device_train_batch_size": 4, "beta": 0.01}
WAYS = {"all weights": {}, "LoRA, rank 16": {"lora_rank": 16}, "LoRA, rank 16, checkpointing": {
    "lora_rank": 16, "gradient_checkpointing": True}}  # fmt: skip


def main() -> None:
    options = arguments(__doc__ or "")
    quieten()
    shape = "30M" if options.quick else "100M"
    with tempfile.TemporaryDirectory() as folder:
        model = new_model(shape, Path(folder))
        found = {
            name: in_a_process(Case(name, shape, SETTINGS | more, batches=1), model, ALLOCATORS["given back"])["peak"]
            for name, more in WAYS.items()
        }
    whole = found["all weights"]
    show(
        f"Peak memory beyond the baseline, {shape} weights in float32",
        ["training", "MiB", "of all weights"],
        [(name, f"{peak / 2**20:,.0f}", f"{peak / whole:.2f}") for name, peak in found.items()],
    )
    finish(
        [Claim(f"peak memory, {name} / all weights", peak / whole, 0.6) for name, peak in list(found.items())[1:]],
        options.json,
    )


if __name__ == "__main__":
    main()
