"""The decoding loop behind transformers' `generate`: every prompt is read once, rows that have ended leave the batch.

`generate` prepares everything (settings, logits processors, stopping criteria, the cache) and calls `Decoding` in place
of its own loop. That one reads a prompt again for each member of its group, carries every row on until the longest one
ends, and copies the whole cache at each step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, GenerationConfig
from transformers.cache_utils import DynamicLayer
from transformers.generation import GenerationMode
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .params import FinishedFn

DrawFn = Callable[[Tensor, Tensor, int], Tensor]
"""``draw(scores, rows, step)``: a token for each of ``M`` rows, ``[M]``. ``scores`` are their logits after all
processors, ``[M, V]``; ``rows`` their places in the batch, ``[M]``; ``step`` counts the tokens drawn before."""
SHARE = 0.7
"""The batch is cut down when at most this share of its rows is unfinished. A cut costs about as much as one token."""
GROWTH = 8
"""A full buffer grows by one part in so many of its length."""
MIN_GROWTH = 64
"""Tokens that it grows by at least."""


_OTHER_LOOPS = (
    *("stop_strings", "guidance_scale", "prompt_lookup_num_tokens", "return_dict_in_generate", "watermarking_config"),
    "prefill_chunk_size",
)
"""Settings of `generate` that need more than the next token's scores, or keep something of each row."""


class UndividedError(Exception):
    """A cache that seemed to hold rows apart does not."""


class OtherLoopError(Exception):
    """The model's own settings ask for another loop."""


def one_token_after_another(settings: GenerationConfig) -> bool:
    """Whether each step draws one token for each row, from its scores alone."""
    return (
        settings.get_generation_mode() in (GenerationMode.SAMPLE, GenerationMode.GREEDY_SEARCH)
        and not any(getattr(settings, name, None) for name in _OTHER_LOOPS)
        and settings.cache_implementation in (None, "dynamic")
        and (settings.num_return_sequences or 1) == 1
    )


