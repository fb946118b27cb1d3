"""The environments of a run as ``env`` names them, and what is refused."""

from __future__ import annotations

import gymnasium
import pytest

from dapo_trl.config import DAPOConfig
from dapo_trl.errors import ConfigError
from dapo_trl.rollout.mixture import EnvEntry, check_entries, read_entries, share_of


def test_one_id_is_a_mixture_of_one():
    [entry] = read_entries("math/GSM8K-v0")
    assert entry == EnvEntry("math/GSM8K-v0", "GSM8K") and share_of(entry, [entry]) == 1.0


def test_ids_environments_mappings_and_entries():
    made = gymnasium.make("math/Countdown-v0", levels=3)
    given = ["my_pkg:my/Task-v12", {"id": made, "weight": 3, "name": "easy"}, EnvEntry("math/Chain-v0", "chain")]
    entries = read_entries([*given, {"id": "reasoning_gym/chain_sum-v0", "kwargs": {"rows": 5}}], kwargs={"rows": 9})
    assert [entry.name for entry in entries] == ["Task", "easy", "chain", "chain_sum"]
    assert [entry.weight for entry in entries] == [1.0, 3, 1.0, 1.0]
    assert [entry.kwargs["rows"] for entry in entries] == [9, 9, 9, 5]
    assert entries[1].id == "math/Countdown-v0" and share_of(entries[1], entries) == 0.5


def test_each_is_made_with_its_own_arguments_and_wrappers():
    penalty = {"OverlongPenalty": {"max_length": 9}}
    plain, shaped = read_entries(
        ["math/Arithmetic-v0", {"id": "math/Countdown-v0", "kwargs": {"levels": 3}, "wrappers": [penalty]}],
        wrappers=[{"RepetitionPenalty": {}}],
    )
    assert "RepetitionPenalty" in str(plain.make()) and "OverlongPenalty" not in str(plain.make())
    assert "OverlongPenalty" in str(shaped.make()) and "RepetitionPenalty" not in str(shaped.make())
    assert "Penalty" not in str(shaped.make(training=False))


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ([], "env is an empty list"),
        ([3], r"env\[0\] is 3: it must be the id of an environment, or a mapping with an id"),
        ([{"weight": 2}], "it must be the id of an environment, or a mapping with an id, as in"),
        ([{"id": "math/Chain-v0", "wieght": 2}], r"env\[0\] has a field 'wieght'.* Did you mean weight\?"),
        ([{"id": "math/Chain-v0", "weight": 0}], r"env\[0\] \(Chain\) has weight 0: it must be a number above 0"),
        ([{"id": "math/Chain-v0", "weight": -1.5}], "has weight -1.5"),
        ([{"id": "math/Chain-v0", "weight": float("nan")}], "has weight nan"),
        ([{"id": "math/Chain-v0", "weight": "3"}], "has weight '3'"),
        ([{"id": "math/Chain-v0", "weight": True}], "has weight True"),
        (["math/Chain-v0"] * 2, r"env\[1\] has the name 'Chain', and so has another environment: .*name: Chain-2"),
        ([{"id": "math/Chain-v0", "name": "a/b"}], "has the name 'a/b': it must consist of letters, digits"),
        ([{"id": "math/Chain-v0", "kwargs": [1]}], "has kwargs .*: it must be a mapping"),
        ([{"id": "math/Chain-v0", "wrappers": "X"}], "has wrappers .*: they must be a list"),
        ([{"id": "math/Chain-v0", "wrappers": ["X"]}], "env_wrappers names 'X': there is no such wrapper"),
        ([{"id": "math/Chain-v0", "group_filter": "some"}], "has group_filter 'some': it must be one of zero_variance"),
        ([{"id": "math/Chain-v0", "max_completion_length": 0}], "has max_completion_length 0: it must be 1 or more"),
    ],
)
def test_what_is_refused(env, message):
    with pytest.raises(ConfigError, match=message):
        read_entries(env)


def test_an_unknown_id_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"env is 'math/GSM8-v0': no such environment.*GSM8K"):
        read_entries(["math/Chain-v0", "math/GSM8-v0"])[1].make()


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (
            ["math/Chain-v0", "math/Countdown-v0", "math/GSM8K-v0"],
            "env names 3 environments, and a rollout batch has 2",
        ),
        ([{"id": "math/Chain-v0", "max_completion_length": 600}], "has max_completion_length 600, and the run 512"),
    ],
)
def test_what_the_settings_of_the_run_leave_no_room_for(env, message):
    args = DAPOConfig(use_cpu=True, bf16=False, per_device_train_batch_size=8, steps_per_generation=2, report_to=[])
    with pytest.raises(ConfigError, match=message):
        check_entries(read_entries(env), args)


def test_a_filter_where_the_run_has_none():
    args = DAPOConfig(use_cpu=True, bf16=False, group_filter="none", report_to=[])
    with pytest.raises(ConfigError, match="env Chain has group_filter 'all_zero', and the run 'none'"):
        check_entries(read_entries([{"id": "math/Chain-v0", "group_filter": "all_zero"}]), args)
