"""HTTP servers that take turns: retries, and leaving alone those that are down."""

from __future__ import annotations

import itertools
import logging
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..zygote_client import ZygoteFailure

if TYPE_CHECKING:
    import httpx

log = logging.getLogger("envs.sandbox")

_TRIES = 8  # of a request
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 8.0  # seconds between them: each twice the last, less up to half by chance
_PATIENCE_SECONDS = 15.0  # that a server may fail for, without a success between, before it counts as down
_REST_SECONDS = 30.0  # that one is left alone for when it is down
_CONNECT_SECONDS = 10.0
_EXCERPT = 200  # characters of an answer
_TRY_AGAIN = frozenset({408, 425, 429})  # besides 5xx


class Unavailable(ZygoteFailure):
    """No server answers, or none takes this request; the message says why."""


class _Refused(Exception):
    """An answer that asks to try again."""


@dataclass(eq=False)
class _Server:
    url: str
    worked_at: float = 0.0
    failing_since: float | None = None
    rests_until: float = 0.0
    cause: str = ""
    is_down: bool = False


class Servers:
    """A client of servers that do the same, for any number of threads of one process.

    Args:
        urls: Their addresses, without a "/" at the end.
        connections: Requests at a time.
    """

    def __init__(self, urls: Sequence[str], connections: int) -> None:
        self._servers = [_Server(url) for url in urls]
        self._connections = connections
        self._turns = itertools.count()
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None

    def post(self, path: str, body: bytes, *, seconds: float, max_bytes: int) -> bytes:
        """Send a JSON request, again if need be, and return the answer.

        Args:
            path: To be added to a server's address.
            body: The request. To send it twice must do no harm.
            seconds: Time for everything.
            max_bytes: Longest answer.

        Raises:
            Unavailable: There is none in time, or all servers are down, or it is longer, or the status is not 200.
        """
        import httpx

        deadline = time.monotonic() + seconds
        for attempt in range(_TRIES):
            start = time.monotonic()
            server = self._awake(start)
            try:
                answer = self._request(server.url + path, body, deadline, max_bytes)
            except (httpx.TransportError, _Refused) as error:
                self._failed(server, start, f"{type(error).__name__.lstrip('_')}: {error}")
            else:
                self._works(server)
                return answer
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt) * random.uniform(0.5, 1.0)
            if time.monotonic() + pause >= deadline:
                break
            time.sleep(pause)
        raise Unavailable(f"{_host(server.url)} failed {attempt + 1} times: {server.cause}")

    def close(self) -> None:
        """Close all connections; `post` opens them again."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _request(self, url: str, body: bytes, deadline: float, max_bytes: int) -> bytes:
        import httpx

        left = max(0.001, deadline - time.monotonic())
        timeout = httpx.Timeout(left, connect=min(left, _CONNECT_SECONDS), pool=None)
        answer = bytearray()
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        with self._opened().stream("POST", url, content=body, headers=headers, timeout=timeout) as response:
            for chunk in response.iter_raw():
                answer += chunk
                if len(answer) > max_bytes:
                    raise Unavailable(f"{_host(url)} sent an answer of more than {max_bytes} bytes")
                if time.monotonic() > deadline:
                    raise _Refused("the answer took too long")
        if response.status_code == 200:
            return bytes(answer)
        excerpt = f"status {response.status_code}: {answer[:_EXCERPT].decode('utf-8', 'replace')!r}"
        if response.status_code in _TRY_AGAIN or response.status_code >= 500:
            raise _Refused(excerpt)
        raise Unavailable(f"{_host(url)} answered {excerpt}")

    def _opened(self) -> httpx.Client:
        import httpx

        with self._lock:
            if self._client is None:
                limits = httpx.Limits(max_connections=self._connections, max_keepalive_connections=self._connections)
                self._client = httpx.Client(limits=limits)
            return self._client

    def _awake(self, now: float) -> _Server:
        """Return the server whose turn it is. One that was down gets one request at a time."""
        with self._lock:
            turn = next(self._turns)
            for offset in range(len(self._servers)):
                server = self._servers[(turn + offset) % len(self._servers)]
                if server.rests_until <= now:
                    if server.is_down:
                        server.rests_until = now + _REST_SECONDS
                    return server
            cause = "; ".join(f"{_host(server.url)}: {server.cause}" for server in self._servers)
        raise Unavailable(f"no server answers, for now none is asked: {cause}")

    def _failed(self, server: _Server, start: float, cause: str) -> None:
        now = time.monotonic()
        with self._lock:
            server.cause = cause
            if server.failing_since is None:
                server.failing_since = max(start, server.worked_at)
            is_news = not server.is_down and now - server.failing_since >= _PATIENCE_SECONDS
            server.is_down = server.is_down or is_news
            if server.is_down:
                server.rests_until = now + _REST_SECONDS
        if is_news:
            log.warning(
                "isolation=fusion: %s is down (%s): it is asked again every %g s",
                _host(server.url),
                cause,
                _REST_SECONDS,
            )

    def _works(self, server: _Server) -> None:
        with self._lock:
            was_down, server.is_down = server.is_down, False
            server.worked_at, server.failing_since, server.rests_until = time.monotonic(), None, 0.0
        if was_down:
            log.warning("isolation=fusion: %s answers again", _host(server.url))


def _host(url: str) -> str:
    """Return a URL without the user's name and password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
