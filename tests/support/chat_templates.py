"""The chat templates of three families, as their models carry them, on a tokenizer of bytes."""

from __future__ import annotations

from transformers import PreTrainedTokenizerFast

from .tiny import byte_tokenizer

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
    "'\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' "
    "+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
    "{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'assistant' %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}"
    "{% endif %}{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
_TOKENS = {
    CHATML: ("", "<|im_start|> <|im_end|>"),
    LLAMA3: ("<|begin_of_text|>", "<|start_header_id|> <|end_header_id|> <|eot_id|>"),
    GEMMA: ("<bos>", "<start_of_turn> <end_of_turn>"),
}


def tokenizer_with(template: str) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes with one of these templates and its special tokens."""
    tokenizer = byte_tokenizer(chat=True)
    bos, marks = _TOKENS[template]
    tokenizer.add_special_tokens({"additional_special_tokens": marks.split()})
    if bos:
        tokenizer.add_special_tokens({"bos_token": bos})
    tokenizer.chat_template = template
    return tokenizer
