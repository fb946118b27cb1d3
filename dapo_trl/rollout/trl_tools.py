"""An environment for trainers of TRL's own kind: what `trl.GRPOTrainer` takes as ``environment_factory``.

    task = TRLTask("math/Calculator-v0")
    GRPOTrainer(model, task.reward, args, task.rows(64), environment_factory=task.environment)

The model is given one tool, `ToolEnvironment.send`, to talk with the environment; a completion that ends without having
ended the episode that way is the last thing said in it. `DAPOTrainer(env=...)` needs none of this, nor a model that can
call tools.
"""

from __future__ import annotations

from typing import Any

import gymnasium
from datasets import Dataset

from envs import Completion
from envs.contract import reset_to_row

from .environments import author_errors, make_env
from .episode import Episode, Outcome


class ToolEnvironment:
    """One rollout's view of an environment, with TRL's methods: public ones but `reset` are the model's tools."""

    def __init__(self, env: gymnasium.Env, tokenizer: Any = None):
        self._env = env
        self._tokenizer = tokenizer
        self._episode: Episode | None = None

    def reset(self, index: int, **_: Any) -> str:
        """Begin the episode of row ``index``; the prompt is appended to the last user message."""
        with author_errors(self._env, index, "reset"):
            prompt, _ = reset_to_row(self._env, index)
        self._episode = Episode(self._env, index, prompt)
        return prompt

    def send(self, message: str) -> str:
        """Send a message to the task and read its reply.

        Args:
            message: The message, in the form that the task asks for.

        Returns:
            The task's reply, or that the task is over.
        """
        episode = self._episode
        if episode is None or episode.over:
            raise ValueError("the task is over")
        reply = episode.step(self._said(message))
        return "The task is over." if reply is None else reply

    def _said(self, message: str) -> Completion:
        tokens = None if self._tokenizer is None else len(self._tokenizer(message)["input_ids"])
        return Completion(message, n_tokens=tokens)

    def _outcome(self, completion: Completion) -> Outcome:
        assert self._episode is not None
        if not self._episode.over:
            self._episode.step(completion)
            self._episode.truncate()
        return self._episode.outcome


class TRLTask:
    """The three things that `trl.GRPOTrainer` needs to train on an environment.

    Args:
        env: Id or instance; see `environments.make_env`.
        tokenizer: Counts the tokens of each message, for an environment with an `OverlongPenalty`.
        **kwargs: the environment's arguments.

    Raises:
        ConfigError: the environment cannot be made.
    """

    def __init__(self, env: str | gymnasium.Env, *, tokenizer: Any = None, **kwargs: Any):
        self.env = make_env(env, **kwargs)
        self.tokenizer = tokenizer

    def environment(self) -> ToolEnvironment:
        """TRL's ``environment_factory``."""
        return ToolEnvironment(self.env, self.tokenizer)

    def rows(self, count: int) -> Dataset:
        """TRL's ``train_dataset``: the first ``count`` rows of the environment, whose prompts `reset` fills in."""
        return Dataset.from_dict({"prompt": [[{"role": "user", "content": ""}]] * count, "index": list(range(count))})

    def reward(self, completions: list, environments: list[ToolEnvironment], **_: Any) -> list[float]:
        """TRL's reward function: the sum over the episode."""
        return [
            environment._outcome(environment._said(_last_words(messages))).reward
            for messages, environment in zip(completions, environments, strict=True)
        ]


def _last_words(messages: list[dict[str, Any]]) -> str:
    """The model's text after its last tool call; empty if there is none."""
    return str(messages[-1].get("content") or "") if messages and messages[-1].get("role") == "assistant" else ""
