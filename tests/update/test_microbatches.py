"""Microbatches of bounded tokens: the update does not depend on the budget, the layout, or memory running out."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig
from torch.nn.attention.flex_attention import flex_attention
from transformers import AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from dapo_trl.errors import ConfigError
from dapo_trl.update.batching import split_tokens
from dapo_trl.update.logprobs import can_pack, layout, per_token
from dapo_trl.update.memory_probe import largest_budget

from ..support import recorded
from ..support.recorded import UNEVEN, config, one_step, prompts_of, trainer, weights
from ..support.warm_start import CPU_2, FSDP2_CPU_2


def gap(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max((a[name] - b[name]).abs().max().item() for name in a)


class TestSplit:
    @given(
        lengths=st.lists(st.integers(1, 600), max_size=60), budget=st.integers(1, 3000), packed=st.booleans()
    )  # fmt: skip
    def test_every_row_once_within_the_budget_the_longest_first(self, lengths, budget, packed):
        passes = split_tokens(lengths, budget, packed=packed)
        assert sorted(row for rows in passes for row in rows) == list(range(len(lengths)))
        longest = [max(lengths[row] for row in rows) for rows in passes]
        assert longest == sorted(longest, reverse=True)
        for rows, width in zip(passes, longest, strict=True):
            tokens = sum(lengths[row] for row in rows) if packed else width * len(rows)
            assert len(rows) == 1 or tokens <= budget

    def test_most_of_what_is_computed_is_real(self):
        """The lengths of reasoning (lognormal, median 90), and the default budget of eight of the longest."""
        drawn = torch.distributions.LogNormal(torch.tensor(90.0).log(), 0.8).sample((64,))
        lengths = [64 + min(int(length) + 1, 512) for length in drawn.tolist()]
        passes = split_tokens(lengths, 8 * max(lengths))
        computed = sum(len(rows) * max(lengths[row] for row in rows) for rows in passes)
        assert sum(lengths) / computed > 0.92 and len(passes) <= 16


def fused(folder: str, attention: str = "sdpa"):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention)
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    return model


def plainly(model, sequence: np.ndarray, scored: int) -> torch.Tensor:
    """Log-probabilities of the last ``scored`` tokens of one sequence, by itself, from its logits."""
    logits = torch.log_softmax(model(input_ids=torch.from_numpy(sequence)[None]).logits[0], dim=-1)
    first = len(sequence) - scored
    return torch.stack([logits[p - 1, sequence[p]] for p in range(first, len(sequence))]) if scored else torch.empty(0)


SEQUENCES = [np.random.default_rng(n).integers(3, 200, n) for n in (9, 30, 17, 4)]
SCORED = [5, 20, 0, 3]


class TestLayout:
    @pytest.fixture(autouse=True)
    def uncompiled(self, monkeypatch):
        """FlexAttention as Python computes it: the masks are tested here, not the compiler."""

        def plain(query, key, value, training=False, **options):
            return flex_attention(query, key, value, **options)

        monkeypatch.setattr("transformers.integrations.flex_attention.compile_friendly_flex_attention", plain)

    @pytest.mark.parametrize("attention", ["sdpa", "flex_attention"])
    @pytest.mark.parametrize("packed", [False, True])
    @torch.no_grad()
    def test_each_sequence_as_by_itself(self, tiny_model, attention, packed):
        model = fused(tiny_model, attention)
        logps, entropies = per_token(model, layout(SEQUENCES, SCORED, 20, pad_token_id=0, packed=packed))
        for row, sequence, scored in zip(logps, SEQUENCES, SCORED, strict=True):
            assert torch.allclose(row[:scored].double(), plainly(model, sequence, scored).double(), atol=1e-5)
            assert (row[scored:] == 0).all()
        assert entropies is not None and (entropies[1] > 0).all() and (entropies[2] == 0).all()

    @pytest.mark.parametrize("attention", ["sdpa", "flex_attention"])
    @pytest.mark.parametrize("packed", [False, True])
    @torch.no_grad()
    def test_no_cross_talk(self, tiny_model, attention, packed):
        """Another sequence in the second place leaves the others' log-probabilities as they were."""
        model = fused(tiny_model, attention)
        others = [SEQUENCES[0], (SEQUENCES[1] + 1) % 200, *SEQUENCES[2:]]
        before, after = (
            per_token(model, layout(sequences, SCORED, 20, pad_token_id=0, packed=packed))[0]
            for sequences in (SEQUENCES, others)
        )
        assert torch.equal(before[[0, 2, 3]], after[[0, 2, 3]]) and not torch.equal(before[1], after[1])

    def test_packing_needs_a_backend_for_it(self, tiny_model):
        config = fused(tiny_model).config
        assert not can_pack(config)
        for name, able in (("flex_attention", True), ("flash_attention_2", True), ("eager", False)):
            config._attn_implementation = name
            assert can_pack(config) == able
        config.layer_types = ["full_attention", "linear_attention"]
        assert not can_pack(config)


