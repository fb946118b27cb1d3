"""`FusionSandbox`: programs run on a farm of machines, behind servers of SandboxFusion.

Protocol: https://github.com/bytedance/SandboxFusion, `POST /run_code`. One request runs a program on all inputs of a
call, by our own far end (`remote`), so that limits, state and where to stop are the same as at home. The answer is
fetched as a file, as those servers cut and lose what is printed. No verdict is asked of them.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import re
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from ..inside import frames
from ..seccomp_filter import filter_code
from ..task import AnySandbox, Task
from ..types import Limits, Program, Result, SandboxUnavailable, Status
from ..zygote_client import Channel, ZygoteFailure
from .far_end import MAX_REPORTS, REPORTS
from .servers import Servers, Unavailable

log = logging.getLogger("envs.sandbox")

SCHEME = "fusion+"
"""What the address of a farm begins with; "http" or "https" follow."""

_WORKERS = 32
_RUNS = 2  # of a program, until there is an answer of use
_START_SECONDS = 60.0  # for the far end to start, beyond what the program may take
_WAIT_SECONDS = 60.0  # for the request to be sent, waited on, repeated and answered, beyond that
_MAX_HEADER = 1 << 13  # bytes
_SPARE_BYTES = 1 << 24  # of an answer, beyond reports
_BYTES_PER_INPUT = 1 << 13
_EXCERPT = 300  # characters
_CODE = "from far_end.fusion import far_end\nfar_end.main()\n"
_FAR_END = ("zygote_client.py", "fusion/far_end.py", "inside/*.py")
# That these fail keeps a program from its own results; for all else the farm has walls of its own.
_PROBE = """
import os
def denied(attempt, *arguments):
    try:
        attempt(*arguments)
    except OSError:
        return True
    return False
def fork():
    if os.fork() == 0:
        os._exit(0)
