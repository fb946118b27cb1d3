"""Attention over sequences that lie side by side in one row and begin, many of them, with tokens that they share.

Two completions of 2 and 3 tokens after the prompt ``a b c`` are one row of 7 tokens instead of two rows of 4 and 5: the
last token of a sequence is only predicted, and the prompt is there once::

    tokens      a b | c d | c e f       each completion begins at its own copy of the prompt's last token
    positions   0 1 | 2 3 | 2 3 4
    spans       [ ]   [ ]   [   ]       a span sees what its completion shares with others, and then itself

Everything but attention works token by token and needs no more than the positions. Attention is transformers' own
function of the model's backend, called on the spans: eager and SDPA in calls of spans of similar lengths, flash
attention with the bounds of the spans, flex attention with a block mask over the whole row. No pair of tokens is
computed that separate sequences would not compute, so sharing saves what the shared tokens cost.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, chunked_overlay, sliding_window_overlay

from ..distributed import weight_count

ATTENTION_LAYERS = ("full_attention", "sliding_attention", "chunked_attention")
BACKENDS = ("eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3", "flash_attention_4")
SIMILAR, CLOSE = 0.75, 16
"""Spans of one call are at least this share as long as its longest, or at most this many tokens shorter."""
QUERY_BLOCK, QUERY_BLOCKS = 128, 8
"""Queries of a block at least, and blocks of a call with a mask at most: a block needs no keys behind its last query.
Measured on a CPU, completions of 256 to 1,024 tokens: blocks of 128 make up for the mask."""
KEPT = 25
"""Numbers that a layer keeps of each token for its backward pass, in hidden sizes, not counted too high: 38 in a
Llama-shaped model in float32 on a CPU, 30 M weights, by the profiler's account of every allocation."""
MASKED_COST = 2.5
"""Cost of SDPA with a mask on a GPU, where without one it costs 1: an estimate, not measured; its flash kernel takes no
mask. On a CPU both cost the same (benchmarks/shared_prompts.py)."""


@dataclass(frozen=True)
class Span:
    """Neighbouring tokens of the row that are part of one sequence, and the shared ones before them."""

    start: int
    length: int
    shared_start: int = 0
    shared: int = 0
    """Tokens of the sequence before the span; the position of its first token."""


@dataclass(eq=False)
class Call:
    """Spans of similar lengths, padded to the longest: ``n`` spans, ``Q`` queries and ``K`` keys each."""

    spans: int
    queries: Tensor
    """``[n Q]`` places in the row; padding is any place."""
    keys: Tensor | None
    """``[n K]`` places in the row; None: the queries' own."""
    shared: int
    """The most tokens before a span."""
    masks: tuple[Tensor | None, ...]
    """For each kind of layer ``[n or 1, 1, Q, K]``, 0 where a query sees a key; None: a span sees what comes before."""


@dataclass(eq=False)
class Plan:
    """The calls that attention over one row is made of. Not frozen, because PyTorch's wrappers copy what they pass on
    field by field."""

    calls: tuple[Call, ...] = ()
    place: Tensor | None = None
    """``[M]``: where the output of each token of the row is among the outputs of all calls."""
    keys: Tensor | None = None
    """For flash attention: the places of the keys of all spans, one span after the other."""
    bounds: dict[str, Any] = field(default_factory=dict)
    """For flash attention: the bounds of the spans among queries and keys, under transformers' names."""


