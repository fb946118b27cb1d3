"""Rollout batches from fresh and kept groups: the right log-probabilities, equal shares, any processes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trl import GRPOConfig, GRPOTrainer

from dapo_trl import DAPOTrainer
from dapo_trl.rollout.types import Rollout
from dapo_trl.update.schedule import shares

from ..support import recorded
from ..support.recorded import GROUP, config, prompts_of, trainer
from ..support.warm_start import CPU_2


@given(
    tokens=st.lists(st.integers(0, 500), max_size=80),
    size=st.integers(1, 9),
    updates=st.integers(1, 5),
    processes=st.integers(1, 4),
    seed=st.integers(0, 9),
)
def test_every_row_is_trained_on_once_and_no_process_has_more_to_do(tokens, size, updates, processes, seed):
    groups = [row // size for row in range(len(tokens))]
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(seed)).tolist()
    plan = shares(tokens, groups, order, updates, processes)
    assert sorted(row for process in plan for update in process for row in update) == list(range(len(tokens)))
    for step in range(updates):
        rows = [process[step] for process in plan]
        assert max(map(len, rows)) - min(map(len, rows)) <= 1
        alone = shares(tokens, groups, order, updates, 1)[0][step]
        assert sorted(alone) == sorted(row for share in rows for row in share)  # the step does not depend on processes


@pytest.mark.parametrize("group_filter", ["zero_variance", "none"])
def test_optimizer_steps_hold_whole_groups_and_without_a_filter_trls_rows(tiny_model, tmp_path, group_filter):
    args = config(tmp_path, steps_per_generation=3, min_valid_fraction=1.0, group_filter=group_filter, max_steps=3)
    run = trainer(tiny_model, args, prompts_of(*["mixed"] * 6))
    run.train()
    prompts = [[tuple(row.prompt_ids.tolist()) for row in step.rows] for step in run._steps]
    assert [len(step) for step in prompts] == [8, 8, 8]
    whole = all(step.count(prompt) == GROUP for step in prompts for prompt in step)
    assert whole == (group_filter != "none")


class Assembling(DAPOTrainer):
    """Notes what each rollout batch was put together from, and takes no update in between that it is not told to."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.batches = []

    def _filtered(self):
        collected = self._collector.fill()
        schedule = self._scheduler.schedule(collected)
        self.batches.append((collected, schedule.steps))
        return schedule


def surplus_run(model, folder, **changes) -> Assembling:
    """Half of the groups are informative, so that rounds asked for by that measure leave some over."""
    args = config(
        folder,
        **{
            "per_device_train_batch_size": 4,
            "steps_per_generation": 4,
            "max_round_sequences": 48,
            "min_valid_fraction": 1.0,
            "max_steps": 24,
            "learning_rate": 0.05,
            "shuffle_dataset": True,
            **changes,
        },
    )
    run = Assembling(
        model=model,
        reward_funcs=recorded.correctness,
        args=args,
        train_dataset=prompts_of(*["mixed", "wrong", "mixed", "right"] * 10),
        rollout_func=recorded.recorded_rollouts,
    )
    run.train()
    return run


class TestSurplus:
    @pytest.fixture(scope="class")
    def run(self, tiny_model, tmp_path_factory):
        return surplus_run(tiny_model, tmp_path_factory.mktemp("surplus"))

    def test_surplus_is_used_in_the_next_batch(self, run):
        before = 0
        for collected, _ in run.batches:
            assert len(collected.kept) == before
            assert len(collected.kept) + len(collected.fresh) == run.args.groups_per_rollout
            before = len(collected.surplus)
        assert any(collected.kept for collected, _ in run.batches)

    def test_kept_groups_carry_the_log_probs_of_the_policy_that_sampled_them(self, run):
        """The same completions as fresh ones: the tensors kept is what was computed when they were sampled."""
        checked = 0
        for (earlier, _), (later, rows) in zip(run.batches, run.batches[1:], strict=False):
            for group in later.kept:
                assert group.step < run.args.updates_per_rollout * len(run.batches)
                for banked in group.rows:
                    names = ("prompt_ids", "completion_ids", "old_logps", "ref_logps")
                    assert any(
                        all(torch.equal(getattr(row, name), getattr(banked, name)) for name in names)
                        for update in rows
                        for row in update
                    )
                    checked += 1
            assert [group.tokens for group in later.kept] == [group.tokens for group in earlier.surplus]
        assert checked

    def test_the_ratio_of_a_kept_group_is_not_one(self, run):
        """The policy has moved since (learning rate 0.05), and the importance ratio knows."""
        collected, rows = next((c, r) for c, r in run.batches if c.kept)
        fresh_prompts = {tuple(rollout.prompt_ids) for group in collected.fresh for rollout in group.rollouts}
        row = next(row for update in rows for row in update if tuple(row.prompt_ids.tolist()) not in fresh_prompts)
        logps, _, _ = run._get_per_token_logps_and_entropies(
            run.model,
            torch.cat([row.prompt_ids, row.completion_ids])[None],
            torch.ones(1, row.length, dtype=torch.long),
            len(row.completion_ids),
        )
        assert (logps[0] - row.old_logps).abs().max() > 1e-4

    def test_the_ledger_sums_to_what_was_generated(self, run):
        logs = [row for row in run.state.log_history if "ledger/tokens" in row]
        generated = 0.0
        for row in logs:
            generated += row.get("completions/mean_length", 0) * row["groups/sampled"] * GROUP
            accounts = [value for name, value in row.items() if name.startswith("ledger/") and name.endswith("_tokens")]
            assert sum(accounts) == row["ledger/tokens"] == pytest.approx(generated, abs=0.01)
        last = logs[-1]
        assert last["ledger/trained_tokens"] > 0 and last["ledger/all_wrong_tokens"] > 0
        banked = sum(sum(group.tokens) for group in run.sampling.sources[0].surplus.groups)
        assert run.sampling.ledger.tokens["surplus_kept"] == banked

    def test_without_a_buffer_the_surplus_is_accounted_for(self, tiny_model, tmp_path):
        run = surplus_run(tiny_model, tmp_path, surplus_max_age=0)
        assert not any(collected.kept or collected.surplus for collected, _ in run.batches)
        assert run.sampling.ledger.tokens["surplus_kept"] == 0

    def test_on_policy_updates_need_log_probs_too_once_there_is_a_surplus(self, tiny_model, tmp_path):
        run = surplus_run(tiny_model, tmp_path, per_device_train_batch_size=16, steps_per_generation=1, max_steps=6)
        assert any(collected.kept for collected, _ in run.batches)
        for collected, rows in run.batches:
            needed = bool(collected.kept or collected.surplus)
            assert all((row.old_logps is not None) == needed for update in rows for row in update)


