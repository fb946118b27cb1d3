"""The trainer as a whole, on a tiny model: what reaches the loss, and that nothing depends on how it is cut."""

from __future__ import annotations

import functools

import pandas as pd
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from dapo_trl import DAPOConfig, DAPOTrainer
from dapo_trl.errors import ConfigError, NonFiniteError, RefillLimitError, RewardError
from dapo_trl.monitor.metrics import METRICS

from .support import recorded
from .support.recorded import config, one_step, prompts_of, trainer, weights
from .support.warm_start import CPU_2


def gap(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max((a[name] - b[name]).abs().max().item() for name in a)


def vowels(completions, **_):
    return [sum(c in "aeiou0123" for c in text) / max(len(text), 1) for text in completions]


SUMS = Dataset.from_dict({"prompt": [f"{i}+{i}=" for i in range(16)]})


class TestDropIn:
    """With DAPO's parts off, exactly what `GRPOTrainer` computes."""

    def twins(self, model, settings):
        """TRL's run, ours, and ours with prompts shared: sums are taken in another order then, which AdamW magnifies
        where a gradient is next to nothing."""
        off = {"group_filter": "none", "overlong_shape": "none"}
        theirs = GRPOTrainer(model, vowels, GRPOConfig(**settings), SUMS)
        theirs.train()
        found = [theirs]
        for share in ("off", "auto"):
            ours = DAPOTrainer(model, vowels, DAPOConfig(**settings, **off, share_prompts=share), SUMS)  # seeds anew
            ours.train()
            found.append(ours)
        return found

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("loss_type", "scale_rewards"),  # each scale with two losses: it makes the advantages, which no loss looks into
        [(loss, "group") for loss in ("dapo", "grpo", "dr_grpo", "cispo")]
        + [(loss, scale) for loss in ("dapo", "grpo") for scale in ("none", "batch")],
    )
    def test_one_optimizer_step_equals_trls(self, tiny_model, tmp_path, loss_type, scale_rewards):
        settings = {
            "output_dir": str(tmp_path),
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 4,
            "num_generations": 4,
            "max_completion_length": 12,
            "max_steps": 1,
            "learning_rate": 1e-3,
            "beta": 0.04,
            "loss_type": loss_type,
            "scale_rewards": scale_rewards,
            "epsilon_high": 0.28,
            "report_to": [],
            "logging_steps": 1,
            "save_strategy": "no",
            "gradient_checkpointing": False,
            "disable_tqdm": True,
            "bf16": False,
            "use_cpu": True,
        }
        theirs, ours, sharing = self.twins(tiny_model, settings)
        assert gap(weights(theirs), weights(ours)) < 1e-6 and gap(weights(theirs), weights(sharing)) < 1e-5
        for name in ("loss", "grad_norm", "reward", "reward_std", "entropy", "kl", "completions/mean_length"):
            expected, *logged = (float(run.state.log_history[0][name]) for run in (theirs, ours, sharing))
            assert logged == pytest.approx([expected] * 2, abs=1e-6), name

    def test_several_updates_per_rollout_follow_trl_too(self, tiny_model, tmp_path):
        """Mean-of-means does not depend on token counts, so TRL's average normaliser is exact there: a fair twin."""
        settings = {"output_dir": str(tmp_path), "per_device_train_batch_size": 8, "steps_per_generation": 4}
        settings |= {"num_generations": 4, "max_completion_length": 8, "max_steps": 6, "learning_rate": 1e-3}
        settings |= {
            "loss_type": "grpo",
            "epsilon_high": 0.28,
            "report_to": [],
            "save_strategy": "no",
            "beta": 0.0,
        }
        settings |= {"gradient_checkpointing": False, "disable_tqdm": True, "bf16": False, "use_cpu": True}
        settings |= {"scale_rewards": "group", "num_iterations": 1}
        theirs, ours, sharing = self.twins(tiny_model, settings)
        assert gap(weights(theirs), weights(ours)) < 1e-6 and gap(weights(theirs), weights(sharing)) < 1e-5

    def test_evaluation_neither_filters_nor_refills(self, tiny_model, tmp_path):
        args = config(tmp_path, per_device_eval_batch_size=8)
        run = trainer(tiny_model, args, prompts_of("mixed", "mixed"), eval_dataset=prompts_of("right", "wrong"))
        found = run.evaluate()
        assert found["eval_reward"] == pytest.approx(0.5, abs=0.2) and run.sampling.sources[0].stream.position == 0

    def test_a_plain_grpo_config_is_refused(self, tiny_model):
        with pytest.raises(ConfigError, match="args is a GRPOConfig"):
            DAPOTrainer(tiny_model, vowels, GRPOConfig(use_cpu=True, bf16=False), SUMS)


