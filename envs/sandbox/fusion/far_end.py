"""The far end of a farm: runs one task on another machine, with the zygote and the walls that are used at home.

A server there starts it in a directory of its own. The request comes on standard input, which leaves no file behind,
and the reports are held back until nothing of the program runs any more: it cannot reach what is sent home. Like what
it imports it runs on Python 3.10, which the farm's own image has.
"""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import io
import json
import os
import stat
import sys
import sysconfig
from pathlib import Path
from typing import Any

from ..inside import frames
from ..zygote_client import Launch, Zygote, sealed_file

REPORTS = "reports"
"""File that the answer is left in: a message about the run, then the reports as a supervisor sends them."""
MAX_REPORTS = 1 << 26
"""Bytes that the reports on all inputs may take together."""

_GRACE_SECONDS = 20.0  # for a process to be forked and to report, beyond what the program may take
_MAX_MESSAGE = 1 << 13  # bytes of a header, or of what a program says about its end
_SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
# Before Python 3.11 there is no option -P, which keeps the current directory out of the path.
_BOOT = """
import os, sys
sys.path[:] = [*filter(None, sys.path), sys.argv[1]]
register_at_fork, os.register_at_fork = os.register_at_fork, lambda **hooks: None
from inside import zygote
try:
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
except OSError:
    pass
zygote.main(int(sys.argv[2]), register_at_fork)
"""


def main() -> None:
    """Run the task that is described on standard input, and leave the reports in the file `REPORTS`."""
    request = json.load(sys.stdin)
    header, reports = {"nonce": request["nonce"], "error": ""}, bytearray()
    try:
        zygote = Zygote(_launch(request))
        try:
            reports = _run([base64.b64decode(task) for task in request["tasks"]], zygote)
        finally:
            zygote.stop()
    except Exception as error:
        header["error"] = f"{type(error).__name__}: {error}"[: _MAX_MESSAGE // 8]
    with contextlib.suppress(FileNotFoundError):
        os.unlink(REPORTS)
    with open(REPORTS, "xb") as file:
        file.write(frames.pack(json.dumps(header).encode()))
        file.write(reports)


def _run(tasks: list[bytes], zygote: Zygote) -> bytearray:
    """Have a task run, or two of them talk, and return what the supervisor sends about it."""
    limits = [json.loads(frames.read(io.BytesIO(task).read, len(task)))["limits"] for task in tasks]
    kind = "wall_seconds" if len(tasks) == 1 else "total_seconds"
    seconds = max(limit[kind] for limit in limits) + _GRACE_SECONDS
    max_bytes = max(_MAX_MESSAGE, *(limit["output_bytes"] for limit in limits))
    channel = zygote.open_channel()
    with contextlib.ExitStack() as stack:
        channel.send(*[stack.enter_context(sealed_file(task)) for task in tasks])
    reports = bytearray()
    while header := channel.receive(_MAX_MESSAGE, seconds):
        payload = channel.receive(max_bytes, seconds)
        if len(reports) + len(header) + len(payload) > MAX_REPORTS:
            header = b"output_limit 0 the values of all inputs together take more than %d bytes" % MAX_REPORTS
            payload = b""
        reports += frames.pack(header) + frames.pack(payload)
    return reports + frames.pack(b"")


def _launch(request: dict[str, Any]) -> Launch:
    """Work out how to start a zygote here, as `isolation.launch` does at home."""
    machine = os.uname().machine
    if machine != request["machine"]:
        raise RuntimeError(f"this machine is {machine}: the filter of system calls is for {request['machine']}")
    here = str(Path(__file__).parents[1])
    origins = [_origin(name) for name in request["packages"]]
    library = Path(sysconfig.get_path("stdlib"))
    readable = {sys.base_prefix, str(library), *_SYSTEM, *map(str, origins)}
    readable |= {str(origin.with_name(f"{origin.name}.libs")) for origin in origins}
    settings = {
        "own_path": here,
        "packages": request["packages"],
        "package_paths": [str(origin.parent) for origin in origins],
        "modules": request["modules"],
        "is_confined": True,
        "needs_landlock": False,
        "readable": sorted(readable),
        "listable": [],
        "devices": list(_DEVICES),
        "keep_reading": not all(map(_is_public, (library, *origins))),
        "filter": request["filter"],
    }
    interpreter = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    command = [interpreter, "-s", "-S", "-B", "-X", "utf8", "-c", _BOOT, here]
    return Launch(command, _ENVIRONMENT, settings)


def _origin(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"the farm's Python {sys.version.split()[0]} has no package {package!r}")
    return Path(next(iter(spec.submodule_search_locations))).resolve()


def _is_public(path: Path) -> bool:
    return all(directory.stat().st_mode & stat.S_IXOTH for directory in (path, *path.parents))
