"""Generation that lets go of rows that have ended, against transformers' own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, Qwen2Config, Qwen2ForCausalLM

from dapo_trl.generation import seeded as generation
from dapo_trl.generation import transformers as compaction
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
    found, compacted = work.of(lambda: compaction.generate(model, ids, mask, settings()))
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
    numbers = np.random.default_rng(1).random((ROWS, ROOM))
    work = Work(model)

    def sample():
        return generation.generate(model, chat_format, contexts, numbers, temperature=1.0, top_p=1.0)

    found, compacted = work.of(sample)
    monkeypatch.setattr(compaction, "SHARE", 0.0)
    expected, plain = work.of(sample)
    assert found == expected
    assert compacted < 0.8 * plain and len({len(row) for row in found}) > 3


def test_without_a_cache_that_can_be_cut_it_is_computed_again():
    model = rambling()
    ids, mask = prompts(model)

    def forgetful(**given):
        output = model.generate(**given)
        output.past_key_values = None
        return output

    expected = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings())
    assert torch.equal(compaction.generate(model, ids, mask, settings(), plain=forgetful), expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"use_cache": False},
        {"min_new_tokens": 3},
        {"num_beams": 2},
        {"cache_implementation": "static"},
        {"max_time": 60.0},
    ],
    ids=str,
)
def test_what_cannot_be_cut_is_one_plain_call(changes):
    calls = []

    def plain(**given):
        calls.append(given)
        return given["input_ids"]

    ids = torch.ones(4, 3, dtype=torch.long)
    assert compaction.generate(None, ids, ids, settings(**changes), plain=plain) is ids
    assert len(calls) == 1 and "stopping_criteria" not in calls[0]
    compaction.generate(None, ids, ids, settings(), plain=plain, pixel_values=ids)
    assert "stopping_criteria" not in calls[1]


def test_the_models_own_generate_is_back_afterwards():
    model = rambling()
    ids, mask = prompts(model)
    work = Work(model)
    with pytest.raises(KeyboardInterrupt), compaction.compacting(model):
        _, compacted = work.of(lambda: model.generate(input_ids=ids, attention_mask=mask, generation_config=settings()))
        raise KeyboardInterrupt
    _, plain = work.of(lambda: model.generate(input_ids=ids, attention_mask=mask, generation_config=settings()))
    assert "generate" not in vars(model) and compacted < plain
