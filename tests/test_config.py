"""`DAPOConfig`: the textbook's defaults, and one clear error per mistake."""

from __future__ import annotations

import dataclasses
import re

import pytest

from dapo_trl import DAPOConfig
from dapo_trl.errors import ConfigError


def config(**changes):
    return DAPOConfig(**{"use_cpu": True, "report_to": [], **changes})


def test_the_defaults_are_the_textbook():
    args = DAPOConfig()
    found = (
        args.epsilon,
        args.epsilon_high,
        args.beta,
        args.scale_rewards,
        args.loss_type,
        args.num_generations,
    )
    assert found == (0.2, 0.28, 0.01, "none", "dapo", 8)
    assert (args.group_filter, args.filter_key, args.min_valid_fraction) == ("zero_variance", "accuracy", 0.5)
    assert (args.overlong_shape, args.overlong_coefficient) == ("linear", 0.01)
    assert args.mask_truncated_completions is False


def test_it_is_made_on_a_machine_without_a_gpu():
    assert DAPOConfig().bf16 in (False, True)  # TRL's own default refuses to run on a CPU


def test_overlong_lengths_follow_the_completion_length():
    assert config(max_completion_length=100).overlong_max_length == 80
    soft = config(max_completion_length=20480, overlong_shape="soft")
    assert (soft.overlong_max_length, soft.overlong_cache_length) == (20480, 4096)  # the paper's numbers
    assert config(overlong_max_length=30).overlong_max_length == 30


def test_updates_per_rollout():
    args = config(
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        steps_per_generation=8,
        num_generations=4,
    )
    assert args.groups_per_rollout == 8 and args.updates_per_rollout == 4
    assert config(num_iterations=3).updates_per_rollout == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"group_filter": "variance"},
            "group_filter is 'variance' (str): it must be one of zero_variance, all_zero, none",
        ),
        ({"on_refill_limit": "skip"}, "on_refill_limit is 'skip'"),
        ({"overlong_shape": "hard"}, "overlong_shape is 'hard'"),
        ({"importance_sampling_level": "word"}, "importance_sampling_level is 'word'"),
        ({"scale_rewards": "row"}, "scale_rewards is 'row'"),
        ({"min_valid_fraction": 0.0}, "min_valid_fraction is 0.0: it must lie in (0, 1]"),
        ({"min_valid_fraction": "half"}, "min_valid_fraction is 'half' (str): it must be a number"),
        ({"min_valid_fraction": 1.5}, "min_valid_fraction is 1.5"),
        ({"max_refill_rounds": -1}, "max_refill_rounds is -1"),
        ({"max_refill_rounds": 2.5}, "max_refill_rounds is 2.5 (float): it must be a whole number, 0 or more"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"epsilon": 1.2}, "epsilon is 1.2"),
        ({"epsilon_high": -0.1}, "epsilon_high is -0.1"),
        ({"overlong_coefficient": -1.0}, "overlong_coefficient is -1.0"),
        ({"overlong_max_length": 0}, "overlong_max_length is 0"),
        (
            {"overlong_shape": "soft", "overlong_max_length": 50, "overlong_cache_length": 50},
            "overlong_cache_length is 50 and overlong_max_length 50",
        ),
        ({"num_generations": 1}, "num_generations is 1 (int): it must be a whole number, 2 or more"),
        ({"max_completion_length": None}, "max_completion_length is None"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps is 0"),
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size is 0"),
        ({"steps_per_generation": 0}, "steps_per_generation is 0"),
        ({"num_iterations": 0}, "num_iterations is 0"),
        ({"loss_type": "dapoo"}, "loss_type is 'dapoo' (str): it must be one of dapo, grpo"),
        ({"multi_objective_aggregation": "sum"}, "multi_objective_aggregation is 'sum'"),
        ({"overlong_cache_length": 5000}, "overlong_cache_length is 5000 and overlong_max_length 409"),
        (
            {"per_device_train_batch_size": 4, "steps_per_generation": 2, "num_generations": 3},
            "4 x 1 process(es) x steps_per_generation 2 = 8 completions per rollout batch, which is not a multiple of "
            "num_generations 3",
        ),
        (
            {"gradient_accumulation_steps": 4, "steps_per_generation": 6, "num_generations": 8},
            "steps_per_generation is 6 and gradient_accumulation_steps is 4",
        ),
    ],
)
def test_bad_settings_name_field_value_and_rule(changes, message):
    with pytest.raises(ConfigError) as error:
        config(**changes)
    assert message in str(error.value)
    assert isinstance(error.value, ValueError)


@pytest.mark.parametrize(
    ("given", "mode"),
    [
        ({}, "token_truncate"),
        ({"mismatch_correction": "geometric_mask"}, "geometric_mask"),
        ({"vllm_importance_sampling_mode": "sequence_mask"}, "sequence_mask"),
        ({"vllm_importance_sampling_correction": False}, "none"),
        ({"vllm_importance_sampling_correction": False, "vllm_importance_sampling_mode": "sequence_mask"}, "none"),
        ({"vllm_importance_sampling_correction": False, "mismatch_correction": "none"}, "none"),
        ({"vllm_importance_sampling_mode": "token_mask", "mismatch_correction": "token_mask"}, "token_mask"),
    ],
)
def test_one_correction_by_either_name(given, mode):
    args = config(**given)
    both = (args.mismatch_correction, args.vllm_importance_sampling_mode)
    assert both == (mode, mode) and args.vllm_importance_sampling_correction is (mode != "none")
    assert dataclasses.replace(args, steps_per_generation=None).mismatch_correction == mode


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"mismatch_correction": "token_mask", "vllm_importance_sampling_mode": "sequence_mask"},
            "mismatch_correction is 'token_mask' and vllm_importance_sampling_mode 'sequence_mask': both name",
        ),
        (
            {"mismatch_correction": "token_mask", "vllm_importance_sampling_correction": False},
            "mismatch_correction is 'token_mask' and vllm_importance_sampling_correction False: both name",
        ),
        (
            {"mismatch_correction": "none", "vllm_importance_sampling_mode": "token_mask"},
            "mismatch_correction is 'none' and vllm_importance_sampling_mode 'token_mask'",
        ),
        (
            {"vllm_importance_sampling_mode": "tokens"},
            "vllm_importance_sampling_mode is 'tokens' (str): it must be one",
        ),
    ],
)
def test_two_names_that_contradict_one_another(given, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        config(**given)
