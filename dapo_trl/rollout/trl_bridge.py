"""Between Gymnasium and TRL: an environment as a reward function, and as the data set that TRL asks for."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import gymnasium
from datasets import Dataset

from envs import Completion

from ..config import DAPOConfig
from ..errors import ConfigError
from .chat_format import ChatFormat
from .environments import env_name, row_count
from .episode import Episode
from .episode_runner import EnvPool
from .types import Outcome


class EnvironmentReward:
    """An environment as a TRL reward function. It judges completions unless their outcomes are known already.

    Args:
        env: The environment.
    """

    __name__ = "environment"

    def __init__(self, env: gymnasium.Env):
        self.env = env
        self.chat_format: ChatFormat | None = None
        """Decodes completions; set when the tokenizer is known."""

    def __call__(
        self,
        prompts: list[Any],
        completion_ids: list[list[int]],
        question: list[str],
        index: list[int],
        outcome: list[Outcome] | None = None,
        **_: Any,
    ) -> list[float]:
        """``[n]`` rewards.

        Args:
            prompts: ``[n]``, as the model was asked.
            completion_ids: ``[n]`` lists of tokens.
            question: ``[n]``, the rows' own.
            index: ``[n]`` rows of the environment.
            outcome: ``[n]`` judgements, where the environment has made them.
        """
        outcomes = self.judge(question, completion_ids, index) if outcome is None else outcome
        return [one.reward for one in outcomes]

    def judge(self, questions: list[str], completion_ids: list[list[int]], index: list[int]) -> list[Outcome]:
        """The outcomes of completions that somebody else generated: each is the model's only turn."""
        assert self.chat_format is not None
        episodes = [Episode(self.env, *row) for row in zip(index, questions, strict=True)]
        actions = map(self.chat_format.completion, completion_ids)
        with EnvPool(self.env, processes=int(os.environ.get("LOCAL_WORLD_SIZE", 1))).open() as submit:
            pairs = zip(episodes, actions, strict=True)
            judged = [submit(episode, partial(_only_turn, episode, action)) for episode, action in pairs]
            return [outcome() for outcome in judged]


def _only_turn(episode: Episode, action: Completion) -> Outcome:
    episode.step(action)
    episode.truncate()
    return episode.outcome


def clock_rows(env: gymnasium.Env, args: DAPOConfig, train_dataset: Any, eval_dataset: Any) -> Dataset:
    """A training set for TRL when an environment supplies the prompts: as many rows, and nothing in them.

    Raises:
        ConfigError: There is a data set besides, or an endless environment and no ``max_steps``.
    """
    if train_dataset is not None or eval_dataset is not None:
        which = "train_dataset" if train_dataset is not None else "eval_dataset"
        raise ConfigError(
            f"both env ({env_name(env)}) and {which} are given: prompts and rewards come from the environment. Drop "
            "one of the two (dapo_trl.evaluation.evaluate measures a model in an environment)."
        )
    size = row_count(env)
    if size is None and args.max_steps <= 0:
        raise ConfigError(
            f"env {env_name(env)} is endless and max_steps is {args.max_steps}: an epoch of it never ends. Set "
            "max_steps to the number of optimizer steps."
        )
    return Dataset.from_dict({"prompt": [""] * (size or args.groups_per_rollout)})
