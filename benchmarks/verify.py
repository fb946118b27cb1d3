r"""How fast answers are judged, beside math-verify on the same inputs.

math-verify is called as its documentation shows, ``verify(parse(gold), parse(completion))``, with its time-outs on, in
one process. Ours is the judge of ``math/Problem-v0``: exact rules first, math-verify in a killable worker for what they
can not decide. Inputs are completions that end in a box. Every gold answer has a group of eight: four right ones, which
agree, and four wrong ones, which do not.

- *integers*: answers such as 1,234 to problems such as GSM8K's.
- *formulas*: roots, multiples of pi, polynomials, logarithms, points; the two sides share one core, so a worker gains
  nothing from running beside this process.
- *threads*: ours on formulas, two threads against one.

Both sides take turns, each with inputs that it has not seen, and the best round of each counts.

The last table has the verdicts of four judges on the boxed answers of this project's tests: its own, math-verify's,
TRL's ``accuracy_reward`` and verl's ``math_dapo``. A pair counts as a false pass or a false refusal by the tests, whose
rules are those of docs/math-verdicts.md; the others decide some of them otherwise on purpose.

    python benchmarks/verify.py [--quick] [--json FILE]
"""

from __future__ import annotations

import importlib.util
import logging
import multiprocessing
import os
import random
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from common import Claim, arguments, console, finish, show

GROUP = 8
THREADS = 2
PAIRS = Path(__file__).resolve().parents[1] / "tests" / "envs" / "verifiers" / "math" / "data" / "math_answers.txt"
WORDS = "Let me work it out step by step, and check the result once more.\n\nSo the answer is $\\boxed{%s}$."


@dataclass(frozen=True)
class Input:
    """A gold answer, a completion, and whether it is right."""

    gold: str
    completion: str
    right: bool


@dataclass(frozen=True)
class Measurement:
    """Judging one set of inputs: how long it took on the clock, and how many verdicts were wrong."""

    inputs: int
    seconds: float
    wrong: int


