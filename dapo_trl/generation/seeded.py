"""Tokens drawn with random numbers of each completion's own.

Which tokens a completion gets depends on the model and on the numbers of that completion alone: not on the completions
beside it, on their order, on the number of processes, or on where an evaluation was interrupted. Only
rounding is left: in a batch of another shape a logit may differ in its last digits, and very rarely a token with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from ..rollout.chat_format import ChatFormat
from . import transformers as compaction

_BELOW_ONE = 1.0 - 2.0**-40
_PLAIN: dict[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "use_cache": True,
}
"""Settings that a model's own generation settings may have otherwise."""


def random_numbers(seed: int, index: int, number: int, length: int) -> np.ndarray:
    """``[length]`` in [0, 1), one for each token of sample ``number`` of problem ``index``."""
    return np.random.default_rng([seed % 2**64, index, number]).random(length)


def draw_tokens(logits: Tensor, numbers: Tensor, *, temperature: float, top_p: float) -> Tensor:
    """Draw a token for each row by inversion: the first whose cumulative probability is beyond the row's number.

    Args:
        logits: ``[N, V]``.
        numbers: ``[N]`` float64 in [0, 1).
        temperature: 0 takes the most probable token.
        top_p: Tokens are drawn from the smallest set of most probable ones whose probability reaches it.

    Returns:
        ``[N]`` token ids.
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    probabilities = torch.softmax(logits.float() / temperature, dim=-1)
    if top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
        outside = ordered.cumsum(dim=-1) - ordered >= top_p
        outside[:, 0] = False
        probabilities = probabilities.scatter(1, order, ordered.masked_fill(outside, 0.0))
    cumulative = probabilities.cumsum(dim=-1, dtype=torch.float64)
    wanted = numbers.clamp(max=_BELOW_ONE).unsqueeze(1) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, wanted, right=True).squeeze(1)


class _Drawn(LogitsProcessor):
    """Leaves `generate` one token to choose in each row: the one that was drawn."""

    def __init__(self, numbers: Tensor, width: int, **shape: float):
        self.numbers, self.width, self.shape = numbers, width, shape

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        drawn = draw_tokens(scores, self.numbers[:, input_ids.shape[1] - self.width], **self.shape)
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn.unsqueeze(1), 0.0)

    def keep(self, rows: Tensor) -> None:
        self.numbers = self.numbers[rows]


def generate(
    model: Any,
    chat_format: ChatFormat,
    contexts: Sequence[list[int]],
    numbers: np.ndarray,
    *,
    temperature: float,
    top_p: float,
) -> list[list[int]]:
    """Continue each context up to the end of the model's turn.

    Args:
        contexts: ``N`` lists of tokens.
        numbers: ``[N, room]``, see `random_numbers`; ``room`` is the most tokens that a continuation may have.
    """
    tokenizer, stop_ids, width = chat_format.tokenizer, list(chat_format.stop_ids), max(map(len, contexts))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    ids = torch.tensor([[pad] * (width - len(tokens)) + tokens for tokens in contexts], device=model.device)
    mask = torch.tensor([[0] * (width - len(tokens)) + [1] * len(tokens) for tokens in contexts], device=model.device)
    drawn = _Drawn(torch.from_numpy(numbers).to(model.device), width, temperature=temperature, top_p=top_p)
    settings = GenerationConfig(max_new_tokens=numbers.shape[1], eos_token_id=stop_ids, pad_token_id=pad, **_PLAIN)
    processors = LogitsProcessorList([drawn])
    sampled = compaction.generate(model, ids, mask, settings, going_on=drawn.keep, logits_processor=processors)
    return [_up_to_stop(row, stop_ids) for row in sampled[:, width:].tolist()]


def stop_ids(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end the model's turn, by its generation settings and its tokenizer."""
    declared = model.generation_config.eos_token_id
    declared = declared if isinstance(declared, list) else [declared]
    return [token for token in {*declared, tokenizer.eos_token_id} if token is not None]


def _up_to_stop(ids: list[int], stops: Sequence[int]) -> list[int]:
    end = next((i for i, token in enumerate(ids) if token in stops), len(ids) - 1)
    return ids[: end + 1]
