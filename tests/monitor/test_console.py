"""What a person reads while a run goes on."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from transformers import TrainerState

from dapo_trl.monitor.console import COLUMNS, LEGEND, ConsoleCallback, counted, heading, step_line
from dapo_trl.monitor.metrics import METRICS


def test_lines_fit_a_hundred_columns_and_stand_below_their_headings():
    logs = {metric: 123456.789 if metric == "throughput/tokens_per_second" else 0.5 for _, metric, _ in COLUMNS}
    assert max(map(len, LEGEND.splitlines())) <= 100
    line = step_line(1234, logs)
    assert len(line) <= 100
    assert len(step_line(4, {"entropy": 0.5})) == len(heading()) <= 100


def test_a_figure_that_was_not_logged_is_a_dash():
    assert step_line(3, {"entropy": 0.25}).split() == ["3", "-", "-", "-", "0.250", *["-"] * 7]


def test_a_reward_of_nothing_has_no_sign():
    assert step_line(3, {"reward/sampled": -0.0001, "entropy": -0.0}).split()[1:5] == ["0.000", "-", "-", "0.000"]


def test_every_column_is_a_documented_metric():
    assert {metric for _, metric, _ in COLUMNS} <= set(METRICS)


@pytest.mark.parametrize(("step", "said"), [(225, True), (7, False)])
def test_a_checkpoint_beyond_the_last_step_is_named(step, said, capsys):
    callback = ConsoleCallback(Console(width=200))
    callback.on_train_begin(None, TrainerState(global_step=step, max_steps=8), None)
    callback.close()
    text = "Nothing is left to train: the checkpoint is of step 225, and max_steps is 8."
    assert (text in capsys.readouterr().out) is said


@pytest.mark.parametrize(("terminal", "lines"), [(False, 9), (True, 0)])
def test_without_a_terminal_a_measurement_prints_a_line_per_tenth(terminal, lines):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    with counted(console, "measuring") as show:
        for done in range(1, 401):
            show(done, 400)
    assert console.file.getvalue().count(" of 400 completions\n") == lines


@pytest.mark.parametrize(("terminal", "lines"), [(False, 1), (True, 0)])
def test_without_a_terminal_a_round_is_a_line(terminal, lines):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    ConsoleCallback(console).report("round 1 of at most 9: 7 of 8 groups informative")
    assert console.file.getvalue().count("round 1 of at most 9") == lines
