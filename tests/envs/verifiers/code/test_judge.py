"""Tests of programs: read, run in the sandbox, judged outside of it."""

import os
import re
import sys
import threading

import pytest

from envs.sandbox import Limits, Result, Sandbox, Status
from envs.sandbox.zygote_client import Channel
from envs.verifiers.code.asserts import AssertedCall
from envs.verifiers.code.judge import Grading, judge, outcome_of
from envs.verifiers.code.shared_cache import SharedCache
from envs.verifiers.code.tests import read_tests

code = sys.modules[judge.__module__]
QUICK = Limits(cpu_seconds=1.0, wall_seconds=20.0)


def asserting(*asserts, setup="", **more):
    return read_tests({"kind": "assert", "setup": setup, "asserts": list(asserts), **more}, "row 0")


def calling(entry_point, *pairs):
    inputs, outputs = [list(given) for given, _ in pairs], [right for _, right in pairs]
    return read_tests({"kind": "call", "entry_point": entry_point, "inputs": inputs, "outputs": outputs}, "row 0")


def printing(*pairs):
    inputs, outputs = [given for given, _ in pairs], [right for _, right in pairs]
    return read_tests({"kind": "stdin", "inputs": inputs, "outputs": outputs}, "row 0")


def verdict(program, tests, **settings):
    return judge(program, tests, Grading(limits=QUICK, **settings)).verdict.value


