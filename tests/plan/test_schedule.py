"""Steps, rollouts, tokens, refill and time, against numbers worked out by hand and against the code that runs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from dapo_trl import DAPOConfig
from dapo_trl.errors import ConfigError
from dapo_trl.plan.devices import CARDS, this_cpu
from dapo_trl.plan.refill import BATCHES, Refill, expected_refill, most_groups, read_rates
from dapo_trl.plan.schedule import (
    Schedule,
    Speed,
    optimizer_steps,
    read_run,
    seconds_per_step,
    unlike,
)
from dapo_trl.plan.trace import read_config

from ..conftest import ROOT, SHIPPED_MODEL


def schedule(**changes) -> Schedule:
    given = {
        "steps": 160,
        "rollout_batches": 10,
        "groups": 512,
        "group_size": 16,
        "updates": 16,
        "completions_per_update": 512,
        "passes": 4,
        "pass_tokens": 22528,
        "warmup_steps": 320,
        "epochs": None,
        "sampled": 1024.0,
        "most_sampled": 4096,
        "rounds": 1.0,
        "filled": 1.0,
        "prompt_tokens": 100.0,
        "completion_tokens": 1000.0,
    }
    return Schedule(**{**given, **changes})


def test_a_rollout_batch_of_the_paper():
    found = schedule()
    assert found.completions == 8192 and found.warmup_batches == 20
    assert found.trained_tokens == 8_192_000 and found.generated_tokens == 16_384_000
    assert found.total_tokens == 163_840_000


def test_a_half_filled_batch_trains_on_half():
    found = schedule(filled=0.5, sampled=512)
    assert found.trained_tokens == 4_096_000 and found.generated_tokens == 8_192_000 and found.refill == 2


def test_what_is_never_informative_is_generated_all_the_same():
    found = schedule(filled=0.0)
    assert found.trained_tokens == 0 and found.generated_tokens == 16_384_000 and found.refill == float("inf")


def test_a_run_of_unknown_length_has_no_totals():
    found = schedule(steps=None, rollout_batches=None, warmup_steps=None)
    assert found.total_tokens is None and found.warmup_batches is None and found.generated_tokens == 16_384_000


@pytest.mark.parametrize(
    ("arguments", "steps", "epochs"),
    [
        ({"max_steps": 100, "epochs": 3, "rows": None, "groups": 8, "updates": 4}, 100, None),
        ({"max_steps": 100, "epochs": 3, "rows": 400, "groups": 8, "updates": 4}, 100, 0.5),
        ({"max_steps": -1, "epochs": 2, "rows": 100, "groups": 8, "updates": 4}, 96, 2),  # 12 full batches an epoch
        ({"max_steps": -1, "epochs": 1, "rows": 3, "groups": 8, "updates": 4}, 4, 1),
        ({"max_steps": -1, "epochs": 2, "rows": None, "groups": 8, "updates": 4}, None, 2),
    ],
)
def test_optimizer_steps(arguments, steps, epochs):
    assert optimizer_steps(**arguments) == (steps, epochs)


def test_seconds_of_a_step():
    """16.384 million tokens generated at 1,000 a second on 4 devices, 8.192 million trained twice at 2,000."""
    found = seconds_per_step(schedule(), Speed(1000, 2000, "x"), devices=4, iterations=2)
    assert found == pytest.approx((16_384_000 / 4000 + 2 * 8_192_000 / 8000) / 16)


@pytest.mark.parametrize(
    ("given", "rates"),
    [
        (0.25, {0.25: 1}),
        (0, {0.0: 1}),
        ({0: 3, 0.5: 7}, {0.0: 3, 0.5: 7}),
    ],
)
def test_pass_rates(given, rates):
    assert read_rates(given) == rates


@pytest.mark.parametrize("given", [1.5, -0.1, "high", [0.5], None, {}, {0.5: 0}, {0.5: "much"}])
def test_pass_rates_that_are_none(given):
    with pytest.raises(ConfigError, match="pass_rate is"):
        read_rates(given)


def factor(found: Refill) -> float:
    """Groups generated for each that is trained on, of batches of `config` that take 64 groups."""
    return found.sampled / (64 * found.filled)


def config(**changes) -> DAPOConfig:
    given = {"per_device_train_batch_size": 64, "steps_per_generation": 8, "gradient_accumulation_steps": 1}
    return DAPOConfig(**{**given, "use_cpu": True, "min_valid_fraction": 1.0, **changes})


@pytest.mark.parametrize("rate", [0.5, 0.1, 0.05])
def test_the_refill_approaches_one_over_the_chance_of_a_mixed_group(rate):
    """In the long run every informative group is used, at once or out of the bank: 1 / (1 - p^G - (1-p)^G) groups are
    generated for each, as long as the bank holds what is over."""
    found = expected_refill(config(max_refill_rounds=50), {rate: 1.0}, rows=None)
    chance = 1 - rate**8 - (1 - rate) ** 8
    assert factor(found) == pytest.approx(1 / chance, rel=0.12)
    assert found.filled == 1.0


def test_without_a_filter_nothing_is_refilled():
    assert expected_refill(config(group_filter="none"), {0.0: 1.0}, rows=None) == Refill(64, 1.0, 1.0)


def test_what_is_trained_on_was_generated():
    """Also where almost every group is informative and rounds are large, so that batches live off the bank's level."""
    large = config(per_device_train_batch_size=128, num_generations=16, max_round_sequences=3 * 1024)
    found = expected_refill(large, {0.5: 1.0}, rows=None)
    assert found.filled == 1.0 and 64 <= found.sampled < 65


