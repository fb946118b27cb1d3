"""Training on a GPU at the lengths of reasoning: shared prompts beside separate ones and beside TRL.

    python benchmarks/gpu/training.py --json benchmarks/results/gpu_training.json    # at most 10 minutes
    python benchmarks/gpu/training.py --small    # the same code on a CPU, in a minute; its figures say nothing

Models of the shapes of Qwen2.5-0.5B and 1.5B with random weights, computed in bfloat16; recorded groups of 8, prompts
and completions of 512 + 512, 512 + 4,096 and 64 + 16,384 tokens; flash attention where its package is installed, flex
attention, and SDPA. A side that runs out of memory is named in the table. Needs torch with CUDA, this project, and no
network. What is left when the minutes are over is named and left out.

Tokens a second are distinct ones, a prompt once for its group, so that sides compare by what they get done; the share
of the matrix rate is 6 operations for each weight and distinct token, and 12 for each layer, unit of width and pair of
tokens that attention compares, of what `torch.matmul` of 8,192 x 8,192 matrices in bfloat16 reaches here.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import shared_prompts
import torch
from common import Claim, console, finish, parser_of, show
from measured import peak_memory, quieten
from shared_prompts import SIDES, Case, Seen, generating, peak, train
from train_step import now
from transformers import PreTrainedConfig, Qwen2Config
from transformers.utils import is_flash_attn_2_available

SHAPES = {"512 + 512": (512, 512, 8), "512 + 4,096": (512, 4_096, 4), "64 + 16,384": (64, 16_384, 1)}
"""Tokens of a prompt, tokens of each completion, and groups."""
SMALL = {"16 + 16": (16, 16, 2), "16 + 48": (16, 48, 1)}
MICROBATCH = {"512 + 512": 16, "512 + 4,096": 4, "64 + 16,384": 1}
"""Rows of a microbatch of TRL; ours have as many tokens."""
GENERATED = 256
"""Tokens generated for each completion at most."""
MINUTES = 9.0


def qwen(width: int, middle: int, layers: int, heads: int) -> Qwen2Config:
    """A published shape, with the special tokens of the tokenizer that is shipped."""
    return Qwen2Config(
        vocab_size=151_936,
        hidden_size=width,
        intermediate_size=middle,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=2,
        max_position_embeddings=32_768,
        rope_theta=1e6,
        tie_word_embeddings=True,
        eos_token_id=0,
        pad_token_id=1,
        bos_token_id=None,
    )


MODELS: dict[str, PreTrainedConfig] = {"0.5B": qwen(896, 4_864, 24, 14), "1.5B": qwen(1_536, 8_960, 28, 12)}


def backends(small: bool) -> list[str]:
    """Attention functions that can be compared here, the fastest first."""
    if small:
        return ["sdpa"]
    return (["flash_attention_2"] if is_flash_attn_2_available() else []) + ["flex_attention", "sdpa"]


def matrix_rate(size: int) -> float:
    """Operations a second of a matrix product."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    half = torch.bfloat16 if device == "cuda" else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=half) for _ in range(2))
    for _ in range(3):
        a @ b
    since, count = now()[1], 20
    for _ in range(count):
        a @ b
    return 2 * size**3 * count / (now()[1] - since)


def operations(case: Case, weights: int) -> float:
    """Of an update of a batch, each prompt once, nothing recomputed."""
    config, whole = case.config, case.prompt + case.completion
    pairs = case.groups * (case.prompt**2 / 2 + case.group * (whole**2 - case.prompt**2) / 2)
    return 6 * weights * case.distinct + 12 * config.num_hidden_layers * config.hidden_size * pairs


def measure(case: Case, side: str, rate: float) -> dict[str, Any]:
    """One side: seconds of an update and of the log-probabilities, peak memory, share of the matrix rate."""
    seen: list[Seen] = []
    try:
        bytes = peak_of(side, case, seen)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if "out of memory" not in str(error).lower():
            raise
        torch.cuda.empty_cache()
        return {"lost": "out of memory"}
    weights = sum(value.numel() for value in seen[0].weights.values())
    return {
        "update_s": seen[0].update,
        "scoring_s": seen[0].scoring,
        "tokens_s": case.distinct / seen[0].update,
        "peak": bytes,
        "rate": operations(case, weights) / seen[0].update / rate,
    }


