"""Observations made fit for a model: text that can be encoded, without the special tokens of a conversation."""

from __future__ import annotations

import re
from collections.abc import Iterable

_SURROGATES = re.compile("[\ud800-\udfff]")
# <|im_end|>, <|eot_id|> and their like, also with the wide bars of some models; <start_of_turn>, <eos>, </s>; [INST]
_MARKS = re.compile(r"<(?=[|｜])|(?<=[|｜])>|<(?=/?(?:s|bos|eos|pad|unk|(?:start|end)_of_[a-z]+)>)|\[(?=/?INST\])")


def clean(text: str, marks: Iterable[str] = ()) -> str:
    """Return a text that can be encoded and holds no special token of a tokenizer: each is broken by a space.

    Args:
        text: What an environment replies; parts of it may be a program's, or the model's own.
        marks: Special tokens of the tokenizer at hand, besides those of well-known models.
    """
    text = _SURROGATES.sub("\ufffd", text)
    text = _MARKS.sub(lambda mark: f" {mark[0]}" if mark[0] == ">" else f"{mark[0]} ", text)
    for mark in marks:
        if len(mark) > 1:
            text = text.replace(mark, f"{mark[0]} {mark[1:]}")
    return text
