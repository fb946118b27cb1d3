"""Generation that lets go of rows that have ended, against transformers' own."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from dapo_trl.generation import decoding
from dapo_trl.generation.seeded import RandomNumbers
from dapo_trl.generation.transformers import generate, own_loop, sample_turns
from dapo_trl.rollout.chat_format import ChatFormat

from ..conftest import ROOT

ROWS, ROOM, PAD, EOS = 16, 96, 1, 0


def sliding() -> Qwen2ForCausalLM:
    """A random model that sees eight tokens; an early end is likely at every step."""
    torch.manual_seed(3)
    config = Qwen2Config(
        vocab_size=12,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        layer_types=["sliding_attention", "full_attention"],
        use_sliding_window=True,
        sliding_window=8,
        initializer_range=0.5,
    )
    return Qwen2ForCausalLM(config).eval()


def rambling() -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(ROOT / "models" / "rambling-0.8m", dtype=torch.float32).eval()


def adapted() -> torch.nn.Module:
    torch.manual_seed(0)
    return get_peft_model(rambling(), LoraConfig(r=4, init_lora_weights=False, target_modules=["q_proj", "v_proj"]))


def prompts(model) -> tuple[torch.Tensor, torch.Tensor]:
    """Left-padded token ids and their mask."""
    if model.config.vocab_size == 12:
        ids = torch.from_numpy(np.random.default_rng(0).integers(2, 12, (ROWS, 9)))
    else:
        tokenizer = AutoTokenizer.from_pretrained(ROOT / "models" / "rambling-0.8m")
        ask = 'Compute {} + {} digit by digit, then give the result as "Answer: <number>".'
        numbers = [10 ** (1 + i % 3) + 37 * i for i in range(ROWS)]
        texts = [f"<|user|>{ask.format(n, n + 5)}<|end|><|assistant|>" for n in numbers]
        ids = tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)["input_ids"]
    ids[: ROWS // 2, 0] = PAD
    return ids, (ids != PAD).long()


def settings(**changes) -> GenerationConfig:
    return GenerationConfig(
        **{"max_new_tokens": ROOM, "eos_token_id": [EOS], "pad_token_id": PAD, "do_sample": False} | changes
    )


class Work:
    """Tokens that a model computes."""

    def __init__(self, model):
        self.tokens = 0
        model.register_forward_pre_hook(self.see, with_kwargs=True)

    def see(self, model, args, kwargs):
        self.tokens += kwargs["input_ids"].numel()

    def of(self, call):
        self.tokens = 0
        return call(), self.tokens


@pytest.mark.parametrize("make", [rambling, adapted, sliding])
def test_same_tokens_for_less_work(make):
    model = make()
    ids, mask = prompts(model)
    work = Work(model.get_base_model() if make is adapted else model)
    expected, plain = work.of(lambda: model.generate(input_ids=ids, attention_mask=mask, generation_config=settings()))
    found, compacted = work.of(lambda: generate(model, ids, mask, settings()))
    assert torch.equal(found, expected)
    ends = (expected[:, ids.shape[1] :] == EOS).int().argmax(dim=1)
    assert len(ends.unique()) > 3, "the lengths are to differ"
    assert compacted < 0.8 * plain


def test_each_row_keeps_its_random_numbers(monkeypatch):
    """Sampling by numbers of each row's own, as evaluations do, gives what it gives without a cut."""
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "models" / "rambling-0.8m")
    model = rambling()
    chat_format = ChatFormat(tokenizer, (EOS,))
    contexts = [row[row != PAD].tolist() for row in prompts(model)[0]]
    work = Work(model)

    def sample():
        return sample_turns(model, chat_format, contexts, RandomNumbers([(1, row) for row in range(ROWS)]), room=ROOM)

    found, compacted = work.of(sample)
    monkeypatch.setattr(decoding, "SHARE", 0.0)
    expected, plain = work.of(sample)
    assert found == expected
    assert compacted < 0.8 * plain and len({len(row) for row in found}) > 3


