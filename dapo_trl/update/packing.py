"""How the sequences of a model are cut into microbatches and laid out, by what its attention allows.

A model that can (`attention.obstacle`) computes what the rows of a group begin with once. Else rows lie side by side
where the attention keeps them apart, and are padded where it does not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from peft import PeftModel

from ..errors import one_line
from .attention import SharedAttention, obstacle
from .batching import shared_lines, split_tokens
from .logprobs import Layout, Line, can_pack, layout

TOLERANCE, HALF_TOLERANCE = 1e-3, 0.25
"""Difference of log-probabilities that a trial may show, in nats, in float32 and in half precision."""
VIRTUAL = "its adapter puts tokens of its own before each sequence"


class Packer:
    """Cuts and lays out the sequences of one model.

    Args:
        model: The model, with or without an adapter.
        refused: The reason why common beginnings are not to be computed once; "": they are, if the model can.
        dtype: Returns the type that attention is computed in; None: that of the weights.
    """

    def __init__(
        self,
        model: Any,
        *,
        refused: str = "",
        pad_token_id: int,
        device: torch.device,
        dtype: Callable[[], torch.dtype | None] = lambda: None,
    ):
        prompted = getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False)
        model = model.get_base_model() if isinstance(model, PeftModel) else model
        self.backend: str | None = model.config.get_text_config()._attn_implementation
        self.packed = can_pack(model.config)
        self._attention: SharedAttention | None = None
        self._pad_token_id, self._device = pad_token_id, device
        self._dtype = lambda: dtype() or model.dtype
        self.refused = refused or (VIRTUAL if prompted else obstacle(model))
        """The reason why common beginnings are computed for every row; "": they are computed once."""
        if not self.refused:
            self._attention = SharedAttention(model, device)
            self.refused = self._trial(model)
        if self.refused:
            self._attention = None

    def _trial(self, model: Any) -> str:
        """Compute two short sequences together and one by one; the reason why that is not the same, "" if it is.

        A model may declare everything that sharing needs and yet count positions or build masks in a way of its own.
        """
        whole = all(part.numel() and not part.is_meta for part in model.parameters())
        if not whole or self.backend == "flex_attention":  # it would have to be compiled
            return ""
        device, training = next(model.parameters()).device, model.training
        tokens = model.config.get_text_config().vocab_size
        sequences = [np.array([5, 6, 7, 8, 9, 5]) % tokens, np.array([5, 6, 7, 9, 6]) % tokens]
        found = []
        model.eval()
        try:
            for lines in ([Line([0, 1], 2, 7, 7)], None):
                attention = None if lines is None else self._attention
                options: dict[str, Any] = {"pad_token_id": self._pad_token_id, "device": device, "dtype": model.dtype}
                lying = layout(sequences, [3, 2], attention=attention, lines=lines, **options)
                inputs = {name: value for name, value in lying.inputs.items() if name != "shift_labels"}
                with torch.no_grad(), self.answering() if attention else contextlib.nullcontext():
                    logits = model(**inputs, use_cache=False).logits.float().flatten(0, 1)
                found.append(logits[lying.index[lying.valid]].log_softmax(dim=-1))
        except Exception as error:
            return f"a trial of it failed ({one_line(error)[:100]})"
        finally:
            model.train(training)
        allowed = TOLERANCE if model.dtype == torch.float32 else HALF_TOLERANCE
        difference = (found[0] - found[1]).abs().max().item()
        return "" if difference <= allowed else f"a trial of it was {difference:.2g} off in log-probabilities"

    def split(self, sequences: Sequence[np.ndarray], prompts: Sequence[int], budget: int) -> list[list[Line]]:
        """The microbatches of rows, as lines, each of at most ``budget`` computed tokens.

        Args:
            sequences: Token ids ``[L_i]``, prompt and completion side by side.
            prompts: Tokens of each that are the prompt.
        """
        lines = self._lines(sequences, prompts, budget)
        packed = self.packed or self._attention is not None
        found = split_tokens([line.load for line in lines], budget, packed=packed)
        return [[lines[number] for number in numbers] for numbers in found]

    def shared_budget(self, parts: Sequence[tuple[Sequence[np.ndarray], Sequence[int]]], budget: int) -> int:
        """A budget for separate prompts, less the share of tokens that sharing saves: as many microbatches of less
        memory. No line that fits ``budget`` is cut for it.

        Args:
            parts: Sequences and prompts, as in `split`, of what is cut by itself.
        """
        lines = [line for sequences, prompts in parts for line in self._lines(sequences, prompts, budget)]
        separate = sum(len(sequence) - 1 for sequences, _ in parts for sequence in sequences)
        loads = [line.load for line in lines]
        return max(-(-budget * sum(loads) // max(separate, 1)), min(max(loads, default=budget), budget))

    def _lines(self, sequences: Sequence[np.ndarray], prompts: Sequence[int], budget: int) -> list[Line]:
        if self._attention is None:
            return [Line.alone(row, sequence) for row, sequence in enumerate(sequences)]
        attention = self._attention
        return shared_lines(sequences, prompts, budget, copy_load=attention.copy_load, pays=attention.pays)

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
            dtype=self._dtype(),
        )

    def answering(self) -> contextlib.AbstractContextManager[None]:
        """The model's forward and backward passes take these layouts within."""
        return contextlib.nullcontext() if self._attention is None else self._attention.answering()