class BufferedLayer(DynamicLayer):
    """Keys and values of one layer at the front of a buffer with room for more: a step writes its own alone.

    Args:
        layer: Has the keys and values so far, ``[N, heads, tokens, width]``.
    """

    def __init__(self, layer: DynamicLayer):
        super().__init__()
        assert layer.keys is not None and layer.values is not None
        self.lazy_initialization(layer.keys, layer.values)
        self.keys, self.values = layer.keys, layer.values
        self._buffers = [layer.keys, layer.values]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append ``[N, heads, new, width]``; returns all keys and values, as views."""
        first = self.get_seq_length()
        end = first + key_states.shape[-2]
        assert self.keys is not None and self.values is not None
        moved = self.keys.data_ptr() != self._buffers[0].data_ptr()  # rows were chosen since
        if moved or end > self._buffers[0].shape[-2]:
            self._buffers = [_with_room(kept, end) for kept in (self.keys, self.values)]
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, first:end] = new
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
        return self.keys, self.values


def _with_room(kept: Tensor, end: int) -> Tensor:
    """A buffer that begins with ``kept``, ``[N, heads, tokens, width]``, and has room for more than ``end`` tokens."""
    rows, heads, tokens, width = kept.shape
    buffer = kept.new_empty(rows, heads, end + max(end // GROWTH, MIN_GROWTH), width)
    buffer[:, :, :tokens] = kept
    return buffer


@contextlib.contextmanager
def grouped_queries() -> Iterator[None]:
    """Within the block, a step of ``sdpa`` attention reads keys and values that several heads share as they are.

    With a mask, transformers repeats them for every head, which copies the whole cache in each layer of each step. Here
    the heads that share them stand in the place of positions: with one query there is no order among them.
    """
    theirs = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def ours(module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **more: Any) -> Any:
        rows, heads, length, width = query.shape
        shared = heads // key.shape[1]
        fits = isinstance(attention_mask, Tensor) and attention_mask.shape[1] == 1 and more.get("position_bias") is None
        if length > 1 or shared == 1 or not fits or more.get("dropout"):
            return theirs(module, query, key, value, attention_mask, **more)
        grouped = query.reshape(rows, heads // shared, shared, width)
        found = torch.nn.functional.scaled_dot_product_attention(
            grouped, key, value, attn_mask=attention_mask, scale=more.get("scaling")
        )
        return found.reshape(rows, 1, heads, value.shape[-1]), None

    ALL_ATTENTION_FUNCTIONS["sdpa"] = ours
    try:
        yield
    finally:
        del ALL_ATTENTION_FUNCTIONS["sdpa"]
        if ALL_ATTENTION_FUNCTIONS["sdpa"] is not theirs:  # somebody's own
            ALL_ATTENTION_FUNCTIONS["sdpa"] = theirs


def may_be_divided(cache: Any) -> bool:
    """Whether the rows of a cache can be repeated and dropped, as far as can be seen before it is filled."""
    return (
        isinstance(cache, Cache)
        and all(type(layer).__module__ == Cache.__module__ for layer in cache.layers)  # others may keep more of a row
        and not all(cache.is_linear)  # `generate` reads the length from a layer of attention
    )


@dataclass(frozen=True)
class Decoding:
    """A ``custom_generate`` of transformers."""

    draw: DrawFn
    """Chooses the tokens."""
    in_step: bool = False
    """All processes take equally many steps, because each holds a part of the weights."""
    divided: bool = True
    """Read each prompt once and let rows leave, where the cache allows it."""
    on_finished: FinishedFn | None = None
    """Called for each row at the step in which it ends."""

    @grouped_queries()
    def __call__(
        self,
        model: Any,
        input_ids: Tensor,
        logits_processor: Callable[[Tensor, Tensor], Tensor],
        stopping_criteria: Callable[[Tensor, Any], Tensor],
        generation_config: Any,
        **given: Any,
    ) -> Tensor:
        """Completions of ``[N, P]`` prompts, padded on the left, as `generate` returns them: ``[N, P + T]``.

        Raises:
            OtherLoopError: See there.
            UndividedError: To be called again with ``divided=False``.
        """
        if not one_token_after_another(generation_config):
            raise OtherLoopError
        prompt, pad = input_ids.shape[1], _padding(generation_config)
        divided = self.divided and may_be_divided(given.get("past_key_values"))
        logits, state = self._read(model, input_ids, given, divided)
        ids, rows = input_ids, torch.arange(len(input_ids), device=input_ids.device)
        found = ids.new_full((len(ids), generation_config.max_length), pad)
        ended, unfinished = torch.zeros_like(rows, dtype=torch.bool), len(rows)
        faster = getattr(model, "_optimize_model_for_decode", contextlib.nullcontext)  # experts, on a GPU
        with faster():
            while True:
                tokens = self.draw(logits_processor(ids, logits), rows, ids.shape[1] - prompt)
                ids = torch.cat([ids, tokens.masked_fill(ended, pad).unsqueeze(1)], dim=1)
                before, ended = ended, ended | stopping_criteria(ids, None)
                left = int((~ended).sum())
                if left < unfinished and self.on_finished is not None:
                    for place in (ended & ~before).nonzero().squeeze(1).tolist():
                        self.on_finished(int(rows[place]), ids[place, prompt:].tolist())
                unfinished = left
                if not self._any_left(left, ids.device):
                    break
                if divided and len(rows) > 1 and left <= SHARE * len(rows):
                    found[rows, : ids.shape[1]] = ids
                    going = (~ended).nonzero().squeeze(1) if left else rows.new_zeros(1)  # one, to keep in step
                    state, ids, rows, ended = _chosen(state, going, len(rows)), ids[going], rows[going], ended[going]
                inputs = model.prepare_inputs_for_generation(
                    ids, next_sequence_length=1 if given.get("use_cache") else None, **state
                )
                logits, state = _forward(model, inputs, state)
        width = min(ids.shape[1], found.shape[1])  # in step with others, some are carried on for longer
        found[rows, :width] = ids[:, :width]
        return found[:, :width]

    def _read(
        self, model: Any, input_ids: Tensor, given: dict[str, Any], divided: bool
    ) -> tuple[Tensor, dict[str, Any]]:
        """The logits after each prompt, ``[N, V]``, and what the next step is given."""
        if not divided:
            return _forward(
                model, model.prepare_inputs_for_generation(input_ids, is_first_iteration=True, **given), given
            )
        keys = input_ids.masked_fill(given["attention_mask"] == 0, -1)
        place = torch.unique(keys, dim=0, return_inverse=True)[1]
        first = torch.zeros(int(place.max()) + 1, dtype=torch.long, device=place.device)
        first[place] = torch.arange(len(place), device=place.device)
        given = _chosen(given, first, len(place), cache=False)
        inputs = model.prepare_inputs_for_generation(input_ids[first], is_first_iteration=True, **given)
        logits, state = _forward(model, inputs, given, must_return=given["past_key_values"])
        state = _chosen(state, place, len(first))
        layers = state["past_key_values"].layers
        layers[:] = [BufferedLayer(layer) if type(layer) is DynamicLayer else layer for layer in layers]
        return logits[place], state

    def _any_left(self, left: int, device: torch.device) -> bool:
        if not self.in_step:
            return left > 0
        most = torch.tensor(left, device=device)
        torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
        return int(most) > 0


def _padding(settings: GenerationConfig) -> int:
    """The token after the end of a completion, as `generate` chooses it."""
    end = settings.eos_token_id
    first = end[0] if isinstance(end, list) else end
    return next((int(token) for token in (settings.pad_token_id, first) if token is not None), 0)


def _forward(
    model: Any, inputs: dict[str, Any], state: dict[str, Any], *, must_return: Cache | None = None
) -> tuple[Tensor, dict[str, Any]]:
    """One step: the logits of the next tokens, ``[N, V]`` in float32, and what the step after it is given."""
    outputs = model(**inputs, return_dict=True)
    if must_return is not None:
        length = inputs["input_ids"].shape[1]
        if outputs.get("past_key_values") is not must_return or must_return.get_seq_length() != length:
            raise UndividedError
    logits = outputs.logits[:, -1].to(copy=True, dtype=torch.float32)
    return logits, model._update_model_kwargs_for_generation(outputs, state)


def _chosen(state: dict[str, Any], rows: Tensor, count: int, *, cache: bool = True) -> dict[str, Any]:
    """Some rows of the inputs of a step, repeated or left out: tensors with ``count`` rows, and the cache."""
    if cache:
        state["past_key_values"].reorder_cache(rows)
    return {
        name: value[rows] if isinstance(value, Tensor) and value.ndim and len(value) == count else value
        for name, value in state.items()
    }
