"""Alarms: each sounds where it must, once, with number and setting; a healthy run is left in peace."""

from __future__ import annotations

import json

import pytest

from dapo_trl.config import DAPOConfig
from dapo_trl.errors import ConfigError
from dapo_trl.monitor.alarms import CLEARED_AFTER, RULES, AlarmWatch, alarms_in

from ..conftest import ROOT
from ..support.recorded import config, prompts_of, trainer

HEALTHY = {
    "loss": 0.0,
    "accuracy/sampled": lambda done: 0.3 + 0.4 * done,
    "reward/sampled": lambda done: 0.2 + 0.4 * done,
    "completions/mean_length": lambda done: 300 + 200 * done,
    "completions/clipped_ratio": 0.02,
    "groups/sampled": 16,
    "groups/kept": 8,
    "groups/all_wrong": 6,
    "groups/all_right": 2,
    "entropy": lambda done: 1.0 - 0.5 * done,
    "grad_norm": lambda done: 0.2 + 0.1 * (int(done * 97) % 3),
    "importance_ratio/deviation": 0.02,
    "eval_accuracy": lambda done: 0.3 + 0.3 * done if int(done * 59) % 10 == 0 else None,
}


def history(count=60, **changes):
    """Logs of a run; a value that is a function takes the share of the run that is over."""
    values = HEALTHY | {name.replace("__", "/"): value for name, value in changes.items()}
    return [
        {"step": i} | {name: value(i / (count - 1)) if callable(value) else value for name, value in values.items()}
        for i in range(count)
    ]


def late(before, after, since=0.5):
    return lambda done: after if done >= since else before


