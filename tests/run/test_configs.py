"""Every shipped configuration.

All combinations of algorithm, task and hardware are read and checked on the devices that they are for. Every file takes
part in a run of two optimizer steps on a CPU.
"""

from __future__ import annotations

import gc
import json
import math
import re
import shlex
from functools import cache
from itertools import cycle, islice
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from transformers import PrinterCallback

from dapo_trl import DAPOTrainer
from dapo_trl.plan.devices import placement, planned_config
from dapo_trl.rollout.environments import make_env
from dapo_trl.run.lora import peft_config
from dapo_trl.run.settings import load_settings

from ..conftest import ROOT
from ..support.guessing import save_guessing_model

CONFIGS = ROOT / "configs"
ALGORITHMS, TASKS, HARDWARE = (sorted((CONFIGS / axis).glob("*.yaml")) for axis in ("algorithm", "task", "hardware"))
ACCELERATE = sorted((CONFIGS / "accelerate").glob("*.yaml"))
PAPER = CONFIGS / "qwen2.5-32b-paper.yaml"
ON_CPU = {  # devices and number formats, and nothing else
    "use_cpu": True,
    "bf16": False,
    "model_init_kwargs": None,
    "use_vllm": False,
    "quantization": None,
}
DEVICES = {"8x80gb-vllm": ("H100 80GB", 8), "multinode": ("H100 80GB", 32), "lora-8gb": ("RTX 4060", 1)}
ROWS = {path.stem: str(path) for path in (ROOT / "tests" / "envs" / "data").glob("*.jsonl")}
"""a few rows in the columns of each data set of the Hub"""


def stem(path: Path) -> str:
    return path.stem


def flags(values: dict) -> list[str]:
    return [text for name, value in values.items() for text in (f"--{name}", json.dumps(value))]


def hardware_settings(files: list[Path], name: str, more: dict):
    """A run's settings as they would be on the devices that the file is for."""
    card, count = DEVICES.get(name, (None if name == "cpu" else "H100 80GB", 1))
    return load_settings(files, flags(more), make=planned_config(card, placement(None, count)))


@pytest.mark.parametrize("hardware", HARDWARE, ids=stem)
@pytest.mark.parametrize("task", TASKS, ids=stem)
@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=stem)
def test_every_combination_is_a_valid_run_on_its_devices(algorithm, task, hardware):
    run, args, _ = hardware_settings([algorithm, task, hardware], hardware.stem, {"model": "m", "max_steps": 2})
    assert run.env and args.updates_per_rollout > 1, "clip-higher would be inert"
    assert args.generation_batch_size % args.num_generations == 0
    assert (run.lora_rank > 0) == hardware.stem.startswith(("lora", "qlora"))
    assert bool(run.quantization) == hardware.stem.startswith("qlora")


@pytest.mark.parametrize("path", HARDWARE, ids=stem)
def test_every_number_of_a_hardware_file_says_why(path):
    for line in path.read_text().splitlines():
        if re.match(r"\w+: .*\d", line):
            assert "  # " in line or path.stem == "cpu", line


@pytest.mark.parametrize("path", [*HARDWARE, PAPER, *ACCELERATE], ids=stem)
def test_every_command_in_a_head_comment_names_files_and_flags_that_exist(path):
    text = path.read_text().split("\n\n")[0]
    comment = " ".join(line.lstrip("# ").rstrip("\\ ") for line in text.splitlines() if line.startswith("#"))
    found = re.findall(r"configs/[\w./-]+\.(?:yaml|json)", comment)
    assert found or path.stem == "cpu"
    for name in found:
        assert (ROOT / name).is_file(), name
    if path.parent.name != "accelerate" and path is not PAPER:
        return
    (launch,) = re.findall(r"(accelerate launch .*?) -m dapo_trl", comment)
    parsed = launch_command_parser().parse_args([*shlex.split(launch)[2:], "-m", "dapo_trl"])
    assert (ROOT / parsed.config_file).is_file()
    assert parsed.config_file.endswith(path.name) or path is PAPER


@pytest.mark.parametrize("path", ACCELERATE, ids=stem)
def test_accelerate_reads_its_files(path):
    found = load_config_from_file(str(path))
    given = yaml.safe_load(path.read_text())
    assert found.num_processes == given["num_processes"]
    assert str(found.distributed_type).split(".")[-1] == given["distributed_type"]
    known = {action.dest for action in launch_command_parser()._actions}
    sections = {**given.get("fsdp_config", {}), **given.get("deepspeed_config", {})}
    assert set(sections) <= known, set(sections) - known


