"""A small server with the protocol of SandboxFusion's `/run_code`, for Python: it really runs what it is sent."""

import base64
import json
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MAX_OUTPUT = 1 << 20  # bytes of what is printed; the rest is lost


class FusionServer(ThreadingHTTPServer):
    """Runs requests, unless `answers` has something else to say to them.

    Attributes:
        requests: Bodies received so far.
        answers: What to do with the next requests, in order: a tuple (status, body) is sent; a function is given the
            right answer and returns such a tuple; None drops the connection.
        always: The same for all requests that come after these; without effect if it is "run".
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port=0):
        super().__init__(("127.0.0.1", port), _Handler)
        self.requests, self.answers, self.always = [], [], "run"
        self.lock = threading.Lock()
        self.running = self.most_running = 0

    @property
    def address(self):
        return f"fusion+http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """A client that went away is none of our business."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server = self.server
        with server.lock:
            server.requests.append(json.loads(body))
            todo = server.answers.pop(0) if server.answers else server.always
            server.running += 1
            server.most_running = max(server.most_running, server.running)
        try:
            if self.path != "/run_code":
                todo = 404, b'{"detail":"Not Found"}'
            if todo == "run":
                todo = 200, json.dumps(run_code(json.loads(body))).encode()
            elif callable(todo):
                todo = todo(run_code(json.loads(body)))
        finally:
            with server.lock:
                server.running -= 1
        if todo is None:
            self.close_connection = True
            return
        status, text = todo
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *arguments):
        pass


def run_code(request):
    """Answer a request as the real server does in its isolation "none"."""
    with tempfile.TemporaryDirectory() as directory:
        for name, content in request.get("files", {}).items():
            path = Path(directory, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(base64.b64decode(content))
        script = Path(directory, "script.py")
        script.write_text(request["code"])
        process = subprocess.Popen(
            [sys.executable, script],
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        result = {"status": "Finished", "execution_time": 0.0, "return_code": None}
        try:
            printed = process.communicate((request.get("stdin") or "").encode(), request.get("run_timeout", 10))
            result["return_code"] = process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            printed = process.communicate()
            result["status"] = "TimeLimitExceeded"
        result["stdout"], result["stderr"] = (text[:MAX_OUTPUT].decode() for text in printed)
        files = {}
        for name in request.get("fetch_files", []):
            path = Path(directory, name)
            if path.is_file():
                files[name] = base64.b64encode(path.read_bytes()).decode()
    return {
        "status": "Success" if result["return_code"] == 0 else "Failed",
        "message": "",
        "compile_result": None,
        "run_result": result,
        "executor_pod_name": None,
        "files": files,
    }


@contextmanager
def serving(port=0):
    """Have a server run, on a free port unless told which."""
    server = FusionServer(port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
