"""Asserts that are more than single calls: the statements run behind one wall, the program behind another.

Whatever the statements do with a name of the program is asked of the program's side, and only values come back, so that
the program meets neither the statements nor what they expect, and nothing of the program's runs where it is judged.
"""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...sandbox import AnySandbox, Limits, Program, Result, Status
from ...text import shortened
from .run_tests import BRIEF, Failure, TestReport
from .tests import AssertTests

_PACKAGE = "assert_session"  # what the modules below are in, behind the walls
_TEXTS = {part: Path(__file__).with_name(f"{part}.py") for part in ("session_wire", "session_tests", "session_program")}
MODULES = ((_PACKAGE, ""), *((f"{_PACKAGE}.{part}", path.read_text("utf-8")) for part, path in _TEXTS.items()))
"""Names and texts of what a sandbox has to have loaded for `run_asserts`."""

_ASKER = Program(f"from {_PACKAGE}.session_tests import run_tests", "dialog", "run_tests")
_ANSWERER = Program(f"from {_PACKAGE}.session_program import main", "dialog", "main")
_STATEMENTS_CPU = 30.0  # seconds, between two questions
_REPORT_SECONDS = 3.0  # for the statements to come to their end, beyond the time that the program has in all


def run_asserts(sandbox: AnySandbox, source: str, tests: AssertTests, limits: Limits, *, stop: bool) -> TestReport:
    """Run test statements on a program.

    Args:
        sandbox: Runs both; it has `MODULES`.
        source: The program.
        tests: The statements.
        limits: What the program may take for each question, and in all.
        stop: End with the first assertion that fails.
    """
    start = time.monotonic()
    asker, answerer = _session(sandbox, source, tests, limits, stop=stop)
    seconds = time.monotonic() - start
    total = sum(tests.weights)
    if Status.INFRA_FAILURE in (asker.status, answerer.status):
        return TestReport.infra_failure(asker.cause or answerer.cause)
    if asker.status is not Status.OK:
        reason = _unusable(sandbox, tests)
        if reason:
            return TestReport.infra_failure(f"the tests cannot be run: {reason}")
        failure = Failure(0, "", f"{asker.status}: the tests could not deal with what it returned: {asker.cause}")
        return TestReport(0, total, failure, seconds, asker.status)
    report = asker.value
    if report.get("load") and answerer.status is Status.NOT_RUN:
        failure = Failure(0, "loading the program", f"crash: {report['load']}")
        return TestReport(0, total, failure, seconds, Status.CRASH)
    reason = "" if report["questions"] else _unusable(sandbox, tests)
    if reason:
        return TestReport.infra_failure(f"the tests cannot be run: {reason}")
    return _outcome(report, answerer, tests, seconds)


def _session(
    sandbox: AnySandbox, source: str, tests: AssertTests, limits: Limits, *, stop: bool
) -> tuple[Result, Result]:
    names = tests.names
    arguments = (
        tests.setup,
        "\n".join(tests.asserts),
        list(names.of_program),
        names.of_modules,
        tests.entry_point,
        stop,
    )
    own = Limits(
        cpu_seconds=_STATEMENTS_CPU,
        wall_seconds=limits.total_seconds + _STATEMENTS_CPU,
        total_seconds=limits.total_seconds + _REPORT_SECONDS,
        output_bytes=max(limits.output_bytes, 1 << 23),
    )
    return sandbox.converse(_ASKER, _ANSWERER, (arguments, (source, list(names.of_program))), (own, limits))


@lru_cache(maxsize=4096)
def _unusable(sandbox: AnySandbox, tests: AssertTests) -> str:
    """Return why the statements cannot be run, whatever the program is like, as an empty one shows; "" if they can."""
    asker, _ = _session(sandbox, "", tests, Limits(), stop=False)
    if asker.status is Status.OK:
        return "" if asker.value["questions"] else "they ask nothing of the program"
    return "" if asker.status is Status.INFRA_FAILURE else f"{asker.status}: {asker.cause}"


def _outcome(report: dict[str, Any], answerer: Result, tests: AssertTests, seconds: float) -> TestReport:
    passed, failed = report["passed"], report["failed"]
    scores = [_score(weight, passed.get(n, 0), failed.get(n, 0)) for n, weight in enumerate(tests.weights)]
    total = sum(tests.weights)
    is_alive = answerer.status is Status.NOT_RUN
    if report["failure"] is None and is_alive and passed:
        return TestReport(total, total, None, seconds)
    count = min(sum(scores), total - 1)
    if report["failure"] is None:
        if is_alive:
            return TestReport(count, total, Failure(count, "", "no assertion was reached"), seconds)
        asked = "loading the program" if "load" in report else report["asked"]
        failure = Failure.of(count, asked, answerer)
        return TestReport(count, total, failure, seconds, answerer.status)
    number, error, question, answer, ending = report["failure"]
    first = (
        sum(tests.weights[:number]) + min(passed.get(number, 0), tests.weights[number] - 1) if number >= 0 else count
    )
    status = Status.CRASH if ending == "crash" else Status.OK
    given = f"crash: {answer}" if status is Status.CRASH else answer or error
    texts = (shortened(text, BRIEF) for text in (question, given, tests.assertion(number)))
    return TestReport(count, total, Failure(first, *texts), seconds, status)


def _score(weight: int, passed: int, failed: int) -> int:
    """Return the tests that an assertion is worth, of as many as it is by itself.

    One that runs more often, because the program says so, is worth something only if it always holds.
    """
    return (
        weight if passed + failed > weight and not failed else min(passed, weight) if passed + failed <= weight else 0
    )
