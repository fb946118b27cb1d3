"""What the kernel is asked to hold against a program: Landlock, a seccomp filter, resource limits, a user of its own.

Everything here is a thin layer over system calls that Python's library does not offer. Each function changes the
calling process, and every process it forks, for good.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import stat
from collections.abc import Callable
from typing import Any

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 8, 22, 38
_SECCOMP_MODE_FILTER = 2
_CLONE_NEWUSER = 0x10000000
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_DAC_READ_SEARCH = 2

_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_LANDLOCK_VERSION_FLAG = 1
_LANDLOCK_RULE_PATH_BENEATH = 1
_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_FILESYSTEM_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # by Landlock's version; 16 since version 5
_NETWORK_RIGHTS = 0b11  # TCP bind and connect, since version 4
_SCOPES = 0b11  # abstract UNIX sockets and signals, since version 6

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
ctypes.CDLL("libgcc_s.so.1")  # the C library opens it when a thread ends, which is too late


class _FilterProgram(ctypes.Structure):
    _fields_ = (("instructions", ctypes.c_ushort), ("code", ctypes.c_char_p))


KernelLimits = list[tuple[int, tuple[int, int]]]
"""Kinds of resources with their soft and hard limits, for `resource.setrlimit`."""


def _call(function: Any, *arguments: Any) -> int:
    result: int = function(*arguments)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{function.__name__}: {os.strerror(number)}")
    return result


def _prctl(option: int, argument: int = 0) -> None:
    _call(_libc.prctl, option, argument, 0, 0, 0)


def _prepared(option: int, *arguments: int) -> Callable[[], None]:
    """Return a call of prctl that is quick in a new process, where each page is copied at first use.

    The process ends if the call fails.
    """
    prctl = ctypes.CDLL(None).prctl  # without checks of arguments and a place for errors, which touch more pages
    values = ctypes.c_int(option), *map(ctypes.c_ulong, (*arguments, 0, 0, 0, 0)[:4])

    def call() -> None:
        if prctl(*values) != 0:
            os._exit(1)

    return call


_end_with_parent = _prepared(_PR_SET_PDEATHSIG, signal.SIGKILL)


def no_new_privileges() -> None:
    """Never gain rights by running a program, and be no target for debuggers."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)


def die_with(parent: int) -> None:
    """Be killed when the parent, process `parent`, ends. To be called after the last change of user."""
    _end_with_parent()
    if os.getppid() != parent:
        os._exit(1)


def landlock_version() -> int:
    """Return the kernel's version of Landlock; 0 without it."""
    return max(0, _libc.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_VERSION_FLAG))


def landlock(readable: list[str], listable: list[str], devices: list[str]) -> None:
    """Take away the file system, TCP, and abstract sockets and signals that lead out.

    Args:
        readable: Files and directories to read.
        listable: Directories whose entries may be listed.
        devices: Files to read and write.

    Raises:
        OSError: The kernel has no Landlock, or it is switched off.
    """
    version = landlock_version()
    if not version:
        raise OSError(
            errno.ENOSYS,
            "Landlock is not there: it needs Linux 5.13 or later with 'landlock' among its security modules (boot "
            "option lsm=), and a container that lets its system calls through",
        )
    rights = (1 << _FILESYSTEM_RIGHTS.get(version, 16)) - 1
    handled = [rights, _NETWORK_RIGHTS, _SCOPES][: 1 if version < 4 else 2 if version < 6 else 3]
    attributes = (ctypes.c_uint64 * len(handled))(*handled)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    rules = _call(_libc.syscall, _LANDLOCK_CREATE_RULESET, ctypes.byref(attributes), size, 0)
    truncate = rights & (1 << 14)
    for paths, access in (
        (readable, _READ_FILE | _READ_DIR),
        (listable, _READ_DIR),
        (devices, _READ_FILE | _WRITE_FILE | truncate),
    ):
        for path in paths:
            _allow(rules, path, access)
    _call(_libc.syscall, _LANDLOCK_RESTRICT_SELF, rules, 0)
    os.close(rules)