# --- reading tests


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        (None, "row 3: its tests are None: give a dict with 'kind'"),
        ([], "row 3: its tests are []: give a dict with 'kind'"),
        ({}, "row 3: its tests have kind=None: it must be 'stdin', 'call' or 'assert'"),
        ({"kind": "unit"}, "row 3: its tests have kind='unit'"),
        ({"kind": ["stdin"]}, "row 3: its tests have kind=['stdin']"),
        ({"kind": "stdin", "inputs": [], "outputs": []}, "row 3 has no tests (inputs is empty): every program would"),
        ({"kind": "stdin", "inputs": ["1"]}, "row 3: its tests have outputs=None: it must be a list"),
        ({"kind": "stdin", "inputs": "12", "outputs": "34"}, "row 3: its tests have inputs='12': it must be a list"),
        ({"kind": "stdin", "inputs": ["1", "2"], "outputs": ["1"]}, "row 3 has 2 inputs and 1 outputs"),
        ({"kind": "stdin", "inputs": [1], "outputs": ["1"]}, "row 3: its tests have 1 in inputs: it must be text"),
        ({"kind": "stdin", "inputs": ["1"], "outputs": ["1"], "x": 1}, "row 3: its tests have ['x']"),
        ({"kind": "call", "inputs": [[1]], "outputs": [1]}, "row 3: its tests have entry_point=None"),
        ({"kind": "call", "entry_point": "a b", "inputs": [[1]], "outputs": [1]}, "entry_point='a b': it must name a"),
        ({"kind": "call", "entry_point": "f", "inputs": [1], "outputs": [1]}, "inputs[0] is 1: it must be a list of"),
        (
            {"kind": "call", "entry_point": "f", "inputs": [[1]], "outputs": [object()]},
            "row 3: outputs[0] is no plain value: an object of type 'object'",
        ),
        ({"kind": "assert", "asserts": []}, "row 3 has no tests (asserts is empty)"),
        ({"kind": "assert", "asserts": ["assert f("]}, "row 3: 'assert f(' is no Python: '(' was never closed"),
        ({"kind": "assert", "asserts": ["assert f()"], "setup": "import"}, "row 3: 'import' is no Python"),
        ({"kind": "assert", "asserts": ["f(1) == 2"]}, "row 3: nothing is asserted in 'f(1) == 2'"),
        ({"kind": "assert", "asserts": ["assert 1 + 1 == 2"]}, "does not call anything that a program could define"),
        (
            {"kind": "assert", "setup": "def f(): return 1", "asserts": ["assert f() == 1"]},
            "does not call anything that a program could define",
        ),
    ],
)
def test_bad_tests(tests, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read_tests(tests, "row 3")


@pytest.mark.parametrize(
    ("assertion", "call"),
    [
        ("assert f(1, [2]) == {'a': (1,)}", AssertedCall((1, [2]), "==", {"a": (1,)})),
        ("assert -1 == f(-1)", AssertedCall((-1,), "==", -1)),
        ("assert f(1), 'message'", AssertedCall((1,), "true")),
        ("assert not f(1)", AssertedCall((1,), "false")),
        ("assert f() is None", AssertedCall((), "is", None)),
        ("assert (f(set()) is True)", AssertedCall((set(),), "is", True)),
        ("assert f(3 * 19 - 1, 'a' + 'b') == [2 * 3.5]", AssertedCall((56, "ab"), "==", [7.0])),
        ("assert f(2 ** 3, 2.0 / 4) == -1 ** 0", AssertedCall((8, 0.5), "==", -1)),
        ("assert abs(f(1) - 2.0 / 4) < 1e-6", AssertedCall((1,), "near", 0.5, 1e-6)),
    ],
)
def test_single_calls_are_read_out_of_asserts(assertion, call):
    assert asserting(assertion, setup="import math\n").calls == ("f", (call,))


@pytest.mark.parametrize(
    ("returned", "is_right"),
    [
        ("0.5 + 1e-7", True),
        ("0.5 + 1e-5", False),
        ("'0.5'", False),
        ("None", False),
        ("float('nan')", False),
        ("1 + 2j", False),
        ("10 ** 400", False),
        ("[0.5]", False),
        ("Fraction(1, 2)", True),
    ],
)
def test_a_call_that_is_near_a_number(returned, is_right):
    program = f"from fractions import Fraction\ndef f(x): return {returned}"
    tests = asserting("assert abs(f(1) - 0.5) < 1e-6")
    assert tests.calls is not None and (verdict(program, tests) == "correct") is is_right
    whole = asserting("for n in [1]:\n    assert abs(f(n) - 0.5) < 1e-6")
    assert whole.calls is None and (verdict(program, whole) == "correct") is is_right


@pytest.mark.parametrize("setup", ["def abs(x): return 0", "from numpy import abs", "abs = 3"])
def test_another_abs_is_not_taken_for_that_of_python(setup):
    assert asserting("assert abs(f(1) - 2) < 1", setup=setup).calls is None


@pytest.mark.parametrize("expression", ["1 / 0", "2 ** 10 ** 9", "(1 << 70) ** 2", "0 ** -1", "10 ** 64 * 10.0 ** 64"])
def test_what_is_no_small_number_is_not_worked_out_here(expression):
    assert asserting(f"assert f(1) == {expression} + f(2)").calls is None
    assert asserting(f"assert f(1) == {expression}").calls is None or expression.endswith("64")


def test_single_calls_are_read_out_of_a_function_that_checks():
    check = "def check(g):\n    'Tests.'\n    assert g(1) == 2, 'one'\n    assert True, 'prints'\n    assert not g(0)"
    before = "import math\nA = {'author': 'x'}\n\ndef f(x: int):\n    'To be done.'\n\n"
    tests = asserting("check(f)", setup=before + check, entry_point="f")
    assert tests.calls == ("f", (AssertedCall((1,), "==", 2), AssertedCall((0,), "false")))
    without_effect = check.replace("assert True, 'prints'", "import random\n    print")
    assert asserting("check(f)", setup=before + without_effect, entry_point="f").calls == tests.calls
    assert verdict("def f(x): return 2 * x", tests) == "correct" and verdict("def f(x): return 2", tests) == "wrong"
    for other in (
        check.replace("(g)", "(g, n=2)"),
        check.replace("g(1) == 2", "f(1) == 2"),
        check.replace("assert True", "assert False"),
        check.replace("assert True", "for n in range(3): assert g(n) ==  n #"),
        f"@staticmethod\n{check}",
        f"{check}\nprint(check)",
        f"{check}\nN = math.pi",
        check + "\n" + check,
    ):
        assert asserting("check(f)", setup=before + other, entry_point="f").calls is None
    assert asserting("check(f)", "check(f)", setup=before + check, entry_point="f").calls is None


@pytest.mark.parametrize(
    "assertion",
    [
        "assert f(1) == [1] * 3",
        "assert f('a' * 10 ** 10) == 2 ** 3",
        "assert f(x=1) == 1",
        "assert abs(f(1) - 0.5) <= 1e-6",
        "assert abs(f(1) - 'a') < 1e-6",
        "assert abs(0.5 - f(1)) < 1e-6",
        "assert set(f(1)) == {1}",
        "assert f(1) in [1, 2]",
        "assert f(1) == f(2)",
        "assert f(1) == g(1)",
        "assert f(1) != 2",
        "assert f(1) == 1 and f(2) == 2",
        "assert f(f(1)) == 1",
        "assert f(1)[0] == 1",
        "for i in range(3):\n    assert f(i) == i",
    ],
)
def test_other_asserts_are_run(assertion):
    assert asserting(assertion).calls is None


# --- judging


def test_all_or_a_fraction():
    tests = calling("f", ([1], 1), ([2], 4), ([3], 3), ([4], 16))
    program = "def f(x): return x"
    whole, part = (judge(program, tests, Grading(reward)) for reward in ("all", "fraction"))
    assert (whole.verdict, whole.accuracy, whole.details["tests_passed"], whole.details["tests"]) == ("wrong", 0, 1, 4)
    assert (part.verdict, part.accuracy, part.details["tests_passed"]) == ("wrong", 0.5, 2)
    assert whole.cause == part.cause == "test 2 of 4: 'f(2)' gave '2'"
    right = judge("def f(x): return x ** 2 if x % 2 == 0 else x", tests, Grading("fraction"))
    assert (right.verdict, right.accuracy, right.cause) == ("correct", 1.0, "")
    assert right.details["seconds"] > 0


def test_fractions_go_on_after_crashes_and_end_with_timeouts():
    tests = calling("f", *[([x], x) for x in range(10)])
    crashing = judge("def f(x): return [1 / (x % 2)] and x", tests, Grading("fraction", limits=QUICK))
    assert (crashing.verdict, crashing.accuracy) == ("crash", 0.5)
    hanging = judge("def f(x):\n    while x == 3: pass\n    return x", tests, Grading("fraction", limits=QUICK))
    assert (hanging.verdict, hanging.accuracy) == ("timeout", 0.3)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return x + 1", "correct"),
        ("return x", "wrong"),
        ("return object()", "wrong"),
        ("raise ValueError(x)", "crash"),
        ("import sys; sys.exit()", "crash"),
        ("while True: pass", "timeout"),
        ("return 'x' * 10 ** 10", "timeout"),
        ("return 'x' * 10 ** 7", "crash"),
    ],
)
@pytest.mark.parametrize("kind", ["call", "single", "harness"])
def test_verdicts(kind, body, expected):
    tests = {
        "call": calling("f", ([1], 2)),
        "single": asserting("assert f(1) == 2"),
        "harness": asserting("for i in range(3):\n    assert f(i) == i + 1"),
    }[kind]
    assert verdict(f"def f(x):\n    {body}", tests) == expected


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("print(int(input()) * 2)", "correct"),
        ("import sys\nprint(int(sys.stdin.read()) * 2, end='  \\n\\n')\nsys.exit(0)", "correct"),
        ("print(int(input()) * 2)\nraise SystemExit(1)", "crash"),
        ("print(2)", "wrong"),
        ("print(int(input()) * 2.0)", "wrong"),
        ("x = int(input(); print(2 * x)", "crash"),
        ("while True: pass", "timeout"),
        ("while True: print('x' * 10 ** 6)", "crash"),
    ],
)
def test_verdicts_on_standard_output(program, expected):
    assert verdict(program, printing(("1\n", "2\n"), ("2\n", "4\n"))) == expected