ADAPTER = LoraConfig(r=2, task_type="CAUSAL_LM", init_lora_weights=False)
DORA = LoraConfig(r=2, task_type="CAUSAL_LM", init_lora_weights=False, use_dora=True)


@pytest.fixture(scope="module")
def alone(tiny_model, tmp_path_factory):
    """Without a refill two groups are left, so two processes have other lengths and other numbers of passes."""
    return one_step(tiny_model, tmp_path_factory.mktemp("alone"), 2, max_refill_rounds=0)


class TestTheUpdateDoesNotDependOnTheBudget:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("changes", "adapter", "budgets"),
        [
            ({}, None, [20, 90, 10_000]),
            ({}, ADAPTER, [20, 90, 10_000]),
            ({"loss_type": "cispo"}, None, [20, 10_000]),
            ({"loss_type": "cispo"}, ADAPTER, [20, 10_000]),  # an adapter changes nothing in how a loss is averaged
            ({"loss_type": "grpo"}, None, [20, 10_000]),
            ({"loss_type": "dr_grpo"}, None, [20, 10_000]),
            ({"entropy_coef": 0.5}, None, [20, 10_000]),
        ],
        ids=lambda value: "adapter" if value is ADAPTER else str(value),
    )
    def test_one_process(self, tiny_model, tmp_path, changes, adapter, budgets):
        runs = []
        for budget in budgets:
            torch.manual_seed(0)
            runs.append(one_step(tiny_model, tmp_path, 2, microbatch_tokens=budget, peft=adapter, **changes))
        for run in runs[1:]:
            assert gap(weights(run), weights(runs[0])) < 1e-5
        for name in ["loss", "grad_norm"] + (["entropy", "kl"] if runs[0].loss is not None else []):
            found = [float(run.state.log_history[0][name]) for run in runs]
            assert found == pytest.approx([found[0]] * len(runs), rel=1e-4, abs=1e-5), name

    def test_any_order(self, tiny_model, tmp_path):
        """The seed shuffles the rows of the step, and nothing else here."""
        runs = [one_step(tiny_model, tmp_path, 2, microbatch_tokens=90, seed=seed) for seed in (1, 2, 3)]
        orders = [[tuple(row.completion_ids.tolist()) for row in run._steps[0].rows] for run in runs]
        assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])
        assert all(gap(weights(run), weights(runs[0])) < 1e-5 for run in runs[1:])

    def test_packed(self, tiny_model, tmp_path, monkeypatch):
        """Kept apart by position ids alone (here by the mask that transformers makes of them for sdpa)."""
        plain = one_step(tiny_model, tmp_path, 2)
        monkeypatch.setattr("dapo_trl.update.packing.can_pack", lambda config: True)
        packed = one_step(tiny_model, tmp_path, 2, microbatch_tokens=90, share_prompts="off")
        assert packed.microbatches.packer.packed and gap(weights(plain), weights(packed)) < 1e-5

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("kind", "accelerate", "budget"),
        [("MULTI_CPU", CPU_2, 20), ("MULTI_CPU", CPU_2, 90), ("FSDP", FSDP2_CPU_2, 90)],
        ids=["ddp-20", "ddp-90", "fsdp2-90"],
    )
    def test_two_processes(self, warm_start, alone, tiny_model, tmp_path, kind, accelerate, budget):
        arguments = [tiny_model, str(tmp_path), "2", "0", str(budget)]
        done = warm_start.run("tests.support.recorded", *arguments, accelerate=accelerate)
        assert done.returncode == 0, done.stderr[-3000:]
        found = torch.load(tmp_path / "found.pt", weights_only=True)
        assert found["processes"] == 2 and found["kind"] == kind
        assert float(found["logs"]["update/shared_tokens"]) > 0.1 or budget == 20  # in which no two rows fit
        assert gap(found["weights"], weights(alone)) < 1e-5
        for name in ("entropy", "kl", "loss"):
            expected = float(alone.state.log_history[0][name])
            assert float(found["logs"][name]) == pytest.approx(expected, rel=1e-4, abs=1e-5), name


def with_foreign_tokens(prompts, trainer):
    """Every third token of a completion is not the model's own."""
    found = recorded.recorded_rollouts(prompts, trainer)
    return {**found, "env_mask": [[int(i % 3 != 1) for i in range(len(ids))] for ids in found["completion_ids"]]}


