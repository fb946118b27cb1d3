"""System calls that Python's library has in most builds, but not in those for old C libraries, such as conda's."""

from __future__ import annotations

import ctypes
import os

_MEMFD_CREATE = {"x86_64": 319, "aarch64": 279, "ppc64le": 360, "riscv64": 279, "s390x": 350}
_PIDFD_OPEN = 434  # the same on every architecture
_MFD_CLOEXEC, _MFD_ALLOW_SEALING = 1, 2
_F_ADD_SEALS, _SEAL_SHRINK_GROW_WRITE = 1033, 2 | 4 | 8


def memory_file(name: str) -> int:
    """Return the descriptor of a new file in memory."""
    flags = _MFD_CLOEXEC | _MFD_ALLOW_SEALING
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name, flags)
    return _system_call(_MEMFD_CREATE[os.uname().machine], name.encode(), flags)


def seal(file: int) -> None:
    """Make a file in memory unchangeable for everybody."""
    import fcntl  # not on every system that this module is imported on

    fcntl.fcntl(file, _F_ADD_SEALS, _SEAL_SHRINK_GROW_WRITE)


def watch_process(pid: int) -> int:
    """Return a descriptor that becomes readable when the process ends."""
    return os.pidfd_open(pid) if hasattr(os, "pidfd_open") else _system_call(_PIDFD_OPEN, pid, 0)


def _system_call(*arguments: int | bytes) -> int:
    result: int = ctypes.CDLL(None, use_errno=True).syscall(*arguments)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
