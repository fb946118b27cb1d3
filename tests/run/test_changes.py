"""A resumed run says where it goes on, what has changed, and refuses to become another run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dapo_trl.cli.main import main
from dapo_trl.errors import ConfigError
from dapo_trl.run.changes import changes_since, resumed, write_settings
from dapo_trl.run.settings import load_settings

from ..cli.test_main import config_file

BASE = ["--model", "models/arithmetic-0.8m", "--env", "math/Arithmetic-v0", "--use_cpu", "true"]


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    run, args, _ = load_settings([], [*BASE, "--env_kwargs", "{levels: [1]}"])
    write_settings(tmp_path, run, args)
    folder = tmp_path / "checkpoint-4"
    folder.mkdir()
    (folder / "trainer_state.json").write_text('{"global_step": 4}')
    return folder


def changed(checkpoint: Path, *flags: str) -> list[str]:
    run, args, _ = load_settings([], [*BASE, "--env_kwargs", "{levels: [1]}", *flags])
    return changes_since(checkpoint, run, args)


def test_nothing_has_changed(checkpoint, monkeypatch):
    same = ["--output_dir", "elsewhere", "--overwrite", "true", "--resume_from_checkpoint", "latest"]
    assert changed(checkpoint, *same) == []
    assert changed(checkpoint, "--model", str(Path("models/arithmetic-0.8m").resolve())) == []
    assert resumed(checkpoint, []) == f"Resuming from step 4 ({checkpoint}). No setting has changed."


def test_rates_and_lengths_are_named_and_accepted(checkpoint):
    lines = changed(checkpoint, "--learning_rate", "1e-3", "--max_steps", "7", "--eval_problems", "5")
    assert lines == ["eval_problems 0 -> 5", "learning_rate 1e-06 -> 0.001", "max_steps -1 -> 7"]
    assert resumed(checkpoint, lines).endswith(f"Changed since then: {', '.join(lines)}.")


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--env", "math/Countdown-v0"], "env math/Arithmetic-v0 -> math/Countdown-v0"),
        (["--env_kwargs", "{levels: [2]}"], 'env_kwargs {"levels": [1]} -> {"levels": [2]}'),
        (["--model", "models/rambling-0.8m"], "model models/arithmetic-0.8m -> models/rambling-0.8m"),
        (["--group_filter", "all_zero"], "group_filter zero_variance -> all_zero"),
        (["--filter_key", "reward"], "filter_key accuracy -> reward"),
        (["--loss_type", "grpo"], "loss_type dapo -> grpo"),
        (["--env_wrappers", "[FormatReward]"], 'env_wrappers [] -> ["FormatReward"]'),
        (["--lora_rank", "4"], "lora_rank 0 -> 4"),
    ],
)
def test_another_run_is_refused_by_name(checkpoint, flags, line):
    with pytest.raises(ConfigError) as error:
        changed(checkpoint, *flags)
    assert f"{checkpoint} is of another run: {line}." in str(error.value) and "--allow_changes true" in str(error.value)
    assert changed(checkpoint, *flags, "--allow_changes", "true") == [line]


@pytest.mark.parametrize("text", [None, "{", "{}", "[1]", "[" * 100_000])
def test_a_run_without_settings_has_nothing_to_compare(checkpoint, text):
    settings = checkpoint.parent / "settings.json"
    settings.unlink()
    if text is not None:
        settings.write_text(text)
    assert changed(checkpoint, "--env", "math/Countdown-v0") == []


def test_a_changed_rate_and_length_act(tmp_path, capsys, monkeypatch):
    """What Hugging Face loads with an optimizer and a schedule are the settings of the checkpoint."""
    monkeypatch.setattr("dapo_trl.run.train.write_report", lambda folders: "none")
    settings = {"save_strategy": "steps", "save_steps": 1, "steps_per_generation": 1, "max_completion_length": 8}
    path = config_file(tmp_path, max_steps=2, learning_rate=1e-4, report_to="none", max_refill_rounds=0, **settings)
    assert main(["train", "--config", path]) == 0
    capsys.readouterr()
    changes = ["--learning_rate", "1e-3", "--max_steps", "4", "--weight_decay", "0.5"]
    assert main(["train", "--config", path, "--resume_from_checkpoint", "latest", *changes]) == 0
    said = "".join(capsys.readouterr())
    assert f"Resuming from step 2 ({tmp_path / 'run' / 'checkpoint-2'}). Changed since then: " in said
    assert "learning_rate 0.0001 -> 0.001, max_steps 2 -> 4, weight_decay 0.0 -> 0.5." in said
    assert "missing keys" not in said
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    rates = {row["step"]: row["learning_rate"] for row in rows if "learning_rate" in row}
    assert rates == pytest.approx({1: 1e-4, 2: 5e-5, 3: 5e-4, 4: 2.5e-4})
