"""Completions that share their prompt: updates, log-probabilities and generation with the prompt computed once for a
group, against the same trainer computing it for every completion, and against TRL's GRPOTrainer.

    python benchmarks/shared_prompts.py            # about half an hour on one core
    python benchmarks/shared_prompts.py --quick    # about four minutes

Random Llama-shaped models; recorded groups of 8 and of 16 completions of equal lengths; one repetition is the old
log-probabilities of a rollout batch and two updates on it, the second of which is timed. The three sides alternate in
one process, each time from the same weights. On a CPU the seconds compared are those that the process computes, on one
thread. Tokens are counted where they enter the model in an update. Memory is what tensors take at the peak of training,
as in train_step.py. Generation is compared with transformers' `generate`, which both TRL and separate prompts take.

Runs on the GPU if there is one, in bfloat16 there, otherwise on one CPU thread.
"""

from __future__ import annotations

import copy
import functools
import itertools
import json
import os
import statistics
import tempfile
from dataclasses import dataclass, field, replace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import numpy as np
import torch
from common import Claim, arguments, console, finish, show
from datasets import Dataset
from measured import ROOT, peak_memory, quieten
from train_step import gap, now, parity
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    PreTrainedConfig,
    PrinterCallback,
    TrainerCallback,
)
from trl import GRPOConfig, GRPOTrainer

from dapo_trl import DAPOConfig, DAPOTrainer
from dapo_trl.generation.transformers import generate

SIDES = ("TRL", "separate", "shared")
SHAPES = {"1:4": (16, 64), "1:1": (32, 32), "4:1": (64, 16), "8:1": (128, 16)}
"""Tokens of a prompt and of each completion."""
BARS = {"1:4": 0.98, "1:1": 1.5, "4:1": 2.5, "8:1": 3.3}
"""Least speed-up of an update of groups of 8."""


def llama(vocabulary: int, width: int, middle: int, layers: int, heads: int, key_heads: int) -> LlamaConfig:
    """A Llama-shaped model with the special tokens of the tokenizer that is shipped."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=middle,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=0,
        pad_token_id=1,
        bos_token_id=None,
    )


MODELS = {
    "0.8 M": llama(1_024, 128, 384, 4, 4, 2),
    "30 M": llama(8_192, 448, 1_216, 12, 7, 7),
    "135 M": llama(49_152, 576, 1_536, 30, 9, 3),
}
HEADINGS = (
    *("prompt:completion", "update", "log-probs", "generation", "update, to TRL", "log-probs, to TRL"),
    *("tokens saved", "gap"),
)
MIN_TOKENS = {"0.8 M": 4_000, "30 M": 1_000, "135 M": 300}
"""Groups are added until so many tokens are computed with separate prompts, so that a repetition is long enough."""


@dataclass(frozen=True)
class Case:
    """One rollout batch, which is one optimizer step."""

    config: PreTrainedConfig
    prompt: int
    """Tokens."""
    completion: int
    """Tokens of each completion."""
    group: int = 8
    groups: int = 1
    microbatch: int | None = None
    """Rows of TRL's microbatch; None: all."""
    attention: str = "sdpa"
    checkpointing: bool = False
    seed: int = 0

    @classmethod
    def of(cls, model: str, shape: str, group: int = 8) -> Case:
        """A case of the tables."""
        prompt, completion = SHAPES[shape]
        groups = max(MIN_TOKENS[model] // (group * (prompt + completion)), 1)
        return cls(MODELS[model], prompt, completion, group, groups)

    @property
    def rows(self) -> int:
        return self.groups * self.group

    @property
    def distinct(self) -> int:
        """Tokens of the batch, every prompt once."""
        return self.groups * (self.prompt + self.group * self.completion)


@dataclass
class Seen(TrainerCallback):
    """What one side did."""

    update: float = 0.0
    """Seconds of the second update."""
    scoring: float = 0.0
    """Seconds of the old log-probabilities."""
    computed: int = 0
    """Tokens that entered the model in the second update."""
    weights: dict[str, torch.Tensor] = field(default_factory=dict)

    def on_step_begin(self, args, state, control, **kwargs):
        self.computed, self._since = 0, now()[1]

    def on_step_end(self, args, state, control, **kwargs):
        self.update = now()[1] - self._since

    def count(self, model, args, kwargs) -> None:
        self.computed += kwargs["input_ids"].numel() if kwargs.get("fused_lm_head") else 0

    def time(self, trainer: Any) -> None:
        """Time the log-probabilities of a trainer that are no part of an update."""
        scored = trainer._get_per_token_logps_and_entropies

        def timed(*args, **kwargs):
            since = now()[1]
            found = scored(*args, **kwargs)
            self.scoring += 0.0 if torch.is_grad_enabled() else now()[1] - since
            return found

        trainer._get_per_token_logps_and_entropies = timed


def new_model(case: Case) -> Any:
    torch.manual_seed(0)
    config = copy.deepcopy(case.config)  # a trainer writes into it
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=case.attention)


