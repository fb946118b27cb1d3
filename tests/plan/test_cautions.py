"""Warnings that a plan and the beginning of training share."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from dapo_trl import DAPOTrainer
from dapo_trl.checks import learning_rate_cautions
from dapo_trl.run.lora import idle_adapter_settings, peft_config
from dapo_trl.run.settings import RunConfig

from ..support.recorded import config

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


def test_settings_of_an_adapter_that_is_not_trained():
    assert idle_adapter_settings(RunConfig(lora_rank=8, lora_alpha=4)) == idle_adapter_settings(RunConfig()) == []
    (found,) = idle_adapter_settings(RunConfig(lora_alpha=4, lora_rslora=True))
    assert found.startswith("lora_alpha, lora_rslora: no effect, because lora_rank is 0")
