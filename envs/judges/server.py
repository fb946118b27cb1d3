"""Requests to a judge's server: so many at a time, again after a failure, within a budget. Asked from any thread."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import threading
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

from ..text import brief, one_line

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
log = logging.getLogger("envs.judges")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 16.0  # seconds between tries: each twice the last, less up to half by chance
_CONNECT_SECONDS = 10.0
_MAX_BYTES = 1 << 20  # of an answer of the server
_EXCERPT = 200  # characters of it in a message
_TRY_AGAIN = frozenset({408, 425, 429})  # besides 5xx
_WRONG_SETTINGS = {401: "the key", 403: "the key", 404: "the address or the model"}
_NO_SCHEMA = frozenset({400, 415, 422})  # statuses by which servers refuse a response_format that they do not know
_CHARACTERS_PER_TOKEN = 4  # where the server does not count tokens

_now, _sleep = time.monotonic, asyncio.sleep
_chance = random.SystemRandom()  # the global generator is training's


class NoReply(Exception):
    """The server gave no reply that can be read; the message says why."""


class BudgetSpent(RuntimeError):
    """The requests or tokens that a judge may spend are spent: nothing more can be judged."""


class _Again(Exception):
    """A failure that may pass, and the seconds after which the server asks to be tried again."""

    def __init__(self, cause: str, seconds: float = 0.0) -> None:
        super().__init__(cause)
        self.seconds = seconds


class _Status(Exception):
    """An answer of the server that will not change, with its status."""

    def __init__(self, status: int, cause: str) -> None:
        super().__init__(cause)
        self.status = status


@dataclass
class Bill:
    """The cost of verdicts: requests sent, failed ones too, and tokens."""

    requests: int = 0
    prompt_tokens: int = 0
    reply_tokens: int = 0

    @property
    def tokens(self) -> int:
        """All tokens."""
        return self.prompt_tokens + self.reply_tokens


@dataclass(frozen=True)
class Limits:
    """Limits on the requests to a server.

    Attributes:
        concurrency: Requests in flight at a time.
        request_seconds: Seconds of one request.
        seconds: Seconds until there is a reply, with all tries and the pauses between them.
        requests: Requests in all; None: no limit.
        tokens: Tokens in all, of requests and replies; None: no limit. Those of requests in flight come on top.
    """

    concurrency: int
    request_seconds: float
    seconds: float
    requests: int | None = None
    tokens: int | None = None


class Server:
    """A server with OpenAI's chat protocol.

    Args:
        url: Its address, such as http://localhost:8000/v1.
        key_env: Name of the environment variable that holds the key; None: none is sent.
        limits: Limits on the requests to it.
    """

    def __init__(self, url: str, key_env: str | None, limits: Limits) -> None:
        self._url, self._key_env, self._limits = url.rstrip("/"), key_env, limits
        self.spent = Bill()
        """In all since this process began."""
        self._offers_schema: bool | None = None  # None: not known yet
        self._has_worked = False
        self._resume_at = 0.0  # when the server wants to be asked again
        self._opened: tuple[asyncio.AbstractEventLoop, httpx.AsyncClient, asyncio.Semaphore] | None = None

    async def chat(self, body: Mapping[str, Any], schema: Mapping[str, Any], bill: Bill) -> str:
        """Ask for a chat completion that follows a JSON schema, where the server offers that, and return its text.

        Args:
            body: The request, without `response_format`.
            schema: Of the reply.
            bill: The cost is added to it.

        Raises:
            NoReply: There was no reply in time, or one that is no chat completion.
            BudgetSpent: No request may be sent any more.
            ValueError: The server has refused the key, the address or the model from the start.
        """
        client, slots = self._client()
        async with slots:
            try:
                return await self._asked(client, body, schema, bill)
            except _Status as error:
                if not self._has_worked and (wrong := _WRONG_SETTINGS.get(error.status)):
                    raise ValueError(f"Judge: {self._url} refuses {wrong}: {error}") from None
                raise NoReply(f"{self._url}: {error}") from None

    async def close(self) -> None:
        """Close all connections; `chat` opens them again."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened[1].aclose()

    async def _asked(
        self, client: httpx.AsyncClient, body: Mapping[str, Any], schema: Mapping[str, Any], bill: Bill
    ) -> str:
        """Ask with the schema, and without it where the server does not know schemas."""
        deadline = _now() + self._limits.seconds
        if self._offers_schema is False:
            return await self._tried(client, body, bill, deadline)
        form = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": schema, "strict": True}}
        try:
            text = await self._tried(client, {**body, "response_format": form}, bill, deadline)
            self._offers_schema = True
        except _Status as error:
            if self._offers_schema or error.status not in _NO_SCHEMA:
                raise
            text = await self._tried(client, body, bill, deadline)
            if self._offers_schema is None:
                log.warning("%s takes no JSON schema (%s): replies are only read strictly", self._url, error)
            self._offers_schema = False
        return text

    async def _tried(self, client: httpx.AsyncClient, body: Mapping[str, Any], bill: Bill, deadline: float) -> str:
        """Send a request until there is a reply or the time is up."""
        cause, tries = "no time left", 0
        while True:
            pause = 0.0
            if tries:
                pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (tries - 1)) * _chance.uniform(0.5, 1.0)
            if self._resume_at > _now():
                pause += self._resume_at - _now()
            if _now() + pause >= deadline:
                raise NoReply(f"{self._url} failed in {tries} tries within {self._limits.seconds:g} s: {cause}")
            if pause:
                await _sleep(pause)
            tries += 1
            self._reserve(bill)
            try:
                return self._read(await self._sent(client, body, deadline - _now()), body, bill)
            except _Again as error:
                cause = str(error)
                wanted = min(error.seconds, self._limits.seconds)  # one odd header must not silence a judge for good
                self._resume_at = max(self._resume_at, _now() + wanted)

    async def _sent(self, client: httpx.AsyncClient, body: Mapping[str, Any], left: float) -> bytes:
        """Send a request once."""
        import httpx

        headers = {"Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        seconds = min(self._limits.request_seconds, left)
        answer = bytearray()
        try:
            async with (
                asyncio.timeout(seconds),
                client.stream("POST", f"{self._url}/chat/completions", json=body, headers=headers) as response,
            ):
                async for chunk in response.aiter_raw():
                    answer += chunk
                    if len(answer) > _MAX_BYTES:
                        raise NoReply(f"{self._url} sent more than {_MAX_BYTES:,} bytes")
        except TimeoutError:
            raise _Again(f"no reply within {seconds:.3g} s") from None
        except httpx.TransportError as error:
            raise _Again(f"{type(error).__name__}: {one_line(error)}") from None
        if response.status_code == 200:
            return bytes(answer)
        cause = f"status {response.status_code}: {self._excerpt(answer)}"
        if response.status_code in _TRY_AGAIN or response.status_code >= 500:
            raise _Again(cause, _retry_after(response.headers.get("Retry-After", "")))
        raise _Status(response.status_code, cause)

    def _read(self, answer: bytes, body: Mapping[str, Any], bill: Bill) -> str:
        """Take the text out of a chat completion, and enter its tokens."""
        try:
            completion = json.loads(answer)
            choice = completion["choices"][0]
            text, ended = choice["message"]["content"], choice.get("finish_reason")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            text, ended, completion = None, None, {}
        usage = completion.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        asked = sum(len(message["content"]) for message in body["messages"])
        tokens = (
            _tokens(usage.get("prompt_tokens"), asked),
            _tokens(usage.get("completion_tokens"), len(text) if isinstance(text, str) else 0),
        )
        for one in (bill, self.spent):
            one.prompt_tokens += tokens[0]
            one.reply_tokens += tokens[1]
        if not isinstance(text, str):
            raise NoReply(f"{self._url} sent no chat completion: {self._excerpt(answer)}")
        self._has_worked = True
        if ended == "length":
            raise NoReply(f"the reply was cut off at {body['max_tokens']} tokens: raise reply_tokens")
        return text

    @property
    def _key(self) -> str:
        return os.environ.get(self._key_env, "").strip() if self._key_env else ""

    def _excerpt(self, answer: bytes | bytearray) -> str:
        """The beginning of an answer for a message, without the key, which some servers repeat."""
        text = answer[: 4 * _EXCERPT].decode("utf-8", "replace")
        return brief(text.replace(self._key, "***") if self._key else text, _EXCERPT)

    def _reserve(self, bill: Bill) -> None:
        """Enter a request, if the budget has room for it."""
        for what, spent, limit in (
            ("requests", self.spent.requests, self._limits.requests),
            ("tokens", self.spent.tokens, self._limits.tokens),
        ):
            if limit is not None and spent >= limit:
                raise BudgetSpent(
                    f"the judge's budget is spent: {spent:,} {what} since this process began, of {limit:,} that it may "
                    f"spend. Raise max_{what}"
                )
        bill.requests += 1
        self.spent.requests += 1

    def _client(self) -> tuple[httpx.AsyncClient, asyncio.Semaphore]:
        """The connections of the running loop: after a fork it is another one."""
        import httpx

        loop = asyncio.get_running_loop()
        if self._opened is None or self._opened[0] is not loop:
            most = self._limits.concurrency
            limits = httpx.Limits(max_connections=most, max_keepalive_connections=most)
            timeout = httpx.Timeout(None, connect=_CONNECT_SECONDS)
            self._opened = loop, httpx.AsyncClient(limits=limits, timeout=timeout), asyncio.Semaphore(most)
        return self._opened[1], self._opened[2]


def in_background(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in this process's event loop, which has a thread of its own, and wait for its result."""
    future = asyncio.run_coroutine_threadsafe(work, _loops.get())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


class _Loops:
    """The event loop of this process: one for all judges, made when it is first needed, and anew after a fork."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """After a fork: the thread of the loop is not here."""
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def get(self) -> asyncio.AbstractEventLoop:
        """The loop, which is running."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="judges", daemon=True).start()
            return self._loop


_loops = _Loops()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_loops.forget)


def _tokens(counted: Any, characters: int) -> int:
    """The tokens as the server counted them, else an estimate."""
    if isinstance(counted, int) and not isinstance(counted, bool) and 0 <= counted <= 1 << 30:
        return counted
    return -(-characters // _CHARACTERS_PER_TOKEN)


def _retry_after(header: str) -> float:
    """Seconds that a `Retry-After` asks for, a number or a date; 0 where it asks for nothing that can be read."""
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return 0.0
    return max(seconds, 0.0) if seconds < float("inf") else 0.0
