"""A run that is killed, interrupted or out of disk in any phase goes on with the next command, and nothing is lost."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dapo_trl.cli.main import main
from dapo_trl.monitor.status import seen

from ..cli.test_eval import arguments, rows
from ..cli.test_main import config_file
from ..support.warm_start import CPU_2, WarmStart

STEPS = 7
PHASES = ("sampling", "judging", "updating", "saving", "evaluating")
SETTINGS = {
    **{"max_steps": STEPS, "steps_per_generation": 1, "max_completion_length": 16, "group_filter": "none", "beta": 0.0},
    **{"save_strategy": "steps", "save_steps": 1, "save_total_limit": 2, "record_rollouts": 0, "report_to": "none"},
    **{"eval_problems": 2, "eval_samples": 1, "eval_every": 1},
}
ENDS = {  # how a phase ends the run: exit code, status, and what it prints
    "SIGKILL": (-signal.SIGKILL, "killed", ""),
    "SIGINT": (130, "interrupted", "--resume_from_checkpoint latest"),
    "full": (1, "failed", "cannot be written to any more"),
}


def train(warm_start: WarmStart, config: str, *more: str, failing: tuple[str, ...] = (), processes: int = 1):
    program = ["tests.support.mortal_run", *failing] if failing else ["dapo_trl"]
    accelerate = CPU_2 if processes == 2 else None
    return warm_start.run(*program, "train", "--config", config, *more, accelerate=accelerate, timeout=120)


@pytest.fixture(scope="module")
def undisturbed(warm_start, tmp_path_factory) -> Path:
    """The folder of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert train(warm_start, config_file(folder, **SETTINGS)).returncode == 0
    return folder / "run"


def logged(run: Path, name: str) -> list[tuple[int, float]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row[name]) for row in found if name in row]


@pytest.mark.parametrize(
    ("ends", "processes"),
    [
        ([*((phase, "SIGKILL") for phase in PHASES), ("saving", "full")], 1),
        ([(phase, "SIGINT") for phase in PHASES], 1),
        ([("judging", "SIGKILL"), ("saving", "SIGKILL"), ("evaluating", "SIGINT")], 2),
    ],
    ids=["killed", "interrupted", "two-processes"],
)
def test_it_goes_on_from_any_phase_and_ends_as_if_nothing_had_happened(
    warm_start, undisturbed, tmp_path, ends, processes
):
    """One run, ended in one phase after the other."""
    config, run = config_file(tmp_path, **SETTINGS), tmp_path / "run"
    sign, resume = str(run / "checkpoint-1" / "dapo_manifest.json"), ()
    for phase, how in ends:
        ended = train(warm_start, config, *resume, failing=(phase, how, sign), processes=processes)
        output, (code, status, said) = ended.stdout + ended.stderr, ENDS[how]
        assert ended.returncodes[-1] == code and said in output, (phase, how, output)
        assert "Traceback" not in output and output.count("error") <= 1, (phase, how, output)
        if processes == 1:
            assert (seen(run, newest=None) or [""])[0] == status, (phase, how)
        sign, resume = str(run), ("--resume_from_checkpoint", "latest")
    ended = train(warm_start, config, *resume, processes=processes)
    assert ended.returncode == 0 and "Resuming from step" in ended.stdout, ended.stderr
    assert seen(run, newest=None) == ("finished", "")
    for name in ("loss", "eval_accuracy"):
        assert [step for step, _ in logged(run, name)] == list(range(1, STEPS + 1)), name
    assert (run / "evaluation_after.json").is_file() and (run / "report.html").is_file()
    if processes == 1:
        assert logged(run, "loss") == logged(undisturbed, "loss")
        assert logged(run, "eval_accuracy") == logged(undisturbed, "eval_accuracy")
        found, expected = (load_file(folder / "model" / "model.safetensors") for folder in (run, undisturbed))
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_before_the_first_checkpoint_the_same_command_begins_anew(warm_start, tmp_path):
    config = config_file(tmp_path, **{**SETTINGS, "max_steps": 1})
    killed = train(warm_start, config, failing=("evaluating", "SIGKILL", str(tmp_path / "run")))
    assert killed.returncode == -signal.SIGKILL
    assert train(warm_start, config).returncode == 0 and seen(tmp_path / "run", newest=None) == ("finished", "")


def test_an_evaluation_goes_on_with_the_same_command(warm_start, tmp_path):
    """Killed, then interrupted, each after a batch of samples is in the journal."""
    command = arguments(tmp_path / "ended", "--batch_tokens", "300")
    journal = tmp_path / "ended" / "samples-0.jsonl"
    for how, code in (("SIGKILL", -signal.SIGKILL), ("SIGINT", 130)):
        ended = warm_start.run("tests.support.mortal_run", "journal", how, str(journal), *command)
        assert ended.returncode == code and not (journal.parent / "results.json").exists(), ended.stderr
    kept = sum(line.startswith("{") for line in journal.read_text().splitlines())
    again = warm_start.run("dapo_trl", *command)
    assert again.returncode == 0 and f"{kept} of 18 samples are there already" in again.stdout and 0 < kept < 18
    assert main(arguments(tmp_path / "whole")) == 0
    assert rows(journal.parent) == rows(tmp_path / "whole")
