"""The training step beside TRL's: TRL's own `GRPOTrainer` (loss_type dapo) and ours on the same recorded rollouts.

    python benchmarks/train_step.py            # about 6 minutes on one core
    python benchmarks/train_step.py --quick    # under two minutes

A random Qwen3-shaped model; prompts of 64 tokens; completions whose lengths are lognormal (median 90, sigma 0.8, cut at
512) or all equal. One repetition is a rollout batch of 64 completions, its old log-probabilities and two optimizer
steps, timed from the beginning of the first step to the end of the last, rewards and all; generation is free, because
the rollouts are recorded. On a CPU the seconds compared are those that the process computes, on one thread. The two
trainers alternate in one process, each time from the same weights. Tokens are counted where they enter the model: in
ours the 64 of a prompt once for its group, which shared_prompts.py measures by itself.
Memory is what tensors take at the peak of training: on a CPU by the profiler's account of every allocation, on CUDA by
`torch.cuda.max_memory_allocated`. The host's share is that of the quick start.

Runs on the GPU if there is one, in bfloat16 there, otherwise on one CPU thread.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, field
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import numpy as np
import torch
from common import Claim, arguments, console, finish, show
from datasets import Dataset
from measured import ROOT, peak_memory, quieten, settings_of
from sections import timed
from transformers import AutoTokenizer, PrinterCallback, Qwen3Config, Qwen3ForCausalLM, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from dapo_trl import DAPOConfig, DAPOTrainer
from dapo_trl.rollout.environments import make_env

SIDES = ("TRL", "ours")
PROMPT, MEDIAN, SIGMA, CUT, FLAT = 64, 90.0, 0.8, 512, 120
GROUP, UPDATES = 8, 2
LEARNING_RATES = {"sgd": 1.0, "adamw_torch": 1e-3}


@dataclass(frozen=True)
class Case:
    """One rollout batch that both sides train on."""

    rows: int = 64
    micro_batch: int = 8
    median: float = MEDIAN
    cut: int = CUT
    flat: int | None = None
    """length of every completion; None: lognormal"""
    seed: int = 0
    optimizer: str = "sgd"

    def lengths(self) -> list[int]:
        if self.flat is not None:
            return [self.flat] * self.rows
        drawn = np.random.default_rng(self.seed).lognormal(np.log(self.median), SIGMA, self.rows)
        return [int(n) for n in drawn.round().clip(1, self.cut)]


@dataclass
class Seen(TrainerCallback):
    """What one side did: seconds of its optimizer steps, tokens that entered the model, and its final weights."""

    seconds: float = 0.0
    clock: float = 0.0
    """the same by the clock on the wall"""
    computed: int = 0
    real: int = 0
    """those that are no padding"""
    scored: int = 0
    """tokens whose log-probability was computed"""
    passes: int = 0
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    moved: float = 0.0
    """the largest change of a weight"""

    def on_step_begin(self, args, state, control, **kwargs):
        self._since = now()

    def on_step_end(self, args, state, control, **kwargs):
        clock, seconds = now()
        self.clock += clock - self._since[0]
        self.seconds += seconds - self._since[1]

    def count(self, model, args, kwargs) -> None:
        if kwargs.get("fused_lm_head"):
            self.passes += 1
            self.computed += kwargs["input_ids"].numel()
            self.real += int((kwargs["input_ids"] != model.config.pad_token_id).sum())
            shifted = kwargs.get("shift_labels")
            self.scored += int(((kwargs["labels"][:, 1:] if shifted is None else shifted) != -100).sum())


def now() -> tuple[float, float]:
    """Seconds of the clock, and what is compared: on a GPU the same, on the CPU's one thread its computing time,
    which other programs on the machine do not change."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter(), time.perf_counter()
    return time.perf_counter(), time.process_time()


def new_model(context: int) -> Qwen3ForCausalLM:
    """Random weights, and the tokenizer's special tokens of the model that is shipped."""
    torch.manual_seed(0)
    big = torch.cuda.is_available()
    config = Qwen3Config(
        vocab_size=32_000 if big else 1_024,
        hidden_size=1_024 if big else 128,
        intermediate_size=3_072 if big else 384,
        num_hidden_layers=12 if big else 4,
        num_attention_heads=16 if big else 4,
        num_key_value_heads=8 if big else 2,
        head_dim=64 if big else 32,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        eos_token_id=0,
        pad_token_id=1,
        bos_token_id=None,
    )
    return Qwen3ForCausalLM(config)