def test_tolerance_is_the_tasks():
    tests = printing(("", "0.333333333"))
    assert verdict("print(1 / 3)", tests) == "wrong" and verdict("print(1 / 3)", tests, tolerance=1e-6) == "correct"
    tests = calling("f", ([], 1.0))
    assert verdict("def f(): return 1.01", tests) == "wrong"
    assert verdict("def f(): return 1.01", tests, tolerance=0.1) == "correct"
    assert verdict("def f(): return 1.01", asserting("assert f() == 1.0"), tolerance=0.1) == "wrong"


# --- asserts that run apart from the program


@pytest.mark.parametrize(
    ("program", "setup", "asserts"),
    [
        ("def f(x): return x / 3", "", ["assert abs(f(1) - 0.333333) < 1e-5"]),
        ("def f(x): return x / 3", "", ["assert math.isclose(f(1), 1 / 3)"]),
        ("def f(x): return x / 3", "from math import isclose", ["assert isclose(f(1), 1 / 3)"]),
        ("def f(x): return [3, 1, 2]", "", ["assert set(f(0)) == set([1, 2, 3])", "assert sorted(f(0)) == [1, 2, 3]"]),
        ("def f(x): return 2", "", ["assert f(0) in [1, 2]", "assert f(0) != 3", "assert 1 < f(0) < 3"]),
        ("def f(n): return [1] * n", "", ["assert f(3) == [1] * 3"]),
        ("def f(a, b=2): return a - b", "", ["assert f(b=1, a=3) == 2", "assert f(*[5]) == 3"]),
        ("def f(x): return x", "", ["assert f(f(f(7))) == 7", "assert f(1) == f(1)"]),
        ("def f(x): return x", "N = 5\ndef g(y): return 2 * y", ["for i in range(N):\n    assert f(g(i)) == 2 * i"]),
        ("def f(x): return int(x)", "", ["y = f('12')\nassert y == 12", "assert y + 1 == 13"]),
        ("def f(n): return n // 2", "", ["n, k = 100, 0\nwhile n:\n    n, k = f(n), k + 1\nassert k == 7"]),
        ("def f(*xs): return type(xs[-1]).__name__", "", ["assert f(1, int) == 'type'"]),
        ("def f(x): return repr(x)", "", ["assert f(float('inf')) == 'inf'", "assert f(float('nan')) == 'nan'"]),
        ("def f(x): return x.days", "import datetime", ["assert f(datetime.timedelta(days=3)) == 3"]),
        ("def f(x): return sum(x)", "", ["assert f({1, 2}) == 3", "assert f(set()) == 0", "assert f(range(3)) == 3"]),
        ("def f(x): return x + 1", "", ["assert f(10 ** 5000) == 10 ** 5000 + 1"]),
        (
            "def f(x):\n    if x < 0: raise ValueError(x)\n    return x",
            "",
            ["try:\n    f(-1)\nexcept ValueError:\n    pass\nelse:\n    assert False\nassert f(1) == 1"],
        ),
        (
            "class Node:\n    def __init__(self, v): self.v, self.next = v, None\n"
            "def total(n): return n.v + (total(n.next) if n.next else 0)",
            "root = Node(1)\nroot.next = Node(2)\nroot.next.next = Node(3)",
            ["assert total(root) == 6", "assert root.next.v == 2", "assert total(Node(4)) == 4"],
        ),
        (
            "class Stack:\n    def __init__(self): self.items = []\n    def push(self, x): self.items.append(x)\n"
            "    def pop(self): return self.items.pop()",
            "",
            ["s = Stack()\ns.push(1)\ns.push(2)\nassert s.pop() == 2\nassert s.pop() == 1"],
        ),
        ("import numpy as np\ndef f(x): return np.arange(x)", "", ["assert np.allclose(f(3), [0, 1, 2])"]),
        (
            "from __future__ import annotations\ndef f(x: X): return sqrt(x)",
            "from math import sqrt",
            ["assert f(4) == 2"],
        ),
    ],
)
def test_programs_that_satisfy_asserts(program, setup, asserts):
    tests = asserting(*asserts, setup=setup)
    found = judge(program, tests, Grading(limits=QUICK))
    assert (found.verdict.value, found.cause) == ("correct", "")
    assert found.details["tests"] == found.details["tests_passed"] >= 1
    broken = re.sub(r"\breturn\b", "return None and", program)
    assert verdict(broken, tests) in ("wrong", "crash")


