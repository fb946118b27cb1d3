"""Any environment of this package as an OpenEnv server: `dapo-trl envs serve`."""

from __future__ import annotations

import json
import os
import threading
from contextlib import nullcontext
from copy import deepcopy
from typing import Any, Literal

import gymnasium

from ..base import Completion, TaskEnv
from ..contract import read_reset, read_step, reset_to_row
from .doors import require

DEFAULT_HOST, DEFAULT_PORT, DEFAULT_SESSIONS = "127.0.0.1", 8000, 64
OURS = "dapo_trl"
"""Field of a session's state that holds the facts about the environment, by which a client knows this server."""


def serve(
    env: gymnasium.Env, *, host: str = DEFAULT_HOST, port: int = DEFAULT_PORT, sessions: int = DEFAULT_SESSIONS
) -> None:
    """Serve an environment until the process is interrupted.

    Args:
        env: The environment, wrappers included. Each session gets a copy; together they judge as many actions at a
            time as its `max_concurrency` allows.
        host: The address to listen at. Whoever reaches it may have answers judged: programs too.
        port: The port to listen at.
        sessions: Sessions at a time at most.

    Raises:
        ModuleNotFoundError: openenv-core is not installed.
    """
    uvicorn = require("uvicorn", "openenv")
    uvicorn.run(application(env, sessions=sessions), host=host, port=port, log_level="critical", ws_ping_timeout=None)


def application(env: gymnasium.Env, *, sessions: int = DEFAULT_SESSIONS) -> Any:
    """Return an environment as an ASGI application that speaks OpenEnv's protocol.

    Raises:
        ModuleNotFoundError: openenv-core is not installed.
    """
    server = require("openenv.core.env_server", "openenv")
    action, observation, environment = _classes(server, env)
    return server.create_fastapi_app(environment, action, observation, max_concurrent_envs=sessions)


def _classes(server: Any, env: gymnasium.Env) -> tuple[type, type, type]:
    """Return OpenEnv's action, observation and environment for an environment of this package."""
    judging = _allowed_at_once(env)

    class TextAction(server.Action):
        """The model's answer."""

        text: str
        n_tokens: int | None = None
        finish_reason: Literal["stop", "length"] | None = None
        thinking: bool = False

    class TextObservation(server.Observation):
        """The prompt or the reply; at the end of an episode `info` has the verdict."""

        text: str
        messages: list[dict[str, str]] | None = None
        info: dict[str, Any]

    class ServedEnvironment(server.Environment):
        """One session: a copy of the environment."""

        SUPPORTS_CONCURRENT_SESSIONS = True

        def __init__(self) -> None:
            super().__init__()
            self._env = deepcopy(env)
            self._episode_id: str | None = None
            self._step_count = 0

        def reset(
            self, seed: int | None = None, episode_id: str | None = None, index: int | None = None, **_: Any
        ) -> TextObservation:
            """Present row `index`, else one drawn by `seed`."""
            self._episode_id, self._step_count = episode_id, 0
            returned = self._env.reset(seed=seed) if index is None else reset_to_row(self._env, index)
            text, info = read_reset(returned)
            info = dict(info)
            messages = info.pop("messages", None)
            return TextObservation(text=text, messages=messages, info=_plain(info))

        def step(self, action: TextAction, timeout_s: float | None = None, **_: Any) -> TextObservation:
            """Judge the answer, and end the episode or reply."""
            completion = Completion(
                action.text,
                n_tokens=action.n_tokens,
                finish_reason=action.finish_reason,
                thinking=action.thinking,
            )
            with judging:
                step = read_step(self._env.step(completion))
            self._step_count += 1
            reward = None if step.verdict == "infra_failure" else step.reward
            return TextObservation(text=step.reply, done=step.over, reward=reward, info=_plain(step.info))

        @property
        def state(self) -> Any:
            """The episode, and the facts about the environment that a client of this package reads."""
            return server.State(episode_id=self._episode_id, step_count=self._step_count, **{OURS: facts(env)})

        def get_metadata(self) -> Any:
            """Return the environment's name and the first line of its documentation."""
            task = env.unwrapped
            about = (type(task).__doc__ or "").strip().partition("\n")[0]
            name = env.spec.id if env.spec is not None else type(task).__name__
            return require("openenv.core.env_server.types", "openenv").EnvironmentMetadata(name=name, description=about)

        def close(self) -> None:
            """Leave the environment as it is: the copies share what it holds."""

    return TextAction, TextObservation, ServedEnvironment


def facts(env: gymnasium.Env) -> dict[str, Any]:
    """Return what a client needs to know of an environment to keep its rules."""
    task = env.unwrapped
    return {
        "id": env.spec.id if env.spec is not None else type(task).__name__,
        "num_rows": getattr(task, "num_rows", None),
        "max_turns": getattr(task, "max_turns", 1),
        "judging_seconds": getattr(task, "judging_seconds", TaskEnv.judging_seconds),
    }


def _allowed_at_once(env: gymnasium.Env) -> Any:
    """Return a context that lets as many judgements in at a time as the environment allows."""
    allowed = env.get_wrapper_attr("max_concurrency") if env.has_wrapper_attr("max_concurrency") else 1
    count = (os.cpu_count() or 1) if allowed == "cores" else allowed
    return threading.BoundedSemaphore(count) if count else nullcontext()


def _plain(info: dict[str, Any]) -> dict[str, Any]:
    """Return an info as JSON holds it."""
    return json.loads(json.dumps(info, default=str))
