"""Addition and subtraction column by column, as text, with the option to get a single step wrong.

    47 + 85:   7+5+0=12 write 2 carry 1
               4+8+1=13 write 3 carry 1
               Answer: 132

A step only sees what the previous one wrote, so an error made in one column reaches the answer the way it
does for a person who makes one slip and goes on correctly. A step that is off by d in column i moves the
answer by exactly d * 10**i.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Operation = Literal["+", "-"]
Corrupt = Callable[[int, int, int], tuple[int, int]]
"""`corrupt(column, digit, carry) -> (digit, carry)`: what a step writes instead; column 0 is the ones."""


@dataclass(frozen=True)
class Step:
    """One column: its digits, the carry (or borrow) coming in, and what is written and passed on."""

    operation: Operation
    above: int
    below: int
    carry_in: int
    digit: int
    carry: int

    @property
    def total(self) -> int:
        """What this step takes its column to come to; negative where it borrows."""
        return self.digit + (10 if self.operation == "+" else -10) * self.carry

    def __str__(self) -> str:
        op = self.operation
        word = "carry" if op == "+" else "borrow"
        column = f"{self.above}{op}{self.below}{op}{self.carry_in}={self.total}"
        return f"{column} write {self.digit} {word} {self.carry}"


def worked_steps(a: int, operation: Operation, b: int, *, corrupt: Corrupt | None = None) -> list[Step]:
    """Work out `a + b` or `a - b` from the ones upwards, each step going on from the one before.

    Args:
        a: First operand, at least 0.
        operation: "+" or "-".
        b: Second operand, at least 0, and at most `a` for "-".
        corrupt: Called in every column with what the step should write; what it returns is written instead.

    Raises:
        ValueError: An operand or operation out of range, or `corrupt` returned no digit and carry.
    """
    if operation not in ("+", "-"):
        raise ValueError(f"worked_steps: operation={operation!r} must be '+' or '-'")
    if a < 0 or b < 0 or (operation == "-" and b > a):
        raise ValueError(f"worked_steps: {a} {operation} {b}: operands must be at least 0, and a - b needs b <= a")
    sign = 1 if operation == "+" else -1
    steps: list[Step] = []
    carry = 0
    for column in range(max(len(str(a)), len(str(b)))):
        above, below = a // 10**column % 10, b // 10**column % 10
        carry_in = carry
        total = above + sign * (below + carry_in)
        digit, carry = total % 10, int(not 0 <= total <= 9)
        if corrupt is not None:
            digit, carry = corrupt(column, digit, carry)
            if digit not in range(10) or carry not in (0, 1):
                raise ValueError(f"corrupt returned {(digit, carry)}: a digit from 0 to 9 and a carry of 0 or 1")
        steps.append(Step(operation, above, below, carry_in, digit, carry))
    return steps


def composed_answer(steps: list[Step]) -> int:
    """Read the answer off the written digits and the last carry (or borrow)."""
    top = steps[-1].total * 10 ** (len(steps) - 1)
    return top + sum(step.digit * 10**column for column, step in enumerate(steps[:-1]))


def render(steps: list[Step]) -> str:
    """Write the steps as text, a line each, and the answer that follows from them on the last line."""
    return "\n".join([*map(str, steps), f"Answer: {composed_answer(steps)}"])


def worked_solution(a: int, operation: Operation, b: int, *, corrupt: Corrupt | None = None) -> str:
    """Return the whole worked text of `a + b` or `a - b`; see `worked_steps` for the arguments and errors."""
    return render(worked_steps(a, operation, b, corrupt=corrupt))
