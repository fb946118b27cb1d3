"""`openenv:URL`: an environment on an OpenEnv server."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar
from urllib.parse import urlsplit

import httpx

from ..base import Completion, Verdict
from ..chat import Message
from ..text import brief, one_line
from .doors import require
from .foreign import EVENT_LOOP, BrokenRule, ForeignEnv
from .openenv_server import OURS
from .sessions import AwayError, CapacityError, Reply, Session, SessionError, Shown

_REJECTED = ("VALIDATION_ERROR", "INVALID_JSON")
"""Codes of a server's errors that are the answer's fault: it is no action of this environment."""


class OpenEnvEnv(ForeignEnv):
    """An environment on an OpenEnv server, reached through its own client; one of this package keeps all its rules.

    ## Arguments
    - `action_field=None`: the action's field that takes the model's text, where there are several; "json" reads the
      text as the whole action.
    - `observation_field=None`: the observation's field that is the text for the model; by default the only text in it,
      else the observation as JSON.
    - `reset_kwargs={}`: further arguments of the server's reset.
    - `max_concurrency=8`: actions that are judged at a time.
    - `num_rows=None`: rows that are used; a server of this package says how many there are.
    - `max_turns=32`: the maximum of actions in an episode; a server of this package says how many there are.
    - `best_reward=1.0`: the reward of a perfect episode; the accuracy is the reward divided by it, within [0, 1].
    - `timeout=30.0`: seconds within which the server answers.
    - `patience=60.0`: seconds that a prompt is waited for while the server is away.
    - `check=True`: look at the start which rules it keeps; False allows one that cannot be trained on.
    """

    extra: ClassVar[str] = "openenv"

    def __init__(
        self,
        *,
        url: str,
        action_field: str | None = None,
        observation_field: str | None = None,
        reset_kwargs: Mapping[str, Any] | None = None,
        max_concurrency: int = 8,
        check: bool = True,
        **settings: Any,
    ) -> None:
        self._client = require("openenv.core.generic_client", self.extra).GenericEnvClient
        self.url = url if "://" in url else f"http://{url}"
        if urlsplit(self.url).scheme not in ("http", "https", "ws", "wss") or not urlsplit(self.url).hostname:
            raise ValueError(f"openenv:{url} is no address: it must be as openenv:http://127.0.0.1:8000")
        self._observation_field = observation_field
        self._reset_kwargs = dict(reset_kwargs or {})
        super().__init__(max_concurrency=max_concurrency, check=False, **settings)
        self._action_field = action_field
        self._read_schema()
        self._read_state()
        if check:
            self._check_rules()

    def _connect(self) -> Session:
        client = self._client(self.url, connect_timeout_s=self.timeout, message_timeout_s=self.timeout)
        session = _OpenEnvSession(self, client)
        try:
            session.state = EVENT_LOOP.run(_opened(client))
        except Exception as error:
            session.close()
            text = f"the OpenEnv server at {self.url} lets no session in: {type(error).__name__}: {one_line(error)}"
            full = "CAPACITY_REACHED" in text or type(error).__name__ == "ConnectionClosedOK"
            raise (CapacityError if full else AwayError)(text) from error
        return session

    def action(self, completion: Completion) -> dict[str, Any]:
        """Return the model's text as the server's action.

        Raises:
            ValueError: It is to be JSON, and is no object.
        """
        if self.ours is not None:
            about = {name: getattr(completion, name) for name in ("n_tokens", "finish_reason", "thinking")}
            return {"text": str(completion), **about}
        if self._action_field != "json":
            return {str(self._action_field): str(completion)}
        value = json.loads(completion)
        if not isinstance(value, dict):
            raise ValueError(f"{brief(value)} is no JSON object")
        return value

    def text_of(self, observation: Mapping[str, Any]) -> str:
        """Return the text of an observation that the model is shown."""
        if self._observation_field is not None:
            return str(observation.get(self._observation_field, ""))
        texts = [value for value in observation.values() if isinstance(value, str) and value]
        return texts[0] if len(texts) == 1 else json.dumps(observation, ensure_ascii=False)

    def reset_arguments(self, index: int) -> dict[str, Any]:
        """Return the arguments of the server's reset by which it shows a row."""
        return {**self._reset_kwargs, **({"index": index} if self.ours is not None else {"seed": index})}

    @property
    def ours(self) -> Mapping[str, Any] | None:
        """The facts that a server of this package states about its environment; None for any other server."""
        return self._facts

    def _read_schema(self) -> None:
        """Find the field of the action that takes a text, from the server's schema.

        Raises:
            ValueError: Several, or none, could be meant.
            ConnectionError: The server is away.
        """
        if self._action_field is not None:
            return
        address = self.url.replace("ws", "http", 1) if self.url.startswith("ws") else self.url
        try:
            answer = httpx.get(f"{address.rstrip('/')}/schema", timeout=self.timeout, follow_redirects=True)
            schema = answer.raise_for_status().json()["action"]
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise ConnectionError(
                f"there is no OpenEnv server at {self.url} ({type(error).__name__}: {one_line(error)}): start it, or "
                "correct the address behind openenv:"
            ) from error
        fields = {name: about for name, about in schema.get("properties", {}).items() if name != "metadata"}
        required = [name for name in schema.get("required", []) if name in fields]
        texts = [name for name in required or fields if fields[name].get("type") == "string"]
        if len(texts) != 1 or len(required) > 1:
            raise ValueError(
                f"the action of {self.url} has the fields {', '.join(fields) or 'none'}: name the one that takes the "
                "model's text (action_field: NAME), or json where its text is the whole action (action_field: json)"
            )
        self._action_field = texts[0]

    def _read_state(self) -> None:
        """Read what a server of this package says about its environment, which then keeps all its rules."""
        self._facts: Mapping[str, Any] | None = None
        try:
            session = self._sessions.opened()
        except SessionError as error:
            raise ConnectionError(str(error)) from error
        facts = getattr(session, "state", {}).get(OURS)
        if isinstance(facts, Mapping):
            self._facts, self.judges_cut_off = facts, True
            self.num_rows = facts["num_rows"] if self.num_rows is None else self.num_rows
            self.max_turns = facts["max_turns"]
            self.judging_seconds = facts["judging_seconds"]
            self.timeout = max(self.timeout, 2 * self.judging_seconds)

    def _own_broken_rules(self, prompts: list[str | list[Message]]) -> Iterator[BrokenRule] | list[BrokenRule]:
        if self.ours is not None:
            return []
        found = list(super()._own_broken_rules(prompts))
        if self._sessions.limit is not None:
            found.append(
                BrokenRule(
                    "episodes go on side by side",
                    f"the server holds {self._sessions.limit} at a time: the others are played again, action by "
                    "action, when their turn comes",
                )
            )
        return found