def recorded(case: Case):
    """TRL's `rollout_func`: tokens that depend on the prompt's number and the member of its group alone."""

    def drawn(count: int, *key: int) -> list[int]:
        return np.random.default_rng([case.seed, *key]).integers(2, 319, count).tolist()

    def rollouts(prompts, trainer):
        members = [(int(prompt), i % case.group) for i, prompt in enumerate(prompts)]
        return {
            "prompt_ids": [drawn(case.prompt, 0, prompt) for prompt, _ in members],
            "completion_ids": [[*drawn(case.completion - 1, 1, prompt, member), 0] for prompt, member in members],
            "logprobs": None,
        }

    return rollouts


def train(side: str, case: Case, prepared=lambda: None) -> Seen:
    """One repetition on one side, from the same initial weights every time.

    Args:
        prepared: Called when everything is built, before training.
    """
    seen, model = Seen(), new_model(case)
    with tempfile.TemporaryDirectory() as folder:
        given: dict[str, Any] = {
            "output_dir": folder,
            "per_device_train_batch_size": case.microbatch or case.rows,
            "gradient_accumulation_steps": case.rows // (case.microbatch or case.rows),
            "num_iterations": 2,
            "max_steps": 2,
            "num_generations": case.group,
            "max_completion_length": case.completion,
            "loss_type": "dapo",
            "epsilon_high": 0.28,
            "beta": 0.0,
            "scale_rewards": "none",
            "optim": "sgd",
            "learning_rate": 0.01,
            "lr_scheduler_type": "constant",
            "max_grad_norm": 0.0,
            "gradient_checkpointing": case.checkpointing,
            "save_strategy": "no",
            "logging_steps": 2,
            "report_to": [],
            "disable_tqdm": True,
            "bf16": torch.cuda.is_available(),
            "use_cpu": not torch.cuda.is_available(),
        }
        kwargs = {
            "model": model,
            "reward_funcs": parity,
            "train_dataset": Dataset.from_dict({"prompt": [str(i) for i in range(case.groups)]}),
            "processing_class": AutoTokenizer.from_pretrained(ROOT / "models" / "arithmetic-0.8m"),
            "rollout_func": recorded(case),
            "callbacks": [seen],
        }
        if side == "TRL":
            trainer = GRPOTrainer(args=GRPOConfig(**given), **kwargs)
        else:
            share = "auto" if side == "shared" else "off"
            args = DAPOConfig(**given, group_filter="none", overlong_shape="none", share_prompts=share)
            trainer = DAPOTrainer(args=args, **kwargs)
        trainer.remove_callback(PrinterCallback)
        model.register_forward_pre_hook(seen.count, with_kwargs=True)
        seen.time(trainer)
        prepared()
        trainer.train()
    seen.weights = {name: value.detach().cpu() for name, value in model.named_parameters()}
    return seen


def compare(case: Case, repetitions: int) -> dict[str, Any]:
    """All sides in turn on the same rollouts, other ones in each repetition: medians over the repetitions."""
    found: list[dict[str, float]] = []
    for i in range(repetitions):
        mine = replace(case, seed=i)
        order = SIDES if i % 2 == 0 else SIDES[::-1]
        seen = {side: train(side, mine) for side in order}
        ours, separate, theirs = seen["shared"], seen["separate"], seen["TRL"]
        found.append(
            {
                "update_s": ours.update,
                "scoring_s": ours.scoring,
                "update": separate.update / ours.update,
                "scoring": separate.scoring / ours.scoring,
                "update_trl": theirs.update / ours.update,
                "scoring_trl": theirs.scoring / ours.scoring,
                "computed": ours.computed / mine.distinct,
                "saved": 1 - ours.computed / separate.computed,
                "gap": max(gap(ours.weights, other.weights) for other in (separate, theirs)),
            }
        )
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


