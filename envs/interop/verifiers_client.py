"""`verifiers:ID`: a taskset of the package verifiers, with the environment that it brings."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any, ClassVar

from ..base import Completion
from ..chat import Message
from ..text import brief, one_line
from .doors import require
from .foreign import EVENT_LOOP, ForeignEnv, untouched_generators
from .sessions import AwayError, Reply, Session, SessionError, Shown

ENDLESS_ROWS = 1_000
"""Rows of an endless taskset that are used by default: it cannot be asked for a row without those before it."""
_MODEL = "policy"


class VerifiersEnv(ForeignEnv):
    """A taskset of verifiers: its own environment plays the episodes and scores them, the model's turns come from here.

    ## Arguments
    - `config={}`: the taskset's settings, as under `--env.taskset.`, such as {"game": "Wordle-v0"}.
    - `environment={}`: the environment's settings, as under `--env.`: "id" of another one than the taskset's own,
      further agents with their models, `{"agent": {"runtime": {"type": "docker"}}}`.
    - `agent=None`: which of the environment's agents is the model in training, where it has several.
    - `num_rows=None`: rows that are used; of an endless taskset 1,000 by default.
    - `max_turns=32`: the maximum of actions in an episode.
    - `best_reward=1.0`: the reward of a perfect episode; the accuracy is the reward divided by it, within [0, 1].
    - `max_concurrency=1`: episodes that are scored at a time; more where rewards wait, as for a judge.
    - `timeout=60.0`: seconds within which a turn is answered or an episode scored.
    - `patience=60.0`: seconds that a prompt is waited for.
    - `check=True`: look at the start which rules it keeps; False allows one that cannot be trained on.
    """

    extra: ClassVar[str] = "verifiers"

    def __init__(
        self,
        *,
        taskset: str,
        config: Mapping[str, Any] | None = None,
        environment: Mapping[str, Any] | None = None,
        agent: str | None = None,
        num_rows: int | None = None,
        timeout: float = 60.0,
        check: bool = True,
        **settings: Any,
    ) -> None:
        require("verifiers.v1", self.extra)
        from . import verifiers_policy

        super().__init__(num_rows=num_rows, timeout=timeout, check=False, **settings)
        self._theirs, self.agent = _loaded(taskset, config or {}, environment or {}, agent, verifiers_policy.HARNESS)
        tasks = self._theirs.taskset
        self.tasks = list(islice(tasks, num_rows or (None if tasks.bounded else ENDLESS_ROWS)))
        if not self.tasks:
            raise ValueError(f"verifiers:{taskset} has no tasks")
        self.num_rows = len(self.tasks)
        self._runner: _Runner | None = None
        if check:
            self._check_rules()

    @property
    def runner(self) -> _Runner:
        """What plays the episodes; started with the first one."""
        if self._runner is None:
            self._runner = _Runner(self._theirs)
        return self._runner

    def _connect(self) -> Session:
        return _VerifiersSession(self)

    def close(self) -> None:
        super().close()
        if self._runner is not None:
            self._runner.close()
            self._runner = None


def _loaded(
    taskset: str, config: Mapping[str, Any], environment: Mapping[str, Any], agent: str | None, harness: str
) -> tuple[Any, str]:
    """Return the environment of a taskset, and the name of the agent that is the model in training.

    Raises:
        ModuleNotFoundError: There is no such taskset.
        ValueError: Its settings are wrong, or it needs more models than are named.
    """
    loaders = require("verifiers.v1.utils.loaders", "verifiers")
    from verifiers.v1.configs.agent import agent_config_fields

    settings: dict[str, Any] = {**environment, "taskset": {"id": taskset, **config}}
    agents = list(agent_config_fields(loaders.env_config_type(taskset, settings.get("id", ""))()))
    others = [name for name in agents if name != agent]
    if agent is None and len(agents) == 1:
        agent, others = agents[0], []
    if agent is None or agent not in agents:
        raise ValueError(
            f"verifiers:{taskset} has the agents {', '.join(agents)}: name the one that is the model in training "
            "(agent: NAME)"
        )
    if missing := [name for name in others if not {"model", "client"} <= set(settings.get(name, {}))]:
        raise ValueError(
            f"verifiers:{taskset} has further agents, {', '.join(missing)}: give each a model and a client "
            f"(environment: {{{missing[0]}: {{model: ..., client: {{base_url: ...}}}}}})"
        )
    own = {"runtime": {"type": "subprocess"}, **settings.get(agent, {}), "harness": {"id": harness}}
    settings[agent] = own
    return loaders.load_environment(loaders.resolve_env_config(settings)), agent


class _Runner:
    """Plays episodes of a verifiers environment in the event loop's thread.

    verifiers reaches the model as an OpenAI-compatible server: this one asks the session of the rollout.
    """

    def __init__(self, env: Any) -> None:
        self.env = env
        self.turns: dict[str, _Turns] = {}
        self._closing = asyncio.Event()
        started: Future[str] = Future()
        EVENT_LOOP.detached(self._serve(started))
        from verifiers.v1.clients import EvalClientConfig, ModelContext

        self.context = ModelContext(
            model=_MODEL, client=EvalClientConfig(base_url=started.result(30), api_key_var="DAPO_TRL_POLICY_KEY")
        )

    async def _serve(self, started: Future[str]) -> None:
        """Hold the model's server and the environment's own resources until `close`."""
        from aiohttp import web

        try:
            application = web.Application(client_max_size=1 << 30)
            application.router.add_post("/v1/chat/completions", self._completion)
            runner = web.AppRunner(application)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            async with self.env.serving():
                port = runner.addresses[0][1]
                started.set_result(f"http://127.0.0.1:{port}/v1")
                await self._closing.wait()
            await runner.cleanup()
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
            raise

    async def _completion(self, request: Any) -> Any:
        """Answer a request for the model's next turn with the session's action."""
        from aiohttp import web

        turns = self.turns.get(request.headers.get("X-Session-ID", ""))
        if turns is None:
            return web.json_response({"error": {"message": "no episode asks for this turn"}}, status=404)
        action = await turns.ask((await request.json())["messages"])
        count = action.n_tokens or 0
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": str(action)},
            "finish_reason": action.finish_reason or "stop",
        }
        usage = {"prompt_tokens": 0, "completion_tokens": count, "total_tokens": count}
        body = {"id": "turn", "object": "chat.completion", "created": int(time.time()), "model": _MODEL}
        return web.json_response({**body, "choices": [choice], "usage": usage})

    def close(self) -> None:
        """Let the servers go."""
        EVENT_LOOP.loop().call_soon_threadsafe(self._closing.set)


class _Turns:
    """The model's side of one episode: what it is asked, and its answers."""

    def __init__(self) -> None:
        self.events: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._waiting: asyncio.Future[Completion] | None = None

    async def ask(self, messages: list[dict[str, Any]]) -> Completion:
        """Pass a request for a turn on, and wait for the action."""
        waiting = asyncio.get_running_loop().create_future()
        self._waiting = waiting  # taken by `answer` in another thread, as soon as the event is there
        self.events.put(("asked", messages))
        return await waiting

    def answer(self, action: Completion) -> None:
        """Give the action that was asked for; called in the session's thread."""
        waiting, self._waiting = self._waiting, None  # the next request may come before this returns
        if waiting is not None:
            EVENT_LOOP.loop().call_soon_threadsafe(waiting.set_result, action)


