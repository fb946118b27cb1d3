"""Sequences that are computed together, what they begin with once: as if each were computed by itself."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from trl.trainer.utils import add_fused_lm_head

from dapo_trl.update import attention as attention_module
from dapo_trl.update.attention import SharedAttention, obstacle
from dapo_trl.update.batching import shared_lines
from dapo_trl.update.logprobs import layout, per_token
from dapo_trl.update.packing import VIRTUAL, Packer

VOCABULARY = 50
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}
BOTH_KINDS = {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
GPT2 |= {"resid_pdrop": 0.0, "attn_pdrop": 0.0, "embd_pdrop": 0.0, "bos_token_id": None, "eos_token_id": 1}
MODELS = {
    "Llama, head of its own": ("LlamaForCausalLM", SIZES | {"tie_word_embeddings": False}),
    "Llama, tied head": ("LlamaForCausalLM", SIZES | {"tie_word_embeddings": True}),
    "Qwen2": ("Qwen2ForCausalLM", SIZES),
    "Qwen2, some layers slide": ("Qwen2ForCausalLM", SIZES | BOTH_KINDS | {"use_sliding_window": True}),
    "Qwen3": ("Qwen3ForCausalLM", SIZES | {"head_dim": 8}),
    "Mistral, all layers slide": ("MistralForCausalLM", SIZES | {"sliding_window": 6}),
    "Gemma3": ("Gemma3ForCausalLM", SIZES | BOTH_KINDS | {"head_dim": 8}),
    "Gemma2, capped scores": ("Gemma2ForCausalLM", SIZES | BOTH_KINDS | {"head_dim": 8}),
    "GPT-2, learned positions": ("GPT2LMHeadModel", GPT2),
    "GPT-NeoX": ("GPTNeoXForCausalLM", {k: v for k, v in SIZES.items() if k != "num_key_value_heads"}),
    "Phi": ("PhiForCausalLM", SIZES),
    "Qwen3, experts": (
        "Qwen3MoeForCausalLM",
        SIZES | {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    ),
    "GPT-OSS, sinks": (
        "GptOssForCausalLM",
        SIZES | BOTH_KINDS | {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
}
ONLY_EAGER = ("GPT-OSS, sinks",)


def tokens(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, VOCABULARY, count)


def group(prompt: int, *completions: int, seed: int) -> tuple[list[np.ndarray], list[int], list[int]]:
    """Sequences that begin with the same prompt, their prompts' and their completions' lengths."""
    shared = tokens(prompt, seed)
    sequences = [np.concatenate([shared, tokens(count, seed * 100 + i)]) for i, count in enumerate(completions)]
    return sequences, [prompt] * len(completions), list(completions)


def batch(*groups) -> tuple[list[np.ndarray], list[int], list[int]]:
    return tuple([one for part in groups for one in part[i]] for i in range(3))  # type: ignore[return-value]


TWO_TURNS = np.concatenate([tokens(12, 1), tokens(6, 2)])
SAME_BEGINNING = (
    [TWO_TURNS, np.concatenate([TWO_TURNS[:15], tokens(9, 3)]), TWO_TURNS.copy(), TWO_TURNS[:14]],
    [12] * 4,
    [6, 12, 6, 2],
)
"""Completions that begin alike, that are equal, and one that others begin with."""
BATCHES = {
    "groups": batch(group(12, 5, 20, 1, 7, seed=1), group(9, 6, 3, seed=2), group(4, 17, seed=3)),
    "completions that begin alike": SAME_BEGINNING,
    "prompts of one token": batch(group(1, 5, 3, seed=4), group(8, 9, 2, seed=5)),
    "nothing to score": batch(group(12, 5, 0, 7, seed=6)),
    "lengths far apart": batch(group(3, 60, 1, seed=7), group(40, 2, 30, 2, seed=8)),
}


def build(name: str, sizes: dict, backend: str = "sdpa"):
    """A random model whose attention matters: weights ten times larger than at the beginning of training."""
    cls = getattr(transformers, name)
    torch.manual_seed(0)
    model = cls._from_config(cls.config_class(**sizes), attn_implementation=backend)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    assert obstacle(model) == ""
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    return model.train()


def passes(model, rows, *, shared: bool, backward: bool = True, base=None):
    """Log-probabilities, entropies and gradients of a batch, in one line for each group or each row by itself."""
    sequences, prompts, completions = rows
    attention = SharedAttention(base or model) if shared else None
    lines = shared_lines(sequences, prompts, 10_000) if shared else None
    lying = layout(sequences, completions, pad_token_id=0, attention=attention, lines=lines)
    model.zero_grad()
    with attention.answering() if attention else torch.enable_grad():
        logps, entropies = per_token(model, lying)
        if backward:
            noise = torch.Generator().manual_seed(1)
            ((logps + 0.3 * entropies) * torch.randn(logps.shape, generator=noise)).sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return logps.detach(), entropies.detach(), gradients, lying


def check_equal(one, two):
    """Log-probabilities to 1e-6 of their size, gradients to 1e-5."""
    for a, b in zip(one[:2], two[:2], strict=True):
        assert (a - b).abs().max() <= 1e-6 * max(float(a.abs().max()), 1.0)
    assert one[2].keys() == two[2].keys()
    largest = max((float(value.abs().max()) for value in one[2].values()), default=0.0)
    for name, value in one[2].items():
        assert (value - two[2][name]).abs().max() <= 1e-5 * max(largest, 1e-3), name


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        (name, backend)
        for name in MODELS
        for backend in ("sdpa", "eager")
        if backend == "eager" or name not in ONLY_EAGER
    ],
)
def test_every_model_as_with_separate_prompts(name, backend):
    model = build(*MODELS[name], backend)
    rows = BATCHES["groups"]
    separate, shared = (passes(model, rows, shared=share) for share in (False, True))
    check_equal(separate, shared)
    computed = shared[3].inputs["input_ids"].numel()
    assert computed == (11 + 5 + 20 + 1 + 7) + (8 + 6 + 3) + (4 + 16)  # every distinct token that is not the last


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("kinds", [{}, BOTH_KINDS | {"use_sliding_window": True}], ids=["full", "sliding"])
@pytest.mark.parametrize("rows", BATCHES.values(), ids=BATCHES)
def test_every_batch_as_with_separate_prompts(rows, kinds, backend):
    model = build("Qwen2ForCausalLM", SIZES | kinds, backend)
    check_equal(*(passes(model, rows, shared=share) for share in (False, True)))


@pytest.mark.parametrize("blocks", [4, 20])
@pytest.mark.parametrize("backend", ["sdpa", "eager"])
def test_queries_in_blocks(backend, blocks, monkeypatch):
    monkeypatch.setattr(attention_module, "QUERY_BLOCK", blocks)
    model = build("Qwen2ForCausalLM", SIZES | BOTH_KINDS | {"use_sliding_window": True}, backend)
    check_equal(*(passes(model, BATCHES["lengths far apart"], shared=share) for share in (False, True)))


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(reentrant):
    model = build("LlamaForCausalLM", SIZES)
    separate = passes(model, BATCHES["groups"], shared=False)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    check_equal(separate, passes(model, BATCHES["groups"], shared=True))


@pytest.mark.parametrize("dora", [False, True])
def test_adapters(dora):
    base = build("LlamaForCausalLM", SIZES)
    adapter = LoraConfig(
        r=2, task_type="CAUSAL_LM", init_lora_weights=False, use_dora=dora, target_modules="all-linear"
    )
    model = get_peft_model(base, adapter)
    check_equal(*(passes(model, BATCHES["groups"], shared=share, base=base) for share in (False, True)))


@pytest.mark.parametrize("kinds", [{}, BOTH_KINDS | {"use_sliding_window": True}], ids=["full", "sliding"])
@pytest.mark.parametrize("rows", BATCHES.values(), ids=BATCHES)
def test_flex_attention(rows, kinds, monkeypatch):
    """As Python computes it, forward only: the masks are tested here, not the compiler."""

    def plain(query, key, value, training=False, **options):
        return flex_attention(query, key, value, **options)

    def uncompiled(_compile, **options):
        return create_block_mask(**options)

    monkeypatch.setattr("transformers.integrations.flex_attention.compile_friendly_flex_attention", plain)
    monkeypatch.setattr("transformers.masking_utils.create_block_mask", uncompiled)
    sizes = SIZES | kinds
    with torch.no_grad():
        separate = passes(build("Qwen2ForCausalLM", sizes), rows, shared=False, backward=False)
        shared = passes(build("Qwen2ForCausalLM", sizes, "flex_attention"), rows, shared=True, backward=False)
    check_equal(separate, shared)


@pytest.mark.parametrize("kinds", [{}, BOTH_KINDS | {"use_sliding_window": True}], ids=["full", "sliding"])
def test_flash_attention_gets_the_bounds_of_what_each_span_sees(kinds, monkeypatch):
    """In the place of its kernel, the same in plain PyTorch: causal from the last query and the last key backwards."""

    def varlen(module, query, key, value, mask, scaling, sliding_window=None, **given):
        assert mask is None
        queries, keys = given["cu_seq_lens_q"].tolist(), given["cu_seq_lens_k"].tolist()
        assert max(np.diff(queries)) == given["max_length_q"] and max(np.diff(keys)) == given["max_length_k"]
        key, value = (x.repeat_interleave(module.num_key_value_groups, dim=1) for x in (key, value))
        found = []
        for (a, b), (c, d) in zip(itertools.pairwise(queries), itertools.pairwise(keys), strict=True):
            scores = query[:, :, a:b] @ key[:, :, c:d].transpose(2, 3) * scaling
            distance = torch.arange(b - a)[:, None] + (d - c) - (b - a) - torch.arange(d - c)
            seen = (distance >= 0) & (distance < (sliding_window or d - c))
            found.append(scores.masked_fill(~seen, float("-inf")).softmax(-1) @ value[:, :, c:d])
        return torch.cat(found, dim=2).transpose(1, 2), None

    model = build("Qwen2ForCausalLM", SIZES | kinds)
    separate = passes(model, BATCHES["groups"], shared=False)
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._local_mapping, "flash_attention_2", varlen)
    model.config._attn_implementation = "flash_attention_2"
    check_equal(separate, passes(model, BATCHES["groups"], shared=True))


def test_no_cross_talk():
    """Another completion in the first place leaves the others' log-probabilities as they were, bit for bit."""
    model = build("LlamaForCausalLM", SIZES)
    sequences, prompts, completions = BATCHES["groups"]
    others = [np.concatenate([sequences[0][:12], (sequences[0][12:] + 7) % VOCABULARY]), *sequences[1:]]
    with torch.no_grad():
        before, after = (
            passes(model, (rows, prompts, completions), shared=True, backward=False)[0] for rows in (sequences, others)
        )
    assert torch.equal(before[1:], after[1:]) and not torch.equal(before[0], after[0])