@pytest.mark.parametrize(
    ("program", "asserts", "expected"),
    [
        ("def f(x): return object()", ["assert f(1) != 2"], "wrong"),
        ("def f(x): return object()", ["assert f(1)", "assert f(1) != 2"], "wrong"),
        ("def f(x): return []", ["for y in f(1):\n    assert y > 0"], "wrong"),
        ("def f(x): raise ValueError", ["try:\n    f(1)\nexcept ValueError:\n    pass\nassert f(2) == 2"], "crash"),
        ("def f(x) return x", ["try:\n    f(1)\nexcept Exception:\n    assert True"], "crash"),
        ("raise SystemExit", ["try:\n    f(1)\nexcept Exception:\n    assert True"], "crash"),
        (
            "def f(x):\n    while x: pass",
            ["try:\n    f(1)\nexcept Exception:\n    pass\nassert f(0) is None"],
            "timeout",
        ),
        ("def f(x): return x[0]", ["y = f([1])[0]\nassert y == 1"], "wrong"),
        ("def f(x): x = x + [1]", ["x = []\nf(x)\nassert x == [1] or f(x)"], "wrong"),
    ],
)
def test_programs_that_fail_asserts(program, asserts, expected):
    assert verdict(program, asserting(*asserts)) == expected


@pytest.mark.parametrize(
    ("asserts", "cause"),
    [
        (["import os\nos._exit(0)\nassert f(1)"], "the tests cannot be run: crash"),
        (["if False:\n    assert f(1)"], "the tests cannot be run: they ask nothing of the program"),
    ],
)
def test_asserts_that_cannot_be_run_are_no_fault_of_the_program(asserts, cause):
    found = judge("def f(x): return x", asserting(*asserts), Grading(limits=QUICK))
    assert found.verdict == "infra_failure" and found.cause.startswith(cause)


