"""Rewards and data as users have them: every one is trained on, or dropped for a reason that is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import trl
from datasets import Dataset
from transformers import AutoTokenizer

from dapo_trl import DAPOTrainer
from dapo_trl.errors import ConfigError

from .support import recorded
from .support.recorded import config, prompts_of, trainer, weights
from .support.tiny import save_tiny_model


def run(model, folder, reward, kinds=("mixed",) * 4, **changes):
    made = trainer(model, config(folder, steps_per_generation=2, **changes), prompts_of(*kinds), reward_funcs=reward)
    before = weights(made)
    made.train()
    moved = max((weights(made)[name] - before[name]).abs().max().item() for name in before)
    return made, moved


def constant(completions, **_):
    return [0.3] * len(completions)


def graded(completions, **_):
    return [0.3 + 0.1 * text.startswith("R") for text in completions]


def signed(completions, **_):
    return [1.0 if text.startswith("R") else -1.0 for text in completions]


def half_unscorable(completions, **_):
    return [float(text.startswith("R")) if i % 4 else None for i, text in enumerate(completions)]


def test_a_constant_score_is_not_informative_whatever_its_value(tiny_model, tmp_path, caplog):
    made, moved = run(tiny_model, tmp_path, constant, max_refill_rounds=1)
    assert moved == 0 and made.sampling.counts.constant == made.sampling.counts.sampled > 0
    assert made.sampling.ledger.tokens["constant"] + made.sampling.ledger.tokens["shaping_only"] > 0
    assert "Scores do not vary within a prompt" in caplog.text


@pytest.mark.parametrize("reward", [graded, signed, half_unscorable])
def test_any_scale_of_rewards_trains(tiny_model, tmp_path, reward):
    made, moved = run(tiny_model, tmp_path, reward)
    assert moved > 0 and made.sampling.counts.kept == 4


def test_unscorable_completions_are_in_the_ledger(tiny_model, tmp_path):
    made, _ = run(tiny_model, tmp_path, half_unscorable)
    ledger = made.sampling.ledger
    assert ledger.tokens["unscorable"] > 0 and ledger.tokens["trained"] > 0
    assert ledger.generated == sum(ledger.tokens.values())


def test_length_shaping_alone_is_told_apart(tiny_model, tmp_path):
    made, moved = run(tiny_model, tmp_path, recorded.correctness, ["right"] * 4, overlong_max_length=2)
    assert moved == 0 and made.sampling.counts.all_right == made.sampling.counts.sampled
    assert made.sampling.ledger.tokens["shaping_only"] == made.sampling.ledger.generated > 0
    assert made.state.log_history[0]["groups/shaping_only"] == made.sampling.counts.sampled


def test_masked_truncated_completions_are_in_the_ledger(tiny_model, tmp_path):
    def cut_at_the_limit(prompts, trainer):
        found = recorded.recorded_rollouts(prompts, trainer)
        cut = [ids[:-1] if i % 2 else ids for i, ids in enumerate(found["completion_ids"])]
        return {**found, "completion_ids": cut}

    args = config(tmp_path, steps_per_generation=2, mask_truncated_completions=True)
    made = trainer(tiny_model, args, prompts_of(*["mixed"] * 4), rollout_func=cut_at_the_limit)
    made.train()
    assert made.sampling.ledger.tokens["truncated"] > 0 and made.sampling.ledger.tokens["trained"] > 0


@pytest.mark.parametrize("selection", ["uniform", "predicted"])
def test_fewer_prompts_than_a_batch(tiny_model, tmp_path, selection):
    made, moved = run(tiny_model, tmp_path, recorded.correctness, ["mixed"], max_steps=4, prompt_selection=selection)
    assert moved > 0 and made.state.log_history[0]["groups/trained"] == 4
    assert made.sampling.sources[0].stream.epochs >= 8


@pytest.mark.parametrize("selection", ["uniform", "predicted"])
def test_data_that_become_solved_in_mid_run_end_it_well(tiny_model, tmp_path, caplog, selection):
    calls = []

    def soon_right(completions, **_):
        calls.append(len(completions))
        return [1.0 if len(calls) > 2 else float(text.startswith("R")) for text in completions]

    made, moved = run(
        tiny_model,
        tmp_path,
        soon_right,
        max_steps=60,
        max_refill_rounds=1,
        prompt_selection=selection,
        lr_scheduler_type="linear",
    )
    assert moved > 0 and 0 < made.state.global_step < 60
    assert "the data are solved: in the last 5 rollout batches every completion of all" in caplog.text
    assert "Training stops here, before step 60" in caplog.text and "Nothing was learnt" not in caplog.text


def test_steps_schedule_and_counts_end_where_they_should(tiny_model, tmp_path):
    """Half of the prompts are dropped: there are twice the rounds, and as many optimizer steps as asked for."""
    kinds = ["mixed", "wrong"] * 8
    made, _ = run(
        tiny_model, tmp_path, recorded.correctness, kinds, max_steps=7, lr_scheduler_type="linear", min_valid_fraction=1
    )
    rates = [row["learning_rate"] for row in made.state.log_history if "learning_rate" in row]
    assert made.state.global_step == 7 and rates == pytest.approx([1e-2 * (1 - step / 7) for step in range(7)])
    last = [row for row in made.state.log_history if "sampling/prompts" in row][-1]
    assert last["sampling/rollout_batches"] == 4 == made.sampling.rollout_batches
    assert last["sampling/prompts"] == made.sampling.counts.sampled > 16
    assert last["sampling/epochs"] == made.sampling.sources[0].stream.position / 16


def test_one_epoch_is_as_many_steps_as_trls(tiny_model, tmp_path):
    made, _ = run(tiny_model, tmp_path, recorded.correctness, ["mixed", "wrong"] * 8, max_steps=-1, num_train_epochs=1)
    assert made.state.global_step == made.state.max_steps == 8  # 16 prompts, 4 to a rollout batch, 2 updates on each


def test_evaluation_in_between_changes_nothing(tiny_model, tmp_path):
    plain, _ = run(tiny_model, tmp_path, recorded.correctness, max_steps=6)
    args = config(
        tmp_path, steps_per_generation=2, max_steps=6, eval_strategy="steps", eval_steps=1, per_device_eval_batch_size=4
    )
    made = trainer(tiny_model, args, prompts_of(*["mixed"] * 4), eval_dataset=prompts_of("right", "wrong"))
    made.train()
    assert all(torch.equal(a, b) for a, b in zip(weights(plain).values(), weights(made).values(), strict=True))
    assert made.sampling.ledger.tokens == plain.sampling.ledger.tokens
    assert sum("eval_reward" in row for row in made.state.log_history) == 6


class Guessing:
    """An environment of TRL's own kind, whose tool a random model never calls."""

    def reset(self, **row):
        return None

    def guess(self, number: int) -> str:
        """Guess a number.

        Args:
            number: the guess
        """
        return "no"

    def get_reward(self) -> float:
        return 0.5


