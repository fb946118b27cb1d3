"""The machinery around programs: starting, sharing, forking, dying, and leaving nothing behind."""

import json
import logging
import multiprocessing
import os
import random
import select
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

import envs.sandbox.isolation
import envs.sandbox.sandbox
from envs.sandbox import Isolation, Limits, Program, Sandbox, SandboxUnavailable, Status, shared_sandbox
from envs.sandbox.escape_tests import escapes
from envs.sandbox.inside import kernel

from ...support.processes import descendants, gone, kill, processes

ROOT = Path(__file__).resolve().parents[3]
DOUBLE = Program("def f(x): return x * 2", "call", "f")
SLEEPER = Program("import time\ndef f(x): time.sleep(60)", "call", "f")


def run_script(script, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.fixture
def own_sandbox(any_sandbox):
    with Sandbox(any_sandbox.isolation) as sandbox:
        yield sandbox


# --- threads and processes


def test_many_threads(own_sandbox):
    outcome = {}

    def use(number):
        results = own_sandbox.run(DOUBLE, [[number], [str(number)]])
        outcome[number] = [result.value for result in results]

    threads = [threading.Thread(target=use, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcome == {number: [number * 2, str(number) * 2] for number in range(40)}


def test_a_slow_program_keeps_its_own_worker_only():
    with Sandbox(shared_sandbox().isolation, workers=2) as sandbox:
        slow = []
        thread = threading.Thread(target=lambda: slow.extend(sandbox.run(SLEEPER, [[1]], Limits(wall_seconds=5))))
        thread.start()
        while thread.is_alive():
            assert sandbox.run(DOUBLE, [[1]])[0].value == 2
        assert slow[0].status is Status.TIMEOUT


def test_after_a_fork_both_sides_work(own_sandbox):
    assert own_sandbox.run(DOUBLE, [[1]])[0].value == 2
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if own_sandbox.run(DOUBLE, [[2]])[0].value == 4 else 2
            own_sandbox.close()
        finally:
            os._exit(status)
    assert own_sandbox.run(DOUBLE, [[3]])[0].value == 6
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert own_sandbox.run(DOUBLE, [[4]])[0].value == 8


def _in_daemon(queue, isolation):
    queue.put(Sandbox(isolation).run(DOUBLE, [[5]])[0].value)


def test_in_a_daemonic_process(any_sandbox):
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=_in_daemon, args=(queue, str(any_sandbox.isolation)), daemon=True)
    process.start()
    process.join(60)
    assert process.exitcode == 0 and queue.get() == 10


def test_without_standard_files(any_sandbox):
    script = """
        import os, sys
        for file in (0, 1, 2): os.close(file)
        from envs.sandbox import Program, Sandbox
        with Sandbox(sys.argv[1]) as sandbox:
            results = [sandbox.run(Program("print(input())"), [x])[0].value for x in "ab"]
        os._exit(7 if results == ["a\\n", "b\\n"] else 1)
    """
    assert run_script(script, any_sandbox.isolation).wait(60) == 7


# --- endings


def test_nothing_is_left_open(own_sandbox):
    def use():
        own_sandbox.run(DOUBLE, [[1], [None]])
        own_sandbox.run(Program("import time; time.sleep(9)"), [""], Limits(wall_seconds=0.1))
        own_sandbox.run(Program("while True: print(1)"), [""], Limits(output_bytes=100))

    use()
    files, children = sorted(os.listdir("/proc/self/fd")), descendants(os.getpid())
    for _ in range(5):
        use()
    assert sorted(os.listdir("/proc/self/fd")) == files
    assert len(descendants(os.getpid())) <= len(children) + 1
    own_sandbox.close()
    assert len(os.listdir("/proc/self/fd")) < len(files)
    assert not any(
        pid in processes() and "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        for pid in descendants(os.getpid())
    )
    assert own_sandbox.run(DOUBLE, [[1]])[0].value == 2


def test_a_zygote_that_dies_is_replaced(own_sandbox):
    assert own_sandbox.run(DOUBLE, [[1]])[0].value == 2
    for _ in range(2):
        started = descendants(own_sandbox._zygote._process.pid)
        kill(started | {own_sandbox._zygote._process.pid})
        assert gone(started)
        assert own_sandbox.run(DOUBLE, [[2]])[0].value == 4


def test_a_supervisor_that_dies_is_retried_once(own_sandbox, caplog):
    outcome = []
    own_sandbox.run(DOUBLE, [[1]])
    zygote = own_sandbox._zygote._process.pid
    limits = Limits(wall_seconds=30)
    thread = threading.Thread(target=lambda: outcome.extend(own_sandbox.run(SLEEPER, [[1], [2]], limits)))
    with caplog.at_level(logging.WARNING, "envs.sandbox"):
        thread.start()
        for attempt in range(2):
            end = time.monotonic() + 20
            while time.monotonic() < end and len(caplog.records) == attempt:
                leaves = descendants(zygote)
                leaves = {pid for pid in leaves if not descendants(pid)} - {zygote}
                time.sleep(0.3)
                kill(leaves)
        thread.join()
    assert [result.status for result in outcome] == ["infra_failure"] * 2
    assert "twice" in outcome[0].cause
    assert all(f"isolation={own_sandbox.isolation}" in record.getMessage() for record in caplog.records)
    assert own_sandbox.run(DOUBLE, [[2]])[0].value == 4


@pytest.mark.parametrize("ending", ["killed", "exit", "exception"])
def test_everything_ends_with_the_process_that_started_it(any_sandbox, ending):
    script = """
        import os, sys, threading, time
        from envs.sandbox import Program, Sandbox
        sandbox = Sandbox(sys.argv[1])
        sleeper = Program("import time\\nwhile True: time.sleep(1)")
        threading.Thread(target=lambda: sandbox.run(sleeper, [""]), daemon=True).start()
        sandbox.run(Program("print(1)"), [""])
        time.sleep(1)
        print("ready", flush=True)
        input()
        if sys.argv[2] == "exception": raise SystemError
    """
    process = run_script(script, any_sandbox.isolation, ending, stdin=subprocess.PIPE)
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    started = descendants(process.pid)
    assert len(started) >= 3
    if ending == "killed":
        process.kill()
    process.communicate("\n")
    assert gone(started)


def test_closing_ends_what_runs(own_sandbox):
    own_sandbox.run(DOUBLE, [[1]])
    outcome = []
    thread = threading.Thread(target=lambda: outcome.extend(own_sandbox.run(SLEEPER, [[1]], Limits(wall_seconds=50))))
    thread.start()
    time.sleep(0.5)
    started = descendants(own_sandbox._zygote._process.pid) | {own_sandbox._zygote._process.pid}
    own_sandbox.close()
    thread.join()
    assert gone(started)
    assert (outcome[0].status, outcome[0].cause) == (Status.INFRA_FAILURE, "the sandbox was closed")


# --- isolation that is not there


def test_unsafe_is_named_in_every_line(caplog):
    with caplog.at_level(logging.DEBUG, "envs.sandbox"), Sandbox("unsafe") as sandbox:
        assert sandbox.isolation is Isolation.UNSAFE
        assert sandbox.run(DOUBLE, [[1]])[0].value == 2
    assert caplog.records and all("isolation=unsafe" in record.getMessage() for record in caplog.records)
    assert caplog.records[0].levelno == logging.WARNING


def test_the_probes_find_what_is_not_prevented():
    """The same attempts as before every start, where nothing is in their way."""
    with Sandbox("unsafe") as sandbox:
        held = " ".join(escapes(sandbox._run))
    for name in ("opening a socket", "reading a file", "starting a process", "writing a file", "sharing memory"):
        assert name in held


def test_a_sandbox_that_leaks_is_refused(monkeypatch, any_sandbox):
    from envs.sandbox.seccomp_filter import filter_code

    allow_everything = bytes.fromhex("0600000000000fff7f"[:8] + "0000ff7f")
    assert len(filter_code()) % 8 == 0
    monkeypatch.setattr(envs.sandbox.isolation, "filter_code", lambda: allow_everything)
    with pytest.raises(SandboxUnavailable, match=r"does not prevent: .*opening a socket"):
        assert Sandbox(any_sandbox.isolation).isolation


def test_auto_never_means_unsafe(monkeypatch):
    monkeypatch.setattr(envs.sandbox.isolation.shutil, "which", lambda name: None)
    monkeypatch.setattr(envs.sandbox.isolation, "filter_code", lambda: (_ for _ in ()).throw(ImportError("pyseccomp")))
    with pytest.raises(SandboxUnavailable) as failure:
        Sandbox().run(DOUBLE, [[1]])
    for hint in ("bubblewrap", "landlock", "pip install pyseccomp", "docs/sandbox.md"):
        assert hint in str(failure.value)


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems(monkeypatch, platform):
    monkeypatch.setattr(envs.sandbox.sandbox.sys, "platform", platform)
    with pytest.raises(SandboxUnavailable, match=f"on {platform}: the sandbox needs Linux"):
        Sandbox().run(DOUBLE, [[1]])


def test_where_namespaces_are_denied(any_sandbox):
    """As in most containers: a filter that denies namespaces and mounts is around the whole process."""
    pytest.importorskip("pyseccomp")
    script = """
        import errno, json, os
        import pyseccomp as seccomp
        rules = seccomp.SyscallFilter(seccomp.ALLOW)
        for name in ("unshare", "setns", "mount", "pivot_root"):
            rules.add_rule(seccomp.ERRNO(errno.EPERM), name)
        rules.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")
        for flag in (0x10000000, 0x20000000, 0x20000, 0x40000000):
            rules.add_rule(seccomp.ERRNO(errno.EPERM), "clone", seccomp.Arg(0, seccomp.MASKED_EQ, flag, flag))
        rules.load()
        from envs.sandbox import Program, Sandbox, SandboxUnavailable
        try:
            with Sandbox() as sandbox:
                print(json.dumps([sandbox.isolation, sandbox.run(Program("print(input())"), ["x"])[0].value]))
        except SandboxUnavailable as reason:
            print(json.dumps(["unavailable", str(reason)]))
    """
    output, errors = run_script(script).communicate(timeout=100)
    assert output, errors
    level, value = json.loads(output)
    if level == "unavailable":
        pytest.skip(value)
    assert (level, value) == ("landlock", "x\n")


# --- settings


def test_packages(any_sandbox):
    pytest.importorskip("numpy")
    source = "import numpy as np, numpy.fft\ndef f(x): return np.array(x) * 2\nrandom = np.random.rand"
    assert any_sandbox.run(Program(source, "call", "f"), [[[1]]])[0].status is Status.CRASH
    with Sandbox(any_sandbox.isolation, packages=["numpy"]) as sandbox:
        for _ in range(2):
            assert sandbox.run(Program(source, "call", "f"), [[[1, 2]]])[0].value == [2, 4]
        draws = [sandbox.run(Program(source, "eval"), ["random(3)"])[0].value for _ in range(2)]
        assert draws[0] == draws[1]
        hidden = sandbox.run(
            Program("", "eval"), ["__import__('pytest')", "__import__('gymnasium')", "__import__('envs')"]
        )
        assert [result.status for result in hidden] == ["crash"] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"isolation": "docker"}, "isolation='docker' must be one of 'auto', 'bubblewrap', 'landlock', 'unsafe'"),
        ({"packages": "numpy"}, "packages='numpy' must be a list of names"),
        ({"workers": 0}, "workers=0 must be at least 1"),
    ],
)
def test_settings_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        Sandbox(**arguments)


