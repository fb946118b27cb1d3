"""A disk that is full ends a run with one line, whichever library found out."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from safetensors import SafetensorError

from dapo_trl.cli.main import main
from dapo_trl.errors import ConfigError, DiskFullError
from dapo_trl.monitor.metrics_file import MetricsFile
from dapo_trl.monitor.status import StatusFile, seen
from dapo_trl.run.startup import explain_full_disk

from ..cli.test_main import config_file

FULL = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    RuntimeError("[enforce fail at inline_container.cc:672] . PytorchStreamWriter failed writing file data/9"),
    RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 4474176 vs 4474064"),
]


@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
def test_it_is_one_line(tmp_path, error):
    line = r"cannot be written to any more .* MB are free.*save_total_limit"
    with pytest.raises(DiskFullError, match=line), explain_full_disk(tmp_path):
        raise error


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "no"), RuntimeError("shapes"), ConfigError("No space left")])
def test_nothing_else_is_called_so(tmp_path, error):
    with pytest.raises(type(error)) as caught, explain_full_disk(tmp_path):
        raise error
    assert caught.value is error


def test_a_run_whose_disk_is_full(tmp_path, monkeypatch, capsys):
    def full(self, *_) -> None:
        with open("/dev/full", "w", buffering=1) as file:
            file.write("a line\n")

    monkeypatch.setattr(MetricsFile, "append", full)
    path = config_file(tmp_path, max_steps=1, max_completion_length=8, max_refill_rounds=0)
    assert main(["train", "--config", path]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / 'run'} cannot be written to any more ([Errno 28] No space")
    assert error.count("\n") == 1
    state, why = seen(tmp_path / "run", newest=None)
    assert state == "failed" and f"error: {why}\n" == error


def test_the_status_has_room_where_the_last_one_was(tmp_path, monkeypatch):
    with pytest.raises(ValueError), StatusFile(tmp_path, main=True):
        whole = Path.write_text

        def full(self, text, **options):
            if self.suffix == ".new":
                whole(self, text[:10], **options)
                raise OSError(errno.ENOSPC, "No space left on device")
            return whole(self, text, **options)

        monkeypatch.setattr(Path, "write_text", full)
        raise ValueError("an end")
    assert seen(tmp_path, newest=None) == ("failed", "ValueError: an end")
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]
