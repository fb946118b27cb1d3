"""Bytes of passes that are run on tensors without data: against hand-counted layers, and against real tensors."""

from __future__ import annotations

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Qwen2Config

from dapo_trl.errors import ConfigError
from dapo_trl.plan.trace import (
    NF4_BYTES,
    LiveBytes,
    Traced,
    count_weights,
    generation,
    read_config,
    training_pass,
    weight_dtype,
)
from dapo_trl.run.lora import peft_config, quantization_config
from dapo_trl.run.settings import RunConfig

from ..conftest import ROOT


def shape(name: str, layers: int | None = None):
    """A shipped shape, with another number of layers."""
    config = read_config(str(ROOT / "configs" / "models" / f"{name}.json"))
    if layers is None:
        return config
    changed = json.loads(config.to_json_string())
    return type(config)(**{**changed, "num_hidden_layers": layers, "layer_types": ["full_attention"] * layers})


def kept(config, rows: int, length: int, *, checkpointing: bool = False, autocast: torch.dtype | None = None) -> int:
    traced = Traced(config, torch.float32, autocast)
    return training_pass(traced, rows=rows, length=length, checkpointing=checkpointing).kept


def saved_of_a_layer(config, tokens: int, size: int) -> int:
    """Bytes that autograd keeps of a Qwen2 layer in one precision, counted by hand, adapters none.

    Two norms keep their input, the normalised input and its scale; projections their input; attention queries, keys and
    values, its output and a number per head; the MLP its two halves, the activation and the product.
    """
    hidden, inner, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    norms = 2 * (2 * hidden + 1)
    projections = 2 * hidden  # into attention, into the MLP
    attention = 2 * hidden + 2 * config.num_key_value_heads * hidden // heads + heads
    return tokens * size * (norms + projections + attention + 4 * inner)


def test_what_a_layer_keeps_is_what_is_counted_by_hand():
    more = kept(shape("qwen2.5-1.5b", 2), 2, 128) - kept(shape("qwen2.5-1.5b", 1), 2, 128)
    assert more == pytest.approx(saved_of_a_layer(shape("qwen2.5-1.5b"), 256, 4), rel=0.02)


def test_checkpointing_keeps_the_input_of_every_layer():
    eight, nine = (kept(shape("qwen2.5-0.5b", n), 4, 256, checkpointing=True) for n in (8, 9))
    assert nine - eight == 4 * 256 * 896 * 4


def test_half_precision_keeps_copies_of_the_weights():
    """Under autocast the matrices of every layer are cast, and kept for the gradient of their inputs."""
    matrices = 2 * 896 * 896 + 2 * 896 * 128 + 3 * 896 * 4864

    def of_a_layer(length: int) -> int:
        four, five = (kept(shape("qwen2.5-0.5b", n), 1, length, autocast=torch.bfloat16) for n in (4, 5))
        return five - four

    short, long = of_a_layer(64), of_a_layer(128)
    assert 2 * short - long == pytest.approx(2 * matrices, rel=0.01)  # what does not grow with the tokens


def test_activations_grow_with_the_tokens_alone():
    """Attention keeps no matrix of scores: eight short rows take what two long ones take."""
    config = shape("qwen2.5-0.5b")
    assert kept(config, 8, 128) == pytest.approx(kept(config, 2, 512), rel=0.01)


def four_layers() -> Qwen2Config:
    sizes = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4}
    return Qwen2Config(**sizes, num_attention_heads=8, num_key_value_heads=2, max_position_embeddings=512)


def counted(model) -> LiveBytes:
    """What counts the real tensors that a model makes."""
    live = LiveBytes()
    live.ignore([*model.parameters(), *model.buffers()])
    return live


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_traced_pass_takes_what_a_real_one_takes(checkpointing):
    config = four_layers()
    model = AutoModelForCausalLM.from_config(config)
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    live, ids = counted(model), torch.zeros(3, 64, dtype=torch.long)
    live.ignore([ids, *(parameter.grad for parameter in model.parameters())])
    with live:
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
        held, forward_peak, live.peak = live.live, live.peak, live.live
        hidden.backward(torch.ones_like(hidden))
    found = training_pass(Traced(config, torch.float32), rows=3, length=64, checkpointing=checkpointing)
    assert found.kept == pytest.approx(held, rel=0.03)
    assert found.forward_peak == pytest.approx(forward_peak, rel=0.03)
    assert found.backward_peak == pytest.approx(live.peak, rel=0.03)


@pytest.mark.parametrize(("prompt", "length"), [(96, 100), (8, 128)], ids=["prompts", "last token"])
def test_traced_generation_takes_what_generate_takes(prompt, length):
    """Prompts of unequal length, so that there is a mask, with which PyTorch's attention copies grouped keys."""
    config = four_layers()
    model = AutoModelForCausalLM.from_config(config).eval()
    ids = torch.ones(4, prompt, dtype=torch.long)
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    live, new = counted(model), length - prompt
    with live:
        model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=new, min_new_tokens=new, pad_token_id=0)
    found = generation(Traced(config, torch.float32), rows=4, prompt=prompt, length=length)
    assert max(found.prompts_peak, found.last_peak) == pytest.approx(live.peak, rel=0.1)
    assert (found.prompts_peak > found.last_peak) == (prompt == 96)


# Parameters

MODELS = ROOT / "configs" / "models"
PUBLISHED = {  # parameters, as the Hub gives them
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-32b": 32_763_876_352,
}


def model_shape(name: str):
    return read_config(str(MODELS / f"{name}.json"))


def lora(**changes) -> LoraConfig:
    return LoraConfig(**{"r": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **changes})


def test_every_shipped_shape_has_a_published_count():
    assert {path.stem for path in MODELS.glob("*.json")} == set(PUBLISHED)


@pytest.mark.parametrize(("name", "published"), PUBLISHED.items())
def test_parameters_are_those_published(name, published):
    found = count_weights(model_shape(name), dtype=torch.float32)
    assert (found.trained, found.frozen, found.base) == (published, 0, published)
    assert found.trained_bytes == 4 * published


def test_layers_and_what_is_outside_are_counted_by_hand():
    """Qwen2.5-7B: hidden 3584, intermediate 18944, 28 heads, 4 of keys and values, vocabulary 152064, not tied."""
    found = count_weights(model_shape("qwen2.5-7b"), dtype=torch.bfloat16)
    attention = 2 * 3584 * 3584 + 3584 + 2 * (3584 * 512 + 512)
    layer = attention + 3 * 3584 * 18944 + 2 * 3584
    assert found.layer == layer
    assert found.head == 152064 * 3584 and found.head_trained
    assert found.outside == 2 * found.head + 3584
    assert found.total == 28 * layer + found.outside and found.trained_bytes == 2 * found.total


def test_an_adapter_is_counted_by_hand():
    """Rank 16 on the seven matrices of a layer of Qwen2.5-1.5B: 16 x (inputs + outputs) each."""
    found = count_weights(model_shape("qwen2.5-1.5b"), dtype=torch.bfloat16, adapter=lora())
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
    found = count_weights(model_shape("qwen2.5-7b"), dtype=torch.bfloat16, adapter=lora(), four_bit=True)
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
    assert weight_dtype(model_shape("qwen2.5-0.5b"), init) == dtype


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
