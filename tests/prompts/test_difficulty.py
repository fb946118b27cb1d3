"""Difficulty memory: the posterior is right, forgets, and is not misled by which prompts are drawn."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dapo_trl.prompts import difficulty
from dapo_trl.prompts.difficulty import EARLIER_GROUPS, HALF_LIFE, MAX_LEVELS, POPULATION_HALF_LIFE, Difficulty

G = 8


def observe(memory, keys, passes, attempts=G, *, levels=None, weights=0.0):
    """One group each; by default without a say in the population."""
    n = len(keys)
    passes, attempts = np.broadcast_to(passes, n), np.broadcast_to(attempts, n)
    memory.observe(keys, levels or [None] * n, passes.astype(float), attempts.astype(float), weights)


def chance(memory, key, level=None):
    return memory.chances([key], [level]).item()


def age(memory, batches):
    for _ in range(int(batches)):
        memory.tick()


@pytest.fixture
def two_rates(monkeypatch):
    """Pass rates of 0.2 and 0.5, equally likely at first: small enough to work out by hand."""
    monkeypatch.setattr(difficulty, "_RATES", np.array([0.2, 0.5]))
    monkeypatch.setattr(difficulty, "_START", np.array([0.5, 0.5]))


def test_the_posterior_by_hand(two_rates):
    """Groups of 2. Informative: 1 - 0.04 - 0.64 = 0.32 and 1 - 0.25 - 0.25 = 0.5. Both of 2 pass: likelihoods 0.04 and
    0.25, so the odds are 4 to 25, and the prompt's own posterior is 4/29 and 25/29."""
    memory = Difficulty(2, group_size=2)
    assert chance(memory, 0) == pytest.approx(0.41)
    observe(memory, [0], 2, 2)
    assert chance(memory, 0) == pytest.approx((4 * 0.32 + 25 * 0.5) / 29)
    assert chance(memory, 1) == pytest.approx(0.41) == memory.average


def test_a_population_learns_from_its_prompts_by_hand(two_rates):
    """The start counts as 4 prompts, 2 for each rate; then comes one of 4/29 and 25/29."""
    memory = Difficulty(2, group_size=2)
    observe(memory, [0], 2, 2, weights=1.0)
    low, high = 2 + 4 / 29, 2 + 25 / 29
    assert chance(memory, 1) == pytest.approx((low * 0.32 + high * 0.5) / 5) == memory.average
    low, high = low * 4, high * 25  # times the prompt's own likelihood
    assert chance(memory, 0) == pytest.approx((low * 0.32 + high * 0.5) / (low + high))


@given(
    passes=st.floats(0, G),
    more=st.floats(0, G),
    gap=st.integers(0, 200),
    rule=st.sampled_from(["zero_variance", "all_zero"]),
)
def test_the_posterior_is_prior_times_likelihood_with_earlier_outcomes_counting_less(passes, more, gap, rule):
    memory = Difficulty(3, group_size=G, rule=rule)
    observe(memory, [1], passes)
    age(memory, gap)
    observe(memory, [1], more)
    old = min(0.5 ** (gap / HALF_LIFE), EARLIER_GROUPS)
    right, wrong = old * passes + more, old * (G - passes) + G - more
    weights, informative = [], []
    for rate, prior in zip(difficulty._RATES.tolist(), difficulty._START.tolist(), strict=True):
        weights.append(math.exp(math.log(prior) + right * math.log(rate) + wrong * math.log(1 - rate)))
        informative.append(1 - (1 - rate) ** G - (rate**G if rule == "zero_variance" else 0))
    expected = sum(w * i for w, i in zip(weights, informative, strict=True)) / sum(weights)
    assert chance(memory, 1) == pytest.approx(expected, rel=1e-9)


def test_an_outcome_counts_half_after_its_half_life():
    old, fresh = Difficulty(1, group_size=G), Difficulty(1, group_size=G)
    observe(old, [0], 0)
    observe(fresh, [0], 0, G / 2)
    assert chance(old, 0) < chance(fresh, 0)
    age(old, HALF_LIFE)
    assert chance(old, 0) == pytest.approx(chance(fresh, 0), rel=1e-9)


@pytest.mark.parametrize("passes", [0, G])
def test_what_is_not_looked_at_again_is_forgotten(passes):
    memory = Difficulty(2, group_size=G)
    observe(memory, [0], passes)
    fresh, unseen = chance(memory, 0), chance(memory, 1)
    age(memory, 2 * HALF_LIFE)
    older = chance(memory, 0)
    age(memory, 10 * HALF_LIFE)
    assert fresh < 0.3 * unseen and older > 2 * fresh
    assert chance(memory, 0) == pytest.approx(unseen, rel=0.01)


def test_a_long_record_does_not_outweigh_the_newest_group():
    memory = Difficulty(1, group_size=G)
    for _ in range(50):
        observe(memory, [0], 0)
    before = chance(memory, 0)
    observe(memory, [0], 2)
    assert before < 0.1 and chance(memory, 0) > 0.5


def test_a_prompt_drawn_twice_in_a_round_counts_twice_and_fades_once():
    twice, once = Difficulty(1, group_size=G), Difficulty(1, group_size=G)
    for memory in (twice, once):
        observe(memory, [0], 5)
        age(memory, 7)
    observe(twice, [0, 0], [3, 1])
    observe(once, [0], 4, 2 * G)
    assert chance(twice, 0) == pytest.approx(chance(once, 0), rel=1e-12)