def test_unknown_package(any_sandbox):
    with pytest.raises(ValueError, match="packages='no_such_package'"):
        Sandbox(any_sandbox.isolation, packages=["no_such_package"]).run(DOUBLE, [[1]])


def test_builds_of_python_without_some_system_calls(monkeypatch):
    if sys.platform != "linux":
        pytest.skip("the system calls are Linux's")
    for name in ("memfd_create", "pidfd_open"):
        monkeypatch.delattr(os, name, raising=False)
    file = kernel.memory_file("name")
    os.write(file, b"text")
    kernel.seal(file)
    with pytest.raises(PermissionError):
        os.write(file, b"more")
    assert os.pread(file, 10, 0) == b"text"
    os.close(file)
    process = subprocess.Popen(["sleep", "60"])
    watch = kernel.watch_process(process.pid)
    assert select.select([watch], [], [], 0)[0] == []
    process.kill()
    assert select.select([watch], [], [], 20)[0] == [watch]
    process.wait()
    os.close(watch)


def test_shared_sandbox():
    assert shared_sandbox() is shared_sandbox() is not shared_sandbox("unsafe")


def test_importing_envs_does_not_import_the_sandbox():
    script = "import envs, sys; sys.exit(any(name.startswith('envs.sandbox') for name in sys.modules))"
    assert run_script(script).wait(60) == 0


def test_the_inside_imports_the_standard_library_only():
    """It runs without site-packages, but that would be found out late."""
    for path in (ROOT / "envs" / "sandbox" / "inside").glob("*.py"):
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] in (["import"], ["from"]):
                name = words[1].partition(".")[0]
                assert name == "" or name in sys.stdlib_module_names, f"{path.name}: {line}"


def test_random_programs_and_inputs(any_sandbox):
    draw = random.Random(0)
    for _ in range(20):
        inputs = [[draw.choice([draw.getrandbits(80), draw.random(), "é" * draw.randrange(99)])] for _ in range(3)]
        results = any_sandbox.run(Program("def f(x): return (x, [x])", "call", "f"), inputs)
        assert [result.value for result in results] == [(x, [x]) for (x,) in inputs]
