"""Every shipped configuration: all combinations are read and checked, each file is trained with, on a CPU.

Two optimizer steps of every combination would take an hour; a file of each axis is in at least one run.
"""

from __future__ import annotations

import json
import re
import shlex
from itertools import cycle, product
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser

from dapo_trl import DAPOTrainer
from dapo_trl.adapters import peft_config
from dapo_trl.environments import make_env
from dapo_trl.errors import ConfigError
from dapo_trl.plan.devices import planned_config, spread
from dapo_trl.settings import load_settings

from .conftest import DATA, ROOT, SHIPPED_MODEL
from .tiny import save_tiny_model

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
    "optim": "adamw_torch",
}
DEVICES = {"8x80gb-vllm": ("H100 80GB", 8), "multinode": ("H100 80GB", 32), "lora-8gb": ("RTX 4060", 1)}
LOCAL_DATA = {  # in place of the Hub
    "gsm8k": {"env_kwargs": {"path": str(DATA / "gsm8k_train.jsonl")}},
    "math": {"env_kwargs": {"path": str(DATA / "math_test.jsonl")}},
}


def stem(path: Path) -> str:
    return path.stem


def flags(values: dict) -> list[str]:
    return [text for name, value in values.items() for text in (f"--{name}", json.dumps(value))]


def hardware_settings(files: list[Path], name: str, more: dict):
    """A run's settings as they would be on the devices that the file is for."""
    card, count = DEVICES.get(name, (None if name == "cpu" else "H100 80GB", 1))
    return load_settings(files, flags(more), make=planned_config(spread(None, count), card))


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
    run, args, _ = load_settings([PAPER], make=planned_config(spread(None, processes), "H20"))
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


def two_steps(files: list[Path], more: dict, folder: Path) -> DAPOTrainer:
    """Train for real; returns the trainer."""
    given = {"max_steps": 2, "output_dir": str(folder), "save_strategy": "no", "report_to": [], "logging_steps": 1}
    run, args, _ = load_settings(files, flags({**ON_CPU, **given, **more}))
    env = make_env(run.env, **run.env_kwargs)
    torch.manual_seed(0)
    trainer = DAPOTrainer(model=run.model, args=args, env=env, peft_config=peft_config(run))
    trainer.train()
    assert trainer.state.global_step == 2
    return trainer


COVERING = list(zip(HARDWARE, cycle(ALGORITHMS), strict=False))


def test_every_algorithm_is_trained_with():
    assert {algorithm for _, algorithm in COVERING} == set(ALGORITHMS)


@pytest.mark.slow
@pytest.mark.parametrize(("hardware", "algorithm"), COVERING, ids=stem)
def test_two_steps_with_every_hardware_file(hardware, algorithm, tmp_path):
    """Its own batch sizes, adapter and checkpointing; the model is the shipped one, on a CPU."""
    task = CONFIGS / "task" / "arithmetic.yaml"
    trainer = two_steps([algorithm, task, hardware], {"model": str(SHIPPED_MODEL), "learning_rate": 1e-3}, tmp_path)
    losses = [log["grad_norm"] for log in trainer.state.log_history if "grad_norm" in log]
    assert len(losses) == 2 and all(norm > 0 for norm in losses)
    adapted = any("lora_" in name for name, p in trainer.model.named_parameters() if p.requires_grad)
    assert adapted == hardware.stem.startswith(("lora", "qlora"))


@pytest.fixture(scope="module")
def patient_model(tmp_path_factory) -> str:
    """A random model with room for the longest completions."""
    return save_tiny_model(tmp_path_factory.mktemp("patient"), chat=True, context=32768)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS, ids=stem)
def test_two_steps_with_every_task_file(task, patient_model, tmp_path):
    """A random model seldom finds an answer, so that refilling is cut short."""
    more = {"model": patient_model, "max_refill_rounds": 0, **LOCAL_DATA.get(task.stem, {})}
    run, _, _ = load_settings([task], flags({**ON_CPU, **more, "max_steps": 2}))
    try:
        make_env(run.env, **run.env_kwargs)
    except ConfigError as error:
        pytest.skip(f"the data of {task.stem} are not at hand: {error}")
    two_steps([CONFIGS / "algorithm" / "textbook.yaml", task, CONFIGS / "hardware" / "cpu.yaml"], more, tmp_path)


def test_the_matrix_is_as_large_as_it_looks():
    assert len(list(product(ALGORITHMS, TASKS, HARDWARE))) >= 3 * 2 * 8
