"""Two processes from beginning to end: a model in shards, and a process that fails."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from dapo_trl.checkpoint.files import problem
from dapo_trl.cli.main import main
from dapo_trl.distributed import explain_lost_process
from dapo_trl.errors import LostProcessError
from dapo_trl.monitor.status import seen
from dapo_trl.run.lora import merge_adapter

from .cli.test_main import config_file
from .conftest import ROOT, SHIPPED_MODEL
from .support.warm_start import CPU_2, FSDP2_CPU_2

TIMEOUT_SECONDS = 240
IDS = torch.arange(6)[None]


def deepspeed_launch(folder, kind):
    """Runs commands by a file of configs/accelerate, on two CPU processes and in float32."""
    pytest.importorskip("deepspeed", reason="DeepSpeed is not installed")
    shipped = yaml.safe_load((ROOT / "configs" / "accelerate" / f"{kind}.yaml").read_text(encoding="utf-8"))
    path = folder / f"{kind}-cpu-2.yaml"
    here = {"num_processes": 2, "use_cpu": True, "mixed_precision": "no", "main_process_port": 0}
    path.write_text(yaml.safe_dump(shipped | here), encoding="utf-8")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(path), "-m", "dapo_trl"]
    env = os.environ | {"DS_ACCELERATOR": "cpu", "LOCAL_SIZE": "2"}

    def run(*arguments):
        return subprocess.run([*launch, *arguments], cwd=ROOT, env=env, capture_output=True, text=True)

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "rank"), [("fsdp2", 0), ("fsdp2", 8), ("zero2", 0), ("zero3", 0), ("zero3", 8)],
)  # fmt: skip
def test_a_sharded_model_from_training_to_plain_transformers(warm_start, tmp_path, kind, rank):
    """Refill rounds, completions and problems to measure that are not equally many on both; resumed, saved."""
    if kind == "fsdp2":
        launch = functools.partial(warm_start.run, "tests.support.sharded_run", accelerate=FSDP2_CPU_2)
    else:
        launch = deepspeed_launch(tmp_path, kind)

    def train(*arguments):
        done = launch("train", *arguments)
        assert done.returncode == 0, done.stderr[-3000:]

    path = config_file(
        tmp_path, lora_rank=rank, learning_rate=1e-3, min_valid_fraction=1.0, num_generations=2, save_strategy="steps",
        save_steps=2, env_kwargs={"levels": [3], "split": "train"}, per_device_train_batch_size=4,
        max_completion_length=56, eval_problems=5, eval_samples=4,
    )  # fmt: skip
    train("--config", path)
    run = tmp_path / "run"
    logs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert any(row.get("sampling/refill_rounds") for row in logs)
    assert json.loads((run / "evaluation_after.json").read_text())["problems"] == 5
    assert next(row["kl"] for row in logs if "kl" in row) < 0.01, "the reference model is the one that was loaded"
    before = json.loads((run / "evaluation_before.json").read_text())
    evaluation = ["eval", "--config", str(run / "config.yaml"), "--model", str(SHIPPED_MODEL)]
    assert main([*evaluation, "--problems", "5", "--seed", "42", "--output_dir", str(tmp_path / "alone")]) == 0
    [alone] = json.loads((tmp_path / "alone" / "results.json").read_text())["environments"]
    assert before["accuracy"] == alone["accuracy"]
    assert before["mean_length"] == pytest.approx(alone["mean_length"], abs=1.0)  # another batch rounds otherwise

    file = "adapter_model.safetensors" if rank else "model.safetensors"
    saved, base = (
        load_file(run / "model" / file),
        AutoModelForCausalLM.from_pretrained(SHIPPED_MODEL, dtype=torch.float32),
    )
    if rank:
        found = PeftModel.from_pretrained(base, str(run / "model"))
        assert any(value.any() for name, value in found.named_parameters() if "lora_B" in name)
        merged = merge_adapter(run / "model", tmp_path / "merged", str(SHIPPED_MODEL), dtype="float32")
        assert torch.allclose(merged(IDS).logits, found(IDS).logits, atol=1e-4)
    else:
        found = AutoModelForCausalLM.from_pretrained(run / "model")
        before, after = base.state_dict(), found.state_dict()
        assert before.keys() == after.keys() and {value.dtype for value in saved.values()} == {torch.float32}
        assert all(after[name].shape == value.shape for name, value in before.items())
        assert any((after[name] - value).abs().max() > 1e-4 for name, value in before.items())
    assert found(IDS).logits.isfinite().all()

    for left in ("checkpoint-4", "model"):
        shutil.rmtree(run / left)
    assert problem(run / "checkpoint-2") is None
    assert "by 2 optimizer steps" in (run / "checkpoint-2" / "README.md").read_text(encoding="utf-8")
    train("--config", path, "--resume_from_checkpoint", "latest", "--eval_problems", "0")
    again = load_file(run / "model" / file)
    assert again.keys() == saved.keys() and all(torch.equal(again[name], value) for name, value in saved.items())


@pytest.mark.slow
@pytest.mark.parametrize(("where", "how"), [("sampling", "SIGKILL"), ("updating", "SIGKILL"), ("updating", "silence")])
def test_a_process_that_fails_ends_the_run_with_one_line(warm_start, tmp_path, where, how):
    """Killed, it is noticed at once; one that is silent, after ``ddp_timeout`` (without it, in half an hour)."""
    path = config_file(tmp_path, steps_per_generation=1, save_strategy="steps", save_steps=1, ddp_timeout=5)
    sign = str(tmp_path / "run" / "checkpoint-1" / "dapo_manifest.json")
    arguments = ["tests.support.mortal_run", where, how, sign, "train", "--config", path]
    if where == "sampling":  # with the launcher, whose report follows
        launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", CPU_2, "-m", *arguments]
        done = subprocess.run(launch, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
        assert done.returncode == 1 and "exitcode  : -9" in done.stderr
    else:
        done = warm_start.run(*arguments, accelerate=CPU_2, timeout=TIMEOUT_SECONDS)
        assert done.returncodes == [1, -signal.SIGKILL if how == "SIGKILL" else -signal.SIGTERM]
    said = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert len(said) == 1 and "another process of this run has ended, or has not answered" in said[0], done.stderr
    assert "[rank0]" not in done.stderr  # no traceback but the launcher's report
    last = f"The last checkpoint is {tmp_path / 'run' / 'checkpoint-1'}: resume with"
    assert last in done.stdout and problem(tmp_path / "run" / "checkpoint-1") is None
    state, why = seen(tmp_path / "run", newest=None) or ("", "")
    assert state == "failed" and why in said[0]


def test_only_the_loss_of_a_process_is_called_one(monkeypatch):
    def fail(error):
        with explain_lost_process():
            raise error

    gone = RuntimeError("[pair.cc:553] Connection closed by peer [127.0.0.1]:46994.")
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: False)
    with pytest.raises(RuntimeError, match="closed by peer"):
        fail(gone)  # a single process has nobody to lose
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    for error in (gone, torch.distributed.DistBackendError("NCCL error: remote process exited")):
        with pytest.raises(LostProcessError, match="another process of this run has ended"):
            fail(error)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        fail(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
