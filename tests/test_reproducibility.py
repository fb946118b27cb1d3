"""The same command gives the same numbers and the same weights, bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from .conftest import ROOT, SHIPPED_MODEL

TIMES = ("seconds", "runtime", "per_second", "time/", "step_time", "profiling/")


def started(folder: Path, hash_seed: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dapo_trl", "train", "--config", "configs/quickstart.yaml"]
    short = ["--max_steps", "16", "--logging_steps", "4", "--eval_problems", "10", "--output_dir", str(folder)]
    env = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*command, "--model", str(SHIPPED_MODEL), *short], cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True
    )


def told(folder: Path) -> list[dict[str, Any]]:
    """The metrics file without how long things took."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [
        {name: value for name, value in json.loads(line).items() if not any(part in name for part in TIMES)}
        for line in lines
    ]


def test_two_runs_of_a_command_are_the_same_bit_for_bit(tmp_path):
    """Held-out accuracy, metrics, rollouts and weights, in processes whose hashes differ."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for process in [started(folder, number) for number, folder in enumerate(folders)]:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
    one, two = map(told, folders)
    assert one == two
    assert len(one) >= 4 and len({row["loss"] for row in one if "loss" in row}) > 1
    for name in ("model/model.safetensors", "rollouts-0.jsonl", "evaluation_after.json"):
        files = [folder / name for folder in folders]
        assert files[0].read_bytes() == files[1].read_bytes(), name
