"""A run's folder in any state: what is there is shown, what is not is said, and nothing fails."""

from __future__ import annotations

import json

import pytest

from dapo_trl.cli.main import main
from dapo_trl.errors import ConfigError
from dapo_trl.monitor.metrics_file import read_metrics
from dapo_trl.report import reading
from dapo_trl.report.curves import plot_curves
from dapo_trl.report.page import data
from dapo_trl.report.reading import read_run

from ..support.run_folder import make_run, row, usual_run

ROWS = [row(step, 8) for step in range(1, 9)]
TEXT = "".join(json.dumps(found) + "\n" for found in ROWS)
TRL_ROW = {"loss": 0.1, "completion_length": 30.0, "clip_ratio": 0.1, "reward": 0.5, "epoch": 0.1}

CASES = {  # the content of metrics.jsonl, how many logs are found, and what is said
    "whole": (TEXT, 8, ""),
    "torn": (TEXT + '{"step": 9, "lo', 8, "1 line(s) of metrics.jsonl cannot be read"),
    "empty": ("", 0, "metrics.jsonl holds no logs yet"),
    "blank": ("\n \n\0\0\0\n", 0, "metrics.jsonl holds no logs yet"),
    "no JSON": ("\x1b[31mhello\n<script>\n" + TEXT, 8, "2 line(s)"),
    "no objects": ('[1, 2]\n"text"\n3\nnull\n' + TEXT, 8, "4 line(s)"),
    "too deep": ("[" * 100_000 + "\n" + TEXT, 8, "1 line(s)"),
    "too long": (TEXT + '{"a": "' + "x" * (9 * 2**20) + '"}\n', 8, "cannot be read"),
    "not finite": (TEXT + '{"step": 9, "loss": 0.1, "kl": NaN, "entropy": 1e999, "reward": null}\n', 9, ""),
    "too large": (TEXT + f'{{"step": 9, "loss": 0.1, "kl": {"9" * 400}}}\n', 9, ""),
    "text for numbers": (TEXT + '{"step": 9, "loss": 0.1, "kl": "high", "entropy": [1]}\n', 9, ""),
    "older names": ("".join(json.dumps({"step": i, **TRL_ROW}) + "\n" for i in range(5)), 5, ""),
    "no steps": ("".join(json.dumps(TRL_ROW) + "\n" for _ in range(5)), 5, "do not name their step"),
    "out of order": (TEXT + TEXT, 16, "do not rise"),
}


@pytest.mark.parametrize("case", CASES)
def test_metrics_in_any_state(case, tmp_path):
    text, count, said = CASES[case]
    run = read_run(make_run(tmp_path / "run", **{"metrics.jsonl": text}))
    assert len(run.training) == count
    assert said in " ".join(run.notes) and (said or "metrics" not in " ".join(run.notes))
    steps = [found["step"] for found in run.rows]
    assert steps == sorted(steps)
    assert len(data([run], ["run"])) > 1000
    picture = plot_curves(run, tmp_path / "curves.png", title="a $run")
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 10_000


def test_older_names_are_understood(tmp_path):
    run = read_run(make_run(tmp_path / "run", **{"metrics.jsonl": CASES["older names"][0]}))
    assert run.rows[0]["completions/mean_length"] == 30 and run.rows[0]["clip_ratio/region_mean"] == 0.1


def test_a_run_of_trl_is_read_from_its_state(tmp_path):
    folder = tmp_path / "run" / "checkpoint-3"
    folder.mkdir(parents=True)
    history = [{"step": i, **TRL_ROW} for i in (1, 2, 3)]
    (folder / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    run = read_run(tmp_path / "run")
    assert len(run.training) == 3 and "checkpoint-3/trainer_state.json" in run.notes[0]


def test_a_huge_file_is_thinned_out(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_ROWS", 100)
    rows = [{"step": step, "loss": 0.1} for step in range(1, 1001)]
    run = read_run(make_run(tmp_path / "run", rows))
    assert 50 <= len(run.rows) <= 100 and run.rows[-1]["step"] > 980
    assert "holds 1,000 logs: every 16th is shown" in run.notes[0]


@pytest.mark.parametrize("name", ["config.yaml", "settings.json", "environment.json", "evaluation_after.json"])
@pytest.mark.parametrize(
    "text", ["", "[1, 2", "- 1\n- 2", "\x00\x01", "a: [b", '{"a": ' * 400 + "1" + "}" * 400, "[" * 100_000]
)
def test_other_files_in_any_state(name, text, tmp_path):
    folder = usual_run(tmp_path / "run", **{name: text})
    run = read_run(folder)
    assert any(name in note for note in run.notes)
    assert len(data([run], ["run"])) > 1000


def test_a_file_that_is_missing_is_said(tmp_path, capsys):
    folder = usual_run(tmp_path / "run")
    for path in folder.iterdir():
        if path.name != "metrics.jsonl":
            path.unlink()
    assert read_run(folder).notes == ["There is no config.yaml.", "There is no environment.json."]
    assert main(["report", str(folder)]) == 0 and (folder / "curves.png").is_file()
    assert capsys.readouterr().out.split() == [str(folder / "report.html"), str(folder / "curves.png")]
    for command in ("report", "watch"):
        assert main([command, str(folder), str(folder / "..") + f"/{folder.name}"]) == 2
        assert "is given twice" in capsys.readouterr().err


def test_the_sessions_of_a_resumed_run_add_up(tmp_path):
    rows = [{"step": 1, "loss": 0.1, "seconds": 10.0}, {"step": 2, "loss": 0.1, "seconds": 20.0}]
    again = [{"step": 3, "loss": 0.1, "seconds": 4.0}, {"step": 4, "seconds": 5.0}, {"step": 5, "seconds": 3.0}]
    run = read_run(make_run(tmp_path / "run", [*rows, *again]))
    assert [found["seconds"] for found in run.rows] == [10, 20, 24, 25, 28]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing", "does not exist"),
        ("file", "is a file"),
        ("empty", "is not the folder of a run: it holds no metrics"),
    ],
)
def test_what_is_no_run_is_one_line(name, said, tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    assert main(["report", str(tmp_path / name)]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    with pytest.raises(ConfigError):
        read_run(tmp_path / name)


def test_a_page_that_cannot_be_written_is_one_line(tmp_path, capsys):
    folder = usual_run(tmp_path / "run")
    (tmp_path / "file").touch()
    assert main(["report", str(folder), "--output", str(tmp_path / "file" / "report.html")]) == 2
    assert "the report cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["there", "new", "new/page.html"])
def test_a_report_goes_into_a_folder_or_a_file(name, tmp_path, capsys):
    (tmp_path / "there").mkdir()
    output = tmp_path / name
    assert main(["report", str(usual_run(tmp_path / "run")), "--output", str(output)]) == 0
    page = output if output.suffix else output / "report.html"
    assert capsys.readouterr().out.split() == [str(page), str(page.with_name("curves.png"))] and page.is_file()


def test_a_torn_line_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "x"')
    assert read_metrics(path) == [{"step": 1}] and read_metrics(tmp_path / "missing") == []
