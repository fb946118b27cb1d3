r"""Exact numbers as people and models write them: `1,234`, `-0.25`, `\frac{1}{2}`, `1\frac12`, `3\cdot 10^8`.

Integers of any length are read without Python's limit on digits (a global setting that is not ours to
change) and compared without a greatest common divisor, so cost stays near that of one multiplication.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

_MAX_DEPTH = 20  # of nested fractions and parentheses
_MAX_DIGITS = 100_000  # of a power that is worked out
_MAX_BITS = 400_000  # of a product to which a factor is added
_LEAST_POWER_OF_TWO = 10  # exponent of one that is the size of a number and no arithmetic
_CHUNK = 4_000  # digits that `int` reads under every setting of its limit

_POINT = re.compile(r"\(\d{1,3}(?:,\d{3})+\)")
_TOKEN = re.compile(
    r"(?P<number>(?:(?!0)\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d*)?|\.\d+|\.(?=\\overline))"
    r"(?P<repeating>\\overline\{\d{1,50}\})?(?:[eE](?P<exponent>[-+]?\d{1,5})(?!\w))?"
    r"|(?P<symbol>\\frac|\\times|\\cdot|\\div|[-+*/^(){}%])"
    r"|\s+"
)


@dataclass(frozen=True)
class Rational:
    """`numerator / denominator`, not reduced, denominator above 0.

    Attributes:
        percent: It was written with a percent sign, which is not part of the value.
        evaluated: It is a number, and not arithmetic that leaves the work to the reader, such as `17 * 2`, `6 \\div 2`
            or `115^2`. Fractions of numbers are numbers, and so are powers of ten (`3 \\cdot 10^8`) and powers of two
            from `2^{10}` on.
        plain: It is written with digits alone, as a whole number, a decimal or a fraction of such.
    """

    numerator: int
    denominator: int = 1
    percent: bool = False
    evaluated: bool = True
    plain: bool = True

    def equals(self, other: Rational) -> bool:
        """Whether the values are the same; 50% equals both 50 and 0.5, and differs from 0.5%.

        A number below 1 and a percentage are the same only if the percentage is worked out: 0.5 is 50% and not 0.5%.
        """
        left = self.numerator * other.denominator
        right = other.numerator * self.denominator
        if self.percent == other.percent:
            return left == right
        number = other if self.percent else self
        is_share = self.percent and 0 < abs(number.numerator) < number.denominator
        return (left == right and not is_share) or (left == 100 * right if self.percent else 100 * left == right)


@lru_cache(maxsize=64)
def parse_rational(text: str) -> Rational | None:
    """Read all of `text` as one number; None if it is anything else, or too large to be worked out."""
    tokens: list[re.Match[str]] = []
    position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            return None
        position = token.end()
        if token.lastgroup:
            tokens.append(token)
    try:
        return _Parser(tokens).whole()
    except (_NotANumber, ZeroDivisionError):
        return None


def read_number(text: str) -> Rational | None:
    """Read an answer as one number, as `parse_rational` does; `(1,234)` is a point."""
    return None if _POINT.fullmatch(text) else parse_rational(text)


class _NotANumber(Exception):
    """The text is no number."""


class _Parser:
    """Recursive descent over: value = sign? factor ((times | / | nothing) factor)*; factor = base (^ integer)?"""

    def __init__(self, tokens: list[re.Match[str]]) -> None:
        self._tokens = tokens
        self._next = 0
        self._depth = 0
        self._fractions = 0  # read so far

    def whole(self) -> Rational:
        value = self._value()
        percent = self._accept("%") is not None
        if self._next < len(self._tokens):
            raise _NotANumber
        return Rational(value.numerator, value.denominator, percent, value.evaluated, value.plain)

    def _value(self) -> Rational:
        sign = -1 if self._accept("-", "+") == "-" else 1
        value, _ = self._factor()
        numerator, denominator = sign * value.numerator, value.denominator
        evaluated = value.evaluated and not (sign < 0 and value.numerator < 0)
        plain, quotients = value.plain, 0
        while operator := self._accept("\\times", "\\cdot", "*", "/", "\\div") or self._side_by_side():
            factor, is_power_of_ten = self._factor()
            if max(numerator.bit_length(), denominator.bit_length()) > _MAX_BITS:
                raise _NotANumber
            if operator in ("/", "\\div"):
                if factor.numerator == 0:
                    raise _NotANumber
                quotients += 1
                numerator, denominator = numerator * factor.denominator, denominator * factor.numerator
                evaluated = evaluated and operator == "/" and quotients == 1
                plain = plain and factor.plain
            else:
                numerator, denominator = numerator * factor.numerator, denominator * factor.denominator
                evaluated = evaluated and is_power_of_ten and operator != "("
                plain = False
            evaluated = evaluated and factor.evaluated
        if denominator < 0:
            numerator, denominator = -numerator, -denominator
        return Rational(numerator, denominator, evaluated=evaluated, plain=plain)

    def _factor(self) -> tuple[Rational, bool]:
        base = self._base()
        if not self._accept("^"):
            return base, False
        exponent = self._exponent()
        digits = max(base.numerator.bit_length(), base.denominator.bit_length()) * abs(exponent) // 3
        if digits > _MAX_DIGITS or (base.numerator == 0 and exponent <= 0):
            raise _NotANumber
        is_ten = base.numerator == 10 and base.denominator == 1
        is_size = base.numerator == 10 or (base.numerator == 2 and not 0 <= exponent < _LEAST_POWER_OF_TWO)
        evaluated = base.plain and base.denominator == 1 and is_size
        numerator, denominator = base.numerator ** abs(exponent), base.denominator ** abs(exponent)
        if exponent < 0:
            numerator, denominator = denominator, numerator
        if denominator < 0:
            numerator, denominator = -numerator, -denominator
        return Rational(numerator, denominator, evaluated=evaluated, plain=False), is_ten

    def _base(self) -> Rational:
        if self._accept("\\frac"):
            return self._fraction()
        if self._accept("("):
            return self._group(")")
        if self._accept("{"):
            return self._group("}")
        token = self._peek()
        if token is None or token["number"] is None:
            raise _NotANumber
        self._next += 1
        number = _decimal(token["number"], token["repeating"], int(token["exponent"] or 0))
        if number.denominator == 1 and self._accept("\\frac"):  # a mixed number
            part = self._fraction()
            if not 0 <= part.numerator < part.denominator:
                raise _NotANumber
            return Rational(number.numerator * part.denominator + part.numerator, part.denominator)
        return number

    def _side_by_side(self) -> str | None:
        """Return "(" if a factor in parentheses follows without a sign, as in `(2)(17)`."""
        token = self._peek()
        return "(" if self._next and token is not None and token["symbol"] == "(" else None

    def _fraction(self) -> Rational:
        parts = []
        fractions = self._fractions
        for _ in range(2):
            if not self._accept("{"):
                raise _NotANumber
            parts.append(self._group("}"))
        is_nested, self._fractions = self._fractions > fractions, self._fractions + 1
        above, below = parts
        if below.numerator == 0:
            raise _NotANumber
        sign = -1 if below.numerator < 0 else 1
        return Rational(
            sign * above.numerator * below.denominator,
            sign * above.denominator * below.numerator,
            evaluated=above.evaluated and below.evaluated and not is_nested,
            plain=above.plain and below.plain,
        )

    def _group(self, closing: str) -> Rational:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _NotANumber
        value = self._value()
        if not self._accept(closing):
            raise _NotANumber
        self._depth -= 1
        return value

    def _exponent(self) -> int:
        braced = self._accept("{")
        sign = -1 if self._accept("-", "+") == "-" else 1
        token = self._peek()
        if token is None or token["number"] is None or not token["number"].isdecimal() or len(token[0]) > 6:
            raise _NotANumber
        self._next += 1
        if braced and not self._accept("}"):
            raise _NotANumber
        return sign * int(token["number"])

    def _peek(self) -> re.Match[str] | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def _accept(self, *symbols: str) -> str | None:
        token = self._peek()
        if token is None or token["symbol"] not in symbols:
            return None
        self._next += 1
        return token["symbol"]


def _decimal(digits: str, repeating: str | None, exponent: int) -> Rational:
    r"""Read "1,234.5", "1.5" with the exponent 3 of `1.5e3`, and "0.1" with a following `\overline{6}` as 1/6."""
    whole, _, decimals = digits.replace(",", "").partition(".")
    numerator, denominator = read_integer(whole + decimals), 10 ** len(decimals)
    numerator, denominator = numerator * 10 ** max(exponent, 0), denominator * 10 ** max(-exponent, 0)
    if repeating is None:
        return Rational(numerator, denominator)
    if "." not in digits:
        raise _NotANumber
    if exponent:
        raise _NotANumber
    period = repeating.partition("{")[2][:-1]
    nines = 10 ** len(period) - 1
    return Rational(numerator * nines + int(period), denominator * nines)


def read_integer(digits: str) -> int:
    """Read a string of decimal digits of any length."""
    if len(digits) <= _CHUNK:
        return int(digits or "0")
    middle = len(digits) // 2
    return read_integer(digits[:-middle]) * 10**middle + read_integer(digits[-middle:])
