"""Checks and warnings before a run starts; a plan and training share them."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from transformers import AutoConfig, Qwen2Config, Qwen3MoeConfig

from dapo_trl import DAPOConfig, DAPOTrainer
from dapo_trl.checks import context_overflow, inert_settings, learning_rate_cautions, vllm_cautions
from dapo_trl.run.lora import peft_config
from dapo_trl.run.settings import RunConfig

from .support.recorded import config

BILLION = 10**9


@pytest.mark.parametrize(
    ("rate", "kind", "warning"),
    [
        (1e-6, {"adapter": True}, "learning_rate 1e-06 suits full training and is too small to move an adapter"),
        (1e-5, {"adapter": True}, None),
        (2e-4, {"adapter": True}, None),
        (1e-6, {"adapter": True, "half": True}, "suits full training"),
        (2e-4, {}, "learning_rate 0.0002 is that of an adapter"),
        (1e-6, {}, None),
        (2e-4, {"parameters": 800_000}, None),  # the quick start
        (1e-6, {"half": True}, "an update at learning_rate 1e-06 is mostly rounded away"),
    ],
)
def test_learning_rates_of_another_kind_of_training(rate, kind, warning):
    found = learning_rate_cautions(rate, **{"parameters": BILLION, "adapter": False, "half": False, **kind})
    assert len(found) == (warning is not None)
    assert warning is None or warning in found[0]


def test_an_update_that_is_rounded_away():
    """Why trained weights are kept in float32: 1e-6 is less than half of what bfloat16 can tell apart at 0.01."""
    weight = torch.tensor(0.01, dtype=torch.bfloat16)
    assert weight - 1e-6 == weight and weight.float() - 1e-6 != weight.float()


@pytest.mark.parametrize("rate", [1e-6, 1e-4])
def test_a_trainer_warns_when_it_starts(tiny_model, tmp_path, caplog, rate):
    args = dataclasses.replace(config(tmp_path), learning_rate=rate, steps_per_generation=None)
    run = RunConfig(lora_rank=4)
    DAPOTrainer(model=tiny_model, args=args, env="math/Arithmetic-v0", peft_config=peft_config(run))
    assert ("too small to move an adapter" in caplog.text) == (rate == 1e-6)


def settings(**changes) -> DAPOConfig:
    return DAPOConfig(**{"use_cpu": True, "report_to": [], **changes})


def test_inert_settings_are_found():
    assert any("clip-higher is inert" in line for line in inert_settings(settings()))
    assert inert_settings(settings(steps_per_generation=4)) == []
    late = settings(steps_per_generation=4, overlong_max_length=512, max_completion_length=512)
    assert any("overlong penalty is inert" in line for line in inert_settings(late))
    soft = settings(
        steps_per_generation=4,
        overlong_shape="soft",
        overlong_max_length=1000,
        overlong_cache_length=100,
        max_completion_length=900,
    )
    assert any("starts past 900 tokens" in line for line in inert_settings(soft))
    assert inert_settings(settings(steps_per_generation=4, overlong_shape="none")) == []
    reverse = inert_settings(settings(steps_per_generation=4, epsilon=0.3))
    assert any("wider below than above (epsilon 0.3, epsilon_high 0.28)" in line for line in reverse)


def test_a_context_holds_its_last_token():
    model = AutoConfig.for_model("qwen2", max_position_embeddings=100)
    assert context_overflow(model, prompt=60, completion=40) is None
    assert "a long prompt of 61 tokens + max_completion_length 40 = 101" in str(
        context_overflow(model, prompt=61, completion=40, what="a long prompt")
    )


@pytest.mark.parametrize(
    ("changes", "warnings"),
    [
        ({}, []),
        ({"max_completion_length": 16384}, []),
        (
            {"max_completion_length": 4096, "mismatch_correction": "sequence_mask"},
            [
                "mismatch_correction is 'sequence_mask': where log-probabilities of vLLM and of the trainer differ by "
                "0.02 a token, completions of max_completion_length 4096 tokens keep 59% of their gradient. Set it to "
                "token_truncate"
            ],
        ),
        ({"max_completion_length": 512, "mismatch_correction": "sequence_mask"}, []),
        (
            {"top_p": 0.9, "min_p": 0.1},
            ["top_p is 0.9 and min_p is 0.1: vLLM gives the probabilities of the truncated"],
        ),
        ({"top_k": 20}, ["top_k is 20: vLLM gives the probabilities of the truncated"]),
        ({"top_k": 20, "mismatch_correction": "none"}, []),
        ({"use_vllm": False, "top_k": 20, "mismatch_correction": "sequence_mask"}, []),
    ],
)
def test_settings_that_lose_the_gradient_with_vllm(changes, warnings):
    found = vllm_cautions(settings(**{"use_vllm": True, **changes}), Qwen2Config())
    assert len(found) == len(warnings)
    assert all(sentence.startswith(warning) for sentence, warning in zip(found, warnings, strict=True)), found


def test_experts_with_vllm():
    (warning,) = vllm_cautions(settings(use_vllm=True), Qwen3MoeConfig())
    assert "mixture of experts" in warning and "token_mask" in warning
