"""Where the processor time of a training run goes: generation, verification, updates, optimizer, everything else."""

from __future__ import annotations

import contextlib
import functools
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from transformers import TrainerCallback

from dapo_trl import DAPOTrainer
from dapo_trl.update import microbatches

SECTIONS = ("generation", "verification", "forward/backward", "log-probabilities", "optimizer")


class Timers(TrainerCallback):
    """Seconds of a training run by section; what is timed within something timed counts once, for the outer."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.total = 0.0
        self._inside = False

    @contextlib.contextmanager
    def section(self, name: str):
        if self._inside:
            yield
            return
        self._inside, since = True, time.process_time()
        try:
            yield
        finally:
            self._inside = False
            self.seconds[name] += time.process_time() - since

    def wrap(self, owner: Any, attribute: str, name: str, counts=lambda: True) -> None:
        inner = getattr(owner, attribute)

        @functools.wraps(inner)
        def timed(*args, **kwargs):
            if not counts():
                return inner(*args, **kwargs)
            with self.section(name):
                return inner(*args, **kwargs)

        setattr(owner, attribute, timed)

    def on_train_begin(self, args, state, control, optimizer=None, **kwargs):
        self.wrap(optimizer, "step", "optimizer")
        self._since = time.process_time()

    def on_train_end(self, args, state, control, **kwargs):
        self.total = time.process_time() - self._since

    def by_section(self, total: float) -> dict[str, float]:
        """Seconds of each section, and of everything else in `total` seconds."""
        found = {name: self.seconds[name] for name in SECTIONS}
        return found | {"everything else": total - sum(found.values())}


@contextlib.contextmanager
def timed(trainer: Any) -> Iterator[Timers]:
    """Time the sections of a trainer, ours or TRL's, that trains within the block."""
    timers, per_token = Timers(), microbatches.per_token
    trainer.add_callback(timers)
    ours = isinstance(trainer, DAPOTrainer)
    fresh = (lambda: trainer.known is None) if ours else (lambda: True)
    timers.wrap(*((trainer._collector, "_sample") if ours else (trainer, "_generate")), "generation", counts=fresh)
    timers.wrap(trainer, "_calculate_rewards", "verification", counts=fresh)
    timers.wrap(trainer.accelerator, "clip_grad_norm_", "optimizer")
    if ours:
        timers.wrap(trainer, "backward", "forward/backward")
        timers.wrap(microbatches, "per_token", "log-probabilities")
    else:
        timers.wrap(trainer, "compute_loss", "forward/backward")
        timers.wrap(trainer.accelerator, "backward", "forward/backward")
        timers.wrap(trainer, "_get_per_token_logps_and_entropies", "log-probabilities")
    try:
        yield timers
    finally:
        microbatches.per_token = per_token
