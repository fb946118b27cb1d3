"""Curves from any metrics file, whole, torn, empty or missing."""

from __future__ import annotations

import json

import pytest

from dapo_trl.callbacks import read_metrics
from dapo_trl.report import plot_curves

ROW = {
    "loss": 0.1,
    "accuracy/sampled": 0.5,
    "accuracy/trained": 0.4,
    "reward/sampled": 0.5,
    "entropy": 1.0,
    "groups/kept": 4,
    "groups/all_wrong": 1,
    "completions/mean_length": 30,
    "completions/clipped_ratio": 0.1,
    "clip_ratio/high_mean": 0.01,
}


@pytest.mark.parametrize("content", ["whole", "torn", "nulls", "empty", "missing"])
def test_curves_are_drawn_from_what_is_there(tmp_path, content):
    rows = [json.dumps({"step": i, **ROW}) for i in range(1, 9)]
    if content == "nulls":
        rows = [json.dumps({"step": i, "loss": 0.1, "entropy": None}) for i in range(3)]
    text = {"torn": "\n".join(rows) + '\n{"step": 9, "lo', "empty": ""}.get(content, "\n".join(rows))
    if content != "missing":
        (tmp_path / "metrics.jsonl").write_text(text)
    found = {"accuracy": 0.4, "interval_95": [0.3, 0.5]}
    (tmp_path / "evaluation_before.json").write_text(json.dumps(found))
    path = plot_curves(tmp_path)
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000


def test_a_torn_line_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "x"')
    assert read_metrics(path) == [{"step": 1}]
