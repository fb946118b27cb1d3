"""The script for vLLM on a GPU runs in small, with the stand-in for vLLM; its figures say nothing there."""

from __future__ import annotations

import json

from .conftest import ROOT
from .support.warm_start import WarmStart


def test_vllm_colocate_in_small(warm_start: WarmStart, tmp_path):
    path = tmp_path / "found.json"
    done = warm_start.run(str(ROOT / "benchmarks" / "gpu" / "vllm_colocate.py"), "--small", "--json", str(path))
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(path.read_text(encoding="utf-8"))
    assert {"machine", "claims", "measured"} == set(found)
    runs = found["measured"]
    assert list(runs) == ["weights", "adapter", "merged", "generate"] and not any(
        "lost" in run for run in runs.values()
    )
    for kind, run in runs.items():
        assert run["tokens_s"] > 0
        if kind != "generate":
            assert run["push_s"] > 0 and 0.015 < run["spread"] < 0.025
            assert all(abs(measured / predicted - 1) < 0.1 for predicted, measured in run["modes"].values())
