"""Training on programs that a model writes and the sandbox runs, for real, in seconds."""

from __future__ import annotations

import json
import os

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dapo_trl import DAPOTrainer
from dapo_trl.rollout.environments import make_env
from envs import RecordVerdicts
from envs.sandbox import SandboxUnavailable, open_sandbox

from .support.processes import descendants, gone
from .support.recorded import config

ROWS = [
    {"prompt": task, "tests": {"kind": "stdin", "inputs": ["3", "-1", "20"], "outputs": outputs}}
    for task, outputs in (("Double it.", ["6", "-2", "40"]), ("Square it.", ["9", "1", "400"]))
]
PROGRAMS = ("print(int(input())*2)", "print(int(input())**2)", "while 1:0")
"""One that is right for the first row, one for the second, and one that never ends."""
STEPS = 120


@pytest.fixture
def sandbox():
    sandbox = open_sandbox()
    try:
        assert sandbox.isolation
    except SandboxUnavailable as reason:
        pytest.skip(str(reason))
    sandbox.close()  # what it starts from here on is the test's
    yield sandbox
    sandbox.close()


@pytest.fixture
def writer(tiny_model, tmp_path, sandbox):
    """A model that knows the programs by heart, but not when to write which."""
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_model), AutoModelForCausalLM.from_pretrained(tiny_model)
    env = make_env("code/Program-v0", rows=ROWS)
    prompts = [tokenizer(env.reset(options={"index": index})[0])["input_ids"] for index in range(len(ROWS))]
    answers = [tokenizer(f"```python\n{program}\n```")["input_ids"] + [tokenizer.eos_token_id] for program in PROGRAMS]
    texts = [prompt + answer for prompt in prompts for answer in answers]
    places = torch.arange(max(map(len, texts)))
    ids = torch.tensor([text + [tokenizer.pad_token_id] * (len(places) - len(text)) for text in texts])
    starts = torch.tensor([[len(prompt)] for prompt in prompts for _ in answers])
    is_text = places < torch.tensor([[len(text)] for text in texts])
    labels = ids.masked_fill((places < starts) | ~is_text, -100)
    optimizer = torch.optim.Adam(model.parameters())
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 1e-2 * min(1.0, 2 * (1 - step / STEPS))
        optimizer.zero_grad()
        model(input_ids=ids, attention_mask=is_text.long(), labels=labels).loss.backward()
        optimizer.step()
    model.save_pretrained(tmp_path / "writer")
    tokenizer.save_pretrained(tmp_path / "writer")
    return str(tmp_path / "writer")


@pytest.mark.slow
def test_training_on_programs(sandbox, writer, tmp_path):
    """Rewards vary, programs that hang hold nothing up, and nothing is left behind."""
    others = descendants(os.getpid())
    env = make_env("code/Program-v0", rows=ROWS, limits={"cpu_seconds": 0.2, "wall_seconds": 20})
    args = config(
        tmp_path / "run",
        per_device_train_batch_size=16,
        num_generations=8,
        max_completion_length=48,
        overlong_max_length=48,
        max_steps=3,
        logging_steps=1,
        learning_rate=1e-4,
    )
    run = DAPOTrainer(model=writer, args=args, env=RecordVerdicts(env, tmp_path / "verdicts.jsonl"))
    run.train()
    logs = [log for log in run.state.log_history if "accuracy/sampled" in log]
    assert len(logs) == 3
    assert all(0 < log["accuracy/sampled"] < 1 and log["groups/kept"] >= 1 and log["reward_std"] > 0 for log in logs)
    assert all(log["sampling/unscorable"] == 0 for log in logs)
    records = list(map(json.loads, (tmp_path / "verdicts.jsonl").read_text().splitlines()))
    assert {"correct", "wrong", "timeout"} <= {record["verdict"] for record in records if "verdict" in record}
    started = descendants(os.getpid()) - others
    sandbox.close()
    assert started and gone(started)
