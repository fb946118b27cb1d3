"""Hostile programs at every level: what they may not see, reach, leave behind or disturb."""

import json
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from envs.sandbox import Limits, Program, Status

LIMITS = Limits(cpu_seconds=2, wall_seconds=10, memory_bytes=1 << 29)

# Every attempt is an expression; True, or an error of the system's, means that it was stopped.
HELPERS = """
import ctypes, errno, fcntl, mmap, os, platform, resource, signal, socket, subprocess, sys, tempfile, threading, time
libc = ctypes.CDLL(None, use_errno=True)
X86 = platform.machine() == "x86_64"

def stopped(attempt, *arguments):
    try:
        result = attempt(*arguments)
    except (OSError, ValueError, ImportError):
        return True
    return result if result is False else f"it returned {result!r}"

def call(number, *arguments):
    '''A system call by its number on x86-64; on other machines it is tried by other means only.'''
    if not X86:
        return True
    result = libc.syscall(number, *arguments)
    return result == -1 and ctypes.get_errno() in (errno.EPERM, errno.ENOSYS, errno.EACCES)

def text(path):
    with open(path, "rb") as file:
        return file.read(100)

def spawned():
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os._exit(0)
    return pid
"""


def hold(sandbox, expressions, source=""):
    results = sandbox.run(Program(HELPERS + source, "eval"), list(expressions), LIMITS)
    return {e: (r.value, r.cause) for e, r in zip(expressions, results, strict=True) if r.value is not True}