class TestTheUpdateDoesNotDependOnTheSplit:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("changes", "sizes", "refills"),
        [
            ({}, (1, 2, 8), 8),
            ({}, (1, 2, 8), 0),  # a batch that is not full
            ({"loss_type": "grpo"}, (1, 8), 8),
            ({"scale_rewards": "group"}, (1, 8), 8),
            ({"loss_type": "dr_grpo"}, (1, 8), 8),
            ({"loss_type": "cispo"}, (1, 8), 8),
            ({"loss_type": "grpo", "importance_sampling_level": "sequence"}, (1, 8), 8),
            ({"loss_type": "grpo", "importance_sampling_level": "sequence"}, (1, 8), 0),
        ],
        ids=str,
    )
    def test_microbatches_of_1_2_and_8_rows(self, tiny_model, tmp_path, changes, sizes, refills):
        runs = [one_step(tiny_model, tmp_path, size, max_refill_rounds=refills, **changes) for size in sizes]
        for run in runs[1:]:
            assert gap(weights(run), weights(runs[0])) < 1e-5
            exact = ["loss", "grad_norm"] + ([] if run.loss is None else ["entropy", "kl"])
            for name in exact:
                found, expected = (float(r.state.log_history[0][name]) for r in (run, runs[0]))
                assert found == pytest.approx(expected, rel=1e-4, abs=1e-5), name
        assert gap(weights(runs[0]), initial(tiny_model)) > 1e-4

    @pytest.mark.slow
    def test_one_and_two_processes(self, warm_start, tiny_model, tmp_path):
        """With refills. Without them, and with budgets: tests/update/test_microbatches.py."""
        alone = one_step(tiny_model, tmp_path, 2, max_refill_rounds=8)
        done = warm_start.run("tests.support.recorded", tiny_model, str(tmp_path), "2", "8", accelerate=CPU_2)
        assert done.returncode == 0, done.stderr[-3000:]
        found = torch.load(tmp_path / "found.pt", weights_only=True)
        assert found["processes"] == 2
        assert gap(found["weights"], weights(alone)) < 1e-5
        for name in ("entropy", "kl", "loss", "groups/kept", "groups/sampled", "sampling/refill_rounds"):
            assert float(found["logs"][name]) == pytest.approx(
                float(alone.state.log_history[0][name]), rel=1e-4, abs=1e-5
            ), name


def initial(model: str) -> dict[str, torch.Tensor]:
    from transformers import AutoModelForCausalLM

    return dict(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).named_parameters())


class Spy(DAPOTrainer):
    """Notes the rows of every log-prob forward pass."""

    def __init__(self, *args, **kwargs):
        self.seen: list[str] = []
        super().__init__(*args, **kwargs)
        for model in (self.model, self.ref_model):
            model.register_forward_pre_hook(self.note, with_kwargs=True)

    def note(self, model, args, kwargs):
        if kwargs.get("fused_lm_head"):
            self.seen += self.processing_class.batch_decode(kwargs["input_ids"], skip_special_tokens=True)


