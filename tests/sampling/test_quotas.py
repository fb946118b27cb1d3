"""Mixtures: exact shares whatever the weights, and sources that rest."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dapo_trl.sampling.group_filter import DynamicSampler
from dapo_trl.sampling.quotas import FIRST_REST, LONGEST_REST, MIN_GROUPS, Quotas, Rest

WRONG, MIXED = [0.0, 0.0], [0.0, 1.0]


def shares(weights):
    return [weight / sum(weights) for weight in weights]


def test_one_source_gets_every_place():
    quotas = Quotas([0.3])
    assert [quotas.deal(places, [True]) for places in (1, 8, 0, 5)] == [[1], [8], [0], [5]]


def test_places_by_hand():
    """Weights 3, 2, 1: of batches of 4 places the exact shares are 2, 1 1/3 and 2/3; after 3 batches all are whole."""
    quotas = Quotas([3, 2, 1])
    dealt = [quotas.deal(4, [True] * 3) for _ in range(3)]
    assert [sum(batch) for batch in dealt] == [4, 4, 4]
    assert [sum(column) for column in zip(*dealt, strict=True)] == [6, 4, 2]
    assert quotas.owed == pytest.approx([0, 0, 0], abs=1e-9)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_no_source_is_ever_a_whole_place_off_its_share(count):
    """Every mixture of weights from 1 to 5, place by place: so it holds for batches of any size too."""
    for weights in itertools.combinations_with_replacement(range(1, 6), count):
        quotas, got = Quotas(weights), [0] * count
        for places in range(1, 2 * sum(weights) + 1):
            for i, dealt in enumerate(quotas.deal(1, [True] * count)):
                got[i] += dealt
            off = [abs(share * places - have) for share, have in zip(shares(weights), got, strict=True)]
            assert max(off) <= 1 - 1 / (2 * count - 2) + 1e-6, (weights, places, got)


@settings(deadline=None, max_examples=300)
@given(
    weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=8),
    batches=st.lists(st.integers(0, 40), min_size=1, max_size=40),
)
def test_nor_with_any_weights_and_batches(weights, batches):
    quotas, got, everything = Quotas(weights), [0] * len(weights), 0
    for places in batches:
        dealt = quotas.deal(places, [True] * len(weights))
        assert sum(dealt) == places and min(dealt) >= 0
        everything += places
        got = [have + more for have, more in zip(got, dealt, strict=True)]
        for share, have in zip(shares(weights), got, strict=True):
            assert abs(share * everything - have) < 1


@settings(deadline=None, max_examples=200)
@given(
    weights=st.lists(st.floats(0.1, 10), min_size=2, max_size=5),
    rests=st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=12),
)
def test_the_share_of_one_that_rests_goes_to_the_others_in_proportion(weights, rests):
    quotas = Quotas(weights)
    for resting in rests:
        active = [not rest for rest in resting[: len(weights)]]
        active[0] = active[0] or not any(active)
        for places in (3, 8):
            before = list(quotas.owed)
            dealt = quotas.deal(places, active)
            assert sum(dealt) == places and not any(n for n, on in zip(dealt, active, strict=True) if not on)
            assert sum(quotas.owed) == pytest.approx(0, abs=1e-6)
            assert all(owed == 0 for owed, on in zip(quotas.owed, active, strict=True) if not on)
        now = quotas.shares(active)  # the second of the two: nothing was left over any more
        for i, share in enumerate(now):
            assert quotas.owed[i] - before[i] == pytest.approx(8 * share - dealt[i], abs=1e-6)
        assert max(map(abs, quotas.owed)) < 2  # a change may put one a little further off, and it comes back


def test_the_state_is_what_is_owed():
    one, other = Quotas([3, 2, 2]), Quotas([3, 2, 2])
    one.deal(5, [True] * 3)
    other.owed = list(one.owed)
    assert [one.deal(5, [True] * 3) for _ in range(9)] == [other.deal(5, [True] * 3) for _ in range(9)]


def sampled(*rows, banked=0, target=4):
    sampler = DynamicSampler(target=target, banked=banked)
    if rows:
        sampler.add(torch.tensor(rows))
    return sampler


class TestRest:
    def test_it_doubles_up_to_a_limit_and_ends_with_the_first_informative_group(self):
        rest, batch, lengths = Rest(), 0, []
        for _ in range(6):
            assert rest.is_over(batch) and rest.see(sampled(*[WRONG] * MIN_GROUPS), batch, others_teach=True)
            lengths.append(rest.length)
            assert not rest.is_over(batch + rest.length) and rest.is_over(batch + 1 + rest.length)
            batch += 1 + rest.length
        assert lengths[:2] == [FIRST_REST, 2 * FIRST_REST] and lengths[-2:] == [LONGEST_REST] * 2
        assert rest.on_trial and not rest.see(sampled(MIXED, WRONG), batch, others_teach=True)
        assert not rest.on_trial and rest.is_over(batch + 1)

    def test_a_few_groups_are_no_reason_many_in_a_row_are_and_few_prolong_a_rest(self):
        rest = Rest()
        assert not rest.see(sampled(*[WRONG] * (MIN_GROUPS - 1)), 0, others_teach=True)
        assert not rest.see(sampled(*[WRONG] * 3, MIXED), 1, others_teach=True)
        assert not rest.see(sampled(*[WRONG] * (MIN_GROUPS - 1)), 2, others_teach=True)
        assert rest.see(sampled(WRONG), 3, others_teach=True)
        assert rest.see(sampled(WRONG), rest.until, others_teach=True) and rest.length == 2 * FIRST_REST

    def test_nobody_rests_whose_share_no_one_can_use(self):
        assert not Rest().see(sampled(*[WRONG] * MIN_GROUPS), 0, others_teach=False)

    def test_a_part_filled_by_surplus_or_without_places_says_nothing_against_it(self):
        for sampler in (sampled(banked=4), sampled(target=0), sampled(*[WRONG] * MIN_GROUPS, banked=1)):
            assert not Rest().see(sampler, 0, others_teach=True)
