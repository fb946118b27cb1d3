"""``metrics.jsonl``: one JSON object per log of a run, written, resumed and read. Nothing here imports torch."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

MAX_LINE = 4 * 2**20
"""Longest line that is read, in characters; the file's own are shorter."""


class MetricsFile:
    """Appends the logs of one session of a run to its metrics file."""

    def __init__(self, path: Path):
        self.path = path
        self._started = time.time()

    def begin(self, step: int) -> None:
        """Drop the logs after ``step``, the optimizer step that this session starts from; seconds continue from the
        logs that remain."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = [row for row in read_metrics(self.path) if row.get("step", 0) <= step]
        if step:
            self._started -= max((row["seconds"] for row in kept if "seconds" in row), default=0.0)
        self.path.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")

    def append(self, step: int, logs: Mapping[str, Any]) -> None:
        """Write one log, with its optimizer step and the seconds since the run started."""
        row: dict[str, Any] = {"step": step, "seconds": round(time.time() - self._started, 3)}
        row |= {name: _plain(value) for name, value in logs.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All logs of a metrics file; lines that cannot be read are left out, and a missing file has none."""
    return [row for row in json_lines(path) if row is not None] if path.is_file() else []


def json_lines(path: Path) -> Iterator[dict[str, Any] | None]:
    """The objects of a file of JSON lines, one after the other; None for a line that holds none."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in iter(lambda: file.readline(MAX_LINE), ""):
            if not line.strip(" \r\n\t\0"):
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            yield row if isinstance(row, dict) else None


def _plain(value: Any) -> Any:
    """The value as JSON holds it: tensors become numbers, NaN and infinity null."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
