"""Judging programs: run in the sandbox on inputs alone, compared out here.

Identical programs are run once, also at the same time. What they came to is remembered, but for timeouts, which may be
due to a busy machine, and failures of our own.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ...base import Judgement, Verdict
from ...sandbox import AnySandbox, Limits, Program, Status, open_sandbox
from ..program_extraction import with_preamble
from .assert_session import MODULES, run_asserts
from .run_tests import TestReport, run_tests, source_of
from .shared_cache import SharedCache
from .tests import AssertTests, StdinTests, Tests
from .values import DEFAULT_TOLERANCE, same_value

RewardKind = Literal["all", "fraction"]

_REMEMBERED = 10_000  # outcomes, a few hundred bytes each
_VERDICTS = {
    Status.OK: Verdict.WRONG,
    Status.INVALID_VALUE: Verdict.WRONG,
    Status.TIMEOUT: Verdict.TIMEOUT,
    Status.MEMORY: Verdict.TIMEOUT,
    Status.OUTPUT_LIMIT: Verdict.CRASH,
    Status.CRASH: Verdict.CRASH,
    Status.INFRA_FAILURE: Verdict.INFRA_FAILURE,
}


@dataclass(frozen=True)
class Grading:
    """How programs are judged.

    Args:
        reward: "all": a program is worth 1 if it passes all tests, else 0, and ends with the first that fails.
            "fraction": it is worth the share of tests that it passes.
        tolerance: Relative tolerance of floats. By default 1e-9 for values that calls return, none for numbers in
            printed text; a number applies to both. Asserts say for themselves.
        limits: What a program may take for each test.
        sandbox: The sandbox; see `envs.sandbox.open_sandbox`.

    Raises:
        ValueError: A value is out of range.
    """

    reward: RewardKind = "all"
    tolerance: float | None = None
    limits: Limits = field(default_factory=Limits)
    sandbox: str = "auto"

    def __post_init__(self) -> None:
        if self.reward not in get_args(RewardKind):
            raise ValueError(f"reward={self.reward!r} must be 'all' or 'fraction'")
        if self.tolerance is not None and not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance={self.tolerance!r} must be a number from 0 to below 1 (relative), or None")


def sandbox_of(name: str, *texts: str, modules: tuple[tuple[str, str], ...] = ()) -> AnySandbox:
    """Return the sandbox of that name that all of this process shares, for programs or statements with these texts.

    They have NumPy if they name it and it is installed. Others run without it, which takes a fifth less. So do those
    that need no modules of ours run without them.
    """
    needs_numpy = any("numpy" in text for text in texts) and importlib.util.find_spec("numpy")
    return open_sandbox(name, ("numpy",) if needs_numpy else (), modules)


def judge(program: str, tests: Tests, how: Grading) -> Judgement:
    """Judge a program; see `outcome_of`."""
    return judgement_of(outcome_of(program, tests, how), how)


def judgement_of(outcome: TestReport, how: Grading) -> Judgement:
    """Return what an outcome is worth. The cause holds an input and what the program made of it, nothing expected."""
    details = {"tests": outcome.total, "tests_passed": outcome.passed, "seconds": outcome.seconds}
    failure = outcome.failure
    if failure is None:
        return Judgement(Verdict.CORRECT, 1.0, details=details)
    if outcome.status is Status.INFRA_FAILURE:
        return Judgement.of(Verdict.INFRA_FAILURE, failure.given)
    cause = f"test {failure.number + 1} of {outcome.total}: {failure.input!r} gave {failure.given!r}"
    accuracy = outcome.passed / outcome.total if how.reward == "fraction" else 0.0
    return Judgement(_VERDICTS[outcome.status], accuracy, cause, details)


def outcome_of(program: str, tests: Tests, how: Grading) -> TestReport:
    """Run a program on its tests, unless that has been done or is being done.

    Raises:
        SandboxUnavailable: No isolation works on this machine.
    """
    key = hashlib.blake2b(program.encode("utf-8", "surrogatepass"), key=tests.key).digest()
    return _outcomes.get((key, how), lambda: _run(program, tests, how))


def _run(source: str, tests: Tests, how: Grading) -> TestReport:
    stop = how.reward == "all"
    if isinstance(tests, AssertTests):
        source = with_preamble(tests.imports, source)
    sandbox = sandbox_of(how.sandbox, source)
    if isinstance(tests, StdinTests):
        return run_tests(
            sandbox,
            Program(source),
            tests.inputs,
            lambda number, text: tests.is_right(number, text, how.tolerance or 0.0),
            how.limits,
            describe=lambda number: (tests.inputs[number], tests.outputs[number]),
            stop=stop,
        )
    if isinstance(tests, AssertTests):
        if tests.calls is None:
            statements = (tests.setup, *tests.asserts, *tests.names.of_modules.values())
            sandbox = sandbox_of(how.sandbox, source, *statements, modules=MODULES)
            return run_asserts(sandbox, source, tests, how.limits, stop=stop)
        entry_point, calls = tests.calls
        inputs = [call.arguments for call in calls]
        expected = [source_of(call.expected) for call in calls]

        def is_right(number: int, value: Any) -> bool:
            return calls[number].holds(value)
    else:
        entry_point, inputs = tests.entry_point, list(tests.inputs)
        expected = [source_of(right[0]) for right in tests.outputs]
        tolerance = DEFAULT_TOLERANCE if how.tolerance is None else how.tolerance

        def is_right(number: int, value: Any) -> bool:
            return any(same_value(value, right, tolerance=tolerance) for right in tests.outputs[number])

    def describe(number: int) -> tuple[str, str]:
        return f"{entry_point}({', '.join(map(source_of, inputs[number]))})", expected[number]

    program = Program(source, "call", entry_point)
    return run_tests(sandbox, program, inputs, is_right, how.limits, describe=describe, stop=stop)


def _is_final(outcome: TestReport) -> bool:
    return outcome.status not in (Status.TIMEOUT, Status.INFRA_FAILURE)


_outcomes: SharedCache[tuple[bytes, Grading], TestReport] = SharedCache(_REMEMBERED, keep=_is_final)
