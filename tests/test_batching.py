"""From rows to micro-batches: nothing lost, nothing padded in vain, every process in step."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from dapo_trl.batching import loss_mask, micro_batches, muted, select, split_evenly, trim


def make_batch(prompt_lengths, completion_lengths):
    rows, p, c = len(prompt_lengths), max(prompt_lengths), max(completion_lengths)
    prompt_mask = (torch.arange(p).flip(0) < torch.tensor(prompt_lengths)[:, None]).long()
    completion_mask = (torch.arange(c) < torch.tensor(completion_lengths)[:, None]).long()
    return {
        "prompt_ids": torch.arange(rows * p).view(rows, p) * prompt_mask,
        "prompt_mask": prompt_mask,
        "completion_ids": torch.arange(rows * c).view(rows, c) * completion_mask,
        "completion_mask": completion_mask,
        "old_per_token_logps": torch.randn(rows, c),
        "advantages": torch.arange(rows).float(),
        "num_items_in_batch": torch.tensor(7),
    }


@given(count=st.integers(0, 50), parts=st.integers(1, 9))
def test_split_evenly(count, parts):
    cut = split_evenly(count, parts)
    assert len(cut) == parts
    assert [row for part in cut for row in part] == list(range(count))
    assert max(map(len, cut)) - min(map(len, cut)) <= 1


def test_trim_drops_columns_that_are_padding_everywhere_and_nothing_else():
    batch = trim(select(make_batch([2, 5, 3], [4, 9, 6]), [0, 2]))
    assert batch["prompt_ids"].shape == (2, 3) and batch["completion_ids"].shape == (2, 6)
    assert batch["old_per_token_logps"].shape == (2, 6) and batch["advantages"].tolist() == [0.0, 2.0]
    assert batch["prompt_mask"].sum() == 5 and batch["completion_mask"].sum() == 10
    assert batch["num_items_in_batch"] == 7


def test_trim_leaves_one_column_when_every_completion_is_masked():
    batch = make_batch([2, 2], [3, 4])
    batch["completion_mask"] = torch.zeros_like(batch["completion_mask"])
    assert trim(batch)["completion_ids"].shape == (2, 1)


def test_a_muted_row_counts_for_nothing():
    assert loss_mask(muted(make_batch([2, 3], [4, 5]))).sum() == 0


def test_foreign_tokens_do_not_count():
    batch = make_batch([1], [4])
    batch["tool_mask"] = torch.tensor([[1, 0, 0, 1]])
    assert loss_mask(batch).tolist() == [[1, 0, 0, 1]]


@given(rows=st.integers(0, 13), updates=st.integers(1, 4), per_update=st.integers(1, 4))
def test_every_row_is_in_exactly_one_micro_batch_and_the_shape_does_not_depend_on_the_rows(rows, updates, per_update):
    batch = make_batch([3] * 13, [2 + i % 5 for i in range(13)])
    order = torch.randperm(rows).tolist()
    cut = micro_batches(batch, order, updates=updates, per_update=per_update)
    assert [len(update) for update in cut] == [per_update] * updates
    used = [int(a) for update in cut for part in update if part["row_count"] for a in part["advantages"]]
    assert used == order
    assert sum(part["row_count"] for update in cut for part in update) == rows