def test_transformers_functions_are_put_back_and_others_pass_through():
    before = ALL_ATTENTION_FUNCTIONS["sdpa"]
    model, other = build("LlamaForCausalLM", SIZES), build("Qwen2ForCausalLM", SIZES)
    ids = torch.from_numpy(tokens(9, 1))[None]
    plain = other(input_ids=ids).logits
    attention = SharedAttention(model)
    with attention.answering(), attention.answering():
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is not before
        assert torch.equal(other(input_ids=ids).logits, plain)
    with pytest.raises(KeyError), attention.answering():
        raise KeyError
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is before and "sdpa" not in ALL_ATTENTION_FUNCTIONS._local_mapping


LINEAR = {"head_dim": 8, "layer_types": ["linear_attention", "full_attention"]}


@pytest.mark.parametrize(
    ("name", "sizes", "reason"),
    [
        ("GPT2LMHeadModel", GPT2 | {"resid_pdrop": 0.1}, "dropout"),
        ("LlamaForCausalLM", SIZES | {"attention_dropout": 0.1}, "dropout"),
        ("Qwen3NextForCausalLM", SIZES | LINEAR, "layers without attention"),
        ("MambaForCausalLM", {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 1}, "layers without attention"),
        ("BloomForCausalLM", {"vocab_size": 50, "hidden_size": 32, "n_layer": 1, "n_head": 4}, "positions of its own"),
        ("FalconForCausalLM", {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 1}, "positions of its own"),
        ("GPT2LMHeadModel", GPT2 | {"reorder_and_upcast_attn": True}, "eager attention is not"),
    ],
)
def test_models_that_cannot_are_told_by_what_they_declare(name, sizes, reason):
    cls = getattr(transformers, name)
    sizes = sizes | ({"num_attention_heads": 4} if name.startswith("Falcon") else {})
    with torch.device("meta"):
        model = cls._from_config(cls.config_class(**sizes), attn_implementation="eager")
    assert reason in obstacle(model)


