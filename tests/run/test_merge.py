"""LoRA and QLoRA from the settings of a run."""

from __future__ import annotations

import pytest
import torch

from dapo_trl.errors import ConfigError
from dapo_trl.run import lora as adapters
from dapo_trl.run.lora import peft_config, quantization_config
from dapo_trl.run.settings import RunConfig

from ..support.recorded import weights
from ..support.resume_run import ten_steps


def test_without_a_rank_all_weights_are_trained():
    assert peft_config(RunConfig()) is None and quantization_config(RunConfig()) is None


def test_every_setting_arrives():
    run = RunConfig(lora_rank=8, lora_dropout=0.1, lora_targets=["q_proj", "v_proj"], lora_rslora=True, lora_dora=True)
    found = peft_config(run)
    assert (found.r, found.lora_alpha, found.lora_dropout) == (8, 16, 0.1)
    assert found.target_modules == {"q_proj", "v_proj"} and found.use_rslora and found.use_dora
    assert found.task_type == "CAUSAL_LM"
    assert peft_config(RunConfig(lora_rank=8, lora_alpha=4)).lora_alpha == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora_rank": -1}, "lora_rank is -1"),
        ({"lora_rank": 8, "lora_alpha": 0}, "lora_alpha is 0"),
        ({"lora_rank": 8, "lora_dropout": 1.0}, "lora_dropout is 1.0"),
        ({"lora_rank": 8, "lora_targets": []}, "lora_targets is empty"),
        ({"lora_rank": 8, "quantization": "8bit"}, "quantization is '8bit'"),
        ({"quantization": "4bit"}, "lora_rank is 0"),
    ],
)
def test_settings_that_cannot_work_are_one_clear_line(changes, message):
    with pytest.raises(ConfigError) as error:
        RunConfig(**changes)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_four_bits_without_bitsandbytes_name_the_fix(monkeypatch):
    monkeypatch.setattr(adapters, "has_bitsandbytes", lambda: False)
    with pytest.raises(ConfigError, match=r"pip install 'dapo-trl\[quant\]'"):
        quantization_config(RunConfig(lora_rank=8, quantization="4bit"))


@pytest.mark.skipif(not adapters.has_bitsandbytes(), reason="bitsandbytes is not installed")
def test_four_bits_are_nf4_with_double_quantisation():
    run = RunConfig(lora_rank=8, quantization="4bit")
    found = quantization_config(run)
    assert found.load_in_4bit and found.bnb_4bit_quant_type == "nf4" and found.bnb_4bit_use_double_quant
    assert found.bnb_4bit_compute_dtype == torch.bfloat16
    assert quantization_config(run, fp16=True).bnb_4bit_compute_dtype == torch.float16


@pytest.mark.skipif(not adapters.has_bitsandbytes(), reason="bitsandbytes is not installed")
def test_four_bits_are_trained_through(tiny_model, tmp_path):
    """bitsandbytes computes on a CPU too."""
    run = ten_steps(tiny_model, tmp_path, lora={"lora_rank": 4, "quantization": "4bit"}, max_steps=2, save_steps=2)
    assert any(type(module).__name__ == "Linear4bit" for module in run.model.modules())
    trained = {name: value for name, value in weights(run).items() if "lora_B" in name}
    assert trained and all(value.dtype == torch.bfloat16 and value.any() for value in trained.values())
    assert (tmp_path / "checkpoint-2" / "adapter_model.safetensors").is_file()
