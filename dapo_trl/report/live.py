"""The page of running runs, served on this machine alone; the page asks for newer data."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ..errors import ConfigError, one_line
from ..monitor.status import FILE, QUIET, seen
from . import page, summary
from .reading import read_run

ADDRESS = "127.0.0.1"
PORT = 8707
PORTS_TRIED = 20
REST = 5.0
"""Pause between two readings, as a multiple of the time that reading took, so that a long run does not slow its
trainer."""
METRICS = "metrics.jsonl"
WATCHED = (
    METRICS,
    FILE,
    "config.yaml",
    "settings.json",
    "environment.json",
    "evaluation_*.json",
    "rollouts-*.jsonl",
    "model",
)


class Watched:
    """The data of some runs, read again when their files change."""

    def __init__(self, folders: Sequence[Path]):
        self.folders = folders
        self.labels = summary.labels(folders)
        self._lock = threading.Lock()
        self._tag = ""
        self._data = b""
        self._next = 0.0
        """Clock time from which the files are checked again."""

    def read(self) -> tuple[str, bytes]:
        """The data as `page.data` returns them, with a tag that changes when they do."""
        with self._lock:
            started = time.monotonic()
            tag = self._fingerprint() if started >= self._next else self._tag
            if tag != self._tag:
                runs = [read_run(folder, may_be_empty=True) for folder in self.folders]
                self._data, self._tag = page.data(runs, self.labels), tag
                self._next = time.monotonic() + REST * (time.monotonic() - started)
            return self._tag, self._data

    def _fingerprint(self) -> str:
        found: list[Any] = []
        for folder in self.folders:
            for path in sorted(path for pattern in WATCHED for path in folder.glob(pattern)):
                with contextlib.suppress(OSError):
                    state = path.stat()
                    found.append((str(path), state.st_size, state.st_mtime_ns, time.time() - state.st_mtime < QUIET))
                    if path.name == METRICS:
                        found.append(seen(folder, newest=state.st_mtime))
        return hashlib.blake2b(repr(found).encode(), digest_size=8).hexdigest()


def server(folders: Sequence[Path], *, port: int | None = None) -> ThreadingHTTPServer:
    """A server of the page, bound to 127.0.0.1.

    Args:
        port: None: `PORT`, or the next one that is free.

    Raises:
        ConfigError: a folder does not exist, or the port is not free.
    """
    watched = Watched(folders)
    watched.read()  # a mistake in the request is an error at once
    handler = type("Handler", (_Handler,), {"watched": watched})
    for candidate in [port] if port is not None else range(PORT, PORT + PORTS_TRIED):
        try:
            return ThreadingHTTPServer((ADDRESS, candidate), handler)
        except (OSError, OverflowError) as error:
            reason = one_line(error)
    what = f"port is {port}" if port is not None else f"ports {PORT} to {PORT + PORTS_TRIED - 1}"
    raise ConfigError(f"{what}: cannot be listened on ({reason}). Choose another --port.")


def serve(folders: Sequence[Path], *, port: int | None, report: Callable[[str], Any]) -> None:
    """Serve until Ctrl-C.

    Args:
        report: called with a line that names the address.
    """
    with server(folders, port=port) as serving:
        report(f"http://{ADDRESS}:{serving.server_address[1]}/   (on this machine alone; Ctrl-C ends it)")
        with contextlib.suppress(KeyboardInterrupt):
            serving.serve_forever()


class _Handler(BaseHTTPRequestHandler):
    timeout = 10.0  # seconds without a word, after which a connection is closed and its thread ends
    watched: Watched
    server: ThreadingHTTPServer

    def do_GET(self) -> None:
        if not self._is_for_us():
            self._answer(HTTPStatus.FORBIDDEN, "text/plain", b"This server answers to 127.0.0.1 and localhost alone.\n")
        elif self.path == "/":
            title = ", ".join(self.watched.labels)
            for _, content in self._data():
                html = page.render(content, title=title, live=True)
                self._answer(HTTPStatus.OK, "text/html; charset=utf-8", html.encode())
        elif self.path == "/data":
            for tag, content in self._data():
                if self.headers.get("If-None-Match") == f'"{tag}"':
                    self._answer(HTTPStatus.NOT_MODIFIED, "application/octet-stream", b"", tag)
                else:
                    self._answer(HTTPStatus.OK, "application/octet-stream", content, tag)
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"There is nothing here: the page is at /.\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: everything of interest is on the page."""

    def _is_for_us(self) -> bool:
        """Whether the request names this server: a page elsewhere may have had its own name pointed here."""
        port = self.server.server_address[1]
        return self.headers.get("Host") in (f"{ADDRESS}:{port}", f"localhost:{port}")

    def _data(self) -> Iterator[tuple[str, bytes]]:
        """The data; or nothing, after an answer with the reason."""
        try:
            yield self.watched.read()
        except (ConfigError, OSError) as error:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", f"{one_line(error)}\n".encode())

    def _answer(self, status: HTTPStatus, kind: str, body: bytes, tag: str = "") -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
        ):
            self.send_header(name, value)
        if tag:
            self.send_header("ETag", f'"{tag}"')
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)