class TestDynamicSampling:
    def run(self, model, tmp_path, kinds, cls=Spy, **changes):
        args = config(tmp_path, **{"min_valid_fraction": 1.0, "steps_per_generation": 2, **changes})
        run = cls(
            model=model,
            reward_funcs=changes.pop("reward_funcs", recorded.correctness),
            args=args,
            train_dataset=prompts_of(*kinds),
            rollout_func=recorded.recorded_rollouts,
        )
        run.train()
        return run

    def test_only_mixed_groups_reach_the_loss_and_dropped_ones_cost_no_forward_pass(self, tiny_model, tmp_path):
        kinds = ["mixed", "right", "wrong", "mixed", "right", "mixed", "right", "mixed"]
        run = self.run(tiny_model, tmp_path, kinds, share_prompts="off")  # every row by itself, to be counted
        assert run.seen and all(text.startswith("mixed") for text in run.seen)
        # 4 groups of 4: old log-probs and reference once each, policy in the one update that was asked for (8 rows)
        assert len(run.seen) == 16 + 16 + 8
        logs = run.state.log_history[0]
        assert (logs["groups/sampled"], logs["groups/kept"]) == (8, 4)
        assert (logs["groups/all_right"], logs["groups/all_wrong"]) == (3, 1)
        assert logs["sampling/refill_rounds"] == 1 and logs["sampling/prompts"] == 8
        assert logs["accuracy/trained"] == 0.5
        assert logs["accuracy/sampled"] == pytest.approx((4 * 0.5 + 3 * 1.0) / 8)

    def test_the_filter_looks_at_accuracy_and_not_at_the_length_penalty(self, tiny_model, tmp_path):
        """All right, of very different lengths: the shaped rewards differ, the group is dropped all the same."""
        run = self.run(tiny_model, tmp_path, ["right"] * 4, overlong_max_length=2, max_refill_rounds=0)
        logs = run.state.log_history[0]
        assert logs["groups/all_right"] == 4 and logs["groups/kept"] == 0
        assert logs["reward/sampled"] < 0.99

    def test_the_penalty_does_enter_the_advantage(self, tiny_model, tmp_path):
        plain = self.run(tiny_model, tmp_path, ["mixed"] * 4, overlong_shape="none")
        shaped = self.run(tiny_model, tmp_path, ["mixed"] * 4, overlong_max_length=2)
        assert gap(weights(plain), weights(shaped)) > 1e-5

    def test_it_stops_at_the_wanted_fraction(self, tiny_model, tmp_path):
        kinds = ["mixed", "wrong", "mixed", "wrong", "mixed", "mixed"]
        logs = self.run(tiny_model, tmp_path, kinds, min_valid_fraction=0.5).state.log_history[0]
        assert (logs["groups/sampled"], logs["groups/kept"], logs["sampling/refill_rounds"]) == (4, 2, 0)

    def test_at_the_limit_it_trains_on_the_good_groups(self, tiny_model, tmp_path):
        run = self.run(tiny_model, tmp_path, ["mixed", "wrong", "wrong", "wrong"], max_refill_rounds=0)
        assert run.state.log_history[0]["groups/kept"] == 1
        assert run.seen and all(text.startswith("mixed") for text in run.seen)
        assert gap(weights(run), initial(tiny_model)) > 1e-6

    def test_at_the_limit_it_can_raise(self, tiny_model, tmp_path):
        with pytest.raises(RefillLimitError, match="1 of 4 groups are informative after 1 round"):
            self.run(
                tiny_model,
                tmp_path,
                ["mixed", "wrong", "wrong", "wrong"],
                max_refill_rounds=0,
                on_refill_limit="raise",
            )

    @pytest.mark.parametrize(("kind", "advice"), [("wrong", "too hard"), ("right", "solved at this difficulty")])
    def test_nothing_informative_leaves_the_weights_alone_and_says_why(
        self, tiny_model, tmp_path, caplog, kind, advice
    ):
        run = self.run(
            tiny_model,
            tmp_path,
            [kind] * 4,
            max_refill_rounds=1,
            max_steps=3,
            optim="adamw_torch",
            weight_decay=0.1,
        )
        assert gap(weights(run), initial(tiny_model)) == 0.0
        assert run.state.global_step == 3 and run.sampling.counts.kept == 0
        assert "nothing to learn from" in caplog.text and advice in caplog.text

    def test_masked_truncated_completions_stay_in_the_mean_and_out_of_the_loss(self, tiny_model, tmp_path):
        def all_truncated(prompts, trainer):
            found = recorded.recorded_rollouts(prompts, trainer)
            return {**found, "completion_ids": [ids[:-1] for ids in found["completion_ids"]]}

        args = config(tmp_path, mask_truncated_completions=True, steps_per_generation=2)
        run = trainer(tiny_model, args, prompts_of(*["mixed"] * 4), rollout_func=all_truncated)
        run.train()
        assert run.state.log_history[0]["groups/kept"] == 4
        assert gap(weights(run), initial(tiny_model)) == 0.0

    def test_a_reward_function_can_be_the_filter_key(self, tiny_model, tmp_path):
        def style(completions, **_):
            return [float(len(text)) for text in completions]

        args = config(tmp_path, steps_per_generation=2, max_refill_rounds=0, filter_key="correctness")
        run = trainer(
            tiny_model,
            args,
            prompts_of("right", "mixed", "wrong", "wrong"),
            reward_funcs=[recorded.correctness, style],
        )
        run.train()
        logged = run.state.log_history[0]
        assert logged["groups/kept"] == 1
        assert logged["accuracy/sampled"] == pytest.approx(3 / 8), "the key's column, not the sum of both rewards"
        assert logged["difficulty/solved"] == 0.25 and logged["reward/sampled"] > 1

    def test_an_unknown_filter_key_lists_the_known_ones(self, tiny_model, tmp_path):
        with pytest.raises(ConfigError, match="filter_key is 'acc': it must be one of accuracy, reward, correctness"):
            trainer(tiny_model, config(tmp_path, filter_key="acc"), prompts_of("mixed"))


