"""Comparing what a program gave with what was expected: plain values on both sides, so that `==` runs no hostile code.

The sandbox lets values of builtin types through and nothing else. Among those, numbers are equal as Python has it:
2.0 is 2 and True is 1, because the tests of the published data sets are written with `==` and honest programs rely
on it. NaN equals nothing.
"""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from itertools import zip_longest
from typing import Any

DEFAULT_TOLERANCE = 1e-9
"""Relative tolerance of floats in values that calls return."""


def same_value(got: Any, expected: Any, *, tolerance: float = DEFAULT_TOLERANCE) -> bool:
    """Whether a returned value is the expected one.

    A list is expected where JSON has one, so that a tuple will do for it; where a tuple is expected, a list will not.

    Args:
        got: Plain value that a program returned.
        expected: Plain value.
        tolerance: Relative tolerance of floats; 0 for none. Integers, and all within sets and keys, compare exactly.
    """
    if isinstance(got, (list, tuple)) and isinstance(expected, (list, tuple)):
        return (
            (type(got) is type(expected) or isinstance(expected, list))
            and len(got) == len(expected)
            and all(same_value(*pair, tolerance=tolerance) for pair in zip(got, expected, strict=True))
        )
    if isinstance(got, dict) and isinstance(expected, dict):
        return got.keys() == expected.keys() and all(
            same_value(value, expected[key], tolerance=tolerance) for key, value in got.items()
        )
    if isinstance(got, (float, complex)) or isinstance(expected, (float, complex)):
        return _same_number(got, expected, tolerance)
    return bool(got == expected)


def same_output(got: str, expected: str, *, tolerance: float = 0.0) -> bool:
    """Whether a program printed what was expected: whitespace at the end of lines, and of the text, does not count.

    Args:
        got: What it printed.
        expected: What it should print.
        tolerance: Above 0, words that are numbers in both texts may differ by that much, relative or absolute.
    """
    pairs = zip_longest(_lines(got), _lines(expected))
    return all(one == other or (tolerance > 0 and _same_words(one, other, tolerance)) for one, other in pairs)


def same_output_apps(got: str, expected: str) -> bool:
    """Whether a program printed what was expected, as the grader of APPS has it.

    Whitespace at both ends of lines and blank lines do not count; lines that are numbers may differ a little. That the
    published one also takes words and lines in any order is left out: it pays wrong programs.
    """
    pairs = zip_longest(*([line.strip() for line in text.split("\n") if line.strip()] for text in (got, expected)))
    return all(one == other or _close(one, other) for one, other in pairs)


def same_output_livecodebench(got: str, expected: str) -> bool:
    """Whether a program printed what was expected, as the grader of LiveCodeBench has it.

    Whitespace at both ends of lines and of the text does not count; lines of numbers compare as decimals do: 1.0 is 1.
    """
    pairs = zip_longest(*([line.strip() for line in text.strip().split("\n")] for text in (got, expected)))
    return all(one == other or _same_decimals(one, other) for one, other in pairs)


def same_output_codeforces(got: str, expected: str) -> bool:
    """Whether a program printed what was expected, as the checker of most Codeforces problems has it.

    The words are the same; spaces and line ends between them do not count. Checkers of single problems (any case for
    YES, distances of numbers, several right answers) are not known here.
    """
    return got.split() == expected.split()


def _close(got: str | None, expected: str | None) -> bool:
    try:
        one, other = float(got or ""), float(expected or "")
    except ValueError:
        return False
    return abs(one - other) <= 1e-8 + 1e-5 * abs(other)


def _same_decimals(got: str | None, expected: str | None) -> bool:
    if got is None or expected is None:
        return False
    try:
        return [*map(Decimal, got.split())] == [*map(Decimal, expected.split())]
    except ArithmeticError:  # a word is no number
        return False


def _lines(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _same_words(got: str | None, expected: str | None, tolerance: float) -> bool:
    if got is None or expected is None:
        return False
    words = zip_longest(got.split(), expected.split())
    return all(one == other or _same_printed_number(one, other, tolerance) for one, other in words)


def _same_printed_number(got: str | None, expected: str | None, tolerance: float) -> bool:
    if got is None or expected is None:
        return False
    try:
        one, other = Decimal(got), Decimal(expected)
        difference = abs(one - other)
        return difference.is_finite() and float(difference) <= tolerance * max(1.0, abs(float(other)))
    except ArithmeticError:  # no number, or one beyond what decimals hold
        return False


def _same_number(got: Any, expected: Any, tolerance: float) -> bool:
    if got == expected:
        return True
    try:
        got = float(got) if isinstance(got, (Decimal, Fraction)) else got
        if not isinstance(got, (int, float, complex)) or not isinstance(expected, (int, float, complex)):
            return False
        if isinstance(got, complex) or isinstance(expected, complex):
            difference = abs(got - expected)
            return math.isfinite(difference) and difference <= tolerance * max(abs(got), abs(expected))
        return math.isclose(got, expected, rel_tol=tolerance, abs_tol=0.0)
    except OverflowError:  # an integer beyond all floats
        return False
