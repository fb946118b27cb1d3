"""The correction for a sampler with other probabilities: by hand, by its closed form, and by sampling."""

from __future__ import annotations

import math

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOTrainer

from dapo_trl import DAPOTrainer
from dapo_trl.update.gradient_ledger import gradient_shares, gradient_sums
from dapo_trl.update.mismatch import MODES, correction, expected

from ..conftest import SHIPPED_MODEL
from ..support import vllm_stand_in
from ..support.recorded import config

NAN = float("nan")
RAMBLING = SHIPPED_MODEL.with_name("rambling-0.8m")


class TestCorrection:
    def of(self, mode, low=None, high=3.0):
        differences = torch.tensor([[0.5, 1.0, NAN, 9.0], [2.0, -1.0, -2.0, 0.0]])
        mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
        return correction(differences, mask, mode, low=low, high=high)

    def test_each_mode_by_hand(self):
        e = math.exp
        rows = {
            "none": [[1, 1, 1, 1], [1, 1, 1, 1]],
            "token_truncate": [[e(0.5), e(1), 1, 1], [3, e(-1), e(-2), 1]],
            "token_mask": [[e(0.5), e(1), 1, 1], [0, e(-1), e(-2), 1]],
            "sequence_truncate": [[3] * 4, [e(-1)] * 4],
            "sequence_mask": [[0] * 4, [e(-1)] * 4],
            "geometric_mask": [[e(0.5)] * 4, [e(-0.25)] * 4],
        }
        assert list(rows) == list(MODES)
        for mode, wanted in rows.items():
            torch.testing.assert_close(self.of(mode), torch.tensor(wanted, dtype=torch.float32), msg=mode)

    def test_a_lower_bound(self):
        assert self.of("token_mask", low=0.2)[1].tolist() == pytest.approx([0, math.exp(-1), 0, 1])
        assert self.of("token_truncate", low=0.2)[1].tolist() == pytest.approx([3, math.exp(-1), 0.2, 1])
        assert self.of("geometric_mask", high=1.3)[1].tolist() == pytest.approx([math.exp(-0.25)] * 4)
        assert self.of("geometric_mask", high=1.2)[1].tolist() == [0] * 4
        assert self.of("token_truncate", high=None)[1, 0] == pytest.approx(math.exp(2))

    def test_an_unknown_mode_is_named(self):
        with pytest.raises(ValueError, match="mode is 'tokens': it must be one of none, token_truncate"):
            self.of("tokens")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("spread", [0.005, 0.02, 0.05, 0.3])
@pytest.mark.parametrize("bounds", [(None, 3.0), (0.5, 2.0), (None, None)])
def test_the_closed_form_is_what_sampling_gives(mode, spread, bounds):
    generator = torch.Generator().manual_seed(1)
    low, high = bounds
    for tokens in (16, 256, 2048):
        if bounds == (None, None) and spread**2 * tokens > 0.1:
            continue  # the moments of such weights are made by completions that no sample of this size has
        rows = 2**21 // tokens
        draws = torch.randn(rows, tokens, generator=generator, dtype=torch.float64) * spread - spread**2 / 2
        weights = correction(draws, torch.ones_like(draws), mode, low=low, high=high)
        found = expected(spread, tokens, mode, low=low, high=high)
        error = 5 * float(weights.std()) / (rows if mode.startswith(("seq", "geo")) else rows * tokens) ** 0.5
        assert found.weight == pytest.approx(float(weights.mean()), abs=error + 1e-6)
        if found.weight > 0.3:
            assert found.sample_size == pytest.approx(float(weights.mean() ** 2 / (weights**2).mean()), rel=0.1)


def test_long_completions_lose_their_gradient_by_trls_default():
    weights = [expected(0.02, tokens, "sequence_mask", low=None, high=3.0).weight for tokens in (2048, 4096, 16384)]
    assert weights == pytest.approx([0.78, 0.59, 0.20], abs=0.01)
    for tokens in (2048, 16384, 10**6):
        assert expected(0.05, tokens, "token_truncate", low=None, high=3.0).weight == pytest.approx(1.0)
    assert expected(0.5, 16384, "sequence_mask", low=None, high=3.0) == (0.0, 0.0)


@pytest.fixture
def noisy_run(tiny_chat_model, stand_in, monkeypatch, tmp_path):
    """``run(spread, tokens)``: a trainer whose sampler is the stand-in with noise of a known spread."""

    def make(spread, tokens, model=tiny_chat_model, **more):
        monkeypatch.setattr(vllm_stand_in.Engine, "sample", vllm_stand_in.noisy(spread, **more))
        stand_in(model)
        args = config(
            tmp_path,
            use_vllm=True,
            vllm_mode="colocate",
            max_completion_length=tokens,
            per_device_train_batch_size=64,
            overlong_shape="none",
            microbatch_tokens=9000,
            beta=0.0,
        )
        data = Dataset.from_dict({"prompt": ["1+1="]})
        return DAPOTrainer(model, lambda completions, **_: [0.0] * len(completions), args, data)

    return make


