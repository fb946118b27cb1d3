"""Log-probabilities and entropies of completions, from forward passes that compute as little as possible.

The last token of a sequence is only predicted, so what enters the model are the others. Three layouts. *Padded*: one
sequence per row, padding on the right only, so that causal attention needs no mask. *Packed*: all sequences in one row,
where the attention backend keeps them apart by their position ids (flash attention, flex attention). *Shared*: all
sequences in one row, tokens that several begin with once; see `attention`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .attention import ATTENTION_LAYERS, SharedAttention, Span, positions

IGNORED = -100
"""Label of a position that is not scored."""


@dataclass(frozen=True)
class Line:
    """Sequences that are computed together, what they begin with once."""

    rows: Sequence[int]
    shared: int
    """Tokens at the beginning that enter the model once for all; 0 for a sequence by itself."""
    tokens: int
    """Tokens that enter the model."""
    load: int
    """What it counts for against a budget: its tokens, and the memory of copied keys and values in tokens."""

    @classmethod
    def alone(cls, row: int, sequence: np.ndarray) -> Line:
        """A sequence by itself."""
        tokens = max(len(sequence) - 1, 1)
        return cls([row], 0, tokens, tokens)


@dataclass(frozen=True)
class Layout:
    """The inputs of one forward pass, and the places of the completion tokens in its output."""

    inputs: dict[str, Any]
    index: Tensor
    """``[N, T]``: position of each completion token's log-probability in the flattened output."""
    valid: Tensor
    """``[N, T]`` bool: False where a completion is shorter than ``T``."""


def layout(
    sequences: Sequence[np.ndarray],
    completions: Sequence[int],
    width: int | None = None,
    *,
    pad_token_id: int,
    device: torch.device | str = "cpu",
    packed: bool = False,
    attention: SharedAttention | None = None,
    lines: Sequence[Line] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Layout:
    """Lay sequences out for one forward pass.

    Args:
        sequences: Token ids ``[L_i]``, prompt and completion side by side.
        completions: Tokens of each that are the completion, at most ``L_i - 1``.
        width: ``T``, at least the longest completion; None: the longest.
        packed: Use the packed layout; the padded one otherwise.
        attention: Use the shared layout, with this attention.
        lines: Sequences that share a beginning, for the shared layout; None: every sequence by itself.
        dtype: The type that attention is computed in, for the shared layout.
    """
    lengths = [max(len(sequence) - 1, 1) for sequence in sequences]
    longest, width = max(lengths), max(completions) if width is None else width
    if attention is not None:
        lines = lines or [Line.alone(row, sequence) for row, sequence in enumerate(sequences)]
        size = sum(line.tokens for line in lines)
        places, spans = _shared_places(lengths, lines)
    else:
        size = sum(lengths) if packed else longest * len(lengths)
        starts = [0, *itertools.accumulate(lengths)] if packed else range(0, size, longest)
        places = [np.arange(start, start + length) for start, length in zip(starts, lengths, strict=False)]
    ids, labels = np.full(size, pad_token_id), np.full(size, IGNORED)
    index, valid = np.zeros((len(sequences), width), dtype=np.int64), np.zeros((len(sequences), width), dtype=bool)
    for row, (sequence, place, scored) in enumerate(zip(sequences, places, completions, strict=True)):
        ids[place[: len(sequence) - 1]] = sequence[:-1]
        if scored:
            labels[place[-scored:]] = sequence[-scored:]
            index[row, :scored], valid[row, :scored] = place[-scored:], True
    shape = (1, -1) if packed or attention is not None else (-1, longest)

    def placed(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(device)

    inputs: dict[str, Any] = {"input_ids": placed(ids.reshape(shape)), "shift_labels": placed(labels.reshape(shape))}
    if attention is not None:
        inputs["position_ids"] = placed(positions(spans)[None])
        inputs |= attention.inputs(spans, dtype)
    elif packed:
        bounds = torch.tensor(list(starts), dtype=torch.int32, device=device)
        inputs["position_ids"] = placed(np.concatenate([np.arange(length) for length in lengths])[None])
        inputs |= {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": longest, "max_length_k": longest}
    return Layout(inputs, placed(index), placed(valid))


def _shared_places(lengths: Sequence[int], lines: Sequence[Line]) -> tuple[list[np.ndarray], list[Span]]:
    """Where the tokens of each sequence lie in one row, and the spans of that row."""
    places: list[np.ndarray] = [np.empty(0, dtype=np.int64)] * len(lengths)
    spans: list[Span] = []
    start = 0
    for line in lines:
        first, start = start, start + line.shared
        if line.shared:
            spans.append(Span(first, line.shared))
        for row in line.rows:
            own = lengths[row] - line.shared
            places[row] = np.concatenate([np.arange(first, first + line.shared), np.arange(start, start + own)])
            if own:
                spans.append(Span(start, own, first, line.shared))
            start += own
    return places, spans


def per_token(model: Any, where: Layout) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities and, if the model computes them, entropies: ``[N, T]`` each, 0 past the end of a completion.

    ``model`` must have TRL's fused language-model head. A shared layout must be within its attention's `answering`.
    """
    outputs = model(**where.inputs, fused_lm_head=True)

    def picked(values: Tensor | None) -> Tensor | None:
        return None if values is None else values.reshape(-1)[where.index] * where.valid

    logps = picked(outputs.log_probs)
    assert logps is not None
    return logps, picked(outputs.entropy)


def can_pack(config: Any) -> bool:
    """Whether a model keeps packed sequences apart at the cost of their own lengths: it has attention layers alone, on
    a backend for sequences of different lengths."""
    text = config.get_text_config()
    backend = str(getattr(text, "_attn_implementation", None) or "")
    if "flash" not in backend and backend != "flex_attention":
        return False
    layers = getattr(text, "layer_types", None)
    return layers is None or all(layer in ATTENTION_LAYERS for layer in layers)
