"""The surplus bank: bounded in age and size, the oldest first, no group lost or used twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dapo_trl.sampling.surplus import BankedGroup, SurplusBuffer


def group(name, step=0):
    return BankedGroup(rows=[{"name": name}], rewards=[[1.0]], tokens=[3], fates=["trained"], seconds=0.5, step=step)


def names(groups):
    return [group.rows[0]["name"] for group in groups]


def test_groups_come_out_the_oldest_first():
    bank = SurplusBuffer(max_age=9, capacity=9)
    bank.put([group("a", 1), group("b", 1)])
    bank.put([group("c", 2)])
    assert names(bank.take(2)) == ["a", "b"] and names(bank.take(5)) == ["c"] and bank.take(5) == []


def test_a_group_is_kept_up_to_its_greatest_age_and_not_a_step_longer():
    bank = SurplusBuffer(max_age=4, capacity=9)
    bank.put([group("a", 10), group("b", 12)])
    assert bank.expire(14) == []
    assert names(bank.expire(15)) == ["a"] and names(bank.groups) == ["b"]


def test_no_more_than_it_has_room_for():
    bank = SurplusBuffer(max_age=4, capacity=2)
    bank.put([group("a")])
    assert bank.room == 1
    with pytest.raises(ValueError, match="2 groups do not fit into a bank with room for 1"):
        bank.put([group("b"), group("c")])
    assert names(bank.groups) == ["a"]


def test_age_0_turns_it_off():
    bank = SurplusBuffer(max_age=0, capacity=5)
    assert bank.room == 0
    with pytest.raises(ValueError, match="room for 0"):
        bank.put([group("a")])


def test_a_checkpoint_brings_the_groups_back():
    bank, again = (SurplusBuffer(max_age=4, capacity=5) for _ in range(2))
    bank.put([group("a", 1), group("b", 3)])
    again.load_state_dict(bank.state_dict())
    assert again.groups == bank.groups
    bank.take(1)
    assert names(again.groups) == ["a", "b"]


@given(
    max_age=st.integers(0, 5),
    capacity=st.integers(0, 6),
    batches=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 9)), max_size=20),
)
def test_every_group_leaves_once_in_time_and_in_order(max_age, capacity, batches):
    bank = SurplusBuffer(max_age=max_age, capacity=capacity)
    step, put, out = 0, [], []
    for passed, wanted, found in batches:
        step += passed
        out += names(bank.expire(step))
        taken = bank.take(wanted)
        assert len(taken) <= wanted and all(step - group.step <= max_age for group in taken)
        out += names(taken)
        new = [group(len(put) + i, step) for i in range(min(found, bank.room))]
        bank.put(new)
        put += names(new)
        assert len(bank.groups) <= capacity
    assert out + names(bank.groups) == put == list(range(len(put)))
