r"""Every gold answer of GSM8K and of MATH's test split: given in a model's words it scores 1, changed it scores 0."""

import json
import re
from pathlib import Path

import gymnasium
import pytest

import envs  # noqa: F401
from envs.math.answers import gold_answer

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
EXCEPTIONS: dict[tuple[str, int], str] = {}
"""Rows that are judged wrongly, by file and index, and why; at most 0.2 % of each file."""

WORDS = {"Yes": "No", "even": "odd", "odd": "even", "B": "C", "east": "west", "circle": "ellipse", "Friday": "Sunday"}


def data_file(name):
    if not (DATA / name).is_file():
        pytest.skip(f"the shared data set {name} is not there")
    return DATA / name


def rows(name):
    return [json.loads(line) for line in data_file(name).read_text().splitlines()]


def verdict(env, index, completion):
    env.reset(options={"index": index})
    _, reward, _, _, info = env.step(completion)
    assert reward == (1.0 if info["verdict"] == "correct" else 0.0)
    return info["verdict"]


def misjudged(name, env, golds, right_forms, changes):
    """Return the rows that score 0 for the gold answer in one of `right_forms`, or not `wrong` for one of `changes`."""
    found = []
    for index, gold in enumerate(golds):
        if (name, index) in EXCEPTIONS:
            continue
        found += [(index, gold, form) for form in right_forms if verdict(env, index, form % gold) != "correct"]
        for changed in changes(gold):
            found += [(index, gold, changed)] * (verdict(env, index, f"So it is $\\boxed{{{changed}}}$.") != "wrong")
    return found


def other_numbers(gold):
    """Change a whole number: by one, its sign, its first digit, its size."""
    number = int(gold.replace(",", ""))
    first = str(abs(number))[0]
    return {number + 1, -number - 1, int(str(number).replace(first, str(int(first) % 9 + 1), 1)), number * 10 + 1}


@pytest.mark.parametrize(("name", "count"), [("gsm8k_test.jsonl", 1319), ("gsm8k_train.jsonl", 7473)])
def test_gsm8k(name, count):
    env = gymnasium.make("math/Problem-v0", path=data_file(name), prompt_column="question", answer_column="answer")
    golds = [row["answer"].rpartition("#### ")[2] for row in rows(name)]
    assert env.unwrapped.num_rows == len(golds) == count
    right = ["<think>Is it 12?</think>It is not 12, but more.\n\nAnswer: %s", "They have $\\boxed{%s}$ of them."]
    assert misjudged(name, env, golds, right, other_numbers) == []


def test_gsm8k_solutions_are_right_in_their_own_style():
    name = "gsm8k_test.jsonl"
    env = gymnasium.make("math/Problem-v0", path=data_file(name), prompt_column="question", answer_style="hash")
    found = [(index, row) for index, row in enumerate(rows(name)) if verdict(env, index, row["answer"]) != "correct"]
    assert found == []


def changed_formulas(gold):
    """Change a gold answer of MATH: a number, the sign, a bracket, a word, or the number of its values."""
    numbers = list(re.finditer(r"\d+", gold))
    if numbers:
        for number in {numbers[0], numbers[-1]}:
            yield f"{gold[: number.start()]}{int(number[0]) + 1}{gold[number.end() :]}"
        yield f"{gold}, 1234"
    else:
        yield next((gold.replace(word, other) for word, other in WORDS.items() if word in gold), f"{gold} + 1")
    if not re.match(r"0(?![.\d])", gold):  # minus zero is zero
        yield gold.removeprefix("-") if gold.startswith("-") else f"-{gold}"
    if gold[0] in "([" and gold[-1] in ")]":
        yield {"(": "[", "[": "("}[gold[0]] + gold[1:]


def test_competition_answers():
    name = "math_test.jsonl"
    env = gymnasium.make("math/Problem-v0", path=data_file(name), prompt_column="problem", answer_column="solution")
    golds = [gold_answer(row["solution"]) for row in rows(name)]
    assert env.unwrapped.num_rows == len(golds) == 5000
    right = ["Let me see.\n\nSo it is $\\boxed{%s}$.", "Let me see.\n\nAnswer: %s"]
    assert misjudged(name, env, golds, right, changed_formulas) == []


@pytest.mark.parametrize(
    ("name", "count"), [("gsm8k_test.jsonl", 1319), ("gsm8k_train.jsonl", 7473), ("math_test.jsonl", 5000)]
)
def test_exceptions_are_few(name, count):
    assert sum(file == name for file, _ in EXCEPTIONS) <= 0.002 * count
