"""The code tasks: reference solutions pass, broken ones fail, rows of every published form are read."""

import ast
import base64
import gzip
import json
import pickle
import re
import zlib
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path

import gymnasium
import pytest
from gymnasium.envs.registration import EnvSpec

import envs
from envs.code.packed import unpack

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
LIMITS = {"cpu_seconds": 10.0, "wall_seconds": 60.0}

DOUBLE = {"prompt": "Double it.", "tests": {"kind": "stdin", "inputs": ["1\n", "2\n"], "outputs": ["2\n", "4\n"]}}
ADD = {
    "prompt": "Add two numbers.",
    "tests": {"kind": "call", "entry_point": "add", "inputs": [[1, 2], [3, 4]], "outputs": [3, 7]},
    "level": 2,
    "code": "def add(a, b): return a + b",
}


def fenced(program):
    return f"```python\n{program}\n```"


def make(name="code/Program-v0", **kwargs):
    return gymnasium.make(name, **kwargs)


def step(env, index, *turns):
    env.reset(options={"index": index})
    for turn in turns:
        result = env.step(turn)
    return result


def verdict(env, index, program):
    return step(env, index, fenced(program))[4]["verdict"]


# --- the published solutions


def published(name, file):
    if not (SHARED / file).is_file():
        pytest.skip(f"{file} is not there")
    return make(name, path=SHARED / file, limits=LIMITS)


def judge_all(env, answers):
    """Judge (index, answer) pairs, several at a time."""
    task = env.unwrapped
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda pair: task.verify(task.row(pair[0]), pair[1]), answers))


PUBLISHED = [("code/HumanEval-v0", "HumanEval.jsonl.gz", 164), ("code/MBPP-v0", "mbpp.jsonl", 974)]
EXCEPTIONS: dict[str, dict[int, str]] = {"code/HumanEval-v0": {}, "code/MBPP-v0": {}}
"""For each data set the rows whose own solution does not pass, and why."""


@pytest.mark.parametrize(("name", "file", "count"), PUBLISHED)
def test_every_reference_solution_passes(name, file, count):
    env = published(name, file)
    assert env.unwrapped.num_rows == count
    found = judge_all(env, [(index, env.unwrapped.solution(index)) for index in range(count)])
    failed = {index: judgement for index, judgement in enumerate(found) if judgement.verdict != "correct"}
    assert failed.keys() == EXCEPTIONS[name].keys(), failed
    assert len(failed) <= 0.01 * count


HELPER = """
def _altered(value):
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, (int, float, complex)):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, (list, tuple)):
        return type(value)([*value, 0])
    if isinstance(value, set):
        return value | {"x"}
    return {**value, "x": 0} if isinstance(value, dict) else None
"""
MUTATIONS = {
    "another value of the same type": "_altered({0})",
    "the value in a list": "[{0}]",
    "nothing": "None",
    "an exception": "1 / 0",
}


def mutated(program, names, returned):
    """Return a program in which what one of these functions returns is replaced."""

    class Returns(ast.NodeTransformer):
        def visit_Return(self, node):
            value = ast.unparse(node.value) if node.value else "None"
            return ast.parse(f"return {returned.format(f'({value})')}").body[0]

    tree = ast.parse(program)
    places = [i for i, node in enumerate(tree.body) if isinstance(node, ast.FunctionDef) and node.name in names]
    tree.body[places[-1]] = Returns().visit(tree.body[places[-1]])
    return HELPER + ast.unparse(ast.fix_missing_locations(tree))


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize(("name", "file", "count"), PUBLISHED)
def test_broken_solutions_fail(name, file, count, mutation):
    """Every solution with the first mutation, some of them with the others."""
    env = published(name, file)
    answers = []
    for index in range(0, count, 1 if mutation == next(iter(MUTATIONS)) else 9):
        problem = env.unwrapped.row(index)["problem"]
        tests = problem.make_tests()
        names = [tests.calls[0]] if tests.calls else tests.names.of_program
        answers.append((index, fenced(mutated(problem.solution, names, MUTATIONS[mutation]))))
    found = judge_all(env, answers)
    passed = [index for (index, _), judgement in zip(answers, found, strict=True) if judgement.accuracy > 0]
    assert passed == []
    assert {judgement.verdict.value for judgement in found} <= {"wrong", "crash", "timeout"}


# --- rows of one's own


