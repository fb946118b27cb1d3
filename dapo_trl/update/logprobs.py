"""Log-probabilities and entropies of completions, from forward passes with as little padding as possible.

Two layouts. *Padded*: one sequence per row, prompt and completion side by side, padding on the right only, so that
causal attention needs no mask. *Packed*: all sequences in one row, where the attention backend keeps them apart by
their position ids (flash attention, flex attention); no padding at all.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

IGNORED = -100
"""Label of a position that is not scored."""
ATTENTION_LAYERS = ("full_attention", "sliding_attention", "chunked_attention")


@dataclass(frozen=True)
class Layout:
    """The inputs of one forward pass, and the places of the completion tokens in its output."""

    inputs: dict[str, Any]
    index: Tensor
    """``[N, T]``: position of each completion token's log-probability in the flattened output."""
    valid: Tensor
    """``[N, T]`` bool: False where a completion is shorter than ``T``."""


def layout(
    sequences: Sequence[Tensor], completions: Sequence[int], width: int, *, pad_token_id: int, packed: bool = False
) -> Layout:
    """Lay sequences out for one forward pass.

    Args:
        sequences: Token ids ``[L_i]``, prompt and completion side by side.
        completions: Tokens of each that are the completion, at most ``L_i - 1``.
        width: ``T``, at least the longest completion.
        packed: Use the packed layout; the padded one otherwise.
    """
    lengths = [len(sequence) for sequence in sequences]
    longest, device = max(lengths), sequences[0].device
    starts = [0, *itertools.accumulate(lengths)] if packed else [row * longest for row in range(len(lengths))]
    size = sum(lengths) if packed else longest * len(lengths)
    ids = torch.full((size,), pad_token_id, device=device)
    labels = torch.full((size,), IGNORED, device=device)
    firsts = []
    for row, (sequence, start, length, scored) in enumerate(zip(sequences, starts, lengths, completions, strict=False)):
        ids[start : start + length] = sequence
        labels[start + length - scored : start + length] = sequence[length - scored :]
        # The token at p is predicted by the output at p - 1, and every line of the output is one position short.
        firsts.append(start + length - scored - 1 - (0 if packed else row))
    inputs: dict[str, Any] = {"input_ids": ids.view(1, -1) if packed else ids.view(-1, longest)}
    inputs["labels"] = labels.view_as(inputs["input_ids"])
    if packed:
        bounds = torch.tensor(starts, dtype=torch.int32, device=device)
        inputs["position_ids"] = torch.cat([torch.arange(length) for length in lengths]).unsqueeze(0).to(device)
        inputs |= {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": longest, "max_length_k": longest}
    steps = torch.arange(width)
    valid = steps < torch.tensor(list(completions)).unsqueeze(1)
    index = torch.where(valid, torch.tensor(firsts).unsqueeze(1) + steps, 0)
    return Layout(inputs, index.to(device), valid.to(device))


def per_token(model: Any, where: Layout) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities and, if the model computes them, entropies: ``[N, T]`` each, 0 past the end of a completion.

    ``model`` must have TRL's fused language-model head.
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
