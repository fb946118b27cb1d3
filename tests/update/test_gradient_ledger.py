"""The gradient ledger: every account by hand, sums of one however a step is cut, and a run against the closed form."""

from __future__ import annotations

import math

import pytest
import torch
from datasets import Dataset

from dapo_trl import DAPOTrainer
from dapo_trl.monitor.diagnosis import lost_gradient
from dapo_trl.update.gradient_ledger import ACCOUNTS, gradient_shares, gradient_sums
from dapo_trl.update.mismatch import expected

from ..support import vllm_stand_in
from ..support.recorded import config, correctness, prompts_of, recorded_rollouts


def shares(*batches, long=3):
    return gradient_shares(sum(gradient_sums(**batch, long=long) for batch in batches).tolist())


def step(**changes):
    """Three completions: of 4 tokens, of 2, and one of 6 that is masked altogether."""
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]])
    return {
        "advantages": torch.tensor([0.5, -1.0, 1.0]),
        "mask": mask,
        "masked_tokens": torch.tensor([0, 0, 6]),
        **changes,
    }


def test_each_account_by_hand():
    low = torch.tensor([[0, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1]]).bool()  # padding and masked tokens count for nothing
    high = torch.tensor([[0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()
    weights = torch.tensor([[0.0, 0.5, 1.5, 1.0], [1.0, 0.5, 9.0, 9.0], [1.0, 1.0, 1.0, 1.0]])
    found = shares(step(is_low_clipped=low, is_high_clipped=high, weights=weights))
    whole = 4 * 0.5 + 2 * 1.0 + 6 * 1.0
    lost = {"clipped_low": 0.25, "clipped_high": 0.75 + 1.0, "mismatch": 0.5 + 0.25 - 0.25 + 0.5, "truncated": 6.0}
    wanted = {"acting": 0.5 + 0.5, **lost, "zero": 0.0}
    assert {name: found[name] for name in ACCOUNTS} == pytest.approx({name: x / whole for name, x in wanted.items()})
    assert sum(found[name] for name in ACCOUNTS) == pytest.approx(1.0, abs=1e-15)
    assert found["mismatch_long"] == pytest.approx(0.5 / 2.0)  # of the first completion
    kept, squares = 3.0, 0.5 * (0.25 + 2.25 + 1.0) + 1.25
    assert found["sample_size"] == pytest.approx(kept**2 / (4.0 * squares))


def test_tokens_without_advantage_are_counted():
    found = shares(step(advantages=torch.tensor([0.0, -1.0, 0.0])))
    assert found["zero"] == pytest.approx(10 / 12) and found["acting"] == pytest.approx(2 / 12)
    found = shares(step(advantages=torch.zeros(3)))
    assert found["zero"] == 1.0 and sum(found[name] for name in ACCOUNTS) == 1.0
    assert "sample_size" not in found
    assert gradient_shares([0.0] * 10) == {}


def test_turns_weigh_their_tokens_by_themselves():
    """A turn without advantage has no weight and is not lost; a completion without any is."""
    turns = torch.tensor([[0.5, 0.5, 0.0, -2.0], [0.0, 0.0, 9.0, 9.0], [1.0, 9.0, 9.0, 9.0]])
    found = shares(step(advantages=turns))
    zero = 2 / 12
    wanted = {"acting": 3 / 9 * (1 - zero), "truncated": 6 / 9 * (1 - zero), "zero": zero}
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)


def test_everything_masked_by_the_correction():
    found = shares(step(weights=torch.zeros(3, 4)))
    assert found["acting"] == 0 and found["mismatch"] == pytest.approx(0.4) and found["sample_size"] == 0


def test_the_cut_into_microbatches_does_not_matter():
    generator = torch.Generator().manual_seed(0)
    whole = {
        "advantages": torch.randn(8, generator=generator),
        "mask": (torch.rand(8, 6, generator=generator) > 0.3).long(),
        "masked_tokens": torch.tensor([0] * 7 + [5]),
        "is_low_clipped": torch.rand(8, 6, generator=generator) > 0.8,
        "is_high_clipped": torch.rand(8, 1, generator=generator) > 0.8,
        "weights": torch.rand(8, 6, generator=generator) * 2,
    }
    parts = [{name: value[rows] for name, value in whole.items()} for rows in (slice(0, 1), slice(1, 6), slice(6, 8))]
    assert shares(*parts) == pytest.approx(shares(whole), abs=1e-6)


@pytest.mark.parametrize("mode", ["none", "token_truncate", "sequence_mask", "sequence_truncate"])
def test_a_run_loses_what_the_closed_form_says(mode, tiny_chat_model, stand_in, monkeypatch, tmp_path):
    spread, tokens = 0.05, 256
    monkeypatch.setattr(vllm_stand_in.Engine, "sample", vllm_stand_in.noisy(spread))
    stand_in(tiny_chat_model)
    args = config(
        tmp_path,
        use_vllm=True,
        vllm_mode="colocate",
        mismatch_correction=mode,
        max_completion_length=tokens,
        per_device_train_batch_size=256,
        max_round_sequences=256,
        overlong_shape="none",
        microbatch_tokens=9000,
        learning_rate=1e-6,
        beta=0.0,
    )
    data = Dataset.from_dict({"prompt": [f"row {i:02}" for i in range(64)]})
    run = DAPOTrainer(tiny_chat_model, lambda completions, **_: [i % 2 for i in range(len(completions))], args, data)
    run.train()
    logged = {name: value for name, value in run.state.log_history[0].items() if name.startswith("gradient/")}
    weight = expected(spread, tokens, mode, low=None, high=3.0).weight
    assert logged["gradient/acting"] == pytest.approx(weight, abs=0.01)
    assert logged["gradient/mismatch"] == pytest.approx(1 - weight, abs=0.01)
    assert logged["gradient/mismatch_long"] == pytest.approx(1 - weight, abs=0.01)
    assert sum(logged[f"gradient/{name}"] for name in ACCOUNTS) == pytest.approx(1.0, abs=1e-12)
    assert math.isfinite(logged["gradient/sample_size"])
    assert run.state.log_history[0]["sampling/sampling_logp_difference/mean"] == pytest.approx(0.8 * spread, rel=0.05)


def mostly_cut_off(prompts, trainer):
    found = recorded_rollouts(prompts, trainer)
    return {**found, "completion_ids": [ids[:-1] if i % 4 else ids for i, ids in enumerate(found["completion_ids"])]}


@pytest.mark.parametrize(
    ("settings", "reward", "account", "sentence"),
    [
        ({"epsilon": 0.0, "epsilon_high": 0.0, "num_iterations": 3}, correctness, "clipped", "weight is clipped"),
        ({"group_filter": "none"}, lambda completions, **_: [1.0] * len(completions), "zero", "100% of the gradient"),
        ({"mask_truncated_completions": True}, correctness, "truncated", "masked because they were cut off"),
    ],
    ids=["a clip of 0", "no advantage", "mostly cut off"],
)
def test_planted_faults_are_named(settings, reward, account, sentence, tiny_model, tmp_path):
    args = config(tmp_path, overlong_shape="none", max_steps=3, beta=0.0, **settings)
    rollouts = mostly_cut_off if account == "truncated" else recorded_rollouts
    run = DAPOTrainer(tiny_model, reward, args, prompts_of("mixed", "mixed"), rollout_func=rollouts)
    run.train()
    newest = [row for row in run.state.log_history if "gradient/zero" in row][-1]
    assert "gradient/sample_size" not in newest and "gradient/mismatch_long" not in newest
    assert sum(newest[f"gradient/{name}"] for name in ACCOUNTS) == pytest.approx(1.0, abs=1e-12)
    assert sum(newest[f"gradient/{name}"] for name in ACCOUNTS if name.startswith(account)) > 0.5
    assert sentence in (lost_gradient(newest) or "")
