"""The zygote: a warm interpreter that forks supervisors and does nothing else.

It is started as a fresh process with an empty environment, so that it never holds anything of the process that
asked for it. On its control socket it receives its settings and answers "ready", then it receives one channel per
supervisor. It ends when the control socket closes or the other process ends.
"""

from __future__ import annotations

import _sitebuiltins
import builtins
import contextlib
import gc
import importlib
import json
import os
import random
import select
import signal
import socket
import sys
import types
from collections.abc import Callable
from itertools import count
from typing import Any

from . import confine, substitutes, supervisor
from . import confined_process as process

_STANDARD_MODULES = """
    abc array ast binascii bisect collections collections.abc contextlib copy dataclasses datetime decimal enum
    fractions functools gc hashlib heapq inspect io itertools json math numbers operator os random re select signal
    statistics string struct textwrap threading time traceback typing warnings weakref zlib
"""
_MAX_DIGITS = 50_000  # of integers that are read or printed; Python's own limit is 4,300
_SEED = 0  # every process of every program draws the same numbers: a verdict can be repeated
_SHARED_TASKS = 1024  # threads that this user may start elsewhere before those of programs fail
_USERS = 1024  # users of their own for supervisors


def main(control_file: int, register_at_fork: Callable[..., None]) -> None:
    """Serve programs until there is nobody to serve.

    Args:
        control_file: File descriptor of the control socket.
        register_at_fork: The function of `os`, to be put back for programs after everything has been loaded.
    """
    control = socket.socket(fileno=control_file)
    message, (parent,), _, _ = socket.recv_fds(control, 1 << 20, 1)
    settings: dict[str, Any] = json.loads(message)
    os.environ.clear()
    os.chdir("/")
    sys.argv[:] = ["program"]
    sys.path[:] = [path for path in sys.path if path != settings["own_path"]]
    _preload(settings["packages"], settings["package_paths"], settings["modules"])
    os.register_at_fork = register_at_fork
    become, tasks = _identity(settings)
    if settings["is_confined"]:
        confine.no_new_privileges()
    if settings["needs_landlock"] or (settings["is_confined"] and confine.landlock_version()):
        confine.landlock(settings["readable"], settings["listable"], settings["devices"])
    code = bytes.fromhex(settings["filter"])
    wall = process.Wall(confine.Filter(code) if code else None, tasks)
    for name in [name for name in sys.modules if name.partition(".")[0] == __package__]:
        del sys.modules[name]
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for supervisors
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # programs end when they print too much
    control.send(b"ready")
    os.dup2(0, 2)
    gc.collect()
    gc.freeze()
    zygote = os.getpid()
    for number in count():
        channel = _next_channel(control, parent)
        if os.fork() == 0:
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            become(number)
            confine.die_with(zygote)
            supervisor.supervise(channel, parent, wall)
        channel.close()


def _preload(packages: list[str], paths: list[str], modules: dict[str, str]) -> None:
    for name in _STANDARD_MODULES.split():
        with contextlib.suppress(ImportError):  # some builds of Python leave some out
            importlib.import_module(name)
    sys.path.extend(paths)
    for name in packages:
        importlib.import_module(name)
    del sys.path[len(sys.path) - len(paths) :]
    for name, text in modules.items():
        module: Any = types.ModuleType(name)
        module.__package__ = name.rpartition(".")[0]
        sys.modules[name] = module
        exec(compile(text, f"<{name}>", "exec", dont_inherit=True), module.__dict__)
    for name in ("exit", "quit"):  # of the module `site`, which is not loaded
        setattr(builtins, name, _sitebuiltins.Quitter(name, "the end of the input"))
    if hasattr(sys, "set_int_max_str_digits"):  # not in every release of Python 3.10
        sys.set_int_max_str_digits(_MAX_DIGITS)
    substitutes.install()
    importlib.invalidate_caches()
    random.seed(_SEED)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(_SEED)


def _identity(settings: dict[str, Any]) -> tuple[Any, int]:
    """Return how the supervisor `number` gets a user of its own, and how many tasks count beside its own."""
    if not settings["is_confined"]:
        return lambda number: None, _SHARED_TASKS
    first = (1 << 30) + random.SystemRandom().randrange(1 << 20) * _USERS

    def become_user(number: int) -> None:
        confine.become_user(first + number % _USERS, keep_reading=settings["keep_reading"])

    if os.geteuid() == 0 and confine.succeeds(lambda: become_user(0)):
        return become_user, 1
    if confine.succeeds(confine.new_user_namespace):
        return lambda number: confine.new_user_namespace(), 1
    return lambda number: None, confine.tasks_in_use() + _SHARED_TASKS


def _next_channel(control: socket.socket, parent: int) -> socket.socket:
    """Wait for the next channel; end with the process that sends them."""
    while True:
        ready, _, _ = select.select([control.fileno(), parent], [], [])
        if parent in ready:
            os._exit(0)
        message, files, _, _ = socket.recv_fds(control, 16, 1)
        if not message:
            os._exit(0)
        if files:
            return socket.socket(fileno=files[0])