async def _opened(client: Any) -> dict[str, Any]:
    """Open a client's connection, and return the state of its environment; empty where it has none yet."""
    await client.connect()
    try:
        return await client.state()
    except RuntimeError as error:
        if "EXECUTION_ERROR" not in str(error):
            raise
        return {}


class _OpenEnvSession:
    """A connection to an OpenEnv server, which holds an environment of its own for it."""

    def __init__(self, env: OpenEnvEnv, client: Any) -> None:
        self.state: dict[str, Any] = {}
        self._env, self._client = env, client

    def reset(self, index: int) -> Shown:
        found = self._asked(self._client.reset(**self._env.reset_arguments(index))).observation
        if self._env.ours is None:
            return Shown(self._text(found))
        return Shown(found.get("messages") or self._text(found), dict(found.get("info", {})))

    def step(self, action: Completion) -> Reply:
        try:
            payload = self._env.action(action)
        except ValueError as error:
            return Reply("", 0.0, True, {"verdict": Verdict.NO_ANSWER.value, "cause": f"no action: {one_line(error)}"})
        try:
            result = self._asked(self._client.step(payload))
        except _RejectedError as error:
            return Reply("", 0.0, True, {"verdict": Verdict.NO_ANSWER.value, "cause": f"no action: {error}"})
        info = dict(result.observation.get("info", {})) if self._env.ours is not None else {}
        reward = 0.0 if result.reward is None else float(result.reward)
        if info.get("verdict") == Verdict.INFRA_FAILURE:
            reward = info["accuracy"] = math.nan
            info["rewards"] = {name: math.nan for name in info.get("rewards", {})}
        return Reply(self._text(result.observation), reward, bool(result.done), info)

    def close(self) -> None:
        EVENT_LOOP.detached(self._client.close())

    def _text(self, observation: Mapping[str, Any]) -> str:
        return str(observation["text"]) if self._env.ours is not None else self._env.text_of(observation)

    def _asked(self, request: Any) -> Any:
        """Wait for a server's answer.

        Raises:
            _RejectedError: The action is none of this environment's.
            SessionError: The server is away, slow, or its environment failed.
        """
        try:
            return EVENT_LOOP.run(request)
        except TimeoutError as error:
            text = f"the OpenEnv server at {self._env.url} did not answer within {self._env.timeout:g} s"
            raise AwayError(text) from error
        except Exception as error:
            if isinstance(error, RuntimeError) and any(code in str(error) for code in _REJECTED):
                raise _RejectedError(one_line(error)) from error
            text = f"the OpenEnv server at {self._env.url} failed: {type(error).__name__}: {one_line(error)}"
            raise (SessionError if "EXECUTION_ERROR" in text else AwayError)(text) from error


class _RejectedError(Exception):
    """A server's word that an action is none of its environment's."""