SMALL = {
    **{"vocab_size": 12, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{
        "num_key_value_heads": 2,
        "initializer_range": 0.5,
        "pad_token_id": PAD,
        "eos_token_id": EOS,
        "tie_word_embeddings": False,
    },
}
EXPERTS = {"num_experts": 2, "num_local_experts": 2, "num_experts_per_tok": 1}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_chunk_size": 16, "mamba_n_groups": 1}
DELTA = {
    **{"layer_types": ["linear_attention", "full_attention"], "head_dim": 8, "linear_num_key_heads": 2},
    **{"linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8},
}
ATTENTION_AND_STATE = {
    "bamba": {"attn_layer_indices": [1], **MAMBA},
    "falcon_h1": {"mamba_d_ssm": 64, **MAMBA},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"], "shared_intermediate_size": 16, **EXPERTS, **MAMBA},
    "jamba": {
        **{"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "mamba_d_state": 4},
        **{"use_mamba_kernels": False, "mamba_dt_rank": 4, **EXPERTS},
    },
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "nemotron_h": {
        **{"layers_block_type": ["mamba", "attention"], "head_dim": 8, "ssm_state_size": 4, "mamba_num_heads": 8},
        **{"mamba_head_dim": 8, "n_groups": 1, "chunk_size": 16},
    },
    "olmo_hybrid": DELTA,
    "qwen3_5_text": DELTA,
    "qwen3_next": {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, **EXPERTS, **DELTA},
    "zamba": {
        **{"layers_block_type": ["mamba", "hybrid"], "n_mamba_heads": 2, "mamba_d_state": 4, "mamba_dt_rank": 4},
        **{"attention_hidden_size": 64, "attention_head_dim": 16, "use_mamba_kernels": False},
    },
    "zamba2": {
        **{"layers_block_type": ["mamba", "hybrid"], "mamba_d_state": 4, "n_mamba_heads": 8, "mamba_headdim": 8},
        **{"chunk_size": 16, "mamba_ngroups": 1, "num_mem_blocks": 1},
    },
    "zaya": {},
}
"""Kinds of models whose cache holds states beside keys and values, with what makes them tiny."""
NOT_TO_BE_CUT = {
    "deepseek_v4": {},
    "falcon_mamba": {"state_size": 4},
    "mamba": {"state_size": 4},
    "mamba2": {"state_size": 4, "num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 16},
    "minimax": {"layer_types": ["linear_attention", "full_attention"], "head_dim": 8, "block_size": 16, **EXPERTS},
    "recurrent_gemma": {"lru_width": 32, "attention_window_size": 8, "block_types": ["recurrent", "attention"]},
    "rwkv": {"attention_hidden_size": 32},
}
"""Kinds without a cache that transformers can reorder."""


@pytest.mark.parametrize("kind", [*ATTENTION_AND_STATE, *NOT_TO_BE_CUT])
def test_every_kind_of_cache(kind):
    torch.manual_seed(1)
    config = AutoConfig.for_model(kind, **SMALL | ATTENTION_AND_STATE.get(kind, NOT_TO_BE_CUT.get(kind)))
    model = AutoModelForCausalLM.from_config(config).eval()
    ids, mask = prompts(model)
    short = settings(max_new_tokens=32)
    work = Work(model)
    expected, plain = work.of(lambda: model.generate(input_ids=ids, attention_mask=mask, generation_config=short))
    found, compacted = work.of(lambda: generate(model, ids, mask, short))
    assert torch.equal(found, expected)
    if kind in ATTENTION_AND_STATE:
        assert compacted < 0.9 * plain
    else:  # at most the prompts are read once before it is seen
        assert plain <= compacted <= plain + ids.numel()


@pytest.mark.parametrize(
    "changes",
    [
        {"num_beams": 2},
        {"num_return_sequences": 2, "do_sample": True},
        {"cache_implementation": "static"},
        {"stop_strings": ["5"]},
        {"prompt_lookup_num_tokens": 3},
    ],
    ids=str,
)
def test_what_needs_another_loop_is_one_plain_call(changes):
    calls = []

    def plain(**given):
        calls.append(given)
        return given["input_ids"]

    ids = torch.ones(4, 3, dtype=torch.long)
    assert generate(None, ids, ids, settings(**changes), plain=plain) is ids
    assert len(calls) == 1 and "custom_generate" not in calls[0]
    generate(None, ids, ids, settings(), plain=plain, pixel_values=ids)
    assert "custom_generate" not in calls[1]


def test_so_is_what_the_models_own_settings_ask_for():
    model = rambling()
    ids, mask = prompts(model)
    model.generation_config.num_beams = 2
    short = settings(max_new_tokens=8)
    expected = model.generate(input_ids=ids, attention_mask=mask, generation_config=short)
    assert torch.equal(generate(model, ids, mask, short), expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"repetition_penalty": 1.5},
        {"min_new_tokens": 40},
        {"use_cache": False, "max_new_tokens": 24},
        {"suppress_tokens": [EOS], "max_new_tokens": 200},
        {"no_repeat_ngram_size": 3},
        {"exponential_decay_length_penalty": (5, 1.2)},
        {"max_time": 600.0},
        {"pad_token_id": EOS},
        {"pad_token_id": None},
    ],
    ids=str,
)
@pytest.mark.parametrize("make", [rambling, sliding])
def test_every_setting_means_what_it_means_to_generate(make, changes):
    model = make()
    ids, mask = prompts(model)
    asked = settings(**changes)
    expected = model.generate(input_ids=ids, attention_mask=mask, generation_config=asked)
    assert torch.equal(generate(model, ids, mask, asked), expected)


def test_the_prompt_of_a_group_is_read_once():
    model = rambling()
    order = torch.randperm(8 * ROWS, generator=torch.Generator().manual_seed(0)) % ROWS
    ids, mask = (part[order] for part in prompts(model))
    one = settings(max_new_tokens=1)
    work = Work(model)
    _, tokens = work.of(lambda: generate(model, ids, mask, one))
    assert tokens == ROWS * ids.shape[1]


def test_tokens_are_sampled_as_often_as_by_generate():
    """The first two tokens of 4,000 completions of one prompt, by numbers of their own and by torch's."""
    model = sliding()
    ids = torch.tensor([[3, 5, 7]]).expand(4000, 3)
    asked = settings(max_new_tokens=2, do_sample=True, temperature=1.3, top_p=0.9, top_k=9)
    numbers = RandomNumbers([(7, row) for row in range(len(ids))])
    torch.manual_seed(0)
    counts = [
        torch.bincount(found[:, 3] * 12 + found[:, 4], minlength=144).double()
        for found in (
            model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=asked),
            generate(model, ids, torch.ones_like(ids), asked, draw=numbers.draw),
        )
    ]
    seen = sum(counts) >= 10
    differences = ((counts[0] - counts[1]) ** 2 / sum(counts))[seen]
    cells = int(seen.sum())
    assert cells > 20 and float(differences.sum()) < cells + 4 * (2 * cells) ** 0.5, "a chi-square test, four sigmas"
    assert int((counts[0] > 0).sum() - (counts[1] > 0).sum()) < 10


def test_the_same_torch_state_gives_the_same_tokens_as_generate():
    model = sliding()
    ids, mask = prompts(model)
    asked = settings(max_new_tokens=1, do_sample=True, top_p=0.9, eos_token_id=11)
    found = []
    for side in (model.generate, lambda **given: generate(model, **given)):
        torch.manual_seed(5)
        found.append(side(input_ids=ids, attention_mask=mask, generation_config=asked))
    assert torch.equal(*found)


def test_the_models_own_generate_is_back_afterwards():
    model = rambling()
    ids, mask = prompts(model)
    work = Work(model)
    with pytest.raises(KeyboardInterrupt), own_loop(model):
        _, compacted = work.of(lambda: model.generate(input_ids=ids, attention_mask=mask, generation_config=settings()))
        raise KeyboardInterrupt
    _, plain = work.of(lambda: model.generate(input_ids=ids, attention_mask=mask, generation_config=settings()))
    assert "generate" not in vars(model) and compacted < plain


@pytest.mark.parametrize("place", ["model", "class"])
def test_a_generate_that_somebody_replaced_is_asked_once_for_a_tensor(place, monkeypatch):
    model = rambling()
    ids, mask = prompts(model)
    answer = torch.cat([ids, torch.full_like(ids[:, :5], 7)], dim=1)
    calls = []

    def replaced(input_ids, attention_mask, generation_config, **others):
        calls.append(others)
        return answer

    if place == "model":
        model.generate = replaced
    else:
        monkeypatch.setattr(type(model), "generate", lambda self, **given: replaced(**given))
    with own_loop(model):
        found = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings())
    assert torch.equal(found, answer) and len(calls) == 1
    if place == "model":
        assert calls == [{}] and model.generate is replaced