def test_an_attention_of_ones_own_is_refused():
    model = build("LlamaForCausalLM", SIZES)
    model.config._attn_implementation = "my_attention"
    assert obstacle(model) == "its attention is 'my_attention'"


def test_flash_attention_cannot_look_back_to_the_beginning_of_a_chunk_alone():
    model = build("LlamaForCausalLM", SIZES)
    model.config._attn_implementation = "flash_attention_2"
    assert obstacle(model) == ""
    model.config.attention_chunk_size = 8
    assert obstacle(model) == "flash attention knows no chunks"


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
def test_chunks_begin_at_positions(backend):
    """transformers has no small model of chunks alone, so a Mistral gets the masks of one, by sequence and in a row."""
    model = build("MistralForCausalLM", SIZES | {"sliding_window": None}, backend)
    sequences, _, completions = rows = BATCHES["groups"]
    model.config.attention_chunk_size = 6
    found = passes(model, rows, shared=True, backward=False)[0]
    for row, (sequence, scored) in enumerate(zip(sequences, completions, strict=True)):
        at = torch.arange(len(sequence))
        seen = (at[None, :] <= at[:, None]) & (at[None, :] // 6 == at[:, None] // 6)
        mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[None, None]
        logits = model(input_ids=torch.from_numpy(sequence)[None], attention_mask=mask).logits[0].log_softmax(-1)
        plain = logits[at[:-1], sequence[1:]][-scored:]
        assert torch.allclose(found[row, :scored], plain, atol=1e-5)


def test_on_a_gpu_sharing_must_save_more_than_masks_cost():
    model = build("LlamaForCausalLM", SIZES)
    on_gpu, on_cpu = SharedAttention(model, "cuda"), SharedAttention(model, "cpu")
    assert on_gpu.pays([144] * 8, 128) and not on_gpu.pays([8_000] * 8, 16) and on_cpu.pays([8_000] * 8, 16)


def tiny(kind: str, **changes):
    """A random model of a kind by its name in transformers, without dropout."""
    none = {name: 0.0 for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "hidden_dropout")}
    config = transformers.AutoConfig.for_model(kind, **SIZES | none | changes)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    for part in model.parameters():
        if part.ndim > 1:
            torch.nn.init.normal_(part, std=0.15)
    return model


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("nemotron", {}, "a trial of it failed"),  # its layers do not hand further arguments on
        ("roberta", {"is_decoder": True, "type_vocab_size": 1}, "a trial of it was"),  # positions begin elsewhere
        ("qwen2", {}, ""),
    ],
)
def test_a_model_that_only_seems_fit_is_found_by_a_trial(kind, changes, reason):
    model = tiny(kind, **changes)
    assert obstacle(model) == ""
    packer = Packer(model, pad_token_id=0, device=torch.device("cpu"))
    assert packer.refused.startswith(reason) and bool(packer.refused) == bool(reason)
    assert not model.training and ALL_ATTENTION_FUNCTIONS.get("sdpa").__module__.startswith("transformers")


