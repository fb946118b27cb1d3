"""Dynamic sampling: what is kept, what is dropped and when it stops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dapo_trl.sampling import DynamicSampler, GroupCounts

NAN = float("nan")
RIGHT, WRONG, MIXED, CONSTANT, LOST = [1.0, 1.0], [0.0, 0.0], [0.0, 1.0], [0.3, 0.3], [NAN, NAN]


def test_only_mixed_groups_are_kept_and_the_batch_is_refilled():
    sampler = DynamicSampler(target=4, min_valid_fraction=1.0, max_refill_rounds=5)
    assert sampler.groups_wanted() == 4
    assert sampler.add(torch.tensor([RIGHT, MIXED, WRONG, CONSTANT])) == [
        False,
        True,
        False,
        False,
    ]
    assert sampler.groups_wanted() == 3
    sampler.add(torch.tensor([MIXED, MIXED, LOST]))
    assert sampler.groups_wanted() == 1
    sampler.add(torch.tensor([MIXED]))
    assert sampler.groups_wanted() == 0
    assert sampler.counts == GroupCounts(kept=4, all_right=1, all_wrong=1, constant=1, unscorable=1)
    assert sampler.refill_rounds == 2


def test_stops_as_soon_as_the_wanted_fraction_is_valid():
    sampler = DynamicSampler(target=4, min_valid_fraction=0.5, max_refill_rounds=5)
    sampler.groups_wanted()
    sampler.add(torch.tensor([MIXED, MIXED, WRONG, WRONG]))
    assert sampler.enough and sampler.groups_wanted() == 0


def test_the_limit_keeps_what_there_is_and_says_why():
    sampler = DynamicSampler(target=2, min_valid_fraction=1.0, max_refill_rounds=1)
    sampler.groups_wanted()
    sampler.add(torch.tensor([WRONG, MIXED]))
    assert sampler.groups_wanted() == 1
    sampler.add(torch.tensor([WRONG]))
    assert sampler.groups_wanted() == 0 and not sampler.enough
    assert "1 of 2 groups are informative after 2 round(s)" in sampler.explain()
    assert "2 were all wrong" in sampler.explain() and "too hard" in sampler.explain()


@pytest.mark.parametrize(
    ("scores", "advice"),
    [(RIGHT, "solved"), (WRONG, "too hard"), (CONSTANT, "filter_key"), (LOST, "infra_failure")],
)
def test_the_advice_fits_the_cause(scores, advice):
    sampler = DynamicSampler(target=1)
    sampler.add(torch.tensor([scores]))
    assert advice in sampler.explain()


def test_no_filter_takes_everything_in_one_round():
    sampler = DynamicSampler(target=2, rule="none", max_refill_rounds=9)
    sampler.add(torch.tensor([WRONG, LOST]))
    assert sampler.counts.kept == 2 and sampler.groups_wanted() == 0


def test_plus_minus_one_rewards_count_as_wrong_and_right():
    sampler = DynamicSampler(target=3)
    sampler.add(torch.tensor([[-1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]))
    assert sampler.counts == GroupCounts(kept=1, all_right=1, all_wrong=1)


def test_scores_must_be_one_row_per_group():
    with pytest.raises(ValueError, match=r"\(2,\): expected \[groups, G\]"):
        DynamicSampler(target=2).add(torch.zeros(2))


@given(
    outcomes=st.lists(st.sampled_from([RIGHT, WRONG, MIXED, CONSTANT, LOST]), min_size=200, max_size=200),
    target=st.integers(1, 12),
    fraction=st.floats(0.01, 1.0),
    limit=st.integers(0, 6),
    rounding=st.integers(1, 3),
)
def test_every_group_is_accounted_for_and_none_is_lost(outcomes, target, fraction, limit, rounding):
    """Whatever the outcomes: each sampled group is counted once, every mixed one is kept, and it ends in time."""
    sampler = DynamicSampler(target=target, min_valid_fraction=fraction, max_refill_rounds=limit)
    drawn, kept = 0, []
    while wanted := sampler.groups_wanted():
        assert wanted <= target
        wanted = -(-wanted // rounding) * rounding  # a round may have to be a multiple of something
        kept += sampler.add(torch.tensor(outcomes[drawn : drawn + wanted]))
        drawn += wanted
    assert sampler.counts.sampled == drawn
    assert kept == [outcome == MIXED for outcome in outcomes[:drawn]]
    assert sampler.counts.kept == sum(kept)
    assert sampler.rounds <= limit + 1
    assert sampler.enough or sampler.refill_rounds == limit