def _allow(rules: int, path: str, access: int) -> None:
    try:
        entry = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(os.fstat(entry).st_mode):
        access &= ~_READ_DIR
    rule = access.to_bytes(8, "little") + entry.to_bytes(4, "little")
    _call(_libc.syscall, _LANDLOCK_ADD_RULE, rules, _LANDLOCK_RULE_PATH_BENEATH, ctypes.c_char_p(rule), 0)
    os.close(entry)


class Filter:
    """A seccomp filter, given as a BPF program."""

    def __init__(self, code: bytes) -> None:
        self._program = _FilterProgram(len(code) // 8, code)
        address = ctypes.addressof(self._program)
        self._install = _prepared(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, address)

    def install(self) -> None:
        """From here on system calls that it does not allow fail; the process ends if that cannot be had."""
        self._install()


def become_user(uid: int, *, keep_reading: bool) -> None:
    """Leave root for good: become a user that owns nothing and has no capability.

    Args:
        uid: Number of that user, and of its group; "nobody" takes its place where the container has no such number.
        keep_reading: Go on reading files whatever their mode (CAP_DAC_READ_SEARCH), for an interpreter in a
            directory of root's. What can be opened at all is Landlock's and the mount namespace's matter.
    """
    if keep_reading:
        _prctl(_PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    for number in (uid, 65534):
        try:
            os.setresgid(number, number, number)
            os.setresuid(number, number, number)
            break
        except OSError as error:
            if error.errno != errno.EINVAL or number == 65534:
                raise
    _set_capabilities(1 << _CAP_DAC_READ_SEARCH if keep_reading else 0)


def new_user_namespace() -> None:
    """Start a user namespace, in which the threads of this process are counted alone, without any capability in it.

    Raises:
        OSError: The kernel or the container denies it.
    """
    _call(_libc.unshare, _CLONE_NEWUSER)
    _set_capabilities(0)


def _set_capabilities(mask: int) -> None:
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)(mask, mask, 0, 0, 0, 0)  # effective, permitted, inheritable: low words, then high
    _call(_libc.capset, ctypes.byref(header), ctypes.byref(data))


def tasks_in_use() -> int:
    """Count the processes and threads that the kernel counts against this user, by trying limits on forking."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    low, high = 0, 1 << 22 if hard == resource.RLIM_INFINITY else hard
    while low < high:
        middle = (low + high) // 2
        resource.setrlimit(resource.RLIMIT_NPROC, (middle, hard))
        if succeeds(lambda: None):
            high = middle
        else:
            low = middle + 1
    resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
    return low


def succeeds(change: Callable[[], None]) -> bool:
    """Try, in a child process, whether `change` raises no OSError; False also if there can be no child."""
    try:
        child = os.fork()
    except BlockingIOError:
        return False
    if child == 0:
        try:
            change()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def kernel_limits(limits: dict[str, Any], tasks: int, cpu_seconds: int) -> KernelLimits:
    """Return the limits that the kernel keeps by itself, for a child of this process; see `Limits` for their meaning.

    Args:
        limits: The fields of `Limits`.
        tasks: Processes and threads of this user at a time, all told.
        cpu_seconds: Processor time of the process in seconds, should the supervisor fail to stop it.
    """
    found = []
    memory = limits["memory_bytes"]
    stack = 100 << 20  # for deep recursion; the kernel keeps 128 MiB free for the main thread's
    for name, soft, hard in (
        ("CPU", cpu_seconds, cpu_seconds + 1),
        ("AS", memory, memory),
        ("DATA", memory, memory),
        ("STACK", stack, resource.RLIM_INFINITY),
        ("FSIZE", limits["output_bytes"] + 1, limits["output_bytes"] + 1),
        ("NOFILE", limits["open_files"], limits["open_files"]),
        ("NPROC", tasks, tasks),
        ("CORE", 0, 0),
        ("MEMLOCK", 0, 0),
        ("MSGQUEUE", 0, 0),
        ("SIGPENDING", 64, 64),
    ):
        kind = getattr(resource, f"RLIMIT_{name}", None)
        if kind is not None:
            ceiling = resource.getrlimit(kind)[1]
            if ceiling != resource.RLIM_INFINITY:
                soft, hard = min(soft, ceiling), ceiling if hard == resource.RLIM_INFINITY else min(hard, ceiling)
            found.append((kind, (soft, hard)))
    return found