def peak_of(side: str, case: Case, seen: list[Seen]) -> int:
    """Peak memory of a run that is kept in `seen`. On a CPU it is a run of its own, because the account is slow."""
    if not torch.cuda.is_available():
        seen.append(train(side, case))
        return peak(side, case)
    torch.cuda.empty_cache()
    return peak_memory(lambda begin: seen.append(train(side, case, begin)))


def compare(case: Case, rate: float) -> dict[str, Any]:
    """All sides, and generation."""
    found: dict[str, Any] = {side: measure(case, side, rate) for side in SIDES}
    generation, speed = generating(case, 1, min(case.completion, GENERATED))
    return found | {"generation": {"ratio": generation, "tokens_s": speed}}


def rows(found: dict[str, dict[str, Any]]) -> list[tuple[str, ...]]:
    """The table's lines."""
    lines = []
    for name, sides in found.items():
        ours = sides["shared"]
        for side in SIDES:
            one = sides[side]
            if "lost" in one:
                lines.append((name, side, one["lost"], *[""] * 5))
                continue
            ratio = "" if "lost" in ours else f"{one['update_s'] / ours['update_s']:.2f}"
            figures = (f"{one['update_s']:.2f} s", ratio, f"{one['scoring_s']:.2f} s", f"{one['tokens_s']:,.0f}")
            lines.append((name, side, *figures, f"{one['peak'] / 2**30:.1f} GiB", f"{one['rate']:.2f}"))
    return lines


def main() -> None:
    parser = parser_of(__doc__ or "")
    parser.add_argument("--small", action="store_true", help="tiny models, which a CPU can do")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="after which no further case is begun")
    options = parser.parse_args()
    if not options.small and not torch.cuda.is_available():
        parser.error("there is no GPU here. --small runs the same code in small on a CPU.")
    quieten()
    began = time.perf_counter()
    models = {"0.8 M": shared_prompts.MODELS["0.8 M"]} if options.small else MODELS
    shapes = SMALL if options.small else SHAPES
    if options.quick:
        models, shapes = (dict(list(all_.items())[:1]) for all_ in (models, shapes))
    rate = matrix_rate(256 if options.small else 8_192)
    train("shared", Case(shared_prompts.MODELS["0.8 M"], 16, 16))  # warm
    found: dict[str, dict[str, Any]] = {}
    left = []
    for (model, config), (shape, (prompt, completion, groups)), attention in itertools.product(
        models.items(), shapes.items(), backends(options.small)
    ):
        name = f"{model}, {shape}, {attention}"
        if time.perf_counter() - began > 60 * options.minutes:
            left.append(name)
            continue
        microbatch, checkpointing = MICROBATCH.get(shape), completion > 1_000
        case = Case(config, prompt, completion, 8, groups, microbatch, attention, checkpointing)
        found[name] = compare(case, rate)
    headings = ["case", "side", "update", "to shared", "log-probs", "distinct tokens/s", "peak", "share of matrix rate"]
    show(f"Groups of 8; matrix rate {rate / 1e12:.1f} T operations a second", headings, rows(found))
    show(
        "Generation: the decoding loop to transformers' generate",
        ["case", "ratio", "tokens/s"],
        [
            (name, f"{one['generation']['ratio']:.2f}", f"{one['generation']['tokens_s']:,.0f}")
            for name, one in found.items()
        ],
    )
    for name in left:
        console.print(f"not measured, the minutes were over: {name}")
    finish(claims(found), options.json)
    if options.json is not None:
        kept = json.loads(options.json.read_text()) | {"measured": found, "matrix_rate": rate, "left_out": left}
        options.json.write_text(json.dumps(kept, indent=2) + "\n")


def claims(found: dict[str, dict[str, Any]]) -> list[Claim]:
    """An update never slower, and never of more memory, than with separate prompts."""
    both = [sides for sides in found.values() if not any("lost" in sides[side] for side in ("separate", "shared"))]
    if not both:
        return []
    speed = min(sides["separate"]["update_s"] / sides["shared"]["update_s"] for sides in both)
    memory = max(sides["shared"]["peak"] / sides["separate"]["peak"] for sides in both)
    return [
        Claim("speed-up of an update, the least", speed, 0.98, higher_is_better=True),
        Claim("peak memory, shared / separate, the most", memory, 1.0),
    ]


if __name__ == "__main__":
    main()