def test_a_generate_that_somebody_wrapped_lets_rows_leave_all_the_same(monkeypatch):
    model = rambling()
    ids, mask = prompts(model)
    own = type(model).generate
    monkeypatch.setattr(type(model), "generate", lambda self, **given: own(self, **given).clone())
    work = Work(model)
    expected, plain = work.of(lambda: model.generate(input_ids=ids, attention_mask=mask, generation_config=settings()))
    found, compacted = work.of(lambda: generate(model, ids, mask, settings()))
    assert torch.equal(found, expected) and compacted < 0.8 * plain


@pytest.mark.parametrize("divided", [True, False])
def test_each_completion_is_reported_once_at_its_end(tiny_model, divided):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    contexts = [tokenizer(text)["input_ids"] for text in ("a", "a", "longer", "b", "b", "c")]
    ends, end, steps = [4, 2, 6, 1, 9, 2], tokenizer.eos_token_id, []
    found: dict[int, list[int]] = {}

    class Planned(RandomNumbers):
        def draw(self, scores, rows, step):
            steps.append(step)
            scores[:, end] = -torch.inf
            done = torch.tensor([ends[row] == step + 1 for row in rows.tolist()])
            return super().draw(scores, rows, step).masked_fill(done, end)

    def reported(row, ids):
        assert row not in found and steps[-1] == min(ends[row], 8) - 1
        found[row] = ids

    numbers = Planned([(0, row) for row in range(6)])
    chat_format = ChatFormat(tokenizer, [end])
    with mock.patch.object(decoding, "may_be_divided", lambda cache: divided):
        turns = sample_turns(model, chat_format, contexts, numbers, room=8, on_finished=reported)
    assert [len(ids) for ids in turns] == [4, 2, 6, 1, 8, 2]  # the fifth is cut off
    assert list(found) == [3, 1, 5, 0, 2, 4] and [found[row] for row in range(6)] == turns
