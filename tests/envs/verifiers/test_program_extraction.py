"""Finding the program in an answer, and comparing what programs give."""

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.verifiers.code.values import (
    same_output,
    same_output_apps,
    same_output_codeforces,
    same_output_livecodebench,
    same_value,
)
from envs.verifiers.program_extraction import (
    MAX_FENCES,
    completed_function,
    fenced_blocks,
    fenced_program,
    with_preamble,
)

# --- extraction


@pytest.mark.parametrize(
    ("answer", "program"),
    [
        ("```python\nx = 1\n```", "x = 1\n"),
        ("```py\nx = 1\n```", "x = 1\n"),
        ("```Python\nx = 1\n```", "x = 1\n"),
        ("```python3 title=a.py\nx = 1\n```", "x = 1\n"),
        ("```\nx = 1\n```", "x = 1\n"),
        ("~~~\nx = 1\n~~~", "x = 1\n"),
        ("~~~~python\nx = 1\n~~~\n~~~~", "x = 1\n~~~\n"),
        ("```python\r\nx = 1\r\ny = 2\r\n```\r\nDone.", "x = 1\ny = 2\n"),
        ("First:\n```python\nx = 1\n```\nBetter:\n```python\nx = 2\n```\nDone.", "x = 2\n"),
        ("```python\nx = 1\n```\nIt prints\n```\n1\n```", "x = 1\n"),
        ("```python\nx = 1\n```\nRun\n```bash\npython x.py\n```", "x = 1\n"),
        ("1. Like this:\n   ```python\n   def f():\n       return 1\n   ```", "def f():\n    return 1\n"),
        ('```python\ndef f():\n    """\n    ```\n    f()\n    ```\n    """\n```', None),
        ('````python\ns = """\n```\n"""\n````', 's = """\n```\n"""\n'),
        ("<think>```python\nx = 0\n```</think>\n```python\nx = 1\n```", "x = 1\n"),
        ("thinking</think>```python\nx = 1\n```", "x = 1\n"),
        ("<think>```python\nx = 0\n</think>\n```python\nx = 1\n```", "x = 1\n"),
        ("```python\nx = '<think>'\n```", "x = '<think>'\n"),
        ("<think>a</think>```python\nx = '</think>'\n```", "x = '</think>'\n"),
        ("```python3.11\nx = 1\n```", "x = 1\n"),
        ("```python:main.py\nx = 1\n```", "x = 1\n"),
        ("```python\nx = 1\n```\n```python-repl\n>>> x\n```", "x = 1\n"),
        ("```python\nx = 1\n    ```", "x = 1\n"),
        ("```python\nx = 1\n\t```\nDone.", "x = 1\n"),
        ("```python\nx = 0\n    ```\nBetter:\n```python\nx = 1\n```", "x = 1\n"),
    ],
)
def test_programs(answer, program):
    if program is None:  # indented by four columns, fences are text of the docstring
        program = 'def f():\n    """\n    ```\n    f()\n    ```\n    """\n'
    assert fenced_program(answer) == program


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "print(1)",
        "```python\nx = 1",
        "```python\nx = 1\n```\nOr:\n```python\nx = 2",
        "```python\n```",
        "```python\n  \n```",
        "```cpp\nint main() {}\n```",
        "`print(1)`",
        "```print(1)```",
        "<think>```python\nx = 1\n```",
        "```python\nx = 1\n```\n<think>Is that right?",
        "```python\nx = 1\n```\n" * 60_000,
    ],
)
def test_no_program(answer):
    assert fenced_program(answer) is None


@given(st.lists(st.sampled_from(["```", "~~~", "```python", "`", " ", "\n", "x = 1", "</think>", "<think>"])))
def test_any_text_has_blocks(parts):
    text = "".join(parts)
    blocks = fenced_blocks(text)
    assert all(block.is_closed for block in blocks[:-1])
    assert all(line in text for block in blocks for line in block.text.splitlines())


@pytest.mark.parametrize("text", ["`" * 10**6, "```" + "a" * 10**6 + "`", "```\n" * 10**5, " \t" * 10**5 + "```"])
def test_extraction_takes_linear_time(text):
    start = time.process_time()
    fenced_program(text * 2)
    assert time.process_time() - start < 20  # quadratic would take hours


@pytest.mark.parametrize("tag", ["</think>\n", "<think>\n</think>\n"])
def test_a_text_of_more_tags_than_the_limit_has_no_program(tag):
    program = "```python\nx = 1\n```"
    assert fenced_program(tag * 1_000 + program) == "x = 1\n"
    assert fenced_program(tag * (MAX_FENCES + 1) + program) is None


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        ("    return 1\n", "    return 1\n"),
        ("    return 1\n\n\ndef g():\n    pass", "    return 1\n\n\n"),
        ("    x = [\n1,\n]\n    return x\nprint(f())", "    x = [\n"),
        ("    x = (\n    1\n)\n# note\n    return x\nassert f()", "    x = (\n    1\n)\n# note\n    return x\n"),
        ("    return 1\n```\nThat is it.", "    return 1\n"),
        (" 1 + 1\n    return x", " 1 + 1\n    return x"),
        ("", None),
        ("\n  \n", None),
        ("<think> return 1", None),
    ],
)
def test_completed_function(answer, body):
    assert completed_function(answer) == body


