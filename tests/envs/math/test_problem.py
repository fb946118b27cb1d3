"""`math/Problem-v0`: sources, answer styles, real data, and every way in which rows can be bad."""

import json
import re
import sys
from pathlib import Path

import gymnasium
import pytest

import envs  # noqa: F401
from envs.math.answers import ANSWER_STYLES
from envs.verifiers.math.sympy_pool import SymbolicFailure

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
ROWS = [{"prompt": "6 times 7?", "answer": 42}, {"prompt": "Half of {x}?", "answer": r"\frac{x}{2}"}]


def make(**kwargs):
    return gymnasium.make("math/Problem-v0", **kwargs)


def score(env, index, completion):
    env.reset(options={"index": index})
    _, reward, _, _, info = env.step(completion)
    return reward, info["verdict"]


def write(path, *rows):
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


def data_file(name):
    if not (DATA / name).is_file():
        pytest.skip(f"the shared data set {name} is not there")
    return DATA / name


# --- real data


@pytest.mark.parametrize(("name", "rows"), [("gsm8k_test.jsonl", 1319), ("gsm8k_train.jsonl", 7473)])
def test_every_gsm8k_answer_scores_one_and_a_changed_one_zero(name, rows):
    env = make(path=data_file(name), prompt_column="question")
    assert env.unwrapped.num_rows == rows
    for index, line in enumerate(data_file(name).read_text().splitlines()):
        solution = json.loads(line)["answer"]
        gold = solution.rpartition("#### ")[2]
        number = int(gold.replace(",", ""))
        assert score(env, index, f"I think so.\nAnswer: {gold}") == (1.0, "correct")
        assert score(env, index, f"It is \\boxed{{{number}}}.") == (1.0, "correct")
        for wrong in (number + 1, -number - 1, f"{number}1"):
            assert score(env, index, f"I think so.\nAnswer: {wrong}") == (0.0, "wrong")


def test_gsm8k_solutions_answer_in_their_own_style():
    env = make(path=data_file("gsm8k_test.jsonl"), prompt_column="question", answer_style="hash")
    for index, line in enumerate(data_file("gsm8k_test.jsonl").read_text().splitlines()):
        assert score(env, index, json.loads(line)["answer"]) == (1.0, "correct")


def test_every_competition_answer_loads_and_verifies_against_itself():
    env = make(path=data_file("math_test.jsonl"), prompt_column="problem", answer_column="solution")
    task = env.unwrapped
    assert task.num_rows == 5000
    for index in range(task.num_rows):
        gold = task.row(index)["answer"]
        assert score(env, index, f"So $\\boxed{{{gold}}}$.") == (1.0, "correct"), gold
    for index in range(0, task.num_rows, 20):  # changed values of every kind go through the worker
        gold = task.row(index)["answer"]
        assert score(env, index, f"Answer: {gold} + 1")[0] == 0.0, gold


# --- sources


def test_rows():
    env = make(rows=ROWS)
    assert env.unwrapped.num_rows == 2
    assert env.reset(options={"index": 1})[0].startswith("Half of {x}?\n\n")
    assert score(env, 0, "Answer: 42.0") == (1.0, "correct")
    assert score(env, 1, r"Answer: $\frac12 x$") == (1.0, "correct")


def test_columns_and_worked_solutions():
    rows = [
        {"q": "?", "a": "6 * 7 = <<6*7=42>>42\n#### 42"},
        {"q": "?", "a": r"First \boxed{1}. So $\boxed{42}$."},
    ]
    env = make(rows=rows, prompt_column="q", answer_column="a")
    assert [env.unwrapped.row(index)["answer"] for index in range(2)] == ["42", "42"]


@pytest.mark.parametrize(
    ("style", "solutions"),
    [
        ("hash", ["6 * 7 = 42\n#### 42", "First \\boxed{1}. So $\\boxed{42}$.\n#### 42", "#### 42", "#### 42"]),
        ("auto", ["6 * 7 = 42\nAnswer: 42", "First \\boxed{1}. So $\\boxed{42}$.", "Answer: 42", "Answer: 42"]),
    ],
)
def test_the_solution_is_the_worked_one_in_the_form_asked_for(style, solutions):
    answers = ["6 * 7 = <<6*7=42>>42\n#### 42", "First \\boxed{1}. So $\\boxed{42}$.", "#### 42", 42]
    env = make(rows=[{"prompt": "?", "answer": answer} for answer in answers], answer_style=style)
    assert [env.unwrapped.solution(index) for index in range(4)] == solutions
    assert all(score(env, index, text) == (1.0, "correct") for index, text in enumerate(solutions))


