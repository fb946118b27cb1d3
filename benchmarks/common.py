"""What the benchmark scripts share: arguments, claims, the machine's description, and how results are shown."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

_PACKAGES = ("torch", "transformers", "trl", "numpy")

console = Console(width=None if Console().is_terminal else 120, highlight=False)


@dataclass(frozen=True)
class Claim:
    """One figure with the bar it is held to: a ratio or a count, never an absolute time."""

    name: str
    value: float
    bar: float
    higher_is_better: bool = False
    unit: str = "ratio"

    @property
    def holds(self) -> bool:
        return self.value >= self.bar if self.higher_is_better else self.value <= self.bar


def arguments(description: str) -> argparse.Namespace:
    """``--quick`` and ``--json FILE``, which every benchmark takes."""
    return parser_of(description).parse_args()


def parser_of(description: str) -> argparse.ArgumentParser:
    """A parser of what every benchmark takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the same claims on less data")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write machine and claims there")
    return parser


def machine() -> dict[str, object]:
    """What the figures were measured on, and with which sources."""
    versions = {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "gpus": _gpus(),
        "system": platform.system(),
        "versions": versions,
        "commit": commit(),
    }


def commit() -> str:
    """The commit that is checked out, with a plus if files differ from it; "unknown" outside a clone."""
    command = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*command, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run(
            [*command, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if changed.stdout else "")


def show(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table whose first column is text and whose others are figures."""
    console.print(title, style="bold")
    table = Table()
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def finish(claims: Sequence[Claim], path: Path | None) -> None:
    """Show the claims beside their bars, and write them with the machine to ``path``."""
    rows = [
        (
            c.name,
            f"{c.value:.4g}",
            f"{'>=' if c.higher_is_better else '<='} {c.bar:g}",
            c.unit,
            "yes" if c.holds else "NO",
        )
        for c in claims
    ]
    show("Claims", ["claim", "value", "bar", "unit", "holds"], rows)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        found = {"machine": machine(), "claims": [asdict(claim) for claim in claims]}
        path.write_text(json.dumps(found, indent=2) + "\n")


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
