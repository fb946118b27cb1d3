"""From rows to checked questions: columns, levels, repetitions, bad rows, and what is shared and pickled."""

import copy
import json
import pickle
import re
import threading
import tracemalloc
import warnings

import gymnasium
import pytest

import envs
from envs.math import questions
from envs.math.questions import Question, Reading, read_level, read_questions, unverifiable
from envs.verifiers.math.sympy_pool import SymbolicTimeout

NESTED = {
    "prompt": [{"role": "user", "content": "6 times 7?"}],
    "reward_model": {"ground_truth": "42", "style": "rule"},
}
GOOD = {"prompt": "?", "answer": "1"}


def read(*rows, **how):
    return read_questions(rows, "rows", Reading(**how))


def make(**kwargs):
    return gymnasium.make("math/Problem-v0", **kwargs).unwrapped


# --- columns


def test_columns_may_be_nested_and_prompts_chat_messages():
    assert read(NESTED, answer_column="reward_model.ground_truth") == (Question("6 times 7?", "42"),)
    system = {"role": "system", "content": "Be brief."}
    row = {**NESTED, "prompt": [system, *NESTED["prompt"]]}
    assert read(row, answer_column="reward_model.ground_truth") == (Question("6 times 7?", "42"),)


def test_a_column_with_a_dot_in_its_name_is_no_path():
    row = {"prompt": "?", "a.b": "1", "a": {"b": "2"}}
    assert read(row, answer_column="a.b") == (Question("?", "1"),)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {**NESTED, "reward_model": {}},
            "row 0 of rows has no 'reward_model.ground_truth' (columns: prompt, reward_model)",
        ),
        ({**NESTED, "reward_model": "42"}, "row 0 of rows has no 'reward_model.ground_truth'"),
        ({**NESTED, "reward_model": {"ground_truth": ["1"]}}, "'reward_model.ground_truth' is ['1']: it must be text"),
        ({**NESTED, "prompt": []}, "row 0 of rows: 'prompt' is a list with 0 user messages"),
        (
            {**NESTED, "prompt": NESTED["prompt"] * 2},
            "'prompt' is a list with 2 user messages: a prompt in chat format",
        ),
        ({**NESTED, "prompt": ["6 times 7?"]}, "'prompt' is a list with 0 user messages"),
        ({**NESTED, "prompt": [{"role": "user"}]}, "'prompt' is None: it must be text or a number"),
    ],
)
def test_bad_nested_rows(row, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read(row, answer_column="reward_model.ground_truth")


# --- levels


@pytest.mark.parametrize(
    ("value", "level"),
    [
        ("Level 3", 3),
        ("level 3", 3),
        ("3", 3),
        (3, 3),
        (3.5, 3.5),
        (" hard ", "hard"),
        ("Level ?", None),
        ("", None),
        (None, None),
    ],
)
def test_levels(value, level):
    assert read_level(value) == level


def test_levels_are_public_where_there_is_one():
    rows = [{**GOOD, "level": "Level 3"}, {**GOOD, "level": None}]
    env = make(rows=rows, level_column="level")
    assert env.reset(options={"index": 0})[1] == {"index": 0, "level": 3}
    assert env.step("Answer: 1")[4]["level"] == 3
    assert env.reset(options={"index": 1})[1] == {"index": 1}


def test_a_level_column_must_exist():
    message = (
        "row 0 of rows has no 'difficulty' (columns: prompt, answer): every row needs a level; map the column with "
    )
    with pytest.raises(ValueError, match=re.escape(message + "level_column=...")):
        read(GOOD, level_column="difficulty")


# --- repetitions


def test_repeated_questions_are_kept_once_in_their_first_order():
    rows = [{"prompt": text, "answer": "1"} for text in ("b", "a", "b", "b ", "c", "a")]
    assert [question.text for question in read(*rows, deduplicate=True)] == ["b", "a", "c"]
    assert len(read(*rows)) == 6


def test_instructions_do_not_tell_questions_apart():
    plain, wrapped = GOOD, {"prompt": envs.math.answers.ANSWER_STYLES["dapo"].prompt("?"), "answer": "1"}
    assert read(plain, wrapped, deduplicate=True) == (Question("?", "1"),)


def test_one_question_with_two_gold_answers():
    rows = [{"prompt": "a", "answer": "1"}, GOOD, {"prompt": "a", "answer": "2"}, {"prompt": "a", "answer": "3"}]
    message = "row 2 of rows asks what row 0 asks and has another gold answer, '2' instead of '1'"
    with pytest.raises(ValueError, match=message + "; bad_rows='skip' leaves such rows out"):
        read(*rows, deduplicate=True)
    with pytest.warns(UserWarning, match=re.escape(f"rows: 1 of 4 rows are left out (bad_rows='skip'): {message}")):
        assert read(*rows, deduplicate=True, bad_rows="skip") == (Question("?", "1"),)


def test_memory_is_bounded_by_the_questions_that_are_kept():
    def rows():
        for number in range(30_000):
            yield {"prompt": f"{number % 10} " + "x" * 2000, "answer": "1"}

    tracemalloc.start()
    try:
        assert len(read_questions(rows(), "rows", Reading(deduplicate=True))) == 10
        assert tracemalloc.get_traced_memory()[1] < 2_000_000  # all rows together have 60 MB
    finally:
        tracemalloc.stop()


# --- bad rows

BAD = [
    ({"prompt": "?", "answer": "[INVALID]"}, "row 1 of rows: the gold answer '[INVALID]' is a placeholder"),
    ({"prompt": "?", "answer": r"\frac{1}{"}, r"row 1 of rows: the gold answer '\\frac{1}{' can not be read"),
    ({"prompt": "?", "answer": None}, "row 1 of rows has no 'answer'"),
    ({"prompt": " ", "answer": "1"}, "row 1 of rows: 'prompt' is blank"),
    ({"prompt": "?"}, "row 1 of rows has no 'answer'"),
]


@pytest.mark.parametrize(("row", "message"), BAD)
def test_a_bad_row_is_refused_or_left_out_with_a_warning(row, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read(GOOD, row, GOOD)
    with pytest.warns(UserWarning, match=re.escape(message)) as caught:
        assert read(GOOD, row, GOOD, bad_rows="skip") == (Question("?", "1"),) * 2
    assert len(caught) == 1


def test_a_gold_answer_that_can_not_be_verified_names_the_way_out():
    with pytest.raises(ValueError, match="is a placeholder; bad_rows='skip' leaves such rows out"):
        read(GOOD, {"prompt": "?", "answer": "[INVALID]"})


def test_the_warning_counts_and_names_the_first_few():
    bad = [{"prompt": "?", "answer": f"\\frac{{{n}}}{{"} for n in range(5)]
    with pytest.warns(
        UserWarning, match=r"^rows: 5 of 6 rows are left out .*row 1 of .*row 2 of .*row 3 of .*; and 2 more$"
    ):
        read(GOOD, *bad, bad_rows="skip")


def test_a_source_of_which_nothing_can_be_used_is_refused():
    rows = [{"question": "?", "answer": "1"}] * 3
    message = "rows: none of its 3 rows can be used; the first one: row 0 of rows has no 'prompt'"
    with pytest.raises(ValueError, match=message):
        read(*rows, bad_rows="skip")


def test_good_rows_give_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(GOOD, bad_rows="skip", deduplicate=True)


# --- checking gold answers


def test_gold_answers_are_checked_once_and_in_several_threads(monkeypatch):
    checked, threads = [], set()

    def check_gold(gold):
        checked.append(gold)
        threads.add(threading.get_ident())

    monkeypatch.setattr(questions, "check_gold", check_gold)
    monkeypatch.setattr(questions, "_verified", set())
    golds = [f"x + {n}" for n in range(50)] * 2
    assert unverifiable(golds, first_only=False) == {} == unverifiable(golds, first_only=True)
    assert sorted(checked) == sorted(set(golds)) and threading.get_ident() not in threads


def test_a_slow_gold_answer_gets_a_second_chance(monkeypatch):
    """What took too long while all workers were busy is no reason to refuse a data set."""
    tries = []

    def check_gold(gold):
        tries.append(gold)
        if gold == "never" or len(tries) == 1:
            raise ValueError(f"{gold} took too long") from SymbolicTimeout("too long")

    monkeypatch.setattr(questions, "check_gold", check_gold)
    monkeypatch.setattr(questions, "_verified", set())
    assert unverifiable(["once"], first_only=True) == {}
    assert list(unverifiable(["never", "fine"], first_only=True)) == ["never"]
    assert tries.count("never") == 2


def test_checking_stops_at_the_first_bad_one(monkeypatch):
    checked = []

    def check_gold(gold):
        checked.append(gold)
        raise ValueError("bad")

    monkeypatch.setattr(questions, "check_gold", check_gold)
    assert len(unverifiable(map(str, range(-10_000, 0)), first_only=True)) == 1
    assert len(checked) < 10_000


# --- what is shared, and what is not


def test_rows_are_not_changed_and_what_comes_back_is_fresh():
    rows = [{"prompt": [{"role": "user", "content": "?"}], "answer": "1", "level": "Level 2"}]
    before = copy.deepcopy(rows)
    env = make(rows=rows, level_column="level")
    first = env.row(0)
    first["answer"], first["info"]["level"] = "2", 9
    assert rows == before
    assert env.row(0) == {"prompt": make(rows=rows).row(0)["prompt"], "answer": "1", "info": {"level": 2}}
    rows[0]["answer"] = "5"
    assert env.row(0)["answer"] == "1"


def test_environments_with_equal_rows_share_them():
    rows = [{"prompt": f"{n}?", "answer": str(n)} for n in range(100)]
    assert make(rows=rows)._questions is make(rows=copy.deepcopy(rows))._questions
    assert make(rows=rows)._questions is not make(rows=rows[:-1])._questions


def test_an_environment_over_a_file_pickles_without_its_rows(tmp_path):
    path = tmp_path / "data.jsonl"
    rows = [{"prompt": f"{n} {'x' * 100}?", "answer": str(n)} for n in range(2000)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    env = make(path=path)
    env.reset(options={"index": 7})
    pickled = pickle.dumps(env)
    assert len(pickled) < 5000 < len(pickle.dumps(make(rows=rows)))
    twin = pickle.loads(pickled)
    assert twin.num_rows == 2000 and twin.row(7) == env.row(7)
    assert twin.step("Answer: 7")[1] == 1.0


@pytest.mark.parametrize("style", ["auto", "answer_line", "dapo", "boxed", "hash"])
def test_solutions_and_messages(style):
    env = make(rows=[{"prompt": "Half of {x}?", "answer": r"So \boxed{\frac{x}{2}}."}], answer_style=style)
    prompt, _ = env.reset(options={"index": 0})
    assert env.step(env.solution(0))[1] == 1.0
    assert env.messages(0) == [{"role": "user", "content": prompt}]
    assert env.messages(0, system=True)[1] == {"role": "user", "content": "Half of {x}?"}
