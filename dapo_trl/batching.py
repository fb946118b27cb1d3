"""From the rows of a rollout batch to the micro-batches of its optimizer steps.

A batch is TRL's dictionary: tensors and lists with one entry per row, right-padded completions, left-padded prompts,
and scalars that belong to the whole batch.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

Batch = dict[str, Any]


def split_evenly(count: int, parts: int) -> list[range]:
    """``count`` rows cut into ``parts`` runs of neighbours whose lengths differ by at most one; some may be empty."""
    edges = [count * part // parts for part in range(parts + 1)]
    return [range(first, last) for first, last in itertools.pairwise(edges)]


def loss_mask(batch: Batch) -> Tensor:
    """``[N, T]``: 1 for the tokens that the loss counts."""
    mask = batch["completion_mask"]
    return mask if batch.get("tool_mask") is None else mask * batch["tool_mask"]


def select(batch: Batch, rows: list[int]) -> Batch:
    """The given rows, in the given order; scalars are kept."""

    def pick(value: Any) -> Any:
        if isinstance(value, Tensor) and value.dim() > 0:
            return value[torch.as_tensor(rows, dtype=torch.long, device=value.device)]
        return [value[row] for row in rows] if isinstance(value, list) else value

    return {key: pick(value) for key, value in batch.items()}


def trim(batch: Batch) -> Batch:
    """Drop the columns that are padding in every row: prompts on the left, completions on the right."""
    prompt_width = batch["prompt_ids"].shape[1]
    width = batch["completion_ids"].shape[1]
    first = prompt_width - _used(batch["prompt_mask"].flip(1))
    last = max(_used(batch["completion_mask"]), 1)  # no empty forward pass, even when every token is masked

    def cut(key: str, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dim() < 2:
            return value
        if key.startswith("prompt_"):
            return value[:, first:]
        return value[:, :last] if value.shape[1] == width else value

    return {key: cut(key, value) for key, value in batch.items()}


def _used(mask: Tensor) -> int:
    columns = mask.any(dim=0).nonzero()
    return int(columns[-1]) + 1 if columns.numel() else 0


def muted(batch: Batch) -> Batch:
    """One row that takes part in the forward pass and adds nothing to the loss: it keeps a process that has run out
    of rows in step with the others."""
    row = select(batch, [0])
    row["completion_mask"] = torch.zeros_like(row["completion_mask"])
    return row


def micro_batches(batch: Batch, rows: list[int], *, updates: int, per_update: int) -> list[list[Batch]]:
    """Cut this process's rows into ``updates`` optimizer steps of ``per_update`` micro-batches each.

    Every process makes the same number of micro-batches, whatever its share of the rows; one without rows gets a
    muted one. Each carries its number of real rows as ``row_count``.
    """

    def make(part: list[int]) -> Batch:
        return {**trim(select(batch, part) if part else muted(batch)), "row_count": len(part)}

    return [
        [make([rows[update.start + i] for i in part]) for part in split_evenly(len(update), per_update)]
        for update in split_evenly(len(rows), updates)
    ]


def to_device(batch: Batch, device: torch.device) -> Batch:
    return {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}