def test_files_of_others_cannot_be_read(sandbox, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    paths = [
        secret,
        __file__,
        "/etc/passwd",
        "/etc/hostname",
        "/proc/self/environ",
        "/proc/self/mem",
        "/proc/1/cmdline",
    ]
    paths += [f"/proc/{os.getpid()}/{name}" for name in ("environ", "mem", "maps", "fd/0")]
    attempts = [f"stopped(text, {str(path)!r})" for path in paths]
    attempts += [f"stopped(os.listdir, {str(path)!r})" for path in (tmp_path, "/tmp", "/home", Path.cwd())]
    attempts += [f"stopped(text, f'/proc/{{os.getppid()}}/{name}')" for name in ("environ", "mem", "maps")]
    attempts += ["os.environ == {}", f"stopped(os.symlink, {str(secret)!r}, '/tmp/link')"]
    assert hold(sandbox, attempts) == {}


def test_nothing_can_be_written(sandbox, tmp_path):
    tmp_path.chmod(0o777)
    target = tmp_path / "target"
    target.write_text("unchanged")
    target.chmod(0o666)
    before = sorted(os.listdir("/dev/shm"))
    writes = "open({0!r}, 'w')", "os.mkdir({0!r})", "os.symlink('/', {0!r})", "os.mkfifo({0!r})", "os.mknod({0!r})"
    attempts = []
    for directory in ("/tmp", "/dev/shm", "/var/tmp", "/run", "/", "/dev", str(tmp_path), str(Path.home()), "."):
        for write in writes:
            function, _, arguments = write.format(f"{directory}/escaped").partition("(")
            attempts.append(f"stopped({function}, {arguments}")
    for change in ("open, {0!r}, 'a'", "os.truncate, {0!r}, 0", "os.unlink, {0!r}", "os.rename, {0!r}, {0!r} + 'x'"):
        attempts.append(f"stopped({change.format(str(target))})")
    for change in ("os.chmod, {0!r}, 0", "os.chown, {0!r}, 0, 0", "os.utime, {0!r}", "os.link, {0!r}, {0!r} + 'x'"):
        attempts.append(f"stopped({change.format(str(target))})")
    attempts += [
        "stopped(os.setxattr, '/', 'user.a', b'')",
        "stopped(tempfile.TemporaryFile)",
        "stopped(os.chroot, '/')",
    ]
    assert hold(sandbox, attempts) == {}
    assert target.read_text() == "unchanged" and list(tmp_path.iterdir()) == [target]
    assert sorted(os.listdir("/dev/shm")) == before
    assert not Path("/tmp/escaped").exists()


def test_no_process_is_started(sandbox):
    attempts = [
        "stopped(spawned)",
        "stopped(libc.fork) in (True, 'it returned -1')",
        "stopped(libc.vfork) in (True, 'it returned -1')",
        "stopped(os.posix_spawn, '/bin/true', ['true'], {})",
        "stopped(os.execv, '/bin/true', ['true'])",
        "stopped(os.execv, sys.executable, ['python'])",
        "stopped(subprocess.run, ['true'])",
        "stopped(os.forkpty)",
        "call(56, 17, 0, 0, 0, 0)",  # clone, as fork does
        "call(56, 0x10000000 | 17, 0, 0, 0, 0)",  # clone into a user namespace
        "call(435, 0, 0)",  # clone3
        "call(272, 0x10000000)",  # unshare
        "call(308, 0, 0)",  # setns
        "call(322, -100, b'/bin/true', 0, 0, 0)",  # execveat
    ]
    assert hold(sandbox, attempts) == {}


def test_no_signal_goes_out(sandbox):
    caught = []
    before = signal.signal(signal.SIGUSR1, lambda *_: caught.append(1))
    try:
        targets = [f"{os.getpid()}", "os.getppid()", "1", "-1", "0", "os.getpid()"]
        attempts = [f"stopped(os.kill, {pid}, signal.SIGUSR1)" for pid in targets]
        attempts += [f"call({number}, os.getppid(), 10, 0, 0)" for number in (129, 200, 234, 297)]
        attempts += [
            "stopped(os.killpg, 0, 0)",
            "stopped(os.pidfd_open, os.getppid())",
            "stopped(fcntl.fcntl, 0, fcntl.F_SETOWN, os.getppid())",
            "stopped(fcntl.fcntl, 0, fcntl.F_SETFL, os.O_ASYNC)",
            "stopped(fcntl.ioctl, 0, 0x8901, os.getppid().to_bytes(4, 'little'))",
            "call(101, 16, os.getppid(), 0, 0)",  # ptrace
            "call(310, os.getppid(), 0, 0, 0, 0, 0)",  # process_vm_readv
            "call(438, 0, 0, 0)",  # pidfd_getfd
            "call(302, os.getppid(), 0, 0, 0)",  # prlimit64 of another
            "stopped(os.sched_setaffinity, os.getppid(), {0})",
            "stopped(os.setpriority, os.PRIO_PROCESS, os.getppid(), 19)",
            "call(157, 1, 0)",  # prctl: outlive the supervisor
        ]
        assert hold(sandbox, attempts) == {}
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert not caught


def test_no_way_to_others(sandbox):
    with socket.socket(socket.AF_UNIX) as abstract, socket.create_server(("127.0.0.1", 0)) as server:
        abstract.bind(f"\0dapo-trl-{os.getpid()}")
        abstract.listen()
        attempts = [f"stopped(socket.socket, socket.{f})" for f in ("AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK")]
        attempts += [
            f"stopped(socket.create_connection, ('127.0.0.1', {server.getsockname()[1]}))",
            "stopped(socket.socketpair)",
            "stopped(os.memfd_create, 'x')",
            "call(29, 0, 4096, 0o1666)",  # shmget
            "call(64, 0, 1, 0o1666)",  # semget
            "call(68, 0, 0o1666)",  # msgget
            "call(240, b'name', 0o102, 0o666, 0)",  # mq_open
            "call(250, 0, 0, 0)",  # keyctl
            "call(248, b'user', b'a', b'b', 1, 0)",  # add_key
            "call(425, 8, 0)",  # io_uring_setup
            "call(321, 0, 0, 0)",  # bpf
            "call(298, 0, 0, -1, -1, 0)",  # perf_event_open
            "call(323, 0)",  # userfaultfd
            "call(294, 0)",  # inotify_init1
            "call(300, 0, 0)",  # fanotify_init
            "call(165, b'none', b'/tmp', b'tmpfs', 0, 0)",  # mount
            "call(428, -100, b'/', 1)",  # open_tree
            "call(304, -1, 0, 0)",  # open_by_handle_at
            "call(155, b'/', b'/')",  # pivot_root
            "call(175, 0, 0, b'')",  # init_module
            "call(169, 0, 0, 0, 0)",  # reboot
            "call(170, b'name', 4)",  # sethostname
            "call(227, 0, 0)",  # clock_settime
            "call(135, 0x0040000)",  # personality
            "call(149, 0, 4096)",  # mlock
            "call(238, 0, 0, 0)",  # set_mempolicy
            "call(317, 1, 0, 0)",  # seccomp
            "call(444, 0, 0, 1)",  # landlock
        ]
        assert hold(sandbox, attempts) == {}


def test_no_open_files_but_its_own(sandbox):
    source = (
        "import os\nfor i in range(3, 70000):\n"
        "  try: os.write(i, b'\\0\\0\\0\\2v1'); print(i)\n  except OSError: pass\nprint(input())"
    )
    assert sandbox.run(Program(source), ["done"])[0].value == "done\n"


def test_limits_cannot_be_raised(sandbox):
    kinds = ("AS", "CPU", "DATA", "FSIZE", "NOFILE", "NPROC", "CORE", "MEMLOCK")
    infinite = "(resource.RLIM_INFINITY, resource.RLIM_INFINITY)"
    attempts = [f"stopped(resource.setrlimit, resource.RLIMIT_{kind}, {infinite})" for kind in kinds]
    attempts += ["stopped(os.setuid, 0)", "stopped(os.setgroups, [0])", "stopped(os.nice, -5)", "os.getuid() != 0"]
    assert hold(sandbox, attempts) == {}


def test_what_others_left_is_not_found(any_sandbox):
    """Programs in a row run in copies of the same process: nothing of the first may be in the memory of the next."""
    mark = "needle-" + os.urandom(8).hex()
    echo = Program("def f(x): return [x, x * 2]", "call", "f")
    assert any_sandbox.run(echo, [[mark], [mark * 5000]])[0].status is Status.OK
    assert any_sandbox.run(Program("print(input()); 1/0"), [mark])[0].status is Status.CRASH
    assert any_sandbox.run(Program("print(input())"), [mark])[0].status is Status.OK
    assert any_sandbox.run(Program(f"raise ValueError('{mark}')", "call", "f"), [[1]])[0].status is Status.CRASH
    # The mark comes in two halves, lest the search find itself.
    search = (
        "import ctypes, gc, os, re\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.sbrk.restype = ctypes.c_void_p\n"
        "def f(even, odd):\n"
        "  end = libc.sbrk(0)\n"
        "  arenas = {id(o) >> 18 << 18 for o in gc.get_objects()}\n"
        "  pages = {page for arena in arenas for page in range(arena, arena + (1 << 18), 4096)}\n"
        "  pages |= set(range(end - (1 << 24), end, 4096))\n"
        "  r, w = os.pipe()\n"
        "  readable, found = 0, []\n"
        "  for page in pages:\n"
        "    if libc.write(w, ctypes.c_void_p(page), ctypes.c_size_t(4096)) == 4096:\n"
        "      readable += 1\n"
        "      for match in re.finditer(b'needle-(.{16})', os.read(r, 4096)):\n"
        "        if match[1][::2] == even and match[1][1::2] == odd: found.append(page)\n"
        "  return readable, found\n"
    )
    (result,) = any_sandbox.run(Program(search, "call", "f"), [[mark[7::2].encode(), mark[8::2].encode()]])
    readable, found = result.value
    assert readable > 1000 and found == []


# Looks up the ticket that its reply must show, as only a program that knows the sandbox would.
FORGER = """
import os, sys
def reply(text, ticket=None):
    frame = sys._getframe()
    while ticket is None:
        ticket, frame = frame.f_locals.get("ticket"), frame.f_back
    return (len(text) + 8).to_bytes(4, "big") + ticket + text
"""


@pytest.mark.parametrize(
    "forgery",
    [
        "os.write(4, reply(b'v1'))",
        "os.write(4, reply(b'v1') * 100)",
        "os.write(4, reply(b'v1', bytes(8)))",
        "os.write(4, b'\\xff\\xff\\xff\\xff')",
        "os.write(4, b'\\0\\0\\0\\0')",
        "os.write(4, reply(b'l'))",
        "os.write(4, reply(b'zz'))",
        "os.write(4, reply(b'v1')[:-1])",
        "os.write(4, b'garbage' * 100000)",
        "os.write(4, reply(b'v1')); os._exit(0)",
        "os.close(4)",
        "[os.close(i) for i in range(6)]",
        "os.dup2(0, 4)",
        "os.read(5, 100)",
    ],
)
def test_forged_replies_speak_for_nobody_else(any_sandbox, forgery):
    """A program may well make up the value that it is asked for; no other result changes, and their number does not."""
    source = f"{FORGER}def f(x):\n  if x == 2:\n    {forgery}\n  return x * 10"
    results = any_sandbox.run(Program(source, "call", "f"), [[1], [2], [3], [4]], Limits(wall_seconds=2))
    assert len(results) == 4
    assert results[0].value == 10
    assert all(result.value in (None, x * 10) for x, result in zip((3, 4), results[2:], strict=True))
    assert any_sandbox.run(Program("def f(x): return x", "call", "f"), [[7]])[0].value == 7


def test_replies_before_the_question_are_refused(any_sandbox):
    source = FORGER + "def f(x):\n  if x == 1: os.write(4, reply(b'v1') * 3)\n  return x * 10"
    results = any_sandbox.run(Program(source, "call", "f"), [[1], [2], [3]], LIMITS)
    assert (results[0].value, results[1].status, results[2].value) == (1, Status.CRASH, 30)


@pytest.mark.parametrize(
    "trick",
    [
        "import json; json.dumps = lambda *a, **k: '[1'",
        "import json; json.JSONEncoder = json.encoder = None",
        "import builtins; builtins.type = lambda x: int",
        "import builtins; builtins.isinstance = lambda *a: True",
        "import builtins\nfor n in list(vars(builtins)):\n  if n[0].islower(): delattr(builtins, n)",
        "import os; os.write = lambda fd, data: len(data)",
        "import os; os._exit = lambda status: None",
        "import sys; sys.settrace(lambda *a: 1/0)",
        "import sys; sys.setprofile(lambda *a: 1/0)",
        "import sys; sys.modules.clear()",
        "import sys; sys.setrecursionlimit(50)",
        "import sys; sys.stdout = sys.stderr = sys.stdin = None",
        "import gc\nfor o in gc.get_objects():\n  if type(o) is dict: o.clear()",
        "import signal\nfor s in range(1, 65):\n  try: signal.signal(s, signal.SIG_IGN)\n  except Exception: pass",
        "import signal; signal.setitimer(signal.ITIMER_REAL, .001, .001)",
        "import atexit; atexit.register(lambda: sum(iter(int, 1)))",
        "import threading; threading.Thread(target=lambda: sum(iter(int, 1))).start()",
        "class D:\n  def __del__(self):\n    while True: pass\nd = D()",
        "import sys\nf = sys._getframe()\nwhile f:\n  f.f_locals.clear(); f = f.f_back",
        "import faulthandler; faulthandler.dump_traceback_later(.01, exit=True)",
        "raise SystemExit(0)",
        "import os; os.execv('/bin/sh', ['sh'])",
    ],
)
def test_sabotage_harms_only_itself(any_sandbox, trick):
    limits = Limits(cpu_seconds=0.4, wall_seconds=3)
    source = trick + "\ndef f(x): return x"
    for program, inputs in ((Program(source, "call", "f"), [[1], [2]]), (Program(source), ["", ""])):
        results = any_sandbox.run(program, inputs, limits)
        assert len(results) == 2 and all(isinstance(r.status, Status) for r in results)
        assert Status.INFRA_FAILURE not in {r.status for r in results}
        for x, result in enumerate(results, 1):
            assert result.value in (None, "", x)
    assert any_sandbox.run(Program("def f(x): return x", "call", "f"), [[7]])[0].value == 7


BOMBS = {
    "processes": "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass",
    "threads": "import _thread, time, threading\nthreading.stack_size(1 << 15)\nwhile True:\n"
    "  try: _thread.start_new_thread(time.sleep, (100,))\n  except RuntimeError: pass",
    "memory": "x = []\nwhile True:\n  try: x.append(bytearray(1 << 22))\n  except MemoryError: pass",
    "output": "import os\nwhile True:\n  try: os.write(1, b'x' * 65536)\n  except OSError: pass",
    "files": "i = 0\nwhile True:\n  i += 1\n  try: open(f'/tmp/f{i}', 'w').write('x' * 4096)\n  except OSError: pass",
    "signals": "import os\nwhile True:\n  for pid in (-1, 0, os.getppid()):\n"
    "    try: os.kill(pid, 9)\n    except OSError: pass",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_neighbours_are_not_disturbed(sandbox, bomb):
    limits = Limits(cpu_seconds=0.4, wall_seconds=5, memory_bytes=1 << 28)
    honest = Program(
        "import threading\nn = [0]\ndef f(): n[0] += 1\n"
        "for _ in range(4):\n  t = threading.Thread(target=f); t.start(); t.join()\nprint(n[0], input())"
    )
    outcome = []
    attacker = threading.Thread(target=lambda: outcome.extend(sandbox.run(Program(BOMBS[bomb]), [""], limits)))
    attacker.start()
    while attacker.is_alive():
        for result in sandbox.run(honest, ["a", "b"]):
            assert result.status is Status.OK and result.value in ("4 a\n", "4 b\n")
    assert outcome[0].status in (Status.TIMEOUT, Status.OUTPUT_LIMIT, Status.MEMORY)


def test_shared_attacks(sandbox):
    path = Path(__file__).resolve().parents[4] / "shared" / "data" / "attacks.json"
    if not path.is_file():
        pytest.skip("the shared attacks are not there")
    wrong = []
    children = subprocess.run(["pgrep", "-P", str(os.getpid())], capture_output=True, text=True).stdout
    for attack in json.loads(path.read_text()):
        program = Program(attack["program"], attack["kind"], attack.get("entry_point") or None)
        limits = Limits(cpu_seconds=0.3, wall_seconds=2)
        results = sandbox.run(program, attack["inputs"], limits, stop_at=set(Status) - {Status.OK})
        right = all(r.status is Status.OK and r.value == o for r, o in zip(results, attack["outputs"], strict=True))
        if attack["correct"] not in (None, right):
            wrong.append((attack["name"], results))
    assert wrong == []
    assert subprocess.run(["pgrep", "-P", str(os.getpid())], capture_output=True, text=True).stdout == children
    assert not Path("/tmp/sandbox_escape.txt").exists()


def test_a_silent_sleeper_is_ended(any_sandbox):
    start = time.monotonic()
    (result,) = any_sandbox.run(Program("import time\nwhile True: time.sleep(1)"), [""], Limits(wall_seconds=0.5))
    assert result.status is Status.TIMEOUT and time.monotonic() - start < 30
