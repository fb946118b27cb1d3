"""What `dapo-trl plan` foretells beside what runs really take: memory and tokens, on a CPU.

    python benchmarks/planner.py            # about 12 minutes on one core
    python benchmarks/planner.py --quick    # about four

Each case is trained for a rollout batch in a process of its own, with `generate` for real and completions of a fixed
length (``min_new_tokens``), so that the load is known. *Measured* is the peak of the resident memory (VmHWM) beyond
that before the model is loaded, when everything is imported and a small model has been trained for a step (the
*baseline*). *Foretold* is the plan's peak without its allowance for Python and libraries. Linux alone.

What the C library's allocator keeps after tensors are freed is resident too. So every case runs twice: with blocks of
128 KiB and more given back to the system at once (MALLOC_MMAP_THRESHOLD_; resident is then what tensors take), and with
the allocator as it comes, which keeps freed blocks of up to 32 MiB. The claims are about the first.

Tokens: completions are right by chance with a given probability, and the tokens generated are counted by the ledger.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import gymnasium
import torch
from common import Claim, arguments, finish, show
from measured import ROOT, quieten
from transformers import AutoTokenizer, PrinterCallback, Qwen2Config, Qwen2ForCausalLM

from dapo_trl import DAPOTrainer
from dapo_trl.plan import memory
from dapo_trl.plan.devices import Placement, planned_config
from dapo_trl.plan.planner import Assumed, look_at_task, make_plan
from dapo_trl.plan.trace import read_config
from dapo_trl.rollout.environments import make_env
from dapo_trl.run.lora import peft_config
from dapo_trl.run.settings import load_settings
from envs import TaskEnv

SHIPPED = ROOT / "models" / "arithmetic-0.8m"
SHAPES = {  # hidden, intermediate, layers, heads, key and value heads; 29 and 95 million weights
    "30M": (512, 1408, 8, 8, 4),
    "100M": (768, 2048, 14, 12, 4),
}
VOCABULARY, CONTEXT = 8192, 1024
ALLOCATORS = {"given back": {"MALLOC_MMAP_THRESHOLD_": "131072"}, "as it comes": {}}


@dataclass(frozen=True)
class Case:
    name: str
    model: str
    """"shipped" or one of `SHAPES`"""
    flags: dict[str, Any] = field(default_factory=dict)
    pass_rate: float = 0.5
    batches: int = 1
    length: int = 96
    """tokens of every completion"""


SMALL = {"per_device_train_batch_size": 8, "steps_per_generation": 2, "num_generations": 8, "beta": 0.0}
LORA = {"lora_rank": 16, "learning_rate": 1e-5}
MANY = {"per_device_train_batch_size": 2, "steps_per_generation": 32, "gradient_checkpointing": True}
KL = {"num_generations": 4, "per_device_train_batch_size": 4, "beta": 0.01}
HALF = {"model_init_kwargs": {"dtype": "bfloat16"}, "gradient_checkpointing": True}
CASES = [
    Case("30M, all weights", "30M", SMALL),
    Case("30M, LoRA", "30M", {**SMALL, **LORA}),
    Case("30M, LoRA, 64 long completions", "30M", {**SMALL, **LORA, **MANY}, length=256),
    Case("quick start", "shipped", batches=2),
    Case("100M, all weights, KL", "100M", {**SMALL, **KL}),
    Case("100M, LoRA, checkpointing", "100M", {**SMALL, **LORA, "gradient_checkpointing": True}),
    Case("100M, bfloat16, checkpointing", "100M", {**SMALL, **HALF}),
]
FULL = {"min_valid_fraction": 1.0}
TOKENS = [
    Case("half right", "shipped", pass_rate=0.5, batches=12, length=24),
    Case("a tenth right", "shipped", pass_rate=0.1, batches=24, length=24),
    Case("a tenth right, full batches", "shipped", FULL, pass_rate=0.1, batches=24, length=24),
    Case("one in 33 right, full batches", "shipped", FULL, pass_rate=0.03, batches=24, length=24),
]


class Chance(TaskEnv):
    """Answers are right with a given probability, whatever they say: a sharp policy gives the same one twice."""

    num_rows = 2000

    def __init__(self, rate: float = 0.5):
        super().__init__()
        self.rate = rate

    def row(self, index: int) -> dict[str, Any]:
        return {"prompt": f"Compute {7 ** (index % 12)} + {index} digit by digit, please."}  # of many lengths

    def verify(self, row: dict[str, Any], completion: str) -> bool:
        return random.random() < self.rate


gymnasium.register("bench/Chance-v0", Chance)


def settings(case: Case, model: str, output: str, make=None):
    flags = {
        "model": model,
        "env": "bench/Chance-v0",
        "env_kwargs": {"rate": case.pass_rate},
        "output_dir": output,
        "eval_problems": 0,
        "max_completion_length": case.length,
        "overlong_max_length": case.length,
        "generation_kwargs": {"min_new_tokens": case.length},
        "disable_tqdm": True,
        "report_to": [],
        **case.flags,
    }
    texts = [text for name, value in flags.items() for text in (f"--{name}", json.dumps(value))]
    return load_settings([ROOT / "configs" / "quickstart.yaml"], texts, **({} if make is None else {"make": make}))


def foretell(case: Case, model: str):
    run, args, _ = settings(case, model, "unused", planned_config(None, Placement()))
    args.max_steps = case.batches * args.updates_per_rollout
    return make_plan(
        run, args, read_config(model), look_at_task(run, args), Assumed({case.pass_rate: 1.0}, case.length)
    )


def train(case: Case, model: str) -> dict[str, float]:
    """One run; returns what it generated."""
    with tempfile.TemporaryDirectory() as folder:
        run, args, _ = settings(case, model, folder)
        args.max_steps = case.batches * args.updates_per_rollout
        env = make_env(run.env, **run.env_kwargs)
        trainer = DAPOTrainer(model=run.model, args=args, env=env, peft_config=peft_config(run))
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return {"generated": trainer.sampling.ledger.generated, "batches": trainer.sampling.rollout_batches}


def measure(case: Case, model: str) -> dict[str, float]:
    """In a process of its own: peak and baseline of the resident memory, in bytes."""
    quieten()
    train(
        Case("", "shipped", {"per_device_train_batch_size": 8, "num_iterations": 1}, batches=1, length=8), str(SHIPPED)
    )
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    found = train(case, model)
    return {**found, "baseline": before, "peak": resident("VmHWM") - before}


def resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) * 1024


def new_model(shape: str, folder: Path) -> str:
    hidden, intermediate, layers, heads, shared = SHAPES[shape]
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=shared,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def in_a_process(case: Case, model: str, allocator: dict[str, str]) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, "--measure", json.dumps(asdict(case)), model],
        env={**os.environ, **allocator},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{case.name}: exit code {done.returncode}. {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def compare_memory(cases: list[Case], models: dict[str, str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for case in cases:
        plan = foretell(case, models[case.model])
        found[case.name] = {"foretold": plan.memory.peak - memory.LIBRARIES, "phase": plan.memory.fullest}
        for name, allocator in ALLOCATORS.items():
            found[case.name][name] = in_a_process(case, models[case.model], allocator)
    mib = 2**20
    show(
        "Peak memory beyond the baseline, MiB",
        ["case", "baseline", "foretold", *(f"measured, {name}" for name in ALLOCATORS), *ALLOCATORS, "fullest phase"],
        [
            (
                name,
                f"{one['given back']['baseline'] / mib:,.0f}",
                f"{one['foretold'] / mib:,.0f}",
                *(f"{one[kind]['peak'] / mib:,.0f}" for kind in ALLOCATORS),
                *(f"{one['foretold'] / one[kind]['peak']:.2f}" for kind in ALLOCATORS),
                one["phase"],
            )
            for name, one in found.items()
        ],
    )
    return found


def compare_tokens(cases: list[Case]) -> dict[str, dict[str, float]]:
    found = {}
    for case in cases:
        plan = foretell(case, str(SHIPPED))
        real = in_a_process(case, str(SHIPPED), {})
        tokens = real["generated"] / real["batches"]
        found[case.name] = {"foretold": plan.schedule.generated_tokens, "measured": tokens}
    show(
        "Completion tokens generated for a rollout batch",
        ["answers", "foretold", "measured", "ratio"],
        [
            (name, f"{one['foretold']:,.0f}", f"{one['measured']:,.0f}", f"{one['foretold'] / one['measured']:.2f}")
            for name, one in found.items()
        ],
    )
    return found


def off(ratio: float) -> float:
    """How far a ratio is from 1, in either direction."""
    return max(ratio, 1 / ratio)


def main() -> None:
    if "--measure" in sys.argv:
        given, model = sys.argv[2:]
        print(json.dumps(measure(Case(**json.loads(given)), model)))
        return
    options = arguments(__doc__ or "")
    quieten()
    cases = CASES[:3] if options.quick else CASES
    with tempfile.TemporaryDirectory() as folder:
        models = {"shipped": str(SHIPPED)}
        for shape in {case.model for case in cases} - {"shipped"}:
            models[shape] = new_model(shape, Path(folder) / shape)
        found = compare_memory(cases, models)
        tokens = compare_tokens(TOKENS[:2] if options.quick else TOKENS)
    claims = [
        Claim(
            f"memory foretold / measured, the worse way round: {name}",
            off(one["foretold"] / one["given back"]["peak"]),
            1.2,
        )
        for name, one in found.items()
    ]
    claims += [
        Claim(f"tokens foretold / measured, the worse way round: {name}", off(one["foretold"] / one["measured"]), 1.2)
        for name, one in tokens.items()
    ]
    finish(claims, options.json)
    if options.json is not None:
        kept = json.loads(options.json.read_text()) | {"memory": found, "tokens": tokens}
        options.json.write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main()