class _VerifiersSession:
    """One episode after another of a verifiers environment."""

    def __init__(self, env: VerifiersEnv) -> None:
        self._env = env
        self._turns = _Turns()
        self._episode: Future[None] | None = None
        self._generators: list[Any] = []
        self._alone = env.max_concurrency == 1

    def reset(self, index: int) -> Shown:
        self.close()
        self._turns = _Turns()
        self._generators = []
        self._seen = 0
        with self._watched():
            if self._alone:
                random.seed(index)
            work = self._played(self._env.runner, self._env.tasks[index], self._turns)
            self._episode = asyncio.run_coroutine_threadsafe(work, EVENT_LOOP.loop())
            kind, value = self._event()
        if kind == "ended":
            raise SessionError(f"task {index} is over before the model's first turn: {value}")
        return Shown(self._messages(value))

    def step(self, action: Completion) -> Reply:
        with self._watched():
            self._turns.answer(action)
            kind, value = self._event()
        if kind == "asked":
            return Reply("\n\n".join(message["content"] for message in self._messages(value)))
        if isinstance(value, str):
            raise SessionError(value)
        return value

    def close(self) -> None:
        if self._episode is not None:
            self._episode.cancel()
            self._episode = None

    def _watched(self) -> Any:
        """Keep what the environment draws from the global generators to itself, where nothing else runs meanwhile."""
        return untouched_generators(self._generators) if self._alone else contextlib.nullcontext()

    def _event(self) -> tuple[str, Any]:
        """Wait until the environment asks for a turn, or the episode has ended."""
        try:
            return self._turns.events.get(timeout=self._env.timeout)
        except Empty as error:
            raise AwayError(f"verifiers neither asked for a turn nor scored within {self._env.timeout:g} s") from error

    def _messages(self, messages: list[dict[str, Any]]) -> list[Message]:
        """Return the messages that are new to the model."""
        new = [message for message in messages[self._seen :] if message["role"] != "assistant" or not self._seen]
        self._seen = len(messages)
        return [{"role": message["role"], "content": _text(message["content"])} for message in new]

    async def _played(self, runner: _Runner, task: Any, turns: _Turns) -> None:
        """Play an episode as verifiers does, and report how it ended."""
        traces = list[Any]()

        def minted(trace: Any) -> None:
            if trace.agent.name == self._env.agent:
                runner.turns[trace.id] = turns
                traces.append(trace)

        try:
            episode = await runner.env.run_episode(task, runner.context, on_trace=minted)
            turns.events.put(("ended", _outcome(episode, traces)))
        except Exception as error:
            turns.events.put(("ended", f"verifiers failed: {type(error).__name__}: {one_line(error)}"))
        finally:
            for trace in traces:
                runner.turns.pop(trace.id, None)


def _outcome(episode: Any, traces: list[Any]) -> Reply | str:
    """Return the last reply of an episode, or why nothing is known about it."""
    if not episode.ok or len(traces) != 1:
        errors = [*episode.errors, *(error for trace in traces for error in trace.errors)]
        reason = f"{errors[-1].type}: {errors[-1].message}" if errors else f"{len(traces)} rollouts of one task"
        return f"verifiers failed: {brief(' '.join(reason.split()), 300)}"
    (trace,) = traces
    rewards = {name: reward.value for name, reward in trace.rewards.items() if reward is not None}
    info = {"rewards": rewards, "metrics": dict(trace.metrics), "cause": str(trace.stop_condition or "")}
    return Reply("", float(trace.reward), True, info)


def _text(content: Any) -> str:
    """Return the text of a message.

    Raises:
        SessionError: It has an image.
    """
    if isinstance(content, str):
        return content
    parts = list(_texts(content or []))
    return "\n".join(parts)


def _texts(content: list[dict[str, Any]]) -> Iterator[str]:
    for part in content:
        if part.get("type") != "text":
            raise SessionError(f"a message holds {part.get('type')}: only texts can be shown to the model")
        yield part["text"]