def test_unscorable_groups_teach_nothing():
    memory = Difficulty(2, group_size=G)
    observe(memory, [0], 3, weights=1.0)
    before = chance(memory, 0), chance(memory, 1), memory.average
    observe(memory, [0, 1], 0, 0, weights=1.0)
    assert (chance(memory, 0), chance(memory, 1), memory.average) == before


def test_chances_order_prompts_as_they_should():
    memory = Difficulty(4, group_size=G)
    observe(memory, [0, 1, 2], [0, 1, 4])
    hopeless, hard, even, unseen = memory.chances(range(4), [None] * 4)
    assert hopeless < unseen < hard < even and even > 0.95
    assert hopeless > 0


def test_all_right_is_informative_by_the_literal_rule_alone():
    for rule, low, high in (("zero_variance", 0.0, 0.2), ("none", 0.0, 0.2), ("all_zero", 0.95, 1.0)):
        memory = Difficulty(1, group_size=G, rule=rule)
        observe(memory, [0], G)
        assert low < chance(memory, 0) <= high


def test_levels_learn_apart():
    memory = Difficulty(40, group_size=G)
    levels = ["easy", "hard"] * 10
    observe(memory, range(20), [4, 0] * 10, levels=levels, weights=1.0)
    easy, hard, new = memory.chances([30, 30, 30], ["easy", "hard", "new"])
    assert easy > 0.7 and hard < 0.2 and hard < new < easy
    assert memory.average == pytest.approx((easy + hard) / 2, abs=0.05)


def test_levels_that_name_single_prompts_share_one_population():
    memory = Difficulty(0, group_size=G)
    n = 5 * MAX_LEVELS
    observe(memory, range(n), 4, levels=[f"row {i}" for i in range(n)], weights=1.0)
    assert len(memory.state_dict()["populations"]) <= MAX_LEVELS + 1
    assert chance(memory, 0, f"row {n - 1}") == chance(memory, 0, "never heard of") > 0.9


def test_looking_changes_nothing():
    memory = Difficulty(2, group_size=G)
    before = memory.state_dict()
    memory.chances([0, 1], ["easy", "hard"])
    assert memory.average > 0 and memory.state_dict() == before


def test_an_endless_source_is_known_by_level_alone():
    memory = Difficulty(0, group_size=G)
    for _ in range(5):
        observe(memory, [10**9, 7], [G, 4], levels=["easy", "hard"], weights=1.0)
    chances = memory.chances([10**9, 7, 3, 4], ["easy", "hard", "easy", "hard"])
    assert chances[0] == chances[2] < 0.3 and chances[1] == chances[3] > 0.6


@pytest.mark.parametrize("size", [0, 6])
def test_a_checkpoint_brings_everything_back(size):
    memory, again = Difficulty(size, group_size=G), Difficulty(size, group_size=G)
    levels = ["a", "b", None]
    observe(memory, range(3), [0, 3, G], levels=levels, weights=[1.0, 2.0, 10.0])
    age(memory, 3)
    state = json.dumps(memory.state_dict())
    again.load_state_dict(json.loads(state))
    for m in (memory, again):
        age(m, 2)
        observe(m, [1, 2, 3], [1, 1, 1], levels=levels, weights=1.0)
    assert again.chances(range(3), levels).tolist() == memory.chances(range(3), levels).tolist()
    assert again.average == memory.average and again.state_dict() == memory.state_dict()


def test_a_checkpoint_is_not_changed_by_what_comes_after_it():
    memory = Difficulty(3, group_size=G)
    observe(memory, [0], 3, weights=1.0)
    state = memory.state_dict()
    kept = json.dumps(state)
    age(memory, 1)
    observe(memory, [0, 1], 0, weights=1.0)
    assert json.dumps(state) == kept


def test_the_population_follows_a_policy_that_moves():
    """What prompts do that were never seen is foretold from what others do now, not from what they did long ago."""
    memory = Difficulty(10_000, group_size=G)
    batches = iter(range(10_000 // 50))

    def train(passes, rollout_batches):
        for _ in range(int(rollout_batches)):
            observe(memory, range(50 * (batch := next(batches)), 50 * batch + 50), passes, weights=1.0)
            age(memory, 1)

    train(0, 60)
    assert memory.average < 0.1
    train(4, 2 * POPULATION_HALF_LIFE)
    assert memory.average > 0.6
    train(4, 3 * POPULATION_HALF_LIFE)
    assert memory.average > 0.9


def test_weights_undo_what_choosing_prompts_does_to_the_population():
    """Half of the data are hopeless. Drawn a tenth as often, at ten times the weight, they still count for half."""
    everything, chosen, naive = (Difficulty(1000, group_size=G) for _ in range(3))
    observe(everything, range(1000), [0] * 500 + [4] * 500, weights=1.0)
    few = [*range(50), *range(500, 1000)]
    observe(chosen, few, [0] * 50 + [4] * 500, weights=[10.0] * 50 + [1.0] * 500)
    observe(naive, few, [0] * 50 + [4] * 500, weights=1.0)
    assert chosen.average == pytest.approx(everything.average, abs=0.02)
    assert naive.average > everything.average + 0.2
