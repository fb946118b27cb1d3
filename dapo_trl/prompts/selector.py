"""Prompt selection: which prompts of the stream are drawn, and how many of them for one round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .difficulty import Difficulty
from .stream import PromptStream, StreamedPrompts

SURE_DRAW = 0.5
"""a prompt whose group is informative at least this likely is drawn whenever the stream comes by"""
RAREST_DRAW = 0.1
"""and however hopeless or solved it seems, it is drawn this often: after 10 walks through the data on average"""
CALIBRATION_HALF_LIFE = 4.0
"""rollout batches after which an outcome counts half in how far predictions are trusted"""
_CALIBRATION_START = 36.0
"""groups' worth of trust at first: three standard deviations are half of what is expected"""
_BLOCK = 256


@dataclass(frozen=True)
class Choice:
    """The prompts of one round, as positions in the stream; what the main process decides and all carry out."""

    positions: tuple[int, ...]
    chances: tuple[float, ...]
    """how likely each group is informative"""
    draws: tuple[float, ...]
    """with which probability each was drawn when the stream came by"""
    end: int
    """where the stream stands afterwards"""


class PromptSelector:
    """Draws prompts from a stream.

    ``"uniform"`` takes every prompt that comes. ``"predicted"`` takes those as promising as the average prompt of the
    data (or `SURE_DRAW`, if that is less), and of the others a share in proportion: one whose next group is half as
    likely informative is drawn half as often, but never less often than `RAREST_DRAW`. Prompts that are almost surely
    all right or all wrong are so passed over most of the time, and come back to be checked.
    """

    def __init__(
        self, stream: PromptStream | StreamedPrompts, difficulty: Difficulty, *, mode: str = "uniform", seed: int = 0
    ):
        self.stream = stream
        self.difficulty = difficulty
        self.mode = mode
        self.seed = seed
        self.drawn = 0
        """prompts drawn so far"""
        self._found = self._foreseen = _CALIBRATION_START

    @property
    def calibration(self) -> float:
        """Informative groups found of late, per group foreseen."""
        return self._found / self._foreseen

    def choose(self, missing: int, *, at_least: int, at_most: int, multiple: int = 1, sigmas: float = 0.0) -> Choice:
        """The next round: as many prompts as are expected to yield ``missing`` informative groups.

        Args:
            at_least, at_most: bounds on the number of prompts.
            multiple: their number is a multiple of this (rows must divide evenly among processes); it wins over
                ``at_most``.
            sigmas: so many standard deviations more than expected, against bad luck and bad predictions.
        """
        at_most = max(at_most // multiple, 1) * multiple
        positions: list[int] = []
        chances: list[float] = []
        draws: list[float] = []
        expected = variance = 0.0
        position = self.stream.position
        while True:
            block = range(position, position + min(_BLOCK, max(at_most - len(positions), 1)))
            block_chances, block_draws, taken = self._look_at(block)
            for position, chance, draw, take in zip(block, block_chances, block_draws, taken, strict=True):
                if not take:
                    continue
                positions.append(position)
                chances.append(chance)
                draws.append(draw)
                likely = min(chance * self.calibration, 1.0)
                expected += likely
                variance += likely * (1.0 - likely)
                count = len(positions)
                if count % multiple or count < at_least:
                    continue
                if count >= at_most or expected - sigmas * (variance + expected**2 / self._found) ** 0.5 >= missing:
                    return Choice(tuple(positions), tuple(chances), tuple(draws), position + 1)
            position += 1

    def take(self, choice: Choice) -> list[dict[str, Any]]:
        """The rows of a choice; the stream moves on."""
        rows = [self.stream.row(position) for position in choice.positions]
        self.stream.advance(choice.end)
        self.drawn += len(rows)
        return rows

    def observe(self, choice: Choice, rows: list[dict[str, Any]], scores: np.ndarray, informative: np.ndarray) -> None:
        """Learn from one round.

        Args:
            rows: of the prompts, as `take` gave them.
            scores: ``[n, G]``, 0 for a failure to 1 for a pass (values beyond count as the nearer end); NaN for
                unscorable completions.
            informative: ``[n]`` bool.
        """
        keys = [self.stream.key(position) for position in choice.positions]
        levels = [row.get("level") for row in rows]
        self.difficulty.observe(keys, levels, *_outcomes(scores), 1.0 / np.array(choice.draws))
        found = float(informative.sum())
        self._found += found
        # The first rollout batch is where predictions begin: it says nothing about how good they are.
        self._foreseen += float(sum(choice.chances)) if self.difficulty.clock else found

    def tick(self) -> None:
        """A rollout batch is complete."""
        self.difficulty.tick()
        fading = 0.5 ** (1.0 / CALIBRATION_HALF_LIFE)
        self._found = _CALIBRATION_START + fading * (self._found - _CALIBRATION_START)
        self._foreseen = _CALIBRATION_START + fading * (self._foreseen - _CALIBRATION_START)

    def draw_probability(self, chances: np.ndarray) -> np.ndarray:
        """With which probability prompts are drawn when the stream comes by: the whole sampling bias."""
        if self.mode == "uniform":
            return np.ones_like(chances)
        return np.clip(chances / min(SURE_DRAW, self.difficulty.average), RAREST_DRAW, 1.0)

    def state_dict(self) -> dict[str, Any]:
        return {
            "stream": self.stream.state_dict(),
            "difficulty": self.difficulty.state_dict(),
            "drawn": self.drawn,
            "found": self._found,
            "foreseen": self._foreseen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.stream.load_state_dict(state["stream"])
        self.difficulty.load_state_dict(state["difficulty"])
        self.drawn, self._found, self._foreseen = state["drawn"], state["found"], state["foreseen"]

    def _look_at(self, block: range) -> tuple[list[float], list[float], list[bool]]:
        levels = [self.stream.row(position).get("level") for position in block]
        chances = self.difficulty.chances([self.stream.key(position) for position in block], levels)
        draws = self.draw_probability(chances)
        return chances.tolist(), draws.tolist(), (_dice(self.seed, block) < draws).tolist()


def _outcomes(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``[n]`` passes and attempts of groups. One whose scores differ has passes and failures, whatever their scale."""
    scored = ~np.isnan(scores)
    attempts = scored.sum(axis=1)
    passes = np.where(scored, np.clip(np.nan_to_num(scores), 0.0, 1.0), 0.0).sum(axis=1)
    lowest = np.where(scored, scores, np.inf).min(axis=1)
    highest = np.where(scored, scores, -np.inf).max(axis=1)
    return np.where(highest - lowest > 1e-6, np.clip(passes, 1.0, attempts - 1.0), passes), attempts


def _dice(seed: int, positions: range) -> np.ndarray:
    """A number in [0, 1) for each position of the stream, always the same one: no state, so nothing to resume."""
    first, last = positions.start // _BLOCK, (positions.stop - 1) // _BLOCK
    rolled = np.concatenate([np.random.default_rng([seed, block]).random(_BLOCK) for block in range(first, last + 1)])
    return rolled[positions.start - first * _BLOCK :][: len(positions)]
