"""Asserts that are more than single calls: the statements run in one sandbox, the program in another.

Only plain values go from the program's process to that of the statements, and only questions the other way, so that
the program meets neither the statements nor what they expect, and nothing of the program's runs where it is judged.
The statements run once with guesses to learn the questions, which are the same for every program as long as they do
not depend on answers; the program answers; the statements run again with the answers, and go round once more if that
raised new questions. Arguments arrive as copies: a test that looks at what a function did to its argument fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...sandbox import Limits, Program, Result, Status
from .run_tests import FAILED, TOO_MUCH, Failure, Run, TestReport, brief, run_until
from .tests import AssertTests

_PROGRAM = Path(__file__).with_name("assert_session_program.py").read_text(encoding="utf-8")
_LIMITS = Limits(cpu_seconds=60.0, wall_seconds=180.0, output_bytes=1 << 26)
_ROUNDS = 20


class _Unusable(Exception):
    """The statements cannot be run, whatever the program is like."""


def run_asserts(
    run: Run, run_statements: Run, source: str, tests: AssertTests, limits: Limits, *, stop: bool
) -> TestReport:
    """Run test statements on a program.

    Args:
        run: Runs the program in the sandbox.
        run_statements: Runs the statements in the sandbox.
        source: The program.
        tests: The statements.
        limits: What the program may take for each question.
        stop: End with the first assertion that fails.
    """
    try:
        first = report = _first_report(run_statements, tests)
        for attempt in range(_ROUNDS):
            results = _ask(run, source, report["questions"], limits, stop=stop and attempt == 0)
            seconds = sum(result.seconds for result in results)
            if results[-1].status is Status.INFRA_FAILURE:
                return TestReport.infra_failure(results[-1].cause)
            if results[0].status is not Status.OK:
                failure = Failure.of(0, "loading the program", results[0])
                return TestReport(0, first["guessed"], failure, seconds, results[0].status)
            answers, questions = results[1:], report["questions"]
            report = _report(run_statements, tests, questions, answers, stop)
            if report["is_complete"]:
                return _outcome(report, answers, seconds, total=first["guessed"])
            if results[-1].status in TOO_MUCH:
                failure = Failure.of(report["passed"], questions[len(answers) - 1], results[-1])
                return TestReport(report["passed"], first["guessed"], failure, seconds, results[-1].status)
    except _Unusable as reason:
        return TestReport.infra_failure(f"the tests cannot be run: {reason}")
    return TestReport.infra_failure(f"the tests asked other questions in each of {_ROUNDS} runs")


def _ask(run: Run, source: str, questions: list[str], limits: Limits, *, stop: bool) -> tuple[Result, ...]:
    """Ask whether the program can be loaded, then the questions, up to one that is too much for it.

    They are asked in one process, as questions may name the objects that earlier ones gave.
    """
    inputs = ["None", *(f"(_h{number} := {question})" for number, question in enumerate(questions))]
    return run_until(
        run,
        Program(source, mode="eval"),
        inputs,
        limits,
        stop_at=FAILED - {Status.INVALID_VALUE} if stop else TOO_MUCH,
        stop=lambda number, result: number == 0 and result.status is not Status.OK,
    )


def _outcome(report: dict[str, Any], answers: Sequence[Result], seconds: float, *, total: int) -> TestReport:
    passed = report["passed"]
    total = max(total, passed + report["failed"], 1)
    if report["failure"] is not None:
        number, assertion, error, last = report["failure"]
        if last < 0:
            return TestReport(passed, total, Failure(number, "", error, brief(assertion)), seconds)
        failure = Failure.of(number, report["questions"][last], answers[last], assertion)
        return TestReport(passed, total, failure, seconds, answers[last].status)
    if not passed:
        return TestReport(0, total, Failure(0, "", "no assertion was reached"), seconds)
    return TestReport(passed, passed, None, seconds)


@lru_cache(maxsize=4096)
def _first_report(run: Run, tests: AssertTests) -> dict[str, Any]:
    report = _report(run, tests, [], (), stop=False)
    if not report["questions"]:
        raise _Unusable("they ask nothing of the program")
    return report


def _report(
    run: Run, tests: AssertTests, questions: list[str], answers: Sequence[Result], stop: bool
) -> dict[str, Any]:
    """Run the statements with the answers known so far; see `harness_program.run_tests` for what is reported.

    Raises:
        _Unusable: That did not work.
    """
    known = [
        (question, str(answer.status), answer.value if answer.status is Status.OK else answer.cause)
        for question, answer in zip(questions, answers, strict=False)
    ]
    names = tests.names
    asserts = "\n".join(tests.asserts)
    arguments = (tests.setup, asserts, list(names.of_program), names.of_modules, tests.entry_point, known, stop)
    (result,) = run(Program(_PROGRAM, mode="call", entry_point="run_tests"), [arguments], _LIMITS)
    if result.status is not Status.OK:
        raise _Unusable(f"{result.status}: {result.cause}")
    return result.value
