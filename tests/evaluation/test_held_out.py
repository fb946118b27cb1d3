"""Held-out accuracy during a run: logged, harmless, and the best model kept, also when the run is resumed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from dapo_trl.cli.main import main
from dapo_trl.errors import ConfigError
from dapo_trl.monitor.callbacks import StopOnSignal
from dapo_trl.monitor.metrics import METRICS
from dapo_trl.monitor.metrics_file import read_metrics
from dapo_trl.run.settings import RunConfig

from ..conftest import SHIPPED_MODEL

SETTINGS = {
    "model": SHIPPED_MODEL,
    "env": "math/Arithmetic-v0",
    "env_kwargs": "{levels: [2, 3], split: train}",
    "eval_env_kwargs": "{split: test}",
    "eval_problems": 7,
    "eval_samples": 2,
    "eval_top_p": 1.0,
    "per_device_train_batch_size": 8,
    "steps_per_generation": 2,
    "num_generations": 4,
    "max_completion_length": 56,
    "max_steps": 5,
    "learning_rate": 3e-4,
    "logging_steps": 1,
    "save_strategy": "no",
    "gradient_checkpointing": "false",
    "use_cpu": "true",
    "bf16": "false",
    "report_to": "[]",
}


def train(folder: Path, **changes) -> int:
    settings = {**SETTINGS, "output_dir": folder, **changes}
    return main(["train", *(text for name, value in settings.items() for text in (f"--{name}", str(value)))])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()


def same(one: Path, other: Path) -> bool:
    return all(torch.equal(value, weights(other)[name]) for name, value in weights(one).items())


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Measured every two steps; nobody changes it."""
    folder = tmp_path_factory.mktemp("runs") / "measured"
    assert train(folder, eval_every=2, save_strategy="steps", save_steps=2) == 0
    return folder


def measured(folder: Path) -> dict[int, dict]:
    return {row["step"]: row for row in read_metrics(folder / "metrics.jsonl") if "eval_accuracy" in row}


def test_every_so_many_steps_and_at_the_end_accuracy_is_logged_with_its_interval(run):
    rows = measured(run)
    assert list(rows) == [2, 4, 5]
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl") if "loss" in row] == [1, 2, 3, 4, 5]
    for row in rows.values():
        names = {name for name in row if name.startswith("eval_")}
        assert names <= set(METRICS) and len(names) == 7
        assert row["eval_accuracy_low"] < row["eval_accuracy"] <= row["eval_accuracy_high"] <= 1
        assert row["eval_pass_at_k"] >= row["eval_accuracy"] and "accuracy/sampled" not in row
    after = json.loads((run / "evaluation_after.json").read_text())
    assert after["accuracy"] == rows[5]["eval_accuracy"] and after["problems"] == 7


def test_the_best_model_is_kept_with_its_accuracy_and_step(run):
    rows, record = measured(run), json.loads((run / "best" / "held_out.json").read_text())
    highest = max(row["eval_accuracy"] for row in rows.values())
    first = next(step for step, row in rows.items() if row["eval_accuracy"] == highest)
    assert (record["step"], record["accuracy"]) == (first, highest) and len(record["interval_95"]) == 2
    assert same(run / "best", run / (f"checkpoint-{first}" if first < 5 else "model"))
    assert not list(run.glob("best-*"))


def test_training_is_what_it_is_without(run, tmp_path):
    assert train(tmp_path / "plain", eval_problems=0) == 0
    assert same(tmp_path / "plain" / "model", run / "model") and not (tmp_path / "plain" / "best").exists()


def test_a_resumed_run_measures_what_is_left_and_keeps_a_better_model(run, tmp_path, capsys):
    folder = Path(shutil.copytree(run, tmp_path / "resumed"))
    for later in ("checkpoint-4", "checkpoint-5"):
        shutil.rmtree(folder / later)
    record = json.loads((folder / "best" / "held_out.json").read_text())
    (folder / "best" / "held_out.json").write_text(json.dumps({**record, "step": 1, "accuracy": 2.0}))
    assert train(folder, eval_every=2, resume_from_checkpoint="latest") == 0
    assert measured(folder) == {
        step: {**row, "seconds": measured(folder)[step]["seconds"]} for step, row in measured(run).items()
    }
    assert json.loads((folder / "best" / "held_out.json").read_text())["step"] == 1
    assert f"best: {folder / 'best'}, of step 1, 2.000" in " ".join(capsys.readouterr().out.split())
    assert same(folder / "model", run / "model")


def test_an_interruption_is_obeyed_and_the_measurement_made_up_for(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(StopOnSignal, "on_train_begin", lambda self, *_, **__: setattr(self, "requested", True))
        assert train(tmp_path / "run", eval_every=1, max_steps=3) == 130
    assert measured(tmp_path / "run") == {}
    assert train(tmp_path / "run", eval_every=1, max_steps=3, resume_from_checkpoint="latest") == 0
    assert list(measured(tmp_path / "run")) == [1, 2, 3]


def test_the_command_measures_the_same(run, tmp_path):
    """With a run's own settings and its model, the figure that the run itself gave."""
    given = ["--config", str(run / "config.yaml"), "--model", str(run / "model"), "--output_dir", str(tmp_path)]
    assert main(["eval", *given]) == 0
    (found,) = json.loads((tmp_path / "results.json").read_text())["environments"]
    after = json.loads((run / "evaluation_after.json").read_text())
    assert {name: found[name] for name in after} == after


def test_what_cannot_be_measured():
    with pytest.raises(ConfigError, match="eval_every is 3 and eval_problems is 0: there is nothing to measure"):
        RunConfig(eval_every=3)
