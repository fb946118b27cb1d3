"""The worker that math-verify runs in: any thread, any process, limits, and what happens when it fails."""

import faulthandler
import locale
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gymnasium
import pytest

import envs
from envs.verifiers.math import sympy_pool as symbolic
from envs.verifiers.math.judge import judge
from envs.verifiers.math.sympy_pool import SymbolicFailure, SymbolicTimeout, TimeBudget, symbolically_equal

ROOT = Path(envs.__file__).resolve().parents[1]
ALLOWANCE = 2  # for slower processors than the one that the bound was measured on
ENDLESS = "9^{9^{9^{9}}}", "x+1"


def equal(target, gold, seconds=10.0):
    return symbolically_equal(target, gold, TimeBudget(seconds))


@pytest.fixture
def pool(monkeypatch):
    """A pool of this test's own."""
    pool = symbolic._Pool()
    monkeypatch.setattr(symbolic, "_pool", pool)
    yield pool
    pool.stop()


@pytest.fixture
def worker(pool, monkeypatch, tmp_path):
    """Replace the worker by a script that starts with the given lines."""

    def replace(*lines):
        script = tmp_path / "worker.py"
        script.write_text("\n".join(lines))
        monkeypatch.setattr(symbolic, "_WORKER", script)

    return replace


def processes(pool):
    """Process ids of the server, the supervisors and the workers."""
    group = pool._server.process.pid
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z" and int(fields[2]) == group:
            found.append(int(stat.parent.name))
    return found


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


# --- comparing


@pytest.mark.parametrize(
    ("target", "gold", "expected"),
    [
        (r"\frac{2}{\sqrt{2}}", r"\sqrt{2}", True),
        (r"\sqrt{2}+10^{-100}", r"\sqrt{2}", False),
        (r"\sqrt{3} * 10^{-100}", r"\sqrt{2} * 10^{-100}", False),
        ("x^{2}+10^{-60}", "x^{2}", False),
        ("x^{2}-1", "(x-1) * (x+1)", True),
        ("A", "a", False),
        (r"\frac{a}{b}c", r"\frac{a}{b}", False),
        ("i^{2}", "-1", True),
        ("2y=4x+6", "y=2x+3", True),
        ("y^{2}=x^{2}", "y=x", False),
        (r"\frac{1}{0}", r"\frac{1}{0}", False),
        (r"\log(0)", r"\log(0)", False),
        ("x+", "x+", False),
        (r"\nonsense", r"\nonsense", False),
    ],
)
def test_comparisons(target, gold, expected):
    assert equal(target, gold) is expected


def test_a_budget_is_charged_and_then_spent():
    budget = TimeBudget(0.2)
    assert symbolically_equal("x", "x", budget)
    assert 0 < budget.seconds <= 0.2 - symbolic._LEAST_CHARGE
    with pytest.raises(SymbolicTimeout, match=r"more than 0\.\d s of CPU time"):
        symbolically_equal(*ENDLESS, budget)
    assert budget.seconds == 0
    with pytest.raises(SymbolicTimeout, match="no time is left"):
        symbolically_equal("x", "x", budget)


def test_starting_math_verify_and_the_longest_comparison_take_less_than_two_seconds_of_cpu_time(pool):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert judge("x+1", "1+x").verdict == "correct"
    pool.stop()  # collects the server, but not the workers
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    assert start > 0 and start + sys.modules[judge.__module__].TIME_LIMIT < 2 * ALLOWANCE


# --- any thread, any process


def test_threads_get_their_own_answers():
    def work(number):
        return judge(rf"{number}\sqrt{{8}}", r"6\sqrt{2}").verdict.value

    with ThreadPoolExecutor(32) as threads:
        found = list(threads.map(work, range(1, 200)))
    assert found == ["correct" if number == 3 else "wrong" for number in range(1, 200)]


def _judge_into(queue):
    queue.put(judge(r"\sqrt{8}", r"2\sqrt{2}").verdict.value)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_daemonic_processes(method):
    assert equal(r"\sqrt{8}", r"2\sqrt{2}")  # a worker that a fork must not share
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=_judge_into, args=(queue,), daemon=True)
    process.start()
    assert queue.get(timeout=60) == "correct"
    process.join()
    assert equal(r"\sqrt{18}", r"3\sqrt{2}")


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_fork_while_a_thread_is_asking():
    """The child starts afresh, and the parent's question is answered."""
    assert equal("x", "x")
    verdicts = []
    asking = threading.Thread(target=lambda: verdicts.append(judge(*ENDLESS).verdict))
    asking.start()
    wait_until(lambda: len(symbolic._pool._idle) < len(symbolic._pool._workers))
    child = os.fork()
    if child == 0:
        faulthandler.disable()
        os._exit(0 if equal(r"\sqrt{8}", r"2\sqrt{2}") and len(symbolic._pool._workers) == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    asking.join()
    assert verdicts == ["timeout"] and equal(r"\sqrt{8}", r"2\sqrt{2}")


def test_asynchronous_vector_environments():
    rows = [{"prompt": "?", "answer": r"2\sqrt{2}"}]
    env = gymnasium.make_vec("math/Problem-v0", num_envs=2, vectorization_mode="async", rows=rows)
    try:
        env.reset()
        assert list(env.step([r"Answer: \sqrt{8}", r"Answer: \sqrt{9}"])[1]) == [1.0, 0.0]
    finally:
        env.close()


def run(program, **kwargs):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, env=environment, **kwargs
    )


