"""transformers' `generate` as it comes, and with rows that have ended leaving the batch.

    python benchmarks/generation.py            # a minute on one core
    python benchmarks/generation.py --quick

64 completions of models/rambling-0.8m at temperature 1, in groups of 8, on sums of two to four digits: most have 35 to
75 tokens, some never end before the limit. "Equal lengths" is the same with no end before the last token, where there
is nothing to gain. The two sides alternate in one process, on one thread; the ratio is of seconds per token.
"""

from __future__ import annotations

import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from common import Claim, arguments, console, finish, show
from measured import ROOT, quieten
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from dapo_trl.generation.transformers import generate
from dapo_trl.rollout.environments import make_env

GROUPS, GROUP = 8, 8
LIMITS = (128, 512)


def main() -> None:
    options = arguments(__doc__ or "")
    repetitions = 2 if options.quick else 7
    quieten()
    folder = ROOT / "models" / "rambling-0.8m"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    env = make_env("math/Arithmetic-v0", levels=[2, 3, 4], operations="+").unwrapped

    def seconds_per_token(generate, repetition: int, limit: int, equal: bool) -> float:
        texts = [
            f"<|user|>{env.problem(GROUPS * repetition + row // GROUP).prompt}<|end|><|assistant|>"
            for row in range(GROUPS * GROUP)
        ]
        given = tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
        torch.manual_seed(repetition)
        settings = GenerationConfig(
            max_new_tokens=limit,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            suppress_tokens=[tokenizer.eos_token_id] if equal else None,
            do_sample=True,
            top_k=0,
        )
        started = time.perf_counter()
        sampled = generate(given["input_ids"], given["attention_mask"], settings)
        seconds = time.perf_counter() - started
        return seconds / int((sampled[:, given["input_ids"].shape[1] :] != tokenizer.pad_token_id).sum())

    def plain(ids, mask, settings):
        return model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)

    def compacted(ids, mask, settings):
        return generate(model, ids, mask, settings)

    rows, ratios = [], {}
    for limit, equal in [*((limit, False) for limit in LIMITS), (LIMITS[0], True)]:
        seconds_per_token(compacted, 0, limit, equal)  # warm
        pairs = [
            [seconds_per_token(side, repetition, limit, equal) for side in (plain, compacted)]
            for repetition in range(repetitions)
        ]
        each = sorted(before / after for before, after in pairs)
        ratios[limit, equal] = statistics.median(each)
        lengths = "equal" if equal else "as they come"
        rows.append((f"limit {limit}, {lengths}", f"{ratios[limit, equal]:.2f} ({each[0]:.2f} to {each[-1]:.2f})"))
    show("Tokens a second, compacted / plain: median (range)", ["completions", "ratio"], rows)
    finish(
        [
            Claim(f"speed-up, limit {LIMITS[0]}", ratios[LIMITS[0], False], 1.5, higher_is_better=True),
            Claim(f"speed-up, limit {LIMITS[1]}", ratios[LIMITS[1], False], 2.0, higher_is_better=True),
            Claim("speed, equal lengths", ratios[LIMITS[0], True], 0.95, higher_is_better=True),
        ],
        options.json,
    )
    console.print("one CPU thread")


if __name__ == "__main__":
    main()
