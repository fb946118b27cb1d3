r"""One spelling for each answer, its parts, its unit, and what its relation signs say."""

import pytest

from envs.verifiers.math.intervals import Assignment, Interval, assignment, chain, interval, region, value_of
from envs.verifiers.math.latex import brackets, clean, matrix_rows, word_form
from envs.verifiers.math.notation import split
from envs.verifiers.math.units import contradict, split_unit


@pytest.mark.parametrize(
    ("answer", "cleaned"),
    [
        (r"$\boxed{x = ½}$.", r"x = \frac{1}{2}"),
        (r"\dfrac12", r"\frac{1}{2}"),
        (r"\frac\pi4", r"\frac{\pi}{4}"),
        (r"\left(1,\;2\right)", "(1, 2)"),
        (r"12\,345", "12345"),
        (r"98,\!770", "98,770"),
        (r"\$40", "¤40"),
        ("$40", "¤40"),
        ("−3", "-3"),
        (r"90^\circ", "90"),
        ("1 234 567", "1234567"),
        ("3 4", "3 4"),
        ("x^10", "x^{10}"),
        ("x² + y₁₂", "x^{2} + y_{12}"),
        ("{1}/{x+1}", "1/(x+1)"),
        (r"\mathbf{34}", "34"),
        (r"\textcolor{red}{34}", "34"),
        (r"0.\bar3", r"0.\overline{3}"),
        (r"\mathbb R", r"\mathbb{R}"),
        ("The answer is 34. I hope it is correct.", "34"),
        ("It isn't $34$", "It isn't $34$"),
        ("$1$ and $2$", "1, 2"),
        ("34...", "34..."),
        (r"4\text{ or }5", "4, 5"),
        (r"50\%", "50%"),
        ("the number is $34$", "34"),
        ("not $34$", "not $34$"),
        ("1 1/2", r"1\frac{1}{2}"),
        ("{1, 2}", r"\{1, 2\}"),
        (r"\text{Yes}", "Yes"),
        ("2√3", r"2\sqrt{3}"),
    ],
)
def test_clean(answer, cleaned):
    assert clean(answer) == cleaned


def test_parts():
    assert split("1, (2, 3], \\frac{1}{2}") == ["1", "(2, 3]", "\\frac{1}{2}"]
    assert brackets("(1, 2]") == ("(]", "1, 2")
    assert brackets(r"\{1\}") == ("{}", "1")
    assert brackets("(1)(2)") == ("", "(1)(2)")
    assert matrix_rows(r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}") == [["1", "2"], ["3", "4"]]
    assert matrix_rows("(1)") is None


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("Yes", "yes"),
        ("(B)", "B"),
        ("Monday", "monday"),
        (r"x \text{ only}", "x only"),
        ("xy", None),
        (r"\sqrt{2}", None),
        ("sin x", None),
        ("34", None),
    ],
)
def test_word_form(answer, words):
    assert word_form(answer) == words


@pytest.mark.parametrize(
    ("answer", "value", "unit"),
    [
        (r"5\text{ cm}^{2}", "5", {"cm", "^2"}),
        (r"8\sqrt{3} \text{ square inches}", r"8\sqrt{3}", {"in", "^2"}),
        ("18 eggs per day", "18", {"day"}),
        ("5 m/s", "5", {"m", "s"}),
        ("60 mph", "60", {"mi", "h"}),
        ("¤40", "40", {"dollar"}),
        ("-¤40", "-40", {"dollar"}),
        ("5 apples", "5", set()),
        ("5 million", "5 million", set()),
        ("5 squared", "5 squared", set()),
        (r"5\text{ dozen}", r"5\text{ dozen}", set()),
        (r"n \text{ is even}", r"n \text{ is even}", set()),
        ("12xy", "12xy", set()),
        ("5ab", "5ab", set()),
        ("5m", "5m", set()),
        ("5 x", "5 x", set()),
        (r"12\pi", r"12\pi", set()),
        ("Monday", "Monday", set()),
    ],
)
def test_units(answer, value, unit):
    assert split_unit(answer) == (value, unit)


def test_units_contradict_only_where_both_say_something():
    cm, m, area, volume = ({"cm"}, {"m"}, {"cm", "^2"}, {"cm", "^3"})
    assert contradict(cm, m) and contradict(area, volume) and contradict(cm, area)
    assert not contradict(set(), m) and not contradict({"^2"}, {"cm"})


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("x = 5", "x", "5"),
        ("5 = x", "x", "5"),
        (r"\angle ABC = 34", r"\angleABC", "34"),
        ("(x, y) = (1, 2)", "(x,y)", "(1, 2)"),
        (r"x \in [1,2)", "x", "[1,2)"),
        ("f(2) = 3", "f(2)", "3"),
        (r"P(A \cap B) = 3", r"P(A\capB)", "3"),
        ("AB:CD = 3:2", "AB:CD", "3:2"),
    ],
)
def test_assignments(text, name, value):
    assert assignment(text) == Assignment(name, value)


@pytest.mark.parametrize(
    "text",
    ["5", "2x = 5", "x + y = 5", "x(x+1) = 5", r"\log x = 5", "x^{2} = 5", "x = y = 5", "x > 5", "34 = 33", "x ="],
)
def test_no_assignments(text):
    assert assignment(text) is None


def test_values():
    assert [value_of(text) for text in ("x = 5", "P(1,2)", "P = (1,2)", "f(x)")] == ["5", "(1,2)", "(1,2)", "f(x)"]


@pytest.mark.parametrize(
    ("text", "variable", "intervals"),
    [
        ("x > 3", "x", [("3", r"\infty", False, False)]),
        (r"3 \le x", "x", [("3", r"\infty", True, False)]),
        (r"2 < x \le 5", "x", [("2", "5", False, True)]),
        (r"5 \ge x > 2", "x", [("2", "5", False, True)]),
        ("x > 2, x < 5", "x", [("2", "5", False, False)]),
        ("x > 5, x < 2", "x", [(r"-\infty", "2", False, False), ("5", r"\infty", False, False)]),
        (r"x \ne 2", "x", [(r"-\infty", "2", False, False), ("2", r"\infty", False, False)]),
        (r"(1,2)\cup\{3\}", "", [("1", "2", False, False), ("3", "3", True, True)]),
        (r"\{x \mid x > 3\}", "x", [("3", r"\infty", False, False)]),
        (r"\mathbb{R}", "", [(r"-\infty", r"\infty", False, False)]),
    ],
)
def test_regions(text, variable, intervals):
    found = region(text)
    assert found.variable == variable and list(found.intervals) == [Interval(*piece) for piece in intervals]


@pytest.mark.parametrize(
    "text", ["5", "(1,2)", "x = 3", "x > y > z", "x + y > 3", "x > 3, y > 3", "x > 3, x > 4", "1, 2"]
)
def test_no_regions(text):
    assert region(text) is None


def test_an_interval_may_look_like_a_point():
    assert interval("(1, 2]").intervals == (Interval("1", "2", False, True),)
    assert interval("(1, 2, 3)") is None and interval("{1, 2}") is None


def test_chains_are_read_from_the_small_end():
    assert chain(r"f(4) > f(1) \ge f(2)") == (["f(2)", "f(1)", "f(4)"], [r"\le", "<"])
    assert chain("a < b > c") == (["a", "b", "c"], ["<", ">"])
