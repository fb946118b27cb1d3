"""The collector with several sources: exact shares, refills within them, and an account for each."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dapo_trl.errors import ConfigError, RewardError
from dapo_trl.prompts.stream import PromptStream
from dapo_trl.rollout.types import Sampled
from dapo_trl.sampling.quotas import FIRST_REST, MIN_GROUPS
from dapo_trl.sampling.sources import Source
from dapo_trl.sampling.state import SamplingState

from .test_group_filter import INFORMATIVE, NAN, Table, keep

MIXED, SOLVED, HOPELESS, LOST = INFORMATIVE[0], (1.0,) * 3, (0.0,) * 3, (NAN,) * 3


class Mixture(Table):
    """A run without a model on several sources, each with outcomes of its own: one for each of its groups, in turn."""

    def __init__(self, outcomes, weights, processes=1, **changes):
        super().__init__([None], [3, 4, 5], **changes)
        names = [chr(ord("a") + i) for i in range(len(outcomes))]
        self.sampling = self.collector.state = SamplingState(
            [
                Source(
                    PromptStream([{"prompt": f"{name}{i}", "level": i % 2} for i in range(7)], size=7, seed=1),
                    self.args,
                    name=name,
                    weight=weight,
                )
                for name, weight in zip(names, weights, strict=True)
            ],
            self.args,
        )
        self.collector._multiple = lambda: processes  # as if rows had to divide evenly
        self.outcomes = {name: itertools.cycle(found) for name, found in zip(names, outcomes, strict=True)}
        self.generated = dict.fromkeys(names, 0)
        self.logged, self.warned = {}, []

    def log(self, values):
        self.logged |= {name: float(value) for name, value in values.items()}

    log_last = log

    def warn(self, line):
        self.warned.append(line)

    def _sample(self, rows, numbers):
        size = self.args.num_generations
        prompts, ids, names = [row["prompt"] for row in rows], [], []
        assert numbers == range(size * len(self.groups), size * len(self.groups) + len(rows))
        for prompt in prompts[::size]:
            lengths = [next(self._lengths) for _ in range(size)]
            names += [len(self.groups)] * size
            self.groups.append((next(self.outcomes[prompt[0]]), lengths))
            self.generated[prompt[0]] += sum(lengths)
            ids += [[7] * length for length in lengths]
        return Sampled(prompts, [[5]] * len(prompts), ids, names, [False] * len(ids))

    def batch(self):
        """One rollout batch: the groups of each source in it."""
        found = self.collector.fill()
        keep(self, found.surplus)
        self.step += 4
        return [
            sum(group.source == source.name for group in found.kept + found.fresh) for source in self.sampling.sources
        ]


def test_shares_are_exact_however_rarely_a_source_is_informative():
    """Weights 3, 2, 1 of batches of 8, where one group in two, in five and in one is informative."""
    outcomes = [[MIXED, SOLVED], [HOPELESS] * 4 + [MIXED], [MIXED]]
    run = Mixture(outcomes, [3, 2, 1], groups_per_rollout=8, groups_per_round=16, max_refill_rounds=40)
    total = [0, 0, 0]
    for number in range(1, 13):
        total = [have + more for have, more in zip(total, run.batch(), strict=True)]
        assert sum(total) == 8 * number
        for got, share in zip(total, (3 / 6, 2 / 6, 1 / 6), strict=True):
            assert abs(got - share * 8 * number) < 1, (number, total)
    assert total == [48, 32, 16] == [source.trained for source in run.sampling.sources]
    assert not run.warned


@settings(deadline=None, max_examples=60)
@given(
    outcomes=st.lists(
        st.lists(st.sampled_from([*INFORMATIVE, SOLVED, HOPELESS]), min_size=1, max_size=6), min_size=1, max_size=4
    ),
    weights=st.lists(st.floats(0.2, 5), min_size=4, max_size=4),
    target=st.integers(4, 9),
    limit=st.integers(0, 4),
    fraction=st.sampled_from([0.5, 1.0]),
    max_age=st.sampled_from([0, 4]),
    processes=st.integers(1, 3),
)
def test_places_tokens_and_metrics_of_each_source(outcomes, weights, target, limit, fraction, max_age, processes):
    run = Mixture(
        outcomes,
        weights[: len(outcomes)],
        processes,
        groups_per_rollout=target,
        groups_per_round=2 * target,
        max_refill_rounds=limit,
        min_valid_fraction=fraction,
        on_refill_limit="train",
        surplus_max_age=max_age,
    )
    state, sources = run.sampling, run.sampling.sources
    for _ in range(4):
        before = len(run.groups)
        got = run.batch()
        assert (len(run.groups) - before) % processes == 0
        assert len(run.groups) - before <= (limit + 1) * (2 * target + processes - 1)
        places = [run.logged.get(f"env/{source.name}/groups/places", target) for source in sources]
        assert sum(places) == target
        assert all(have <= room for have, room in zip(got, places, strict=True))
        assert (
            sum(got)
            == run.logged["groups/trained"]
            == sum(run.logged.get(f"env/{source.name}/groups/trained", got[0]) for source in sources)
        )
        for source in sources:
            assert source.ledger.generated == run.generated[source.name]
            assert all(group.source == source.name for group in source.surplus.groups)
            if state.mixes:
                assert run.logged[f"env/{source.name}/ledger/tokens"] == source.ledger.generated
        assert state.ledger.generated == run.logged["ledger/tokens"] == sum(run.generated.values())
        assert state.counts.sampled == len(run.groups) == state.drawn == run.logged["sampling/prompts"]
        for account, tokens in state.ledger.tokens.items():
            assert tokens == sum(source.ledger.tokens[account] for source in sources)


class TestNothingToTeach:
    """Two sources of equal weight; the first has nothing to teach for a while."""

    def run(self, outcomes, **changes):
        settings = {"groups_per_rollout": 4, "groups_per_round": 12, "surplus_max_age": 0, "on_refill_limit": "train"}
        return Mixture([outcomes, [MIXED]], [1, 1], **settings | changes)

    @pytest.mark.parametrize(("nothing", "said"), [(SOLVED, "are all correct, 0 all wrong"), (HOPELESS, "0 are all")])
    def test_the_other_takes_its_share_and_it_is_looked_at_again(self, nothing, said):
        run = self.run([nothing])
        assert run.batch() == [0, 2]  # after all refills
        [line] = run.warned
        assert "a has nothing to teach for now (of its last " in line and said in line
        drawn = run.sampling.sources[0].selector.drawn
        assert drawn >= MIN_GROUPS
        for _ in range(FIRST_REST):
            assert run.batch() == [0, 4]
        assert run.sampling.sources[0].selector.drawn == drawn
        assert run.batch()[0] == 0 and len(run.warned) == 2  # looked at, in one round
        assert drawn < run.sampling.sources[0].selector.drawn <= drawn + 12
        assert f"after {2 * FIRST_REST} rollout batches" in run.warned[1]

    def test_it_comes_back_when_it_teaches_again(self):
        run = self.run([SOLVED])
        for _ in range(4):
            run.batch()
        run.outcomes["a"] = itertools.repeat(MIXED)
        found = [run.batch() for _ in range(4 + FIRST_REST)]
        back = next(i for i, got in enumerate(found) if got[0])
        assert found[back - 1] == [0, 4] and found[back:] == [[2, 2]] * len(found[back:])
        assert not run.sampling.sources[0].rest.on_trial and len(run.warned) == 1

    def test_the_run_is_solved_when_every_source_is(self):
        run = Mixture([[SOLVED], [MIXED] * 30 + [SOLVED] * 10_000], [1, 1], on_refill_limit="train")
        while not run.sampling.is_solved:
            assert run.sampling.rollout_batches < 40
            run.batch()
        assert all(source.solved.seen >= 7 for source in run.sampling.sources)
        assert run.sampling.explain_solved().count("the data are solved") == 2

    def test_a_source_without_scores_is_an_error_that_names_it(self):
        run = self.run([LOST])
        with pytest.raises(RewardError, match=r"^a: none of the \d+ completions .* in 3 rollout batches in a row"):
            for _ in range(30):
                run.batch()


def test_state_goes_on_where_it_was_bit_for_bit():
    def made():
        outcomes = [[MIXED] + [SOLVED] * 4, [SOLVED] * 60 + [MIXED] * 30, INFORMATIVE[:2]]
        return Mixture(outcomes, [2, 1, 1], on_refill_limit="train", surplus_max_age=0)

    run, other, fresh = made(), made(), made()
    for _ in range(3):
        assert run.batch() == other.batch()
    fresh.sampling.load_state_dict(other.sampling.state_dict())
    fresh.step, fresh.groups = other.step, other.groups
    fresh.outcomes, fresh._lengths, fresh.generated = other.outcomes, other._lengths, other.generated
    assert [fresh.batch() for _ in range(12)] == [run.batch() for _ in range(12)]
    assert _without_seconds(fresh.sampling) == _without_seconds(run.sampling)


def _without_seconds(sampling):
    found = sampling.state_dict()
    for source in found["sources"].values():
        del source["ledger"]["seconds"]
    return found


def test_more_sources_than_groups_are_refused():
    with pytest.raises(ConfigError, match=r"5 tasks are mixed, and a rollout batch has 4 group\(s\): each needs one"):
        Mixture([[MIXED]] * 5, [1] * 5)


def test_levels_are_those_of_their_source():
    run = Mixture([[MIXED]] * 2, [1, 1])
    run.batch()
    levels = {name for name in run.logged if "level" in name}
    assert levels == {f"env/{name}/accuracy/level_{level}" for name in "ab" for level in (0, 1)}
    assert torch.tensor([run.logged[f"env/{name}/accuracy/sampled"] for name in "ab"]).allclose(torch.tensor(2 / 3))


def test_a_name_with_a_slash_is_one_name_in_all_metrics():
    run = Mixture([[MIXED]] * 2, [1, 1])
    run.sampling.sources[0].name = "open/a"
    run.batch()
    assert {name.split("/")[1] for name in run.logged if name.startswith("env/")} == {"open-a", "b"}


def test_a_checkpoint_of_another_form_is_one_line():
    run = Mixture([[MIXED]], [1])
    with pytest.raises(ConfigError, match="written by an earlier version of dapo-trl"):
        run.sampling.load_state_dict({"selector": {}, "ledger": {}, "rollout_batches": 3})