class SharedAttention:
    """The attention of a model whose rows hold many sequences.

    Args:
        model: The model without wrappers.
        device: Where it is computed.
    """

    def __init__(self, model: PreTrainedModel, device: torch.device | str = "cpu"):
        source = sys.modules[type(model).__module__]
        self.backend: str = model.config.get_text_config()._attn_implementation
        self._functions: Any = vars(source).get("ALL_ATTENTION_FUNCTIONS")
        self._eager: Callable[..., Any] | None = vars(source).get("eager_attention_forward")
        self._function: Callable[..., Any] | None = None
        self._config = model.config.get_text_config()
        layers = getattr(self._config, "layer_types", None) or [self._only_layer]
        self._kinds = list(dict.fromkeys(layers))
        heads = getattr(self._config, "num_attention_heads", 1)
        width = head_size(self._config)
        self._pair_cost = 2 * self._config.num_hidden_layers * heads * width
        self._token_cost = weight_count(model)
        keys = getattr(self._config, "num_key_value_heads", None) or heads
        self.copy_load = 2 * keys * width / (KEPT * self._config.hidden_size)
        """Memory of a copy of a token's keys and values, as a share of all that is kept of a token."""
        self._device = torch.device(device)

    @property
    def _only_layer(self) -> str:
        """The kind of all layers of a model that does not tell them apart, by the rule of transformers' masks."""
        if getattr(self._config, "sliding_window", None) is not None:
            return "sliding_attention"
        return "full_attention" if getattr(self._config, "attention_chunk_size", None) is None else "chunked_attention"

    @property
    def _is_flash(self) -> bool:
        return "flash" in self.backend

    def pays(self, lengths: Sequence[int], shared: int) -> bool:
        """Whether sequences of these many tokens cost less together than one by one, ``shared`` tokens once for all.

        Together they save tokens, a multiplication for each weight, and the attention of these to one another; the
        rest of attention may cost more than by itself, because it needs a mask.
        """
        if self.backend != "sdpa" or self._device.type == "cpu":
            return True
        saved = (len(lengths) - 1) * shared * (self._token_cost + self._pair_cost * shared / 2)
        behind = sum((length - shared) * (length + shared) / 2 for length in lengths)
        return saved > (MASKED_COST - 1) * self._pair_cost * behind

    def inputs(self, spans: Sequence[Span], dtype: torch.dtype) -> dict[str, Any]:
        """Arguments for the model beside tokens and positions.

        Args:
            spans: In the order of the row, which they cover without a gap.
            dtype: The type that attention is computed in.
        """
        if self.backend == "flex_attention":
            found = [self._block_mask(kind, spans) for kind in self._kinds]
            more: dict[str, Any] = {}
        else:
            # Each kind of layer is known by the size of its mask, which would not fit anything.
            found = [torch.empty(1, number, 0, 1, device=self._device) for number in range(len(self._kinds))]
            more = {"attention_plan": self._plan(spans, dtype)}
        by_kind = dict(zip(self._kinds, found, strict=True))
        return {"attention_mask": by_kind if len(by_kind) > 1 else found[0], **more}

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Let the attention function of transformers take rows of spans, in forward and backward passes."""
        if self.backend == "flex_attention" or self._function is not None:  # its mask is enough; it answers already
            yield
            return
        before = self._functions.get(self.backend)
        self._function = before or self._eager
        self._functions[self.backend] = self._attend
        try:
            yield
        finally:
            self._function = None
            del self._functions[self.backend]
            if self._functions.get(self.backend) is not before:
                self._functions[self.backend] = before

    # The plan of a row

    def _overlay(self, kind: str) -> tuple[int | None, Callable[..., Any] | None]:
        """Tokens that a layer looks back at most, and transformers' mask function for them; None: all."""
        window = getattr(self._config, "sliding_window", None)
        if kind == "sliding_attention" and window is not None:
            return window, sliding_window_overlay(window)
        if kind == "chunked_attention":
            size = self._config.attention_chunk_size
            return size, chunked_overlay(size, torch.zeros(1, dtype=torch.long, device=self._device))
        return None, None

    def _plan(self, spans: Sequence[Span], dtype: torch.dtype) -> Plan:
        if self._is_flash:
            return _flash_plan(spans, self._device)
        calls, places, first = [], np.empty(sum(span.length for span in spans), dtype=np.int64), 0
        for alike in _similar(spans):
            width = max(span.length for span in alike)
            for span in alike:
                places[span.start : span.start + span.length] = np.arange(first, first + span.length)
                first += width
            calls.append(self._call(alike, width, dtype))
        return Plan(tuple(calls), torch.from_numpy(places).to(self._device))

    def _call(self, spans: Sequence[Span], width: int, dtype: torch.dtype) -> Call:
        most = max(span.shared + span.length for span in spans)
        queries = np.zeros((len(spans), width), dtype=np.int64)
        keys = np.zeros((len(spans), most), dtype=np.int64)
        for query, key, span in zip(queries, keys, spans, strict=True):
            query[: span.length] = np.arange(span.start, span.start + span.length)
            key[: span.shared] = np.arange(span.shared_start, span.shared_start + span.shared)
            key[span.shared : span.shared + span.length] = query[: span.length]
        shared = [span.shared for span in spans]
        offsets = torch.tensor(shared if len(set(shared)) > 1 else shared[:1], device=self._device)
        return Call(
            spans=len(spans),
            queries=torch.from_numpy(queries.ravel()).to(self._device),
            keys=torch.from_numpy(keys.ravel()).to(self._device) if any(shared) else None,
            shared=max(shared),
            masks=tuple(self._mask(kind, offsets, width, most, dtype) for kind in self._kinds),
        )

    def _mask(self, kind: str, offsets: Tensor, queries: int, keys: int, dtype: torch.dtype) -> Tensor | None:
        window, overlay = self._overlay(kind)
        if window is not None and window >= keys:
            overlay = None
        if overlay is None and self.backend == "sdpa" and queries == keys:
            return None  # its causal kernel
        at = offsets[:, None, None, None] + torch.arange(queries, device=self._device)[:, None]
        to = torch.arange(keys, device=self._device)
        seen = to <= at
        if overlay is not None:
            seen = seen & overlay(0, 0, at, to)
        return torch.zeros(seen.shape, dtype=dtype, device=self._device).masked_fill_(~seen, torch.finfo(dtype).min)

    def _block_mask(self, kind: str, spans: Sequence[Span]) -> Any:
        """Flex attention's mask of the row: the tokens before, of the own span and of the shared one."""
        numbers = {span.start: number for number, span in enumerate(spans)}
        lengths = [span.length for span in spans]
        own = np.repeat(np.arange(len(spans)), lengths)
        shared = np.repeat([numbers[span.shared_start if span.shared else span.start] for span in spans], lengths)
        own_at, shared_at, at = (
            torch.from_numpy(values).to(self._device) for values in (own, shared, positions(spans))
        )
        _, overlay = self._overlay(kind)

        def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            seen = (key <= query) & ((own_at[key] == own_at[query]) | (own_at[key] == shared_at[query]))
            return seen if overlay is None else seen & overlay(batch, head, at[query], at[key])

        return ALL_MASK_ATTENTION_FUNCTIONS["flex_attention"](
            batch_size=1, q_length=len(own), kv_length=len(own), mask_function=visible, device=self._device
        )

    # The attention of a layer

    def _attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any,
        *,
        attention_plan: Plan | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Any]:
        """One of transformers' attention functions, on the spans of a row: ``[1, H, M, D]`` to ``[1, M, H, D]``."""
        assert self._function is not None
        if attention_plan is None:
            return self._function(module, query, key, value, attention_mask, **kwargs)
        if attention_plan.place is None:
            assert attention_plan.keys is not None
            key, value = key.index_select(2, attention_plan.keys), value.index_select(2, attention_plan.keys)
            return self._function(module, query, key, value, None, **(kwargs | attention_plan.bounds))
        kind, outputs = attention_mask.shape[1], []
        for call in attention_plan.calls:
            keys = call.queries if call.keys is None else call.keys
            gathered = (
                _gathered(query, call.queries, call.spans),
                _gathered(key, keys, call.spans),
                _gathered(value, keys, call.spans),
            )
            outputs.append(self._called(module, gathered, call.masks[kind], call.shared, kwargs).flatten(0, 1))
        return torch.cat(outputs).index_select(0, attention_plan.place).unsqueeze(0), None

    def _called(
        self,
        module: nn.Module,
        states: tuple[Tensor, Tensor, Tensor],
        mask: Tensor | None,
        shared: int,
        kwargs: dict[str, Any],
    ) -> Tensor:
        """One call: queries ``[n, H, Q, D]``, keys and values ``[n, H, K, D]``, to ``[n, Q, H, D]``."""
        assert self._function is not None
        query, key, value = states
        if mask is None:
            return self._function(module, query, key, value, None, **kwargs)[0]
        mask, found = mask.to(query.dtype), []
        block = max(QUERY_BLOCK, -(-query.shape[2] // QUERY_BLOCKS))
        for first in range(0, query.shape[2], block):
            last = min(first + block, query.shape[2])
            keys = shared + last
            part = (query[:, :, first:last], key[:, :, :keys], value[:, :, :keys], mask[:, :, first:last, :keys])
            if self.backend == "sdpa" and query.device.type == "cpu":
                found.append(_sdpa_on_cpu(*part, **kwargs))
            else:
                found.append(self._function(module, *part, **kwargs)[0])
        return torch.cat(found, dim=1) if len(found) > 1 else found[0]


def head_size(config: Any) -> int:
    """Numbers of a head in a text model's configuration; where its layers differ, about as many."""
    try:
        size = getattr(config, "head_dim", None)
    except RuntimeError:  # transformers will not name one for all layers
        size = None
    return size or config.hidden_size // getattr(config, "num_attention_heads", 1)


def positions(spans: Sequence[Span]) -> np.ndarray:
    """``[M]``: the position of each token of the row in its sequence."""
    return np.concatenate([np.arange(span.shared, span.shared + span.length) for span in spans])


def obstacle(model: Any) -> str:
    """The reason why a model cannot compute sequences side by side that share tokens; "": it can.

    Args:
        model: The model, with or without an adapter.
    """
    model = model.get_base_model() if isinstance(model, PeftModel) else model
    if not isinstance(model, PreTrainedModel):
        return "it is not a model of transformers"
    text, source = model.config.get_text_config(), vars(sys.modules[type(model).__module__])
    layers = getattr(text, "layer_types", None) or ()
    if any(layer not in ATTENTION_LAYERS for layer in layers) or getattr(model, "_is_stateful", False):
        return "it has layers without attention"
    if model.config.is_encoder_decoder or not getattr(text, "is_causal", True):
        return "its attention is not causal"
    accepted = inspect.signature(type(model).forward).parameters
    if not getattr(model, "_supports_attention_backend", False) or "position_ids" not in accepted:
        return "its code has an attention or positions of its own"
    backend = str(text._attn_implementation)
    if backend not in BACKENDS or "ALL_ATTENTION_FUNCTIONS" not in source:
        return f"its attention is {backend!r}"
    chunked = "chunked_attention" in layers or getattr(text, "attention_chunk_size", None) is not None
    if "flash" in backend and chunked:
        return "flash attention knows no chunks"
    if backend == "eager" and (
        "eager_attention_forward" not in source or getattr(text, "reorder_and_upcast_attn", False)
    ):
        return "its eager attention is not transformers' common one"
    dropouts = [part.p for part in model.modules() if isinstance(part, nn.Dropout)]
    if any([*dropouts, getattr(text, "attention_dropout", 0)]):
        return "its dropout would be the same for all members of a group"
    return ""


def _similar(spans: Sequence[Span]) -> list[list[Span]]:
    """Spans of one call each: with shared tokens or without, and of similar lengths."""
    found: list[list[Span]] = []
    for span in sorted(spans, key=lambda span: (span.shared > 0, -span.length)):
        if found and (found[-1][0].shared > 0) == (span.shared > 0):
            longest = found[-1][0].length
            if span.length >= min(SIMILAR * longest, longest - CLOSE):
                found[-1].append(span)
                continue
        found.append([span])
    return found


def _gathered(states: Tensor, places: Tensor, spans: int) -> Tensor:
    """``[1, H, M, D]`` of the row as ``[n, H, Q, D]`` of the spans."""
    row = states[0].transpose(0, 1)
    return row.index_select(0, places).view(spans, -1, *row.shape[1:]).transpose(1, 2)


def _flash_plan(spans: Sequence[Span], device: torch.device) -> Plan:
    """The spans as sequences of flash attention, whose causal mask is aligned to the last query and the last key."""
    keys = [
        np.concatenate([np.arange(s.shared_start, s.shared_start + s.shared), np.arange(s.start, s.start + s.length)])
        for s in spans
    ]
    sizes = ([span.length for span in spans], [len(places) for places in keys])
    queries, seen = (torch.tensor([0, *itertools.accumulate(one)], dtype=torch.int32, device=device) for one in sizes)
    longest = {"max_length_q": max(sizes[0]), "max_length_k": max(sizes[1])}
    bounds: dict[str, Any] = {"cu_seq_lens_q": queries, "cu_seq_lens_k": seen, **longest}
    return Plan(keys=torch.from_numpy(np.concatenate(keys)).to(device), bounds=bounds)


def _sdpa_on_cpu(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> Tensor:
    """SDPA without the copies of grouped keys that transformers makes where there is a mask: this kernel needs none."""
    found = scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling, enable_gqa=True
    )
    return found.transpose(1, 2)
