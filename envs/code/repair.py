"""`code/Repair-v0`: programs judged by tests, with several attempts."""

from __future__ import annotations

import builtins
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..sandbox import Status
from .program import ProgramEnv


def _kind_of(status: Status, cause: str) -> str:
    """Return how a program ended without its own words, which may hold the input: at most a class of Python's."""
    words = re.findall(r"\b[A-Z]\w+\b", cause)
    return next((f"{status}: {word}" for word in words if isinstance(getattr(builtins, word, None), type)), str(status))


class RepairEnv(ProgramEnv):
    """Write a Python program that passes tests, and mend it when it does not.

    ## Description
    The problems of `code/Program-v0`, in many turns: as long as the program fails, the environment answers with the
    first test that failed, and the model gives the whole program again. For that test it is shown the input and what
    the program made of it. What was expected is shown only for tests that the prompt shows anyway (the one in an MBPP
    prompt, the public ones of LiveCodeBench); for all others it stays hidden, or the next program could print it.

    ## Action Space
    `UnicodeText`: the model's answer, as in `code/Program-v0`; every turn gives the whole program.

    ## Observation Space
    `UnicodeText`: the problem, then what is wrong with the last program.

    ## Reward
    As in `code/Program-v0`, for the last program; 0 before.

    ## Episode End
    With a right program, or after `max_turns`; truncated if an action is a `Completion` with `finish_reason="length"`.

    ## Information
    As in `code/Program-v0`.

    ## Arguments
    Those of `code/Program-v0`, with `format=` for the rows of a well-known data set, and
    - `max_turns=3`: most programs of one episode, at least 2.
    - `show_inputs=True`: False keeps the inputs of hidden tests hidden too: only how the program failed is shown.

    ## Version History
    - v0: first version.
    """

    def __init__(self, *, max_turns: int = 3, show_inputs: bool = True, **arguments: Any) -> None:
        if isinstance(max_turns, bool) or not isinstance(max_turns, int) or max_turns < 2:
            raise ValueError(f"max_turns={max_turns!r} must be an integer of at least 2; code/Program-v0 has one turn")
        super().__init__(**arguments)
        self.max_turns = max_turns
        self.show_inputs = show_inputs

    def reply(self, row: Mapping[str, Any], turns: Sequence[str]) -> str | None:
        outcome = self.outcome(row, turns[-1])
        if outcome is None:
            return f"The answer does not hold {self.style.form}. Give the whole program in that form."
        failure = outcome.failure
        if failure is None or outcome.status is Status.INFRA_FAILURE:
            return None
        is_shown = failure.number < row["problem"].shown
        parts = [f"The program fails test {failure.number + 1} of {outcome.total}."]
        is_open = self.show_inputs or is_shown
        if is_open and failure.input:
            parts.append(f"Input:\n{failure.input}")
        if outcome.status is not Status.OK:
            parts.append(
                f"It ended like this:\n{failure.given if is_open else _kind_of(outcome.status, failure.given)}"
            )
        elif is_open:
            parts.append(f"It gave:\n{failure.given}")
        if is_shown and failure.expected:
            parts.append(f"Expected:\n{failure.expected}")
        return "\n\n".join([*parts, "Mend it, and give the whole program again in the same form."])