def test_a_script_without_a_main_guard_runs_once(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from envs.verifiers.math import judge\nprint('start')\nprint(judge(r'\\sqrt{8}', r'2\\sqrt{2}').verdict)\n"
    )
    found = run(f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')")
    assert found.stdout.split() == ["start", "correct"] and found.stderr == ""


# --- nothing of this process is changed


def test_global_state_is_left_alone():
    def state():
        handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
        limits = sys.getrecursionlimit(), sys.get_int_max_str_digits(), locale.setlocale(locale.LC_ALL)
        masks = signal.pthread_sigmask(signal.SIG_BLOCK, []), os.umask(os.umask(0o22)), os.getcwd(), sys.path[:]
        return handlers, limits, masks, dict(os.environ)

    handler = signal.signal(signal.SIGPROF, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 1000)
    alarm = signal.signal(signal.SIGALRM, lambda *_: None)
    try:
        before = state()
        assert judge(r"\sqrt{8}", r"2\sqrt{2}").verdict == "correct"
        with pytest.raises(SymbolicTimeout):
            equal(*ENDLESS, 0.1)
        assert state() == before
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 1000
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarm)
        signal.signal(signal.SIGPROF, handler)


def test_signals_that_are_ignored_here_still_end_a_worker():
    found = run(
        "import signal\n"
        "signal.signal(signal.SIGPROF, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPROF])\n"
        "from envs.verifiers.math import judge\n"
        f"print(judge{ENDLESS}.verdict)"
    )
    assert (found.stdout, found.stderr) == ("timeout\n", "")


def test_descriptors_and_processes_do_not_pile_up(pool):
    def ask():
        assert equal(r"\sqrt{8}", r"2\sqrt{2}")
        with pytest.raises(SymbolicTimeout):
            equal(*ENDLESS, 0.05)

    ask()
    wait_until(lambda: len(processes(pool)) == 3)  # server, supervisor, worker
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        ask()
    assert len(os.listdir("/proc/self/fd")) == descriptors
    wait_until(lambda: len(processes(pool)) == 3)
    group = processes(pool)
    pool.stop()
    wait_until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in group))


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(0)", "sys.exit()"])
@pytest.mark.parametrize("busy", [False, True])
def test_workers_end_with_their_parent(end, busy):
    found = run(
        "import os, signal, sys, threading, time; from envs.verifiers.math import sympy_pool as symbolic\n"
        "symbolic.symbolically_equal('x', 'x', symbolic.TimeBudget(1))\n"
        "print(symbolic._pool._server.process.pid, flush=True)\n"
        f"ask = lambda: symbolic.symbolically_equal(*{ENDLESS}, symbolic.TimeBudget(0.5))\n"
        + ("threading.Thread(target=ask, daemon=True).start(); time.sleep(0.1)\n" if busy else "")
        + end
    )
    group = int(found.stdout)

    def is_gone():
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        return False

    wait_until(is_gone)


# --- limits


def test_time_is_cpu_time_and_a_worker_that_has_to_wait_is_waited_for(pool):
    """On a machine that is busy with something else a right answer stays right."""
    assert equal("x", "x")
    group = pool._server.process.pid
    os.killpg(group, signal.SIGSTOP)
    threading.Timer(0.5, os.killpg, (group, signal.SIGCONT)).start()
    budget = TimeBudget(0.3)
    start = time.monotonic()
    assert symbolically_equal(r"\sqrt{8}", r"2\sqrt{2}", budget)
    assert time.monotonic() - start > 0.4 and budget.seconds > 0


def test_a_worker_that_stalls_is_given_up_as_our_failure(pool, monkeypatch):
    assert equal("x", "x")
    group = pool._server.process.pid
    monkeypatch.setattr(symbolic, "STALL_LIMIT", 0.2)
    os.killpg(group, signal.SIGSTOP)
    judgement = judge(r"\sqrt{8}", r"2\sqrt{2}")
    os.killpg(group, signal.SIGCONT)
    assert judgement.verdict == "infra_failure"
    assert "did not answer within 0.2 s: the machine is overloaded" in judgement.cause
    monkeypatch.undo()
    assert equal(r"\sqrt{18}", r"3\sqrt{2}")


def test_memory_is_limited(pool):
    with pytest.raises(SymbolicTimeout):
        equal(r"\lfloor 10^{10^{8}} \rfloor", "x+1", 0.3)
    assert equal(r"\sqrt{8}", r"2\sqrt{2}")
    limits = [Path(f"/proc/{pid}/limits").read_text() for pid in processes(pool)]
    assert all(f"Max address space         {2 * 2**30}" in text for text in limits)


# --- workers that fail


@pytest.mark.parametrize("victims", ["worker", "supervisor", "server", "all"])
def test_processes_that_were_killed_are_replaced(pool, victims):
    assert equal("x", "x")
    wait_until(lambda: len(processes(pool)) == 3)
    server, supervisor, worker = sorted(processes(pool))
    for pid in {"worker": [worker], "supervisor": [supervisor], "server": [server]}.get(
        victims, [worker, supervisor, server]
    ):
        os.kill(pid, signal.SIGKILL)
    assert equal(r"\sqrt{18}", r"3\sqrt{2}")


def test_a_worker_that_dies_again_and_again_is_an_infrastructure_failure(worker):
    worker(
        "import os, socket",
        "control = socket.socket(fileno=0)",
        "while True:",
        "    _, connections, _, _ = socket.recv_fds(control, 1, 1)",
        "    os.read(connections[0], 1000)",
        "    os.write(connections[0], b'{\"status\": -11}\\n')",
    )
    judgement = judge(r"\sqrt{8}", r"2\sqrt{2}")
    assert judgement.verdict == "infra_failure"
    assert judgement.cause == "the math-verify worker failed 3 times: it ended with status -11"


def test_a_worker_that_does_not_start_says_how_to_find_out(worker):
    worker("raise SystemExit('no math-verify here')")
    with pytest.raises(SymbolicFailure, match=r"did not start \(exit status 1\); check it with: .*import math_verify"):
        equal("x", "x")
