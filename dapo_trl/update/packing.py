"""How the sequences of a model are cut into microbatches and laid out, by what its attention allows.

A model that can (`attention.obstacle`) computes what the rows of a group begin with once. Else rows lie side by side
where the attention keeps them apart, and are padded where it does not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from peft import PeftModel

from .attention import SharedAttention, obstacle
from .batching import shared_lines, split_tokens
from .logprobs import Layout, Line, can_pack, layout


class Packer:
    """Cuts and lays out the sequences of one model.

    Args:
        model: The model, with or without an adapter.
        refused: The reason why common beginnings are not to be computed once; "": they are, if the model can.
        dtype: The type that attention is computed in; None: that of the weights.
    """

    def __init__(
        self,
        model: Any,
        *,
        refused: str = "",
        pad_token_id: int,
        device: torch.device,
        dtype: torch.dtype | None = None,
    ):
        model = model.get_base_model() if isinstance(model, PeftModel) else model
        self.backend: str | None = model.config.get_text_config()._attn_implementation
        self.refused = refused or obstacle(model)
        """The reason why common beginnings are computed for every row; "": they are computed once."""
        self.packed = can_pack(model.config)
        self._attention = None if self.refused else SharedAttention(model, device)
        self._pad_token_id, self._device, self._dtype = pad_token_id, device, dtype or model.dtype

    def split(self, sequences: Sequence[np.ndarray], prompts: Sequence[int], budget: int) -> list[list[Line]]:
        """The microbatches of rows, as lines, each of at most ``budget`` computed tokens.

        Args:
            sequences: Token ids ``[L_i]``, prompt and completion side by side.
            prompts: Tokens of each that are the prompt.
        """
        if self._attention is None:
            lines = [Line.alone(row, sequence) for row, sequence in enumerate(sequences)]
        else:
            attention = self._attention
            lines = shared_lines(sequences, prompts, budget, copy_load=attention.copy_load, pays=attention.pays)
        packed = self.packed or self._attention is not None
        found = split_tokens([line.load for line in lines], budget, packed=packed)
        return [[lines[number] for number in numbers] for numbers in found]

    def layout(self, sequences: Any, completions: Any, lines: Sequence[Line], width: int | None = None) -> Layout:
        """One forward pass over the rows of these lines, in their order.

        Args:
            sequences, completions: Token ids and completion tokens by row.
            width: As in `logprobs.layout`.
        """
        rows = [row for line in lines for row in line.rows]
        numbers = iter(range(len(rows)))
        equal = len({line.tokens for line in lines}) == 1 and not any(line.shared for line in lines)
        return layout(
            [sequences[row] for row in rows],
            [completions[row] for row in rows],
            width,
            pad_token_id=self._pad_token_id,
            device=self._device,
            packed=self.packed,
            attention=None if equal else self._attention,  # nothing shared and nothing padded
            lines=[replace(line, rows=[next(numbers) for _ in line.rows]) for line in lines],
            dtype=self._dtype,
        )

    def answering(self) -> contextlib.AbstractContextManager[None]:
        """The model's forward and backward passes take these layouts within."""
        return contextlib.nullcontext() if self._attention is None else self._attention.answering()