def test_what_is_never_right_is_never_trained_on():
    found = expected_refill(config(), {0.0: 1.0}, rows=100)
    assert found.filled == 0 and found.rounds == 9 and 64 < found.sampled <= 9 * 64


@pytest.mark.parametrize("changes", [{}, {"group_filter": "none"}, {"max_refill_rounds": 2}])
@pytest.mark.parametrize("rate", [0.0, 0.01, 0.5])
def test_no_pass_rate_generates_more_than_the_bound(rate, changes):
    assert expected_refill(config(**changes), {rate: 1.0}, rows=100).sampled <= most_groups(config(**changes))


def test_a_batch_may_be_accepted_half_full():
    found = expected_refill(config(min_valid_fraction=0.5, surplus_max_age=0), {0.1: 1.0}, rows=None)
    assert 0.5 <= found.filled < 0.75 and factor(found) == pytest.approx(1 / (1 - 0.1**8 - 0.9**8), rel=0.12)


def test_every_source_of_a_mixture_refills_alone():
    """What is over in one is of no use to another, so a batch takes more rounds."""
    args = config(surplus_max_age=0)
    alone, mixed = (expected_refill(args, {0.1: 1.0}, rows=None, mixture=[(1.0, None)] * n) for n in (1, 8))
    assert alone == expected_refill(args, {0.1: 1.0}, rows=None)
    assert mixed.filled == 1.0 and mixed.rounds > 1.2 * alone.rounds and mixed.sampled > alone.sampled


def test_predicted_prompts_need_fewer_groups():
    rates = {0.0: 3.0, 1.0: 3.0, 0.5: 4.0}
    args = {"per_device_train_batch_size": 32, "max_refill_rounds": 50}
    uniform = expected_refill(config(**args), rates, rows=300)
    predicted = expected_refill(config(**args, prompt_selection="predicted"), rates, rows=300)
    assert predicted.sampled / predicted.filled < 0.8 * uniform.sampled / uniform.filled


