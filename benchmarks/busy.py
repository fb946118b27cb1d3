"""The quick start's first steps on a quiet machine and on a busy one, by how OpenMP's threads wait for each other.

    python benchmarks/busy.py            # ten minutes
    python benchmarks/busy.py --quick

Each run is the command in a process of its own, with every core; what counts are the seconds of its steps. Busy: five
other processes compute all the time. The fair share of a busy machine is what the scheduler gives to as many threads as
there are cores, beside those five. "active" is libgomp's own way, "ours" what the command sets.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common import Claim, arguments, console, finish, show

OTHERS, MINUTE = 5, 60
WAITING = {
    "active": {"GOMP_SPINCOUNT": "300000"},
    "ours": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Within the block, as many processes compute without a pause."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        time.sleep(MINUTE)  # until the load average tells
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def seconds(waiting: dict[str, str], steps: int) -> float:
    """Wall time of the optimizer steps of a run, sampling included."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    with tempfile.TemporaryDirectory() as folder:
        settings = {"max_steps": steps, "logging_steps": 1, "eval_problems": 0, "output_dir": folder}
        flags = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
        command = [sys.executable, "-m", "dapo_trl", "train", "--config", "quickstart", *flags]
        subprocess.run(command, env={**clean, **waiting}, capture_output=True, check=True)
        logs = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return sum(log.get("step_time", 0.0) for log in logs)


def main() -> None:
    options = arguments(__doc__ or "")
    steps, repetitions = (8, 1) if options.quick else (16, 3)
    found: dict[tuple[str, int], list[float]] = {}
    for _ in range(repetitions):
        for others in (0, OTHERS):
            with busy(others):
                for name, waiting in WAITING.items():
                    found.setdefault((name, others), []).append(seconds(waiting, steps))
    median = {key: statistics.median(values) for key, values in found.items()}
    quiet, cores = median["active", 0], os.cpu_count() or 1
    fair = quiet * (OTHERS + cores) / cores
    rows = [(name, f"{median[name, 0] / quiet:.2f}", f"{median[name, OTHERS] / fair:.2f}") for name in WAITING]
    show(f"Seconds of {steps} steps, as ratios", ["waiting", "quiet / active", f"{OTHERS} others / fair share"], rows)
    finish(
        [
            Claim("quiet machine, ours / active", median["ours", 0] / quiet, 1.03),
            Claim("busy machine, ours / fair share", median["ours", OTHERS] / fair, 2.0),
            Claim("busy machine, ours / active", median["ours", OTHERS] / median["active", OTHERS], 1.0),
        ],
        options.json,
    )
    console.print(f"{repetitions} repetitions, medians")


if __name__ == "__main__":
    main()
