"""Hundreds of wrong requests, each answered by one line and exit code 2."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import pytest

from dapo_trl.cli.main import main

from ..conftest import ROOT, SHIPPED_MODEL

REQUESTS = [
    line.split("  =>  ")
    for line in (ROOT / "tests" / "data" / "wrong_requests.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]
RUN = (
    "train --config configs/hardware/cpu.yaml --model models/arithmetic-0.8m --env math/Arithmetic-v0 --max_steps 1 "
    "--per_device_train_batch_size 4 --num_generations 4 --steps_per_generation 1 --max_completion_length 8 "
    "--max_refill_rounds 0 --save_strategy no --report_to none --output_dir {tmp}/run"
)
ENVIRONMENTS = """
import gymnasium
from envs import TaskEnv

class Abstract(TaskEnv):
    num_rows = 1

class Broken(Abstract):
    def __init__(self):
        raise KeyError("gone")
    def row(self, index):
        return {"prompt": "?"}
    def verify(self, index, completion):
        return 1.0

for name in ("Abstract", "Broken", "Lost"):
    gymnasium.register(f"my/{name}-v0", entry_point=f"mine:{name}")
"""
FILES: dict[str, str | bytes] = {
    "adapter/adapter_config.json": "{}",
    "array.jsonl": '{"prompt": "1+1", "answer": "2"}\n[1]\n',
    "bad.jsonl.gz": "not gzip",
    "bad.parquet": "not a parquet file",
    "badtests.jsonl": '{"prompt": "write f", "tests": "nonsense"}\n',
    "bomb.yaml": "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)),
    "big.yaml": "#" * (1 << 20) + "\na: 1\n",
    "broken.jsonl": '{"prompt": "1+1", "answer": "2"}\n{"prompt": \n',
    "data.csv": "prompt: 1\n",
    "deep.yaml": "env_kwargs: " + "[" * 100_000,
    "empty.jsonl": "",
    "full/config.json": '{"model_type": "nope"}',
    "good.jsonl": '{"prompt": "1+1", "answer": "2"}\n',
    "list.yaml": "- a\n",
    "merge.yaml": "a0: &a0 {k: 1}\n"
    + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 10)),
    "mine.py": ENVIRONMENTS,
    "noanswer.jsonl": '{"prompt": "1+1", "answer": null}\n',
    "nocolumn.jsonl": '{"question": "1+1"}\n',
    "noreg.py": "import gymnasium\n",
    "noweights/config.json": (SHIPPED_MODEL / "config.json").read_bytes(),
    "number.yaml": "1: 2\n",
    "syntax.py": "def f(:\n",
    "torn.yaml": "a: [1",
    "torn/config.json": '{"model_',
    "typo.yaml": "learing_rate: 1\n",
    "utf16.yaml": b"\xff\xfe",
    "word.yaml": "learning_rate: fast\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Iterator[Path]:
    """Files of all kinds; its modules and their environments are forgotten afterwards."""
    folder = tmp_path_factory.mktemp("requests")
    (folder / "emptydir").mkdir()
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    for module in ("mine", "noreg", "syntax"):
        sys.modules.pop(module, None)
    for name in [name for name in gymnasium.registry if name.startswith("my/")]:
        del gymnasium.registry[name]


def test_there_are_many():
    assert len(REQUESTS) >= 120 and len({command for command, _ in REQUESTS}) == len(REQUESTS)


@pytest.mark.parametrize(("command", "part"), REQUESTS, ids=[command for command, _ in REQUESTS])
def test_a_wrong_request_is_one_line(folder, monkeypatch, capsys, command, part):
    monkeypatch.chdir(ROOT)
    if command.startswith("-") or command == "stray":
        command = f"{RUN} {command}"
    assert main([word.replace("{tmp}", str(folder)) for word in shlex.split(command)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert part.replace("{tmp}", str(folder)) in error
    if (folder / "run").exists():  # nothing that a corrected request would stumble over
        shutil.rmtree(folder / "run")
