"""Print the tables of docs/hardware.md: what `dapo-trl plan` says of the shipped hardware files.

    python scripts/hardware_table.py

Shapes are those in configs/models, completions 512 tokens (4,096 with vLLM), prompts 256.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from dapo_trl.cli import main as dapo_trl

ROOT = Path(__file__).resolve().parent.parent
SIZES = ("0.5b", "1.5b", "3b", "7b", "14b", "32b")


@dataclass(frozen=True)
class Row:
    """A hardware file on a card."""

    hardware: str
    card: str
    algorithm: str = "textbook"
    accelerate: str | None = None
    completion: int = 512
    more: tuple[str, ...] = ()

    @property
    def devices(self) -> str:
        count = {"fsdp2": 8, "zero3": 8, "multi-node": 32}.get(self.accelerate or "", 1)
        return f"{count} x {self.card}" if count > 1 else self.card


ONE_CARD = (
    Row("lora-8gb", "RTX 4060"),
    Row("lora-16gb", "T4", more=("--bf16", "false", "--fp16", "true", "--model_init_kwargs", "{dtype: float16}")),
    Row("lora-16gb", "RTX 4080"),
    Row("lora-24gb", "A10"),
    Row("lora-24gb", "RTX 4090"),
    Row("lora-24gb", "RTX 5090"),
    Row("qlora-24gb", "RTX 4090"),
    Row("full-80gb", "A100 80GB", "paper"),
    Row("full-80gb", "H200", "paper"),
)
MANY_CARDS = (
    Row("8x80gb-vllm", "H100 80GB", "paper", "fsdp2", 4096),
    Row("8x80gb-vllm", "H100 80GB", "paper", "zero3", 4096),
    Row("multinode", "H100 80GB", "paper", "multi-node", 4096),
)


def peak(row: Row, size: str) -> tuple[float, bool]:
    """GiB on each device, and whether that fits."""
    files = [
        f"configs/{name}.yaml" for name in (f"algorithm/{row.algorithm}", "task/gsm8k", f"hardware/{row.hardware}")
    ]
    arguments = ["plan", "--config", *files, "--model", f"configs/models/qwen2.5-{size}.json", "--card", row.card]
    arguments += ["--prompt_tokens", "256", "--rows", "7473", "--json", "--max_completion_length", str(row.completion)]
    arguments += ["--accelerate", f"configs/accelerate/{row.accelerate}.yaml"] if row.accelerate else []
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        dapo_trl([*arguments, *row.more])
    found = json.loads(printed.getvalue())
    return found["memory"]["peak"] / 2**30, found["fits"]


def table(rows: tuple[Row, ...]) -> str:
    heading = ["configs/hardware", "card", *(f"Qwen2.5-{size.upper()}" for size in SIZES)]
    lines = ["| " + " | ".join(heading) + " |", "|" + "---|" * len(heading)]
    for row in rows:
        name = f"`{row.hardware}`" + (f" + `{row.accelerate}`" if row.accelerate else "")
        cells = [f"{size:.1f}" if fits else f"({size:.1f})" for size, fits in (peak(row, size) for size in SIZES)]
        lines.append("| " + " | ".join([name, row.devices, *cells]) + " |")
    return "\n".join(lines)


def main() -> None:
    os.chdir(ROOT)
    for rows in (ONE_CARD, MANY_CARDS):
        print(table(rows), end="\n\n")


if __name__ == "__main__":
    main()
