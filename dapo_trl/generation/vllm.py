"""vLLM, in the trainer's process or in a server, as TRL drives it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from .params import FinishedFn, Turns, limited_to


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

    def generate(
        self, contexts: list[list[int]], *, limit: int, group_size: int, on_finished: FinishedFn | None = None
    ) -> Turns:
        with limited_to(self._engine, "max_completion_length", limit), _reported(self._engine, on_finished):
            return self._sample(contexts, group_size)


@contextmanager
def _reported(engine: Any, on_finished: FinishedFn | None) -> Iterator[None]:
    """Within the block, requests are reported as they end, by the order in which they were added.

    This takes vLLM in this process, alone on its model; a server returns all completions at once.
    """
    requests: Any = getattr(getattr(engine, "llm", None), "llm_engine", None)
    if on_finished is None or not hasattr(requests, "step") or engine.tensor_parallel_size > 1:
        yield
        return
    places: dict[str, int] = {}
    add_request, step = requests.add_request, requests.step

    def numbered(request_id: str, *args: Any, **kwargs: Any) -> Any:
        places[request_id] = len(places)
        return add_request(request_id, *args, **kwargs)

    def watched() -> Any:
        outputs = step()
        for output in outputs:
            if output.finished:
                on_finished(places[output.request_id], list(output.outputs[0].token_ids))
        return outputs

    requests.add_request, requests.step = numbered, watched
    try:
        yield
    finally:
        del requests.add_request, requests.step