PROMPTS = [{"prompt": f"row {i // 8}"} for i in range(64)]


@pytest.mark.parametrize(("spread", "tokens"), [(0.005, 32), (0.01, 128), (0.05, 256), (0.02, 512)])
def test_predicted_and_measured_weights_agree(noisy_run, spread, tokens):
    """On a shipped model; benchmarks/mismatch.py has every spread at every length, longer ones, and enough completions
    to compare the ledger with the closed form too."""
    run = noisy_run(spread, tokens, str(RAMBLING))
    batch = run.trl.whole_batch(PROMPTS)
    mask, differences = batch["completion_mask"], batch["old_per_token_logps"] - batch["sampling_per_token_logps"]
    assert mask.sum() == 64 * tokens and float(differences.std()) == pytest.approx(spread, rel=0.05)
    for mode in MODES:
        weights = correction(differences, mask, mode, low=None, high=3.0)
        wanted = expected(spread, tokens, mode, low=None, high=3.0)
        sums = gradient_sums(torch.ones(64), mask, masked_tokens=torch.tensor(0), weights=weights, long=tokens // 2)
        shares = gradient_shares(sums.tolist())
        assert float(weights.mean()) == pytest.approx(wanted.weight, rel=0.05), mode
        assert shares["acting"] == pytest.approx(float(weights.mean()), abs=1e-5), mode
        assert shares["mismatch"] == pytest.approx(1 - shares["acting"], abs=1e-12), mode
        assert shares["sample_size"] == pytest.approx(wanted.sample_size, rel=0.1), mode


@pytest.mark.parametrize("mode", ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"])
@pytest.mark.parametrize("low", [None, 0.9])
def test_trls_modes_are_computed_as_by_trl(noisy_run, monkeypatch, mode, low):
    run, theirs = noisy_run(0.2, 24, missing=True), []
    original = GRPOTrainer._generate_and_score_completions

    def recorded(self, inputs):
        self.vllm_importance_sampling_mode, self.vllm_importance_sampling_clip_min = mode, low
        batch = original(self, inputs)
        theirs.append(batch["importance_sampling_ratio"])
        return batch

    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", recorded)
    run.args.mismatch_correction, run.args.vllm_importance_sampling_clip_min = mode, low
    batch = run.trl.whole_batch(PROMPTS)
    ours, active = batch["importance_sampling_ratio"], batch["completion_mask"].bool()
    assert batch["sampling_per_token_logps"].isnan().any() and ours.std() > 0.05
    assert torch.equal(ours[active], theirs[0].expand_as(ours)[active])


def test_the_prediction_holds_for_bfloat16():
    """A real mismatch: a shipped model samples in float32 and is scored in bfloat16."""
    sampler = AutoModelForCausalLM.from_pretrained(RAMBLING, dtype=torch.float32).eval()
    trainer = AutoModelForCausalLM.from_pretrained(RAMBLING, dtype=torch.bfloat16).eval()
    prompt = AutoTokenizer.from_pretrained(RAMBLING)("12+34=", return_tensors="pt").input_ids
    tokens, rows, start = 128, 128, prompt.shape[1]
    torch.manual_seed(0)
    with torch.no_grad():
        cache, newest, ids = None, prompt.expand(rows, -1), prompt.expand(rows, -1)
        for _ in range(tokens):
            step = sampler(newest, past_key_values=cache, use_cache=True)
            cache, newest = step.past_key_values, torch.multinomial(step.logits[:, -1].softmax(-1), 1)
            ids = torch.cat([ids, newest], dim=1)
        logits = [torch.cat([model(part).logits for part in ids.split(32)]).float() for model in (trainer, sampler)]
    theirs, ours = (x[:, start - 1 : -1].log_softmax(-1).gather(2, ids[:, start:, None])[..., 0] for x in logits)
    differences = theirs - ours
    spread = float(differences.std())
    assert 0.01 < spread < 0.04
    for mode in MODES:
        for high in (1.5, 3.0):
            weight = expected(spread, tokens, mode, low=None, high=high).weight
            measured = correction(differences, torch.ones_like(differences), mode, low=None, high=high).mean()
            assert float(measured) == pytest.approx(weight, rel=0.1), (mode, high)