"""
_ATTEMPTS = {"starting a process": "denied(fork)", "sending a signal": "denied(os.kill, os.getppid(), 0)"}
_PROBE_LIMITS = Limits(cpu_seconds=10, wall_seconds=30)


class FusionSandbox(AnySandbox):
    """Runs programs on a farm; used like `Sandbox`, from any thread and after forks.

    The farm keeps programs apart from its machines and from each other. What keeps a program from its own results is
    the same filter of system calls as at home. A failure of the farm is the status "infra_failure", never one of the
    program's. A server that keeps failing is left alone for a while, in which programs fail at once.

    Args:
        address: "fusion+http://host:port", with commas between several hosts, which take turns. "?workers=64" at the
            end sets how many requests are under way at a time, 32 by default: the servers accept any number.
        packages: Packages that programs may import besides the standard library; the farm's Python has to have them.
        modules: Modules of our own for the sides of dialogs, as names and texts.

    Raises:
        ValueError: The address is none.
    """

    def __init__(self, address: str, *, packages: Sequence[str] = (), modules: Mapping[str, str] | None = None) -> None:
        self._urls, self._workers = _read(address)
        self._packages, self._modules = list(packages), dict(modules or {})
        self._state = _State(self._urls, self._workers)

    @property
    def isolation(self) -> str:
        """The level in use, "fusion"; tries the farm if that has not been done.

        Raises:
            SandboxUnavailable: The farm does not answer, or does not run programs as is done at home.
        """
        reason = self._check()
        if reason:
            raise SandboxUnavailable(f"the farm cannot be used: {reason}. See docs/sandbox.md.")
        return "fusion"

    def _attempt(
        self, limits: Limits, count: int, exchange: Callable[[Channel], tuple[Result, ...]]
    ) -> tuple[Result, ...]:
        reason = self._check()
        if not reason:
            try:
                return self._on_farm(limits, count, exchange)
            except ZygoteFailure as failure:
                reason = str(failure)
        return (Result(Status.INFRA_FAILURE, cause=f"the farm failed: {reason}"),) * count

    def close(self) -> None:
        """Close all connections. The next `run` opens them again."""
        self._live().servers.close()

    def _live(self) -> _State:
        if self._state.pid != os.getpid():  # after a fork: connections and locks are the parent's
            self._state = _State(self._urls, self._workers)
        return self._state

    def _check(self) -> str:
        """Try the farm, unless that has been done with success; return what is wrong with it, or ""."""
        state = self._live()
        with state.proving:
            if state.is_proven:
                return ""
            task = Task(Program(_PROBE, "eval"), list(_ATTEMPTS.values()), _PROBE_LIMITS)
            try:
                results = self._on_farm(_PROBE_LIMITS, len(task), task.exchange)
            except ZygoteFailure as failure:
                return str(failure)
            for name, result in zip(_ATTEMPTS, results, strict=True):
                if result.value is not True:
                    return f"it does not prevent {name}" + (f" ({result.cause})" if result.cause else "")
            state.is_proven = True
        log.info("isolation=fusion: ready to run programs")
        return ""

    def _on_farm(
        self, limits: Limits, count: int, exchange: Callable[[Channel], tuple[Result, ...]]
    ) -> tuple[Result, ...]:
        """Return the `count` results of `exchange`, of one request.

        Raises:
            ZygoteFailure: The farm failed.
        """
        state = self._live()
        seconds = _START_SECONDS + min(count * limits.wall_seconds, limits.total_seconds)
        max_bytes = (MAX_REPORTS + count * _BYTES_PER_INPUT) * 4 // 3 + _SPARE_BYTES
        with state.room:
            for run in range(1, _RUNS + 1):
                try:
                    results = exchange(_Exchange(state.servers, (self._packages, self._modules), seconds, max_bytes))
                    for result in results:
                        if result.status is Status.INFRA_FAILURE:
                            raise ZygoteFailure(result.cause)
                    return results
                except Unavailable:  # it has been tried again
                    raise
                except ZygoteFailure as failure:
                    log.warning("isolation=fusion: the farm failed: %s", failure)
                    if run == _RUNS:
                        raise
        raise AssertionError("either a run succeeds or the last one raises")


class _State:
    """What belongs to one process: connections, and what it knows of the farm."""

    def __init__(self, urls: Sequence[str], workers: int) -> None:
        self.pid = os.getpid()
        self.servers = Servers(urls, workers)
        self.room = threading.BoundedSemaphore(workers)
        self.proving = threading.Lock()
        self.is_proven = False


class _Exchange(Channel):
    """The way to a far end and back: one request.

    Args:
        servers: Where to send it.
        imports: Packages that programs may import, and modules for the sides of dialogs.
        seconds: Time for the far end.
        max_bytes: Longest answer.
    """

    def __init__(
        self, servers: Servers, imports: tuple[list[str], dict[str, str]], seconds: float, max_bytes: int
    ) -> None:
        self._servers, (self._packages, self._modules) = servers, imports
        self._seconds, self._max_bytes = seconds, max_bytes
        self._reports = io.BytesIO()

    def send(self, *files: int) -> None:
        nonce = secrets.token_hex(16)  # an answer from a cache, or to somebody else, is none
        request = {
            "nonce": nonce,
            "machine": os.uname().machine,
            "filter": _filter(),
            "packages": self._packages,
            "modules": self._modules if len(files) == 2 else {},
            "tasks": [base64.b64encode(os.pread(file, os.fstat(file).st_size, 0)).decode() for file in files],
        }
        body = {
            "language": "python",
            "code": _CODE,
            "files": _far_end(),
            "stdin": json.dumps(request),
            "fetch_files": [REPORTS],
            "run_timeout": self._seconds,
        }
        answer = self._servers.post(
            "/run_code",
            json.dumps(body).encode(),
            seconds=self._seconds + _WAIT_SECONDS,
            max_bytes=self._max_bytes,
        )
        try:
            self._reports = io.BytesIO(_reports(answer))
            header = json.loads(self.receive(_MAX_HEADER, 0.0))
            if header["nonce"] != nonce:
                raise ZygoteFailure("the answer belongs to another request")
            if header["error"]:
                raise ZygoteFailure(f"the far end failed: {str(header['error'])[:_EXCERPT]}")
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            excerpt = answer[:_EXCERPT].decode("utf-8", "replace")
            raise ZygoteFailure(f"the answer is not one of SandboxFusion ({error!r:.100}): {excerpt!r}") from error

    def stop(self) -> None:
        """All has been run by now."""

    def receive(self, max_bytes: int, seconds: float) -> bytes:
        try:
            return frames.read(self._reports.read, max_bytes)
        except frames.FrameError as error:
            raise ZygoteFailure(f"the far end sent no report: {error}") from error

    def close(self) -> None:
        pass


def _reports(answer: bytes) -> bytes:
    """Return what is in the fetched file.

    Raises:
        AttributeError, KeyError, RecursionError, TypeError, ValueError: The answer is not one of SandboxFusion.
        ZygoteFailure: There is no file in it.
    """
    fields = json.loads(answer)
    if fields["status"] == "SandboxError":
        raise ZygoteFailure(f"the server failed: {str(fields['message'])[:_EXCERPT]}")
    file = fields["files"].get(REPORTS)
    if file is None:
        run = fields["run_result"]
        last_line = str(run["stderr"]).strip().rpartition("\n")[2]
        raise ZygoteFailure(
            f"the far end left no reports: {str(run['status'])[:_EXCERPT]}, return code {str(run['return_code'])[:9]}"
            f", {last_line[:_EXCERPT]!r}"
        )
    return base64.b64decode(file, validate=True)


def _filter() -> str:
    try:
        return filter_code().hex()
    except (ImportError, RuntimeError) as error:
        raise SandboxUnavailable(
            f"no seccomp filter can be made ({error}): pip install pyseccomp, and install the system's libseccomp "
            "(package 'libseccomp2' on Debian and Ubuntu, 'libseccomp' elsewhere)"
        ) from error


_HOST = re.compile(r"(?:[^\s@/]+@)?(?:[\w.-]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?", re.ASCII)


@cache
def _far_end() -> dict[str, str]:
    """Return the files that `_CODE` imports, in the form that the server takes."""
    here = Path(__file__).parents[1]
    paths = [path for pattern in _FAR_END for path in sorted(here.glob(pattern))]
    files = {str(path.relative_to(here)): path.read_bytes() for path in paths}
    files |= {"__init__.py": b"", "fusion/__init__.py": b""}
    return {f"far_end/{name}": base64.b64encode(text).decode() for name, text in files.items()}


def _read(address: str) -> tuple[list[str], int]:
    parts = urlsplit(address.removeprefix(SCHEME))
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    workers = options.pop("workers", str(_WORKERS))
    hosts = [host.strip() for host in parts.netloc.split(",")]
    is_address = address.startswith(SCHEME) and parts.scheme in ("http", "https") and not parts.fragment
    is_address = is_address and address.isprintable() and " " not in parts.path and all(map(_HOST.fullmatch, hosts))
    if not is_address or options or not workers.isdecimal() or int(workers) < 1:
        raise ValueError(
            f"sandbox={address!r} must be 'fusion+http://host:port', with commas between several hosts, and "
            "'?workers=N' behind it if need be"
        )
    return [f"{parts.scheme}://{host}{parts.path.rstrip('/')}" for host in hosts], int(workers)