def some_truncated(prompts, trainer):
    found = recorded.recorded_rollouts(prompts, trainer)
    return {**found, "completion_ids": [ids[: -(i % 2)] or ids for i, ids in enumerate(found["completion_ids"])]}


class TestSharedPrompts:
    """The update is that of separate prompts, and fewer tokens are computed."""

    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"microbatch_tokens": 40},
            {"peft": ADAPTER},
            {"peft": DORA},
            {"gradient_checkpointing": True},
            {"num_iterations": 2, "max_steps": 2},
            {"loss_type": "cispo"},
            {"loss_type": "cispo", "gradient_checkpointing": True},
            {"group_filter": "none", "num_iterations": 2, "max_steps": 2},
            {"mask_truncated_completions": True, "rollout_func": some_truncated},
            {"rollout_func": with_foreign_tokens},
        ],
        ids=lambda changes: ", ".join(name for name in changes) + (" DoRA" if changes.get("peft") is DORA else ""),
    )
    def test_the_update_is_the_same(self, tiny_model, tmp_path, changes):
        runs = []
        for share in ("off", "auto"):
            torch.manual_seed(0)
            runs.append(one_step(tiny_model, tmp_path, 8, share_prompts=share, **changes))
        separate, shared = runs
        assert separate.microbatches.shared_tokens == 0.0 and shared.microbatches.shared_tokens > 0.1
        assert gap(weights(separate), weights(shared)) < 1e-5
        for name in ["loss", "grad_norm"] + (["entropy", "kl"] if shared.loss is not None else []):
            found = [float(run.state.log_history[-2][name]) for run in runs]
            assert found[1] == pytest.approx(found[0], rel=1e-4, abs=1e-5), name

    def test_what_is_saved_is_logged(self, tiny_model, tmp_path):
        """Four prompts of 7 tokens, 4 completions each: all but the last token of a prompt are there once."""
        run = one_step(tiny_model, tmp_path, 8)
        rows = run._steps[0].rows
        separate = sum(row.length - 1 for row in rows)
        assert len(rows) == 16 and 12 * 6 / separate <= run.state.log_history[0]["update/shared_tokens"] < 0.6

    def test_groups_are_whole_in_a_microbatch(self, tiny_model, tmp_path):
        run = one_step(tiny_model, tmp_path, 8)
        step = run._steps[0]
        for lines in run.microbatches.microbatches(step):
            assert all(len(line.rows) == recorded.GROUP and line.shared >= 6 for line in lines)
            batch = run.microbatches.microbatch(step, lines)
            assert batch.layout.inputs["input_ids"].numel() == sum(line.tokens for line in lines) <= step.budget

    @pytest.mark.parametrize(
        ("changes", "line"),
        [
            ({"neftune_noise_alpha": 5.0}, "neftune_noise_alpha is set"),
            ({}, "dropout would be the same for all members"),
        ],
    )
    def test_where_it_cannot_be_a_line_gives_the_reason(self, tiny_model, tmp_path, caplog, changes, line):
        model = AutoModelForCausalLM.from_pretrained(tiny_model, attention_dropout=0.0 if changes else 0.1)
        run = trainer(model, config(tmp_path, beta=0.0, **changes), prompts_of(*UNEVEN))
        assert "every completion is computed with a prompt of its own, because" in caplog.text and line in caplog.text
        run.train()
        assert run.state.log_history[0]["update/shared_tokens"] == 0.0

    def test_a_reference_model_with_another_attention_has_its_own_layout(self, tiny_model, tmp_path):
        def logged(backend):
            run = trainer(tiny_model, config(tmp_path), prompts_of(*UNEVEN))
            run.ref_model.set_attn_implementation(backend)
            with torch.no_grad():
                run.ref_model.lm_head.weight.mul_(3.0)
            run.train()
            return float(run.state.log_history[0]["kl"])

        assert logged("eager") == pytest.approx(logged("sdpa"), rel=1e-4) and logged("sdpa") > 0.1


def short_of_memory(model, folder, holds, **changes):
    """A run on a device that holds so many tokens at once."""
    run = trainer(
        model, config(folder, **{"microbatch_tokens": 400, "learning_rate": 1.0, **changes}), prompts_of(*UNEVEN)
    )
    backward, seen = run.backward, []

    def limited(model, batch):
        loss = backward(model, batch)  # the gradient is there when memory runs out: it must not count twice
        seen.append(batch.layout.inputs["input_ids"].numel())
        if seen[-1] > holds:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return loss

    run.backward = limited
    run.train()
    return run, seen


