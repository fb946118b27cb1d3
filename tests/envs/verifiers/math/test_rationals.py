"""Exact numbers in all their notations, at any size."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.verifiers.math.judge import judge
from envs.verifiers.math.rationals import parse_rational, read_integer


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("34", Fraction(34)),
        ("-1,234.50", Fraction("-1234.5")),
        (".5", Fraction(1, 2)),
        ("+7.", Fraction(7)),
        (r"\frac{1}{-2}", Fraction(-1, 2)),
        (r"-\frac{6}{4}", Fraction(-3, 2)),
        (r"1\frac{1}{2}", Fraction(3, 2)),
        (r"-1\frac{1}{2}", Fraction(-3, 2)),
        ("1/2/2", Fraction(1, 4)),
        (r"0.1\overline{6}", Fraction(1, 6)),
        (r"1.5\times 10^{3}", Fraction(1500)),
        ("2^{-3}", Fraction(1, 8)),
        ("(-2)^{3}", Fraction(-8)),
        ("(-2)^{-3}", Fraction(-1, 8)),
        ("((34))", Fraction(34)),
        ("50%", Fraction(50)),
        ("1.5e3", Fraction(1500)),
        ("2E-3", Fraction(1, 500)),
        (r".\overline{3}", Fraction(1, 3)),
        ("2(17)", Fraction(34)),
    ],
)
def test_rationals(text, value):
    number = parse_rational(text)
    assert Fraction(number.numerator, number.denominator) == value and number.denominator > 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "1,2",
        "12,34",
        "3 4",
        "1+1",
        "1 - 1",
        "1/0",
        r"\frac{1}{0}",
        r"\frac{1}",
        "0^0",
        "0^{-1}",
        "10^{1000000}",
        "10^{10^{10}}",
        "9^{9^9}",
        "(",
        "(" * 1000 + "1" + ")" * 1000,
        "1..2",
        "%",
        "^2",
        "34e",
        "1e100000",
        "0x22",
        "0,111",
        r"2\frac{3}{2}",
        "*".join(["9^{9999}"] * 100),
    ],
)
def test_no_rationals(text):
    assert parse_rational(text) is None


@given(st.integers(), st.integers(1), st.integers(1, 1000))
def test_fractions_compare_exactly(numerator, denominator, factor):
    written = parse_rational(rf"\frac{{{numerator * factor}}}{{{denominator * factor}}}")
    assert written.equals(parse_rational(f"{numerator}/{denominator}"))
    assert not written.equals(parse_rational(f"{numerator * denominator + 1}/{denominator * denominator}"))


@given(st.integers(1, 9), st.integers(0, 20_000))
def test_integers_of_any_length_are_read(first, zeros):
    assert read_integer(f"{first}" + "0" * zeros) == first * 10**zeros


def test_percent():
    half, fifty, percent = (parse_rational(text) for text in ("0.5", "50", "50%"))
    assert percent.equals(fifty) and percent.equals(half) and half.equals(percent) and percent.equals(percent)
    assert not half.equals(fifty) and not parse_rational("0.5%").equals(percent)


def test_only_a_number_is_evaluated():
    evaluated = ["34", "68/2", r"3\cdot 10^{8}", "2^{10}", r"1\frac{1}{2}"]
    left_to_the_reader = [r"17\cdot 2", "17*2", "2(17)", "(2)(17)", r"\frac{17*2}{3}"]
    assert [parse_rational(text).evaluated for text in evaluated + left_to_the_reader] == [True] * 5 + [False] * 5


def test_long_numbers_are_exact():
    gold = "7" * 20_000
    assert judge(gold, gold).verdict == "correct"
    assert judge("0" + gold, gold).verdict == "correct"
    assert judge(gold[:-1] + "8", gold).verdict == "wrong"
    assert judge(rf"\frac{{{gold}}}{{2}}", rf"\frac{{{gold}}}{{2}}").verdict == "correct"