def test_rows():
    env = make(rows=[DOUBLE, ADD], level_column=None)
    prompt, info = env.reset(options={"index": 0})
    assert prompt.startswith("Double it.\n\nWrite a Python program that reads from standard input")
    assert info == {"index": 0}
    assert "as a function `add`" in env.reset(options={"index": 1})[0]
    assert verdict(env, 0, "print(2 * int(input()))") == "correct"
    assert verdict(env, 0, "print(int(input()))") == "wrong"
    assert verdict(env, 1, "add = lambda a, b: a + b") == "correct"
    assert verdict(env, 1, "def add(a, b): raise ValueError") == "crash"
    _, reward, _, _, info = step(env, 1, "I do not know.")
    assert (reward, info["verdict"]) == (0.0, "no_answer")


def test_columns_levels_and_solutions():
    rows = [{"q": "?", "meta": {"tests": json.dumps(ADD["tests"])}, "level": 2, "code": ADD["code"]}]
    columns = {"prompt_column": "q", "tests_column": "meta.tests", "level_column": "level", "solution_column": "code"}
    env = make(rows=rows, **columns)
    _, info = env.reset(options={"index": 0})
    assert info == {"index": 0, "level": 2}
    assert step(env, 0, env.unwrapped.solution(0))[1] == 1.0
    assert make(rows=[ADD]).unwrapped.solution(0) is None


def test_files(tmp_path):
    text = "\n".join(map(json.dumps, [DOUBLE, ADD]))
    (tmp_path / "a.jsonl").write_text(text)
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write(text)
    for name in ("a.jsonl", "b.jsonl.gz"):
        env = make(path=tmp_path / name)
        assert verdict(env, 0, "print(2 * int(input()))") == verdict(env, 1, ADD["code"]) == "correct"


def test_parquet_gives_every_row_the_columns_of_all_tests(tmp_path):
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    asserts = {"kind": "assert", "setup": "", "asserts": ["assert add(1, 2) == 3"]}
    rows = [{"prompt": "?", "tests": DOUBLE["tests"]}, {"prompt": "?", "tests": asserts}]
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    env = make(path=tmp_path / "a.parquet")
    assert verdict(env, 0, "print(2 * int(input()))") == verdict(env, 1, ADD["code"]) == "correct"


