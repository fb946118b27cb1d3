"""Prompt selection: which prompts of the stream are drawn, and how many for one round."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..settings import load_object
from .difficulty import Difficulty
from .stream import PromptStream, StreamedPrompts

SURE_DRAW = 0.5
"""A prompt whose group is at least this likely informative is drawn whenever the stream comes by."""
RAREST_DRAW = 0.1
"""Every prompt is drawn at least this often, however hopeless or solved: once in 10 walks through the data."""
CALIBRATION_HALF_LIFE = 4.0
"""Rollout batches after which an outcome counts half towards the trust in predictions."""
_CALIBRATION_START = 36.0
"""Initial trust, in groups: three standard deviations are half of the expectation."""
_BLOCK = 256


@dataclass(frozen=True)
class Choice:
    """The prompts of one round, as positions in the stream: decided by the main process, drawn by all."""

    positions: tuple[int, ...]
    chances: tuple[float, ...]
    """How likely each group is informative."""
    draws: tuple[float, ...]
    """The probability with which each was drawn when the stream came by."""
    end: int
    """Position of the stream afterwards."""


class PromptSelector:
    """Draws every prompt of a stream as it comes (``prompt_selection: uniform``); the base of other selectors.

    A selector of your own overrides `draw_probability`, and is named as ``prompt_selection: my_module:MySelector``.

    Args:
        stream: The prompts of the run, in order.
        difficulty: Predicts how likely each prompt's group is informative.
        seed: Decides which prompts are skipped.
    """

    def __init__(self, stream: PromptStream | StreamedPrompts, difficulty: Difficulty, *, seed: int = 0):
        self.stream = stream
        self.difficulty = difficulty
        self.seed = seed
        self.drawn = 0
        """Prompts drawn so far."""
        self.skips: Callable[[Mapping[str, Any]], bool] = lambda row: False
        """Whether a row is never drawn: the held-out problems of a run are not. Nor is an example of the prompts."""
        self._found = self._predicted = _CALIBRATION_START

    def draw_probability(self, chances: np.ndarray) -> np.ndarray:
        """The probability of drawing each prompt when the stream comes by: the whole sampling bias.

        Args:
            chances: ``[n]``: how likely each prompt's group is informative, as predicted.

        Returns:
            ``[n]`` in (0, 1].
        """
        return np.ones_like(chances)

    @property
    def calibration(self) -> float:
        """Informative groups found recently, per group predicted."""
        return self._found / self._predicted

    def choose(self, missing: int, *, at_least: int, at_most: int, multiple: int = 1, sigmas: float = 0.0) -> Choice:
        """The next round: as many prompts as are expected to yield ``missing`` informative groups.

        Args:
            at_least, at_most: Bounds on the number of prompts.
            multiple: Their number is a multiple of this (rows must divide evenly among processes), even beyond
                ``at_most``.
            sigmas: Safety margin against bad luck and bad predictions, in standard deviations above the expected need.
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
                if not take or not self.stream.usable(position):
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
            rows: The prompts' rows, as `take` returned them.
            scores: ``[n, G]`` from 0 for a failure to 1 for a pass (values beyond count as the nearer end); NaN for
                unscorable completions.
            informative: ``[n]`` bool.
        """
        keys = [self.stream.key(position) for position in choice.positions]
        levels = [row.get("level") for row in rows]
        self.difficulty.observe(keys, levels, *_outcomes(scores), 1.0 / np.array(choice.draws))
        found = float(informative.sum())
        self._found += found
        # The first rollout batch is where predictions begin: it says nothing about how good they are.
        self._predicted += float(sum(choice.chances)) if self.difficulty.clock else found

    def tick(self) -> None:
        """A rollout batch is complete."""
        self.difficulty.tick()
        fading = 0.5 ** (1.0 / CALIBRATION_HALF_LIFE)
        self._found = _CALIBRATION_START + fading * (self._found - _CALIBRATION_START)
        self._predicted = _CALIBRATION_START + fading * (self._predicted - _CALIBRATION_START)

    def state_dict(self) -> dict[str, Any]:
        return {
            "stream": self.stream.state_dict(),
            "difficulty": self.difficulty.state_dict(),
            "drawn": self.drawn,
            "found": self._found,
            "predicted": self._predicted,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.stream.load_state_dict(state["stream"])
        self.difficulty.load_state_dict(state["difficulty"])
        self.drawn, self._found, self._predicted = state["drawn"], state["found"], state["predicted"]

    def _look_at(self, block: range) -> tuple[list[float], list[float], list[bool]]:
        rows = [self.stream.row(position) for position in block]
        levels = [row.get("level") for row in rows]
        chances = self.difficulty.chances([self.stream.key(position) for position in block], levels)
        draws = self.draw_probability(chances)
        skipped = np.array([bool(row.get("is_example")) or self.skips(row) for row in rows])
        return chances.tolist(), draws.tolist(), ((_dice(self.seed, block) < draws) & ~skipped).tolist()


class PredictedSelector(PromptSelector):
    """Skips most prompts that are almost certainly solved or hopeless (``prompt_selection: predicted``).

    Prompts as promising as the average of the data (or `SURE_DRAW`, if that is less) are always drawn, others in
    proportion: one whose next group is half as likely informative is drawn half as often, but never less often than
    `RAREST_DRAW`, so that each comes back to be checked.
    """

    def draw_probability(self, chances: np.ndarray) -> np.ndarray:
        return np.clip(chances / min(SURE_DRAW, self.difficulty.average), RAREST_DRAW, 1.0)


SELECTORS = {"uniform": PromptSelector, "predicted": PredictedSelector}


def make_selector(
    name: str, stream: PromptStream | StreamedPrompts, difficulty: Difficulty, *, seed: int
) -> PromptSelector:
    """The selector that ``prompt_selection`` names: one of `SELECTORS`, or a user's class as ``module:Class``.

    Raises:
        ConfigError: It names no class derived from `PromptSelector`.
    """
    selector = SELECTORS.get(name) or load_object(name, what="prompt_selection")
    if not (isinstance(selector, type) and issubclass(selector, PromptSelector)):
        raise ConfigError(
            f"prompt_selection names {name!r}: it must be a class derived from "
            "dapo_trl.prompts.selector.PromptSelector."
        )
    return selector(stream, difficulty, seed=seed)


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