@pytest.mark.slow
def test_the_simulation_generates_what_a_run_generates(tiny_model, tmp_path):
    """The same pass rate, once drawn from dice and once in a run of a trainer: groups generated in all."""
    from datasets import Dataset

    from dapo_trl import DAPOTrainer

    rate, dice = 0.15, np.random.default_rng(0)
    args = config(
        output_dir=str(tmp_path),
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=2,
        max_steps=8 * BATCHES,
        filter_key="reward",
        max_refill_rounds=20,
        beta=0.0,
        report_to=[],
        save_strategy="no",
        gradient_checkpointing=False,
    )
    trainer = DAPOTrainer(
        model=tiny_model,
        args=args,
        reward_funcs=lambda completions, **_: (dice.random(len(completions)) < rate).astype(float).tolist(),
        train_dataset=Dataset.from_dict({"prompt": [f"{i}" for i in range(4000)]}),
    )
    torch.manual_seed(0)
    trainer.train()
    counts = trainer.sampling.counts
    found = expected_refill(args, {rate: 1.0}, rows=4000)
    assert found.sampled == pytest.approx(counts.sampled / BATCHES, rel=0.2)


def metrics(folder, rows: list[dict]) -> str:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def row(step: int, **changes) -> dict:
    given = {
        "step": step,
        "step_time": 2.0,
        "ledger/tokens": 100.0 * step,
        "ledger/trained_tokens": 50.0 * step,
        "ledger/trained_seconds": 0.5 * step,
        "ledger/all_wrong_seconds": 0.5 * step,
        "completions/mean_length": 40.0,
        "completions/clipped_ratio": 0.25,
    }
    return {**given, **changes}


def test_speed_of_a_run_that_was(tmp_path):
    """20 steps of 2 seconds, one of them generating: 100 tokens a second generated, 50 trained on in the other."""
    found = read_run(metrics(tmp_path, [row(step) for step in (10, 20)]))
    assert (found.speed.generated, found.speed.trained) == (100.0, 50.0)
    assert (found.completion_tokens, found.cut_off) == (40.0, 0.25)


def test_several_passes_over_a_batch_count_each(tmp_path):
    (tmp_path / "config.yaml").write_text("num_iterations: 2\n")
    speed = read_run(metrics(tmp_path, [row(step) for step in (10, 20)])).speed
    assert (speed.generated, speed.trained) == (100.0, 100.0)


def test_windows_of_unequal_length_weigh_by_their_steps(tmp_path):
    rows = [row(10, step_time=3.0), row(20, step_time=1.0), row(22, step_time=4.0)]
    speed = read_run(metrics(tmp_path, rows)).speed
    assert speed.trained == pytest.approx(50 * 22 / (10 * 3 + 10 * 1 + 2 * 4 - 22))


def test_a_speed_explains_the_run_it_is_from(tmp_path):
    """Planned as it was, a run takes as long as it took."""
    found = read_run(metrics(tmp_path, [row(step) for step in (10, 20)]))
    planned = schedule(updates=4, groups=5, group_size=1, completion_tokens=found.completion_tokens, sampled=10)
    seconds = 4 * seconds_per_step(planned, found.speed, devices=1, iterations=1)
    assert seconds == pytest.approx(400 / 100 + 200 / 50)


def test_a_run_of_another_model_or_on_a_cpu_does_not_calibrate(tmp_path):
    (tmp_path / "config.yaml").write_text(f"model: {SHIPPED_MODEL}\nuse_cpu: true\n")
    known = read_run(metrics(tmp_path, [row(10)]))
    same, other = read_config(str(SHIPPED_MODEL)), read_config(str(ROOT / "configs/models/qwen2.5-0.5b.json"))
    assert unlike(known, same, this_cpu()) == ""
    assert "ran on a CPU, and this is on T4" in unlike(known, same, CARDS["T4"])
    assert "has 828,672 weights, and this one 494,032,768" in unlike(known, other, this_cpu())


@pytest.mark.parametrize("rows", [[], [{"step": 1, "loss": 0.1}], [row(10, **{"ledger/trained_tokens": 0.0})]])
def test_a_run_that_says_nothing_is_one_clear_line(tmp_path, rows):
    with pytest.raises(ConfigError, match="calibration is"):
        read_run(metrics(tmp_path, rows))