def test_a_budget_for_separate_prompts_shrinks_by_what_sharing_saves():
    """As many microbatches as with separate prompts, each of less memory; no group is cut for it."""
    packer = Packer(tiny("qwen2"), pad_token_id=0, device=torch.device("cpu"))
    assert not packer.refused
    tokens = np.arange(1, 200) % VOCABULARY
    rows = [
        np.concatenate([tokens[: 100 + group], tokens[::-1][: 9 + member]]) for group in (0, 1) for member in range(4)
    ]
    prompts = [100 + group for group in (0, 1) for _ in range(4)]
    separate = 4 * max(map(len, rows))
    shared = packer.shared_budget([(rows, prompts)], separate)
    found = packer.split(rows, prompts, shared)
    assert sorted(sorted(line.rows) for lines in found for line in lines) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert len(found) == 2 and shared < separate / 2
    assert shared >= max(sum(line.load for line in lines) for lines in found)
    packer = Packer(tiny("qwen2"), refused="off", pad_token_id=0, device=torch.device("cpu"))
    assert packer.shared_budget([(rows, prompts)], separate) == separate


def test_layers_with_heads_of_different_sizes_have_a_cost_too():
    model = tiny("gemma4_text", head_dim=8, global_head_dim=16, vocab_size_per_layer_input=VOCABULARY)
    assert SharedAttention(model).copy_load > 0


def test_an_adapter_with_tokens_of_its_own_is_refused():
    model = get_peft_model(tiny("qwen2"), PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    assert Packer(model, pad_token_id=0, device=torch.device("cpu")).refused == VIRTUAL
