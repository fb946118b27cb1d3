"""A judge without a model: a server with OpenAI's chat protocol whose opinions and faults a test decides."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_ASKED = re.compile(
    r"Question:\n(?P<question>.*?)\n"
    r"(?:\nA right answer, for comparison:\n(?P<reference>.*?)\n)?"
    r"\nThe answer to judge:\n===== (?P<mark>\w+) =====\n(?P<answer>.*)\n===== (?P=mark) =====\n\n",
    re.DOTALL,
)
_ASKED_SCORE = re.compile(r'"(\w[\w-]*)": <(true or false|0 to (\d+))>')


@dataclass(frozen=True)
class Asked:
    """A request, as an honest judge understands it."""

    question: str
    reference: str
    answer: str
    mark: str
    points: dict[str, int]
    """For each criterion its highest score, 0 for a question of yes or no."""

    @classmethod
    def of(cls, body: dict[str, Any]) -> Asked:
        """Read it from the last message."""
        text = body["messages"][-1]["content"]
        found = _ASKED.match(text)
        points = {name: int(most or 0) for name, _, most in _ASKED_SCORE.findall(text[found.end() :])}
        return cls(found["question"], found["reference"] or "", found["answer"], found["mark"], points)

    def reply(self, share: float) -> str:
        """A verdict with this share of all points."""
        scores = {name: share >= 0.5 if most == 0 else round(share * most) for name, most in self.points.items()}
        return json.dumps({"scores": scores, "mark": self.mark})


def by_words(asked: Asked) -> float:
    """The share of the reference's words of four letters and more that are in the answer."""
    reference, answer = (set(re.findall(r"\w{4,}", text.lower())) for text in (asked.reference, asked.answer))
    return len(reference & answer) / max(len(reference), 1)


class JudgeServer(ThreadingHTTPServer):
    """Judges by an opinion, unless it is to fail.

    Attributes:
        requests: Bodies received so far, with the headers as "headers".
        faults: For the next requests, in order: a status; a (status, headers, body); "reset", which ends the
            connection; a function from the request to the text of the reply; None for none.
        always: The fault of all requests after these.
        opinion: The share of all points that an answer earns.
        seconds: A reply takes.
        offers_schema: Whether a `response_format` is known here; otherwise it is refused with status 400.
        most_at_once: Requests that were here at a time.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, opinion: Callable[[Asked], float] = by_words, *, always: Any = None, seconds: float = 0.0):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.opinion, self.always, self.seconds = opinion, always, seconds
        self.requests: list[dict[str, Any]] = []
        self.faults: list[Any] = []
        self.offers_schema = True
        self.lock = threading.Lock()
        self.at_once = self.most_at_once = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is none of this server's business."""


@contextmanager
def running(server: JudgeServer):
    """The server, in a thread of its own within the block."""
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def completion(text: Any, **more: Any) -> bytes:
    """The body of a chat completion of 100 and 20 tokens."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", **more}
    return json.dumps({"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 20}}).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: JudgeServer
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.requests.append({**body, "headers": dict(self.headers)})
            fault = server.faults.pop(0) if server.faults else server.always
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        if server.seconds:
            time.sleep(server.seconds)
        answer = None if fault == "reset" else self._answer(body, fault)
        with server.lock:
            server.at_once -= 1
        if answer is None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        self._send(*answer)

    def _answer(self, body: dict[str, Any], fault: Any) -> tuple[int, dict[str, str], bytes]:
        if isinstance(fault, int):
            return fault, {}, b'{"error": "as the test wants it"}'
        if isinstance(fault, tuple):
            return fault
        if "response_format" in body and not self.server.offers_schema:
            return 400, {}, b'{"error": "response_format is not known"}'
        if callable(fault):
            return 200, {}, completion(fault(body))
        asked = Asked.of(body)
        return 200, {}, completion(asked.reply(self.server.opinion(asked)))

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""
