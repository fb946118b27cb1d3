"""Why a run learns nothing: each cause is told apart, and a run that learns is left in peace."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from dapo_trl.errors import ConfigError
from dapo_trl.monitor.callbacks import NothingLearnt
from dapo_trl.monitor.diagnosis import why_nothing_is_learnt
from dapo_trl.monitor.trend import Trend

FLAT = {
    "accuracy/sampled": 0.3,
    "reward/sampled": 0.3,
    "completions/clipped_ratio": 0.0,
    "groups/sampled": 16,
    "groups/kept": 8,
    "groups/all_wrong": 6,
    "groups/all_right": 2,
    "groups/constant": 0,
    "groups/unscorable": 0,
    "entropy": 1.0,
}


def history(count=30, **changes):
    """Logs of a run; a value that is a function takes the share of the run that is over."""
    return [
        {
            name: value(i / (count - 1)) if callable(value) else value
            for name, value in (FLAT | {name.replace("__", "/"): value for name, value in changes.items()}).items()
        }
        for i in range(count)
    ]


def wobble(level, rise=0.0):
    return lambda done: level + rise * done + 0.01 * (int(done * 29) % 3 - 1)


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"groups__kept": 0, "groups__all_wrong": 16, "groups__all_right": 0}, "too hard for this model"),
        ({"groups__kept": 0, "groups__all_wrong": 0, "groups__constant": 16}, "finer score with filter_key"),
        ({"groups__kept": 0, "groups__all_wrong": 0, "groups__unscorable": 16}, "almost nothing can be scored"),
        ({"completions__clipped_ratio": 0.97}, "97% of the completions are cut off"),
        (
            {"completions__clipped_ratio": 0.92, "groups__kept": 0, "groups__all_wrong": 15, "groups__all_right": 1},
            "almost every group is all wrong, for 92% of the completions are cut off",
        ),
        (
            {"completions__clipped_ratio": 0.92, "groups__kept": 0, "groups__all_wrong": 1, "groups__all_right": 15},
            "almost every group is all correct",
        ),
        ({"entropy": lambda done: 0.3 + 2.0 * done}, "the entropy exploded from"),
        ({"importance_ratio__deviation": 0.0}, "the policy does not change from one update to the next"),
        ({"gradient__mismatch": 0.3, "gradient__mismatch_long": 0.6}, "60% of the gradient of completions longer than"),
        ({"gradient__clipped_low": 0.3, "gradient__clipped_high": 0.4}, "70% of the gradient weight is clipped"),
        ({"reward__sampled": wobble(-0.2, 0.4)}, "the reward rose from -0.1"),
        ({"entropy": lambda done: 1.0 if done < 0.4 else 0.01}, "the entropy collapsed from"),
        ({"accuracy__sampled": wobble(0.7, -0.3)}, "it fell; lower learning_rate"),
        ({}, "groups are informative and updates are made; raise learning_rate"),
    ],
)  # fmt: skip
def test_each_cause(changes, cause):
    found = why_nothing_is_learnt(
        history(**{"accuracy__sampled": wobble(0.3), **changes}), updates_per_rollout=4
    )  # fmt: skip
    assert found is not None and found.startswith("Nothing was learnt (accuracy ") and cause in found
    assert "95 % interval" in found and "over 30 logs" in found
    assert found.count(". ") == 0 and found.endswith(".")  # one sentence


def test_an_inert_clip():
    assert "clip-higher is inert" in str(why_nothing_is_learnt(history(), updates_per_rollout=1))


def test_a_run_that_learns_is_left_in_peace():
    assert why_nothing_is_learnt(history(accuracy__sampled=wobble(0.3, 0.1)), updates_per_rollout=1) is None
    assert why_nothing_is_learnt(history(accuracy__sampled=0.99), updates_per_rollout=1) is None


def test_too_little_to_tell():
    assert why_nothing_is_learnt([], updates_per_rollout=1) is None
    assert why_nothing_is_learnt(history(5), updates_per_rollout=1) is None
    nothing = history(3, groups__kept=0, groups__all_wrong=16, accuracy__sampled=0.0)
    assert "too hard" in str(why_nothing_is_learnt(nothing, updates_per_rollout=1))  # but this is plain at once


DOUBLING = [0.406, 0.562, 0.672, 0.578, 0.594, 0.656, 0.703, 0.734, 0.625, 0.719]
"""Accuracy of the README's own environment, as its run logs it."""


