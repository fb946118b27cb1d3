"""Means over the tokens of an optimizer step, exact over micro-batches and processes."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor


class TokenMeans:
    """Sums and counts of one optimizer step, kept on the device until they are read once."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, name: str, values: Tensor, mask: Tensor) -> None:
        """Add the entries of ``values`` (``[N, T]`` or ``[N, 1]``) where ``mask`` (``[N, T]``) is 1."""
        active = mask.bool()
        if values.shape[1] == 1:  # one value per completion: counted once for each completion that has tokens
            active = active.any(dim=1, keepdim=True)
        total = torch.where(active, values.detach().float(), 0.0).sum()
        entry = torch.stack([total, active.sum().float()])
        self._sums[name] = self._sums[name] + entry if name in self._sums else entry

    def drain(self, accelerator: Accelerator) -> dict[str, float]:
        """The means over all processes; empties the collection. All processes must have added the same names."""
        if not self._sums:
            return {}
        names = list(self._sums)
        totals = accelerator.reduce(torch.stack([self._sums[name] for name in names]), reduction="sum")
        self._sums = {}
        return {name: total / max(count, 1.0) for name, (total, count) in zip(names, totals.tolist(), strict=True)}