def test_the_papers_run_is_the_papers():
    """512 prompts x 16 and 16 updates on each rollout batch, on the 128 devices that the file is for."""
    head = PAPER.read_text().split("\n\n")[0]
    machines, processes = (int(re.search(rf"--{name} (\d+)", head)[1]) for name in ("num_machines", "num_processes"))
    assert processes == 8 * machines == 128
    run, args, _ = load_settings([PAPER], make=planned_config("H20", placement(None, processes)))
    assert (args.groups_per_rollout, args.num_generations) == (512, 16)
    assert args.generation_batch_size == 512 * 16
    assert args.updates_per_rollout == 16 and args.num_iterations == 1
    assert args.per_device_train_batch_size * args.gradient_accumulation_steps * processes == 512
    assert args.get_warmup_steps(args.max_steps) == args.warmup_steps == 20 * 16
    assert args.lr_scheduler_type == "constant_with_warmup" and args.learning_rate == 1e-6
    assert args.max_completion_length == args.overlong_max_length == 16384 + 4096 == 20480
    assert args.overlong_cache_length == 4096 and args.overlong_shape == "soft"
    assert (args.epsilon, args.epsilon_high, args.beta, args.scale_rewards) == (0.2, 0.28, 0.0, "group")
    assert (args.group_filter, args.min_valid_fraction, args.loss_type) == ("zero_variance", 1.0, "dapo")
    assert run.env_kwargs == {"correct_reward": 1.0, "wrong_reward": -1.0}
    assert (run.eval_samples, run.eval_temperature, run.eval_top_p) == (32, 1.0, 0.7)
    assert args.vllm_max_model_length == args.max_completion_length + 2048
    assert 3 * args.generation_batch_size == args.max_round_sequences


def test_the_papers_run_and_its_algorithm_file_agree():
    paper, algorithm = (yaml.safe_load(path.read_text()) for path in (PAPER, CONFIGS / "algorithm" / "paper.yaml"))
    differing = {name for name, value in algorithm.items() if paper.get(name) != value}
    assert differing <= {"optim"}, differing  # the same optimizer, computed in one go on a GPU


def task_settings(task: Path) -> dict:
    """Local rows in place of the Hub's; the run's end."""
    local = {"env_kwargs": {"path": ROWS[task.stem]}} if task.stem in ROWS else {}
    return {**local, "max_steps": 2, "save_strategy": "no", "report_to": [], "logging_steps": 1, "disable_tqdm": True}


@pytest.fixture(scope="module")
def guessing(tmp_path_factory):
    """A model for each task that says one of the first solutions, so that now and then it is right."""

    @cache
    def model(task: Path) -> str:
        run, _, _ = load_settings([task], flags({**ON_CPU, **task_settings(task), "model": "-"}))
        env = make_env(run.env, **run.env_kwargs).unwrapped
        solutions = [env.solution(index) for index in range(min(env.num_rows or 8, 8))]
        folder = tmp_path_factory.mktemp(task.stem)
        often = 0.2 if run.env.startswith("code/") else 0.6  # programs take a process each
        return save_guessing_model(folder, list(dict.fromkeys(solutions)), often=often)

    return model


@pytest.fixture(scope="module", autouse=True)
def what_is_there_stays():
    """Trainers collect garbage; without this they look through all that is imported, every time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


COUNT = max(map(len, (ALGORITHMS, TASKS, HARDWARE)))
RUNS = list(islice(zip(cycle(ALGORITHMS), cycle(TASKS), cycle(HARDWARE), strict=False), COUNT))
"""Every file once at least."""


def test_every_file_is_trained_with():
    assert [set(column) for column in zip(*RUNS, strict=True)] == [set(ALGORITHMS), set(TASKS), set(HARDWARE)]


@pytest.mark.slow
@pytest.mark.parametrize(("algorithm", "task", "hardware"), RUNS, ids=stem)
def test_two_steps_on_a_cpu(algorithm, task, hardware, guessing, tmp_path):
    """All settings but those of devices and number formats are the files' own; the update is real."""
    given = {**ON_CPU, **task_settings(task), "model": guessing(task), "output_dir": str(tmp_path)}
    if "8bit" in yaml.safe_load(hardware.read_text()).get("optim", ""):
        given["optim"] = "adamw_torch"  # bitsandbytes pages its states to and from a GPU
    run, args, _ = load_settings([algorithm, task, hardware], flags(given))
    torch.manual_seed(0)
    env = make_env(run.env, **run.env_kwargs)
    trainer = DAPOTrainer(model=run.model, args=args, env=env, peft_config=peft_config(run))
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    counts = trainer.sampling.counts
    assert trainer.state.global_step == 2 and counts.sampled >= args.groups_per_rollout
    norms = [log["grad_norm"] for log in trainer.state.log_history if "grad_norm" in log]
    assert all(map(math.isfinite, norms))
    if args.filters_groups:  # what is kept teaches something
        assert (max(norms) > 0) == (counts.kept > 0)
    adapted = {"lora_" in name for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    assert adapted == {hardware.stem.startswith(("lora", "qlora"))}
