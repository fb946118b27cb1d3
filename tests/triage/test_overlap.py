"""Copies and near-copies, in made-up questions and in real ones."""

from __future__ import annotations

import json
import random

import pytest

from dapo_trl.triage.overlap import copies, twins, words

HENS = "Jack's hens lay 13 eggs a day. He uses six of them in the kitchen and sells the rest for $4 each. Is that much?"


def test_words_have_one_spelling():
    assert words("Ｃompute  ½ of 1,000 — now!") == words("compute 1⁄2 OF 1,000, now")
    assert words("3 - 4") != words("3 + 4")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("6 × 3", "6 ÷ 3"),
        ("(2+3)*4", "2+3*4"),
        ("x ≥ 3", "x ≤ 3"),
        ("5 + -3", "5 - 3"),
        ("5 – 3", "5, 3"),
        ("5!", "5"),
        ("n!", "n"),
        ("A ∩ B", "A ∪ B"),
        (r"A \cap B", r"A \cup B"),
        ("|x|", "x"),
        ("√16", "16"),
        ("2³", "23"),
        ("3½", "31⁄2"),
        ("f'(2)", "f(2)"),
        (".5", "5"),
        ("3:4", "34"),
        ("7 % 4", "7 & 4"),
        ("5°", "5"),
    ],
)
def test_other_signs_are_another_problem(one, other):
    asked = [f"Work out the value of {part} by yourself and write it down." for part in (one, other)]
    assert copies(asked) == [None, None] and words(one) != words(other)
    assert all(found is None or found.similarity < 1 for found in twins(asked[:1], asked[1:], 0.4))


def test_another_operator_is_no_near_copy():
    asked = "Anna has the set of all x in the large blue box for which x {} 3 holds. How many are there?"
    assert twins([asked.format("≥")], [asked.format("≤")], 0.4) == [None]


def test_a_script_without_spaces_has_a_word_for_each_character():
    hens = "小明有六只母鸡每天下十三个蛋他用六个做饭其余的卖掉每个四元一天一共卖多少钱"
    assert len(words(hens)) == len(hens)
    assert twins([hens.replace("做饭", "做蛋糕")], [hens], 0.4)[0].similarity == pytest.approx(0.85, abs=0.1)


@pytest.mark.parametrize(
    ("question", "similarity"),
    [
        (HENS.upper().replace(".", " ."), 1.0),
        (HENS.replace("in the kitchen", "for a large cake"), 0.6),
        (HENS.replace("13", "15"), None),  # another problem
        (
            "Jack sells 13 eggs for $4 each. How much money does he make with six hens in a day if none of them rests?",
            None,
        ),
    ],
)
def test_what_repeats_a_test_question(question, similarity):
    (found,) = twins([question], ["What is 13 times 4?", HENS], 0.4)
    assert (found is None) == (similarity is None)
    if found is not None:
        assert found.place == 1 and found.similarity == pytest.approx(similarity, abs=0.1)


def test_an_instruction_that_all_share_makes_no_copies():
    ask = "Compute {} + {} digit by digit, then give the result as a line that says Answer and then the number"
    questions = [ask.format(place, 1000 - place) for place in range(100, 300)]
    assert twins(questions, [ask.format(1000 - place, place) for place in range(300, 400)], 0.4) == [None] * 200
    assert twins(questions[:1], questions, 0.4)[0].place == 0


def test_copies_name_the_first():
    assert copies(["One two.", "three", "one, two", "ONE TWO!", "Three?"]) == [None, None, 0, 0, 1]
    assert copies([]) == [] and twins([], ["x"], 0.4) == [] and twins(["x"], [], 0.4) == [None]


def test_real_questions(data):
    """Of test questions with a tenth of their words replaced most are found; hardly any training question is one."""
    asked = [json.loads(line)["question"] for line in (data / "gsm8k_test.jsonl").read_text().splitlines()]
    train = [json.loads(line)["question"] for line in (data / "gsm8k_train.jsonl").read_text().splitlines()[:2000]]
    dice = random.Random(0)

    def changed(text: str) -> str:
        return " ".join("thing" if word.isalpha() and dice.random() < 0.1 else word for word in text.split())

    found = twins([changed(text) for text in asked[:300]], asked, 0.4)
    assert sum(twin is not None and twin.place == place for place, twin in enumerate(found)) >= 280
    assert sum(twin is not None for twin in twins(train, asked, 0.4)) <= 2