def settings(case: Case, output: str) -> dict[str, Any]:
    accumulation = case.rows // case.micro_batch
    return {
        "output_dir": output,
        "per_device_train_batch_size": case.micro_batch,
        "gradient_accumulation_steps": accumulation,
        "steps_per_generation": accumulation,
        "num_iterations": UPDATES,
        "max_steps": UPDATES,
        "num_generations": GROUP,
        "max_completion_length": case.cut,
        "loss_type": "dapo",
        "epsilon_high": 0.28,
        "beta": 0.0,
        "scale_rewards": "none",
        "optim": case.optimizer,
        "learning_rate": LEARNING_RATES[case.optimizer],
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "logging_steps": UPDATES,
        "report_to": [],
        "disable_tqdm": True,
        "bf16": torch.cuda.is_available(),
        "use_cpu": not torch.cuda.is_available(),
    }


def recorded(case: Case):
    """TRL's `rollout_func`: tokens that depend on the prompt's number and the member of its group alone."""
    lengths = case.lengths()

    def completion(prompt: str, member: int) -> list[int]:
        row = int(prompt) * GROUP + member
        tokens = np.random.default_rng([case.seed, row]).integers(2, 319, lengths[row])
        return [*tokens[:-1].tolist(), 0]

    def rollouts(prompts, trainer):
        return {
            "prompt_ids": [np.random.default_rng(int(p)).integers(2, 319, PROMPT).tolist() for p in prompts],
            "completion_ids": [completion(prompt, i % GROUP) for i, prompt in enumerate(prompts)],
            "logprobs": None,
        }

    return rollouts


def parity(completion_ids, **_) -> list[float]:
    """A reward that is right for about half of any completions."""
    return [float(sum(ids) % 2) for ids in completion_ids]


