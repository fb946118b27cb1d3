"""Requests to a judge's server: so many at a time, again after a failure, within a budget. Asked from any thread.

All judges of one server and key in a process share its `_Traffic`: a run has one budget and one number of requests in
flight, however many environments it makes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from ..event_loop import LoopThread
from ..text import brief, one_line

if TYPE_CHECKING:
    import httpx

log = logging.getLogger("envs.judges")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 16.0  # seconds between tries: each twice the last, less up to half by chance
_CONNECT_SECONDS = 10.0
_MAX_BYTES = 1 << 20  # of an answer of the server
_EXCERPT = 200  # characters of it in a message
_TOO_MANY = 429
_TRY_AGAIN = frozenset({408, 425, _TOO_MANY})  # besides 5xx
_MAX_OUTAGE = 3  # votes in a row without any reply in all their tries, after which votes are tried once
_WRONG_SETTINGS = {
    400: "the request (see extra)",
    401: "the key",
    403: "the key",
    404: "the address or the model",
    422: "the request (see extra)",
}
_NO_SCHEMA = frozenset({400, 415, 422})  # statuses by which servers refuse a response_format that they do not know
_CHARACTERS_PER_TOKEN = 4  # where the server does not count tokens

_now, _sleep = time.monotonic, asyncio.sleep
_chance = random.SystemRandom()  # the global generator is training's


class NoReply(Exception):
    """The server gave no reply that can be read; the message says why."""


class BudgetSpent(RuntimeError):
    """The requests or tokens that a judge may spend are spent: nothing more can be judged."""


class _Again(Exception):
    """A failure that may pass.

    Attributes:
        seconds: After which the server asks to be tried again.
        is_outage: Whether the server is not there or does not work, as opposed to one that has too much to do.
    """

    def __init__(self, cause: str, seconds: float = 0.0, *, is_outage: bool = True) -> None:
        super().__init__(cause)
        self.seconds, self.is_outage = seconds, is_outage


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
        concurrency: Requests in flight at a time; the smallest of all judges of the server counts.
        request_seconds: Seconds of one request.
        seconds: Seconds until there is a reply, with all tries and the pauses between them.
        requests: Requests of all judges of the server; None: no limit.
        tokens: Tokens of all judges of the server, of requests and replies; None: no limit. Those of requests in
            flight come on top.
    """

    concurrency: int
    request_seconds: float
    seconds: float
    requests: int | None = None
    tokens: int | None = None


class _Traffic:
    """What the judges of one server and key in a process share."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.spent = Bill()
        """In all since the first of them was made."""
        self.resume_at = 0.0
        """When the server wants to be asked again."""
        self.outage = 0
        """Votes in a row without any reply."""
        self._in_flight = 0
        self._opened: tuple[asyncio.AbstractEventLoop, httpx.AsyncClient, asyncio.Condition] | None = None

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[httpx.AsyncClient]:
        """Wait until another request may be in flight, and give the connections for it."""
        client, freed = self._connections()
        async with freed:
            await freed.wait_for(lambda: self._in_flight < self.concurrency)
            self._in_flight += 1
        try:
            yield client
        finally:
            self._in_flight -= 1
            async with freed:
                freed.notify()

    def _connections(self) -> tuple[httpx.AsyncClient, asyncio.Condition]:
        """The connections of the running loop: after a fork it is another one."""
        import httpx

        loop = asyncio.get_running_loop()
        if self._opened is None or self._opened[0] is not loop:
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=self.concurrency)
            timeout = httpx.Timeout(None, connect=_CONNECT_SECONDS)
            self._opened, self._in_flight = (
                (loop, httpx.AsyncClient(limits=limits, timeout=timeout), asyncio.Condition()),
                0,
            )
        return self._opened[1], self._opened[2]

    async def close(self) -> None:
        """Close all connections, unless requests of other judges are in flight; they are opened again if need be."""
        if self._opened is not None and not self._in_flight:
            (_, client, _), self._opened = self._opened, None
            await client.aclose()


class _Traffics:
    """The traffic of this process by server and key; of each as long as one of its judges is there."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[tuple[str, str | None], _Traffic] = WeakValueDictionary()
        self.renew_lock()

    def renew_lock(self) -> None:
        """After a fork: another thread of the other process may hold it."""
        self._lock = threading.Lock()

    def of(self, url: str, key_env: str | None, concurrency: int) -> _Traffic:
        """Return the traffic that all judges of this server and key share."""
        with self._lock:
            found = self._known.setdefault((url, key_env), _Traffic(concurrency))
            found.concurrency = min(found.concurrency, concurrency)
            return found


