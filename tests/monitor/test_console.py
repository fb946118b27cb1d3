"""What a person reads while a run goes on."""

from __future__ import annotations

import pytest
from rich.console import Console
from transformers import TrainerState

from dapo_trl.monitor.console import COLUMNS, LEGEND, ConsoleCallback, heading, step_line
from dapo_trl.monitor.metrics import METRICS


def test_lines_fit_a_hundred_columns_and_stand_below_their_headings():
    logs = {metric: 123456.789 if metric == "throughput/tokens_per_second" else 0.5 for _, metric, _ in COLUMNS}
    assert max(map(len, LEGEND.splitlines())) <= 100
    line = step_line(1234, logs)
    assert len(line) <= 100
    assert len(step_line(4, {"entropy": 0.5})) == len(heading()) <= 100


def test_a_figure_that_was_not_logged_is_a_dash():
    assert step_line(3, {"entropy": 0.25}).split() == ["3", "-", "-", "-", "0.250", *["-"] * 7]


def test_every_column_is_a_documented_metric():
    assert {metric for _, metric, _ in COLUMNS} <= set(METRICS)


@pytest.mark.parametrize(("step", "said"), [(225, True), (7, False)])
def test_a_checkpoint_beyond_the_last_step_is_named(step, said, capsys):
    callback = ConsoleCallback(Console(width=200))
    callback.on_train_begin(None, TrainerState(global_step=step, max_steps=8), None)
    callback.close()
    text = "Nothing is left to train: the checkpoint is of step 225, and max_steps is 8."
    assert (text in capsys.readouterr().out) is said
