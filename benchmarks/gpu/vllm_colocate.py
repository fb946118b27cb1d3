"""vLLM in the trainer's process on one GPU: what rounding takes of the gradient, what pushes cost, what vLLM gains.

    python benchmarks/gpu/vllm_colocate.py --json benchmarks/results/gpu_vllm_colocate.json    # at most 10 minutes
    python benchmarks/gpu/vllm_colocate.py --small    # the same code on a CPU with a stand-in for vLLM

A model of the shape of Qwen2.5-0.5B with random weights in bfloat16, sharpened so that its entropy is near that of a
language model, with a tokenizer of as many made-up tokens; completions of 2,048 tokens, which hardly ever end earlier.
Sleep mode, ``microbatch_tokens: auto``, flash attention where its package is installed. Three runs of two rollout
batches each, every one in a process of its own: all weights, LoRA of which the adapter is pushed, LoRA pushed merged.
Then one rollout batch by transformers' `generate`, of fewer tokens. Needs CUDA, vLLM, this project and no network. A
run that fails, or is not over when the minutes are, is named and left out.

s is the spread of the trainer's log-probabilities around vLLM's; predicted weights are those of
`dapo_trl.update.mismatch.expected` for s and 2,048 tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from common import Claim, finish, parser_of, show
from datasets import Dataset
from measured import ROOT, quieten
from peft import LoraConfig
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from transformers.utils import is_flash_attn_2_available

from dapo_trl import DAPOConfig, DAPOTrainer
from dapo_trl.update.batching import Microbatch
from dapo_trl.update.mismatch import MODES, correction, expected

RUNS = ("weights", "adapter", "merged", "generate")
MINUTES = 9.5
BOUND = {"low": None, "high": 3.0}
GROUP = 8
SHARPER = 8.0
"""Factor on the last norm: logits of random weights are nearly equal otherwise, and rounding has nothing to change."""


@dataclass(frozen=True)
class Shape:
    """A model, and the batch that it trains on."""

    config: dict[str, int]
    rows: int
    tokens: int
    plain_tokens: int
    """Tokens of each completion by transformers' `generate`."""


_QWEN = {"hidden_size": 896, "intermediate_size": 4_864, "num_hidden_layers": 24, "vocab_size": 151_936}
_HEADS = {"num_attention_heads": 14, "num_key_value_heads": 2}
LARGE = Shape(_QWEN | _HEADS, rows=64, tokens=2_048, plain_tokens=512)
_TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 300}
SMALL = Shape(_TINY | {"num_attention_heads": 4, "num_key_value_heads": 2}, rows=8, tokens=24, plain_tokens=24)


def save_model(shape: Shape, folder: Path) -> str:
    """Random weights, and a tokenizer that decodes every token that they can draw."""
    size, alphabet = shape.config["vocab_size"], sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, "<|end|>", "<|pad|>"]
    words += [f" w{i}" for i in range(size - len(words))]
    tokenizer = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>", padding_side="left"
    )
    torch.manual_seed(0)
    config = Qwen2Config(
        **shape.config,
        max_position_embeddings=4 * shape.tokens,
        tie_word_embeddings=True,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
        bos_token_id=None,
    )
    model = Qwen2ForCausalLM(config).to(torch.bfloat16 if torch.cuda.is_available() else torch.float32)
    model.model.norm.weight.data.fill_(SHARPER)
    model.generation_config.eos_token_id = fast.eos_token_id
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return str(folder)


