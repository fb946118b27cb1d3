"""Bytes of passes that are run on tensors without data: against hand-counted layers, and against real tensors."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from dapo_trl.plan.trace import LiveBytes, Traced, generation, read_config, training_pass

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