CASES = [
    ("entropy_collapse", {"entropy": late(1.0, 0.02)}, ["0.02 nats", "2%", "epsilon_high (now 0.28)"]),
    (
        "length_explosion",
        {"completions__mean_length": late(300, 900), "accuracy__sampled": 0.3},
        ["700 tokens, where they had 300", "overlong_coefficient"],
    ),
    (
        "truncation",
        {"completions__clipped_ratio": late(0.0, 0.45)},
        ["30% of the completions are cut off", "where 0% were", "max_completion_length"],
    ),
    ("entropy_explosion", {"entropy": late(0.3, 1.6), "accuracy__sampled": 0.3}, ["1.17 nats", "0.3 at first", "beta"]),
    (
        "reward_without_accuracy",
        {"eval_accuracy": lambda done: 0.3 if int(done * 59) % 10 == 0 else None},
        ["held-out accuracy went from 0.300 to 0.300", "dapo-trl envs check"],
    ),
    (
        "nothing_informative",
        {"groups__kept": late(8, 0), "groups__all_wrong": late(6, 14)},
        ["0.0% of the 48 groups", "too hard for this model", "num_generations"],
    ),
    ("ratios_far_from_one", {"importance_ratio__deviation": late(0.02, 0.8)}, ["0.54 away", "learning_rate"]),
    (
        "ratios_far_from_one",
        {"sampling__importance_sampling_ratio__mean": late(1.0, 0.3)},
        ["0.30 times those of the sampler", "dtype"],
    ),
    (
        "ratios_far_from_one",
        {"sampling__sampling_logp_difference__mean": late(0.01, 0.2)},
        ["a token, where they differed by 0.01 at first", "an older adapter", "pushes"],
    ),
    (
        "gradient_lost",
        {"gradient__mismatch": late(0.0, 0.2), "gradient__mismatch_long": late(0.01, 0.38)},
        ["of the gradient of completions over 2,000 tokens is masked by the mismatch correction", "token_truncate"],
    ),
    ("gradient_lost", {"gradient__mismatch": late(0.0, 0.2)}, ["of the gradient of all completions is masked"]),
    (
        "gradient_lost",
        {"gradient__clipped_low": late(0.1, 0.5), "gradient__clipped_high": late(0.0, 0.45)},
        ["of the gradient weight is clipped", "learning_rate"],
    ),
    ("gradient_lost", {"gradient__truncated": late(0.1, 0.9)}, ["cut off: raise max_completion_length"]),
    ("gradient_lost", {"gradient__zero": late(0.1, 1.0)}, ["with advantage 0", "group_filter to zero_variance"]),
    ("gradient_spike", {"grad_norm": lambda done: 30.0 if done == 1 else 0.2}, ["is 30, 150 times", "max_grad_norm"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "said"), CASES)
def test_each_alarm_sounds_once_and_no_other(name, changes, said):
    found = alarms_in(history(**changes), {"epsilon_high": 0.28, "max_completion_length": 4000})
    assert [alarm.name for alarm in found] == [name]
    assert all(part in found[0].message for part in said), found[0].message
    assert "\n" not in str(found[0]) and str(found[0]).startswith(f"step {found[0].step}: alarm, ")
    assert found[0].step >= (20 if name == "reward_without_accuracy" else 30)


def test_every_rule_has_a_case():
    assert {name for name, _, _ in CASES} == {rule.__name__ for rule in RULES}


def test_a_healthy_run_is_left_in_peace():
    assert alarms_in(history()) == []
    lines = (ROOT / "tests/monitor/data/quickstart_metrics.jsonl").read_text().splitlines()
    quickstart = [json.loads(line) for line in lines]  # as `make quickstart` logs with logging_steps 1
    assert len(quickstart) == 160 and alarms_in(quickstart) == []
    assert alarms_in([averaged(quickstart[first : first + 8]) for first in range(0, 160, 8)]) == []


def averaged(rows):
    """One log of several steps, as the trainer makes it."""
    columns = {name: [row[name] for row in rows if name in row] for name in {name for row in rows for name in row}}
    return {name: sum(values) / len(values) for name, values in columns.items()} | {"step": rows[-1]["step"]}


def test_a_high_level_is_enough():
    """What was wrong from the first step on never rises."""
    (cut,) = alarms_in(history(completions__clipped_ratio=0.92), {"max_completion_length": 48})
    assert (cut.name, cut.step) == ("truncation", 2)
    assert (
        cut.message.startswith("92% of the completions are cut off at the length limit. ") and "(now 48)" in cut.message
    )
    (noise,) = alarms_in(history(entropy=6.5, accuracy__sampled=0.0))
    assert (noise.name, noise.step) == ("entropy_explosion", 2) and "6.5 nats" in noise.message
    assert alarms_in(history(completions__clipped_ratio=0.45, entropy=3.5)) == []


def test_exploration_that_pays_is_no_explosion():
    risen = {"entropy": late(0.3, 1.6), "accuracy__sampled": lambda done: 0.2 + 0.5 * done}
    assert alarms_in(history(**risen)) == []
    assert alarms_in(history(entropy=lambda done: 0.05 + 0.3 * done, accuracy__sampled=0.3)) == [], "still certain"


def test_the_reason_for_wrong_groups_is_truncation_where_it_is():
    changes = {"groups__kept": 0, "groups__all_wrong": 14, "groups__all_right": 2, "accuracy__sampled": 0.1}
    found = {alarm.name: alarm.message for alarm in alarms_in(history(completions__clipped_ratio=0.92, **changes))}
    assert set(found) == {"truncation", "nothing_informative"}
    assert "92% of the completions are cut off" in found["nothing_informative"]
    assert "too hard" not in found["nothing_informative"]


def test_a_certain_policy_has_not_collapsed():
    assert alarms_in(history(entropy=late(1.0, 0.01), accuracy__sampled=late(0.3, 0.97, 0.4))) == []


def test_an_alarm_is_raised_again_only_after_it_was_quiet():
    watch = AlarmWatch()
    raised = []
    rows = history(80, entropy=1.0)
    for i, row in enumerate(rows):
        low = 10 <= i < 20 or 22 <= i < 30 or i >= 60  # two logs of quiet do not clear it
        raised += watch.see(row | {"entropy": 0.01 if low else 1.0})
    assert [alarm.step for alarm in raised] == [12, 62]
    assert raised[0].cleared == 29 + CLEARED_AFTER and raised[1].cleared is None


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"step": 1}],
        [{"loss": 0.1}] * 50,
        history(2),
        [{"step": i, "loss": 0.0, "entropy": 0.0, "grad_norm": 0.0, "groups/sampled": 0} for i in range(60)],
        history(completions__mean_length=0, completions__clipped_ratio=None, groups__kept=None, groups__all_wrong=None),
    ],
)
def test_what_is_missing_raises_nothing_but_alarms(rows):
    assert all(alarm.name == "nothing_informative" for alarm in alarms_in(rows))


class Alarming:
    """A run whose groups are all wrong from the second rollout batch on."""

    def __init__(self, model, folder, **changes):
        args = config(folder, max_steps=12, save_strategy="no", max_refill_rounds=0, logging_steps=1, **changes)
        self.run = trainer(model, args, prompts_of("mixed", *["wrong"] * 40))
        self.run.train()


@pytest.mark.parametrize(("action", "steps"), [("warn", 12), ("checkpoint", 12), ("stop", 4)])
def test_what_an_alarm_does(action, steps, tiny_model, tmp_path, caplog):
    run = Alarming(tiny_model, tmp_path, on_alarm=action).run
    assert caplog.text.count("alarm, nothing informative") == 1
    assert run.state.global_step == steps
    assert len(list(tmp_path.glob("checkpoint-*"))) == (action != "warn")


def test_an_unknown_action():
    with pytest.raises(ConfigError, match=r"on_alarm is 'ring' \(str\): it must be one of warn, checkpoint, stop"):
        DAPOConfig(use_cpu=True, bf16=False, on_alarm="ring")