class Watched(DAPOTrainer):
    """Keeps the differences of the log-probabilities, and times what it asks of its sampler."""

    def watch(self) -> Watched:
        self.differences: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.pushes: list[float] = []
        self.sampled: list[tuple[int, float]] = []
        """Tokens and seconds of each call of the sampler."""
        generate = self.backend.generate

        def timed_generate(*args: Any, **kwargs: Any) -> Any:
            pushed, since = sum(getattr(self, "pushes", [])), clock()
            found = generate(*args, **kwargs)
            seconds = clock() - since - (sum(self.pushes) - pushed)
            self.sampled.append((sum(map(len, found[0])), seconds))
            return found

        self.backend.generate = timed_generate  # type: ignore[method-assign]
        if self.use_vllm:
            push = self.vllm_generation.sync_weights

            def timed_push() -> None:
                since = clock()
                push()
                self.pushes.append(clock() - since)

            self.vllm_generation.sync_weights = timed_push
        return self

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        batch = super()._generate_and_score_completions(inputs)
        if self.use_vllm:
            mask = Microbatch.from_trl(batch).loss_mask.cpu()
            self.differences.append(((batch["old_per_token_logps"] - batch["sampling_per_token_logps"]).cpu(), mask))
        return batch


def clock() -> float:
    """Seconds, when the GPU has done what it was asked."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def parity(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [float(sum(ids) % 2) for ids in completion_ids]


def settings(kind: str, shape: Shape, folder: str) -> DAPOConfig:
    gpu, vllm = torch.cuda.is_available(), kind != "generate"
    own = {field.name for field in fields(DAPOConfig)}
    push = {"push_adapter": kind == "adapter"} if "push_adapter" in own else {}
    flash = {"attn_implementation": "flash_attention_2"} if gpu and is_flash_attn_2_available() else {}
    return DAPOConfig(
        output_dir=folder,
        model_init_kwargs={"dtype": "bfloat16" if gpu else "float32", **flash},
        use_vllm=vllm,
        vllm_mode="colocate",
        vllm_enable_sleep_mode=vllm,
        vllm_gpu_memory_utilization=0.3,
        vllm_max_model_length=shape.tokens + 64,
        max_completion_length=shape.tokens if vllm else shape.plain_tokens,
        num_generations=GROUP,
        per_device_train_batch_size=shape.rows // 2,
        steps_per_generation=2,  # two updates on each of two rollout batches
        max_steps=4 if vllm else 2,
        max_refill_rounds=0,
        on_refill_limit="train",
        overlong_shape="none",
        microbatch_tokens="auto",
        beta=0.0,
        learning_rate=1e-6 if kind == "weights" else 1e-4,
        lr_scheduler_type="constant",
        save_strategy="no",
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        bf16=gpu,
        use_cpu=not gpu,
        **push,
    )


def measure(kind: str, shape: Shape) -> dict[str, Any]:
    """One run: the mismatch, the seconds of its pushes, and its tokens a second."""
    quieten()
    with tempfile.TemporaryDirectory() as folder:
        model = save_model(shape, Path(folder) / "model")
        adapter = LoraConfig(r=16, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], task_type="CAUSAL_LM")
        if shape is SMALL and kind != "generate":
            _install_stand_in(model)
        trainer = Watched(
            model,
            parity,
            settings(kind, shape, folder),
            Dataset.from_dict({"prompt": [f"row {i:02}" for i in range(64)]}),
            peft_config=adapter if kind in ("adapter", "merged") else None,
        ).watch()
        trainer.train()
        attention = trainer.accelerator.unwrap_model(trainer.model).config._attn_implementation
        generated, seconds = (sum(part) for part in zip(*trainer.sampled, strict=True))
        found = {
            "attention": attention,
            "microbatch_tokens": trainer.microbatches.measured,
            "tokens_s": generated / seconds,
            "push_s": median(trainer.pushes[1:] or trainer.pushes) if trainer.pushes else None,
            "update_s": trainer.state.log_history[-2].get("time/update"),
        }
        found |= weights(trainer.differences, shape.tokens) if trainer.differences else {}
        trainer.close()
    return found


def weights(seen: list[tuple[torch.Tensor, torch.Tensor]], tokens: int) -> dict[str, Any]:
    """s, and for each mode the predicted and the measured weight, of completions of full length."""
    full = [(d[m.sum(dim=1) == tokens], m[m.sum(dim=1) == tokens]) for d, m in seen if m.shape[1] == tokens]
    differences = torch.cat([d for d, _ in full]).nan_to_num(0.0) if full else torch.zeros(0, tokens)
    if not len(differences):
        return {}
    spread, mask = float(differences.std()), torch.ones_like(differences)
    modes = {
        mode: (
            expected(spread, tokens, mode, **BOUND).weight,
            float(correction(differences, mask, mode, **BOUND).mean()),
        )
        for mode in MODES
    }
    return {"spread": spread, "completions": len(differences), "modes": modes}


def _install_stand_in(model: str) -> None:
    sys.path.insert(0, str(ROOT))
    from tests.support import vllm_stand_in

    vllm_stand_in.Engine.sample = vllm_stand_in.noisy(0.02)
    vllm_stand_in.install(model)


def in_a_process(kind: str, seconds: float) -> dict[str, Any]:
    """`measure` in a process of its own, whose memory the next one finds free."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        try:
            done = subprocess.run(
                [sys.executable, __file__, "--run", kind, "--json", str(path)], timeout=max(seconds, 1.0)
            )
        except subprocess.TimeoutExpired:
            return {"lost": "not over when the minutes were"}
        return json.loads(path.read_text()) if done.returncode == 0 else {"lost": f"exit code {done.returncode}"}