class TestBadRewards:
    def run(self, model, tmp_path, function, kinds=("mixed", "mixed"), **changes):
        run = trainer(model, config(tmp_path, **changes), prompts_of(*kinds), reward_funcs=function)
        run.train()
        return run

    def test_none_instead_of_a_list(self, tiny_model, tmp_path):
        with pytest.raises(RewardError, match="reward function 'nothing' returned None: it must return a list of 8"):
            self.run(tiny_model, tmp_path, nothing)

    def test_too_few(self, tiny_model, tmp_path):
        with pytest.raises(RewardError, match="returned 1 rewards for 8 completions"):
            self.run(tiny_model, tmp_path, lambda completions, **_: [1.0])

    @pytest.mark.parametrize("value", [float("inf"), "1.0.0", [1.0]])
    def test_not_a_number(self, tiny_model, tmp_path, value):
        with pytest.raises(RewardError, match="for completion 0"):
            self.run(tiny_model, tmp_path, lambda completions, **_: [value] * len(completions))

    @pytest.mark.parametrize("value", [None, float("nan")])
    def test_nothing_scorable_at_all(self, tiny_model, tmp_path, value, caplog):
        with pytest.raises(RewardError, match=r"none of the 72 completions .* in 3 rollout batches in a row"):
            self.run(tiny_model, tmp_path, lambda completions, **_: [value] * len(completions), max_steps=3)
        assert "step 1: none of the 72 completions of this rollout batch could be scored" in caplog.text

    @pytest.mark.parametrize("rule", ["none", "zero_variance"])
    def test_a_judge_that_is_out_of_order_for_two_batches_does_not_end_the_run(self, tiny_model, tmp_path, rule):
        calls = []

        def at_times(prompts, completions, **_):
            calls.append(len(calls) % 3 == 2)
            return [float(text.startswith("R")) if calls[-1] else None for text in completions]

        run = self.run(
            tiny_model, tmp_path, at_times, max_steps=6, group_filter=rule, max_refill_rounds=0, learning_rate=0.1
        )
        assert run.state.global_step == len(calls) == 6 and run.sampling.ledger.tokens["trained"] > 0
        assert all(value.isfinite().all() for value in weights(run).values())

    @pytest.mark.parametrize("value", [None, float("nan")])
    def test_some_unscorable_completions_are_masked_and_counted(self, tiny_model, tmp_path, value):
        def partly(completions, **_):
            return [value if i % 4 == 3 else float(text.startswith("R")) for i, text in enumerate(completions)]

        run = self.run(tiny_model, tmp_path, partly)
        assert run.state.log_history[0]["sampling/unscorable"] == 0.25
        assert run.state.log_history[0]["groups/kept"] == 2


