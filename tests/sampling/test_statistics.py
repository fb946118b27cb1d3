"""The figures of what was sampled, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from dapo_trl.monitor.metrics import METRICS
from dapo_trl.sampling.statistics import VERDICTS, RoundStatistics, verdict_number


def numbers(accuracy, *, verdicts=None, levels=None, size=2, figures=None) -> RoundStatistics:
    accuracy = torch.tensor(accuracy)
    n = len(accuracy)
    return RoundStatistics(
        lengths=torch.arange(1.0, n + 1),
        truncated=torch.zeros(n),
        accuracy=accuracy,
        totals=accuracy,
        verdicts=torch.tensor([-1] * n if verdicts is None else [verdict_number(name) for name in verdicts]),
        kept=torch.ones(n, dtype=torch.bool),
        shaped=torch.zeros(n, dtype=torch.bool),
        levels=levels or [None] * (n // size),
        figures=figures or [],
    )


def test_difficulty_is_the_share_of_a_group_that_is_right():
    found = numbers([0, 0, 0, 1 / 3, 1, 0, 1, 0.9, 1, 1, math.nan, math.nan]).metrics()
    shares = {name[11:]: float(value) for name, value in found.items() if name.startswith("difficulty/")}
    assert shares == pytest.approx({"unsolved": 0.2, "hard": 0.2, "medium": 0.2, "easy": 0.2, "solved": 0.2})


def test_verdicts_are_shares_and_invented_ones_are_other():
    found = numbers([1.0, 0.0, 0.0, 0.0], verdicts=["correct", "wrong", "timeout", "late"]).metrics()
    shares = {name[9:]: float(value) for name, value in found.items() if name.startswith("verdicts/")}
    assert shares.keys() == set(VERDICTS) and sum(shares.values()) == 1
    assert all(shares[name] == 0.25 for name in ("correct", "wrong", "timeout", "other"))
    assert not [name for name in numbers([1.0, 0.0]).metrics() if name.startswith("verdicts/")]


def test_accuracy_by_level():
    found = numbers([1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0], levels=[3, "hard", 3, None]).by_level()
    assert found == {"accuracy/level_3": 0.25, "accuracy/level_hard": 1.0}


def test_several_rounds_are_one():
    one = numbers([1.0, 0.0], levels=[1])
    both = RoundStatistics.of([one, numbers([1.0, 1.0, 0.0, 0.0], levels=[1, 2])])
    assert both.group_size == 2 and both.levels == [1, 1, 2] and len(both.lengths) == 6


def test_what_environments_report_is_a_mean_over_those_that_report_it():
    some = [{"calls": 2.0}, {"calls": 4.0, "judge_seconds": math.nan}, {}, {"judge_seconds": 0.5}]
    both = RoundStatistics.of([numbers([1.0, 0.0], figures=some[:2]), numbers([1.0, 0.0], figures=some[2:])])
    shown = {name: value for name, value in both.metrics().items() if name.startswith("figures/")}
    assert shown == {"figures/calls": 3.0, "figures/judge_seconds": 0.5}
    assert "figures/calls" not in both.of_groups(range(1, 2)).metrics()
    assert {"figures/*", "figures/judge_seconds"} <= set(METRICS)


def test_every_figure_is_documented():
    assert set(numbers([1.0, 0.0], verdicts=["correct", "wrong"]).metrics()) <= set(METRICS)
    assert "accuracy/level_*" in METRICS
