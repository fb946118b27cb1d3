"""The type that passes compute in: what accelerate was asked for, or bfloat16 on a CPU where it turns out faster."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather

GAIN = 1.1
"""Least speed-up of a forward pass for which a CPU computes in bfloat16."""
TRIALS = 2
"""Timed passes in each type, alternating; one more of each comes before."""


class Precision:
    """The autocast of all passes that compute log-probabilities and gradients.

    Args:
        tries: Try bfloat16 on a CPU (``cpu_precision: auto``). Ignored on a GPU and with ``bf16`` or ``fp16``.
        accelerator: Whose mixed precision holds otherwise.
        say: Prints a line.
    """

    def __init__(self, accelerator: Accelerator, *, tries: bool, say: Callable[[str], None]):
        self._accelerator, self._say = accelerator, say
        mixed = str(accelerator.mixed_precision)
        self._asked = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(mixed)
        self._tries = tries and accelerator.device.type == "cpu" and self._asked is None
        self._able = self._tries and bool(gather(torch.tensor([cpu_has_bf16()])).all())
        """Whether all processes can, as all choose the same."""
        self.halved: bool | None = None
        """Whether a CPU computes in bfloat16; None: not known yet, and float32."""

    @property
    def dtype(self) -> torch.dtype | None:
        """The type of products; None: that of the weights."""
        return torch.bfloat16 if self.halved else self._asked

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Passes compute in this type within."""
        return torch.autocast("cpu", torch.bfloat16) if self.halved else self._accelerator.autocast()

    def restore(self, halved: bool | None) -> None:
        """Go on as a checkpoint says, where that is asked for still and these processors can."""
        if self._tries and (self._able or not halved):
            self.halved = halved

    def settle(self, forward: Callable[[], Any]) -> None:
        """Choose the type by a trial, once; every process calls it at the same time, and all choose the same.

        Args:
            forward: A forward pass of a microbatch, laid out for `dtype` and computed within `autocast`.
        """
        if not self._tries or self.halved is not None:
            return
        if not self._able:
            self.halved = False
            self._say("cpu_precision is 'auto': computing in float32, the processor has no instructions for bfloat16.")
            return
        seconds = self._seconds(forward)
        gain = seconds[False] / seconds[True]
        chosen = [gain >= GAIN, gain]
        broadcast_object_list(chosen)
        self.halved = bool(chosen[0])
        name = "bfloat16" if self.halved else "float32"
        self._say(f"cpu_precision is 'auto': computing in {name}, bfloat16 is {chosen[1]:.2f} times as fast here.")

    def _seconds(self, forward: Callable[[], Any]) -> dict[bool, float]:
        """The shortest of the timed passes, in float32 and in bfloat16."""
        found = {False: float("inf"), True: float("inf")}
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            for trial in range(TRIALS + 1):
                for self.halved in (False, True):
                    before = time.perf_counter()
                    forward()
                    if trial:
                        found[self.halved] = min(found[self.halved], time.perf_counter() - before)
        return found


def cpu_has_bf16() -> bool:
    """Whether this processor has instructions that multiply in bfloat16 (AVX512-BF16 or AMX)."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
