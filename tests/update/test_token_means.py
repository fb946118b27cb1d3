"""Means over tokens: the masked ones count for nothing, and a completion without tokens is left out."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator

from dapo_trl.update.token_means import TokenMeans


def test_a_mean_over_tokens_counts_the_active_ones_alone_over_all_microbatches():
    means = TokenMeans()
    means.add("entropy", torch.tensor([[2.0, 99.0], [4.0, 6.0]]), torch.tensor([[1, 0], [1, 1]]))
    means.add("entropy", torch.tensor([[8.0]]), torch.tensor([[1]]))
    assert means.drain(Accelerator(cpu=True)) == {"entropy": pytest.approx((2 + 4 + 6 + 8) / 4)}
    assert means.drain(Accelerator(cpu=True)) == {}


def test_one_value_for_a_completion_counts_once_and_only_where_it_has_tokens():
    means = TokenMeans()
    means.add("ratio", torch.tensor([[2.0], [4.0], [9.0]]), torch.tensor([[1, 0], [1, 1], [0, 0]]))
    assert means.drain(Accelerator(cpu=True)) == {"ratio": 3.0}