def test_fractions_of_asserts_count_each_assertion():
    tests = asserting("def check(g):\n    for i in range(10):\n        assert g(i) == i", "check(f)", entry_point="f")
    found = judge("def f(x): return x if x < 7 else 0", tests, Grading("fraction"))
    assert (found.accuracy, found.details["tests_passed"], found.details["tests"]) == (0.7, 7, 10)
    assert found.cause == "test 8 of 10: 'f(7)' gave '0'"
    for ending in ("exit()", "__import__('os')._exit(0)"):
        found = judge(f"def f(x): return x if x < 1 else {ending}", tests, Grading("fraction"))
        assert (found.accuracy, found.details["tests"]) == (0.1, 10)


def test_the_tests_say_what_each_assertion_is_worth():
    """A program that makes an assertion run more often wins nothing by it."""
    tests = asserting("for x in f(3):\n    assert x < 3", "assert len(f(3)) == 3")
    assert judge("def f(n): return range(n)", tests, Grading("fraction")).accuracy == 1
    assert judge("def f(n): return [0] * 10_000", tests, Grading("fraction")).accuracy == 0.5
    assert judge("def f(n): return [0] * 10_000 + [9]", tests, Grading("fraction")).accuracy == 0


def test_one_budget_over_all_tests():
    slow = "import time\ndef f(x):\n    time.sleep(0.4)\n    return x"
    limits = Limits(total_seconds=1.0)
    for tests in (
        calling("f", *[([x], x) for x in range(20)]),
        asserting(*[f"assert f({x}) + 0 == {x}" for x in range(20)]),
    ):
        for reward in ("all", "fraction"):
            found = judge(slow, tests, Grading(reward, limits=limits))
            assert found.verdict == "timeout" and found.accuracy <= 0.2 and found.details["seconds"] < 10
    found = judge("import time\ntime.sleep(0.4)", printing(*[("", "")] * 20), Grading(limits=limits))
    assert found.verdict == "timeout" and found.details["tests_passed"] <= 2


def test_programs_that_differ_in_surrogates_are_different():
    tests = calling("f", ([], 1))
    assert verdict("def f(): return len('\\ud800')", tests) == "correct"
    assert verdict("def f(): return len('\ud800')", tests) == "crash"  # Python reads no such text


@pytest.mark.parametrize(
    ("setup", "asserts", "message"),
    [
        ("import pytest", ["with pytest.raises(ValueError):\n    f(1)\nassert f(2)"], "they import 'pytest'"),
        ("from solution import f", ["assert f(1) > 0"], "they import 'solution'"),
        ("", ["def test_f():\n    assert f(1) == 1"], "nothing calls 'test_f', which holds assertions"),
        ("", ["class TestF:\n    def test(self):\n        assert f(1) == 1"], "nothing calls 'TestF', which holds"),
        ("class D(Animal):\n    pass", ["assert D().legs == 4"], "their class 'D' derives from 'Animal'"),
    ],
)
def test_rows_whose_tests_cannot_be_run_are_refused(setup, asserts, message):
    with pytest.raises(ValueError, match=f"row 0: its tests cannot be run: {message}"):
        asserting(*asserts, setup=setup)


