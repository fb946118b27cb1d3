"""A stand-in for a judge: an HTTP server with the same protocol that grades by the reference's words in the answer.

    python stand_in.py 8000

It needs no model, so that the wiring can be tried anywhere. As a reward it is worthless: a list of words is paid.
"""

import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_ASKED = re.compile(
    r"A right answer, for comparison:\n(?P<reference>.*?)\n\nThe answer to judge:\n"
    r"===== (?P<mark>\w+) =====\n(?P<answer>.*)\n===== (?P=mark) =====",
    re.DOTALL,
)


def verdict(text):
    """The reply to a request: the share of the reference's words of four letters and more that are in the answer."""
    asked = _ASKED.search(text)
    reference, answer = (set(re.findall(r"[a-z]{4,}", asked[name].lower())) for name in ("reference", "answer"))
    return json.dumps(
        {"scores": {"reason": round(10 * len(reference & answer) / len(reference))}, "mark": asked["mark"]}
    )


class Judge(BaseHTTPRequestHandler):
    """Answers every chat with a verdict."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = verdict(asked["messages"][-1]["content"])
        body = json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Keep quiet."""


def serve(port=0):
    """A server on a port of this machine; 0: any that is free."""
    return ThreadingHTTPServer(("127.0.0.1", port), Judge)


if __name__ == "__main__":
    serve(int(sys.argv[1])).serve_forever()
