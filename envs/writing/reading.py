"""What a text consists of, defined so that two readers count alike, and whether it is plain English.

Before anything is counted, a text is put into Unicode's form NFKC; accents that stand alone, invisible characters (zero
width spaces, direction marks) and soft hyphens are dropped; all kinds of line ends become one. Then

- a *word* is a longest run of letters and digits, in which single apostrophes and hyphens may stand ("don't",
  "well-known"), and points and commas between digits ("3.5", "1,000");
- a *sentence* ends with one or more of . ! ? or their East Asian forms, closing quotes and brackets included, before
  white space or the end of its paragraph; not after "Mr." and the like, nor after an initial. What is left at the end
  of a paragraph is a sentence too, though no whole one;
- a *paragraph* is what stands between blank lines;
- a *letter* is counted without its accents and whatever its case: "É" is an "e".
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import cached_property
from itertools import pairwise
from pathlib import Path

_WORD = re.compile(r"\d+(?:[.,]\d+)+|[^\W_]+(?:['\-][^\W_]+)*")
_END = re.compile(r"[.!?]+[\"')\]»]*(?=\s|$)|[。！？]+[\"')\]」』]*")
_INITIAL = re.compile(r"\b[A-HJ-Z]\.$")
_TITLE = re.compile(r"\b(?:mr|mrs|ms|dr|st|prof|jr|sr|vs|e\.g|i\.e)\.$", re.IGNORECASE)
_BLANK = re.compile(r"\n[^\S\n]*(?:\n[^\S\n]*)+")
_LINE_ENDS = re.compile(r"\r\n|[\r\x0b\x0c\x85\u2028]")
_STRAIGHT = str.maketrans({"‘": "'", "’": "'", "ʼ": "'", "“": '"', "”": '"', "‐": "-", "‑": "-"})
_VOWELS = frozenset("aeiouy")
_MAX_LETTERS = 20  # of a word of plain English
_COPIED = 6  # words in a row that are no accident
_DOUBLED = ("had", "that", "very", "so", "really")  # words that may follow themselves
_COMMON = frozenset(Path(__file__).with_name("common_words.txt").read_text(encoding="utf-8").split())


def normal(text: str) -> str:
    """Return a text in the form in which it is counted, without white space around it; see the top of this file."""
    text = _LINE_ENDS.sub("\n", text).replace("\u2029", "\n\n").translate(_STRAIGHT)
    text = unicodedata.normalize("NFKC", text)
    if not text.isascii():
        kept = (char for char in text if unicodedata.category(char) not in ("Cf", "Mn", "Me", "Mc"))
        text = "".join(kept).translate(_STRAIGHT)
    return text.strip()


class Reading:
    """A text that was put into its normal form, taken apart.

    Args:
        text: The text, its paragraphs apart by blank lines.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def paragraphs(self) -> list[str]:
        return [part.strip() for part in _BLANK.split(self.text) if part.strip()]

    @cached_property
    def sentences(self) -> list[str]:
        return [sentence for paragraph in self.paragraphs for sentence in _sentences(paragraph)]

    @cached_property
    def words(self) -> list[str]:
        return _WORD.findall(self.text)

    @cached_property
    def folded(self) -> list[str]:
        """The words, whatever their case."""
        return [word.casefold() for word in self.words]

    @cached_property
    def letters(self) -> Counter[str]:
        plain = unicodedata.normalize("NFD", self.text.casefold())
        return Counter(char for char in plain if char.isalpha())

    def count(self, word: str) -> int:
        """Return how often a word stands in the text, whatever its case."""
        return self.folded.count(word.casefold())

    def fault(self, *, prompt: str, words: range, capitals: bool) -> str:
        """Return why this is no plain English text of one's own; "" if it is one.

        Grammar and sense are not judged. What is: the number of words; letters of another alphabet; words that no one
        writes; too few of the commonest words of English, or nothing else; words or sentences over and over; sentences
        without an end, or without a capital where one is due; and a part of the prompt.

        Args:
            prompt: What was asked; six words of it in a row are a copy.
            words: How many words it may have, from 1 on.
            capitals: Whether a sentence must begin with a capital letter.
        """
        found = self.folded
        if len(found) not in words:
            return f"it has {len(found)} words, where {words[0]} to {words[-1]} are asked for"
        if not all("LATIN" in unicodedata.name(letter, "") for letter in self.letters):
            return "it has letters that are not those of English"
        if any(len(word) > _MAX_LETTERS or (len(word) > 3 and _unspoken(word)) for word in found):
            return "a word in it is none"
        common = sum(word in _COMMON for word in found) / len(found)
        if not 0.2 <= common <= 0.9:
            return f"{common:.0%} of its words are among the commonest of English, where text has 20% to 90%"
        twice = any(one == next_one and one not in _DOUBLED for one, next_one in pairwise(found))
        sentences = {sentence.casefold() for sentence in self.sentences}
        if twice or len(set(found)) < len(found) / 2 or len(sentences) < len(self.sentences):
            return "it repeats itself"
        if any(not _END.search(sentence[-4:]) for sentence in self.sentences):
            return "a sentence has no end"
        if capitals and any(_first_letter(sentence).islower() for sentence in self.sentences):
            return "a sentence begins with a small letter"
        return "it is copied from the prompt" if _shares(found, Reading(normal(prompt)).folded) else ""


def _sentences(paragraph: str) -> list[str]:
    found, start = [], 0
    for end in _END.finditer(paragraph):
        before = paragraph[start : end.end()]
        rest = paragraph[end.end() :].strip()
        if rest and (_TITLE.search(before) or _INITIAL.search(before)):
            continue
        found.append(before.strip())
        start = end.end()
    return [sentence for sentence in [*found, paragraph[start:].strip()] if _WORD.search(sentence)]


def _unspoken(word: str) -> bool:
    return word.isalpha() and not _VOWELS & set(unicodedata.normalize("NFD", word))


def _first_letter(sentence: str) -> str:
    return next((char for char in sentence if char.isalnum()), "")


def _shares(words: list[str], others: list[str]) -> bool:
    """Whether some words in a row stand in both."""

    def runs(of: list[str]) -> set[tuple[str, ...]]:
        return {tuple(of[place : place + _COPIED]) for place in range(len(of) - _COPIED + 1)}

    return not runs(words).isdisjoint(runs(others))
