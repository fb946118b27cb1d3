"""Copies and near-copies of questions.

Questions are compared by their words: in Unicode's form NFKC, without case, white space and the punctuation of prose.
Symbols, brackets and other signs count as words, and each character of a script without spaces. Equal words are a
copy. Otherwise the similarity is the Jaccard index of their runs of `RUN` words, exactly and not by hashing;
runs that many questions have, such as an instruction, do not count. A question with other numbers or mathematical
operators is another problem, however similar, and is no near-copy.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

RUN = 3
"""Words of a run."""
COMMON = 0.01
"""Share of the questions from which a run belongs to the task and not to a question."""
MIN_COMMON = 10
"""Questions that must have a run at least before it counts as common."""
_ALONE = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Myanmar, Khmer
    r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # kana, Han
)
"""Letters of scripts that are written without spaces, as ranges of a regular expression."""
_PROSE = r""".,;:!?'"‘’‚‛“”„‟«»‹›…—―·•、。「」『』《》〈〉【】¿¡"""
_WORDS = re.compile(
    rf"""(?<![\w.,])\.\d+|\d+(?:[.,]\d+)*|(?<=\d):(?=\d)  # numbers, ratios
    |\\[^\W\d_{_ALONE}]+|[{_ALONE}]|[^\W\d_{_ALONE}]+  # commands of LaTeX, words
    |(?<=[\d)\]}}|])!+|(?<=\b[^\W\d_])!+|(?<=\b[^\W\d_])'+(?!\w)  # factorials, derivatives
    |[^\w\s{_PROSE}]""",
    re.VERBOSE,
)


class _Spelling(dict[int, str]):
    """What NFKC would lose, for `str.translate`: a raised character is a power, a fraction stands apart from a number
    before it, and any short dash is a minus."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        kind = unicodedata.decomposition(char).partition(" ")[0]
        found = {"<super>": f"^{char}", "<fraction>": f" {char} "}.get(kind, "-" if char in "‐‑‒–−" else char)
        return self.setdefault(code, found)


_SPELLING = _Spelling()


@dataclass(frozen=True)
class Twin:
    """The question that another one repeats."""

    place: int
    """Its place among those compared with."""
    similarity: float
    """1 for a copy."""


def words(text: str) -> tuple[str, ...]:
    """The words, numbers and signs of a text, in one spelling."""
    return tuple(_WORDS.findall(unicodedata.normalize("NFKC", text.translate(_SPELLING)).casefold()))


def copies(questions: Sequence[str]) -> list[int | None]:
    """The place of the first question with the same words, for each that has an earlier one."""
    first: dict[tuple[str, ...], int] = {}
    places = [first.setdefault(words(text), place) for place, text in enumerate(questions)]
    return [None if of == place else of for place, of in enumerate(places)]


def twins(questions: Sequence[str], others: Sequence[str], near: float) -> list[Twin | None]:
    """The most similar of the ``others`` for each question that repeats one.

    Args:
        near: The similarity from which it does, in (0, 1].
    """
    ours, theirs = [words(text) for text in questions], [words(text) for text in others]
    exact = {text: place for place, text in reversed(list(enumerate(theirs)))}
    counts = Counter(run for text in (*ours, *theirs) for run in _runs(text))
    limit = max(MIN_COMMON, COMMON * (len(ours) + len(theirs)))
    rare = [{run for run in _runs(text) if counts[run] <= limit} for text in theirs]
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, runs in enumerate(rare):
        for run in runs:
            holders[run].append(place)
    found: list[Twin | None] = []
    for text in ours:
        if text in exact:
            found.append(Twin(exact[text], 1.0))
            continue
        own = {run for run in _runs(text) if counts[run] <= limit}
        shared = Counter(place for run in own for place in holders.get(run, ()))
        similar = [(count / (len(own) + len(rare[place]) - count), -place) for place, count in shared.items()]
        best = max(
            (one for one in similar if one[0] >= near and _formula(theirs[-one[1]]) == _formula(text)), default=None
        )
        found.append(None if best is None else Twin(-best[1], best[0]))
    return found


def _runs(text: tuple[str, ...]) -> set[tuple[str, ...]]:
    return {text[place : place + RUN] for place in range(max(len(text) - RUN + 1, 1))}


def _formula(text: tuple[str, ...]) -> list[str]:
    """The numbers and mathematical operators among some words."""
    return sorted(
        word for word in text if word[0] in "*/!^\\." or word[0].isdecimal() or unicodedata.category(word[0]) == "Sm"
    )
