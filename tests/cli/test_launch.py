"""``dapo-trl launch``: several processes with the exit codes of one, and no report of torch's launcher."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import accelerate.commands.launch
import pytest
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from dapo_trl.checkpoint.files import last_complete
from dapo_trl.cli.main import main
from dapo_trl.monitor.status import seen

from ..conftest import ROOT
from ..support.warm_start import CPU_2
from .test_main import config_file


def failed(**codes: int) -> ChildFailedError:
    """The report of a launcher whose processes ended with these codes, in this order."""
    failures = {}
    for place, (name, code) in enumerate(codes.items()):
        failure = ProcessFailure(local_rank=0, pid=1, exitcode=code, error_file="none")
        failure.timestamp = place  # type: ignore[misc]
        failures[int(name.removeprefix("rank"))] = failure
    return ChildFailedError("dapo_trl", failures)


ENDS = {
    "success": (None, 0, ""),
    "a mistake": (failed(rank0=2, rank1=-15), 2, ""),
    "stopped by Ctrl-C": (failed(rank0=130, rank1=130), 130, ""),
    "Ctrl-C in the launcher": (SignalException("got SIGINT", signal.SIGINT), 130, ""),
    "an error": (failed(rank1=1, rank0=-15), 1, ""),
    "no memory": (failed(rank1=-9, rank0=1), 1, "error: process 1 was ended by SIGKILL (out of memory, most often)."),
    "one process": (subprocess.CalledProcessError(2, "train"), 2, ""),
    "a wrong option": (ValueError("You can only use one of"), 2, "error: launch: You can only use one of"),
}


@pytest.mark.parametrize("case", ENDS)
def test_exit_codes(case, monkeypatch, capsys):
    error, code, line = ENDS[case]

    def launched(options: SimpleNamespace) -> None:
        assert (options.module, options.training_script, options.training_script_args) == (
            True,
            "dapo_trl",
            ["train", "--config", "a.yaml", "--lr", "-1"],
        )
        assert options.num_processes == 2
        if error is not None:
            raise error

    monkeypatch.setattr(accelerate.commands.launch, "launch_command", launched)
    before = signal.getsignal(signal.SIGINT)
    assert main(["launch", "--num_processes", "2", "train", "--config", "a.yaml", "--lr", "-1"]) == code
    assert capsys.readouterr().err == (f"{line}\n" if line else "") and signal.getsignal(signal.SIGINT) == before


@pytest.mark.slow
def test_ctrl_c_stops_all_processes_with_a_checkpoint(tmp_path):
    path = config_file(tmp_path, max_steps=500, report_to="none", max_completion_length=8, max_refill_rounds=0)
    command = [sys.executable, "-m", "dapo_trl", "launch", "--config_file", CPU_2, "train", "--config", path]
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics, end = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 240
    while not (metrics.exists() and '"step": 1' in metrics.read_text()):
        assert running.poll() is None and time.monotonic() < end, running.communicate()
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    output, errors = running.communicate(timeout=120)
    assert running.returncode == 130, errors
    assert "Traceback" not in errors and "Error" not in errors
    assert "Continue with the same command and --resume_from_checkpoint latest" in output
    assert last_complete(tmp_path / "run")[0] is not None
    assert (seen(tmp_path / "run", newest=None) or [""])[0] == "interrupted"
