"""Make a shipped base model: a real language model of 0.8 M weights that half knows arithmetic.

    python scripts/make_base_model.py arithmetic --output models/arithmetic-0.8m
    python scripts/make_base_model.py rambling --output models/rambling-0.8m

A Qwen3 model with a byte-level BPE tokenizer and a chat template, trained on worked solutions of `math/Arithmetic-v0`
(train split) in which steps go wrong at random. It learns the procedure and the sloppiness alike: it solves short
problems often and long ones rarely, and the right steps are already the likeliest, which is what reinforcement learning
needs to start from.

- `arithmetic`: from scratch, on numbers of one to four digits; every column is wrong with probability 0.25. About
  23 minutes on one core.
- `rambling`: goes on from `arithmetic`, with numbers of two to four digits. Every column is wrong with probability
  0.3; every line ends in one of four ways, which is nothing to the verdict; with probability 0.08 a line is said again,
  and from then on again with probability 0.7 each time: most solutions are short, some come to no end within any limit.
  About 10 minutes on two cores.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm import trange
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

import envs  # noqa: F401  (registers the environments)
from envs.math.worked import worked_solution

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message.role + '|>' + message.content + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train_tokenizer(texts: list[str], vocab_size: int = 320) -> PreTrainedTokenizerFast:
    """Byte-level BPE in which every digit is a token of its own; any text can be written in it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<|end|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|end|>",
        pad_token="<|pad|>",
        additional_special_tokens=specials[2:],
        padding_side="left",
        model_max_length=1024,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def sloppy(rng: random.Random, error_rate: float):
    """A `corrupt` for `worked_solution`: with the given probability a step writes a wrong digit or a wrong carry."""

    def corrupt(column: int, digit: int, carry: int) -> tuple[int, int]:
        if rng.random() >= error_rate:
            return digit, carry
        if rng.random() < 0.25:
            return digit, 1 - carry
        return (digit + rng.randint(1, 9)) % 10, carry

    return corrupt


def arithmetic(problem: Any, rng: random.Random) -> str:
    """A worked solution in which one column in four is wrong."""
    return worked_solution(problem.a, problem.operation, problem.b, corrupt=sloppy(rng, 0.25))


def rambling(problem: Any, rng: random.Random) -> str:
    """A worked solution with wrong columns, lines that end as they please, and lines said again, perhaps many times."""
    text = worked_solution(problem.a, problem.operation, problem.b, corrupt=sloppy(rng, 0.3))
    *lines, answer = text.split("\n")
    said: list[str] = []
    for line in lines:
        again = 1.0
        while rng.random() < again:
            said.append(line + rng.choices(["", ".", ";", "!"], [0.4, 0.3, 0.2, 0.1])[0])
            again = 0.08 if again == 1.0 else 0.7
    return "\n".join([*said, answer])


@dataclass(frozen=True)
class Recipe:
    """What a base model is trained on.

    Attributes:
        environment: The id of the task.
        solve: Writes a sloppy solution of a problem.
        batches: `(level, rows)` of each optimizer step, taken in turn: one level a step, since rows of like length
            need little padding.
        steps: Optimizer steps.
        start: Folder of the model to begin with; None: a new one.
        learning_rate: The highest.
        context: Longest solution in tokens that is trained on; what is longer is cut there, without an end.
    """

    environment: str
    solve: Callable[[Any, random.Random], str]
    batches: tuple[tuple[int, int], ...]
    steps: int
    start: str | None = None
    learning_rate: float = 3e-3
    context: int = 1024


RECIPES = {
    "arithmetic": Recipe("math/Arithmetic-v0", arithmetic, ((1, 32), (2, 32), (3, 32), (4, 32)), 3600),
    "rambling": Recipe(
        "math/Arithmetic-v0",
        rambling,
        ((2, 24), (3, 24), (4, 32)),
        1500,
        start="models/arithmetic-0.8m",
        learning_rate=1e-3,
        context=256,
    ),
}


def example(env: gymnasium.Env, index: int, rng: random.Random, recipe: Recipe) -> tuple[str, str]:
    problem = env.unwrapped.problem(index)
    return problem.prompt, recipe.solve(problem, rng)


def encode(
    tokenizer: PreTrainedTokenizerFast, pairs: list[tuple[str, str]], context: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded input ids ``[N, T]`` and labels (-100: prompt, padding); answers end after `context` tokens."""
    prompts = [f"<|user|>{prompt}<|end|><|assistant|>" for prompt, _ in pairs]
    prompt_ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    answer_ids = tokenizer([f"{answer}<|end|>" for _, answer in pairs], add_special_tokens=False)["input_ids"]
    answer_ids = [ids[:context] for ids in answer_ids]
    width = max(len(p) + len(a) for p, a in zip(prompt_ids, answer_ids, strict=True))
    ids = torch.full((len(pairs), width), tokenizer.pad_token_id)
    labels = torch.full((len(pairs), width), -100)
    for row, (p, a) in enumerate(zip(prompt_ids, answer_ids, strict=True)):
        ids[row, : len(p) + len(a)] = torch.tensor(p + a)
        labels[row, len(p) : len(p) + len(a)] = torch.tensor(a)
    return ids, labels


def make_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen3ForCausalLM(config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=RECIPES)
    parser.add_argument("--output", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    recipe = RECIPES[args.task]

    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    levels = sorted({level for level, _ in recipe.batches})
    envs_by_level = {level: gymnasium.make(recipe.environment, levels=level, split="train") for level in levels}
    if recipe.start is None:
        texts = ["\n".join(example(env, index, rng, recipe)) for env in envs_by_level.values() for index in range(1000)]
        tokenizer = train_tokenizer(texts)
        model = make_model(tokenizer)
    else:
        tokenizer = AutoTokenizer.from_pretrained(recipe.start)
        model = AutoModelForCausalLM.from_pretrained(recipe.start, dtype=torch.float32)
    print(f"{model.num_parameters():,} weights, {len(tokenizer)} tokens")

    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, recipe.steps, pct_start=0.05)
    started = time.time()
    index = 10_000
    bar = trange(recipe.steps, desc="warm start")
    for step in bar:
        level, rows = recipe.batches[step % len(recipe.batches)]
        pairs = [example(envs_by_level[level], index + i, rng, recipe) for i in range(rows)]
        index += rows
        ids, labels = encode(tokenizer, pairs, recipe.context)
        loss = model(input_ids=ids, attention_mask=ids != tokenizer.pad_token_id, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.to(torch.float16).save_pretrained(args.output)
    tokenizer.save_pretrained(args.output)
    print(f"wrote {args.output} after {time.time() - started:.0f} s")


if __name__ == "__main__":
    main()