def integers(count: int, seed: int) -> list[Input]:
    rng = random.Random(seed)
    return [member for _ in range(count // GROUP) for member in group_of_integers(rng.randrange(10_000))]


def group_of_integers(gold: int) -> list[Input]:
    return group(str(gold), f"{gold:,}", lambda k: f"{gold + k}")


def formulas(count: int, seed: int) -> list[Input]:
    rng = random.Random(seed)
    return [member for _ in range(count // GROUP) for member in group_of_formulas(rng)]


def group_of_formulas(rng: random.Random) -> list[Input]:
    a, b, c = rng.sample(range(2, 100), 3)
    x = f"x^2{a - b:+}x"
    gold, same, other = rng.choice(
        (
            (rf"{a}\sqrt{{{b}}}", rf"\sqrt{{{a * a * b}}}", lambda k: rf"\sqrt{{{a * a * b + k}}}"),
            (rf"\frac{{{a}\pi}}{{{b}}}", rf"{a * c}\pi/{b * c}", lambda k: rf"\frac{{{a + k}\pi}}{{{b}}}"),
            (f"(x+{a})(x-{b})", f"{x}-{a * b}", lambda k: f"{x}-{a * b + k}"),
            (
                rf"\frac{{x+{a}}}{{{b}}}",
                rf"\frac{{x}}{{{b}}}+\frac{{{a}}}{{{b}}}",
                lambda k: rf"\frac{{x}}{{{b}}}+{a + k}",
            ),
            (rf"{a}+{b}\sqrt{{{c}}}", rf"{b}\sqrt{{{c}}}+{a}", lambda k: rf"{b}\sqrt{{{c}}}+{a + k}"),
            (rf"{a}\ln {b}", rf"\frac{{1}}{{2}}\ln {b}^{{{2 * a}}}", lambda k: rf"\ln {b}^{{{a + k}}}"),
            (rf"({a},{b}\sqrt{{{c}}})", rf"({a}, \sqrt{{{b * b * c}}})", lambda k: rf"({a}, {b + k}\sqrt{{{c}}})"),
        )
    )
    return group(gold, same, other)


def group(gold: str, same: str, other: Callable[[int], str]) -> list[Input]:
    return [Input(gold, WORDS % (same if i % 2 else other(i + 1)), bool(i % 2)) for i in range(GROUP)]


def prepare(core: int | None) -> None:
    """Set up a process that measures: on one core, or on all."""
    logging.disable()
    if core is not None:
        os.sched_setaffinity(0, {core})


def ours(given: Input) -> bool:
    from envs.math.answers import ANSWER_STYLES
    from envs.verifiers.math.judge import judge

    return ANSWER_STYLES["auto"].judge(given.completion, given.gold, judge).accuracy == 1.0


def theirs(given: Input) -> bool:
    from math_verify import parse, verify

    return verify(parse(f"${given.gold}$"), parse(given.completion))


def trl(given: Input) -> bool:
    from trl.rewards import accuracy_reward

    return accuracy_reward([[{"role": "assistant", "content": given.completion}]], [f"${given.gold}$"]) == [1.0]


def verl(given: Input) -> bool:
    from verl.utils.reward_score.math_dapo import compute_score

    return bool(compute_score(given.completion, given.gold)["acc"])


JUDGES: dict[str, tuple[Callable[[Input], bool], str]] = {
    "ours": (ours, "envs"),
    "math-verify": (theirs, "math_verify"),
    "TRL accuracy_reward": (trl, "trl"),
    "verl math_dapo": (verl, "verl"),
}
"""The judges that are compared, and the package that each needs."""


@dataclass(frozen=True)
class Verdicts:
    """The verdicts of one judge: how many were wrong or missing, and the slowest in seconds."""

    false_passes: int = 0
    false_refusals: int = 0
    exceptions: int = 0
    slowest: float = 0.0


def tested_pairs(step: int) -> list[Input]:
    """Return every `step`th of the boxed answers of the tests."""
    pairs: list[Input] = []
    gold = ""
    for line in PAIRS.read_text(encoding="utf-8").splitlines()[1:]:
        if not line.startswith("  "):
            gold = line
            continue
        for answer in line[4:].split("   "):
            if "$" not in answer and "boxed" not in answer:
                pairs.append(Input(gold, f"So.\n\nAnswer: $\\boxed{{{answer}}}$", line[2] == "="))
    return pairs[::step]


def verdicts(name: str, inputs: list[Input]) -> Verdicts:
    """Judge all inputs in this process, one after the other."""
    judge = JUDGES[name][0]
    judge(Input("x+1", WORDS % "1+x", True))  # loads everything, the worker of ours too
    passes = refusals = exceptions = 0
    slowest = 0.0
    for given in inputs:
        start = time.perf_counter()
        try:
            found = judge(given)
        except Exception:
            exceptions += 1
        else:
            passes += found and not given.right
            refusals += given.right and not found
        slowest = max(slowest, time.perf_counter() - start)
    return Verdicts(passes, refusals, exceptions, slowest)


def compare_verdicts(step: int) -> Verdicts:
    """Show the verdicts of all judges that are installed, and return ours."""
    inputs = tested_pairs(step)
    rows: list[tuple[str, ...]] = []
    own = Verdicts()
    for name, (_, package) in JUDGES.items():
        if importlib.util.find_spec(package) is None:
            rows.append((name, f"pip install {package}", "", "", ""))
            continue
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), prepare, (None,)) as process:
            found = process.submit(verdicts, name, inputs).result()
        own = found if name == "ours" else own
        figures = (found.false_passes, found.false_refusals, found.exceptions)
        rows.append((name, *map(str, figures), f"{found.slowest:.2f} s"))
    right = sum(given.right for given in inputs)
    title = f"Verdicts on {right:,} right and {len(inputs) - right:,} wrong answers of the tests"
    show(title, ["", "false passes", "false refusals", "exceptions", "slowest"], rows)
    return own


def measure(judge: Callable[[Input], bool], inputs: list[Input], threads: int) -> Measurement:
    start = time.perf_counter()
    if threads == 1:  # in the main thread, where math-verify's time-outs work
        found = [judge(given) for given in inputs]
    else:
        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(judge, inputs))
    seconds = time.perf_counter() - start
    return Measurement(len(inputs), seconds, sum(a is not b.right for a, b in zip(found, inputs, strict=True)))


class Contest:
    """Two ways to judge, each in a process of its own, that take turns on inputs of one kind."""

    def __init__(
        self,
        kind: Callable[[int, int], list[Input]],
        sides: list[tuple[Callable[[Input], bool], int]],
        core: int | None,
    ) -> None:
        self.kind = kind
        self.sides = sides
        spawn = multiprocessing.get_context("spawn")
        self.processes = [ProcessPoolExecutor(1, spawn, prepare, (core,)) for _ in sides]

    def run(self, counts: list[int], rounds: int) -> list[Measurement]:
        """Return the best round of each side, with the wrong verdicts of all its rounds."""
        found: list[list[Measurement]] = [[] for _ in self.sides]
        for round_ in range(rounds + 1):
            for i, ((judge, threads), process, count) in enumerate(
                zip(self.sides, self.processes, counts, strict=True)
            ):
                turn: Future[Measurement] = process.submit(measure, judge, self.kind(count, round_), threads)
                if round_:  # the first one loads everything
                    found[i].append(turn.result())
                turn.result()
        for process in self.processes:
            process.shutdown()
        best = [min(turns, key=lambda turn: turn.seconds / turn.inputs) for turns in found]
        return [
            Measurement(turn.inputs, turn.seconds, sum(one.wrong for one in turns))
            for turn, turns in zip(best, found, strict=True)
        ]


def speed(measurement: Measurement) -> float:
    return measurement.inputs / measurement.seconds


def main() -> None:
    args = arguments("How fast answers are judged, beside math-verify on the same inputs.")
    rounds, size = (3, 1) if args.quick else (7, 3)
    cores = sorted(os.sched_getaffinity(0))
    exact = Contest(integers, [(ours, 1), (theirs, 1)], cores[0]).run([4000 * size, 400 * size], rounds)
    symbolic = Contest(formulas, [(ours, 1), (theirs, 1)], cores[0]).run([160 * size] * 2, rounds)
    threads = Contest(formulas, [(ours, THREADS), (ours, 1)], None).run([320 * size] * 2, rounds)
    rows = []
    for name, (left, right) in (
        ("integers: ours / math-verify", exact),
        ("formulas on one core: ours / math-verify", symbolic),
        (f"formulas: {THREADS} threads / 1 thread", threads),
    ):
        rows.append((name, f"{speed(left) / speed(right):.2f}", f"{left.wrong}", f"{right.wrong}"))
    show("Answers judged in a second, as a ratio", ["", "ratio", "wrong verdicts, left", "right"], rows)
    console.print(f"best of {rounds} rounds, groups of {GROUP}\n")
    own = compare_verdicts(4 if args.quick else 1)
    claims = [
        Claim("integers judged in a second, ours / math-verify", speed(exact[0]) / speed(exact[1]), 20, True),
        Claim(
            "formulas judged in a second on one core, ours / math-verify",
            speed(symbolic[0]) / speed(symbolic[1]),
            1,
            True,
        ),
        Claim(
            f"formulas judged in a second, {THREADS} threads / one thread",
            speed(threads[0]) / speed(threads[1]),
            1.6,
            True,
        ),
        Claim(
            "wrong verdicts of ours",
            exact[0].wrong + symbolic[0].wrong + sum(m.wrong for m in threads),
            0,
            unit="verdicts",
        ),
        Claim(
            "false passes, false refusals and exceptions of ours on the answers of the tests",
            own.false_passes + own.false_refusals + own.exceptions,
            0,
            unit="verdicts",
        ),
    ]
    finish(claims, args.json)


if __name__ == "__main__":
    main()
