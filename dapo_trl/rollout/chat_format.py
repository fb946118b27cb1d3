"""How text becomes tokens around the model's own: prompts, replies, and where a turn ends."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from jinja2 import TemplateError
from trl.chat_template_utils import parse_response

from envs import Completion
from envs.observations import clean

from ..errors import ConfigError, one_line

_THINKING_TAGS = ("<think>", "</think>")
_TAIL = 16  # tokens of a prompt that are decoded to see whether it opens the thinking
_MARK = "a7Xq2"  # stands for the model's turn, to find the text that a chat template writes after it


@contextmanager
def template_errors() -> Iterator[None]:
    """Turn a chat template's refusal of messages into one line."""
    try:
        yield
    except TemplateError as error:
        raise ConfigError(
            f"the model's chat template refuses the prompt: {one_line(error).rstrip('.')}. If it takes no system "
            "message, put the text of system_prompt into prompt_template, before {question}, and leave system_prompt "
            "out."
        ) from error


@dataclass(frozen=True)
class ChatFormat:
    """The tokenizer with the arguments of its chat template."""

    tokenizer: Any
    stop_ids: Collection[int]
    """Last tokens that mean the model ended its turn by itself."""
    template: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of ``apply_chat_template``."""

    def prompt_ids(self, prompt: str | list[dict[str, str]]) -> list[int]:
        """The tokens of a prompt, chat messages or text.

        Raises:
            ConfigError: The chat template refuses the messages.
        """
        if isinstance(prompt, str):
            return self.tokenizer(prompt)["input_ids"]
        with template_errors():
            return self.tokenizer.apply_chat_template(
                prompt, add_generation_prompt=True, tokenize=True, return_dict=True, **self.template
            )["input_ids"]

    def reply_ids(self, reply: str) -> list[int]:
        """The tokens between the end of the model's turn and the beginning of its next: the text alone, or the
        text that the chat template writes between the two around a user's message.

        Raises:
            ConfigError: The template changes the text of the model's earlier turns.
        """
        reply = clean(reply, getattr(self.tokenizer, "all_special_tokens", ()))
        if not getattr(self.tokenizer, "chat_template", None):
            return self.tokenizer(reply, add_special_tokens=False)["input_ids"]
        dialogue = [
            {"role": "user", "content": "-"},
            {"role": "assistant", "content": _MARK},
            {"role": "user", "content": reply},
        ]
        text = self.tokenizer.apply_chat_template(dialogue, add_generation_prompt=True, tokenize=False, **self.template)
        _, mark, between = text.partition(_MARK)
        if not mark:
            raise ConfigError(
                "the chat template does not write a model's earlier turn as it is, so a reply cannot be appended "
                "to it: use another chat template for environments of many turns."
            )
        ends = self.tokenizer.convert_ids_to_tokens(list(self.stop_ids))
        for end in sorted((end for end in ends if end), key=len, reverse=True):
            if between.startswith(end):  # the model has written it itself
                between = between[len(end) :]
                break
        return self.tokenizer(between, add_special_tokens=False)["input_ids"]

    def completion(self, ids: list[int], prompt_ids: Sequence[int] = ()) -> Completion:
        """Return the completion that the environment judges for the tokens that the model wrote.

        The text is decoded from the tokens: a chat parser may have split the reasoning off the message.

        Args:
            ids: The model's tokens of one turn.
            prompt_ids: The tokens before them, if they are known; else the chat template tells how a prompt ends.
        """
        ending = self.tokenizer.decode(list(prompt_ids[-_TAIL:])) if prompt_ids else self._generation_prompt
        return Completion(
            self.text(ids),
            n_tokens=len(ids),
            finish_reason="stop" if self.is_ended(ids) else "length",
            thinking=ending.rstrip().endswith(_THINKING_TAGS[0]),
        )

    def text(self, ids: list[int]) -> str:
        """Decode tokens without special ones, but with thinking tags, which some tokenizers count among those."""
        if self._hidden_ids is None:
            return self.tokenizer.decode(ids, skip_special_tokens=True)
        return self.tokenizer.decode([token for token in ids if token not in self._hidden_ids])

    @cached_property
    def _hidden_ids(self) -> frozenset[int] | None:
        """Special tokens other than thinking tags; None if no thinking tag is a special token."""
        added = self.tokenizer.added_tokens_decoder
        special = {token: str(text) for token, text in added.items() if text.special}
        special |= dict(zip(self.tokenizer.all_special_ids, self.tokenizer.all_special_tokens, strict=True))
        hidden = frozenset(token for token, text in special.items() if text not in _THINKING_TAGS)
        return hidden if len(hidden) < len(special) else None

    @cached_property
    def _generation_prompt(self) -> str:
        """The end of every prompt, as the chat template writes it; "" without a template."""
        if not getattr(self.tokenizer, "chat_template", None):
            return ""
        asked = [{"role": "user", "content": "-"}]
        return self.tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False, **self.template)

    def completions(
        self, prompts: list[Any], prompt_ids: list[list[int]], completion_ids: list[list[int]]
    ) -> list[Any]:
        """Completions as TRL hands them to reward functions: text, or a list of one message after chat messages."""
        texts = self.tokenizer.batch_decode(completion_ids, skip_special_tokens=True)
        if isinstance(prompts[0], str):
            return texts
        parsed = any(getattr(self.tokenizer, name, None) for name in ("response_template", "response_schema"))
        if not parsed:
            return [[{"role": "assistant", "content": text}] for text in texts]
        pairs = zip(completion_ids, prompt_ids, strict=True)
        return [[parse_response(self.tokenizer, ids, prefix=prefix, tools=[])] for ids, prefix in pairs]

    def is_ended(self, ids: list[int]) -> bool:
        """Whether the model ended its turn by itself."""
        return bool(ids) and ids[-1] in self.stop_ids


def turn_end(tokenizer: Any, template: Mapping[str, Any]) -> int:
    """The token with which a model ends its turn: a special one that the chat template writes right after it, else the
    tokenizer's end token.

    Args:
        template: Further arguments of ``apply_chat_template``.
    """
    if not getattr(tokenizer, "chat_template", None):
        return tokenizer.eos_token_id
    turns = [{"role": "user", "content": "-"}, {"role": "assistant", "content": _MARK}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, **template)
    after = tokenizer(text.partition(_MARK)[2], add_special_tokens=False)["input_ids"]
    special = {token for token, text in tokenizer.added_tokens_decoder.items() if text.special}
    return after[0] if after and after[0] in special else tokenizer.eos_token_id