def test_a_dataset_is_loaded_by_its_name_and_branch(monkeypatch):
    datasets = pytest.importorskip("datasets")
    calls = []

    def load_dataset(*args, **kwargs):
        calls.append((args, kwargs))
        row = {"question": "?", "input_output": json.dumps({"inputs": ["1"], "outputs": ["1"]})}
        return datasets.Dataset.from_list([row, {**row, "input_output": ""}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.warns(UserWarning, match="codeparrot/apps: 1 of 2 rows are left out"):
        env = make("code/APPS-v0", split="test")
    assert env.unwrapped.num_rows == 1 and verdict(env, 0, "print(input())") == "correct"
    assert calls == [(("codeparrot/apps", "all"), {"split": "test", "revision": "refs/convert/parquet"})]
    with pytest.raises(ValueError, match=r"split='dev': codeparrot/apps has splits train, test"):
        make("code/APPS-v0", split="dev")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "rows: it has no rows: a task needs at least one"),
        ([ADD, {"prompt": "?"}], "row 1 of rows has no 'tests' (columns: prompt): every row needs tests"),
        ([ADD, {**ADD, "tests": {"kind": "stdin", "inputs": [], "outputs": []}}], "row 1 of rows has no tests"),
        ([{**ADD, "tests": "{"}], "row 0 of rows: 'tests' is not valid JSON"),
        ([{**ADD, "prompt": " "}], "row 0 of rows: 'prompt' is blank"),
        ([{**ADD, "tests": {}}], "row 0 of rows: its tests have kind=None"),
    ],
)
def test_bad_rows(rows, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make(rows=rows)


def test_bad_rows_can_be_left_out():
    with pytest.warns(
        UserWarning, match=re.escape("rows: 1 of 2 rows are left out (bad_rows='skip'): row 1 of rows has no")
    ):
        assert make(rows=[ADD, {"prompt": "?"}], bad_rows="skip").unwrapped.num_rows == 1
    with pytest.raises(ValueError, match=r"rows: none of its 1 rows can be used; the first one: row 0"):
        make(rows=[{"prompt": "?"}], bad_rows="skip")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "no rows given: pass exactly one of rows="),
        ({"rows": [ADD], "path": "x.jsonl"}, "rows= and path= given"),
        ({"rows": [ADD], "format": "apps2"}, "format='apps2' must be one of humaneval, mbpp, apps, livecodebench"),
        ({"rows": [ADD], "answer_style": "x"}, "answer_style='x' must be one of fenced, completion"),
        ({"rows": [ADD], "answer_style": "completion"}, "answer_style='completion' needs rows with an unfinished"),
        ({"rows": [ADD], "limits": {"seconds": 1}}, "limits={'seconds': 1}: it may have cpu_seconds, wall_seconds,"),
        ({"rows": [ADD], "limits": {"cpu_seconds": 0}}, "Limits: cpu_seconds=0 must be positive"),
        ({"rows": [ADD], "sandbox": "none"}, "isolation='none' must be one of 'auto'"),
        ({"rows": [ADD], "reward": "x"}, "reward='x' must be"),
        ({"rows": [ADD], "bad_rows": "x"}, "bad_rows='x' must be"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make(**arguments)


def test_settings_reach_the_verifier():
    env = make(rows=[ADD], reward="fraction", limits={"cpu_seconds": 1.0}, wrong_reward=-1.0)
    assert step(env, 0, fenced("def add(a, b): return 3"))[1] == 0.0
    result = step(env, 0, fenced("def add(a, b):\n    while True: pass"))
    assert (result[1], result[4]["verdict"]) == (-1.0, "timeout")
    assert result[4]["cause"].endswith("it took more than 1 s of CPU or 30 s in all'")


def test_info_holds_no_test():
    env = make(rows=[{**ADD, "tests": {**ADD["tests"], "outputs": [3, 31337]}}])
    prompt, info = env.reset(options={"index": 0})
    assert info == {"index": 0} and "31337" not in prompt
    info = step(env, 0, fenced(ADD["code"]))[4]
    assert "31337" not in repr(info) and info["cause"] == "test 2 of 2: 'add(3, 4)' gave '7'"
    assert {"tests", "tests_passed", "seconds"} <= info.keys()


def test_copies_and_pickles(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(ADD))
    for env in (make(rows=[ADD]), make(path=str(tmp_path / "a.jsonl"))):
        for twin in (
            deepcopy(env),
            pickle.loads(pickle.dumps(env)),
            gymnasium.make(EnvSpec.from_json(env.spec.to_json())),
        ):
            assert verdict(twin, 0, ADD["code"]) == "correct"
    assert b"Add two numbers" not in pickle.dumps(make(path=str(tmp_path / "a.jsonl")))


# --- HumanEval

HUMAN_EVAL = {
    "task_id": "HumanEval/x",
    "prompt": "import math\n\n\ndef twice(x: float) -> float:\n    '''Twice x.'''\n    return 2 * x\n\n\n"
    "def root(xs: list) -> float:\n    '''Root of twice the sum.'''\n",
    "entry_point": "root",
    "canonical_solution": "    return math.sqrt(twice(sum(xs)))\n",
    "test": "METADATA = {}\n\n\ndef check(candidate):\n    assert candidate([2]) == 2.0\n"
    "    assert abs(candidate([1]) ** 2 - twice(1)) < 1e-6\n    assert root([8]) == 4.0\n",
}


@pytest.mark.parametrize(
    ("style", "answer", "expected"),
    [
        ("fenced", "```python\ndef root(xs): return math.sqrt(2 * sum(xs))\n```", "correct"),
        ("fenced", "```python\n    return math.sqrt(twice(sum(xs)))\n```", "correct"),
        ("fenced", "```python\ndef twice(x): return 0\ndef root(xs): return 0\n```", "wrong"),
        ("fenced", "```python\ndef other(xs): return 0\n```", "wrong"),
        ("fenced", "    return math.sqrt(twice(sum(xs)))\n", "no_answer"),
        ("completion", "    return math.sqrt(twice(sum(xs)))\n\n\ndef main():\n    broken(", "correct"),
        ("completion", "    return 0", "wrong"),
        ("completion", "return 0", "crash"),
        ("completion", "", "no_answer"),
    ],
)
def test_human_eval_answers(style, answer, expected):
    env = make("code/HumanEval-v0", rows=[HUMAN_EVAL], answer_style=style)
    assert step(env, 0, answer)[4]["verdict"] == expected
    assert step(env, 0, env.unwrapped.solution(0))[4]["verdict"] == "correct"
    prompt, _ = env.reset(options={"index": 0})
    assert prompt == HUMAN_EVAL["prompt"] if style == "completion" else "assert" not in prompt
    assert step(env, 0, prompt)[1] == 0.0


# --- MBPP


def test_mbpp_rows():
    row = {
        "task_id": 1,
        "text": "Write a function to add.",
        "code": "import math\r\ndef add(a, b):\r\n    return a + b",
        "test_list": ["assert add(1, 2) == 3", "assert add(2, 2) == 4"],
        "test_setup_code": "",
        "challenge_test_list": ["assert add(0, 0) == 0"],
    }
    env = make("code/MBPP-v0", rows=[row])
    prompt, _ = env.reset(options={"index": 0})
    assert "assert add(1, 2) == 3" in prompt and "assert add(2" not in prompt
    _, reward, _, _, info = step(env, 0, env.unwrapped.solution(0))
    assert (reward, info["tests"]) == (1.0, 3)
    assert verdict(env, 0, "def add(a, b): return a + b or 1") == "wrong"
    sanitized = {"prompt": "Add.", "code": row["code"], "test_imports": ["import math"], "test_list": row["test_list"]}
    env = make("code/MBPP-v0", rows=[sanitized])
    assert verdict(env, 0, "def add(a, b): return math.floor(a + b)") == "correct"


# --- APPS


def apps(tests, **more):
    row = {"problem_id": 0, "question": "Solve it.", "input_output": json.dumps(tests), "difficulty": "interview"}
    return make("code/APPS-v0", rows=[{**row, "solutions": "", "url": "", "starter_code": "", **more}])


def test_apps_on_standard_input():
    tests = {"inputs": ["1\n", ["2", "3"]], "outputs": ["1\n", ["2", "3"]]}
    env = apps(tests, solutions=json.dumps(["import sys\nprint(sys.stdin.read())"]))
    assert env.reset(options={"index": 0})[1] == {"index": 0, "level": "interview"}
    assert step(env, 0, env.unwrapped.solution(0))[1] == 1.0
    assert verdict(env, 0, "print(input())") == "wrong"


def test_apps_by_calls():
    tests = {"fn_name": "f", "inputs": [[{"1": 2}], [[]]], "outputs": [[{"1": 2}], [[]]]}
    env = apps(tests, starter_code="class Solution:\n    def f(self, x: List[int]):\n        ")
    assert "Start from this code" in env.reset(options={"index": 0})[0]
    assert verdict(env, 0, "class Solution:\n    def f(self, x: List[int]): return x") == "correct"
    assert verdict(env, 0, "def f(x): return [x]") == "correct"  # as the published grader has it
    assert verdict(env, 0, "def f(x): return [[x]]") == "wrong"


def test_apps_without_tests_is_refused():
    with pytest.raises(ValueError, match=r"rows: none of its 1 rows can be used.*has no tests"):
        apps({"inputs": [], "outputs": []})


# --- LiveCodeBench


def packed(value):
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


def live_code_bench(public, private, **more):
    def cases(pairs):
        kind = "functional" if "metadata" in more else "stdin"
        return json.dumps([{"input": given, "output": right, "testtype": kind} for given, right in pairs])

    row = {
        "question_title": "?",
        "question_content": "Solve it.",
        "platform": "leetcode",
        "difficulty": "easy",
        "starter_code": "",
        "metadata": "{}",
        "public_test_cases": cases(public),
        "private_test_cases": packed(cases(private)),
    }
    return {**row, **more}


def test_live_code_bench_on_standard_input():
    row = live_code_bench([("1\n", "1\n")], [("2\n", "2\n"), ("3\n", "3\n")])
    env = make("code/LiveCodeBench-v0", rows=[row])
    assert env.reset(options={"index": 0})[1] == {"index": 0, "level": "easy"}
    _, reward, _, _, info = step(env, 0, fenced("print(input())"))
    assert (reward, info["tests"]) == (1.0, 3) and env.unwrapped.solution(0) is None
    assert verdict(env, 0, "print(min(2, int(input())))") == "wrong"


def test_live_code_bench_by_calls():
    starter = "class Solution:\n    def add(self, a: int, xs: List[int]) -> int:\n        "
    more = {"metadata": json.dumps({"func_name": "add"}), "starter_code": starter}
    row = live_code_bench([("1\n[1, 2]", "4")], [("0\n[]", "0")], **more)
    env = make("code/LiveCodeBench-v0", rows=[row])
    assert verdict(env, 0, f"{starter}return a + sum(xs)") == "correct"
    assert verdict(env, 0, f"{starter}return a") == "wrong"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("!", "Incorrect padding|Only base64"),
        (base64.b64encode(b"x").decode(), "cut off"),
        (packed(["[]"]), "its pickle has the instruction EMPTY_LIST"),
        (packed(b"[]"), "its pickle has the instruction SHORT_BINBYTES"),
        (packed(Path("x")), "its pickle has the instruction STACK_GLOBAL"),
        (packed("[]")[:-8], "cut off"),
        (packed("x" * 10**6), "takes more than 100000 bytes"),
        (base64.b64encode(zlib.compress(b"cos\nsystem\n(S'true'\ntR.")).decode(), "instruction GLOBAL"),
        (base64.b64encode(zlib.compress(b".")).decode(), "its pickle holds 0 strings"),
    ],
)
def test_packed_tests_hold_one_string_and_nothing_else(text, message):
    with pytest.raises(ValueError, match=message):
        unpack(text, max_bytes=100_000)


