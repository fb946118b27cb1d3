"""A random model that says one of a few given answers, whatever it is asked: enough to be right now and then."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GraniteConfig, GraniteForCausalLM, PreTrainedTokenizerFast


def save_guessing_model(folder: Path, answers: Sequence[str], *, often: float = 0.5, context: int = 32768) -> str:
    """Write a model of one layer that, with probability ``often``, goes on with an answer, each as likely as the next,
    and else ends; returns the folder.

    Every answer is a token; all other words are unknown to it. All tokens have the same embedding, so that the hidden
    state is always the same and the head alone decides on the probabilities.
    """
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_words(), unk_token="<unk>", eos_token="<end>", pad_token="<pad>", padding_side="left"
    )
    tokenizer.add_tokens(list(answers))
    torch.manual_seed(0)
    config = GraniteConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=context,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = GraniteForCausalLM(config)
    chances = torch.full((len(tokenizer),), 1e-6)
    chances[tokenizer.eos_token_id] = 1 - often
    chances[tokenizer.convert_tokens_to_ids(list(answers))] = often / len(answers)
    with torch.no_grad():
        embeddings = model.get_input_embeddings().weight
        embeddings.copy_(embeddings[:1].expand_as(embeddings))
        hidden = model.model(torch.zeros(1, 1, dtype=torch.long)).last_hidden_state.view(-1)
        model.lm_head.weight.copy_(torch.outer(chances.log(), hidden / hidden.dot(hidden)))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def _words() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "<end>": 1, "<pad>": 2}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer
