"""``microbatch_tokens: auto``: the most tokens of a pass that fit into the memory of a GPU, found by a dry run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather

from .logprobs import layout, per_token

if TYPE_CHECKING:
    from ..trainer import DAPOTrainer

SAFETY = 0.9
"""share of the memory that is planned for: allocators fragment, and real rows are not all alike"""


def largest_budget(measure: Callable[[int], int | None], *, row: int, most_rows: int, capacity: int) -> int:
    """The most tokens of a pass whose peak memory stays within ``capacity``.

    Memory grows with the number of rows, so two small measurements foretell the rest; what they foretell is measured
    too before it is used, and only ever approached from below.

    Args:
        measure: peak bytes of a forward and backward pass over so many rows; None when memory ran out.
        row: tokens of a row, the longest there is.
        most_rows: there are no more rows than that to put into a pass.
        capacity: bytes.

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


def measured_budget(trainer: DAPOTrainer, model: Any, *, row: int, most_rows: int) -> int:
    """`largest_budget` of the GPU that the trainer is on; the same on every process, that of the fullest one."""
    accelerator, device = trainer.accelerator, trainer.accelerator.device
    free, _ = torch.cuda.mem_get_info(device)
    capacity = int(SAFETY * (free + torch.cuda.memory_reserved(device))) - _optimizer_bytes(trainer)

    def measure(rows: int) -> int | None:
        peak = _peak(trainer, model, rows, row)
        everyones = gather(torch.tensor([-1 if peak is None else peak], device=device))
        return None if bool((everyones < 0).any()) else int(everyones.max())

    smallest = int(gather(torch.tensor([capacity], device=device)).min())
    with accelerator.no_sync(model), torch.random.fork_rng(devices=[device]):
        return largest_budget(measure, row=row, most_rows=most_rows, capacity=smallest)


def _peak(trainer: DAPOTrainer, model: Any, rows: int, row: int) -> int | None:
    """Peak bytes of a pass over made-up rows."""
    device = trainer.accelerator.device
    ids = torch.randint(0, trainer.model.config.get_text_config().vocab_size, (rows, row), device=device)
    where = layout(list(ids), [row - 1] * rows, row - 1, pad_token_id=0, packed=trainer.passes.packed)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        with trainer.accelerator.autocast():
            logps, _ = per_token(model, where)
        trainer.accelerator.backward(logps.mean())
        return torch.cuda.max_memory_allocated(device)
    except torch.OutOfMemoryError:
        return None
    finally:
        model.zero_grad()
        torch.cuda.empty_cache()


def _optimizer_bytes(trainer: DAPOTrainer) -> int:
    """What an Adam-like optimizer will still allocate at its first step: two numbers per weight."""
    if trainer.optimizer is not None and trainer.optimizer.state:
        return 0
    return sum(2 * p.numel() * p.element_size() for p in trainer.model.parameters() if p.requires_grad)
