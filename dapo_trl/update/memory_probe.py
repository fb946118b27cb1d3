"""``microbatch_tokens: auto``: the most tokens of a microbatch that fit into a GPU's memory, by a dry run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather

from .logprobs import Line, per_token
from .packing import Packer

SAFETY = 0.9
"""Share of the memory that is planned for: allocators fragment, and real rows are not all alike."""


def largest_budget(measure: Callable[[int], int | None], *, row: int, most_rows: int, capacity: int) -> int:
    """The most tokens of a microbatch whose peak memory stays within ``capacity``.

    Memory grows with the number of rows, so two small measurements predict the rest; the prediction is measured too
    before it is used, and only ever approached from below.

    Args:
        measure: Peak bytes of forward and backward over so many rows; None when memory ran out.
        row: Tokens of a row, the longest there is.
        most_rows: The rows at hand.
        capacity: Bytes.

    Returns:
        Tokens, a multiple of ``row`` and at least one row: if even that does not fit, training itself will say so.
    """
    one, two = measure(1), measure(2)
    if one is None or two is None or two > capacity:
        return row
    each = max(two - one, 1)
    rows = min(most_rows, max(1 + (capacity - one) // each, 2))
    while rows > 2:
        peak = measure(rows)
        if peak is not None and peak <= capacity:
            break
        rows = max(rows * 4 // 5, 2)
    return rows * row


def measured_budget(
    accelerator: Accelerator, model: Any, *, packer: Packer, reserve: int, row: int, most_rows: int
) -> int:
    """`largest_budget` of the GPU at hand; the same on every process, that of the fullest one.

    Args:
        model: The wrapped model; its weights are not changed.
        packer: Lays rows out.
        reserve: Bytes that must stay free.
        row, most_rows: As in `largest_budget`.
    """
    device = accelerator.device
    free, _ = torch.cuda.mem_get_info(device)
    capacity = int(SAFETY * (free + torch.cuda.memory_reserved(device))) - reserve

    def measure(rows: int) -> int | None:
        peak = _peak(accelerator, model, rows, row, packer)
        everyones = gather(torch.tensor([-1 if peak is None else peak], device=device))
        return None if bool((everyones < 0).any()) else int(everyones.max())

    smallest = int(gather(torch.tensor([capacity], device=device)).min())
    with accelerator.no_sync(model), torch.random.fork_rng(devices=[device]):
        return largest_budget(measure, row=row, most_rows=most_rows, capacity=smallest)


def _peak(accelerator: Accelerator, model: Any, rows: int, row: int, packer: Packer) -> int | None:
    """Peak bytes of forward and backward over made-up rows, which have nothing in common."""
    device = accelerator.device
    vocabulary = accelerator.unwrap_model(model).config.get_text_config().vocab_size
    sequences = torch.randint(0, vocabulary, (rows, row)).numpy()
    lines = [Line.alone(number, sequence) for number, sequence in enumerate(sequences)]
    lying = packer.layout(sequences, [row - 1] * rows, lines)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        with packer.answering():
            with accelerator.autocast():
                logps, _ = per_token(model, lying)
            accelerator.backward(logps.mean())
        return torch.cuda.max_memory_allocated(device)
    except torch.OutOfMemoryError:
        return None
    finally:
        model.zero_grad()
        torch.cuda.empty_cache()


def optimizer_bytes(model: Any, optimizer: Any) -> int:
    """Bytes that an Adam-like optimizer will still allocate at its first step: two numbers for each trained weight."""
    if optimizer is not None and optimizer.state:
        return 0
    return sum(2 * p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
