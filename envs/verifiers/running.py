"""Running the tests of one kind on a program, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..sandbox import Limits, Program, Result, Status

_FIRST_INPUTS = 1  # most wrong programs fail the first test: few inputs at first, then ever more at a time
_GROWTH = 4
_BRIEF = 300  # characters of an input or an output


class Run(Protocol):
    """Runs programs: `Sandbox.run`."""

    def __hash__(self) -> int: ...

    def __call__(
        self, program: Program, inputs: Sequence[Any], limits: Limits | None = None, *, stop_at_failure: bool = False
    ) -> tuple[Result, ...]: ...


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
        return cls(number, brief(input), brief(given), brief(expected))


@dataclass(frozen=True)
class Outcome:
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
    def infra_failure(cls, cause: str) -> Outcome:
        return cls(0, 0, Failure(0, "", cause), 0.0, Status.INFRA_FAILURE)


def run_tests(
    run: Run,
    program: Program,
    inputs: Sequence[Any],
    is_right: Callable[[int, Any], bool],
    limits: Limits,
    *,
    describe: Callable[[int], tuple[str, str]],
    stop: bool,
) -> Outcome:
    """Run a program on every input and compare what it gives.

    Args:
        run: Runs programs in the sandbox.
        program: The program.
        inputs: The inputs.
        is_right: Whether a value is right for the input of that number.
        limits: What the program may take for each input.
        describe: Returns the input of that number, and what is expected for it, as text.
        stop: End with the first test that fails.
    """
    verdicts: list[bool] = []

    def go_on(number: int, result: Result) -> bool:
        verdicts.append(result.status is Status.OK and is_right(number, result.value))
        return result.status not in TOO_MUCH and (verdicts[-1] or not stop)

    results = run_inputs(run, program, inputs, limits, go_on=go_on)
    seconds = sum(result.seconds for result in results)
    if results[-1].status is Status.INFRA_FAILURE:
        return Outcome.infra_failure(results[-1].cause)
    if all(verdicts) and len(verdicts) == len(inputs):
        return Outcome(len(inputs), len(inputs), None, seconds)
    number = verdicts.index(False)
    failure = Failure.of(number, describe(number)[0], results[number], describe(number)[1])
    return Outcome(sum(verdicts), len(inputs), failure, seconds, results[number].status)


def run_inputs(
    run: Run,
    program: Program,
    inputs: Sequence[Any],
    limits: Limits,
    *,
    go_on: Callable[[int, Result], bool],
    first: int = _FIRST_INPUTS,
) -> tuple[Result, ...]:
    """Run a program on inputs in order until `go_on`, asked after each, says no.

    After a failure the program is loaded afresh, as it is for each of the ever longer runs of inputs, of which the
    one at the beginning has `first`.
    """
    results: list[Result] = []
    size = first
    while len(results) < len(inputs):
        for result in run(program, inputs[len(results) : len(results) + size], limits, stop_at_failure=True):
            if result.status is Status.NOT_RUN:
                break
            results.append(result)
            if not go_on(len(results) - 1, result):
                return tuple(results)
        if program.mode != "stdin":  # there each input has a process of its own, and nothing is saved
            size *= _GROWTH
    return tuple(results)


def source_of(value: Any) -> str:
    """Return a plain value as Python writes it, or say why it does not."""
    try:
        return repr(value)
    except ValueError:
        return f"a {type(value).__name__} with an integer of too many digits to be written"


def brief(text: str, most: int = _BRIEF) -> str:
    """Return a text with its middle left out if it is long."""
    half = (most - 5) // 2
    return text if len(text) <= most else f"{text[:half]} ... {text[-half:]}"


TOO_MUCH = frozenset({Status.TIMEOUT, Status.MEMORY, Status.OUTPUT_LIMIT, Status.INFRA_FAILURE})
"""After these a program is not tried on further inputs: each could cost as much again."""
