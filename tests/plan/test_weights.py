"""Parameters and bytes of models that are never made: against published counts, PEFT's own, and hand-counted layers."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Qwen2Config

from dapo_trl.errors import ConfigError
from dapo_trl.plan.trace import NF4_BYTES, count_weights, read_config, weight_dtype
from dapo_trl.run.lora import peft_config, quantization_config
from dapo_trl.run.settings import RunConfig

from ..conftest import ROOT

MODELS = ROOT / "configs" / "models"
PUBLISHED = {  # parameters, as the Hub gives them
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-32b": 32_763_876_352,
}


def shape(name: str):
    return read_config(str(MODELS / f"{name}.json"))


def lora(**changes) -> LoraConfig:
    return LoraConfig(**{"r": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **changes})


def test_every_shipped_shape_has_a_published_count():
    assert {path.stem for path in MODELS.glob("*.json")} == set(PUBLISHED)


@pytest.mark.parametrize(("name", "published"), PUBLISHED.items())
def test_parameters_are_those_published(name, published):
    found = count_weights(shape(name), dtype=torch.float32)
    assert (found.trained, found.frozen, found.base) == (published, 0, published)
    assert found.trained_bytes == 4 * published


def test_layers_and_what_is_outside_are_counted_by_hand():
    """Qwen2.5-7B: hidden 3584, intermediate 18944, 28 heads, 4 of keys and values, vocabulary 152064, not tied."""
    found = count_weights(shape("qwen2.5-7b"), dtype=torch.bfloat16)
    attention = 2 * 3584 * 3584 + 3584 + 2 * (3584 * 512 + 512)
    layer = attention + 3 * 3584 * 18944 + 2 * 3584
    assert found.layer == layer
    assert found.head == 152064 * 3584 and found.head_trained
    assert found.outside == 2 * found.head + 3584
    assert found.total == 28 * layer + found.outside and found.trained_bytes == 2 * found.total


def test_an_adapter_is_counted_by_hand():
    """Rank 16 on the seven matrices of a layer of Qwen2.5-1.5B: 16 x (inputs + outputs) each."""
    found = count_weights(shape("qwen2.5-1.5b"), dtype=torch.bfloat16, adapter=lora())
    ends = [1536 + 1536, 1536 + 256, 1536 + 256, 1536 + 1536, 1536 + 8960, 1536 + 8960, 8960 + 1536]
    assert found.trained == 28 * 16 * sum(ends)
    assert found.trained_bytes == 4 * found.trained, "PEFT makes adapters float32"
    assert found.frozen == found.base == PUBLISHED["qwen2.5-1.5b"] and found.frozen_bytes == 2 * found.frozen
    assert not found.head_trained


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"target_modules": ["q_proj", "v_proj"]},
        {"use_dora": True},
        {"modules_to_save": ["lm_head"]},
        {"modules_to_save": ["embed_tokens"], "target_modules": ["q_proj"]},
    ],
    ids=str,
)
def test_adapters_count_as_in_peft(tiny_model, changes):
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), lora(**changes))
    trained = [p for p in model.parameters() if p.requires_grad]
    found = count_weights(read_config(tiny_model), dtype=torch.float32, adapter=lora(**changes))
    assert found.trained == sum(p.numel() for p in trained)
    assert found.total == sum(p.numel() for p in model.parameters())
    assert found.trained_bytes == sum(p.numel() * p.element_size() for p in trained)
    assert found.largest == max(p.numel() for p in trained)


def test_four_bits_are_those_of_the_layers_with_their_constants():
    """QLoRA, section 3: 4 bits, and 0.127 bits of constants for each."""
    assert abs(NF4_BYTES * 8 - 4.127) < 1e-3
    found = count_weights(shape("qwen2.5-7b"), dtype=torch.bfloat16, adapter=lora(), four_bit=True)
    matrices = 28 * (2 * 3584 * 3584 + 2 * 3584 * 512 + 3 * 3584 * 18944)
    assert found.quantized == matrices and found.largest_quantized == 3584 * 18944
    rest = PUBLISHED["qwen2.5-7b"] - matrices
    assert found.frozen_bytes == pytest.approx(matrices * 4.12695 / 8 + 2 * rest, rel=1e-4)
    assert found.trained_bytes == 2 * found.trained, "TRL casts adapters on 4-bit weights to bfloat16"


def test_four_bits_are_those_of_bitsandbytes(tmp_path):
    """The same model in NF4 for real: weights, constants of both levels, and what is left as it is. Its matrices are
    large enough that no block is broken."""
    bitsandbytes = pytest.importorskip("bitsandbytes")
    shape = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "vocab_size": 128}
    config = Qwen2Config(**shape, num_attention_heads=4, num_key_value_heads=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    run = RunConfig(lora_rank=8, quantization="4bit")
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path, quantization_config=quantization_config(run), dtype=torch.bfloat16
    )
    size = 0
    for parameter in model.parameters():
        size += parameter.nbytes
        if isinstance(parameter, bitsandbytes.nn.Params4bit):
            size += parameter.quant_state.absmax.nbytes + parameter.quant_state.state2.absmax.nbytes
    found = count_weights(read_config(str(tmp_path)), dtype=torch.bfloat16, adapter=peft_config(run), four_bit=True)
    assert found.frozen_bytes == pytest.approx(size, rel=1e-3)


def test_dora_magnitudes_stay_float32_on_four_bits(tiny_model):
    config = read_config(tiny_model)
    plain = count_weights(config, dtype=torch.bfloat16, adapter=lora(), four_bit=True)
    dora = count_weights(config, dtype=torch.bfloat16, adapter=lora(use_dora=True), four_bit=True)
    assert dora.trained_bytes - plain.trained_bytes == 4 * (dora.trained - plain.trained) > 0


@pytest.mark.parametrize(
    ("init", "dtype"),
    [({}, torch.float32), ({"dtype": "bfloat16"}, torch.bfloat16), ({"dtype": "auto"}, torch.bfloat16)],
)
def test_weights_are_loaded_as_trl_loads_them(init, dtype):
    assert weight_dtype(shape("qwen2.5-0.5b"), init) == dtype


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("Nobody/nothing-at-all", "config.json cannot be read"),
        ("missing/config.json", "there is no such file"),
        ("tests", "the folder holds no config.json"),
    ],
)
def test_a_model_without_a_shape_is_one_clear_line(model, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(ConfigError) as error:
        read_config(model)
    assert message in str(error.value) and "\n" not in str(error.value)
