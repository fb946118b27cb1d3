"""How a program is asked for and how it is found again: one object, so that they agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..verifiers.code.tests import CallTests, StdinTests
from ..verifiers.program_extraction import completed_function, fenced_program, with_preamble
from .problems import Problem

_FENCED = "Give the whole program in one block of this form:\n\n```python\n# the program\n```"


@dataclass(frozen=True)
class ProgramStyle:
    """A way to ask for a program, and to read it from an answer.

    Attributes:
        form: What it asks for, in words.
        prompt: Returns the prompt for a problem.
        program: Returns the program in an answer to a problem, as the tests run it, or None if there is none.
        answer: Returns the answer that gives this program, for `TaskEnv.solution`.
    """

    form: str
    prompt: Callable[[Problem], str]
    program: Callable[[Problem, str], str | None]
    answer: Callable[[Problem, str], str]


def _fenced_prompt(problem: Problem) -> str:
    tests = problem.make_tests()
    if isinstance(tests, StdinTests):
        use = "Write a Python program that reads from standard input and prints to standard output."
    elif isinstance(tests, CallTests):
        owner, _, name = tests.entry_point.rpartition(".")
        use = f"Write it in Python, as a {f'method `{name}` of a class `{owner}`' if owner else f'function `{name}`'}."
    else:
        use = "Write it in Python."
    return f"{problem.text}\n\n{use} {_FENCED}"


def _fenced(problem: Problem, answer: str) -> str | None:
    program = fenced_program(answer)
    if program is None:
        return None
    if problem.unfinished and program.lstrip("\n")[:1].isspace():  # the body of the function alone
        return problem.unfinished + program
    return with_preamble(problem.preamble, program)


def _completion(problem: Problem, answer: str) -> str | None:
    body = completed_function(answer)
    return None if body is None else problem.unfinished + body


def _in_fences(problem: Problem, program: str) -> str:
    return f"```python\n{program.rstrip()}\n```"


def _unfinished(problem: Problem) -> str:
    return problem.unfinished


def _rest(problem: Problem, program: str) -> str:
    return program.removeprefix(problem.unfinished)


STYLES = {
    "fenced": ProgramStyle(
        form="a closed block of Python code",
        prompt=_fenced_prompt,
        program=_fenced,
        answer=_in_fences,
    ),
    "completion": ProgramStyle(
        form="the rest of the function",
        prompt=_unfinished,
        program=_completion,
        answer=_rest,
    ),
}
"""Every answer style by name."""
