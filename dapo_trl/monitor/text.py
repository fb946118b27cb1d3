"""Text for a person: what single tokens say, and long texts shortened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_UNFINISHED = "\ufffd"  # what a tokenizer says for a part of a character


def pieces(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """What each token adds to the text, special tokens by name.

    A character made of several tokens is shown with the first of them, and the others add nothing.
    """
    if not ids:
        return []
    anchor = tokenizer.encode("a", add_special_tokens=False)[-1:]  # some tokenizers drop the space of a first token
    lead = len(tokenizer.decode(anchor))
    plain = {"clean_up_tokenization_spaces": False}
    found = [text[lead:] for text in tokenizer.batch_decode([[*anchor, token] for token in ids], **plain)]
    first = 0
    while first < len(found):
        last = first + 1
        if found[first].endswith(_UNFINISHED):
            while last < len(found) and _UNFINISHED in found[last]:
                last += 1
            found[first:last] = [
                tokenizer.decode([*anchor, *ids[first:last]], **plain)[lead:],
                *[""] * (last - first - 1),
            ]
        first = last
    return found


def shortened(text: str | None, length: int) -> str | None:
    """At most ``length`` characters of a text, and a note in place of what is left out of its middle."""
    if text is None or len(text) <= length:
        return text
    half = length // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half:,} characters left out ...]\n{text[-half:]}"