class TestOutOfMemory:
    def test_the_same_rows_are_done_again_with_half_the_budget(self, tiny_model, tmp_path, caplog):
        plain = trainer(
            tiny_model, config(tmp_path, microbatch_tokens=400, learning_rate=1.0), prompts_of(*UNEVEN)
        )  # fmt: skip
        plain.train()
        run, seen = short_of_memory(tiny_model, tmp_path, holds=60)
        assert max(seen) > 60 and run.microbatches.limit <= 100
        assert gap(weights(run), weights(plain)) < 1e-5
        assert run.state.log_history[0]["entropy"] == pytest.approx(plain.state.log_history[0]["entropy"], rel=1e-5)
        assert "out of memory with 400 tokens in a microbatch. The step is done again with 200" in caplog.text

    def test_the_smaller_budget_stays_and_does_not_shrink_on(self, tiny_model, tmp_path):
        """Four updates were prepared with the old budget: what one of them learnt holds for the others."""
        run, seen = short_of_memory(
            tiny_model,
            tmp_path,
            holds=40,
            max_steps=12,
            per_device_train_batch_size=4,
            steps_per_generation=4,
            learning_rate=1e-2,
        )
        assert run.microbatches.limit in (25, 50) and run.state.global_step == 12
        assert 1 <= sum(tokens > 40 for tokens in seen) <= 4  # each size is tried once, not once per update

    def test_what_the_failed_pass_held_is_free_at_the_retry(self, tiny_model, tmp_path):
        run = trainer(tiny_model, config(tmp_path, microbatch_tokens=400), prompts_of(*UNEVEN))
        backward, held = run.backward, []

        class Activation:
            pass

        def limited(model, batch):
            assert not held or held[0]() is None
            if not held:
                activation = Activation()
                held.append(weakref.ref(activation))
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return backward(model, batch)

        run.backward = limited
        run.train()
        assert held and run.state.global_step == 1

    def test_not_even_one_completion_fits(self, tiny_model, tmp_path):
        with pytest.raises(ConfigError, match="out of memory with a single completion"):
            short_of_memory(tiny_model, tmp_path, holds=5)


class TestAutomaticBudget:
    @given(
        base=st.integers(0, 500), each=st.integers(1, 50), capacity=st.integers(1, 2000), most=st.integers(1, 200)
    )  # fmt: skip
    def test_as_many_rows_as_fit(self, base, each, capacity, most):
        asked = []

        def measure(rows):
            asked.append(rows)
            return base + each * rows if base + each * rows <= capacity * 1.05 else None

        found = largest_budget(measure, row=7, most_rows=most, capacity=capacity)
        fits = min(max((capacity - base) // each, 1), max(most, 1))
        assert found == 7 * fits or (fits < 2 and found in (7, 14))
        assert all(rows <= max(fits, 2) for rows in asked)  # what cannot fit is never tried

    def test_memory_that_grows_faster_than_foretold(self):
        def measure(rows):
            return rows**2

        found = largest_budget(measure, row=10, most_rows=100, capacity=900)
        assert 20 <= found // 10 <= 30 and measure(found // 10) <= 900

    def test_on_a_cpu_it_is_the_default(self, tiny_model, tmp_path):
        run = one_step(tiny_model, tmp_path, 2, microbatch_tokens="auto")
        assert gap(weights(run), weights(one_step(tiny_model, tmp_path, 2))) == 0.0


def test_gradient_checkpointing_and_several_updates(tiny_model, tmp_path):
    changes = {"steps_per_generation": 2, "max_steps": 4, "num_iterations": 2, "learning_rate": 1e-2}
    runs = []
    for budget, checkpointing in ((None, False), (60, True)):
        args = config(
            tmp_path, microbatch_tokens=budget, gradient_checkpointing=checkpointing, **changes
        )  # fmt: skip
        run = trainer(tiny_model, args, prompts_of(*UNEVEN))
        run.train()
        runs.append(weights(run))
    assert gap(*runs) < 1e-5


@pytest.mark.parametrize("value", [0, -3, 2.5, "many", True])
def test_a_bad_budget_is_named(tmp_path, value):
    with pytest.raises(ConfigError, match="microbatch_tokens is"):
        config(tmp_path, microbatch_tokens=value)


def test_completions_without_tokens_in_the_loss_are_no_empty_pass(tiny_model, tmp_path):
    def one_truncated(prompts, trainer):
        found = recorded.recorded_rollouts(prompts, trainer)
        return {**found, "completion_ids": [ids[:-1] if i else ids for i, ids in enumerate(found["completion_ids"])]}

    args = config(tmp_path, mask_truncated_completions=True, microbatch_tokens=30)
    run = trainer(tiny_model, args, prompts_of(*["mixed"] * 2), rollout_func=one_truncated)
    run.train()
    assert run.state.log_history[0]["grad_norm"] > 0