def test_a_short_noisy_rise_is_not_nothing():
    rows = [{**FLAT, "accuracy/sampled": value} for value in DOUBLING]
    assert why_nothing_is_learnt(rows, updates_per_rollout=4) is None
    found = why_nothing_is_learnt(rows[2:], updates_per_rollout=4)
    assert found is not None and found.startswith("No clear rise yet (accuracy 0.625 at first, ")
    assert "over 8 logs" in found and "train for longer" in found


def test_nothing_is_said_only_when_a_rise_is_ruled_out():
    """Of flat runs, short and long, quiet and noisy."""

    def verdict(count, noise, seed):
        values = 0.4 + noise * np.random.default_rng(seed).standard_normal(count)
        found = why_nothing_is_learnt([{**FLAT, "accuracy/sampled": value} for value in values], updates_per_rollout=4)
        return "" if found is None else found.split(" (")[0]

    assert {verdict(8, 0.1, seed) for seed in range(20)} <= {"", "No clear rise yet"}
    assert sum(verdict(300, 0.05, seed) == "Nothing was learnt" for seed in range(20)) >= 17


class TestEnd:
    """The sentence at the end of training."""

    def said(self, caplog, *, begun=0, ended=30, steps=30):
        callback, state = NothingLearnt(4), SimpleNamespace(is_world_process_zero=True, max_steps=steps)
        state.global_step, state.log_history = begun, history()
        callback.on_train_begin(None, state, None)
        state.global_step = ended
        callback.on_train_end(None, state, None)
        return "Nothing was learnt" in caplog.text

    def test_of_a_run_that_came_to_its_end(self, caplog):
        assert self.said(caplog)

    def test_an_interrupted_run_is_not_judged(self, caplog):
        assert not self.said(caplog, ended=29)

    def test_a_resume_with_nothing_left_is_not_judged(self, caplog):
        assert not self.said(caplog, begun=30)


class TestTrend:
    def test_it_is_the_straight_line(self):
        found = Trend.of(np.arange(12) * 0.1)
        assert found.rise == pytest.approx(1.1) and found.low == found.high == found.rise
        noise = np.random.default_rng(0).standard_normal(40)
        assert Trend.of(noise).rise == pytest.approx(np.polyfit(np.arange(40), noise, 1)[0] * 39)

    @pytest.mark.parametrize(("count", "alike"), [(6, 0.0), (10, 0.0), (10, 0.4), (40, 0.0), (40, 0.6), (200, 0.8)])
    def test_the_interval_covers(self, count, alike):
        """Of 600 series with autocorrelated noise around a known rise."""
        rng, covered = np.random.default_rng(count), 0
        for _ in range(600):
            shocks, noise = rng.standard_normal(count + 50), [0.0]
            for shock in shocks:
                noise.append(alike * noise[-1] + shock)
            found = Trend.of(np.linspace(0, 3, count) + np.array(noise[-count:]))
            covered += found.low <= 3 <= found.high
        assert covered / 600 >= 0.90


def test_logs_without_a_rollout_batch_do_not_count():
    mixed = [row for pair in zip(history(), [{"loss": 0.1}] * 30, strict=True) for row in pair]
    assert why_nothing_is_learnt(mixed, updates_per_rollout=4) == why_nothing_is_learnt(
        history(), updates_per_rollout=4
    )


def test_bad_input():
    with pytest.raises(ConfigError, match="updates_per_rollout is 0"):
        why_nothing_is_learnt(history(), updates_per_rollout=0)
