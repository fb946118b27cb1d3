"""One episode of a Gymnasium environment for language models, and its outcome.

An environment is driven row by row: ``reset(options={"index": i})`` (with ``seed=i`` too, where it is no `TaskEnv`)
gives the prompt, each ``step(completion)`` a reward and either the end or a reply to go on from.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from copy import deepcopy
from typing import Any, TypeVar

import gymnasium

from envs import Completion, RewardShaping
from envs.contract import ContractError, Step, read_reset, read_step, reset_to_row
from envs.observations import clean
from envs.text import brief

from ..errors import RewardError, one_line
from .environments import author_errors, env_name, layers
from .types import Outcome

T = TypeVar("T")


class Episode:
    """An episode, action by action.

    Many share one environment: the first action resets it, and an episode that goes on continues in a copy of its own.

    Args:
        env: The environment.
        index: Its row.
        question: The row's question that the model answered, or None for whatever the environment shows.
    """

    def __init__(self, env: gymnasium.Env, index: int, question: str | None = None):
        self.env = env
        self.index = index
        self.question = question
        self.over = False
        self._started = False
        self._last = Step()
        self._rewards: list[float] = []
        """By step."""
        self._unshaped: list[float] = []
        """By step: the reward less what only shapes it."""
        self._no_room = False
        """Whether the last step is no turn of the model, but the end because no tokens are left."""
        self._components: defaultdict[str, float] = defaultdict(float)
        self._figures: defaultdict[str, float] = defaultdict(float)

    def step(self, action: Completion) -> str | None:
        """Take the model's turn.

        Returns:
            The environment's reply; None when the episode is over.

        Raises:
            RewardError: The environment showed another prompt than the one answered, raised an exception, or returned
                something else than a step.
        """
        if not self._started:
            self._reset()
        with author_errors(self.env, self.index, "step"):
            returned = self.env.step(action)
        self._last = step = self._checked(read_step, returned)
        self.over = step.over
        self._rewards.append(step.reward)
        self._unshaped.append(step.reward - sum(step.rewards.get(name, 0.0) for name in shaped_by(self.env)))
        for name, value in step.rewards.items():
            self._components[name] += value
        for name, value in step.figures.items():
            self._figures[name] += value
        if self.over:
            return None
        if not self._started:
            self._started = True
            self.env = duplicate(self.env)
        return clean(step.reply)

    def use_env(self, env: gymnasium.Env) -> None:
        """Take another copy of the environment for the first action; one that goes on has its own by then."""
        if not self._started:
            self.env = env

    def truncate(self) -> None:
        """Tell the environment that no tokens are left: an empty answer, cut off. It is no turn of the model: the
        turn before it gets what it earns."""
        if not self.over:
            self.step(Completion(n_tokens=0, finish_reason="length"))
            self.over = self._no_room = True

    @property
    def outcome(self) -> Outcome:
        """The judgement of the episode, with accuracy, verdict, answer and cause of its last step."""
        judged = self._last.accuracy
        reward, unshaped = sum(self._rewards), sum(self._unshaped)
        scores = [*self._unshaped[:-1], *(self._unshaped[-1:] if judged is None else [judged])]
        return Outcome(
            reward=reward,
            accuracy=unshaped if judged is None else judged,
            verdict=self._last.verdict or "unknown",
            components=dict(self._components),
            turns=self._by_turn(self._rewards),
            turn_scores=self._by_turn(scores),
            answer=self._last.answer,
            cause=self._last.cause,
            figures=dict(self._figures),
        )

    def _by_turn(self, steps: list[float]) -> list[float]:
        """Numbers of the steps, by turns of the model; all NaN if one is."""
        turns = [*steps[:-2], sum(steps[-2:])] if self._no_room else steps
        return [math.nan] * len(turns) if any(map(math.isnan, turns)) else list(turns)

    def _reset(self) -> None:
        with author_errors(self.env, self.index, "reset"):
            returned = reset_to_row(self.env, self.index)
        question, _ = self._checked(read_reset, returned)
        if self.question is not None and question != self.question:
            raise RewardError(
                f"env {env_name(self.env)} gave two different prompts for index {self.index} ({brief(question)}, then "
                f'{brief(self.question)}): reset(seed=i, options={{"index": i}}) must always give the same row, or '
                "completions of one group cannot be compared."
            )

    def _checked(self, read: Callable[[Any], T], returned: Any) -> T:
        """Read what the environment returned; a broken contract is an error that names the environment and the row."""
        try:
            return read(returned)
        except ContractError as error:
            raise RewardError(f"env {env_name(self.env)}, index {self.index}: {error}.") from error


def shaped_by(env: gymnasium.Env) -> set[str]:
    """The names of the components that only shape the reward."""
    return {layer.component for layer in layers(env) if isinstance(layer, RewardShaping)}


def duplicate(env: gymnasium.Env) -> gymnasium.Env:
    """A copy of an environment in the middle of its episode, wrappers and all. Specs, whose arguments may hold all the
    rows, are shared.

    Raises:
        RewardError: It, or one of its wrappers, cannot be copied.
    """
    specs = (vars(layer).get(name) for layer in layers(env) for name in ("spec", "_cached_spec"))
    try:
        return deepcopy(env, {id(spec): spec for spec in specs if spec is not None})
    except Exception as error:  # whatever an author's objects raise
        raise RewardError(
            f"env {env_name(env)} cannot be copied ({type(error).__name__}: {one_line(error)}), which several episodes "
            "at once need: give what cannot be copied a __deepcopy__, or set max_concurrency = 1 in a task of one turn."
        ) from error
