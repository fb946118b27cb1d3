"""Doubted golds beside the truth: the stated rate holds for every kind of model, and most wrong golds are found."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from dapo_trl.triage.golds import Votes, doubts, rates, understated, unnamed

from ..conftest import ROOT

sys.path.append(str(ROOT / "benchmarks"))
from triage import RATE, WORLDS, realised, sampled


def votes(*rows: tuple[int, int, int]) -> Votes:
    right, leader, scored = (np.array(column) for column in zip(*rows, strict=True))
    return Votes(right, leader, leader, scored)


@pytest.mark.parametrize("name", [name for name in WORLDS if name != "stubborn"])
def test_right_golds_among_the_doubted_are_no_more_than_stated(name):
    for k in (8, 16):
        assert realised(name, k, 12)[1] <= RATE


@pytest.mark.parametrize(("name", "least"), [("middling", 0.25), ("strong", 0.65)])
def test_most_wrong_golds_are_found(name, least):
    assert realised(name, 16, 6)[2] >= least


def test_a_model_that_never_departs_from_its_mistakes_needs_trusted_rows():
    """Without them its mistakes pass for wrong golds; no method could tell."""
    assert realised("stubborn", 16, 6)[1] > RATE
    assert realised("stubborn", 16, 12, trusted=1000)[1] <= RATE


def test_without_wrong_golds_hardly_anything_is_doubted():
    for name in ("weak", "strong", "systematic"):
        found = [
            (doubts(sampled(WORLDS[name], np.random.default_rng(seed), 2000, 16, 0.0)[0]) <= RATE).any()
            for seed in range(20)
        ]
        assert np.mean(found) <= 0.2


@pytest.mark.parametrize("rows", [[(16, 0, 16)] * 800 + [(0, 16, 16)] * 1200, [(0, 16, 16)] * 1200])
def test_where_samples_never_vary_nothing_is_doubted(rows):
    assert (doubts(votes(*rows))[-1200:] == 1.0).all()


def test_samples_that_hardly_vary_raise_the_rate():
    """Rows that name nothing but the gold are as many as those with some other answers say, or many more."""
    rng = np.random.default_rng(0)
    alike, mixed = (sampled(WORLDS[name], rng, 2000, 16, 0.0)[0] for name in ("temperature 0.1", "strong"))
    assert understated(mixed) < 1.5 and understated(alike) > 10
    without_answers = Votes(alike.right, alike.leader, alike.others, alike.scored + 4)  # nothing that varies
    assert understated(without_answers) > 10


def test_what_can_be_doubted():
    """A majority against a gold that was never named; ties, few samples and named golds are out."""
    found = doubts(votes((0, 16, 16), (0, 9, 16), (0, 8, 16), (1, 15, 16), (16, 0, 16), (0, 3, 3), (0, 0, 0)))
    assert np.isnan(found).tolist() == [False, False, True, True, True, True, True]


def test_rates_by_hand():
    scores, decoys, weights = np.array([1.0, 1.0, 0.9, 0.8]), np.array([0.85, 0.7]), np.array([0.5, 4.0])
    # at 1: 1 / 2; at 0.9: 1 / 3; at 0.8: (1 + 0.5) / 4
    assert rates(scores, decoys, weights, 1.0) == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0.375])
    assert rates(scores, decoys[:0], weights[:0], 0.1) == pytest.approx([0.025] * 4)
    assert rates(np.array([]), decoys, weights, 1.0).shape == (0,)


def test_a_row_that_names_its_gold_stands_for_rows_that_do_not():
    """Shares spread evenly over the possible counts: of 15 votes 7 counts are below the leader's, and none stands for
    a seventh of them."""
    even = votes(*[(named, 15 - named, 15) for named in range(1, 8) for _ in range(60)])
    assert unnamed(even) == pytest.approx(np.full(420, 1 / 7), rel=0.25)
    steep = votes(*[(1, 14, 15)] * 50)
    assert (unnamed(steep) > 1).all()
    assert unnamed(votes((0, 15, 15), (15, 0, 15), (1, 2, 15))).tolist() == [0, 0, 0]
