"""How text becomes tokens around the model's own: prompts, replies, and where a turn ends."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from envs import Completion
from envs.observations import clean

from ..errors import ConfigError

_MARK = "a7Xq2"  # stands for what the model said, to find what a chat template writes after it


@dataclass(frozen=True)
class ChatFormat:
    """The tokenizer with everything that its chat template is to be told."""

    tokenizer: Any
    stop_ids: Collection[int]
    """last tokens that mean the model ended its turn by itself"""
    template: Mapping[str, Any] = field(default_factory=dict)
    """further arguments of ``apply_chat_template``"""

    def prompt_ids(self, prompt: str | list[dict[str, str]]) -> list[int]:
        """The tokens of a prompt, chat messages or text."""
        if isinstance(prompt, str):
            return self.tokenizer(prompt)["input_ids"]
        return self.tokenizer.apply_chat_template(
            prompt, add_generation_prompt=True, tokenize=True, return_dict=True, **self.template
        )["input_ids"]

    def reply_ids(self, reply: str) -> list[int]:
        """The tokens between the end of the model's turn and the beginning of its next: the text alone, or what the
        chat template writes between the two around a user's message.

        Raises:
            ConfigError: the template does not write what the model said as it is.
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
                "the chat template does not write a model's earlier turn as it was said, so a reply cannot be appended "
                "to it: use another chat template for environments of many turns."
            )
        ends = self.tokenizer.convert_ids_to_tokens(list(self.stop_ids))
        for end in sorted((end for end in ends if end), key=len, reverse=True):
            if between.startswith(end):  # the model has said it itself
                between = between[len(end) :]
                break
        return self.tokenizer(between, add_special_tokens=False)["input_ids"]

    def completion(self, ids: list[int]) -> Completion:
        """What the environment is given for the tokens that the model wrote. The text is decoded from the tokens: a
        chat parser may have split the reasoning off the message."""
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        return Completion(text, n_tokens=len(ids), finish_reason="stop" if self.is_ended(ids) else "length")

    def is_ended(self, ids: list[int]) -> bool:
        """Whether the model ended its turn by itself."""
        return bool(ids) and ids[-1] in self.stop_ids
