"""Prompt selection: how many prompts a round takes, which ones, and that none is forgotten."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from dapo_trl.prompts.difficulty import Difficulty
from dapo_trl.prompts.selector import RAREST_DRAW, make_selector
from dapo_trl.prompts.stream import PromptStream, prompt_stream

G = 8
WRONG, MIXED, RIGHT = 0, 4, 8
HUGE = 10**6


def selector(size=60, mode="predicted", *, levels=None, seed=3, stream=None):
    rows = [{"prompt": str(i)} | ({"level": levels[i]} if levels else {}) for i in range(size)]
    stream = stream or PromptStream(rows, size=size, seed=1)
    return make_selector(mode, stream, Difficulty(stream.size or 0, group_size=G), seed=seed)


def take(chosen, count):
    """A round of exactly so many prompts: their positions."""
    choice = chosen.choose(HUGE, at_least=count, at_most=count)
    chosen.take(choice)
    return choice


def scores_of(passes):
    """``[n, G]`` with so many ones in each row."""
    return (np.arange(G) < np.asarray(passes)[:, None]).astype(float)


def learn(chosen, passes_of, rounds, count=20):
    """Rollout batches of one round each, whose outcomes depend on the row of the data alone."""
    for _ in range(rounds):
        choice = chosen.choose(HUGE, at_least=count, at_most=count)
        rows = chosen.take(choice)
        passes = np.array([passes_of(chosen.stream.key(position)) for position in choice.positions])
        chosen.observe(choice, rows, scores_of(passes), (passes > 0) & (passes < G))
        chosen.tick()


def thirds(key):
    return (WRONG, MIXED, RIGHT)[key % 3]


class TestWhichPrompts:
    def test_uniform_takes_every_prompt_in_the_order_of_the_stream(self):
        chosen = selector(mode="uniform")
        learn(chosen, thirds, 10)
        start = chosen.stream.position
        choice = take(chosen, 150)
        assert choice.positions == tuple(range(start, start + 150))
        assert choice.end == start + 150 == chosen.stream.position
        assert set(choice.draws) == {1.0}

    def test_predicted_takes_every_prompt_while_nothing_is_known(self):
        assert take(selector(), 60).positions == tuple(range(60))

    def test_prompts_are_drawn_as_often_as_is_said(self):
        chosen = selector()
        learn(chosen, lambda key: (WRONG, 1, MIXED)[key % 3], 30)
        stated = chosen.draw_probability(chosen.difficulty.chances(range(60), [None] * 60))
        first, walks, drawn = 100, 400, np.zeros(60)
        chosen.stream.advance(60 * first)
        while chosen.stream.position < 60 * (first + walks):
            choice = take(chosen, 40)
            for position, draw in zip(choice.positions, choice.draws, strict=True):
                key = chosen.stream.key(position)
                drawn[key] += position < 60 * (first + walks)
                assert draw == pytest.approx(stated[key])
        assert len(set(stated.round(3))) >= 3
        assert (drawn[stated == 1] == walks).all()
        error = (drawn / walks - stated)[stated < 1] / np.sqrt(stated * (1 - stated) / walks)[stated < 1]
        assert np.abs(error).max() < 4.5

    def test_what_seems_hopeless_or_solved_is_drawn_rarely_and_what_teaches_always(self):
        chosen = selector()
        learn(chosen, thirds, 60)
        draws = chosen.draw_probability(chosen.difficulty.chances(range(60), [None] * 60)).reshape(20, 3)
        assert (draws[:, 1] == 1).all() and draws[:, [0, 2]].max() < 0.3

    def test_shares_are_in_proportion_to_the_average_prompt_and_bounded(self):
        chosen = selector()
        learn(chosen, thirds, 60)
        average = chosen.difficulty.average
        assert average < 0.5
        chances = np.array([0.0, average * RAREST_DRAW / 2, average / 2, average, 1.0])
        assert chosen.draw_probability(chances).tolist() == pytest.approx([RAREST_DRAW, RAREST_DRAW, 0.5, 1, 1])
        assert selector(mode="uniform").draw_probability(chances).tolist() == [1.0] * 5

    def test_passing_prompts_over_does_not_make_the_average_prompt_look_better(self):
        chosen = selector()
        learn(chosen, lambda key: WRONG if key % 3 else MIXED, 60)
        assert chosen.difficulty.average == pytest.approx(1 / 3, abs=0.15)

    def test_where_next_to_nothing_is_informative_promising_prompts_still_come_first(self):
        """Shares are in proportion to the average prompt: otherwise all would be equally rare here."""
        chosen = selector(400)
        learn(chosen, lambda key: 1 if key == 7 else WRONG, 60)
        draws = chosen.draw_probability(chosen.difficulty.chances(range(400), [None] * 400))
        assert draws[7] == 1 and np.delete(draws, 7).max() < 1

    def test_prompts_never_seen_are_drawn_by_their_level(self):
        chosen = selector(levels=["easy", "hard"] * 30)
        learn(chosen, lambda key: WRONG if key % 2 else MIXED, 20)
        fresh = Difficulty(60, group_size=G)
        fresh.load_state_dict(chosen.difficulty.state_dict() | {name: [0.0] * 60 for name in ("passes", "failures")})
        chosen.difficulty = fresh
        easy, hard = chosen.draw_probability(fresh.chances([0, 1], ["easy", "hard"]))
        assert easy == 1 and hard < 0.4

    @settings(deadline=None)
    @given(
        outcomes=st.lists(st.tuples(st.integers(0, 19), st.integers(0, G), st.integers(0, 9)), max_size=60),
        mode=st.sampled_from(["uniform", "predicted"]),
    )
    def test_no_prompt_is_ever_drawn_more_rarely_than_stated(self, outcomes, mode):
        """So the expected number of walks until any prompt is drawn again is at most 1 / RAREST_DRAW."""
        chosen = selector(20, mode)
        for key, passes, batches in outcomes:
            chosen.difficulty.observe([key], [None], np.array([float(passes)]), np.array([float(G)]), 1.0)
            for _ in range(batches):
                chosen.tick()
        draws = chosen.draw_probability(chosen.difficulty.chances(range(20), [None] * 20))
        assert draws.min() >= (RAREST_DRAW if mode == "predicted" else 1) and draws.max() <= 1

    def test_every_prompt_comes_back(self):
        """Even if nothing is ever informative. The longest wait of 60 prompts in 200 walks at a chance of 0.1 each is
        above 12 x 10 walks with probability 60 x 200 x 0.9^120, one in 26."""
        chosen = selector()
        last, longest = np.zeros(60), np.zeros(60)
        while chosen.stream.epochs < 200:
            choice = chosen.choose(HUGE, at_least=20, at_most=20)
            rows = chosen.take(choice)
            chosen.observe(choice, rows, scores_of([WRONG] * 20), np.zeros(20, dtype=bool))
            chosen.tick()
            for position in choice.positions:
                key = chosen.stream.key(position)
                longest[key] = max(longest[key], position / 60 - last[key])
                last[key] = position / 60
        assert (last > 0).all() and longest.max() < 12 / RAREST_DRAW

    def test_a_prompt_that_wakes_up_is_drawn_always_again(self):
        chosen = selector()
        learn(chosen, thirds, 200)
        assert chosen.draw_probability(chosen.difficulty.chances([0], [None])) < 0.3
        chosen.difficulty.observe([0], [None], np.array([2.0]), np.array([8.0]), 1.0)
        assert chosen.draw_probability(chosen.difficulty.chances([0], [None])) == 1

    @pytest.mark.parametrize("scores", [[3.0, 9.0], [-5.0, -1.0], [1e-3, 0.0], [1.0, 0.99]])
    def test_a_group_whose_scores_differ_is_never_taken_for_hopeless_or_solved(self, scores):
        chosen = selector(2)
        choice = chosen.choose(HUGE, at_least=2, at_most=2)
        chosen.observe(choice, chosen.take(choice), np.array([scores * 4, [scores[0]] * 8]), np.array([True, False]))
        varied, constant = (chosen.stream.key(position) for position in choice.positions)
        after = chosen.difficulty.chances([varied, constant], [None] * 2)
        assert after[0] > 0.5 > after[1]


@pytest.fixture(scope="module")
def taught():
    """By mode."""
    found = {mode: selector(mode=mode) for mode in ("uniform", "predicted")}
    for chosen in found.values():
        learn(chosen, thirds, 12)
    return found


class TestHowMany:
    @settings(deadline=None)
    @given(
        missing=st.integers(1, 60),
        at_least=st.integers(1, 80),
        at_most=st.integers(80, 300),
        multiple=st.integers(1, 5),
        sigmas=st.sampled_from([0.0, 1.0, 3.0]),
        mode=st.sampled_from(["uniform", "predicted"]),
    )
    def test_as_many_as_are_expected_to_yield_what_is_missing(
        self, taught, missing, at_least, at_most, multiple, sigmas, mode
    ):
        chosen = taught[mode]
        choice = chosen.choose(missing, at_least=at_least, at_most=at_most, multiple=multiple, sigmas=sigmas)
        count = len(choice.positions)
        assert count % multiple == 0 and count >= at_least and count <= max(at_most, at_least + multiple)

        def enough(n):
            likely = np.minimum(np.array(choice.chances[:n]) * chosen.calibration, 1)
            return likely.sum() >= missing if sigmas == 0 else likely.sum() > missing

        assert enough(count) or count + multiple > at_most
        fewer = count - multiple
        if sigmas == 0 and fewer >= at_least:
            assert not enough(fewer)

    def test_a_third_informative_means_three_times_as_many(self):
        chosen = selector(3000, "uniform")
        learn(chosen, thirds, 40, count=150)
        asked = len(chosen.choose(50, at_least=1, at_most=1000).positions)
        assert asked == pytest.approx(150, rel=0.15)

    def test_memory_makes_rounds_smaller(self):
        counts = {}
        for mode in ("uniform", "predicted"):
            chosen = selector(300, mode)
            learn(chosen, thirds, 30, count=50)
            counts[mode] = len(chosen.choose(50, at_least=1, at_most=1000).positions)
        assert counts["predicted"] < 0.6 * counts["uniform"]

    def test_more_sigmas_more_prompts(self):
        chosen = selector(300)
        learn(chosen, thirds, 30, count=50)
        counts = [len(chosen.choose(20, at_least=1, at_most=HUGE, sigmas=sigmas).positions) for sigmas in (0, 1, 2, 3)]
        assert counts == sorted(set(counts)) and counts[-1] < 2 * counts[0]

    def test_the_margin_is_enough_as_often_as_it_should_be(self):
        """Prompts right half the time in groups of 2: half of the groups are informative. Rounds with three standard
        deviations to spare hardly ever fall short, and rounds with none about every other time."""
        short = {}
        for sigmas in (0.0, 3.0):
            rng = np.random.default_rng(5)
            stream = PromptStream([{"prompt": ""}] * 5000, size=5000, seed=0)
            chosen = make_selector("uniform", stream, Difficulty(5000, group_size=2), seed=0)
            found = []
            for _ in range(60):
                choice = chosen.choose(40, at_least=40, at_most=400, sigmas=sigmas)
                passes = rng.binomial(2, 0.5, len(choice.positions))
                rows = chosen.take(choice)
                chosen.observe(choice, rows, (np.arange(2) < passes[:, None]).astype(float), passes == 1)
                chosen.tick()
                found.append((passes == 1).sum())
            short[sigmas] = np.mean(np.array(found[1:]) < 40)
        assert 0.25 < short[0.0] < 0.75 and short[3.0] <= 0.02

    def test_predictions_that_prove_too_high_are_trusted_less(self):
        """Scores that the memory cannot foretell: passes half the time, and yet never a group that is kept."""
        chosen = selector(400, "uniform")
        learn(chosen, lambda key: MIXED, 1)
        assert chosen.calibration == 1  # the first rollout batch is where predictions begin
        before = len(chosen.choose(20, at_least=1, at_most=HUGE).positions)
        for _ in range(6):
            choice = take(chosen, 20)
            chosen.observe(choice, [{}] * 20, scores_of([MIXED] * 20), np.zeros(20, dtype=bool))
            chosen.tick()
        assert chosen.calibration < 0.5
        assert len(chosen.choose(20, at_least=1, at_most=HUGE).positions) > 1.5 * before


class TestRepeatable:
    @given(seen=st.integers(0, 8), missing=st.integers(1, 30))
    @settings(deadline=None, max_examples=25)
    def test_choosing_changes_nothing(self, seen, missing):
        chosen = selector(levels=["a", "b", "c"] * 20)
        learn(chosen, thirds, seen, count=7)
        before = copy.deepcopy(chosen.state_dict())
        first = chosen.choose(missing, at_least=3, at_most=100, sigmas=1.0)
        assert chosen.state_dict() == before
        assert chosen.choose(missing, at_least=3, at_most=100, sigmas=1.0) == first

    def test_how_a_walk_is_cut_into_rounds_does_not_change_who_is_drawn(self):
        whole, pieces = selector(), selector()
        for chosen in (whole, pieces):
            learn(chosen, thirds, 20)
        once = take(whole, 600).positions
        parts = [position for count in (1, 7, 256, 300, 36) for position in take(pieces, count).positions]
        assert tuple(parts) == once

    def test_rows_are_those_at_the_chosen_positions_and_the_stream_is_past_them(self):
        chosen = selector()
        learn(chosen, thirds, 20)
        choice = chosen.choose(10, at_least=1, at_most=100)
        drawn = chosen.drawn
        rows = chosen.take(choice)
        assert [row["prompt"] for row in rows] == [str(chosen.stream.key(position)) for position in choice.positions]
        assert chosen.drawn == drawn + len(rows)
        assert chosen.stream.position == choice.end == choice.positions[-1] + 1
        assert chosen.choose(10, at_least=1, at_most=100).positions[0] >= choice.end

    @pytest.mark.parametrize("mode", ["uniform", "predicted"])
    @pytest.mark.parametrize("streamed", [False, True])
    def test_a_resumed_run_makes_the_same_choices(self, mode, streamed):
        data = Dataset.from_dict({"prompt": [str(i) for i in range(50)], "level": [i % 3 for i in range(50)]})

        def make():
            stream = prompt_stream(data.to_iterable_dataset() if streamed else data, seed=1, shuffle=True)
            return selector(mode=mode, stream=stream)

        def train(chosen, rounds):
            found = []
            for _ in range(rounds):
                choice = chosen.choose(6, at_least=4, at_most=40, multiple=2, sigmas=1.0)
                rows = chosen.take(choice)
                passes = np.array([thirds(row["level"]) for row in rows])
                chosen.observe(choice, rows, scores_of(passes), passes == MIXED)
                chosen.tick()
                found.append((choice, [row["prompt"] for row in rows]))
            return found

        straight, resumed = make(), make()
        train(straight, 9)
        resumed.load_state_dict(json.loads(json.dumps(straight.state_dict())))
        assert train(resumed, 9) == train(straight, 9)
        assert resumed.state_dict() == straight.state_dict()

    def test_a_streamed_data_set_is_chosen_from_by_level(self):
        data = Dataset.from_dict({"prompt": [str(i) for i in range(50)], "level": [i % 2 for i in range(50)]})
        chosen = selector(stream=prompt_stream(data.to_iterable_dataset(), seed=1, shuffle=True))
        drawn = []
        for _ in range(40):
            choice = chosen.choose(HUGE, at_least=10, at_most=10)
            rows = chosen.take(choice)
            passes = np.array([MIXED if row["level"] else WRONG for row in rows])
            chosen.observe(choice, rows, scores_of(passes), passes == MIXED)
            chosen.tick()
            drawn += [row["level"] for row in rows]
        assert np.mean(drawn[-200:]) > 0.75