def test_packed_strings():
    for text in ("", "[]", "é" * 1000, "x" * 99_000):
        assert unpack(packed(text), max_bytes=100_000) == text


def test_bad_private_tests_name_their_row():
    row = live_code_bench([("1", "1")], [], private_test_cases=packed([1]))
    with pytest.raises(ValueError, match="row 0 of rows: 'private_test_cases' cannot be unpacked"):
        make("code/LiveCodeBench-v0", rows=[row])


# --- several attempts


def repairing(**kwargs):
    row = live_code_bench([("1\n", "31\n")], [("2\n", "32\n"), ("3\n", "33\n")])
    return make("code/Repair-v0", rows=[row], format="livecodebench", **kwargs)


def test_repair():
    env = repairing()
    env.reset(options={"index": 0})
    reply, reward, terminated, truncated, info = env.step(fenced("print(1 / 0)"))
    assert (reward, terminated, truncated) == (0.0, False, False) and "verdict" not in info
    assert "fails test 1 of 3" in reply and "Input:\n1\n" in reply and "ZeroDivisionError" in reply
    assert "Expected:\n31" in reply  # the prompt shows it
    reply, *_ = env.step(fenced("print(31)"))
    assert "fails test 2 of 3" in reply and "Input:\n2\n" in reply and "It gave:\n31\n" in reply
    assert "32" not in reply and "Expected" not in reply
    _, reward, terminated, _, info = env.step(fenced("print(30 + int(input()))"))
    assert (reward, terminated, info["verdict"]) == (1.0, True, "correct")