def test_a_program_never_meets_its_tests(monkeypatch):
    """Whatever is sent to where the program runs holds inputs, and nothing of what is expected."""
    sent = []
    send = Channel.send

    def spy(self, *files):
        texts = [os.pread(file, 1 << 20, 0).decode().partition("SECRET_PROGRAM") for file in files]
        sent.extend(text for _, program, text in texts if program)
        send(self, *files)

    monkeypatch.setattr(Channel, "send", spy)
    program = "def f(x): return 'SECRET_PROGRAM'"
    for tests in (
        printing(("in1", "31337")),
        calling("f", (["in2"], 31337)),
        asserting("assert f('in3') == 31337"),
        asserting("assert sorted([f('in4')]) == [31337]", setup="EXPECTED = 31337"),
        asserting("def check(g):\n    assert abs(g('in5') - 31337) < 1", "check(f)", entry_point="f"),
    ):
        assert verdict(program, tests) == "wrong"
    assert len(sent) == 5 and all(any(f"in{n}" in text for text in sent) for n in range(1, 4))
    assert not any("31337" in text or "assert" in text for text in sent)


def test_nothing_of_the_tests_is_in_the_files_of_a_program():
    """It returns the answer if it finds it, as it does where the statements hand it over."""
    program = """
import os
def f(x):
    texts = []
    for file in range(10):
        try: texts.append(os.pread(file, 1 << 20, 0))
        except OSError: pass
    return 31000 + 337 if str(31000 + 337) in str(texts) else 0
"""
    assert verdict(program, asserting("assert sorted([f(1)]) == [31337]", setup="EXPECTED = 31337")) == "wrong"
    assert verdict(program, asserting("assert sorted([f(31337)]) == [31337]")) == "correct"


# --- each program once


def test_identical_programs_run_once(monkeypatch):
    runs = []
    run = code._run
    monkeypatch.setattr(code, "_run", lambda *args: runs.append(args) or run(*args))
    tests = calling("f", ([1], 1))
    results = []

    def work():
        results.append(outcome_of("def f(x):\n    for _ in range(10 ** 6): pass\n    return x", tests, Grading()))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs) == 1 and len(results) == 8 and len(set(map(id, results))) == 1
    same_tests = calling("f", ([1], 1))
    assert outcome_of("def f(x):\n    for _ in range(10 ** 6): pass\n    return x", same_tests, Grading()) is results[0]
    outcome_of("def f(x): return 0", tests, Grading())
    outcome_of("def f(x): return 0", tests, Grading("fraction"))
    outcome_of("def f(x): return 0", calling("f", ([1], 2)), Grading())
    assert len(runs) == 4


def test_timeouts_and_our_own_failures_are_not_remembered(monkeypatch):
    tests = calling("f", ([1], 1))
    slow = "def f(x):\n    while True: pass"
    assert outcome_of(slow, tests, Grading(limits=QUICK)) is not outcome_of(slow, tests, Grading(limits=QUICK))
    program = "def f(x): return [x][0]"
    broken = Result(Status.INFRA_FAILURE, cause="the sandbox failed twice")
    monkeypatch.setattr(Sandbox, "run", lambda *args, **settings: (broken,))
    assert judge(program, tests, Grading()).verdict == "infra_failure"
    monkeypatch.undo()
    assert judge(program, tests, Grading()).verdict == "correct"


def test_once_forgets_what_was_not_asked_for_the_longest():
    worked = []
    once = SharedCache(2)

    def get(key):
        return once.get(key, lambda: worked.append(key) or key)

    for key in "abacab":
        get(key)
    assert worked == ["a", "b", "c", "b"]


def test_once_passes_errors_on_and_tries_again():
    once = SharedCache(2)
    with pytest.raises(ZeroDivisionError):
        once.get("a", lambda: 1 / 0)
    assert once.get("a", lambda: 1) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reward": "some"}, "reward='some' must be 'all' or 'fraction'"),
        ({"tolerance": -1}, "tolerance=-1 must be a number from 0 to below 1 (relative), or None"),
        ({"tolerance": float("nan")}, "tolerance=nan must be"),
    ],
)
def test_bad_gradings(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Grading(**settings)
