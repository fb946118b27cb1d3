"""Does it learn? The shipped model, for real, in less than a minute."""

from __future__ import annotations

import pytest

from dapo_trl import DAPOTrainer
from dapo_trl.evaluation import Sampling, evaluate
from dapo_trl.rollout.environments import make_env

from .conftest import SHIPPED_MODEL
from .support.recorded import config


@pytest.mark.slow
def test_accuracy_rises_on_problems_that_were_never_trained_on(tmp_path):
    args = config(
        tmp_path,
        per_device_train_batch_size=16,
        steps_per_generation=4,
        num_generations=8,
        max_completion_length=64,
        overlong_max_length=60,
        max_steps=48,
        learning_rate=3e-4,
        max_grad_norm=1.0,
        optim="adamw_torch",
        beta=0.01,
    )
    run = DAPOTrainer(model=str(SHIPPED_MODEL), args=args, env=make_env("math/Arithmetic-v0", levels=2))
    held_out = make_env("math/Arithmetic-v0", levels=2, split="test")

    def accuracy():
        sampling = Sampling(top_p=1.0, max_completion_length=64)
        found = evaluate(run.model, run.processing_class, held_out, range(60), k=4, sampling=sampling)
        return found.mean

    before = accuracy()
    run.train()
    after = accuracy()
    # One standard error of either measurement is below 0.04: a rise of 0.15 is no accident.
    assert after > before + 0.15, (before, after)
    clipped = [log["clip_ratio/region_mean"] for log in run.state.log_history if "clip_ratio/region_mean" in log]
    assert max(clipped) > 0  # clip-higher had something to do
    assert run.sampling.counts.kept < run.sampling.counts.sampled  # and so had dynamic sampling
