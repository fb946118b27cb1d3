"""The scripts for a GPU run in small on a CPU; their figures there say nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from .conftest import ROOT


def test_training_on_a_gpu(tmp_path):
    path = tmp_path / "found.json"
    command = [sys.executable, "benchmarks/gpu/training.py", "--small", "--quick", "--json", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(path.read_text())
    (sides,) = found["measured"].values()
    assert sides["shared"]["peak"] < sides["separate"]["peak"] and not found["left_out"]
    assert all(sides[side]["update_s"] > 0 and 0 < sides[side]["rate"] < 1 for side in ("TRL", "separate", "shared"))
    assert sides["generation"]["tokens_s"] > 0
