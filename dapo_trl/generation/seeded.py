"""Tokens drawn with random numbers of each completion's own.

Which tokens a completion gets depends on the model and on the numbers of that completion alone: not on the completions
beside it, on their order, on the number of processes, or on where an evaluation or a run was interrupted. Only
rounding is left: in a batch of another shape a logit may differ in its last digits, and very rarely a token with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import NonFiniteError

_BELOW_ONE = 1.0 - 2.0**-40
TRAINING = 2**40
"""The third part of a key in training; in an evaluation it is the number of a sample, which is smaller."""
_BLOCK = 64
"""Numbers drawn at once from each stream."""


class RandomNumbers:
    """An endless stream of numbers in [0, 1) for each of ``N`` completions, read in step.

    Args:
        keys: Names the stream of each, as integers.
        starts: Numbers of each that are passed over: a later turn goes on where the one before it ended.
        temperature: 0 takes the most probable token.
        top_p: Tokens are drawn from the smallest set of most probable ones whose probability reaches it.
    """

    def __init__(
        self,
        keys: Sequence[Sequence[int]],
        starts: Sequence[int] | None = None,
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
    ):
        self.temperature, self.top_p = temperature, top_p
        self._streams, self._names = [], list(zip(keys, starts or [0] * len(keys), strict=True))
        for key, start in self._names:
            bits = np.random.PCG64(np.random.SeedSequence([part % 2**64 for part in key]))
            self._streams.append(np.random.Generator(bits.advance(start)))
        self._block, self._numbers = -1, np.empty((len(self._streams), 0))

    def at(self, step: int) -> np.ndarray:
        """``[N]``: the number of each stream at a step. Steps must not go back by more than the current block."""
        while self._block < step // _BLOCK:
            self._numbers = np.array([stream.random(_BLOCK) for stream in self._streams]).reshape(-1, _BLOCK)
            self._block += 1
        assert self._block == step // _BLOCK, "the numbers of this step are gone"
        return self._numbers[:, step % _BLOCK]

    def draw(self, scores: Tensor, rows: Tensor, step: int) -> Tensor:
        """Tokens for some of the completions; see `decoding.DrawFn`."""
        numbers = torch.from_numpy(self.at(step)).to(scores.device)[rows]
        return draw_tokens(scores, numbers, temperature=self.temperature, top_p=self.top_p)

    def seeds(self) -> list[int]:
        """``N`` seeds, for a sampler with random numbers of its own: another stream or start, another seed."""
        parts = [[part % 2**64 for part in (*key, start)] for key, start in self._names]
        return [int(np.random.SeedSequence(part).generate_state(1, np.uint64)[0] >> np.uint64(16)) for part in parts]


def draw_tokens(logits: Tensor, numbers: Tensor, *, temperature: float, top_p: float) -> Tensor:
    """Draw a token for each row by inversion: the first whose cumulative probability is beyond the row's number.

    Args:
        logits: ``[N, V]``.
        numbers: ``[N]`` float64 in [0, 1).
        temperature: 0 takes the most probable token.
        top_p: Tokens are drawn from the smallest set of most probable ones whose probability reaches it.

    Returns:
        ``[N]`` token ids.

    Raises:
        NonFiniteError: A probability is not finite.
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
    if not cumulative[:, -1].isfinite().all():
        raise NonFiniteError("the model's next-token probabilities are NaN or infinite, so it cannot generate.")
    wanted = numbers.clamp(max=_BELOW_ONE).unsqueeze(1) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, wanted, right=True).squeeze(1)
