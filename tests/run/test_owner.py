"""A folder has one living run; a lock of a dead one is in nobody's way; workers end with their launcher."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from dapo_trl.cli.main import main
from dapo_trl.errors import ConfigError
from dapo_trl.monitor.status import identity
from dapo_trl.run import owner
from dapo_trl.run.owner import LOCK, STALE, check_free, hold

from ..cli.test_main import config_file
from ..conftest import ROOT
from ..support.processes import gone


def lock(folder: Path, *, age: float = 0.0, **changes) -> None:
    (folder / LOCK).write_text(json.dumps({**identity(), "since": time.time(), **changes}))
    os.utime(folder / LOCK, (time.time() - age,) * 2)


def test_a_living_run_is_named_and_its_end_frees_the_folder(tmp_path):
    with hold(tmp_path):
        for attempt in (check_free, lambda folder: hold(folder).__enter__()):
            with pytest.raises(ConfigError) as error:
                attempt(tmp_path)
            assert re.search(
                rf"output_dir {tmp_path} belongs to a run that goes on: process {os.getpid()} on \S+, since "
                r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\. Stop it first",
                str(error.value),
            )
            assert "sign of life" not in str(error.value)  # it can be seen: there is nothing to wait for
    assert not (tmp_path / LOCK).exists()
    check_free(tmp_path)


def test_an_error_frees_the_folder_too(tmp_path):
    with pytest.raises(ZeroDivisionError), hold(tmp_path):
        raise ZeroDivisionError
    assert not any(tmp_path.iterdir())


def test_a_dead_process_holds_nothing(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    lock(tmp_path, process=dead.pid, process_started=time.time())
    check_free(tmp_path)
    lock(tmp_path, process_started=psutil.Process().create_time() - 3600)  # its number belongs to another one now
    with hold(tmp_path), pytest.raises(ConfigError):
        check_free(tmp_path)


def test_on_another_machine_the_heartbeat_decides(tmp_path):
    lock(tmp_path, machine="elsewhere pid:[1]", process=7, age=100)
    with pytest.raises(ConfigError) as error:
        check_free(tmp_path)
    found = re.search(
        r"process 7 on elsewhere, .* sign of life is (\d+) s old; if it has died, try again in (\d+) s",
        str(error.value),
    )
    assert found and abs(int(found[1]) - 100) <= 30 and int(found[1]) + int(found[2]) == STALE
    lock(tmp_path, machine="elsewhere pid:[1]", process=7, age=STALE + 60)
    with hold(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()


def test_the_heart_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(owner, "BEAT", 0.01)
    with hold(tmp_path):
        os.utime(tmp_path / LOCK, (0, 0))
        end = time.monotonic() + 20
        while (tmp_path / LOCK).stat().st_mtime == 0 and time.monotonic() < end:
            time.sleep(0.01)
        assert (tmp_path / LOCK).stat().st_mtime > 0


@pytest.mark.parametrize("text", ["", "{", "[]", '{"process": 1}', '{"process": null, "machine": "", "since": 0}'])
def test_a_damaged_lock_is_in_nobodys_way(tmp_path, text):
    (tmp_path / LOCK).write_text(text)
    with hold(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()


def test_of_many_that_start_at_once_one_gets_the_folder(tmp_path):
    lock(tmp_path, machine="elsewhere pid:[1]", process=7, age=STALE + 60)
    start, end, results = threading.Barrier(8), threading.Barrier(8), []

    def run() -> None:
        start.wait()
        try:
            with hold(tmp_path):
                results.append("held")
                end.wait()
        except ConfigError:
            results.append("refused")
            end.wait()

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["held"] + ["refused"] * 7


@pytest.mark.parametrize("flags", [["--overwrite", "true"], ["--resume_from_checkpoint", "latest"], []])
def test_no_second_run_starts_beside_a_living_one(tmp_path, capsys, flags):
    (tmp_path / "run" / "checkpoint-4").mkdir(parents=True)
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 4}\n')
    with hold(tmp_path / "run"):
        assert main(["train", "--config", config_file(tmp_path), *flags]) == 2
        error = capsys.readouterr().err
        assert f"belongs to a run that goes on: process {os.getpid()} on " in error and error.count("\n") == 1
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == '{"step": 4}\n'


def test_a_run_that_failed_before_its_first_step_does_not_block_the_next(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("dapo_trl.run.train.write_report", lambda folders: "none")
    path = config_file(tmp_path, max_steps=1, max_completion_length=100_000)
    assert main(["train", "--config", path]) == 2
    folder = tmp_path / "run"
    folder.mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_text('{"step": 0, "seconds": 1.0, "eval_accuracy": 0.5}\n')
    (folder / "status.json").write_text("{}")
    assert main(["train", "--config", config_file(tmp_path, max_steps=1, report_to="none")]) == 0
    capsys.readouterr()
    assert main(["train", "--config", config_file(tmp_path, max_steps=1)]) == 2
    assert "holds a run already" in capsys.readouterr().err  # this one has a model


WORKER = """
import sys, time
from dapo_trl.run.owner import end_with_launcher
end_with_launcher()
print("ready", flush=True)
time.sleep(60)
"""
LAUNCHER = """
import os, signal, subprocess, sys
worker = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, start_new_session=True)
worker.stdout.readline()
print(worker.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a service of Linux")
def test_workers_end_with_their_launcher():
    environment = {**os.environ, "TORCHELASTIC_RUN_ID": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", LAUNCHER, WORKER], env=environment, capture_output=True, text=True, timeout=60
    )
    assert gone({int(done.stdout)}), done.stderr
