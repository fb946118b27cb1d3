"""From the completions of a rollout batch to the microbatches of its optimizer steps.

A `Microbatch` is padded: prompts on the left, completions on the right. Two completions of 3 and 5 tokens after prompts
of 4 and 2::

    Microbatch(prompt_ids=[2, 4], prompt_mask=[2, 4], completion_ids=[2, 5], completion_mask=[2, 5],
               old_logps=[2, 5], advantages=[2], samples=[-1, 3], rows=2, step_tokens=96, step_rows=16)
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..rollout.types import TrainingRow
from .logprobs import Layout, Line

_TRL_NAMES = {
    "tool_mask": "tool_mask",
    "old_logps": "old_per_token_logps",
    "ref_logps": "ref_per_token_logps",
    "sampling_logps": "sampling_per_token_logps",
    "sampling_ratio": "importance_sampling_ratio",
}
"""The optional fields of a row and of a microbatch, and what TRL calls them."""
MICROBATCH_OVERHEAD = 1 / 32
"""Cost of one more microbatch by itself, as a share of the token budget."""


def split_evenly(count: int, parts: int) -> list[range]:
    """``count`` rows cut into ``parts`` runs of neighbours whose lengths differ by at most one; some may be empty."""
    edges = [count * part // parts for part in range(parts + 1)]
    return [range(first, last) for first, last in itertools.pairwise(edges)]


def deal(tokens: Sequence[int], parts: int, groups: Sequence[int] | None = None) -> list[list[int]]:
    """Share rows out so that the parts hold equally many (to one row) and nearly equal tokens.

    Args:
        tokens: Tokens of each row.
        groups: The number of each row's group, whose members stay together where there is room; None: rows have none.

    Returns:
        For each part its rows, in ascending order. The longest group goes first, each to the part with the fewest
        tokens that has room; then, row by row, the groups that found none.
    """
    if parts == 1:
        return [list(range(len(tokens)))]
    floor, extras = divmod(len(tokens), parts)
    shares: list[list[int]] = [[] for _ in range(parts)]
    loads = [0] * parts

    def give(rows: Sequence[int]) -> bool:
        nonlocal extras
        room = [floor - len(share) + (extras > 0 and len(share) <= floor) for share in shares]
        fitting = [part for part in range(parts) if room[part] >= len(rows)]
        if not fitting:
            return False
        part = min(fitting, key=lambda part: (loads[part], part))
        shares[part].extend(rows)
        extras -= len(shares[part]) == floor + 1
        loads[part] += sum(tokens[row] for row in rows)
        return True

    together: dict[int, list[int]] = {}
    for row, group in enumerate(range(len(tokens)) if groups is None else groups):
        together.setdefault(group, []).append(row)
    cut = []
    for rows in sorted(together.values(), key=lambda rows: (-sum(tokens[row] for row in rows), rows)):
        if not give(rows):
            cut.extend(rows)
    for row in sorted(cut, key=lambda row: (-tokens[row], row)):
        give([row])
    return [sorted(share) for share in shares]


def shared_lines(
    sequences: Sequence[np.ndarray],
    prompts: Sequence[int],
    budget: int,
    *,
    copy_load: float = 0.0,
    pays: Callable[[Sequence[int], int], bool] = lambda lengths, shared: True,
) -> list[Line]:
    """Rows that begin with the same prompt as lines, in which what they have in common is computed once.

    Args:
        sequences: Token ids ``[L_i]``, prompt and completion side by side.
        prompts: Tokens of each that are the prompt.
        budget: Load of a line at most. Rows of more are cut into several lines of nearly equal tokens; a longer row
            is by itself.
        copy_load: Tokens that a shared token counts for, for each row that sees it: its keys and values are copied.
        pays: Whether rows of these many tokens are better computed together than one by one, given how many tokens at
            their beginning they share.
    """
    groups: dict[bytes, list[int]] = {}
    for row, (sequence, prompt) in enumerate(zip(sequences, prompts, strict=True)):
        groups.setdefault(sequence[:prompt].tobytes(), []).append(row)
    found = []
    for rows in groups.values():
        for line in _cut_group(rows, sequences, budget, copy_load):
            if len(line.rows) > 1 and line.shared and pays([len(sequences[row]) - 1 for row in line.rows], line.shared):
                found.append(line)
            else:
                found += [Line.alone(row, sequences[row]) for row in line.rows]
    return found


def _cut_group(rows: list[int], sequences: Sequence[np.ndarray], budget: int, copy_load: float) -> list[Line]:
    """The rows of a group in as few lines as the budget allows."""
    whole = _line(rows, sequences, copy_load)
    own = [len(sequences[row]) - 1 - whole.shared for row in rows]
    parts = max(-(-(whole.load - whole.shared) // max(budget - whole.shared, 1)), 1)
    while parts < len(rows):
        lines = [_line([rows[i] for i in share], sequences, copy_load) for share in deal(own, parts)]
        if all(line.load <= budget for line in lines):
            return lines
        parts += 1
    return [Line.alone(row, sequences[row]) for row in rows]


def _line(rows: list[int], sequences: Sequence[np.ndarray], copy_load: float) -> Line:
    """Rows in one line. The last token that all have in common is there for each, to predict its next one."""
    shared = max(_common(sequences[row] for row in rows) - 1, 0)
    tokens = shared + sum(len(sequences[row]) - 1 - shared for row in rows)
    return Line(rows, shared, tokens, tokens + ceil(copy_load * len(rows) * shared))


def _common(sequences: Iterable[np.ndarray]) -> int:
    """Tokens that all sequences begin with."""
    first, *others = sequences
    length = len(first)
    for other in others:
        length = min(length, len(other))
        differ = first[:length] != other[:length]
        length = int(differ.argmax()) if differ.any() else length
    return length


def split_tokens(lengths: Sequence[int], budget: int, *, packed: bool = False) -> list[list[int]]:
    """Cut rows into microbatches whose computed tokens stay within a budget. A longer row has a microbatch of its own.

    Args:
        lengths: Tokens of each row, prompt and completion.
        budget: Tokens of a microbatch: rows x longest row, or their sum when ``packed``.
        packed: Rows lie side by side without padding.

    Returns:
        The rows of each microbatch, the longest first throughout, so that the one that needs the most memory comes at
        once. Packed microbatches are as few as first-fit finds, and even. Padded ones are runs of rows of neighbouring
        lengths, cut where the fewest tokens are computed in all; each costs `MICROBATCH_OVERHEAD` of the budget
        besides, so that there are few.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    if packed:
        return _even_fit(order, lengths, budget)
    sizes = np.array([lengths[row] for row in order])
    best = np.zeros(len(order) + 1)  # the fewest tokens for the rows from here on
    ends = np.zeros(len(order), dtype=int)
    for first in range(len(order) - 1, -1, -1):
        most = min(max(budget // max(sizes[first], 1), 1), len(order) - first)
        costs = sizes[first] * np.arange(1, most + 1) + best[first + 1 : first + most + 1]
        ends[first] = first + 1 + int(costs.argmin())
        best[first] = costs.min() + MICROBATCH_OVERHEAD * budget
    found, first = [], 0
    while first < len(order):
        found.append(order[first : ends[first]])
        first = ends[first]
    return found


def _even_fit(order: Sequence[int], lengths: Sequence[int], budget: int) -> list[list[int]]:
    """As few microbatches as `_first_fit` needs, of nearly equal tokens where that fits too: the fullest is smaller."""
    first_fit = _first_fit(order, lengths, budget)
    found: list[list[int]] = [[] for _ in first_fit]
    loads = [(0, number) for number in range(len(found))]
    for row in order:
        load, number = loads[0]
        heapq.heapreplace(loads, (load + lengths[row], number))
        found[number].append(row)
    even = all(load <= budget or len(found[number]) == 1 for load, number in loads)
    return found if even else first_fit


def _first_fit(order: Sequence[int], lengths: Sequence[int], budget: int) -> list[list[int]]:
    found: list[list[int]] = []
    room: list[int] = []
    for row in order:
        fit = next((i for i, free in enumerate(room) if free >= lengths[row]), None)
        if fit is None:
            found.append([row])
            room.append(budget - lengths[row])
        else:
            found[fit].append(row)
            room[fit] -= lengths[row]
    return found


@dataclass
class Microbatch:
    """``N`` completions side by side, padded to the longest prompt ``P`` and the longest completion ``T``."""

    prompt_ids: Tensor
    """``[N, P]``, padded on the left."""
    prompt_mask: Tensor
    """``[N, P]``: 0 on padding."""
    completion_ids: Tensor
    """``[N, T]``, padded on the right."""
    completion_mask: Tensor
    """``[N, T]``: 0 on padding, and throughout a completion that is masked altogether."""
    advantages: Tensor
    """``[N]``, or ``[N, T]`` where each turn has its own."""
    tool_mask: Tensor | None = None
    """``[N, T]``: 0 for foreign tokens; None: there are none."""
    old_logps: Tensor | None = None
    """``[N, T]`` under the policy that sampled; None: the policy has not moved since."""
    ref_logps: Tensor | None = None
    """``[N, T]`` under the reference model; None without a KL penalty."""
    sampling_logps: Tensor | None = None
    """``[N, T]`` by the sampler (vLLM)."""
    sampling_ratio: Tensor | None = None
    """``[N, T]``: the weight of a token's gradient, for a sampler with slightly other probabilities (`mismatch`)."""
    masked_tokens: Sequence[int] = ()
    """``[N]``: tokens of a completion that is masked altogether, else 0; empty: there are none."""
    samples: Sequence[int] = ()
    """``[N]``: numbers of the recorded rollouts, -1 for others; empty in evaluation."""
    layout: Layout | None = None
    """How the sequences lie in the forward pass; None in evaluation."""
    rows: int = 0
    """Completions that count; 0 for a filler, which keeps a process in step with others."""
    step_tokens: int | None = None
    """Tokens that the loss counts in the whole optimizer step, all processes; None in evaluation."""
    step_rows: int | None = None
    """Completions of the whole optimizer step, all processes; None in evaluation."""

    @property
    def loss_mask(self) -> Tensor:
        """``[N, T]``: 1 for the tokens that the loss counts."""
        return self.completion_mask if self.tool_mask is None else self.completion_mask * self.tool_mask

    @property
    def token_advantages(self) -> Tensor:
        """``[N, T]``, or ``[N, 1]`` where all tokens of a completion have the same."""
        return self.advantages if self.advantages.dim() == 2 else self.advantages.unsqueeze(1)

    @classmethod
    def of(cls, rows: Sequence[TrainingRow], *, pad_token_id: int) -> Microbatch:
        """Rows side by side. The optional fields that are set must be the same in all rows."""

        def padded(values: Sequence[Tensor], fill: float = 0, *, left: bool = False) -> Tensor:
            width = max(len(value) for value in values)
            out = values[0].new_full((len(values), width), fill)
            for line, value in zip(out, values, strict=True):
                line[width - len(value) if left else 0 : width if left else len(value)] = value
            return out

        prompts = [row.prompt_ids for row in rows]
        advantages = [row.advantage for row in rows if row.advantage is not None]
        optional: dict[str, Any] = {
            name: padded([getattr(row, name) for row in rows], fill=1 if name == "tool_mask" else 0)
            for name in _TRL_NAMES
            if getattr(rows[0], name) is not None
        }
        return cls(
            prompt_ids=padded(prompts, pad_token_id, left=True),
            prompt_mask=padded([torch.ones_like(ids) for ids in prompts], left=True),
            completion_ids=padded([row.completion_ids for row in rows], pad_token_id),
            completion_mask=padded([row.completion_mask for row in rows]),
            advantages=padded(advantages) if advantages[0].dim() else torch.stack(advantages),
            masked_tokens=[row.masked_tokens for row in rows],
            samples=[row.sample for row in rows],
            rows=len(rows),
            **optional,
        )

    @classmethod
    def from_trl(cls, batch: dict[str, Any]) -> Microbatch:
        """TRL's own batch, as evaluation gets it."""
        required = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages")
        optional: dict[str, Any] = {name: batch.get(theirs) for name, theirs in _TRL_NAMES.items()}
        return cls(**{name: batch[name] for name in required}, **optional, rows=len(batch["prompt_ids"]))

    def to_trl(self) -> dict[str, Any]:
        """The batch under TRL's names, for losses that TRL computes."""
        required = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages")
        optional = {theirs: getattr(self, name) for name, theirs in _TRL_NAMES.items()}
        present = {name: value for name, value in optional.items() if value is not None}
        return {**{name: getattr(self, name) for name in required}, **present}


def training_rows(batch: dict[str, Any], masked_tokens: Sequence[int] = ()) -> list[TrainingRow]:
    """The rows of TRL's batch as views of its tensors, without padding and without advantages.

    A completion that is masked altogether keeps its first token, so that no forward pass is empty.

    Args:
        masked_tokens: ``[N]``: tokens of each completion that is masked altogether, else 0; empty: there are none.
    """
    prompts = batch["prompt_mask"].sum(dim=1).tolist()
    completions = batch["completion_mask"].sum(dim=1).clamp(min=1).tolist()
    optional = {name: batch[theirs] for name, theirs in _TRL_NAMES.items() if batch.get(theirs) is not None}

    return [
        TrainingRow(
            prompt_ids=batch["prompt_ids"][row, batch["prompt_ids"].shape[1] - prompts[row] :],
            completion_ids=batch["completion_ids"][row, : completions[row]],
            completion_mask=batch["completion_mask"][row, : completions[row]],
            masked_tokens=masked_tokens[row] if masked_tokens else 0,
            **{name: value[row, : completions[row]] for name, value in optional.items()},
        )
        for row in range(len(prompts))
    ]
