"""From the completions of a rollout batch to the micro-batches of its optimizer steps.

A batch is TRL's dictionary: tensors with one row per completion, right-padded completions, left-padded prompts. A row
is one completion of it without padding: ``prompt_ids [P]``, ``completion_ids [T]``, further ``[T]`` tensors, and
``[1]`` tensors or scalars that belong to the whole completion.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Batch = dict[str, Any]
Row = dict[str, Tensor]

PADDING = {"tool_mask": 1}
"""what fills a row up, where it is not 0"""
PASS_OVERHEAD = 1 / 32
"""of the token budget: what one more pass costs by itself"""


def split_evenly(count: int, parts: int) -> list[range]:
    """``count`` rows cut into ``parts`` runs of neighbours whose lengths differ by at most one; some may be empty."""
    edges = [count * part // parts for part in range(parts + 1)]
    return [range(first, last) for first, last in itertools.pairwise(edges)]


def deal(tokens: Sequence[int], parts: int) -> list[list[int]]:
    """Share rows out so that the parts hold equally many (to one row) and nearly equal tokens.

    Args:
        tokens: length of each row.

    Returns:
        For each part its rows, in ascending order. The longest row goes first, each to the part with the fewest tokens
        that has room.
    """
    if parts == 1:
        return [list(range(len(tokens)))]
    floor, extras = divmod(len(tokens), parts)
    shares: list[list[int]] = [[] for _ in range(parts)]
    loads = [0] * parts
    for row in sorted(range(len(tokens)), key=lambda row: (-tokens[row], row)):
        open_parts = [part for part in range(parts) if len(shares[part]) < floor + (extras > 0)]
        part = min(open_parts, key=lambda part: (loads[part], part))
        extras -= len(shares[part]) == floor
        shares[part].append(row)
        loads[part] += tokens[row]
    return [sorted(share) for share in shares]


def split_tokens(lengths: Sequence[int], budget: int, *, packed: bool = False) -> list[list[int]]:
    """Cut rows into passes whose computed tokens stay within a budget. A row longer than that has a pass of its own.

    Args:
        lengths: tokens of each row, prompt and completion.
        budget: tokens of a pass: rows x longest row, or their sum when ``packed``.
        packed: rows side by side without padding.

    Returns:
        The rows of each pass, the longest first throughout: what needs the most memory comes at once. Padded passes are
        runs of rows of neighbouring lengths, cut where the fewest tokens are computed in all; a pass is counted as
        `PASS_OVERHEAD` of the budget besides, so that there are few.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    if packed:
        return _first_fit(order, lengths, budget)
    sizes = np.array([lengths[row] for row in order])
    best = np.zeros(len(order) + 1)  # the fewest tokens for the rows from here on
    ends = np.zeros(len(order), dtype=int)
    for first in range(len(order) - 1, -1, -1):
        most = min(max(budget // max(sizes[first], 1), 1), len(order) - first)
        costs = sizes[first] * np.arange(1, most + 1) + best[first + 1 : first + most + 1]
        ends[first] = first + 1 + int(costs.argmin())
        best[first] = costs.min() + PASS_OVERHEAD * budget
    passes, first = [], 0
    while first < len(order):
        passes.append(order[first : ends[first]])
        first = ends[first]
    return passes


def _first_fit(order: Sequence[int], lengths: Sequence[int], budget: int) -> list[list[int]]:
    passes: list[list[int]] = []
    room: list[int] = []
    for row in order:
        fit = next((i for i, free in enumerate(room) if free >= lengths[row]), None)
        if fit is None:
            passes.append([row])
            room.append(budget - lengths[row])
        else:
            passes[fit].append(row)
            room[fit] -= lengths[row]
    return passes


def loss_mask(batch: Batch) -> Tensor:
    """``[N, T]``: 1 for the tokens that the loss counts."""
    mask = batch["completion_mask"]
    return mask if batch.get("tool_mask") is None else mask * batch["tool_mask"]


def unpad(batch: Batch) -> list[Row]:
    """The rows of a batch, as views of its tensors; scalars of the whole batch are left out.

    A completion that is masked altogether keeps its first token, so that no forward pass is empty.
    """
    width = batch["completion_ids"].shape[1]
    prompts = batch["prompt_mask"].sum(dim=1).tolist()
    completions = batch["completion_mask"].sum(dim=1).clamp(min=1).tolist()

    def cut(key: str, value: Tensor, row: int) -> Tensor:
        if key.startswith("prompt_"):
            return value[row, value.shape[1] - prompts[row] :]
        return value[row, : completions[row]] if value.dim() > 1 and value.shape[1] == width else value[row]

    tensors = {key: value for key, value in batch.items() if isinstance(value, Tensor) and value.dim() > 0}
    return [{key: cut(key, value, row) for key, value in tensors.items()} for row in range(len(prompts))]


def collate(rows: Sequence[Row], *, pad_token_id: int, multiple: int | None = None) -> Batch:
    """Rows side by side, padded to the longest prompt and the longest completion among them.

    Args:
        multiple: both widths are rounded up to a multiple of it.
    """

    def stack(key: str) -> Tensor:
        values = [row[key] for row in rows]
        if values[0].dim() == 0:
            return torch.stack(values)
        width = max(len(value) for value in values)
        if width > 1:  # else: one value for the whole completion
            width += -width % (multiple or 1)
        fill = pad_token_id if key.endswith("_ids") else PADDING.get(key, 0)
        out = values[0].new_full((len(rows), width), fill)
        for i, value in enumerate(values):
            if key.startswith("prompt_"):
                out[i, width - len(value) :] = value
            else:
                out[i, : len(value)] = value
        return out

    return {key: stack(key) for key in rows[0]}


def without_loss(row: Row) -> Row:
    """A row that takes part in the forward pass and adds nothing to the loss: it keeps a process that has run out of
    rows in step with the others."""
    return {**row, "completion_mask": torch.zeros_like(row["completion_mask"])}


def length(row: Row) -> int:
    """Tokens of a row, prompt and completion."""
    return len(row["prompt_ids"]) + len(row["completion_ids"])


def to_device(row: Row, device: torch.device) -> Row:
    return {key: value.to(device) for key, value in row.items()}