def train(side: str, case: Case, prepared=lambda: None) -> Seen:
    """One repetition on one side, from the same initial weights every time.

    Args:
        prepared: called when everything is built, before training.
    """
    seen, model = Seen(), new_model(PROMPT + case.cut)
    before = {name: value.clone() for name, value in model.named_parameters()}
    with tempfile.TemporaryDirectory() as folder:
        given = settings(case, folder)
        kwargs = {
            "model": model,
            "reward_funcs": parity,
            "train_dataset": Dataset.from_dict({"prompt": [str(i) for i in range(case.rows // GROUP)]}),
            "processing_class": AutoTokenizer.from_pretrained(ROOT / "models" / "arithmetic-0.8m"),
            "rollout_func": recorded(case),
            "callbacks": [seen],
        }
        if side == "TRL":
            trainer = GRPOTrainer(args=GRPOConfig(**given), **kwargs)
        else:
            args = DAPOConfig(**given, group_filter="none", overlong_shape="none")
            trainer = DAPOTrainer(args=args, **kwargs)
        trainer.remove_callback(PrinterCallback)
        model.register_forward_pre_hook(seen.count, with_kwargs=True)
        prepared()
        trainer.train()
    seen.weights = {name: value.detach().cpu() for name, value in model.named_parameters()}
    seen.moved = gap(seen.weights, before)
    return seen


def gap(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max((a[name] - b[name].to(a[name].device)).abs().max().item() for name in a)


def compare(case: Case, repetitions: int, *, warm: bool = True) -> list[dict[str, float]]:
    """Both sides in turn on the same rollouts, other ones in each repetition, after a warm-up of each."""
    found = []
    for side in SIDES if warm else ():
        train(side, Case(rows=16, cut=64))
    for i in range(repetitions):
        mine = Case(**{**asdict(case), "seed": case.seed + i})
        order = SIDES if i % 2 == 0 else SIDES[::-1]
        seen = {side: train(side, mine) for side in order}
        theirs, ours = seen["TRL"], seen["ours"]
        assert theirs.scored == ours.scored, "the two sides have not seen the same completions"
        found.append(
            {
                "mean_length": float(np.mean(mine.lengths())),
                "theirs_s": theirs.seconds,
                "ours_s": ours.seconds,
                "padded_to_real": theirs.computed / theirs.real,
                "real_share": ours.real / ours.computed,
                "speed_up": theirs.seconds / ours.seconds,
                "speed_up_by_the_clock": theirs.clock / ours.clock,
                "of_the_padding": theirs.seconds / ours.seconds / (theirs.computed / theirs.real),
                "theirs_passes": theirs.passes,
                "ours_passes": ours.passes,
                "gap": gap(ours.weights, theirs.weights),
                "moved": theirs.moved,
            }
        )
    return found


def peak(side: str, case: Case) -> int:
    """Bytes that tensors take at the peak of training beyond those at its beginning."""
    return peak_memory(lambda begin: train(side, case, begin))


def host_share(steps: int) -> tuple[dict[str, float], float]:
    """Seconds of the quick start by section, and the share of the whole that is none of them."""
    shipped, files = ROOT / "models" / "arithmetic-0.8m", [ROOT / "configs" / "quickstart.yaml"]
    with settings_of(files, model=shipped, max_steps=steps) as (run, args, _):
        trainer = DAPOTrainer(model=run.model, args=args, env=make_env(run.env, **run.env_kwargs))
        trainer.remove_callback(PrinterCallback)
        with timed(trainer) as timers:
            trainer.train()
    found = timers.by_section(timers.total)
    return found, found["everything else"] / timers.total


def median(found: list[dict[str, float]], name: str) -> float:
    return statistics.median(one[name] for one in found)


def spread(found: list[dict[str, float]], name: str) -> str:
    values = [one[name] for one in found]
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def show_steps(found: dict[str, list[dict[str, float]]], title: str) -> None:
    rows = [
        (
            name,
            f"{median(runs, 'theirs_s'):.2f} s",
            f"{median(runs, 'ours_s'):.2f} s",
            spread(runs, "speed_up"),
            f"{median(runs, 'speed_up_by_the_clock'):.2f}",
            spread(runs, "padded_to_real"),
            spread(runs, "of_the_padding"),
            f"{median(runs, 'real_share'):.3f}",
        )
        for name, runs in found.items()
    ]
    headings = ["lengths", "TRL", "ours", "speed-up", "by the clock", "padded/real", "speed-up / that", "real, ours"]
    show(title, headings, rows)


def main() -> None:
    options = arguments(__doc__ or "")
    quieten()
    case = Case(rows=32) if options.quick else Case()
    repetitions = 2 if options.quick else 5
    flat = Case(rows=case.rows, flat=FLAT)
    found = {"lognormal": compare(case, repetitions), f"all {FLAT}": compare(flat, repetitions)}
    show_steps(found, f"Seconds of a rollout batch of {case.rows}, median (range) of {repetitions}")
    lognormal, equal = found.values()
    adamw = compare(Case(rows=case.rows, optimizer="adamw_torch"), 1, warm=False)
    gaps = {"sgd": max(one["gap"] for one in [*lognormal, *equal]), "adamw_torch": adamw[0]["gap"]}
    show(
        f"Final weights after {UPDATES} optimizer steps: the largest difference between the two sides",
        ["optimizer", "learning rate", "difference", "largest change in training"],
        [
            ("sgd", f"{LEARNING_RATES['sgd']:g}", f"{gaps['sgd']:.1e}", f"{median(lognormal, 'moved'):.1e}"),
            ("adamw", f"{LEARNING_RATES['adamw_torch']:g}", f"{gaps['adamw_torch']:.1e}", f"{adamw[0]['moved']:.1e}"),
        ],
    )
    memory = {name: {side: peak(side, one) for side in SIDES} for name, one in zip(found, (case, flat), strict=True)}
    show(
        "Memory of tensors at the peak of training, beyond that at its beginning",
        ["lengths", "TRL", "ours", "ratio"],
        [
            (name, *(f"{sides[side] / 2**20:,.0f} MiB" for side in SIDES), f"{sides['ours'] / sides['TRL']:.3f}")
            for name, sides in memory.items()
        ],
    )
    host = [host_share(8 if options.quick else 24) for _ in range(1 if options.quick else 3)]
    host.sort(key=lambda one: one[1])
    seconds, share = host[len(host) // 2]
    total = sum(seconds.values())
    show(
        "The quick start's training by section",
        ["section", "seconds", "share"],
        [(name, f"{value:.2f}", f"{value / total:.1%}") for name, value in seconds.items()],
    )
    claims = [
        Claim(
            "speed-up / (padded/real), lognormal lengths",
            median(lognormal, "of_the_padding"),
            0.9,
            higher_is_better=True,
        ),
        Claim("speed-up, equal lengths", median(equal, "speed_up"), 1.0, higher_is_better=True),
        Claim("computed tokens that are real", median(lognormal, "real_share"), 0.92, higher_is_better=True),
        Claim("peak memory, ours / TRL", max(sides["ours"] / sides["TRL"] for sides in memory.values()), 1.0),
        Claim("difference of the final weights (sgd)", gaps["sgd"], 1e-5, unit="weight"),
        Claim("host's share of the quick start", share, 0.05),
    ]
    finish(claims, options.json)
    if options.json is not None:
        everything = {"steps": found, "adamw": adamw, "memory": memory, "host": host}
        kept = json.loads(options.json.read_text()) | {"measured": everything}
        options.json.write_text(json.dumps(kept, indent=2) + "\n")
    console.print(f"{'GPU' if torch.cuda.is_available() else 'one CPU thread'}, torch {torch.__version__}")


if __name__ == "__main__":
    main()