def nothing(completions, **_):
    return None


class TestLogging:
    def test_running_totals_are_not_averaged(self, tiny_model, tmp_path):
        args = config(tmp_path, max_steps=4, logging_steps=4)
        run = trainer(tiny_model, args, prompts_of("mixed", "wrong", "mixed"))
        run.train()
        logs = run.state.log_history[0]
        assert (
            logs["sampling/prompts"] == run.sampling.sources[0].selector.drawn
            and logs["sampling/epochs"] == run.sampling.sources[0].stream.epochs
        )
        assert logs["num_tokens"] == run.state.num_input_tokens_seen

    def test_every_metric_of_ours_is_documented(self, tiny_model, tmp_path):
        run = trainer(tiny_model, config(tmp_path, steps_per_generation=2), prompts_of(*["mixed"] * 4))
        run.train()
        theirs = {"loss", "grad_norm", "learning_rate", "epoch", "step", "num_tokens", "reward_std", "step_time"}
        theirs |= {"frac_reward_zero_std"}
        logged = {name for name in run.state.log_history[0] if not name.startswith("rewards/")}
        assert logged - theirs <= set(METRICS)

    def test_columns_and_metrics_logged_by_a_reward_function(self, tiny_model, tmp_path):
        """A column that only some calls log, with filtering and refills in between."""
        calls = []

        def talkative(prompts, completions, log_extra, log_metric, **_):
            calls.append(len(prompts))
            log_metric("length", 1.0)
            if len(calls) == 1:
                log_extra("note", [f"first {i}" for i in range(len(prompts))])
            return recorded.correctness(prompts, completions)

        args = config(tmp_path, min_valid_fraction=1.0, log_completions=True)
        run = trainer(tiny_model, args, prompts_of("mixed", "wrong", "mixed"), reward_funcs=talkative)
        run.train()
        table = pd.read_parquet(next((tmp_path / "completions").glob("*.parquet")))
        assert len(calls) == 2 and len(table) == 8
        assert sorted(note for note in table["note"] if isinstance(note, str)) == [f"first {i}" for i in range(4)]

    def test_coroutines_and_partials_keep_their_names(self, tiny_model, tmp_path):
        class Judge:
            async def __call__(self, prompts, completions, **_):
                return recorded.correctness(prompts, completions)

        functions = [Judge(), functools.partial(recorded.correctness)]
        run = trainer(tiny_model, config(tmp_path), prompts_of("mixed", "mixed"), reward_funcs=functions)
        run.train()
        assert run.reward_func_names[:2] == ["Judge", "correctness"]
        assert run.state.log_history[0]["accuracy/sampled"] == 1.0  # two functions, half right each


