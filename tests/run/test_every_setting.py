"""Every boolean and every choice of `GRPOConfig`, tried once through the command line: it works, or is one line."""

from __future__ import annotations

import dataclasses
import typing
from enum import Enum

import pytest
from transformers.trainer_utils import HubStrategy, IntervalStrategy, SaveStrategy, SchedulerType
from transformers.training_args import OptimizerNames

from dapo_trl.cli.main import main
from dapo_trl.config import INHERITED, DAPOConfig
from dapo_trl.errors import ConfigError
from dapo_trl.run.settings import load_settings

from ..cli.test_main import config_file

BASE = ["--model", "m", "--env", "math/Arithmetic-v0", "--use_cpu", "true", "--max_steps", "1"]
HINTS = typing.get_type_hints(DAPOConfig)
DEFAULTS = DAPOConfig(use_cpu=True)
BOOLEANS = sorted(
    field.name
    for field in dataclasses.fields(DAPOConfig)
    if field.init and bool in (HINTS[field.name], *typing.get_args(HINTS[field.name]))
)
ENUMS = {
    "eval_strategy": IntervalStrategy,
    "hub_strategy": HubStrategy,
    "logging_strategy": IntervalStrategy,
    "lr_scheduler_type": SchedulerType,
    "optim": OptimizerNames,
    "save_strategy": SaveStrategy,
}
REFUSED = {
    "auto_find_batch_size": "is not supported by GRPO",
    "eval_on_start": "Set eval_problems",
    "eval_strategy": None,  # steps and epoch: there is no eval_dataset, which the trainer finds
    "load_best_model_at_end": "save and eval strategy to match",
    "lr_scheduler_type": "lr_scheduler_type",
    "optim": None,
    "push_to_hub": "the Hub cannot be used",
    "report_to": "report_to names 'wandb', which is not installed",
    "save_strategy": "metric_for_best_model",
    "tf32": "requires Ampere",
    "use_liger_kernel": "liger-kernel is not installed",
    "use_vllm": "vLLM is not available",
}
"""Parts of the lines that answer some of them, on a machine without GPU, vLLM and network."""
ALONE = {"full_determinism", "torch_compile", "use_transformers_continuous_batching", "use_transformers_paged"}
"""Changes the process for good, or takes half a minute: only read here."""


def choices() -> list[tuple[str, str]]:
    found = [(name, member.value) for name, kind in ENUMS.items() for member in kind]
    for field in dataclasses.fields(DAPOConfig):
        limits = field.metadata.get("limits") or INHERITED.get(field.name)
        found += [(field.name, choice) for choice in limits.choices] if limits else []
    return found


def test_no_choice_is_forgotten():
    """A setting whose type is an enumeration is on the list."""
    kinds = {name: [kind for kind in typing.get_args(hint) if isinstance(kind, type)] for name, hint in HINTS.items()}
    assert {name for name, found in kinds.items() if any(issubclass(kind, Enum) for kind in found)} == ENUMS.keys()
    assert len(BOOLEANS) > 60 and len(choices()) > 80


@pytest.mark.parametrize(("name", "value"), choices(), ids=lambda it: str(it))
def test_every_choice_is_taken_or_refused_in_one_line(name, value):
    try:
        _, args, _ = load_settings([], [*BASE, f"--{name}", value])
    except ConfigError as error:
        assert name in REFUSED and (REFUSED[name] or "") in str(error) and "\n" not in str(error)
    else:
        assert getattr(args, name) in (value, *(member for member in ENUMS.get(name, ()) if member.value == value))


@pytest.mark.parametrize("name", BOOLEANS)
def test_every_boolean_is_taken_or_refused_in_one_line(name):
    flip = not getattr(DEFAULTS, name)
    flags = [flag for flag in BASE if name != "use_cpu" or flag not in ("--use_cpu", "true")]
    try:
        _, args, _ = load_settings([], [*flags, f"--{name}", str(flip).lower()])
    except ConfigError as error:
        assert name in REFUSED and REFUSED[name] in str(error) and "\n" not in str(error)
    else:
        assert getattr(args, name) is flip or name in ("dataloader_pin_memory", "include_num_input_tokens_seen")


WORKING = [name for name in BOOLEANS if name not in {*REFUSED, *ALONE, "fp16", "fp16_full_eval", "use_cpu"}]
GROUPS = {f"{group}": WORKING[group::4] for group in range(4)}
RUNS: dict[str, dict] = {name: {item: not getattr(DEFAULTS, item) for item in names} for name, names in GROUPS.items()}
RUNS |= {name: {name: True} for name in ("push_to_hub", "use_vllm", "use_liger_kernel", "fp16")}
RUNS |= {
    f"loss_type {kind}": {"loss_type": kind} for kind in ("grpo", "dr_grpo", "bnpo", "cispo", "sapo", "luspo", "vespo")
}
RUNS |= {
    "eval_strategy": {"eval_strategy": "steps"},
    "optim": {"optim": "galore_adamw"},
    "report_to": {"report_to": "wandb"},
}


@pytest.mark.parametrize("name", RUNS)
def test_runs(name, tmp_path, capsys, monkeypatch):
    """They train for a step, all of a group together; what needs a package or the Hub is refused in one line."""
    monkeypatch.setattr("dapo_trl.run.train.write_report", lambda folders: "none")
    small = {"max_steps": 1, "max_completion_length": 8, "max_refill_rounds": 0, "steps_per_generation": 1}
    code = main(["train", "--config", config_file(tmp_path, **{**small, "report_to": "none", **RUNS[name]})])
    error = capsys.readouterr().err
    if name in REFUSED:
        assert code == 2 and error.startswith("error: ") and error.count("\n") == 1 and (REFUSED[name] or "") in error
    else:
        assert code == 0, error
    if RUNS[name].get("log_completions"):
        assert list((tmp_path / "run" / "completions").glob("*.parquet"))


def test_completions_are_logged_over_those_of_an_earlier_run(tmp_path, monkeypatch):
    monkeypatch.setattr("dapo_trl.run.train.write_report", lambda folders: "none")
    old = tmp_path / "run" / "completions" / "old.parquet"
    old.parent.mkdir(parents=True)
    old.touch()
    (tmp_path / "run" / "metrics.jsonl").touch()
    small = {"max_steps": 1, "max_completion_length": 8, "max_refill_rounds": 0, "log_completions": True}
    assert main(["train", "--config", config_file(tmp_path, overwrite=True, **small)]) == 0
    assert [path.name for path in old.parent.iterdir()] == ["completions_00001.parquet"]
