"""The seam for a generation backend: how it is asked for tokens, and with which settings.

A backend of your own is one class in one file, named in the settings as ``generation_backend: my_module:MyBackend``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ..config import DAPOConfig
from ..errors import ConfigError
from ..settings import load_object

FinishedFn = Callable[[int, list[int]], None]
"""``on_finished(place, ids)``: the turn sampled for a context, end token included, as soon as it is known."""


class Turns(NamedTuple):
    """The tokens sampled for ``N`` contexts."""

    ids: list[list[int]]
    """``N`` lists, the end token included where the model ended its turn."""
    logprobs: list[list[float]] | None = None
    """Their log-probabilities by the sampler; None where it does not give them."""


@dataclass(frozen=True)
class SamplingParams:
    """How tokens are drawn."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float | None
    repetition_penalty: float
    max_tokens: int
    """Longest completion, in tokens."""
    stop_ids: tuple[int, ...]
    """Tokens that end the model's turn."""

    @classmethod
    def of(cls, args: DAPOConfig, stop_ids: Sequence[int]) -> SamplingParams:
        return cls(
            temperature=args.temperature,
            top_p=args.top_p,
            top_k=args.top_k,
            min_p=args.min_p,
            repetition_penalty=args.repetition_penalty,
            max_tokens=args.max_completion_length,
            stop_ids=tuple(sorted(stop_ids)),
        )


class GenerationBackend(Protocol):
    """Samples the model's turns."""

    def generate(self, contexts: list[list[int]], *, limit: int, group_size: int) -> Turns:
        """Continue each context up to the end of the model's turn.

        Args:
            contexts: ``N`` lists of tokens.
            limit: Tokens that a continuation may have at most.
            group_size: Neighbours that have the same context: the group size in a first turn, 1 later.

        A backend that draws the tokens itself may name a further argument, ``numbers``: a `seeded.RandomNumbers` for
        the contexts, or None. By these a run goes on alike on another number of processes. One that names
        ``on_finished``, a `FinishedFn`, calls it with turns that end before others do: they are judged meanwhile.
        """

    def session(self) -> AbstractContextManager[None]:
        """A context around all sampling of one rollout batch, during which the policy stays the same."""


class Backend:
    """A base for backends of your own.

    Args:
        model: The model being trained, as transformers or PEFT made it.
        tokenizer: Its tokenizer.
        params: How tokens are drawn.
    """

    def __init__(self, model: Any, tokenizer: Any, params: SamplingParams):
        self.model, self.tokenizer, self.params = model, tokenizer, params

    def session(self) -> AbstractContextManager[None]:
        return nullcontext()


def own_backend(name: str, model: Any, tokenizer: Any, params: SamplingParams) -> GenerationBackend:
    """The backend of a user, by ``module:Class``.

    Raises:
        ConfigError: There is none of that name, or it has no ``generate``.
    """
    made = load_object(name, what="generation_backend")(model, tokenizer, params)
    if not all(callable(getattr(made, method, None)) for method in ("generate", "session")):
        raise ConfigError(
            f"generation_backend is {name!r}, which has no generate() and session(): derive it from "
            "dapo_trl.generation.params.Backend."
        )
    return made


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Put ``value`` in the place of an attribute of a module or an object within the block, such as a length limit
    while a turn is sampled."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
