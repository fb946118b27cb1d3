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
