"""Layouts of a text: prose, lists, JSON and others; each can be asked for, written, and taken apart again."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..text import brief
from .reading import Reading

_FENCED = re.compile(r"```(?:json)?\n(.*)\n```", re.DOTALL)
_TITLE = re.compile(r"<<[^<>]*\w[^<>]*>>")
_TITLE_WORDS = 10
_BREAK = re.compile(r"^[^\S\n]*\*\*\*[^\S\n]*$", re.MULTILINE)
_KEYS = (("fact", "opinion"), ("claim", "reason"), ("past", "future"), ("beginning", "middle", "end"))


class LayoutError(ValueError):
    """A text is not in the layout that was asked for; the message says why."""


class Layout(Protocol):
    """A way to lay out sentences."""

    @property
    def ask(self) -> str:
        """Asks for it; "" where nothing has to be asked for."""

    @property
    def decides(self) -> tuple[str, ...]:
        """The groups of constraints that make no sense beside it."""

    def write(self, sentences: Sequence[str]) -> str:
        """Lay out sentences."""

    def body(self, text: str) -> str:
        """Return the text within the layout, its parts as paragraphs.

        Raises:
            LayoutError: `text` is not in this layout.
        """


@dataclass(frozen=True)
class Prose:
    """Sentences one after another, in as many paragraphs as one likes."""

    ask = ""
    decides = ()

    def write(self, sentences: Sequence[str]) -> str:
        return " ".join(sentences)

    def body(self, text: str) -> str:
        return text


@dataclass(frozen=True)
class Paragraphs(Prose):
    """Two paragraphs, of which a constraint may ask for the number."""

    def write(self, sentences: Sequence[str]) -> str:
        return "\n\n".join(_halves(sentences))


@dataclass(frozen=True)
class Items:
    """A list with an item on each line."""

    count: int
    numbered: bool
    decides = ("sentences", "paragraphs")

    @property
    def ask(self) -> str:
        kind, form = ("numbered list", '"1.", "2." and so on') if self.numbered else ("list", '"- "')
        return f"Write a {kind} of exactly {self.count} sentences, each on a line of its own that begins with {form}."

    def write(self, sentences: Sequence[str]) -> str:
        marks = (f"{number}." if self.numbered else "-" for number in range(1, len(sentences) + 1))
        return "\n".join(f"{mark} {sentence}" for mark, sentence in zip(marks, sentences, strict=True))

    def body(self, text: str) -> str:
        lines = [line.strip() for line in text.split("\n") if line.strip()]
        if len(lines) != self.count:
            raise LayoutError(f"it has {len(lines)} lines and not {self.count} items, one on each line")
        items = []
        for number, line in enumerate(lines, 1):
            item = re.fullmatch(rf"{number}[.)] +(.+)" if self.numbered else r"[-*•] +(.+)", line)
            if item is None:
                raise LayoutError(f"the line {line[:40]!r} does not begin as item {number} should")
            items.append(item[1])
        return _sentence_each(items)


@dataclass(frozen=True)
class JsonObject:
    """A JSON object whose values are sentences."""

    keys: tuple[str, ...]
    decides = ("sentences", "paragraphs")

    @property
    def ask(self) -> str:
        keys = ", ".join(f'"{key}"' for key in self.keys)
        return f"Write a JSON object and nothing else, with the keys {keys}, each with one sentence as its value."

    def write(self, sentences: Sequence[str]) -> str:
        return json.dumps(dict(zip(self.keys, sentences, strict=True)), ensure_ascii=False)

    def body(self, text: str) -> str:
        found = _read_json(text)
        if not isinstance(found, dict) or set(found) != set(self.keys):
            raise LayoutError(f"it is no JSON object with the keys {', '.join(self.keys)}")
        return _sentence_each([found[key] for key in self.keys])


@dataclass(frozen=True)
class JsonList:
    """A JSON list of sentences."""

    count: int
    decides = ("sentences", "paragraphs")

    @property
    def ask(self) -> str:
        return f"Write a JSON list of exactly {self.count} strings and nothing else, each string one sentence."

    def write(self, sentences: Sequence[str]) -> str:
        return json.dumps(list(sentences), ensure_ascii=False)

    def body(self, text: str) -> str:
        found = _read_json(text)
        if not isinstance(found, list) or len(found) != self.count:
            raise LayoutError(f"it is no JSON list of {self.count} strings")
        return _sentence_each(found)


@dataclass(frozen=True)
class Titled:
    """A title between << and >> on the first line, which is no part of the text."""

    ask = "Put a title on the first line, between << and >>, and begin the text on the next line."
    title = "A Few Words"
    decides = ()

    def write(self, sentences: Sequence[str]) -> str:
        return f"<<{self.title}>>\n{' '.join(sentences)}"

    def body(self, text: str) -> str:
        title, _, rest = text.partition("\n")
        if not _TITLE.fullmatch(title.strip()) or len(title.split()) > _TITLE_WORDS:
            raise LayoutError(f"the first line is no title of at most {_TITLE_WORDS} words between << and >>")
        return rest.strip()


@dataclass(frozen=True)
class Quoted:
    """The whole text between double quotes."""

    ask = "Put the whole text between double quotes, and use no other double quotes."
    decides = ("paragraphs",)

    def write(self, sentences: Sequence[str]) -> str:
        return f'"{" ".join(sentences)}"'

    def body(self, text: str) -> str:
        if len(text) < 3 or text[0] + text[-1] != '""' or '"' in text[1:-1]:
            raise LayoutError("it does not stand between double quotes, with no others in it")
        return text[1:-1].strip()


@dataclass(frozen=True)
class Parts:
    """Two parts with a line of stars between them."""

    ask = "Write two parts, with a line between them that has *** on it and nothing else."
    decides = ("paragraphs",)

    def write(self, sentences: Sequence[str]) -> str:
        return "\n***\n".join(_halves(sentences))

    def body(self, text: str) -> str:
        parts = [part.strip() for part in _BREAK.split(text)]
        if len(parts) != 2 or not all(parts):
            raise LayoutError("it has not two parts with a line *** between them")
        return "\n\n".join(parts)


def layouts(count: int) -> list[Layout]:
    """Return the layouts that are asked for and take `count` sentences."""
    if count < 2:
        return [Titled(), Quoted()]
    items: list[Layout] = [Items(count, False), Items(count, True), JsonList(count)] if count <= 5 else []
    return [Titled(), Quoted(), Parts(), *items, *(JsonObject(keys) for keys in _KEYS if len(keys) == count)]


def _halves(sentences: Sequence[str]) -> list[str]:
    half = (len(sentences) + 1) // 2
    return [" ".join(sentences[:half]), " ".join(sentences[half:])]


def _read_json(text: str) -> Any:
    def without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a key comes twice")
        return dict(pairs)

    fenced = _FENCED.fullmatch(text)
    try:
        return json.loads(fenced[1] if fenced else text, object_pairs_hook=without_twins)
    except (ValueError, RecursionError) as error:
        raise LayoutError("it is no valid JSON, each key once and nothing around it") from error


def _sentence_each(values: Sequence[Any]) -> str:
    """Return sentences as paragraphs."""
    for value in values:
        if not isinstance(value, str) or len(Reading(value).sentences) != 1 or "\n" in value.strip():
            raise LayoutError(f"{brief(value)} is not one sentence")
    return "\n\n".join(value.strip() for value in values)
