"""avg@k, its interval, and that measuring leaves the world as it was."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dapo_trl.environments import make_env
from dapo_trl.evaluation import Evaluation, evaluate, merge

NAN = float("nan")


def of(accuracy, levels=None):
    accuracy = np.array(accuracy, dtype=float)
    return Evaluation(
        accuracy=accuracy,
        lengths=np.ones_like(accuracy),
        truncated=np.zeros(accuracy.shape, dtype=bool),
        verdicts=Counter(correct=int(np.nansum(accuracy))),
        levels=levels or [None] * len(accuracy),
    )


def test_the_mean_is_over_problems_and_leaves_out_what_cannot_be_scored():
    assert of([[1, 0], [1, 1]]).mean == 0.75
    assert of([[1, NAN], [0, 0], [NAN, NAN]]).mean == 0.5
    nothing = of([[NAN]], levels=[1])
    assert np.isnan([nothing.mean, *nothing.interval(), nothing.by_level()[1]]).all()


def test_by_level():
    assert of([[1, 1], [0, 1], [0, 0]], levels=[2, 1, 1]).by_level() == {1: 0.25, 2: 1.0}


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Problems with pass rates of their own, 60 problems x 4 samples, 300 times over."""
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        rates = rng.beta(1, 1, size=60)
        low, high = of(rng.random((60, 4)) < rates[:, None]).interval(seed=trial, resamples=500)
        covered += low <= 0.5 <= high
    assert 0.90 <= covered / 300 <= 0.98


def test_the_interval_treats_problems_and_not_samples_as_independent():
    all_or_nothing = of(np.repeat(np.arange(40)[:, None] % 2, 8, axis=1))
    low, high = all_or_nothing.interval()
    assert high - low > 0.25  # 40 independent halves: +-0.155; 320 samples would give +-0.055


def test_merge():
    both = merge([of([[1, 1]], levels=[1]), of([[0, 0], [0, 1]], levels=[1, 2])])
    assert both.accuracy.shape == (3, 2) and both.levels == [1, 1, 2] and both.verdicts == Counter(correct=3)


def test_measuring_leaves_random_state_and_mode_alone_and_repeats_itself(tiny_chat_model):
    model = AutoModelForCausalLM.from_pretrained(tiny_chat_model, dtype=torch.float32).train()
    tokenizer = AutoTokenizer.from_pretrained(tiny_chat_model)
    env = make_env("math/Arithmetic-v0", split="test")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    progress = []
    found = [
        evaluate(
            model, tokenizer, env, range(5), k=2, max_completion_length=6, batch_size=4,
            on_batch=lambda *done: progress.append(done),
        )
        for _ in range(2)
    ]  # fmt: skip
    assert torch.equal(torch.rand(3), expected) and model.training
    assert np.array_equal(found[0].lengths, found[1].lengths)
    assert found[0].accuracy.shape == (5, 2) and progress[:3] == [(4, 10), (8, 10), (10, 10)]
    assert sum(found[0].verdicts.values()) == 10
    assert set(found[0].summary()) >= {"accuracy", "interval_95", "by_level", "verdicts", "truncated"}
