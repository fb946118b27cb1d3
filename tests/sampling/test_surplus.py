"""The surplus buffer: bounded in age and size, the oldest first, no group lost or used twice."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dapo_trl.rollout.types import Group, TrainingRow
from dapo_trl.sampling.surplus import SurplusBuffer


def group(name, step=0):
    ids = torch.tensor([ord(letter) for letter in str(name)])
    row = TrainingRow(prompt_ids=ids, completion_ids=ids, completion_mask=torch.ones_like(ids), old_logps=-ids.float())
    return Group(rewards=[[1.0]], tokens=[3], accounts=["trained"], seconds=0.5, step=step, rows=[row])


def names(groups):
    return ["".join(map(chr, group.rows[0].prompt_ids.tolist())) for group in groups]


def test_groups_come_out_the_oldest_first():
    surplus = SurplusBuffer(max_age=9, capacity=9)
    surplus.put([group("a", 1), group("b", 1)])
    surplus.put([group("c", 2)])
    assert names(surplus.take(2)) == ["a", "b"] and names(surplus.take(5)) == ["c"] and surplus.take(5) == []


def test_a_group_is_kept_up_to_its_greatest_age_and_not_a_step_longer():
    surplus = SurplusBuffer(max_age=4, capacity=9)
    surplus.put([group("a", 10), group("b", 12)])
    assert surplus.expire(14) == []
    assert names(surplus.expire(15)) == ["a"] and names(surplus.groups) == ["b"]


def test_no_more_than_it_has_room_for():
    surplus = SurplusBuffer(max_age=4, capacity=2)
    surplus.put([group("a")])
    assert surplus.room == 1
    with pytest.raises(ValueError, match="2 groups do not fit into a surplus buffer with room for 1"):
        surplus.put([group("b"), group("c")])
    assert names(surplus.groups) == ["a"]


def test_age_0_turns_it_off():
    surplus = SurplusBuffer(max_age=0, capacity=5)
    assert surplus.room == 0
    with pytest.raises(ValueError, match="room for 0"):
        surplus.put([group("a")])


def test_a_checkpoint_brings_the_groups_back():
    surplus, again = (SurplusBuffer(max_age=4, capacity=5) for _ in range(2))
    surplus.put([group("a", 1), group("b", 3)])
    again.load_state_dict(surplus.state_dict())
    assert names(again.groups) == names(surplus.groups) and again.groups[0].rows[0].old_logps.tolist() == [-97.0]
    surplus.take(1)
    assert names(again.groups) == ["a", "b"]


@given(
    max_age=st.integers(0, 5),
    capacity=st.integers(0, 6),
    batches=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 9)), max_size=20),
)
def test_every_group_leaves_once_in_time_and_in_order(max_age, capacity, batches):
    surplus = SurplusBuffer(max_age=max_age, capacity=capacity)
    step, put, out = 0, [], []
    for passed, wanted, found in batches:
        step += passed
        out += names(surplus.expire(step))
        taken = surplus.take(wanted)
        assert len(taken) <= wanted and all(step - group.step <= max_age for group in taken)
        out += names(taken)
        new = [group(len(put) + i, step) for i in range(min(found, surplus.room))]
        surplus.put(new)
        put += names(new)
        assert len(surplus.groups) <= capacity
    assert out + names(surplus.groups) == put == [str(i) for i in range(len(put))]
