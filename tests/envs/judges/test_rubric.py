"""Criteria and weights, against numbers by hand."""

import pytest

from envs.judges import Criterion, Rubric

RUBRIC = Rubric.of({"reason": {"ask": "Does it give the reason?", "points": 10, "weight": 3}, "brief": "Is it short?"})


def test_the_score_is_the_weighted_mean():
    assert RUBRIC.total({"reason": 6, "brief": False}) == pytest.approx(3 * 0.6 / 4)
    assert RUBRIC.total({"reason": 0, "brief": True}) == 0.25
    assert RUBRIC.total({"reason": 10, "brief": True}) == 1.0
    thirds = Rubric.of({name: {"ask": "?", "weight": 0.1} for name in "abc"})
    assert thirds.total({"a": True, "b": True, "c": True}) == 1.0  # not 0.9999, of which no answer is correct


def test_votes_have_a_middle_for_each_criterion():
    votes = [{"reason": 9, "brief": False}, {"reason": 2, "brief": True}, {"reason": 4, "brief": True}]
    assert RUBRIC.middle(votes) == {"reason": 4, "brief": True}
    assert RUBRIC.middle(votes[:2]) == {"reason": 2, "brief": False}  # of two the lower


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"reason": 11, "brief": True}, "the score of reason is 11, and not an integer from 0 to 10"),
        ({"reason": -1, "brief": True}, "the score of reason is -1"),
        ({"reason": 7.0, "brief": True}, "the score of reason is 7.0"),
        ({"reason": True, "brief": True}, "the score of reason is True"),
        ({"reason": "10", "brief": True}, "the score of reason is '10'"),
        ({"reason": 7, "brief": 1}, "the score of brief is 1, and not true or false"),
        ({"reason": 7}, "not those of brief, reason"),
        ({"reason": 7, "brief": True, "style": 10}, "not those of brief, reason"),
        ([7, True], "not those of brief, reason"),
    ],
)
def test_nothing_is_guessed_of_a_vote(scores, message):
    with pytest.raises(ValueError, match=message):
        RUBRIC.read(scores)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "must name at least one criterion"),
        ("Is it right?", "must name at least one criterion"),
        ({"a b": "Is it right?"}, "must have a name of up to 40 letters"),
        ({3: "Is it right?"}, "must have a name"),
        ({"right": " "}, "'right' has ask=' ': it must be a question"),
        ({"right": {"ask": "?", "weight": 0}}, "weight=0: it must be a number above 0"),
        ({"right": {"ask": "?", "weight": float("inf")}}, "weight=inf"),
        ({"right": {"ask": "?", "weight": float("nan")}}, "weight=nan"),
        ({"right": {"ask": "?", "points": 0}}, "points=0: it must be an integer from 1 to 100"),
        ({"right": {"ask": "?", "points": 2.5}}, "points=2.5"),
        ({"right": {"points": 2}}, "has no 'ask': it takes ask, weight, points"),
        ({"right": {"ask": "?", "wieght": 2}}, r"has unknown keys \['wieght'\]"),
        ([Criterion("a", "?"), Criterion("a", "!")], "names a, a must be different"),
    ],
)
def test_a_wrong_rubric_is_one_clear_line(given, message):
    with pytest.raises(ValueError, match=message) as raised:
        Rubric.of(given)
    assert "\n" not in str(raised.value)


def test_it_is_read_back_from_its_data():
    assert Rubric.of(RUBRIC.as_data()) == RUBRIC
