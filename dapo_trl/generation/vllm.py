"""vLLM's engine in the trainer's process, which sleeps while the model is trained (``vllm_enable_sleep_mode``).

TRL lets it sleep after every call and pushes the weights again before the next one. A rollout batch may take many: its
rounds, and the turns of its episodes, all of the same policy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..trainer import DAPOTrainer


@contextlib.contextmanager
def kept_awake(trainer: DAPOTrainer) -> Iterator[None]:
    """Wake the engine once, with the weights as they are, and let it sleep at the end."""
    engine = trainer.vllm_generation if trainer.use_vllm else None
    if engine is None or engine.mode != "colocate" or not engine.enable_sleep_mode:
        yield
        return
    engine.sync_weights()  # wakes what holds the weights
    trainer._last_loaded_step = trainer.state.global_step
    engine.llm.wake_up(tags=["kv_cache"])
    engine.enable_sleep_mode = engine._llm_weights_sleeping = False
    try:
        yield
    finally:
        engine.llm.sleep(level=2)
        engine.enable_sleep_mode = engine._llm_weights_sleeping = True
