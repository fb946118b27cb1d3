"""The system calls that a program may make: an allow-list, compiled to a seccomp filter by libseccomp.

What is not listed fails with EPERM, and no argument rule follows a pointer, so nothing can be changed behind its
back. Not listed are, among others, everything that starts a process, sends a signal, opens a socket, creates or
changes a file, changes a limit, sets up shared memory, or reaches the kernel by another way (io_uring, bpf,
perf, keyrings, mounts, namespaces). Foreign architectures end the program.
"""

from __future__ import annotations

import contextlib
import errno
import tempfile
from functools import lru_cache
from typing import Any

_ALLOWED = """
    read readv pread64 preadv write writev pwrite64 pwritev lseek _llseek ftruncate fsync fdatasync fadvise64
    open openat access faccessat faccessat2 readlink readlinkat getdents getdents64 getcwd chdir fchdir
    close close_range dup dup2 dup3 pipe pipe2 eventfd2 umask
    stat lstat fstat newfstatat fstatat64 statx
    poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait
    brk mmap munmap mremap mprotect madvise
    futex set_robust_list get_robust_list rseq set_tid_address membarrier
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigsuspend rt_sigpending rt_sigtimedwait sigaltstack
    setitimer getitimer alarm pause restart_syscall
    clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time getrandom
    getpid getppid gettid getuid geteuid getgid getegid getgroups getresuid getresgid getpgrp getpgid getsid
    getrlimit ugetrlimit getrusage times uname sysinfo sched_yield getcpu
    wait4 waitid exit exit_group
"""

# fcntl commands: no F_SETOWN, which has signals sent, and nothing that resizes pipes or leases files.
_FCNTL = {"F_DUPFD": 0, "F_GETFD": 1, "F_SETFD": 2, "F_GETFL": 3, "F_SETFL": 4, "F_DUPFD_CLOEXEC": 1030}
# ioctl requests: asking whether this is a terminal, how much is there to read, and close-on-exec.
_IOCTL = {"TCGETS": 0x5401, "TIOCGWINSZ": 0x5413, "FIONREAD": 0x541B, "FIONBIO": 0x5421, "FIOCLEX": 0x5451}
_PRCTL = {"PR_SET_NAME": 15, "PR_GET_NAME": 16}

_CLONE_THREAD, _CLONE_VM, _CLONE_SIGHAND = 0x00010000, 0x00000100, 0x00000800
_CLONE_NEW = 0x00000080 | 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
_RLIMIT_STACK = 3
_O_ASYNC = 0o20000
_INT = 0xFFFFFFFF  # the kernel reads an int from the lower half of its register


@lru_cache(maxsize=1)
def filter_code() -> bytes:
    """Return the filter for this machine as a BPF program, to be handed to `seccomp(2)`.

    Raises:
        ImportError: The package pyseccomp is not installed.
        RuntimeError: The library libseccomp is not installed.
    """
    import pyseccomp as seccomp

    rules = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
    with contextlib.suppress(OSError):  # libseccomp before 2.5
        rules.set_attr(seccomp.Attr.CTL_OPTIMIZE, 2)  # a tree in place of a list: installed in half the time

    def allow(name: str, *arguments: Any) -> None:
        number = seccomp.resolve_syscall(seccomp.Arch.NATIVE, name)
        if number >= 0:  # every architecture lacks some
            rules.add_rule(seccomp.ALLOW, number, *arguments)

    def equal(position: int, value: int, mask: int = _INT) -> Any:
        return seccomp.Arg(position, seccomp.MASKED_EQ, mask, value)

    def null(position: int) -> Any:
        return seccomp.Arg(position, seccomp.EQ, 0)

    for name in _ALLOWED.split():
        allow(name)
    for name in ("fcntl", "fcntl64"):
        for command in _FCNTL.values():
            if command == _FCNTL["F_SETFL"]:
                allow(name, equal(1, command), equal(2, 0, _O_ASYNC))
            else:
                allow(name, equal(1, command))
    for request in _IOCTL.values():
        allow("ioctl", equal(1, request))
    for option in _PRCTL.values():
        allow("prctl", equal(0, option))
    allow("sched_getaffinity", equal(0, 0))  # of this process only
    # Limits may be read; that of the stack alone may be changed, which programs do for deep recursion.
    allow("prlimit64", equal(0, 0), null(2))
    allow("prlimit64", equal(0, 0), equal(1, _RLIMIT_STACK))
    threads = _CLONE_THREAD | _CLONE_VM | _CLONE_SIGHAND
    allow("clone", equal(0, threads, threads | _CLONE_NEW))
    # A filter cannot see the arguments of clone3; without it the C library falls back to clone.
    rules.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()
