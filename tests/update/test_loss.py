"""The loss of a microbatch: the settings reach it, and it is the sum of its parts however the batch is cut."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dapo_trl.errors import ConfigError
from dapo_trl.update.batching import Microbatch
from dapo_trl.update.loss import DAPOLoss, Loss, make_loss

from ..support.recorded import config


def batch(ratios, advantages, **changes) -> tuple[Microbatch, torch.Tensor]:
    """A microbatch whose tokens have these importance ratios, and the log-probabilities that give them."""
    ratios = torch.tensor(ratios)
    ids, ones = torch.zeros_like(ratios, dtype=torch.long), torch.ones_like(ratios, dtype=torch.long)
    parts = {"prompt_ids": ids, "prompt_mask": ones, "completion_ids": ids, "completion_mask": ones}
    return Microbatch(
        **parts, advantages=torch.tensor(advantages), old_logps=torch.zeros_like(ratios), **changes
    ), ratios.log()


def loss(tmp_path, ratio: float, advantage: float, **settings) -> float:
    at_work = DAPOLoss(config(tmp_path, beta=0.0, **settings))
    return at_work(*batch([[ratio]], [advantage]), None, processes=1)[0].item()


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [(1.25, 1.0, -1.25), (1.3, 1.0, -1.28), (0.75, 1.0, -0.75), (0.75, -1.0, 0.8), (0.85, -1.0, 0.85)],
)
def test_both_bounds_are_those_of_the_settings(tmp_path, ratio, advantage, expected):
    assert loss(tmp_path, ratio, advantage, epsilon=0.2, epsilon_high=0.28) == pytest.approx(expected)


def test_without_an_upper_bound_of_its_own_the_clip_is_symmetric(tmp_path):
    assert loss(tmp_path, 1.25, 1.0, epsilon=0.2, epsilon_high=None) == pytest.approx(-1.2)


def test_the_parts_of_a_step_sum_to_the_whole(tmp_path):
    at_work = DAPOLoss(config(tmp_path, beta=0.0))
    whole, logps = batch([[1.0, 1.1], [0.9, 1.2]], [1.0, -0.5], step_tokens=4, step_rows=2)
    parts = [
        replace(
            whole,
            **{
                name: getattr(whole, name)[row : row + 1]
                for name in (
                    "prompt_ids",
                    "prompt_mask",
                    "completion_ids",
                    "completion_mask",
                    "advantages",
                    "old_logps",
                )
            },
        )
        for row in range(2)
    ]
    found = sum(at_work(part, logps[row : row + 1], None, processes=1)[0] for row, part in enumerate(parts))
    assert found.item() == pytest.approx(at_work(whole, logps, None, processes=1)[0].item())
    assert at_work(whole, logps, None, processes=2)[0].item() == pytest.approx(2 * found.item())


class Constant(Loss):
    """Seven for every token."""

    def per_token(self, batch, logps, entropies):
        return 0 * logps + 7, {}


def test_a_loss_of_ones_own_is_taken_by_its_name(tmp_path):
    made = make_loss(config(tmp_path, loss_type=f"{__name__}:Constant"), has_auxiliary_loss=False)
    assert isinstance(made, Constant) and made(*batch([[1.0, 1.0]], [1.0]), None, processes=1)[0] == 7


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:Loss", "loss_type names 'no_such_module:Loss', which cannot be imported"),
        (f"{__name__}:Missing", "cannot be imported"),
        ("builtins:dict", "it must name a class derived from dapo_trl.update.loss.Loss"),
    ],
)
def test_what_is_no_loss_is_named(tmp_path, name, message):
    with pytest.raises(ConfigError, match=message):
        make_loss(config(tmp_path, loss_type=name), has_auxiliary_loss=False)