def test_parquet_is_read_like_jsonl(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("pyarrow")
    parquet.write_table(arrow.Table.from_pylist([{"prompt": "?", "answer": "7"}]), tmp_path / "data.parquet")
    assert score(make(path=tmp_path / "data.parquet"), 0, "Answer: 7") == (1.0, "correct")


def test_a_dataset_is_loaded_once_by_its_name(monkeypatch):
    datasets = pytest.importorskip("datasets")
    calls = []

    def load_dataset(*args, **kwargs):
        calls.append((args, kwargs))
        return datasets.Dataset.from_list([{"question": "?", "answer": "#### 5"}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for _ in range(2):
        env = make(dataset="some/set", name="main", split="test", prompt_column="question")
    assert score(env, 0, "Answer: 5") == (1.0, "correct")
    assert calls == [(("some/set", "main"), {"split": "test"})]


def test_a_dataset_that_can_not_be_loaded(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def load_dataset(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    message = "dataset='no/such' (name=None, split='train') can not be loaded: no network"
    with pytest.raises(ValueError, match=re.escape(message)):
        make(dataset="no/such")


# --- answer styles


@pytest.mark.parametrize(
    ("style", "right", "other"),
    [
        ("auto", "Answer: 42", "#### 42"),
        ("auto", r"\boxed{42}", "42"),
        ("answer_line", "Answer: 42", r"\boxed{42}"),
        ("boxed", r"\boxed{42}", "Answer: 42"),
        ("hash", "so\n#### 42", "Answer: 42"),
        ("dapo", "Answer: 42", r"\boxed{42}"),
    ],
)
def test_a_style_reads_what_it_asks_for(style, right, other):
    env = make(rows=ROWS, answer_style=style)
    assert score(env, 0, right) == (1.0, "correct")
    assert score(env, 0, other) == (0.0, "no_answer")


@pytest.mark.parametrize("style", ANSWER_STYLES)
@pytest.mark.parametrize(
    "junk", ["", " ", "I do not know", "<think>Answer: 42 #### 42", "Answer:", r"\boxed{}", "####"]
)
def test_no_style_pays_for_junk(style, junk):
    assert score(make(rows=ROWS, answer_style=style), 0, junk) == (0.0, "no_answer")


@pytest.mark.parametrize("style", ANSWER_STYLES)
def test_echoing_the_prompt_pays_nothing(style):
    env = make(rows=ROWS, answer_style=style)
    prompt, _ = env.reset(options={"index": 0})
    assert env.step(prompt)[1] == 0.0


# --- bad input

GOOD = {"prompt": "?", "answer": "1"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [GOOD, {"prompt": "?", "text": "1"}],
            "row 1 of rows has no 'answer' (columns: prompt, text): every row needs a "
            "gold answer; map the column with answer_column=...",
        ),
        (
            [{"question": "?", "answer": "1"}],
            "row 0 of rows has no 'prompt' (columns: question, answer): every row needs "
            "a prompt; map the column with prompt_column=...",
        ),
        ([{"prompt": "?", "answer": None}], "row 0 of rows has no 'answer'"),
        ([{}], "row 0 of rows has no 'prompt' (columns: none)"),
        ([{"prompt": " ", "answer": "1"}], "row 0 of rows: 'prompt' is blank: every row needs a prompt"),
        ([{"prompt": "?", "answer": ""}], "row 0 of rows: 'answer' is blank: every row needs a gold answer"),
        ([{"prompt": "?", "answer": ["1"]}], "row 0 of rows: 'answer' is ['1']: it must be text or a number"),
        ([{"prompt": "?", "answer": True}], "row 0 of rows: 'answer' is True: it must be text or a number"),
        (["text"], "row 0 of rows is a str: every row must be a dict"),
        (
            [GOOD, {"prompt": "?", "answer": "[INVALID]"}],
            "row 1 of rows: the gold answer '[INVALID]' is a placeholder",
        ),
        ([{"prompt": "?", "answer": r"so \boxed{}"}], "row 0 of rows: the gold answer '' is empty"),
        (
            [{"prompt": "?", "answer": r"\frac{1}{"}],
            r"row 0 of rows: the gold answer '\\frac{1}{' can not be read",
        ),
        ([], "rows has no rows: a task needs at least one"),
    ],
)
def test_bad_rows(rows, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make(rows=rows)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([GOOD, '{"prompt": \n'], "line 2 of data.jsonl is not valid JSON"),
        ([GOOD, "[1]\n"], "line 2 of data.jsonl is a JSON list: every line must be an object"),
        ([GOOD, {"prompt": "?"}], "row 1 of data.jsonl has no 'answer' (columns: prompt)"),
        ([], "data.jsonl has no rows"),
    ],
)
def test_bad_files(tmp_path, lines, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make(path=write(tmp_path / "data.jsonl", *lines))


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path='.*none.jsonl': there is no such file \(looked from "):
        make(path=tmp_path / "none.jsonl")


def test_other_kinds_of_files(tmp_path):
    with pytest.raises(ValueError, match=r"ends in '.csv': give a .jsonl, .jsonl.gz or .parquet file"):
        make(path=write(tmp_path / "data.csv"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "no rows given: pass exactly one of rows=["),
        ({"rows": [GOOD], "path": "x.jsonl"}, "rows= and path= given: pass exactly one of"),
        ({"path": "x.jsonl", "dataset": "y"}, "path= and dataset= given: pass exactly one of"),
        (
            {"rows": [GOOD], "answer_style": "box"},
            "answer_style='box' must be one of auto, answer_line, dapo, boxed, hash, last_number",
        ),
        ({"rows": [GOOD], "bad_rows": "drop"}, "bad_rows='drop' must be 'raise' or 'skip'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make(**arguments)


def test_a_failing_worker_is_our_fault_and_not_scored(monkeypatch):
    def fail(*args, **kwargs):
        raise SymbolicFailure("the worker failed twice")

    env = make(rows=ROWS)
    monkeypatch.setattr(sys.modules["envs.verifiers.math.judge"], "symbolically_equal", fail)
    env.reset(options={"index": 1})
    _, reward, _, _, info = env.step("Answer: x/2")
    assert reward != reward and info["verdict"] == "infra_failure" and info["cause"] == "the worker failed twice"