def lengths(completions, **_):
    return [len(str(completion)) / 100 for completion in completions]


class TestEnvironmentFactory:
    def made(self, folder, **changes):
        model = save_tiny_model(folder / "model", chat=True, context=4096)
        tokenizer = AutoTokenizer.from_pretrained(model)
        template = Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja"
        tokenizer.chat_template = template.read_text(encoding="utf-8")
        rows = Dataset.from_dict({"prompt": [[{"role": "user", "content": "hi"}]] * 8})
        args = config(folder, steps_per_generation=2, max_steps=4, **changes)
        return DAPOTrainer(
            model, lengths, args, rows, processing_class=tokenizer, environment_factory=Guessing
        )  # fmt: skip

    def test_works_without_the_filter(self, tmp_path):
        run = self.made(tmp_path, group_filter="none")
        run.train()
        last = run.state.log_history[2]
        assert run.state.global_step == 4 and last["sampling/rollout_batches"] == 2 and last["sampling/epochs"] == 1
        assert last["ledger/tokens"] == last["ledger/trained_tokens"] == 2 * 4 * 4 * 32

    def test_works_with_it(self, tmp_path):
        run = self.made(tmp_path)
        run.train()
        assert run.state.global_step == 4 and run.sampling.ledger.tokens["trained"] > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_selection": "best"}, "prompt_selection is 'best' .*: it must be one of uniform, predicted"),
        ({"surplus_max_age": -1}, "surplus_max_age is -1"),
        ({"surplus_max_age": 2.5}, "surplus_max_age is 2.5"),
        ({"max_round_sequences": 4}, "max_round_sequences is 4, less than the 8 completions"),
    ],
)
def test_bad_settings_are_named(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        config(tmp_path, **changes)