def test_a_preamble_leaves_future_imports_first():
    for names in (
        "annotations",
        "(annotations)",
        "(\n  annotations,  # all\n)",
        "annotations  # all",
        "\\\n annotations",
    ):
        program = with_preamble("import math\n", f"'''Doc.'''\nfrom __future__ import {names}\nx: Y = math.pi")
        exec(compile(program, "program", "exec"), {})
    exec(compile(with_preamble("N = 1", "\ufefffrom __future__ import annotations; x: Y = N"), "program", "exec"), {})
    assert with_preamble(" \n", "x = 1") == "x = 1"


# --- values

nan = math.nan
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=10,
)


@given(plain)
def test_a_value_is_the_same_as_itself(value):
    assert same_value(value, value)
    assert not same_value([value], value) and not same_value(value, [value])


@pytest.mark.parametrize(
    ("got", "expected", "is_same"),
    [
        (2.0, 2, True),
        (True, 1, True),
        (0.1 + 0.2, 0.3, True),
        (0.3 + 1e-8, 0.3, False),
        (10**30, 10**30 + 1, False),
        (10**400, 1.0, False),
        (10**400, math.inf, False),
        (math.inf, math.inf, True),
        (nan, nan, False),
        ([nan], [nan], False),
        ({"a": nan}, {"a": nan}, False),
        ((1, 2), [1, 2], True),
        ([1, 2], (1, 2), False),
        ([(1, 2)], [[1, 2]], True),
        ([1, 2], [1, 2, 3], False),
        ([1, 2], {1, 2}, False),
        ({1: [0.1 + 0.2]}, {1: [0.3]}, True),
        ({1: 2}, {1: 2, 3: 4}, False),
        ({1, 2}, {2, 1}, True),
        (frozenset({1}), {1}, True),
        ("1", 1, False),
        (1, "1", False),
        (b"a", "a", False),
        (None, 0, False),
        (1 + 1e-12j, 1 + 0j, True),
        (complex(nan, 0), complex(nan, 0), False),
    ],
)
def test_same_value(got, expected, is_same):
    assert same_value(got, expected) is is_same


def test_tolerance_of_values():
    assert same_value(1.01, 1.0, tolerance=0.02) and not same_value(1.01, 1.0, tolerance=0.001)
    assert not same_value(0.1 + 0.2, 0.3, tolerance=0.0)
    assert not same_value(101, 100, tolerance=0.001)


@pytest.mark.parametrize(
    ("got", "expected", "tolerance", "is_same"),
    [
        ("5\n", "5", 0.0, True),
        ("5", "5\n\n", 0.0, True),
        ("5  \n6\t\n", "5\n6", 0.0, True),
        ("5\r\n6\r\n", "5\n6\n", 0.0, True),
        ("", "", 0.0, True),
        (" 5", "5", 0.0, False),
        ("\n5", "5", 0.0, False),
        ("5\n\n6", "5\n6", 0.0, False),
        ("5 6", "5  6", 0.0, False),
        ("5.0", "5", 0.0, False),
        ("yes", "YES", 0.0, False),
        ("5.0", "5", 1e-6, True),
        ("x = 0.3333333", "x = 0.33333333333", 1e-6, True),
        ("x = 0.3333", "x = 0.33333333333", 1e-6, False),
        ("1 2", "1", 1e-6, False),
        ("1\n2", "1", 1e-6, False),
        ("nan", "nan", 1e-6, True),
        ("inf", "5", 1e-6, False),
        ("1e999999999", "5", 1e-6, False),
        ("1e", "5", 1e-6, False),
        ("1e-7", "0", 1e-6, True),
    ],
)
def test_same_output(got, expected, tolerance, is_same):
    assert same_output(got, expected, tolerance=tolerance) is is_same


@pytest.mark.parametrize(
    ("got", "expected", "by_apps", "by_livecodebench", "by_codeforces"),
    [
        (" 4", "4", True, True, True),
        ("1.0\n", "1", True, True, False),
        ("0.50 2", "0.5 2", False, True, False),
        ("1e3", "1000", True, True, False),
        ("1\n\n2", "1\n2", True, False, True),
        ("\n1\n", "1", True, True, True),
        ("0.333333", "0.3333333", True, False, False),
        ("x 1.0", "x 1", False, False, False),
        ("2 1", "1 2", False, False, False),
        ("1\n2", "1", False, False, False),
        ("", "1", False, False, False),
        ("nan", "5", False, False, False),
        ("1\n2", "1 2", False, False, True),
        ("yes", "YES", False, False, False),
    ],
)
def test_printing_rules_of_benchmarks(got, expected, by_apps, by_livecodebench, by_codeforces):
    assert same_output_apps(got, expected) is by_apps
    assert same_output_livecodebench(got, expected) is by_livecodebench
    assert same_output_codeforces(got, expected) is by_codeforces
