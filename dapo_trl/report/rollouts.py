"""The recorded rollouts of a run: an index of all of them, and a selection that a page can hold."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MAX_SHOWN = 4000
"""Rollouts of a page, all its runs together."""
MAX_CHARACTERS = 24_000_000
"""Characters of a page's rollouts, uncompressed."""
PIECES_SHOWN = 30_000
"""Characters shown of a completion."""
SLICES = 100
"""Parts that the steps are divided into; each part gets an equal share of the rollouts shown."""
MAX_LINE = 16 * 2**20


@dataclass(frozen=True)
class Entry:
    """The place of a rollout in its file, and the figures by which it is chosen."""

    path: Path
    offset: int
    size: int
    step: int
    advantage: float


def index(folder: Path, notes: list[str]) -> list[Entry]:
    """All rollouts of a run, the earliest first; only one line at a time is in memory."""
    found, torn = [], 0
    paths = sorted(folder.glob("rollouts-*.jsonl"))
    for path in paths:
        with path.open("rb") as file:
            offset = 0
            for line in iter(lambda: file.readline(MAX_LINE), b""):
                row = _parsed(line)
                if row is not None:
                    step, advantage = (_finite(row.get(name)) or 0.0 for name in ("step", "advantage"))
                    found.append(Entry(path, offset, len(line), int(step), advantage))
                elif line.strip():
                    torn += 1
                offset += len(line)
    if torn:
        notes.append(f"{torn} line(s) of the recorded rollouts cannot be read and are left out.")
    if not paths:
        notes.append("No rollouts were recorded (record_rollouts, or an older version): there are none to look at.")
    elif not found:
        notes.append("No rollout has been written yet: the first are written after the first rollout batch.")
    return sorted(found, key=lambda entry: entry.step)


def select(entries: Sequence[Entry], *, most: int = MAX_SHOWN, size: int = MAX_CHARACTERS) -> list[Entry]:
    """The rollouts that fit: evenly over the steps, half of each slice by absolute advantage, half evenly."""
    average = sum(entry.size for entry in entries) / max(len(entries), 1)
    room = min(most, int(size / max(average, 1.0)))
    if len(entries) <= room:
        return list(entries)
    kept: set[int] = set()
    slices = [part for part in np.array_split(np.arange(len(entries)), min(SLICES, max(room, 1))) if len(part)]
    for number, part in enumerate(slices):
        share = room * (number + 1) // len(slices) - room * number // len(slices)
        order = sorted(part.tolist(), key=lambda place: -abs(entries[place].advantage))
        chosen = order[: (share + 1) // 2]
        rest = sorted(set(part.tolist()) - set(chosen))
        even = np.linspace(0, len(rest) - 1, min(share - len(chosen), len(rest))).round().astype(int)
        kept |= {*chosen, *(rest[place] for place in even)}
    return [entries[place] for place in sorted(kept)]


def load(entry: Entry) -> dict[str, Any]:
    """A rollout for the page: short names, figures rounded, texts shortened to `PIECES_SHOWN` characters."""
    with entry.path.open("rb") as file:
        file.seek(entry.offset)
        row = _parsed(file.read(entry.size)) or {}
    pieces = [str(piece) for piece in _list(row.get("pieces"))] or [str(row.get("completion") or "")]
    total = sum(map(len, pieces))
    pieces = _first(pieces, PIECES_SHOWN)
    shown = len(pieces)
    before, change = (_list(row.get(name))[:shown] for name in ("before", "change"))
    left_out = [_finite(value) for value in _list(row.get("left_out"))]
    found = {
        "step": entry.step,
        "index": row.get("index") if isinstance(row.get("index"), int) else None,
        "level": _level(row),
        "verdict": str(row.get("verdict") or "not judged")[:100],
        "account": str(row.get("account") or "unknown")[:100],
        "advantage": _finite(row.get("advantage")),
        "accuracy": _finite(row.get("accuracy")),
        "tokens": int(_finite(row.get("tokens")) or len(pieces)),
        "updates": int(_finite(row.get("updates")) or 0),
        "rewards": _components(row.get("rewards")),
        "components": _components(row.get("components")),
        "prompt": _cut(row.get("prompt")),
        "question": str(row["question"])[:500] if row.get("question") else None,
        "solution": None if row.get("solution") is None else _cut(row.get("solution")),
        "pieces": pieces,
        "missing": total - sum(map(len, pieces)),
    }
    gap = (
        (int(left_out[0]), int(left_out[1])) if len(left_out) == 2 and left_out[1] and left_out[0] is not None else None
    )
    if gap is not None:
        found["gap"] = list(gap)
    if turns := _turns(row, gap):
        found["turns"] = turns
    own = _list(row.get("own"))[:shown]
    if 0 in own:
        found["own"] = own
    if change:
        found["before"] = [None if _finite(value) is None else round(float(value), 3) for value in before]
        found["change"] = [None if _finite(value) is None else float(f"{value:.3g}") for value in change]
    return found


def _turns(row: dict[str, Any], gap: tuple[int, int] | None) -> list[dict[str, float | None]]:
    """The turns of an episode, each with the place of its first token among those recorded; where that one was not, of
    the first one after the gap."""
    found = []
    for turn in _list(row.get("turns")):
        start = _finite(turn.get("start")) if isinstance(turn, dict) else None
        if start is not None:
            place = start if gap is None or start <= gap[0] else max(start - gap[1], gap[0])
            found.append(
                {"place": place, "reward": _finite(turn.get("reward")), "advantage": _finite(turn.get("advantage"))}
            )
    return found


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line.decode("utf-8", errors="surrogatepass"))
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _first(pieces: Sequence[str], most: int) -> list[str]:
    """The pieces that hold the first ``most`` characters, the last of them shortened."""
    found = []
    for piece in pieces:
        if most <= 0:
            break
        found.append(piece[:most])
        most -= len(piece)
    return found


def _cut(text: Any) -> str:
    text = "" if text is None else str(text)
    if len(text) <= PIECES_SHOWN:
        return text
    return f"{text[:PIECES_SHOWN]}\n[{len(text) - PIECES_SHOWN:,} more characters are not in this page]"


def _list(value: Any) -> list:
    return value if isinstance(value, list) else []


def _components(value: Any) -> dict[str, float | None]:
    return {str(name)[:100]: _finite(part) for name, part in value.items()} if isinstance(value, dict) else {}


def _finite(value: Any) -> float | None:
    try:
        number = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _level(row: dict[str, Any]) -> str | None:
    """The level of a rollout, with its environment where there are several."""
    parts = [str(row[name])[:100] for name in ("env", "level") if row.get(name) is not None]
    return " ".join(parts) or None