def test_a_completion_that_the_ledger_calls_truncated_or_unscorable_adds_nothing_to_the_loss(tiny_model, tmp_path):
    """Also one whose last token ends a turn: its episode had no room for the reply. TRL itself would train on it."""
    run = trainer(tiny_model, config(tmp_path, beta=0.0, mask_truncated_completions=True), prompts_of("mixed"))
    tokenizer = run.processing_class
    ids = [*tokenizer("R..")["input_ids"], tokenizer.eos_token_id]
    rollouts = [
        Rollout(
            row={"prompt": "mixed 0"},
            prompt="mixed 0",
            completion="R..",
            prompt_ids=np.array(tokenizer("mixed 0")["input_ids"]),
            completion_ids=np.array(ids),
            order=place,
            tokens=len(ids),
            account=account,
            rewards=[float(place), 0.0],
        )
        for place, account in enumerate(["trained", "truncated", "unscorable", "trained"])
    ]
    rewards = torch.tensor([rollout.rewards for rollout in rollouts])
    run.model.train()
    rows = run._score_rollouts(rollouts, rewards, [0, 1, 2, 3], False)
    assert [int(row.loss_mask.sum()) for row in rows] == [len(ids), 0, 0, len(ids)]


@pytest.mark.parametrize("aggregation", ["sum_then_normalize", "normalize_then_sum"])
def test_several_rewards_give_trls_advantages(tiny_model, tmp_path, aggregation):
    def length(completions, **_):
        return [float(len(text)) for text in completions]

    settings = {"multi_objective_aggregation": aggregation, "reward_weights": [1.0, 0.3], "scale_rewards": "group"}
    args = config(tmp_path, overlong_shape="none", group_filter="none", **settings)
    run = trainer(tiny_model, args, prompts_of("mixed", "right"), reward_funcs=[recorded.correctness, length])
    rewards = torch.rand(8, 2)
    rewards[3] = torch.nan
    rewards[5, 1] = torch.nan
    plain = GRPOConfig(
        str(tmp_path), per_device_train_batch_size=8, num_generations=GROUP, bf16=False, use_cpu=True, report_to=[],
        **settings,
    )  # fmt: skip
    theirs = GRPOTrainer(
        tiny_model, [recorded.correctness, length], plain, prompts_of("mixed", "right"),
        rollout_func=recorded.recorded_rollouts,
    )  # fmt: skip
    theirs._calculate_rewards = lambda *_: rewards
    found = theirs._generate_and_score_completions([{"prompt": "mixed 0"}] * 4 + [{"prompt": "right 1"}] * 4)
    assert torch.allclose(run.advantages_of(rewards), found["advantages"], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("generations", "rows", "steps"),
    [(4, 2, 4), (8, 4, 2), (6, 3, 6)],
    ids=["whole groups", "a group on both processes", "odd, over several microbatches"],
)
def test_unequal_luck_on_two_processes_ends_in_the_weights_of_one(
    warm_start, tiny_model, tmp_path, generations, rows, steps
):
    """All the informative groups fall to one process; the other has as much to train on all the same."""
    found = []
    for processes, accelerate in ((1, None), (2, CPU_2)):
        folder = tmp_path / str(processes)
        folder.mkdir()
        numbers = (generations, rows * 2 // processes, steps)
        arguments = [tiny_model, str(folder), *map(str, numbers)]
        done = warm_start.run("tests.support.uneven_run", *arguments, accelerate=accelerate)
        assert done.returncode == 0, done.stderr[-3000:]
        found.append(torch.load(folder / "found.pt", weights_only=True))
    one, two = found
    assert (one["processes"], two["processes"]) == (1, 2)
    assert one["counts"] == two["counts"] and one["tokens"] == two["tokens"]
    assert max((one["weights"][name] - two["weights"][name]).abs().max() for name in one["weights"]) < 1e-5
    assert abs(two["rows"][0] - two["rows"][1]) <= two["updates"]
    assert abs(two["row_tokens"][0] - two["row_tokens"][1]) <= 0.2 * sum(two["row_tokens"])
