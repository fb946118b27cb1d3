"""How a run stands: what it says of itself, and what is made of its silence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from dapo_trl.errors import NonFiniteError
from dapo_trl.monitor.status import QUIET, StatusFile, read, seen
from dapo_trl.report import live
from dapo_trl.report.reading import read_run

from ..support.run_folder import make_run, row

ENDS = {  # what is raised within the run, or how it says it ends, and what is told of it
    "an error of ours": (NonFiniteError("step 1: the loss is nan"), "failed", "step 1: the loss is nan"),
    "any other error": (ValueError("a\nbug"), "failed", "ValueError: a bug"),
    "Ctrl-C, twice": (KeyboardInterrupt(), "interrupted", "at once"),
    "no more than said": ("stopped", "stopped", "by an alarm"),
    "an error after the end": (("finished", OSError("full")), "finished", "by an alarm"),
}


@pytest.mark.parametrize("case", ENDS)
def test_how_a_run_ends(case, tmp_path):
    what, state, why = ENDS[case]
    said, error = what if isinstance(what, tuple) else (what, what)
    try:
        with StatusFile(tmp_path, main=True) as status:
            assert seen(tmp_path, newest=None) == ("running", "")
            if isinstance(said, str):
                status.end(said, "by an alarm")
            if isinstance(error, BaseException):
                raise error
    except BaseException as caught:
        assert caught is error
    found = seen(tmp_path, newest=0.0)
    assert found is not None and found[0] == state and why in found[1]


def test_of_several_processes_the_first_to_fail_is_heard(tmp_path):
    def fail(message):
        raise NonFiniteError(message)

    with pytest.raises(NonFiniteError), StatusFile(tmp_path, main=True):
        with pytest.raises(NonFiniteError), StatusFile(tmp_path, main=False) as other:
            other.end("finished")
            assert read(tmp_path)["state"] == "running"
            fail("the first")
        fail("the second")
    assert read(tmp_path)["why"] == "the first"


def test_a_run_that_was_killed_is_told_from_one_that_goes_on(tmp_path, monkeypatch):
    make_run(tmp_path, [row(1, 10)])
    code = (
        "import pathlib, sys, time; from dapo_trl.monitor.status import StatusFile\n"
        "with StatusFile(pathlib.Path(sys.argv[1]), main=True): print('begun', flush=True), time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        assert read_run(tmp_path).status == "running"
        monkeypatch.setattr(live, "REST", 0.0)
        watched = live.Watched([tmp_path])
        tag, _ = watched.read()
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is still listed
        assert read_run(tmp_path).status == "killed"
        assert watched.read()[0] != tag  # though no file has changed
    assert "out of memory" in read_run(tmp_path).why


def test_on_another_machine_only_the_silence_is_known(tmp_path):
    with StatusFile(tmp_path, main=True):
        content = read(tmp_path)
    for changes in ({"machine": "elsewhere"}, {"process": "x"}):
        (tmp_path / "status.json").write_text(json.dumps(content | changes))
        assert seen(tmp_path, newest=time.time()) == ("running", "")
        state, why = seen(tmp_path, newest=time.time() - QUIET - 120) or ("", "")
        assert state == "silent" and why.startswith("Nothing new for 12 minutes")
    (tmp_path / "status.json").write_text(json.dumps(content | {"process_started": 0}))
    assert (seen(tmp_path, newest=time.time()) or [""])[0] == "killed"  # the number is another process's now


@pytest.mark.parametrize(
    ("steps", "ended", "status"), [(40, False, "running"), (40, True, "stopped"), (100, True, "finished")]
)
def test_a_run_of_an_earlier_version_is_judged_by_how_far_it_came(steps, ended, status, tmp_path):
    rows = [row(step, steps) for step in range(1, steps + 1)] + [{"step": steps, "train_runtime": 9.0}] * ended
    folder = make_run(tmp_path / "run", rows)
    assert read_run(folder).status == status
    before = time.time() - 3600
    os.utime(folder / "metrics.jsonl", (before, before))
    assert read_run(folder).status == {"running": "stopped"}.get(status, status)
    (folder / "model").mkdir()
    assert read_run(folder).status == "finished"


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"state": 3}', "{" * 5000])
def test_a_status_that_cannot_be_read_says_nothing(text, tmp_path):
    (tmp_path / "status.json").write_text(text)
    assert seen(tmp_path, newest=None) is None
