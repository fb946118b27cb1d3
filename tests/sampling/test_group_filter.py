"""Dynamic sampling: what is kept, what is dropped, when it stops, and where every group and every token goes."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dapo_trl.errors import RefillLimitError, RewardError
from dapo_trl.prompts.stream import PromptStream
from dapo_trl.rollout.rewards import RewardColumns, Scorer
from dapo_trl.rollout.types import Sampled
from dapo_trl.sampling.collector import Observers, RolloutCollector
from dapo_trl.sampling.group_filter import DynamicSampler, GroupCounts, SolvedWatch, explain
from dapo_trl.sampling.sources import Source
from dapo_trl.sampling.state import SamplingState

NAN = float("nan")
RIGHT, WRONG, MIXED, CONSTANT, LOST = [1.0, 1.0], [0.0, 0.0], [0.0, 1.0], [0.3, 0.3], [NAN, NAN]
NAMES = {"RIGHT": "all_right", "WRONG": "all_wrong", "MIXED": "kept", "CONSTANT": "constant", "LOST": "unscorable"}


def test_only_mixed_groups_are_kept_and_the_batch_is_refilled():
    sampler = DynamicSampler(target=4, min_valid_fraction=1.0, max_refill_rounds=5)
    assert sampler.missing == sampler.least == 4
    found = sampler.add(torch.tensor([RIGHT, MIXED, WRONG, CONSTANT]))
    assert found == ["all_right", "kept", "all_wrong", "constant"]
    assert sampler.missing == 3 and sampler.least == 1
    assert sampler.add(torch.tensor([MIXED, MIXED, LOST])) == ["kept", "kept", "unscorable"]
    assert sampler.missing == 1 and not sampler.enough
    sampler.add(torch.tensor([MIXED, MIXED]))
    assert sampler.missing == 0 and sampler.enough
    assert sampler.counts == GroupCounts(kept=5, all_right=1, all_wrong=1, constant=1, unscorable=1)
    assert sampler.counts.summary(filtered=True) == (
        "9 groups sampled: 5 informative, 1 all wrong, 1 all correct, 1 constant, 1 unscorable."
    )
    assert sampler.have == 5 and sampler.used == 4  # one more than needed
    assert sampler.refill_rounds == 2


def test_stops_as_soon_as_the_wanted_fraction_is_valid():
    sampler = DynamicSampler(target=4, min_valid_fraction=0.5, max_refill_rounds=5)
    assert sampler.missing == 2 and sampler.least == 4  # the first round could still fill the batch
    sampler.add(torch.tensor([MIXED, MIXED, WRONG, WRONG]))
    assert sampler.enough and sampler.missing == 0 and sampler.used == 2


def test_banked_groups_come_first():
    sampler = DynamicSampler(target=4, max_refill_rounds=5, banked=3)
    assert sampler.missing == sampler.least == 1
    sampler.add(torch.tensor([MIXED, MIXED]))
    assert sampler.missing == 0 and sampler.used == 4 and sampler.have == 5
    assert sampler.counts.kept == 2  # those of the bank were counted when they were sampled


def test_a_full_bank_needs_no_round():
    sampler = DynamicSampler(target=4, banked=4)
    assert sampler.missing == 0 and sampler.enough and sampler.used == 4


def test_banked_groups_that_are_enough_do_not_save_the_first_round():
    sampler = DynamicSampler(target=4, min_valid_fraction=0.5, max_refill_rounds=5, banked=3)
    assert sampler.missing == 1 and sampler.least == 1
    sampler.add(torch.tensor([WRONG]))
    assert sampler.missing == 0 and sampler.used == 3


def test_the_limit_keeps_what_there_is_and_says_why():
    sampler = DynamicSampler(target=2, min_valid_fraction=1.0, max_refill_rounds=1)
    sampler.add(torch.tensor([WRONG, MIXED]))
    assert sampler.missing == 1
    sampler.add(torch.tensor([WRONG]))
    assert sampler.missing == 0 and not sampler.enough
    assert "1 of 2 groups are informative after 2 round(s)" in explain([sampler])
    assert "2 were all wrong" in explain([sampler]) and "too hard" in explain([sampler])


@pytest.mark.parametrize(
    ("scores", "advice"),
    [(RIGHT, "solved"), (WRONG, "too hard"), (CONSTANT, "filter_key"), (LOST, "infra_failure")],
)
def test_the_advice_fits_the_cause(scores, advice):
    sampler = DynamicSampler(target=1)
    sampler.add(torch.tensor([scores]))
    assert advice in explain([sampler])


def test_truncation_is_the_reason_where_most_completions_are_cut_off():
    sampler = DynamicSampler(target=2)
    sampler.add(torch.zeros(2, 8), truncated=15)
    assert "94% of the completions were cut off at the length limit" in explain([sampler])
    assert "too hard" not in explain([sampler])
    solved = DynamicSampler(target=2)
    solved.add(torch.ones(2, 8), truncated=15)
    assert "solved at this difficulty" in explain([solved]), "answers that are there before the end"


def test_no_filter_takes_everything_in_one_round():
    sampler = DynamicSampler(target=2, rule="none", max_refill_rounds=9)
    assert sampler.add(torch.tensor([WRONG, LOST])) == ["kept", "kept"]
    assert sampler.counts.kept == 2 and sampler.missing == 0


def test_plus_minus_one_rewards_count_as_wrong_and_right():
    sampler = DynamicSampler(target=3)
    sampler.add(torch.tensor([[-1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]))
    assert sampler.counts == GroupCounts(kept=1, all_right=1, all_wrong=1)


def test_scores_must_be_one_row_per_group():
    with pytest.raises(ValueError, match=r"\(2,\): expected \[groups, G\]"):
        DynamicSampler(target=2).add(torch.zeros(2))


@settings(deadline=None)
@given(
    outcomes=st.lists(st.sampled_from(sorted(NAMES)), min_size=400, max_size=400),
    target=st.integers(1, 12),
    fraction=st.floats(0.01, 1.0),
    limit=st.integers(0, 6),
    sizes=st.lists(st.integers(0, 30), min_size=7, max_size=7),
    banked=st.integers(0, 12),
)
def test_every_group_is_counted_and_it_ends_in_time(outcomes, target, fraction, limit, sizes, banked):
    """Whatever the outcomes and however large the rounds are made."""
    banked = min(banked, target)
    sampler = DynamicSampler(target=target, min_valid_fraction=fraction, max_refill_rounds=limit, banked=banked)
    found = []
    while missing := sampler.missing:
        assert 1 <= missing <= target and 1 <= sampler.least <= target
        size = max(sampler.least, sizes[sampler.rounds])
        scores = [globals()[name] for name in outcomes[len(found) : len(found) + size]]
        found += sampler.add(torch.tensor(scores))
    assert found == [NAMES[name] for name in outcomes[: len(found)]]
    assert sampler.counts.sampled == len(found) and sampler.counts.kept == found.count("kept")
    assert sampler.rounds <= limit + 1
    assert sampler.enough or sampler.refill_rounds == limit
    assert sampler.used == min(target, banked + found.count("kept"))


SETTINGS = {
    "num_generations": 3,
    "groups_per_rollout": 4,
    "groups_per_round": 12,
    "group_filter": "zero_variance",
    "filter_key": "accuracy",
    "min_valid_fraction": 1.0,
    "max_refill_rounds": 10,
    "on_refill_limit": "raise",
    "prompt_selection": "uniform",
    "surplus_max_age": 4,
    "refill_sigmas": 3.0,
    "mask_truncated_completions": False,
    "seed": 0,
}


class Table:
    """A run without a model: lengths and scores of completions come from a table."""

    def __init__(self, outcomes, lengths, **changes):
        """Outcomes and lengths repeat: the n-th group generated has the n-th outcome, the n-th completion that length;
        a completion of even length is cut off."""
        self.args = SimpleNamespace(**SETTINGS | changes)
        rows = [{"prompt": f"p{i}", "level": i % 2} for i in range(23)]
        self.sampling = SamplingState([Source(PromptStream(rows, size=23, seed=1), self.args)], self.args)
        self.step = 0
        self._outcomes, self._lengths = itertools.cycle(outcomes), itertools.cycle(lengths)
        self.groups = []
        """outcome and tokens of each group generated; completions are named after their group"""
        self.collector = RolloutCollector(
            self.args,
            SimpleNamespace(is_main_process=True, num_processes=1, process_index=0),
            sample=self._sample,
            scorer=Scorer(RewardColumns(["task"], torch.ones(1), 1), self._rewards),
            state=self.sampling,
            run=self,
            session=contextlib.nullcontext,
            decode=str,
            observers=Observers(),
        )

    def log(self, values):
        pass

    log_last = warn = log

    def _sample(self, rows, numbers):
        assert len(numbers) == len(rows) and numbers.start == self.args.num_generations * len(self.groups)
        prompts, size = [row["prompt"] for row in rows], self.args.num_generations
        assert all(len(set(prompts[i : i + size])) == 1 for i in range(0, len(prompts), size))
        ids, names = [], []
        for _ in range(len(prompts) // size):
            lengths = [next(self._lengths) for _ in range(size)]
            ids += [[7] * length for length in lengths]
            names += [len(self.groups)] * size
            self.groups.append((next(self._outcomes), lengths))
        return Sampled(prompts, [[5]] * len(prompts), ids, names, [len(tokens) % 2 == 0 for tokens in ids])

    def _rewards(self, rows, sampled):
        size = self.args.num_generations
        return torch.tensor([x for name in sampled.completions[::size] for x in self.groups[name][0]]).unsqueeze(1), {}


def name_of(group):
    """Which of the groups generated it is."""
    return group.rollouts[0].completion if group.rollouts else group.rows[0]


def keep(table, surplus):
    """What scheduling does with the surplus, its tensors left aside."""
    table.sampling.put_surplus([group.kept([name_of(group)] * len(group.tokens)) for group in surplus])


INFORMATIVE = ((0.0, 1.0, 1.0), (0.5, 0.0, 0.0), (0.0, 1.0, NAN))
DROPPED = {
    (1.0, 1.0, 1.0): "all_right",
    (1.0, NAN, 1.0): "all_right",
    (0.0, 0.0, 0.0): "all_wrong",
    (0.3, 0.3, 0.3): "constant",
    (NAN, NAN, NAN): "unscorable",
}


def expected_accounts(trainer, trained):
    """Tokens by account, worked out anew from what was generated and which groups were trained on."""
    tokens = defaultdict(int)
    kept = {name_of(group) for group in trainer.sampling.sources[0].surplus.groups}
    for name, (outcome, lengths) in enumerate(trainer.groups):
        if outcome in DROPPED:
            tokens[DROPPED[outcome]] += sum(lengths)
        elif name not in trained:
            tokens["surplus_kept" if name in kept else "surplus_expired"] += sum(lengths)
        else:
            for score, length in zip(outcome, lengths, strict=True):
                cut = length % 2 == 0 and trainer.args.mask_truncated_completions
                tokens["unscorable" if math.isnan(score) else "truncated" if cut else "trained"] += length
    return tokens


@settings(deadline=None, max_examples=120)
@given(
    outcomes=st.lists(st.sampled_from([*INFORMATIVE, *DROPPED]), min_size=1, max_size=40),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=20),
    target=st.integers(1, 8),
    widest=st.integers(1, 3),
    fraction=st.sampled_from([0.3, 0.5, 1.0]),
    limit=st.integers(0, 4),
    max_age=st.integers(0, 6),
    steps=st.integers(1, 4),
    sigmas=st.sampled_from([0.0, 3.0]),
    mode=st.sampled_from(["uniform", "predicted"]),
    masked=st.booleans(),
    policy=st.sampled_from(["train", "train", "raise"]),
)
def test_no_group_is_lost_or_used_twice_and_the_ledger_is_right(
    outcomes, lengths, target, widest, fraction, limit, max_age, steps, sigmas, mode, masked, policy
):
    """The real collector, over several rollout batches, whatever the outcomes."""
    trainer = Table(
        outcomes,
        lengths,
        groups_per_rollout=target,
        groups_per_round=widest * target,
        min_valid_fraction=fraction,
        max_refill_rounds=limit,
        on_refill_limit=policy,
        prompt_selection=mode,
        surplus_max_age=max_age,
        refill_sigmas=sigmas,
        mask_truncated_completions=masked,
    )
    sampling, collector, trained = trainer.sampling, trainer.collector, []
    for _ in range(5):
        waiting = [name_of(group) for group in sampling.sources[0].surplus.groups]
        before = len(trainer.groups)
        try:
            batch = collector.fill()
        except (RewardError, RefillLimitError):
            assert sampling.ledger.generated == sum(sum(lengths) for _, lengths in trainer.groups)
            return
        names = [name_of(group) for group in batch.kept + batch.fresh]
        # the batch is exact
        [sampler] = batch.samplers
        assert len(names) == sampler.used <= target
        assert sampler.used >= fraction * target or sampler.rounds == limit + 1
        assert fraction < 1 or sampler.used == target or sampler.rounds == limit + 1
        assert sampler.rounds <= limit + 1
        assert len(trainer.groups) - before <= (limit + 1) * widest * target
        # what the bank had is used first, unless it is too old
        assert all(trainer.step - group.step <= max_age for group in batch.kept)
        assert [name for name in names if name < before] == waiting[len(waiting) - len(batch.kept) :]
        # nothing is used twice, or used though it teaches nothing
        trained += names
        assert len(set(trained)) == len(trained)
        assert all(trainer.groups[name][0] in INFORMATIVE for name in names)
        keep(trainer, batch.surplus)
        assert len(sampling.sources[0].surplus.groups) <= (target if max_age else 0)
        # nothing is lost, and every token is in one account
        expected = expected_accounts(trainer, set(trained))
        assert {account: count for account, count in sampling.ledger.tokens.items() if count} == dict(expected)
        assert sampling.ledger.generated == sum(sum(lengths) for _, lengths in trainer.groups)
        assert min(sampling.ledger.seconds.values()) > -1e-9
        trainer.step += steps
    assert sampling.rollout_batches == 5
    assert sampling.sources[0].selector.drawn == len(trainer.groups)


@pytest.mark.parametrize(("max_age", "kept", "expired"), [(4, 4, 4), (0, 0, 8)])
def test_what_neither_the_batch_nor_the_bank_has_room_for_is_accounted_for(max_age, kept, expired):
    """The first round knows nothing and asks for all it may: 12 groups, of which 4 are needed."""
    trainer = Table(INFORMATIVE[:1], [2], surplus_max_age=max_age)
    batch = trainer.collector.fill()
    assert len(trainer.groups) == 12 and len(batch.fresh) == 4 and len(batch.surplus) == kept
    tokens = trainer.sampling.ledger.tokens
    assert (tokens["trained"], tokens["surplus_kept"], tokens["surplus_expired"]) == (24, 6 * kept, 6 * expired)


@pytest.mark.parametrize("sigmas", [0.0, 3.0])
def test_a_full_batch_is_found_whenever_there_is_one_to_find(sigmas):
    """One group in four is informative, and ten refills are allowed: every batch is full, from little more than the
    four times as many groups that it takes. With groups to spare for the bank, hardly any needs a second round."""
    outcomes = [(0.0,) * 3, (1.0,) * 3, (0.0, 1.0, 1.0), (0.3,) * 3]
    trainer = Table(outcomes, [3, 5], groups_per_rollout=16, groups_per_round=64, refill_sigmas=sigmas)
    collector, rounds = trainer.collector, []
    for _ in range(20):
        batch = collector.fill()
        keep(trainer, batch.surplus)
        rounds.append(batch.samplers[0].rounds)
        assert len(batch.kept) + len(batch.fresh) == 16
        trainer.step += 4
    assert len(trainer.groups) <= 1.1 * 4 * 16 * 20
    assert not sigmas or sum(rounds) <= 24


def test_the_data_are_solved_after_five_batches_of_nothing_but_correct_groups_in_a_row():
    watch = SolvedWatch(prompts=12)

    def after(rows, *, banked=0):
        sampler = DynamicSampler(target=3, banked=banked)
        if rows:
            sampler.add(torch.tensor(rows))
        watch.see(sampler)
        return watch.is_solved

    correct = [[1.0, 1.0]] * 3
    assert [after(correct) for _ in range(5)] == [False] * 4 + [True]
    for other in ([[0.0, 1.0], *correct[1:]], [[0.0, 0.0], *correct[1:]]):
        assert after(other) is False and watch.batches == watch.seen == 0
        assert [after(correct) for _ in range(5)] == [False] * 4 + [True]
    assert after([], banked=3) is False and watch.batches == 0  # a batch of surplus alone was trained on
