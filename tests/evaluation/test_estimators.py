"""The estimators against enumeration, and their intervals against models that are known exactly."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dapo_trl.evaluation.estimators import (
    FEW,
    avg_at_k,
    difference,
    interval,
    is_constant,
    maj_at_k,
    mean_of,
    pass_at_k,
)

NAN = math.nan


def of(*rows) -> np.ndarray:
    return np.array(rows, dtype=float)


def test_the_mean_is_over_problems_and_leaves_out_what_cannot_be_scored():
    assert mean_of(avg_at_k(of([1, 0], [1, 1]))) == 0.75
    assert mean_of(avg_at_k(of([1, NAN], [0, 0], [NAN, NAN]))) == 0.5
    assert math.isnan(mean_of(avg_at_k(of([NAN]))))


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_is_the_share_of_all_subsets_that_have_a_right_sample(n):
    for samples in itertools.product([0.0, 1.0], repeat=n):
        for k in range(1, n + 1):
            subsets = list(itertools.combinations(samples, k))
            expected = sum(map(any, subsets)) / len(subsets)
            assert pass_at_k(of(samples), k)[0] == pytest.approx(expected, abs=1e-12)


def test_pass_at_k_counts_right_samples_alone_and_of_those_that_could_be_scored():
    assert pass_at_k(of([0.9, 0.0], [1.0, NAN]), 1).tolist() == [0.0, 1.0]
    assert np.isnan(pass_at_k(of([1.0, NAN], [NAN, NAN]), 2)).all()
    assert pass_at_k(np.eye(1, 1000), 500)[0] == pytest.approx(0.5)  # one right sample in a thousand


def voted(samples) -> Fraction:
    """The expected accuracy of a vote among (answer, accuracy) pairs, ties by lot."""
    votes = Counter(answer for answer, _ in samples if answer is not None)
    if not votes:
        return Fraction(0)
    chosen = [answer for answer, count in votes.items() if count == max(votes.values())]
    return sum((RIGHT[answer] for answer in chosen), Fraction(0)) / len(chosen)


RIGHT = {"a": Fraction(1), "b": Fraction(0), "c": Fraction(1, 2), "d": Fraction(1), None: Fraction(0)}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(list(RIGHT)), min_size=1, max_size=9))
def test_maj_at_k_is_the_mean_over_all_subsets_of_votes_with_ties_by_lot(answers):
    samples = [(answer, RIGHT[answer]) for answer in answers]
    accuracy, ks = of([float(right) for _, right in samples]), range(1, len(samples) + 1)
    found = maj_at_k(accuracy, np.array([answers], dtype=object), ks)[0]
    for k in ks:
        subsets = list(itertools.combinations(samples, k))
        assert found[k - 1] == pytest.approx(float(sum(map(voted, subsets)) / len(subsets)), abs=1e-12)


def test_maj_at_k_leaves_out_what_cannot_be_scored_and_stays_exact_with_a_thousand_samples():
    answers = np.array([["a", "b", "a"]], dtype=object)
    found = maj_at_k(of([1, 0, NAN]), answers, [1, 2, 3])[0]
    assert found[:2].tolist() == [0.5, 0.5] and math.isnan(found[2])
    many = np.array([["a"] * 700 + ["b"] * 324], dtype=object)
    assert maj_at_k((many == "a").astype(float), many, [1, 1024])[0] == pytest.approx([700 / 1024, 1.0])


def test_an_interval_holds_the_mean_and_repeats_itself():
    scores = np.random.default_rng(0).random(50)
    low, high = interval(scores)
    assert 0 < low < scores.mean() < high < 1 and interval(scores) == (low, high)
    assert np.allclose(interval(np.append(scores, NAN)), (low, high), atol=0.01)
    assert interval(1 - scores) == pytest.approx((1 - high, 1 - low), abs=0.01)
    assert interval(scores, confidence=0.5)[0] > low


def test_problems_and_not_samples_are_independent():
    all_or_nothing = np.repeat(np.arange(40)[:, None] % 2, 8, axis=1).astype(float)
    low, high = interval(avg_at_k(all_or_nothing))
    assert high - low > 0.25  # 40 independent halves: +-0.155; 320 samples would give +-0.055


@pytest.mark.parametrize("value", [0.0, 1.0, 0.25])
@pytest.mark.parametrize("problems", [1, 2, 30, 500])
def test_no_interval_has_zero_width(problems, value):
    """With all problems alike, Clopper and Pearson's interval for the share of others."""
    low, high = interval(np.full(problems, value))
    assert low < value or value == 0.0
    assert high > value or value == 1.0
    if value == 1.0:
        # the probability of n right of n at the lower end is 0.025
        assert (low, high) == (pytest.approx(0.025 ** (1 / problems)), 1.0)


def test_few_problems_leave_room_for_what_was_not_seen():
    low, high = interval(of([0.4], [0.6]).ravel())
    assert low < 0.1 and high > 0.9 and FEW > 2
    assert all(math.isnan(end) for end in interval(of([NAN]).ravel()))


def test_a_difference_is_paired():
    rng = np.random.default_rng(0)
    first = rng.beta(0.3, 0.3, size=200)
    second = np.clip(first + rng.normal(0.02, 0.02, size=200), 0, 1)
    value, (low, high) = difference(first, second)
    assert 0 < low < value < high and high - low < 0.01
    apart = interval(first)[1] - interval(first)[0]
    assert apart > 0.1  # an interval of either alone would hide it
    same, ends = difference(first, first)
    assert same == 0 and ends == (pytest.approx(-ends[1]), ends[1]) and ends[1] > 0
    assert is_constant(first - first) and not is_constant(first)


@pytest.mark.parametrize(
    ("rates", "samples", "least"),
    [((0.2, 0.5, 0.8, 0.95), 8, 0.92), ((0.9, 0.95, 0.99), 8, 0.91), ((0.97,), 1, 0.91)],
    ids=["levels", "levels near 1", "one sample near 1"],
)
@pytest.mark.parametrize("problems", [30, 100, 500])
def test_intervals_of_a_known_model_hold_the_truth_as_often_as_they_say(rates, samples, least, problems):
    """Right with probability p per level, 300 times over; benchmarks/intervals.py has more. The bound allows for three
    standard errors of 300 trials below the coverage measured there."""
    rng, truth, held = np.random.default_rng(problems), np.mean(rates), 0
    for trial in range(300):
        levels = rng.integers(len(rates), size=problems)
        low, high = interval(rng.binomial(samples, np.array(rates)[levels]) / samples, seed=trial, resamples=800)
        held += low - 1e-12 <= truth <= high + 1e-12
    assert held / 300 >= least


def test_intervals_of_a_difference_hold_the_truth():
    rng, held = np.random.default_rng(1), 0
    for trial in range(300):
        rates = rng.beta(1, 1, size=60)
        first, second = (rng.binomial(8, np.clip(rates * factor, 0, 1)) / 8 for factor in (0.8, 0.9))
        _, (low, high) = difference(first, second, seed=trial, resamples=800)
        held += low <= 0.05 <= high  # 0.1 of the mean rate 0.5
    assert held / 300 >= 0.91
