"""The same command gives the same numbers and the same weights, bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import ROOT, SHIPPED_MODEL

TIMES = ("seconds", "runtime", "per_second", "time/", "step_time", "profiling/")


def told(folder: Path) -> list[dict[str, Any]]:
    """The metrics file without how long things took."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [
        {name: value for name, value in json.loads(line).items() if not any(part in name for part in TIMES)}
        for line in lines
    ]


@pytest.mark.slow
def test_two_runs_of_a_command_are_the_same_bit_for_bit(warm_start, tmp_path):
    """Held-out accuracy, metrics, rollouts and weights, in an interpreter of its own hash seed and in a forked one."""
    folders = [tmp_path / "one", tmp_path / "two"]
    command = ["dapo_trl", "train", "--config", "configs/quickstart.yaml", "--model", str(SHIPPED_MODEL)]
    command += ["--max_steps", "16", "--logging_steps", "4", "--eval_problems", "10", "--output_dir"]
    forked = warm_start.start(*command, str(folders[0]))
    env = {**os.environ, "PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"}
    interpreter = [sys.executable, "-m", *command, str(folders[1])]
    done = subprocess.run(interpreter, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
    for ended in (done, forked.wait(600)):
        assert ended.returncode == 0, ended.stderr
    one, two = map(told, folders)
    assert one == two
    assert len(one) >= 4 and len({row["loss"] for row in one if "loss" in row}) > 1
    for name in ("model/model.safetensors", "rollouts-0.jsonl", "evaluation_after.json"):
        files = [folder / name for folder in folders]
        assert files[0].read_bytes() == files[1].read_bytes(), name
