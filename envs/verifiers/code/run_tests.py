"""Running the tests of one kind on a program, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...sandbox import AnySandbox, Limits, Program, Result, Status
from ...text import shortened

BRIEF = 300
"""Characters of an input or an output that are kept."""


@dataclass(frozen=True)
class Failure:
    """The first test that failed.

    Attributes:
        number: Which, from 0.
        input: The input, shortened.
        given: What the program returned or printed, or how it ended, shortened.
        expected: What it should have been, shortened; "" where that is not known by itself.
    """

    number: int
    input: str
    given: str
    expected: str = ""

    @classmethod
    def of(cls, number: int, input: str, result: Result, expected: str = "") -> Failure:
        """Describe the test that `result` comes from."""
        given = result.value if isinstance(result.value, str) else source_of(result.value)
        if result.status is not Status.OK:
            given = f"{result.status}: {result.cause}" if result.cause else str(result.status)
        return cls(number, *(shortened(text, BRIEF) for text in (input, given, expected)))


@dataclass(frozen=True)
class TestReport:
    """How running all tests ended.

    Attributes:
        passed: Tests passed.
        total: Tests there are.
        failure: The first that failed, or None.
        seconds: Wall time in the sandbox.
        status: How the program ended on the first test that failed; "infra_failure" when nothing is known.
    """

    passed: int
    total: int
    failure: Failure | None
    seconds: float
    status: Status = Status.OK

    @classmethod
    def infra_failure(cls, cause: str) -> TestReport:
        return cls(0, 0, Failure(0, "", cause), 0.0, Status.INFRA_FAILURE)


def run_tests(
    sandbox: AnySandbox,
    program: Program,
    inputs: Sequence[Any],
    is_right: Callable[[int, Any], bool],
    limits: Limits,
    *,
    describe: Callable[[int], tuple[str, str]],
    stop: bool,
) -> TestReport:
    """Run a program on every input and compare what it gives.

    Args:
        sandbox: Runs it.
        program: The program.
        inputs: The inputs.
        is_right: Whether a value is right for the input of that number.
        limits: What the program may take for each input.
        describe: Returns the input of that number, and what is expected for it, as text.
        stop: End with the first test that fails.
    """
    verdicts: dict[int, bool] = {}

    def is_enough(number: int, result: Result) -> bool:
        verdicts[number] = result.status is Status.OK and is_right(number, result.value)
        return stop and not verdicts[number]

    stop_at = _FAILED if stop else _TOO_MUCH
    results = sandbox.run(program, inputs, limits, stop_at=stop_at, stop=is_enough)
    results = tuple(result for result in results if result.status is not Status.NOT_RUN)
    seconds = sum(result.seconds for result in results)
    if results[-1].status is Status.INFRA_FAILURE:
        return TestReport.infra_failure(results[-1].cause)
    passed = [verdicts[number] for number in range(len(results))]
    if all(passed) and len(passed) == len(inputs):
        return TestReport(len(inputs), len(inputs), None, seconds)
    number = passed.index(False)
    failure = Failure.of(number, describe(number)[0], results[number], describe(number)[1])
    return TestReport(sum(passed), len(inputs), failure, seconds, results[number].status)


def source_of(value: Any) -> str:
    """Return a plain value as Python writes it, or say why it does not."""
    try:
        return repr(value)
    except ValueError:
        return f"a {type(value).__name__} with an integer of too many digits to be written"


_TOO_MUCH = frozenset({Status.TIMEOUT, Status.MEMORY, Status.OUTPUT_LIMIT, Status.INFRA_FAILURE})
"""After these a program is not tried on further inputs: each could cost as much again."""

_FAILED = frozenset(Status) - {Status.OK}
"""All endings that no value comes from."""
