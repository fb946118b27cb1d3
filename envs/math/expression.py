r"""Arithmetic expressions as models write them, worked out exactly: `(50 - 8) × 7 / 2`.

Whole numbers, the four operations and parentheses, and nothing else: no signs, powers, decimals, names or calls,
so that an expression has no other numbers in it than those that stand there. Nothing is ever handed to `eval`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

_MAX_LENGTH = 400  # characters
_MAX_DIGITS = 9  # of one number
_MAX_DEPTH = 30  # of nested parentheses

_TOKEN = re.compile(r"\s*(?:(?P<number>[0-9]+)|(?P<symbol>[-+*/()]))\s*")
_SIGNS = str.maketrans("−–×·⋅∙∗÷∕", "--*****//")
_LATEX = {"\\times": "*", "\\cdot": "*", "\\div": "/", "\\left(": "(", "\\right)": ")"}
_DELIMITERS = re.compile(r"\$|\\[()\[\]]")


class ExpressionError(ValueError):
    """The text is no such expression, or it divides by zero; the message says where."""


@dataclass(frozen=True)
class Expression:
    """An expression's exact value, and the numbers written in it, from left to right."""

    value: Fraction
    numbers: tuple[int, ...]


def parse_expression(text: str) -> Expression:
    r"""Read all of `text` as one expression; `×`, `·`, `÷`, `−`, `\times`, `\cdot`, `\div` and `$` are fine.

    Raises:
        ExpressionError: It is anything else, longer than 400 characters, or divides by zero.
    """
    if len(text) > _MAX_LENGTH:
        raise ExpressionError(f"the expression has {len(text)} characters, more than {_MAX_LENGTH}")
    text = _DELIMITERS.sub(" ", text.translate(_SIGNS))
    for command, sign in _LATEX.items():
        text = text.replace(command, sign)
    tokens = []
    position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            raise ExpressionError(f"{text[position : position + 20].strip()!r} is no part of an expression")
        if len(token["number"] or "") > _MAX_DIGITS:
            raise ExpressionError(f"a number has {len(token['number'])} digits, more than {_MAX_DIGITS}")
        tokens.append(token["number"] or token["symbol"])
        position = token.end()
    return _Parser(tokens).whole()


class _Parser:
    """Recursive descent over: sum = product ((+ | -) product)*; product = factor ((* | /) factor)*."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = [*tokens, ""]  # "" ends them
        self._next = 0
        self._depth = 0
        self._numbers: list[int] = []

    def whole(self) -> Expression:
        value = self._sum()
        if self._tokens[self._next]:
            raise self._unexpected()
        return Expression(value, tuple(self._numbers))

    def _sum(self) -> Fraction:
        value = self._product()
        while sign := self._accept("+", "-"):
            value = value + self._product() if sign == "+" else value - self._product()
        return value

    def _product(self) -> Fraction:
        value = self._factor()
        while sign := self._accept("*", "/"):
            factor = self._factor()
            if sign == "/" and factor == 0:
                raise ExpressionError("it divides by zero")
            value = value * factor if sign == "*" else value / factor
        return value

    def _factor(self) -> Fraction:
        if self._accept("("):
            self._depth += 1
            if self._depth > _MAX_DEPTH:
                raise ExpressionError(f"more than {_MAX_DEPTH} parentheses are open")
            value = self._sum()
            if not self._accept(")"):
                raise self._unexpected()
            self._depth -= 1
            return value
        token = self._tokens[self._next]
        if not token.isdigit():
            raise self._unexpected()
        self._next += 1
        self._numbers.append(int(token))
        return Fraction(self._numbers[-1])

    def _accept(self, *symbols: str) -> str:
        token = self._tokens[self._next]
        if token not in symbols:
            return ""
        self._next += 1
        return token

    def _unexpected(self) -> ExpressionError:
        token = self._tokens[self._next]
        return ExpressionError(f"{token!r} comes unexpectedly" if token else "the expression ends too early")