def report(found: dict[str, dict[str, Any]], path: Path | None) -> None:
    """Tables, claims and the JSON of all runs."""

    def figure(value: Any) -> str:
        return f"{value:,.4g}" if isinstance(value, float | int) else "-" if value is None else str(value)

    columns = ("attention", "microbatch_tokens", "tokens_s", "push_s", "update_s", "spread", "lost")
    show(
        "Runs", ["run", *columns], [(kind, *(figure(one.get(name)) for name in columns)) for kind, one in found.items()]
    )
    modes = [
        (kind, mode, f"{predicted:.4f}", f"{measured:.4f}")
        for kind, one in found.items()
        for mode, (predicted, measured) in one.get("modes", {}).items()
    ]
    show("Weights at full length", ["run", "mode", "predicted", "measured"], modes)
    claims = [
        Claim(f"{kind}: measured / predicted weight, largest distance from 1", max(off), 0.1)
        for kind, one in found.items()
        if (
            off := [abs(measured / predicted - 1) for predicted, measured in one.get("modes", {}).values() if predicted]
        )
    ]

    def ratio(name: str, of: str, to: str, text: str, bar: float, *, higher: bool) -> None:
        above, below = found[of].get(name), found[to].get(name)
        if above and below:
            claims.append(Claim(text, above / below, bar, higher_is_better=higher))

    ratio("push_s", "adapter", "merged", "seconds of a push, adapter / merged weights", 1.0, higher=False)
    ratio("tokens_s", "weights", "generate", "tokens a second, vLLM / transformers' generate", 1.0, higher=True)
    finish(claims, path)
    if path is not None:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"measured": found}, indent=2) + "\n")


def options() -> argparse.Namespace:
    parser = parser_of(__doc__ or "")
    parser.add_argument("--small", action="store_true", help="a tiny model on the CPU, with a stand-in for vLLM")
    parser.add_argument("--run", choices=RUNS, help="measure this one alone, and write it to --json")
    return parser.parse_args()


def main() -> None:
    asked = options()
    if asked.run:
        asked.json.write_text(json.dumps(measure(asked.run, LARGE)))
        return
    if not asked.small and not torch.cuda.is_available():
        sys.exit("there is no GPU: --small runs the same code on a CPU.")
    end, found = time.monotonic() + 60 * MINUTES, {}
    for kind in RUNS[:1] + RUNS[-1:] if asked.quick else RUNS:
        found[kind] = measure(kind, SMALL) if asked.small else in_a_process(kind, end - time.monotonic())
    report({kind: found.get(kind, {"lost": "not asked for (--quick)"}) for kind in RUNS}, asked.json)


if __name__ == "__main__":
    main()
