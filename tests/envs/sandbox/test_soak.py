"""Many programs of all kinds at once, and the warm interpreter killed in between.

A few hundred by default. As many as you like: `DAPO_TRL_TEST_SOAK=5000 pytest -s tests/envs/sandbox/test_soak.py`.
"""

import gc
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from envs.sandbox import Limits, Program, Sandbox

from ...support.code_attacks import ATTACKS
from ...support.processes import descendants, gone, kill, processes

PROGRAMS = int(os.environ.get("DAPO_TRL_TEST_SOAK", "200"))
WORKERS = 2
BLOCK = 50
KILLS = max(2, PROGRAMS // 1000)
LIMITS = Limits(cpu_seconds=0.5, wall_seconds=30, memory_bytes=1 << 28, output_bytes=1 << 16)
GROWTH = 8 << 20  # bytes of memory that this process may have more at the end than after a quarter
HOSTILE = [source for source, is_right in ATTACKS.values() if is_right is False]


def honest(number):
    """A program, its inputs and what must come of them, as (status, value); both hold the number."""
    match number % 10:
        case 0 | 1 | 2 | 3:
            source = f"import math\ndef f(x): return [x, {number}, math.gcd(x, {number})]"
            inputs = [[number * k] for k in (1, 2, 3)]
            return Program(source, "call", "f"), inputs, [("ok", [number * k, number, number]) for k in (1, 2, 3)]
        case 4 | 5:
            source = f"for line in open(0): print({number}, line.strip()[::-1])"
            return Program(source), [f"{number}a\nb\n"], [("ok", f"{number} a{str(number)[::-1]}\n{number} b\n")]
        case 6:
            inputs, values = ["K", "[K] * 2", "K // 0", "K + 1"], [number, [number] * 2, None, number + 1]
            return Program(f"K = {number}", "eval"), inputs, [("ok" if v else "crash", v) for v in values]
        case 7:
            source = f"import os\ndef f(x):\n    if x: os._exit(x)\n    return {number}"
            return Program(source, "call", "f"), [[0], [3], [0]], [("ok", number), ("crash", None), ("ok", number)]
        case _:
            return Program(f"raise ValueError({number})"), [""], [("crash", None)]


def wrong(sandbox, number):
    """Run a program, and say what is wrong with its results; "" for nothing."""
    if number % 10 == 9:
        inputs, sums = [[1, 2], [5, 7], [number, 1]], [3, 12, number + 1]
        results = sandbox.run(Program(HOSTILE[number // 10 * 7 % len(HOSTILE)], "call", "add"), inputs, LIMITS)
        is_right = [result.value for result in results] == sums
        is_wrong = len(results) != 3 or is_right or any(result.status == "infra_failure" for result in results)
    else:
        program, inputs, expected = honest(number)
        results = sandbox.run(program, inputs, LIMITS)
        is_wrong = [(result.status, result.value) for result in results] != expected
        if number % 10 == 8:
            is_wrong |= f"ValueError: {number} " not in results[0].cause
    return f"program {number}: {results}" if is_wrong else ""


def warm_interpreter(sandbox):
    """The process id of the zygote, whatever it was started by."""
    pid = sandbox._zygote._process.pid
    while "python" not in Path(f"/proc/{pid}/comm").read_text():
        (pid,) = (child for child, parent in processes().items() if parent == pid)
    return pid


def memory():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_soak(sandbox, caplog):
    files, others = sorted(os.listdir("/proc/self/fd")), descendants(os.getpid())
    kills = {PROGRAMS * (k + 1) // (KILLS + 1) // BLOCK * BLOCK for k in range(KILLS)}
    failures, sizes = [], []
    start = time.monotonic()
    with Sandbox(sandbox.isolation, workers=WORKERS) as soaked, ThreadPoolExecutor(WORKERS) as threads:
        for first in range(0, PROGRAMS, BLOCK):
            for failure in threads.map(lambda number: wrong(soaked, number), range(first, first + BLOCK)):
                failures += [failure] if failure else []
                if first in kills:
                    kills.remove(first)
                    kill({warm_interpreter(soaked)})
            sizes.append(memory())
        growth = sizes[-1] - sizes[len(sizes) // 4]
        running = descendants(os.getpid()) - others
    assert failures == [] and not kills
    assert len(running) <= 4 + WORKERS  # what started the zygote, itself, and supervisors
    assert gone(running)
    assert sorted(os.listdir("/proc/self/fd")) == files
    assert growth < GROWTH
    retries = sum("the sandbox failed" in record.getMessage() for record in caplog.records)
    print(
        f"{PROGRAMS} programs, isolation={sandbox.isolation}: all right, {KILLS} kills and {retries} retries, "
        f"{growth / 2**20:+.1f} MiB, {time.monotonic() - start:.0f} s"
    )
