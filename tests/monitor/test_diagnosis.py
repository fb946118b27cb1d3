"""Why a run learns nothing: each cause is told apart, and a run that learns is left in peace."""

from __future__ import annotations

import pytest

from dapo_trl.errors import ConfigError
from dapo_trl.monitor.diagnosis import why_nothing_is_learnt

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


def test_logs_without_a_rollout_batch_do_not_count():
    mixed = [row for pair in zip(history(), [{"loss": 0.1}] * 30, strict=True) for row in pair]
    assert why_nothing_is_learnt(mixed, updates_per_rollout=4) == why_nothing_is_learnt(
        history(), updates_per_rollout=4
    )


def test_bad_input():
    with pytest.raises(ConfigError, match="updates_per_rollout is 0"):
        why_nothing_is_learnt(history(), updates_per_rollout=0)
