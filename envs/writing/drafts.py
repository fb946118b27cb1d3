"""Texts that are written first, so that constraints can be read off them; `drafts.txt` has their sentences."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from ..math.procedural import Split
from .layouts import Layout, Paragraphs, Prose, layouts

_FILE = Path(__file__).with_name("drafts.txt")
_COUNTS = (1, 2, 2, 3, 3, 4, 5, 6)
_LONG_WORD = re.compile(r"\b[A-Za-z]{4,}\b")
Pick = Callable[[Sequence[Any]], Any]
"""Draws one of some things."""
Case = Literal["as usual", "lower", "upper", "shout"]
"""Case of the letters; "shout" is one word in capitals in every sentence."""


@dataclass(frozen=True)
class Topic:
    """Something to write about.

    Attributes:
        split: The split in which it is used, and in no other.
        about: The topic, such as "the sea".
        word: The word that must stand in the text.
        sentences: Sentences with that word.
    """

    split: Split
    about: str
    word: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Draft:
    """A text about a topic.

    Attributes:
        topic: The topic.
        layout: Its layout.
        text: All of it.
    """

    topic: Topic
    layout: Layout
    text: str


def write(split: Split, pick: Pick, *, laid_out: bool, case: Case) -> Draft:
    """Write a draft.

    Args:
        split: Whose topics are used.
        pick: Draws.
        laid_out: Whether it has a layout that must be asked for.
        case: Of its letters.
    """
    topic = pick([topic for topic in topics() if topic.split == split])
    about = [*topic.sentences, *(sentence.format(topic=topic.about) for sentence in sentences("about"))]
    count = pick(_COUNTS)
    chosen = [pick(about)]
    while len(chosen) < count:
        more = pick(pick((about, sentences("more"), sentences("more"))))
        if more not in chosen:
            chosen.append(more)
    if count > 1 and pick((True, False)):
        chosen[-1] = pick(sentences("last"))
    chosen = [_in_case(sentence, case, pick) for sentence in chosen]
    plain = Paragraphs() if count > 3 and pick((True, False)) else Prose()
    layout: Layout = pick(layouts(count)) if laid_out else plain
    return Draft(topic, layout, layout.write(chosen))


@cache
def topics() -> tuple[Topic, ...]:
    """Return all topics."""
    found = []
    for block in _blocks():
        header, *own = block.splitlines()
        if not header.startswith("@"):
            split, _, rest = header.partition(" ")
            about, _, word = rest.partition(" | ")
            found.append(Topic("train" if split == "train" else "test", about, word, tuple(own)))
    return tuple(found)


@cache
def sentences(name: str) -> tuple[str, ...]:
    """Return the sentences of a list."""
    return next(tuple(block.splitlines()[1:]) for block in _blocks() if block.startswith(f"@{name}\n"))


def _blocks() -> list[str]:
    lines = [line for line in _FILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return "\n".join(lines).strip().split("\n\n")


def _in_case(sentence: str, case: Case, pick: Pick) -> str:
    if case in ("lower", "upper"):
        return sentence.lower() if case == "lower" else sentence.upper()
    words = list(_LONG_WORD.finditer(sentence))
    if case == "as usual" or not words:
        return sentence
    word = pick(words)
    return sentence[: word.start()] + word[0].upper() + sentence[word.end() :]
