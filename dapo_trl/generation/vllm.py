"""vLLM, in the trainer's process or in a server, as TRL drives it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from .params import Turns, limited_to


class VLLMBackend:
    """Samples with TRL's vLLM engine, which is pushed the weights once for each optimizer step.

    Args:
        sample: TRL's call of the engine: ``sample(contexts, group_size)``.
        engine: TRL's engine, for its length limit.
        session: Keeps a sleeping engine awake for a whole rollout batch.
    """

    def __init__(
        self,
        sample: Callable[[list[list[int]], int], Turns],
        engine: Any,
        session: Callable[[], AbstractContextManager[None]],
    ):
        self._sample, self._engine, self.session = sample, engine, session

    def generate(self, contexts: list[list[int]], *, limit: int, group_size: int) -> Turns:
        with limited_to(self._engine, "max_completion_length", limit):
            return self._sample(contexts, group_size)