class Server:
    """A judge's way to a server with OpenAI's chat protocol.

    Args:
        url: Its address, such as http://localhost:8000/v1.
        key_env: Name of the environment variable that holds the key; None: none is sent.
        limits: Limits on the requests to it.
    """

    def __init__(self, url: str, key_env: str | None, limits: Limits) -> None:
        self._url, self._key_env, self._limits = url.rstrip("/"), key_env, limits
        self._traffic = _traffics.of(self._url, key_env, limits.concurrency)
        self._offers_schema: bool | None = None  # None: not known yet
        self._has_worked = False

    async def chat(self, body: Mapping[str, Any], schema: Mapping[str, Any], bill: Bill) -> str:
        """Ask for a chat completion that follows a JSON schema, where the server offers that, and return its text.

        Args:
            body: The request, without `response_format`.
            schema: Of the reply.
            bill: The cost is added to it.

        Raises:
            NoReply: There was no reply in time, or one that is no chat completion.
            BudgetSpent: No request may be sent any more.
            ValueError: The server has refused the key, the address, the model or the request from the start.
        """
        async with self._traffic.slot() as client:
            try:
                return await self._asked(client, body, schema, bill)
            except _Status as error:
                if not self._has_worked and (wrong := _WRONG_SETTINGS.get(error.status)):
                    raise ValueError(f"Judge: {self._url} refuses {wrong}: {error}") from None
                raise NoReply(f"{self._url}: {error}") from None

    async def close(self) -> None:
        """Close the connections, unless other judges use them; `chat` opens them again."""
        await self._traffic.close()

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
        """Send a request until there is a reply or the time is up; in an outage send it once."""
        cause, tries, is_outage, traffic = "no time left", 0, True, self._traffic
        while True:
            pause = 0.0
            if tries:
                pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (tries - 1)) * _chance.uniform(0.5, 1.0)
            if traffic.resume_at > _now():
                pause += traffic.resume_at - _now()
            if tries and is_outage and traffic.outage >= _MAX_OUTAGE:
                raise NoReply(f"{self._url} failed, as in all tries of the {_MAX_OUTAGE} votes before: {cause}")
            if _now() + pause >= deadline:
                traffic.outage += bool(tries and is_outage)
                raise NoReply(f"{self._url} failed in {tries} tries within {self._limits.seconds:g} s: {cause}")
            if pause:
                await _sleep(pause)
            tries += 1
            self._reserve(bill)
            try:
                answer = await self._sent(client, body, deadline - _now())
                traffic.outage = 0
                return self._read(answer, body, bill)
            except _Again as error:
                cause, is_outage = str(error), is_outage and error.is_outage
                wanted = min(error.seconds, self._limits.seconds)  # one odd header must not silence a judge for good
                traffic.resume_at = max(traffic.resume_at, _now() + wanted)
            except _Status:
                traffic.outage = 0
                raise

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
            seconds = _retry_after(response.headers.get("Retry-After", ""))
            raise _Again(cause, seconds, is_outage=response.status_code != _TOO_MANY)
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
        for one in (bill, self._traffic.spent):
            one.prompt_tokens += tokens[0]
            one.reply_tokens += tokens[1]
        if not isinstance(text, str):
            raise NoReply(f"{self._url} sent no chat completion: {self._excerpt(answer)}")
        self._has_worked = True
        if ended == "length":
            raise NoReply("the reply was cut off at its limit of tokens: raise reply_tokens, or the limit in extra")
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
        total = self._traffic.spent
        for what, spent, limit in (
            ("requests", total.requests, self._limits.requests),
            ("tokens", total.tokens, self._limits.tokens),
        ):
            if limit is not None and spent >= limit:
                raise BudgetSpent(
                    f"the judge's budget is spent: {spent:,} {what} since this process began, of {limit:,} that it may "
                    f"spend. Raise max_{what}"
                )
        bill.requests += 1
        total.requests += 1


EVENT_LOOP = LoopThread("judges")
"""Where the requests of all judges run."""
_traffics = _Traffics()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_traffics.renew_lock)


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
