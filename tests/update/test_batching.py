"""From rows to micro-batches: nothing lost, nothing padded in vain, every process in step."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from dapo_trl.rollout.types import TrainingRow
from dapo_trl.update.batching import (
    MICROBATCH_OVERHEAD,
    Microbatch,
    deal,
    shared_lines,
    split_evenly,
    split_tokens,
    training_rows,
)

PAD = 99


def make_row(number, prompt, completion):
    """A row whose every value tells whose it is and where it stands."""
    return TrainingRow(
        prompt_ids=1000 * number + torch.arange(prompt),
        completion_ids=1000 * number + 500 + torch.arange(completion),
        completion_mask=torch.ones(completion, dtype=torch.long),
        old_logps=-torch.arange(1.0, completion + 1) - number,
        sampling_ratio=torch.arange(1.0, completion + 1) + number,
        tool_mask=torch.arange(completion) % 2,
        advantage=torch.tensor(float(number)),
        sample=number,
    )


def batch_of(*rows):
    return Microbatch.of(rows, pad_token_id=PAD)


def equal(one, two):
    one, two = one.tensors(), two.tensors()
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


lengths = st.tuples(st.integers(1, 9), st.integers(2, 12))
row_lists = st.lists(lengths, min_size=1, max_size=8).map(
    lambda found: [make_row(number, *pair) for number, pair in enumerate(found)]
)


@given(count=st.integers(0, 50), parts=st.integers(1, 9))
def test_split_evenly(count, parts):
    cut = split_evenly(count, parts)
    assert len(cut) == parts
    assert [row for part in cut for row in part] == list(range(count))
    assert max(map(len, cut)) - min(map(len, cut)) <= 1


@given(tokens=st.lists(st.one_of(st.integers(0, 20), st.integers(0, 10_000)), max_size=60), parts=st.integers(1, 9))
def test_every_row_is_dealt_once_in_equal_numbers_and_nearly_equal_tokens(tokens, parts):
    dealt = deal(tokens, parts)
    assert sorted(row for share in dealt for row in share) == list(range(len(tokens)))
    assert all(share == sorted(share) for share in dealt) and len(dealt) == parts
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
    loads = [sum(tokens[row] for row in share) for share in dealt]
    assert max(loads) - min(loads) <= max(tokens, default=0)


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    size=st.integers(1, 300),
    parts=st.integers(1, 5),
    seed=st.integers(0, 9),
)
def test_members_of_a_group_stay_together_where_there_is_room(sizes, size, parts, seed):
    """Groups of any sizes: equal numbers of rows on every part; equal groups that divide stay whole."""
    drawn = np.random.default_rng(seed)
    for equal in (False, True):
        groups = [group for group, members in enumerate(sizes) for _ in range(sizes[0] if equal else members)]
        dealt = deal(drawn.integers(0, size, len(groups)).tolist(), parts, groups)
        assert sorted(row for share in dealt for row in share) == list(range(len(groups)))
        assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
        if equal and len(sizes) % parts == 0:
            assert sum(len({groups[row] for row in share}) for share in dealt) == len(sizes)


def test_a_group_without_a_place_of_its_own_is_dealt_row_by_row():
    assert deal([9, 9, 5, 5, 1, 1], 2, [0, 0, 1, 1, 2, 2]) == [[0, 1, 5], [2, 3, 4]]


ids = st.lists(st.integers(0, 2), min_size=1, max_size=12).map(np.array)
"""Few different tokens, so that completions begin alike."""


@given(
    groups=st.lists(st.tuples(ids, st.lists(ids, min_size=1, max_size=6)), min_size=1, max_size=4),
    budget=st.integers(1, 80),
    copy_load=st.sampled_from([0.0, 0.1]),
)
def test_rows_of_a_group_are_one_line_as_far_as_the_budget_goes(groups, budget, copy_load):
    sequences = [np.concatenate([prompt, completion]) for prompt, members in groups for completion in members]
    prompts = [len(prompt) for prompt, members in groups for _ in members]
    lines = shared_lines(sequences, prompts, budget, copy_load=copy_load)
    assert sorted(row for line in lines for row in line.rows) == list(range(len(sequences)))
    for line in lines:
        mine = [sequences[row] for row in line.rows]
        assert line.tokens <= line.load and (len(mine) == 1 or line.load <= budget)
        assert all(np.array_equal(one[: line.shared + 1], mine[0][: line.shared + 1]) for one in mine if line.shared)
        own = sum(len(one) - 1 - line.shared for one in mine)
        assert (
            line.tokens == max(line.shared + own, 1) and line.load >= line.tokens + copy_load * len(mine) * line.shared
        )
        assert len(mine) == 1 or (line.shared and len({prompts[row] for row in line.rows}) == 1)


def test_a_group_is_cut_into_equal_lines_only_where_it_does_not_fit():
    prompt = np.arange(101)
    sequences = [np.concatenate([prompt, np.full(10, 1000 + i)]) for i in range(8)]
    lines = shared_lines(sequences, [101] * 8, 200)
    assert [(len(line.rows), line.shared, line.tokens) for line in lines] == [(8, 100, 180)]
    lines = shared_lines(sequences, [101] * 8, 150)
    assert [(len(line.rows), line.tokens) for line in lines] == [(4, 140)] * 2
    lines = shared_lines(sequences, [101] * 8, 150, copy_load=0.1)  # copies of keys count: 10 for each row
    assert [(len(line.rows), line.load) for line in lines] == [(2, 140)] * 4
    assert [line.rows for line in shared_lines(sequences, [101] * 8, 10)] == [[row] for row in range(8)]
    alone = shared_lines(sequences, [101] * 8, 1000, pays=lambda lengths, shared: sum(lengths) < 8 * 110)
    assert [(line.rows, line.shared, line.tokens) for line in alone] == [([row], 0, 110) for row in range(8)]


def test_one_long_row_is_made_up_for_by_short_ones():
    assert deal([9, 1, 1, 5, 5, 2], 2) == [[0, 2, 5], [1, 3, 4]]  # 12 and 11 tokens


@given(rows=row_lists)
def test_rows_survive_padding_and_unpadding(rows):
    batch = batch_of(*rows)
    assert batch.advantages.tolist() == [float(row.advantage) for row in rows]
    assert batch.samples == [row.sample for row in rows] and batch.rows == len(rows)
    found = training_rows({**batch.to_trl(), "num_items_in_batch": torch.tensor(7)})  # of the whole batch: nobody's
    assert len(found) == len(rows)
    assert all(equal(replace(one, advantage=None), two) for one, two in zip(rows, found, strict=True))


@given(rows=row_lists)
def test_padding_is_as_wide_as_the_longest_row_and_on_the_right_side(rows):
    batch = batch_of(*rows)
    for side in ("prompt", "completion"):
        ids, mask = getattr(batch, f"{side}_ids"), getattr(batch, f"{side}_mask")
        assert ids.shape == mask.shape == (len(rows), max(len(getattr(row, f"{side}_ids")) for row in rows))
        assert (ids[mask == 0] == PAD).all() and (ids[mask == 1] != PAD).all()
        padding = 1 - mask if side == "completion" else mask
        assert (padding.diff(dim=1) >= 0).all()  # completions are padded on the right, prompts on the left
    assert (batch.old_logps[batch.completion_mask == 0] == 0).all()


def test_trls_names_and_ours_are_the_same_batch():
    batch = batch_of(make_row(0, 2, 3), make_row(1, 4, 5))
    theirs = batch.to_trl()
    assert theirs["old_per_token_logps"] is batch.old_logps and "ref_per_token_logps" not in theirs
    again = Microbatch.from_trl(theirs)
    assert again.old_logps is batch.old_logps and again.ref_logps is None and again.step_tokens is None


def test_a_row_comes_back_from_its_state():
    row = make_row(3, 2, 4)
    again = TrainingRow(**row.state_dict())
    assert equal(row, again) and again.sample == 3 and again.length == 6


def test_a_completion_that_is_masked_altogether_keeps_one_token():
    theirs = batch_of(make_row(0, 2, 3), make_row(1, 2, 4)).to_trl()
    theirs["completion_mask"][0] = 0
    first, second = training_rows(theirs)
    assert len(first.completion_ids) == 1 and first.completion_mask.tolist() == [0]
    assert len(second.completion_ids) == 4


def test_rows_of_another_batch_fit_beside_one_another():
    rows = [make_row(0, 2, 3), make_row(1, 7, 11), make_row(2, 1, 2)]
    narrow = training_rows(batch_of(rows[0]).to_trl())
    wide = training_rows(batch_of(*rows[1:]).to_trl())
    beside = [replace(row, advantage=torch.zeros(())) for row in (narrow[0], wide[1])]
    assert batch_of(*beside).completion_ids.shape == (2, 3)


def test_a_row_without_loss_counts_for_nothing_and_leaves_the_row_itself_alone():
    row = make_row(1, 3, 4)
    assert batch_of(row.without_loss()).loss_mask.sum() == 0 and row.without_loss().sample == -1
    assert row.completion_mask.sum() == 4


def test_foreign_tokens_do_not_count():
    row = make_row(0, 1, 4)
    assert batch_of(row).loss_mask.tolist() == [[0, 1, 0, 1]] and row.loss_mask.tolist() == [0, 1, 0, 1]


def cost(lengths, passes, budget):
    """What `split_tokens` makes small: computed tokens, and a share of the budget for each pass."""
    return sum(len(rows) * max(lengths[row] for row in rows) + MICROBATCH_OVERHEAD * budget for rows in passes)


@given(lengths=st.lists(st.integers(1, 60), max_size=40), budget=st.integers(1, 200), packed=st.booleans())
def test_every_row_is_in_one_pass_and_passes_keep_to_the_budget(lengths, budget, packed):
    passes = split_tokens(lengths, budget, packed=packed)
    assert sorted(row for rows in passes for row in rows) == list(range(len(lengths)))
    for rows in passes:
        longest = max(lengths[row] for row in rows)
        assert len(rows) == 1 or budget >= (sum(lengths[row] for row in rows) if packed else len(rows) * longest)
    firsts = [lengths[rows[0]] for rows in passes]
    assert firsts == sorted(firsts, reverse=True)  # what needs the most memory comes at once


def test_packed_passes_are_few_and_even():
    assert split_tokens([6, 5, 4, 3, 2, 1], 12, packed=True) == [[0, 3, 4], [1, 2, 5]]  # 11 and 10 tokens
    assert split_tokens([5, 4, 3, 3, 3], 9, packed=True) == [[0, 1], [2, 3, 4]]  # what first-fit finds is the only way


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=8), budget=st.integers(1, 120))
def test_no_other_cut_of_the_rows_by_length_costs_less(lengths, budget):
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    costs = []
    for cuts in itertools.product([False, True], repeat=len(order) - 1):
        edges = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), len(order)]
        passes = [order[first:last] for first, last in itertools.pairwise(edges)]
        if all(len(rows) == 1 or len(rows) * lengths[rows[0]] <= budget for rows in passes):
            costs.append(cost(lengths, passes, budget))
    assert cost(lengths, split_tokens(lengths, budget), budget) <= min(costs) + 1e-6
