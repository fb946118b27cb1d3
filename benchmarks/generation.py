"""transformers' `generate` as it comes, and with the decoding loop of this project.

    python benchmarks/generation.py            # a minute on one core
    python benchmarks/generation.py --quick

64 completions of models/rambling-0.8m at temperature 1, in groups of 8, on sums of two to four digits: most have 35 to
75 tokens, some never end before the limit. "Equal" is the same with no end before the last token. "Prompts of 4:1" are
worked examples before the question, four times as long as the completions, which are equal too. The two sides alternate
in one process, on one thread; the ratio is of seconds per token.
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

GROUPS, GROUP, EXAMPLES = 8, 8, 3
CASES = {
    "limit 128, as they come": (128, False, False, 2.5),
    "limit 512, as they come": (512, False, False, 4.0),
    "limit 128, equal": (128, True, False, 1.3),
    "prompts of 4:1, equal": (0, True, True, 3.0),
}
"""Limit in tokens, no end before it, worked examples in the prompt, and the bar of the claim."""


def main() -> None:
    options = arguments(__doc__ or "")
    repetitions = 2 if options.quick else 7
    quieten()
    folder = ROOT / "models" / "rambling-0.8m"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    env = make_env("math/Arithmetic-v0", levels=[2, 3, 4], operations="+").unwrapped

    def prompt(number: int, examples: bool) -> str:
        asked = [*range(10_000, 10_000 + EXAMPLES), number] if examples else [number]
        *shown, question = [f"<|user|>{env.problem(index).prompt}<|end|><|assistant|>" for index in asked]
        return (
            "".join(f"{text}{env.solution(index)}<|end|>" for text, index in zip(shown, asked, strict=False)) + question
        )

    def seconds_per_token(generate, repetition: int, limit: int, equal: bool, examples: bool) -> float:
        texts = [prompt(GROUPS * repetition + row // GROUP, examples) for row in range(GROUPS * GROUP)]
        given = tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
        if examples:
            limit = given["input_ids"].shape[1] // 4
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

    def ours(ids, mask, settings):
        return generate(model, ids, mask, settings)

    rows, ratios = [], {}
    for name, (limit, equal, examples, _) in CASES.items():
        seconds_per_token(ours, 0, limit, equal, examples)  # warm
        pairs = [
            [seconds_per_token(side, repetition, limit, equal, examples) for side in (plain, ours)]
            for repetition in range(repetitions)
        ]
        each = sorted(before / after for before, after in pairs)
        ratios[name] = statistics.median(each)
        rows.append((name, f"{ratios[name]:.2f} ({each[0]:.2f} to {each[-1]:.2f})"))
    show("Tokens a second, ours / plain: median (range)", ["completions", "ratio"], rows)
    finish(
        [
            Claim(f"speed-up, {name}", ratios[name], bar, higher_is_better=True)
            for name, (_, _, _, bar) in CASES.items()
        ],
        options.json,
    )
    console.print("one CPU thread")


if __name__ == "__main__":
    main()
