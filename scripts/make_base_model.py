"""Make the shipped base model: a real language model of 0.8 M weights that half knows how to add and subtract.

    python scripts/make_base_model.py --output models/arithmetic-0.8m

A Qwen3 model with a byte-level BPE tokenizer and a chat template, trained from scratch on worked solutions of
`math/Arithmetic-v0` (train split) in which every step is wrong with probability 0.25. It learns the procedure and the
sloppiness alike: it solves short problems often and long ones rarely, and the right steps are already the likeliest,
which is what reinforcement learning needs to start from. Takes about ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import gymnasium
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm import trange
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

import envs  # noqa: F401  (registers the environments)
from envs.math.worked import worked_solution

ENVIRONMENT = "math/Arithmetic-v0"
LEVELS = (1, 2, 3, 4)
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


def example(env: gymnasium.Env, index: int, rng: random.Random, error_rate: float) -> tuple[str, str]:
    problem = env.unwrapped.problem(index)
    solution = worked_solution(problem.a, problem.operation, problem.b, corrupt=sloppy(rng, error_rate))
    return problem.prompt, solution


def encode(tokenizer: PreTrainedTokenizerFast, pairs: list[tuple[str, str]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded input ids ``[N, T]`` and labels (-100 for prompt and padding)."""
    prompts = [f"<|user|>{prompt}<|end|><|assistant|>" for prompt, _ in pairs]
    prompt_ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    answer_ids = tokenizer([f"{answer}<|end|>" for _, answer in pairs], add_special_tokens=False)["input_ids"]
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
    parser.add_argument("--output", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--error-rate", type=float, default=0.25, help="probability that a step is wrong")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    envs_by_level = [gymnasium.make(ENVIRONMENT, levels=level, split="train") for level in LEVELS]
    texts = ["\n".join(example(env, index, rng, args.error_rate)) for env in envs_by_level for index in range(1000)]
    tokenizer = train_tokenizer(texts)
    model = make_model(tokenizer)
    print(f"{model.num_parameters():,} weights, {len(tokenizer)} tokens")

    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.learning_rate, args.steps, pct_start=0.05)
    started = time.time()
    bar = trange(args.steps, desc="warm start")
    for step in bar:
        env = envs_by_level[step % len(LEVELS)]  # one level a step: rows of like length need little padding
        first = 10_000 + step * args.batch
        pairs = [example(env, first + i, rng, args.error_rate) for i in range(args.batch)]
        ids, labels = encode(tokenizer, pairs)
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