class PoisonGradients(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step == self.step:
            next(model.parameters()).register_hook(lambda gradient: gradient * float("nan"))


class PoisonWeights(TrainerCallback):
    def on_step_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step == 1:
            with torch.no_grad():
                next(model.parameters()).fill_(float("nan"))


class TestNonFinite:
    def test_a_nan_gradient_stops_before_the_update_and_saves_the_batch(self, tiny_model, tmp_path):
        args = config(tmp_path, max_steps=4, logging_nan_inf_filter=True)
        run = trainer(tiny_model, args, prompts_of(*["mixed"] * 8), callbacks=[PoisonGradients(2)])
        with pytest.raises(NonFiniteError, match="step 2: the loss is") as error:
            run.train()
        assert all(value.isfinite().all() for value in weights(run).values())
        saved = next(tmp_path.glob("non_finite_step_2_process_0.pt"))
        assert str(saved) in str(error.value)
        assert len(torch.load(saved, weights_only=True)["update"]["rows"]) == 8

    def test_weights_that_are_already_nan_are_named(self, tiny_model, tmp_path):
        args = config(tmp_path, max_steps=4)
        run = trainer(
            tiny_model,
            args,
            SUMS,
            rollout_func=None,
            reward_funcs=vowels,
            callbacks=[PoisonWeights()],
        )
        with pytest.raises(NonFiniteError, match="cannot generate"):
            run.train()


class TestResume:
    @pytest.mark.parametrize("stop", [2, 3])  # at the end of a rollout batch, and in the middle of one
    def test_a_resumed_run_ends_in_the_same_weights_bit_for_bit(self, tiny_model, tmp_path, stop):
        def run(folder, steps, **changes):
            args = config(
                folder,
                max_steps=6,
                steps_per_generation=2,
                save_strategy="steps",
                save_steps=stop,
                shuffle_dataset=True,
                optim="adamw_torch",
                learning_rate=1e-3,
            )
            made = trainer(tiny_model, args, SUMS, rollout_func=None, reward_funcs=vowels, **changes)
            made.train(resume_from_checkpoint=steps)
            return made

        whole = run(tmp_path / "whole", None)
        (tmp_path / "part").mkdir()
        (tmp_path / "whole" / f"checkpoint-{stop}").rename(tmp_path / "part" / f"checkpoint-{stop}")
        resumed = run(tmp_path / "part", str(tmp_path / "part" / f"checkpoint-{stop}"))
        assert gap(weights(whole), weights(resumed)) == 0.0
        assert resumed.sampling.sources[0].stream.position == whole.sampling.sources[0].stream.position > 0


def test_a_prompt_longer_than_the_context_is_named(tiny_model, tmp_path):
    long = Dataset.from_dict({"prompt": ["x" * 500] * 4})
    short = prompts_of("mixed")
    run = trainer(tiny_model, config(tmp_path), short, rollout_func=None, reward_funcs=vowels, eval_dataset=long)
    with pytest.raises(ConfigError, match=r"a prompt of 500 tokens \+ max_completion_length 32 = 532"):
        run.evaluate()


def test_lora_trains_the_adapter_alone_and_needs_no_second_model(tiny_model, tmp_path):
    run = trainer(
        tiny_model,
        config(tmp_path),
        prompts_of("mixed", "mixed"),
        peft_config=LoraConfig(r=2, task_type="CAUSAL_LM"),
    )
    assert run.ref_model is None and run.beta > 0
    before = weights(run)
    run.train()
    moved = {name for name, value in weights(run).items() if not torch.equal(value, before[name])}
    assert moved and all("lora_" in name for name in moved)


def test_the_warning_that_clip_higher_is_inert(tiny_model, tmp_path, caplog):
    trainer(tiny_model, config(tmp_path), prompts_of("mixed"))
    assert "clip-higher is inert" in caplog.text


def test_clip_higher_acts_with_several_updates_per_rollout(tiny_model, tmp_path):
    args = config(
        tmp_path, per_device_train_batch_size=4, steps_per_generation=4, max_steps=4, learning_rate=0.1, epsilon=0.01,
        epsilon_high=0.02,
    )  # fmt: skip
    run = trainer(tiny_model, args, prompts_of(*["mixed"] * 4))
    run.train()
    assert any(log.get("clip_ratio/high_mean", 0) > 0 for log in run.state.log_history[1:])


@pytest.mark.parametrize("level", ["sequence_product", "sequence"])
def test_sequence_level_ratios_train(tiny_model, tmp_path, level):
    args = config(tmp_path, importance_sampling_level=level, steps_per_generation=2, max_steps=2)
    run = trainer(tiny_model, args, prompts_of(*["mixed"] * 4))
    run.train()
    assert gap(weights(run), initial(tiny_model)) > 1e-6
