"""Arithmetic expressions: worked out exactly, and nothing else read."""

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.math.expression import ExpressionError, parse_expression


@pytest.mark.parametrize(
    ("text", "value", "numbers"),
    [
        ("7", 7, (7,)),
        ("1 + 2 * 3", 7, (1, 2, 3)),
        ("(1 + 2) * 3", 9, (1, 2, 3)),
        ("10 - 4 - 3", 3, (10, 4, 3)),
        ("100 / 10 / 5", 2, (100, 10, 5)),
        ("1 / 3 + 2 / 3", 1, (1, 3, 2, 3)),
        ("5 / 2", Fraction(5, 2), (5, 2)),
        ("((((8))))-(9)", -1, (8, 9)),
        ("8 × 3 ÷ 2 − 1", 11, (8, 3, 2, 1)),
        ("8·3 – 1", 23, (8, 3, 1)),
        (r"$\left(8 \times 3\right) \div 2 \cdot 1$", 12, (8, 3, 2, 1)),
        (r"\(8*3\)", 24, (8, 3)),
    ],
)
def test_worked_by_hand(text, value, numbers):
    expression = parse_expression(text)
    assert (expression.value, expression.numbers) == (value, numbers)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "ends too early"),
        ("3 +", "ends too early"),
        ("(3 + 4", "ends too early"),
        ("3 + 4)", r"'\)' comes unexpectedly"),
        ("3 4", "'4' comes unexpectedly"),
        ("3(4)", r"'\(' comes unexpectedly"),
        ("-3", "'-' comes unexpectedly"),
        ("3 * -4", "'-' comes unexpectedly"),
        ("3 ** 4", r"'\*' comes unexpectedly"),
        ("3 // 4", "'/' comes unexpectedly"),
        ("()", r"'\)' comes unexpectedly"),
        ("3 / (2 - 2)", "divides by zero"),
        ("3.5", "'.5' is no part"),
        ("1_000", "'_000' is no part"),
        ("3^2", r"'\^2' is no part"),
        ("3 % 2", "'% 2' is no part"),
        ("3!", "'!' is no part"),
        ("0x10", "'x10' is no part"),
        ("1e3", "'e3' is no part"),
        ("٣ + 4", "is no part"),
        ("²", "is no part"),
        ("__import__('os')", "is no part"),
        ("3 + 4 or 5", "'or 5' is no part"),
        ("3 = 3", "'= 3' is no part"),
        ("9" * 10, "10 digits, more than 9"),
        ("9" * 401, "401 characters, more than 400"),
        ("(" * 31 + "1" + ")" * 31, "more than 30 parentheses"),
    ],
)
def test_what_is_no_expression(text, message):
    with pytest.raises(ExpressionError, match=message):
        parse_expression(text)


trees = st.recursive(
    st.integers(0, 99).map(str),
    lambda inner: st.builds("({}{}{})".format, inner, st.sampled_from("+-*/"), inner),
    max_leaves=12,
)


@given(trees)
def test_agrees_with_python(text):
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    python = re.sub(r"\d+", r"Fraction(\g<0>)", text)
    try:
        value = eval(python, {"Fraction": Fraction})
    except ZeroDivisionError:
        with pytest.raises(ExpressionError, match="divides by zero"):
            parse_expression(text)
        return
    expression = parse_expression(text)
    assert expression.value == value and list(expression.numbers) == numbers


@given(st.text(alphabet="0123456789+-*/() .=_^eE\\$×÷", max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        parse_expression(text)
    except ExpressionError as error:
        assert str(error)
