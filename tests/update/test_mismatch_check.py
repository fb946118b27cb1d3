"""The check of vLLM: what it prints, and that a push without effect is found, of all weights and of an adapter."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from peft import LoraConfig

from dapo_trl import DAPOTrainer
from dapo_trl.errors import ConfigError
from dapo_trl.update.mismatch_check import MismatchCheck, reason_of

from ..support import vllm_stand_in
from ..support.recorded import config

LORA = LoraConfig(r=8, target_modules=["q_proj", "v_proj", "o_proj"], task_type="CAUSAL_LM")


def letters(completions, **_):
    return [sum(character in "aeiou" for character in text) / 24 for text in completions]


def run(model, folder, *, adapter, **changes):
    args = config(
        folder,
        **{
            "use_vllm": True,
            "vllm_mode": "colocate",
            "max_completion_length": 24,
            "max_steps": 3,
            "learning_rate": 1e-2,
            "optim": "adamw_torch",
            "overlong_shape": "none",
            "max_round_sequences": 8,  # no surplus: every rollout batch is sampled anew
            **changes,
        },
    )
    data = Dataset.from_dict({"prompt": [f"row {i}" for i in range(8)]})
    trainer = DAPOTrainer(model, letters, args, data, peft_config=LORA if adapter else None)
    lines: list[str] = []
    trainer._mismatch_check._say = lines.append
    trainer.train()
    return lines


@pytest.mark.parametrize("adapter", [False, True], ids=["weights", "adapter"])
def test_pushes_that_arrive(adapter, tiny_model, stand_in, tmp_path):
    stand_in(tiny_model)
    first, second = run(tiny_model, tmp_path, adapter=adapter)
    assert "standard deviation of" in first and "mismatch_correction token_truncate keeps 100.0%" in first
    assert f"vLLM has the pushed {'adapter' if adapter else 'weights'}: the trainer's log-probabilities moved" in second


@pytest.mark.parametrize("adapter", [False, True], ids=["weights", "adapter"])
def test_pushes_without_effect_end_the_run(adapter, tiny_model, stand_in, monkeypatch, tmp_path):
    stand_in(tiny_model)
    monkeypatch.setattr(vllm_stand_in.Engine, "load_weights", lambda self, named: [name for name, _ in named])
    with pytest.raises(ConfigError) as error:
        run(tiny_model, tmp_path, adapter=adapter)
    said = str(error.value)
    assert f"step 1: vLLM still samples with the {'adapter' if adapter else 'weights'} of step 0" in said
    assert "\n" not in said and "mismatch_check false" in said


def test_it_can_be_switched_off(tiny_model, stand_in, monkeypatch, tmp_path):
    stand_in(tiny_model)
    monkeypatch.setattr(vllm_stand_in.Engine, "load_weights", lambda self, named: [name for name, _ in named])
    assert run(tiny_model, tmp_path, adapter=False, mismatch_check=False) == []


def batches(spread, generator):
    """TRL's batch of tokens on which the sampler differs from the trainer by noise of this spread."""
    old = torch.randn(8, 400, generator=generator) - 3
    ones = torch.ones(8, 400, dtype=torch.long)
    return {
        "prompt_ids": ones,
        "prompt_mask": ones,
        "completion_ids": ones,
        "completion_mask": ones,
        "advantages": torch.zeros(8),
        "old_per_token_logps": old,
        "sampling_per_token_logps": old - spread * torch.randn(8, 400, generator=generator),
    }


def make_check(lines, score=None):
    args = SimpleNamespace(
        use_vllm=True,
        mismatch_check=True,
        max_completion_length=4096,
        mismatch_correction="sequence_mask",
        vllm_importance_sampling_clip_min=None,
        vllm_importance_sampling_clip_max=3.0,
    )
    return MismatchCheck(args, Accelerator(cpu=True), score=score, say=lines.append, trained="weights")


@pytest.mark.parametrize(("spread", "named"), [(0.02, False), (0.5, True)])
def test_a_difference_that_is_not_rounding(spread, named):
    lines: list[str] = []
    make_check(lines).see(batches(spread, torch.Generator().manual_seed(0)), 0)
    assert (" So much is not rounding: compare weights and dtype." in lines[0]) == named


@pytest.mark.parametrize(
    ("update", "after", "outcome"),
    [
        (0.1, 0.02, "has the pushed weights"),
        (0.1, 0.025, "has the pushed weights"),
        (0.1, math.hypot(0.02, 0.1), "still samples"),
        (0.1, math.hypot(0.02, 0.06), "still samples"),  # an update that moves other completions less
        (0.03, math.hypot(0.02, 0.03), None),  # too small to tell
    ],
)
def test_what_is_concluded_from_noise_and_update(update, after, outcome):
    generator, lines = torch.Generator().manual_seed(0), []

    def score(batch):
        old = batch["old_per_token_logps"]
        return old + update * torch.randn(old.shape, generator=generator)

    check = make_check(lines, score)
    check.see(batches(0.02, generator), 0)
    assert "differ by 0.02 a token (standard deviation of 3,200 tokens)" in lines[0]
    assert "sequence_mask keeps 5" in lines[0] and "token_truncate would keep 100.0%" in lines[0]
    check.see(batches(0.9, generator), 0)  # nothing is concluded before the weights have changed
    if outcome == "still samples":
        with pytest.raises(ConfigError, match=outcome):
            check.see(batches(after, generator), 1)
    else:
        check.see(batches(after, generator), 1)
        assert (outcome is None) == (not check.done) and (outcome is None or outcome in lines[1])


def sampled(logits, *, temperature=1.0, top_p=1.0, reported=None, weights=0.0, rotated=False, tokens=3000):
    """Log-probabilities of a trainer with these logits, and those that a sampler gives of what it drew."""
    generator = torch.Generator().manual_seed(3)
    own = (logits + weights * torch.randn(logits.shape, generator=generator)) / temperature
    ranked = own.softmax(-1).sort(descending=True)
    beyond = ranked.values.cumsum(-1) - ranked.values > top_p
    own = own.masked_fill(beyond.gather(1, ranked.indices.argsort(-1)), -torch.inf)
    drawn = torch.multinomial(own.softmax(-1), 1, generator=generator)
    given = own if reported is None else logits / reported
    trainer, sampler = (x.log_softmax(-1).gather(1, drawn)[:, 0].double() for x in (logits, given))
    return trainer, sampler.roll(1) if rotated else sampler


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ({}, ""),
        ({"weights": 0.02}, ""),
        ({"weights": 0.3}, "So much is not rounding: compare weights and dtype."),
        ({"temperature": 0.7}, "they are of another temperature"),
        ({"temperature": 1.4}, "they are of another temperature"),
        ({"reported": 0.7}, "they are of another temperature"),
        ({"top_p": 0.9}, "it samples from a truncated distribution"),
        ({"rotated": True}, "out of place"),
    ],
    ids=str,
)
def test_the_reason_of_a_difference(fault, sentence):
    spreads = torch.rand(3000, 1, generator=torch.Generator().manual_seed(1)) * 6  # from certain to uncertain tokens
    logits = spreads * torch.randn(3000, 50, generator=torch.Generator().manual_seed(2))
    trainer, sampler = sampled(logits, **fault)
    found = reason_of(trainer, sampler, float((trainer - sampler).std()))
    assert sentence in found and bool(found) == bool(sentence), found
