"""Print the tables of docs/hardware.md: what `dapo-trl plan` says of the shipped hardware files.

    python scripts/hardware_table.py

Shapes are those in configs/models, completions 512 tokens (4,096 with vLLM), prompts 256.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from dapo_trl.plan.devices import GIB, placement, planned_config
from dapo_trl.plan.planner import Assumed, Plan, TaskFacts, make_plan
from dapo_trl.plan.trace import read_config
from dapo_trl.run.settings import load_settings

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
ROWS, PROMPT = 7473, 256
"""rows of GSM8K, and tokens of each prompt"""
SIZES = ("0.5b", "1.5b", "3b", "7b", "14b", "32b")


@dataclass(frozen=True)
class Row:
    """A hardware file on a card."""

    hardware: str
    card: str
    algorithm: str = "textbook"
    accelerate: str | None = None
    completion: int = 512

    @property
    def devices(self) -> str:
        count = {"fsdp2": 8, "zero3": 8, "multi-node": 32}.get(self.accelerate or "", 1)
        return f"{count} x {self.card}" if count > 1 else self.card


ONE_CARD = (
    Row("lora-8gb", "RTX 4060"),
    Row("lora-16gb", "RTX 4080"),
    Row("lora-24gb", "RTX 4090"),
    Row("qlora-24gb", "RTX 4090"),
    Row("lora-16gb-vllm", "RTX 4080"),
    Row("lora-24gb-vllm", "RTX 4090"),
    Row("qlora-24gb-vllm", "RTX 4090"),
    Row("full-80gb", "H100 80GB", "paper"),
)
MANY_CARDS = (
    Row("8x80gb-vllm", "H100 80GB", "paper", "fsdp2", 4096),
    Row("8x80gb-vllm", "H100 80GB", "paper", "zero3", 4096),
    Row("multinode", "H100 80GB", "paper", "multi-node", 4096),
)


def planned(row: Row, size: str) -> Plan:
    """What the planner says of a row's run with a model of this size."""
    names = (f"algorithm/{row.algorithm}", "task/gsm8k", f"hardware/{row.hardware}")
    model = str(CONFIGS / "models" / f"qwen2.5-{size}.json")
    flags = ["--model", model, "--max_completion_length", str(row.completion)]
    spread = placement(str(CONFIGS / "accelerate" / f"{row.accelerate}.yaml") if row.accelerate else None, None)
    files = [CONFIGS / f"{name}.yaml" for name in names]
    run, args, _ = load_settings(files, flags, make=planned_config(row.card, spread))
    return make_plan(run, args, read_config(model), TaskFacts(ROWS, PROMPT, PROMPT, ""), Assumed({0.5: 1.0}))


def cell(plan: Plan) -> str:
    """GiB on each device; in brackets what does not fit."""
    size = f"{plan.memory.peak / GIB:.1f}"
    return size if plan.fits else f"({size})"


def table(rows: tuple[Row, ...]) -> str:
    heading = ["configs/hardware", "card", *(f"Qwen2.5-{size.upper()}" for size in SIZES)]
    lines = ["| " + " | ".join(heading) + " |", "|" + "---|" * len(heading)]
    for row in rows:
        name = f"`{row.hardware}`" + (f" + `{row.accelerate}`" if row.accelerate else "")
        cells = [cell(planned(row, size)) for size in SIZES]
        lines.append("| " + " | ".join([name, row.devices, *cells]) + " |")
    return "\n".join(lines)


def main() -> None:
    logging.disable(logging.WARNING)
    for rows in (ONE_CARD, MANY_CARDS):
        print(table(rows), end="\n\n")


if __name__ == "__main__":
    main()
