"""Between Gymnasium and TRL: an environment as prompts, as ``rollout_func`` and as reward function.

Every member of a group must have seen the same prompt: rows are addressed by index, and `Episode` checks it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import torch
from datasets import Dataset

from envs import Completion, TaskEnv

from ..config import DAPOConfig
from ..errors import ConfigError
from .chat_format import ChatFormat
from .environments import author_errors, env_name, row_count
from .episode import Episode, Outcome
from .episode_runner import run_episodes
from .judging import EnvPool

if TYPE_CHECKING:
    from ..trainer import DAPOTrainer


@dataclass
class Rollout:
    """One completion with everything that training needs of it. Token lists are unpadded."""

    row: dict[str, Any]
    prompt: Any
    completion: Any
    prompt_ids: np.ndarray
    completion_ids: np.ndarray
    """int32, because rollouts travel between processes"""
    order: int
    """row of its round over all processes; completions of one group are neighbours"""
    tokens: int
    """of its own, foreign ones not counted"""
    fate: str
    """what its tokens are in the ledger once it is trained on"""
    logprobs: list[float] | None = None
    loss_mask: list[int] | None = None
    """1 for the model's own tokens, 0 for foreign ones such as an environment's replies"""
    rewards: list[float] = field(default_factory=list)
    """one per reward function; NaN where it does not apply"""
    outcome: Outcome | None = None
    """what the environment said of it; None without one"""
    log_columns: dict[str, Any] = field(default_factory=dict)
    """what reward functions logged of this completion (TRL's ``log_extra``)"""


def as_prompt(text: str, tokenizer: Any) -> str | list[dict[str, str]]:
    """The prompt in the form the model expects: one user message if the tokenizer has a chat template, else text."""
    return [{"role": "user", "content": text}] if getattr(tokenizer, "chat_template", None) else text


class EnvironmentRows:
    """The rows of an environment as a prompt source: ``rows[i]`` is ``{"prompt": ..., "index": i, "level": ...}``. The
    level of difficulty is None where the environment names none: TRL asks for the same columns in all rows."""

    def __init__(self, env: gymnasium.Env, tokenizer: Any):
        self.env = env
        self.tokenizer = tokenizer
        self.size = row_count(env)

    def __getitem__(self, index: int) -> dict[str, Any]:
        prompt, info = self.show(index)
        return {"prompt": prompt, "index": index, "level": info.get("level")}

    def show(self, index: int) -> tuple[str | list[dict[str, str]], dict[str, Any]]:
        """The prompt of a row, and what the environment says of it besides (``info`` of ``reset``)."""
        with author_errors(self.env, index, "reset"):
            text, info = self.env.reset(options={"index": index})
        if not isinstance(text, str):
            raise ConfigError(
                f"env {env_name(self.env)} returned {text!r} ({type(text).__name__}) from reset(): a task for a "
                "language model must return the prompt as a str."
            )
        return as_prompt(text, self.tokenizer), info


class EnvironmentReward:
    """An environment as a TRL reward function. The outcomes of the last call stay in ``outcomes``."""

    __name__ = "environment"

    def __init__(self, env: gymnasium.Env):
        self.env = env
        self.outcomes: list[Outcome] = []
        self._played: list[Outcome] | None = None

    def bind(self, chat_format: ChatFormat) -> None:
        """Say how completions are decoded."""
        self.chat_format = chat_format

    def hand_in(self, outcomes: list[Outcome]) -> None:
        """The outcomes of the completions that will be asked for next, known since they were generated."""
        self._played = outcomes

    def __call__(
        self, prompts: list, completions: list, completion_ids: list[list[int]], index: list[int], **_: Any
    ) -> list[float]:
        played, self._played = self._played, None
        self.outcomes = played if played is not None else self._judge(prompts, completion_ids, index)
        return [outcome.reward for outcome in self.outcomes]

    def _judge(self, prompts: list, completion_ids: list[list[int]], index: list[int]) -> list[Outcome]:
        """The outcomes of completions that somebody else generated: each is all that the model says."""
        episodes = [Episode(self.env, *row) for row in zip(index, map(shown_text, prompts), strict=True)]
        for episode, ids in zip(episodes, completion_ids, strict=True):
            episode.step(self.chat_format.completion(ids))
            episode.truncate()
        return [episode.outcome for episode in episodes]


class EnvironmentRollout:
    """An environment as TRL's ``rollout_func``: generates whole episodes and hands their outcomes to the reward."""

    def __init__(self, trainer: DAPOTrainer, reward: EnvironmentReward):
        self.trainer = trainer
        self.reward = reward
        self.rows: list[dict[str, Any]] = []
        """those whose prompts TRL is about to ask for"""
        task = reward.env.unwrapped
        here = int(os.environ.get("LOCAL_WORLD_SIZE", trainer.accelerator.num_processes))
        self._judges = EnvPool(reward.env, processes=here)
        self._may_reply = not isinstance(task, TaskEnv) or task.max_turns > 1
        if isinstance(task, TaskEnv) and self._may_reply:
            reward.chat_format.reply_ids("-")  # an unfit chat template is an error before anything is generated

    def __call__(self, prompts: list, _: Any) -> dict[str, Any]:
        trainer = self.trainer
        prompt_ids, _, _ = trainer._tokenize_prompts(prompts)
        episodes = [
            Episode(self.reward.env, row["index"], shown_text(prompt))
            for row, prompt in zip(self.rows, prompts, strict=True)
        ]
        transcripts = run_episodes(
            episodes,
            prompt_ids,
            trainer.generate_turn,
            chat_format=self.reward.chat_format,
            limit=trainer.max_completion_length,
            sync=self._sync,
            step=self._step_all,
        )
        self.reward.hand_in([episode.outcome for episode in episodes])
        known = bool(transcripts[0].logprobs)
        output: dict[str, Any] = {
            "prompt_ids": prompt_ids,
            "completion_ids": [transcript.ids for transcript in transcripts],
            "logprobs": [transcript.logprobs for transcript in transcripts] if known else None,
        }
        if self._may_reply:
            output["env_mask"] = [transcript.mask for transcript in transcripts]
            output["cut_off"] = [transcript.cut for transcript in transcripts]
            output["own_tokens"] = [transcript.own for transcript in transcripts]
        return output

    def _step_all(self, episodes: list[Episode], actions: list[Completion]) -> list[str | None]:
        def tell(done: int, total: int) -> None:
            self.trainer.on_activity(f"judging {done} of {total}")

        return self._judges.step(episodes, actions, tell)

    def _sync(self, active: int, room: int) -> tuple[int, int]:
        """As many contexts as the busiest process has where vLLM shares them out by equal numbers, else one or more."""
        accelerator = self.trainer.accelerator
        if accelerator.num_processes == 1 or not self._may_reply:
            return active, room
        mine = torch.tensor([[active, room]], device=accelerator.device)
        most, room = accelerator.gather(mine).max(dim=0).values.tolist()
        return most if self.trainer.use_vllm else max(active, min(most, 1)), room


def shown_text(prompt: str | list[dict[str, str]]) -> str:
    """What the environment showed, of a prompt made by `as_prompt`."""
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


def clock_rows(env: gymnasium.Env, args: DAPOConfig, train_dataset, eval_dataset) -> Dataset:
    """What TRL takes for a training set when an environment supplies the prompts: as many rows, and nothing in them."""
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