def generating(case: Case, repetitions: int, tokens: int | None = None) -> tuple[float, float]:
    """The decoding loop against transformers' `generate`, which is that of TRL, and tokens a second of the first.

    Args:
        tokens: Of each completion; None: those of the case.
    """
    half = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    model = new_model(case).to("cuda" if torch.cuda.is_available() else "cpu", half).eval()
    limit = tokens or case.completion
    settings = GenerationConfig(
        max_new_tokens=limit, min_new_tokens=limit, eos_token_id=0, pad_token_id=1, do_sample=True, top_k=0
    )
    ratios, speeds = [], []
    for i in range(-1, repetitions):  # one before to warm up
        prompts = torch.from_numpy(np.random.default_rng(i + 1).integers(2, 319, (case.groups, case.prompt)))
        ids = prompts.repeat_interleave(case.group, dim=0).to(model.device)
        seconds = []
        for sample in (model.generate, functools.partial(generate, model)):
            since = now()[1]
            sample(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings)
            seconds.append(now()[1] - since)
        if i >= 0:
            ratios.append(seconds[0] / seconds[1])
            speeds.append(case.rows * limit / seconds[1])
    return statistics.median(ratios), statistics.median(speeds)


def peak(side: str, case: Case) -> int:
    """Bytes that tensors take at the peak of training beyond those at its beginning."""
    return peak_memory(lambda begin: train(side, case, begin))


def main() -> None:
    options = arguments(__doc__ or "")
    quieten()
    models = ["0.8 M", "30 M"] if options.quick else list(MODELS)
    groups = [8] if options.quick else [8, 16]
    for side in SIDES:
        train(side, Case.of("0.8 M", "1:1"))
    found: dict[str, dict[str, Any]] = {}
    for model, group in itertools.product(models, groups):
        repetitions = 3 if model != "135 M" else 2
        measured = {}
        for shape in SHAPES:
            case = Case.of(model, shape, group)
            measured[shape] = compare(case, repetitions) | {"generation": generating(case, repetitions)[0]}
        found[f"{model}, groups of {group}"] = measured
        shown = ("update", "scoring", "generation", "update_trl", "scoring_trl")
        show(
            f"{model} weights, groups of {group}: speed-up by sharing prompts",
            HEADINGS,
            [
                (
                    f"{shape} ({prompt}:{completion})",
                    *(f"{measured[shape][name]:.2f}" for name in shown),
                    f"{measured[shape]['saved']:.2f}",
                    f"{measured[shape]['gap']:.1e}",
                )
                for shape, (prompt, completion) in SHAPES.items()
            ],
        )
    everything = [one for measured in found.values() for one in measured.values()]
    memory = {shape: {side: peak(side, Case.of("30 M", shape)) for side in SIDES[1:]} for shape in SHAPES}
    show(
        "30 M weights, groups of 8: memory of tensors at the peak of training, beyond that at its beginning",
        ["prompt:completion", "separate", "shared", "ratio"],
        [
            (shape, *(f"{bytes / 2**20:,.0f} MiB" for bytes in sides.values()), f"{share_of(sides):.3f}")
            for shape, sides in memory.items()
        ],
    )
    claims = [
        Claim(
            f"speed-up of an update at {shape}, groups of 8, the least of the models",
            min(found[f"{model}, groups of 8"][shape]["update"] for model in models),
            bar,
            higher_is_better=True,
        )
        for shape, bar in BARS.items()
    ]
    claims += [
        Claim("computed tokens / distinct tokens", max(one["computed"] for one in everything), 1.03),
        Claim("peak memory, shared / separate", max(share_of(sides) for sides in memory.values()), 1.0),
        Claim("difference of the final weights", max(one["gap"] for one in everything), 1e-5, unit="weight"),
    ]
    finish(claims, options.json)
    if options.json is not None:
        kept = json.loads(options.json.read_text()) | {"measured": {"steps": found, "memory": memory}}
        options.json.write_text(json.dumps(kept, indent=2) + "\n")
    console.print(f"{'GPU' if torch.cuda.is_available() else 'one CPU thread'}, torch {torch.__version__}")


def share_of(sides: dict[str, int]) -> float:
    return sides["shared"] / sides["separate"]


if __name__ == "__main__":
    main()
