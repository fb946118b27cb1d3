"""The command line, run as people run it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from dapo_trl.cli.main import main
from dapo_trl.monitor.status import seen
from dapo_trl.run.train import _report

from ..conftest import ROOT, SHIPPED_MODEL
from ..support.warm_start import CPU_2, WarmStart

SMALL = {
    "env": "math/Arithmetic-v0",
    "env_kwargs": {"levels": [1], "split": "train"},
    "per_device_train_batch_size": 8,
    "steps_per_generation": 2,
    "num_generations": 4,
    "max_completion_length": 24,
    "max_steps": 4,
    "learning_rate": 1e-4,
    "logging_steps": 1,
    "save_strategy": "no",
    "gradient_checkpointing": False,
    "ddp_find_unused_parameters": False,
    "use_cpu": True,
    "bf16": False,
}


def config_file(folder: Path, **changes) -> str:
    path = folder / "config.yaml"
    settings = {"model": str(SHIPPED_MODEL), "output_dir": str(folder / "run"), **SMALL, **changes}
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def here(capsys, *arguments: str) -> tuple[int, str]:
    """Exit code and output of a command in this process, which has imported everything already."""
    code = main(arguments)
    return code, "".join(capsys.readouterr())


@pytest.mark.slow
def test_a_run_leaves_everything_behind(warm_start, tmp_path, capsys):
    path = config_file(tmp_path, eval_problems=6, eval_samples=2)
    done = warm_start.run("dapo_trl", "train", "--config", path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
    assert {"config.yaml", "curves.png", "evaluation_before.json", "evaluation_after.json", "model"} <= {
        path.name for path in run.iterdir()
    }
    assert f"report: {run / 'report.html'}   (" in done.stdout and (run / "report.html").stat().st_size > 50_000
    assert rollouts(run)
    for line in rollouts(run):
        assert line["verdict"] in ("correct", "wrong", "no_answer") and line["accuracy"] == (
            line["verdict"] == "correct"
        )
        left, sign, right = re.search(r"Compute (\d+) ([+-]) (\d+)", line["prompt"]).groups()
        assert line["solution"].endswith(f"Answer: {int(left) + int(sign + right)}")
    assert seen(run, newest=None) == ("finished", "")
    assert json.loads((run / "settings.json").read_text())["epsilon"] == 0.2  # which was not asked for
    assert (run / "model" / "model.safetensors").is_file() and (run / "model" / "tokenizer.json").is_file()
    assert re.search(r"held-out accuracy before: [01]\.\d+  95 % interval", done.stdout)
    assert re.search(r"\d+ groups sampled: \d+ informative", done.stdout)
    assert re.search(r"^ +round 1 of at most \d+: \d of 4 groups informative", done.stdout, re.MULTILINE)
    assert "Traceback" not in done.stderr

    code, output = here(capsys, "train", "--config", config_file(tmp_path))
    assert code == 2 and "holds a run already" in output and "--overwrite true" in output


def test_a_run_asks_with_the_same_examples_in_training_and_measurement(tmp_path, capsys):
    asked = {"env": "math/Problem-v0", "few_shot": 2, "prompt_template": "{question}\n"}
    rows = {"rows": [{"prompt": f"{number}+1", "answer": str(number + 1)} for number in range(8)]}
    changes = {"eval_problems": 2, "eval_samples": 1, "max_steps": 1, "record_verdicts": True, "max_refill_rounds": 0}
    path = config_file(tmp_path, **asked, **changes, env_kwargs={**rows, "answer_style": "last_number"})
    code, output = here(capsys, "train", "--config", path)
    assert code == 0, output
    described = json.loads((tmp_path / "run" / "environment.json").read_text())
    shown = [described[name]["spec"]["additional_wrappers"][0]["kwargs"] for name in ("train", "held_out")]
    assert shown[0] == shown[1] and len(shown[0]["few_shot"]) == 4
    examples = {turn["content"] for turn in shown[0]["few_shot"]}
    lines = rollouts(tmp_path / "run")
    assert lines and all(line["question"] not in {text.split("\n")[0] for text in examples} for line in lines)
    code, output = here(capsys, "envs", "replay", str(tmp_path / "run"))
    assert code == 0 and "0 differ" in output


@pytest.mark.slow
def test_two_processes(tmp_path):
    path = config_file(tmp_path, eval_problems=5, eval_samples=2, eval_every=2, record_verdicts=True)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", CPU_2, "-m", "dapo_trl"]
    done = subprocess.run([*launch, "train", "--config", path], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 process(es)" in done.stdout and done.stdout.count("held-out accuracy after:") == 1
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert next(row for row in rows if "groups/sampled" in row)["groups/sampled"] >= 8
    assert [row["step"] for row in rows if "eval_accuracy" in row] == [2, 4]
    completions = sum(row.get("groups/sampled", 0) for row in rows) * 4
    files = [(tmp_path / "run" / f"verdicts-{process}.jsonl").read_text().splitlines()[1:] for process in (0, 1)]
    assert [len(lines) for lines in files] == [completions / 2, completions / 2]  # each process judges its own, once
    recorded = [rollouts(tmp_path / "run", process) for process in (0, 1)]
    for batch in {line["batch"] for lines in recorded for line in lines}:
        kept = [
            (line["batch"], line["index"], line["pieces"])
            for lines in recorded
            for line in lines
            if line["batch"] == batch
        ]
        assert 1 <= len(kept) <= 8  # of both processes together
    assert all(recorded)


def rollouts(folder: Path, process: int = 0) -> list[dict]:
    return [json.loads(line) for line in (folder / f"rollouts-{process}.jsonl").read_text().splitlines()]


def test_an_alarm_may_end_a_run(tmp_path, capsys):
    """There is no room for an answer: after three rollout batches nothing informative is certain."""
    changes = {"max_completion_length": 4, "max_steps": 20, "steps_per_generation": 1, "max_refill_rounds": 0}
    code, output = here(capsys, "train", "--config", config_file(tmp_path, **changes, on_alarm="stop"))
    assert code == 1, output
    assert "alarm, nothing informative: 0.0% of the" in output and "--on_alarm warn" in output
    assert (tmp_path / "run" / "checkpoint-3").is_dir()
    why = "By the alarm 'nothing informative' (on_alarm is 'stop')."
    assert seen(tmp_path / "run", newest=None) == ("stopped", why)


def test_a_report_that_cannot_be_written_does_not_fail_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr("dapo_trl.run.train.write_report", lambda folders: 1 / 0)
    assert _report(tmp_path) == "report: not written (ZeroDivisionError: division by zero)"


def interrupted(warm_start: WarmStart, config: str, number: int) -> int:
    """The optimizer step at which a run has stopped that got a signal after its third; it is checked how it ended."""
    folder = Path(config).parent / "run"
    metrics = folder / "metrics.jsonl"
    running = warm_start.start("dapo_trl", "train", "--config", config)
    deadline = time.time() + 240
    while not (metrics.exists() and metrics.read_text().count("\n") >= 3):
        assert not running.poll() and time.time() < deadline, running.wait(0)
        time.sleep(0.1)
    running.send_signal(number)
    done = running.wait()
    output = done.stdout + done.stderr
    assert done.returncode == 130, output
    assert "Traceback" not in output and "--resume_from_checkpoint latest" in output
    assert (seen(folder, newest=None) or [""])[0] == "interrupted"
    checkpoint = max(folder.glob("checkpoint-*"))
    step = int(checkpoint.name.split("-")[1])
    assert 3 <= step < 200
    return step


@pytest.mark.slow
def test_a_terminated_run_stops_cleanly(warm_start, tmp_path):
    interrupted(warm_start, config_file(tmp_path, max_steps=200), signal.SIGTERM)


@pytest.mark.slow
def test_an_interrupted_run_stops_cleanly_and_goes_on(warm_start, tmp_path):
    path = config_file(tmp_path, max_steps=200)
    stopped = interrupted(warm_start, path, signal.SIGINT)
    metrics = tmp_path / "run" / "metrics.jsonl"
    resume = ["--resume_from_checkpoint", "latest", "--max_steps", str(stopped + 2)]
    done = warm_start.run("dapo_trl", "train", "--config", path, *resume)
    assert done.returncode == 0, done.stdout + done.stderr
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines() if '"loss"' in line]
    assert steps == list(range(1, stopped + 3))
    seconds = [json.loads(line)["seconds"] for line in metrics.read_text().splitlines()]
    assert seconds == sorted(seconds) and seen(tmp_path / "run", newest=None) == ("finished", "")
    assert max(Counter(line["batch"] for line in rollouts(tmp_path / "run")).values()) <= 8


@pytest.mark.parametrize(
    ("changes", "flags", "message"),
    [
        ({}, ["--learnin_rate", "1"], "Did you mean learning_rate?"),
        (
            {},
            ["--num_generations", "7"],
            "16 completions per rollout batch, which is not a multiple of num_generations 7",
        ),
        ({"env": "math/Aritmetic-v0"}, [], "Did you mean math/Arithmetic-v0"),
        ({"env": "math/Problem-v0", "env_kwargs": {"path": "missing.jsonl"}}, [], "missing.jsonl"),
        ({"env": "math/Problem-v0", "env_kwargs": {"rows": [{"prompt": "?"}]}}, [], "row 0 of rows"),
        ({"model": "no/such/model"}, [], "model is 'no/such/model' and cannot be loaded"),
        ({"model": "models/arithmetic-08m"}, [], "Did you mean models/arithmetic-0.8m?"),
        ({"output_dir": "README.md"}, [], "output_dir README.md is a file"),
        ({"output_dir": "README.md/run"}, [], "README.md is a file, so there can be no folder below it"),
        ({"output_dir": "/proc/run"}, [], "output_dir is /proc/run: /proc cannot be written to"),
        ({}, ["--learning_rate", "-1"], "learning_rate is -1.0 (float): it must be a number, 0 or more"),
        ({}, ["--logging_steps", "0"], "logging_steps is 0: it must be above 0"),
        ({}, ["--resume_from_checkpoint", "latest"], "holds no checkpoint"),
        ({"max_steps": -1}, [], "is endless and max_steps is -1"),
        ({}, ["--temperature", "0"], "temperature"),
        ({}, ["--reward_weights", "[1, 2, 3]"], "reward weights"),
        ({}, ["--eval_strategy", "steps"], "eval_dataset"),
        (
            {"env": "math/Problem-v0", "env_kwargs": {"rows": [{"prompt": "1+1", "answer": "2"}]}, "eval_problems": 5},
            [],
            "eval_problems is 5, and so many problems of math/Problem-v0 would be kept apart from training",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path, capsys, changes, flags, message):
    assert main(["train", "--config", config_file(tmp_path, **changes), *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_overwrite_replaces_a_run_and_touches_nothing_else(tmp_path):
    (tmp_path / "run" / "notes").mkdir(parents=True)
    (tmp_path / "run" / "notes" / "mine.txt").write_text("mine")
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 99}\n')
    wrong = main(["train", "--config", config_file(tmp_path), "--overwrite", "true", "--model", "no/such/model"])
    assert wrong == 2 and (tmp_path / "run" / "metrics.jsonl").read_text() == '{"step": 99}\n'
    assert main(["train", "--config", config_file(tmp_path, max_steps=1), "--overwrite", "true"]) == 0
    assert '"step": 99' not in (tmp_path / "run" / "metrics.jsonl").read_text()
    assert (tmp_path / "run" / "notes" / "mine.txt").read_text() == "mine"


def test_a_folder_of_something_else_is_never_written_over(tmp_path, capsys):
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "mine.txt").write_text("mine")
    for flags in ([], ["--overwrite", "true"]):
        assert main(["train", "--config", config_file(tmp_path), *flags]) == 2
        assert "holds model, which the run would replace" in capsys.readouterr().err
    assert (tmp_path / "run" / "model" / "mine.txt").read_text() == "mine"


def test_a_runs_settings_make_the_same_run_again(tmp_path):
    assert main(["train", "--config", config_file(tmp_path, max_steps=1)]) == 0
    again = ["--config", str(tmp_path / "run" / "config.yaml"), "--output_dir", str(tmp_path / "again")]
    assert main(["train", *again]) == 0
    made = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("run", "again")]
    assert all(torch.equal(value, made[1][name]) for name, value in made[0].items())


def test_help_does_not_wait_for_torch():
    code = "import sys; from dapo_trl.cli.main import main\ntry: main(['train', '--help'])\nexcept SystemExit: pass\n"
    done = subprocess.run(
        [sys.executable, "-c", code + "assert 'torch' not in sys.modules"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0 and "--config FILE" in done.stdout, done.stderr


def test_gsm8k_with_a_model_that_knows_nothing_says_so_plainly(data, tiny_chat_model, tmp_path, capsys):
    """Real questions, several optimizer steps, reward 0 throughout."""
    code, output = here(
        capsys, "train", "--config", str(ROOT / "configs" / "algorithm" / "textbook.yaml"), config_file(
            tmp_path, model=tiny_chat_model, env="math/Problem-v0", max_refill_rounds=1, max_completion_length=16,
            env_kwargs={"path": str(data / "gsm8k_train.jsonl"), "prompt_column": "question"},
        ),
    )  # fmt: skip
    assert code == 0, output
    output = " ".join(output.split())
    assert (
        "no update, nothing to learn from. 0 of" in output
        and "nothing to learn from (8 all wrong" in output
        and "of the completions were cut off at the length limit before they ended: raise max_completion" in output
        and "too hard for this model" not in output
    )
    assert "Nothing was learnt (accuracy 0.000 at first, 0.000 at last)" in output
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]


def test_a_reader_that_has_enough_is_no_error():
    command = f"{sys.executable} -m dapo_trl configs | head -1"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout and not done.stderr


@pytest.mark.parametrize(
    ("load", "given", "expected"),
    [
        (0.1, {}, {"GOMP_SPINCOUNT": "3000"}),
        (50.0, {}, {"OMP_WAIT_POLICY": "PASSIVE"}),
        (50.0, {"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        (0.1, {"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
    ],
)
def test_threads_wait_by_the_load_unless_the_user_says_how(monkeypatch, load, given, expected):
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    for name in names:  # set first, so that what the command sets is taken back too
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("os.getloadavg", lambda: (load, load, load))
    with pytest.raises(SystemExit):
        main(["--version"])
    assert {name: os.environ[name] for name in names if name in os.environ} == expected