def test_repair_ends_with_a_right_program_and_after_the_last_turn():
    env = repairing(max_turns=2)
    env.reset(options={"index": 0})
    assert env.step(fenced("print(30 + int(input()))"))[1:3] == (1.0, True)
    env.reset(options={"index": 0})
    assert "closed block" in env.step("print(31)")[0]
    result = env.step(fenced("print(31)"))
    assert result[1:3] == (0.0, True) and result[4]["verdict"] == "wrong"


def test_repair_of_a_function_without_showing_inputs():
    env = make("code/Repair-v0", rows=[HUMAN_EVAL], format="humaneval", show_inputs=False)
    env.reset(options={"index": 0})
    reply, *_ = env.step(fenced("def root(xs): return 2.0"))
    assert reply == ("The program fails test 2 of 3.\n\nMend it, and give the whole program again in the same form.")
    reply, *_ = env.step(fenced("def root(xs): return 1 / 0"))
    assert "crash: ZeroDivisionError" in reply and "root(" not in reply
    env.reset(options={"index": 0})
    reply, *_ = env.step(fenced("def root(xs): raise type(f'X{xs}', (ValueError,), {})(xs)"))
    assert "It ended like this:\ncrash" in reply and "X" not in reply and "1" not in reply.partition("like this")[2]


@pytest.mark.parametrize("turns", [1, True, 2.0])
def test_repair_needs_turns(turns):
    with pytest.raises(ValueError, match=f"max_turns={turns} must be an integer of at least 2"):
        make("code/Repair-v0", rows=[ADD], max_turns=turns)


def test_truncated_answers_are_judged_and_end_the_episode():
    env = repairing()
    env.reset(options={"index": 0})
    _, reward, terminated, truncated, info = env.step(envs.Completion("```python\nprint(", finish_reason="length"))
    assert (reward, terminated, truncated, info["verdict"]) == (0.0, False, True, "no_answer")
