"""The repetition penalty: against values worked out by hand, on loops of every kind, and on real solutions."""

import json
import math
import statistics
from itertools import pairwise
from pathlib import Path

import gymnasium
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs import Completion, RepetitionPenalty, repetition_penalty


@pytest.mark.parametrize(
    ("texts", "ngram_size", "penalty"),
    [
        ([], 2, 0.0),
        ([""], 2, 0.0),
        (["a b c"], 4, 0.0),  # too short for an n-gram
        (["a b c d"], 2, 0.0),
        (["a b a b"], 2, -1 / 3),  # ab ba ab
        (["A b a B"], 2, -1 / 3),
        (["a a a a"], 1, -3 / 4),
        (["a b", "a b"], 2, -1 / 2),  # ab | ab: nothing crosses from one turn into the next
        (["a", "b", "a", "b"], 2, 0.0),
        (["1+1+1"], 2, -1 / 2),  # 1+ +1 1+ +1
        (["再见再见"], 2, -1 / 3),
        (["カタカタ"], 2, -1 / 3),
        (["สส"], 1, -1 / 2),
        (["안녕 안녕"], 1, -1 / 2),  # Korean has spaces
        ([r"\boxed{3}"], 1, 0.0),
    ],
)
def test_by_hand(texts, ngram_size, penalty):
    assert repetition_penalty(*texts, ngram_size=ngram_size) == pytest.approx(penalty)
    assert repetition_penalty(*texts, ngram_size=ngram_size, max_penalty=0.5) == pytest.approx(penalty / 2)


@pytest.mark.parametrize(
    "loop", ["Wait, let me check that again. ", "!", "1+", "ha", "再检查一遍。", "\n\n-", "0", "\\frac{1}{2} = "]
)
def test_a_loop_is_almost_fully_penalised_with_and_without_spaces(loop):
    assert repetition_penalty(loop * (20_000 // len(loop))) < -0.95


@settings(deadline=None)
@given(st.text(max_size=300), st.integers(1, 6), st.floats(0, 5))
def test_it_is_bounded_and_a_text_said_twice_is_worse(text, ngram_size, max_penalty):
    settings = {"ngram_size": ngram_size, "max_penalty": max_penalty}
    once, twice = repetition_penalty(text, **settings), repetition_penalty(text, text, **settings)
    assert -max_penalty <= twice <= once <= 0


def test_a_hostile_text_of_any_kind_takes_one_pass():
    """Counts characters read, not seconds: every character is in one word or is a space."""
    from envs.wrappers.repetition import _WORD

    for text in ("a" * 100_000, "a " * 50_000, "中" * 100_000, "_-" * 50_000, "\u0301" * 100_000, "é\u200b" * 50_000):
        matches = list(_WORD.finditer(text))
        assert all(left.end() <= right.start() for left, right in pairwise(matches))
        assert sum(len(match[0]) for match in matches) == len("".join(text.split()))
        assert repetition_penalty(text) < -0.9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ngram_size": 0}, "ngram_size=0 must be an integer of at least 1"),
        ({"ngram_size": 2.5}, r"ngram_size=2.5 must be an integer"),
        ({"max_penalty": -1.0}, r"max_penalty=-1.0 must be finite and at least 0 \(it is subtracted\)"),
        ({"max_penalty": math.inf}, r"max_penalty=inf must be finite"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        repetition_penalty("a", **settings)
    with pytest.raises(ValueError, match=message):
        RepetitionPenalty(gymnasium.make("math/Arithmetic-v0"), **settings)


def test_a_worked_solution_costs_nothing_and_a_loop_does():
    env = RepetitionPenalty(gymnasium.make("math/Arithmetic-v0"))
    env.reset(options={"index": 3})
    assert env.step(Completion(env.unwrapped.solution(3)))[1] == 1.0
    env.reset(options={"index": 3})
    _, reward, _, _, info = env.step("so far so good " * 100 + env.unwrapped.solution(3))
    assert reward < 0.2 and info["accuracy"] == 1.0 and info["rewards"]["correctness"] == 1.0


@pytest.mark.parametrize(
    ("file", "column", "most"), [("gsm8k_test", "answer", 0.0005), ("math_test", "solution", 0.008)]
)
def test_real_solutions_are_hardly_penalised(data: Path, file, column, most):
    with (data / f"{file}.jsonl").open(encoding="utf-8") as lines:
        penalties = [repetition_penalty(json.loads(line)[column]) for line in lines]
    assert -most < statistics.mean(penalties) <= 0
