"""The kinds of constraints on a text: how each is read off a text, how it is asked for, and how it is checked.

A kind is read off a draft that exists, so that whatever is combined, the draft meets all of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .drafts import Pick
from .reading import Reading

_DIGITS = re.compile(r"\d+(?:[.,]\d+)*")
_PLAIN = re.compile(r"[A-Za-z' .!?\n]*")
_AVOIDED = ("very", "nice", "good", "many", "people", "always", "never", "really", "because", "but", "like", "day")
_LETTERS = "bcdfghjkmpquvwy"  # that a text may have to do without
_OFTEN = "aeinorst"  # that are counted


@dataclass(frozen=True)
class Kind:
    """A kind of constraint.

    Attributes:
        group: No two of one group stand in one instruction.
        ask: The words for it, with {0}, {1} ... for the values.
        read: Returns values with which it holds for a text, None where it cannot be asked of it.
        holds: Whether it holds for a text, given the values.
        level: The lowest level at which it is asked for.
    """

    group: str
    ask: str
    read: Callable[[Reading, Pick], tuple[Any, ...] | None]
    holds: Callable[..., bool]
    level: int = 1


@dataclass(frozen=True)
class Constraint:
    """One constraint: a kind and its values."""

    kind: str
    values: tuple[Any, ...]

    @property
    def ask(self) -> str:
        """Asks for it, as a sentence."""
        return KINDS[self.kind].ask.format(*self.values)

    def holds(self, reading: Reading) -> bool:
        """Whether it holds for a text."""
        return KINDS[self.kind].holds(reading, *self.values)


def constraint_of(kind: str, reading: Reading, pick: Pick) -> Constraint | None:
    """Return a constraint of a kind that holds for a text; None where there is none worth asking for."""
    values = KINDS[kind].read(reading, pick)
    return None if values is None else Constraint(kind, values)


def _counts(count: Callable[[Reading], int], least: int) -> Callable[[Reading, Pick], tuple[int] | None]:
    """Read a number off a text, if it is at least `least`."""
    return lambda text, pick: (count(text),) if count(text) >= least else None


def _fives(text: Reading) -> int:
    """Return the number of words, rounded down to fives."""
    return len(text.words) // 5 * 5


def _lengths(text: Reading) -> list[int]:
    """Return the number of words of every sentence."""
    return [len(Reading(sentence).words) for sentence in text.sentences]


def _longest(text: Reading) -> int:
    """Return how many letters and digits the longest word has."""
    return max(sum(map(str.isalnum, word)) for word in text.words)


def _endings(text: Reading, mark: str) -> int:
    """Return how many sentences end with a mark."""
    return sum(sentence.rstrip("\"')]»").endswith(mark) for sentence in text.sentences)


def _shouted(text: Reading) -> int:
    """Return how many words of two letters and more are in capitals."""
    return sum(len(word) > 1 and word.isupper() for word in text.words)


def _initials(text: Reading) -> str:
    return " ".join(Reading(sentence).words[0][0].upper() for sentence in text.sentences)


def _telling(text: Reading) -> list[str]:
    """Return the words that a text may be asked to have: long ones, each once."""
    return list(dict.fromkeys(word for word in text.folded if len(word) > 4 and word.isalpha()))


def _absent(text: Reading, letters: str) -> list[str]:
    return [letter for letter in letters if not text.letters[letter]]


def _two(some: list[str], pick: Pick) -> tuple[str, str] | None:
    """Draw two different ones."""
    if len(set(some)) < 2:
        return None
    first = pick(some)
    return first, pick([one for one in some if one != first])


def _often(text: Reading, pick: Pick) -> tuple[str, int] | None:
    """Draw a letter that comes three times or more, and return it with its number."""
    letter = pick([letter for letter in _OFTEN if text.letters[letter] > 2] or ["e"])
    return (letter, text.letters[letter]) if text.letters[letter] > 2 else None


def _repeated(text: Reading, pick: Pick) -> tuple[str, int] | None:
    """Draw a word that comes twice or more, and return it with its number."""
    words = [word for word in dict.fromkeys(text.folded) if text.count(word) > 1 and len(word) > 1]
    return (word, text.count(word)) if words and (word := pick(words)) else None


KINDS: Mapping[str, Kind] = {
    "words exactly": Kind(
        "words",
        "Write exactly {0} words.",
        _counts(lambda text: len(text.words), 4),
        lambda text, count: len(text.words) == count,
        level=2,
    ),
    "words at least": Kind(
        "words",
        "Write at least {0} words.",
        lambda text, pick: (_fives(text),) if _fives(text) else None,
        lambda text, count: len(text.words) >= count,
    ),
    "words at most": Kind(
        "words",
        "Write at most {0} words.",
        lambda text, pick: (_fives(text) + 5,),
        lambda text, count: len(text.words) <= count,
    ),
    "words between": Kind(
        "words",
        "Write between {0} and {1} words.",
        lambda text, pick: (_fives(text), _fives(text) + pick((5, 10))) if _fives(text) else None,
        lambda text, low, high: low <= len(text.words) <= high,
    ),
    "sentence": Kind(
        "sentences",
        "Write exactly one sentence.",
        lambda text, pick: () if len(text.sentences) == 1 else None,
        lambda text: len(text.sentences) == 1,
    ),
    "sentences exactly": Kind(
        "sentences",
        "Write exactly {0} sentences.",
        _counts(lambda text: len(text.sentences), 2),
        lambda text, count: len(text.sentences) == count,
    ),
    "sentences at least": Kind(
        "sentences",
        "Write at least {0} sentences.",
        _counts(lambda text: len(text.sentences), 2),
        lambda text, count: len(text.sentences) >= count,
    ),
    "sentences at most": Kind(
        "sentences",
        "Write at most {0} sentences.",
        _counts(lambda text: len(text.sentences), 2),
        lambda text, count: len(text.sentences) <= count,
    ),
    "short sentences": Kind(
        "lengths",
        "No sentence may have more than {0} words.",
        lambda text, pick: (max(_lengths(text)) + pick((0, 1, 2)),),
        lambda text, count: max(_lengths(text)) <= count,
    ),
    "long sentences": Kind(
        "lengths",
        "Every sentence must have at least {0} words.",
        lambda text, pick: (min(_lengths(text)),) if min(_lengths(text)) > 2 else None,
        lambda text, count: min(_lengths(text)) >= count,
    ),
    "paragraphs": Kind(
        "paragraphs",
        "Write exactly {0} paragraphs, with a blank line between them.",
        _counts(lambda text: len(text.paragraphs), 2),
        lambda text, count: len(text.paragraphs) == count,
    ),
    "without a letter": Kind(
        "letters",
        'Do not use the letter "{0}".',
        lambda text, pick: (pick(absent),) if (absent := _absent(text, _LETTERS)) else None,
        lambda text, letter: not text.letters[letter],
        level=2,
    ),
    "without letters": Kind(
        "letters",
        'Use neither the letter "{0}" nor the letter "{1}".',
        lambda text, pick: _two(_absent(text, _LETTERS), pick),
        lambda text, *letters: not any(text.letters[letter] for letter in letters),
        level=3,
    ),
    "a letter at least": Kind(
        "counts of a letter",
        'Use the letter "{0}" at least {1} times.',
        lambda text, pick: (
            (often[0], pick(range((often[1] + 1) // 2, often[1]))) if (often := _often(text, pick)) else None
        ),
        lambda text, letter, count: text.letters[letter] >= count,
    ),
    "a letter exactly": Kind(
        "counts of a letter",
        'Use the letter "{0}" exactly {1} times.',
        _often,
        lambda text, letter, count: text.letters[letter] == count,
        level=4,
    ),
    "short words": Kind(
        "lengths of words",
        "No word may have more than {0} letters.",
        _counts(_longest, 6),
        lambda text, count: _longest(text) <= count,
    ),
    "a long word": Kind(
        "lengths of words",
        "Use at least one word of {0} or more letters.",
        _counts(_longest, 7),
        lambda text, count: _longest(text) >= count,
    ),
    "plain signs": Kind(
        "signs",
        "Use only the letters of the English alphabet, spaces, apostrophes and . ! or ? at the end of sentences.",
        lambda text, pick: () if _PLAIN.fullmatch(text.text) else None,
        lambda text: bool(_PLAIN.fullmatch(text.text)),
        level=2,
    ),
    "no commas": Kind(
        "signs",
        "Do not use any commas.",
        lambda text, pick: None if "," in text.text else (),
        lambda text: "," not in text.text,
    ),
    "commas": Kind(
        "signs",
        "Use at least {0} commas.",
        _counts(lambda text: text.text.count(","), 2),
        lambda text, count: text.text.count(",") >= count,
    ),
    "a number": Kind(
        "digits",
        "Mention a number, written in digits.",
        lambda text, pick: () if _DIGITS.search(text.text) else None,
        lambda text: bool(_DIGITS.search(text.text)),
    ),
    "lower case": Kind(
        "case",
        "Use small letters only, no capitals.",
        lambda text, pick: () if text.text.islower() else None,
        lambda text: text.text.islower(),
    ),
    "capitals": Kind(
        "case",
        "Use capital letters only.",
        lambda text, pick: () if text.text.isupper() else None,
        lambda text: text.text.isupper(),
    ),
    "words in capitals": Kind(
        "case",
        "Write exactly {0} words in capital letters, words of one letter not counted.",
        lambda text, pick: None if text.text.isupper() or _shouted(text) < 2 else (_shouted(text),),
        lambda text, count: _shouted(text) == count,
        level=2,
    ),
    "first word": Kind(
        "start",
        'Begin with the word "{0}".',
        lambda text, pick: (text.words[0],),
        lambda text, word: text.folded[0] == word.casefold(),
    ),
    "initials": Kind(
        "start",
        "The first letters of the sentences must be, in this order: {0}.",
        lambda text, pick: (_initials(text),) if len(text.sentences) > 1 else None,
        lambda text, initials: _initials(text) == initials,
        level=3,
    ),
    "last word": Kind(
        "end",
        'The last word must be "{0}".',
        lambda text, pick: (text.words[-1],),
        lambda text, word: text.folded[-1] == word.casefold(),
    ),
    "last sentence": Kind(
        "end",
        'End with the sentence "{0}"',
        lambda text, pick: (text.sentences[-1],) if len(text.sentences) > 1 and _lengths(text)[-1] < 6 else None,
        lambda text, sentence: text.sentences[-1].casefold() == sentence.casefold(),
    ),
    "question at the end": Kind(
        "end",
        "End with a question.",
        lambda text, pick: () if text.sentences[-1].endswith("?") else None,
        lambda text: _endings(Reading(text.sentences[-1]), "?") == 1,
    ),
    "an exclamation": Kind(
        "marks",
        "Use at least one exclamation mark.",
        lambda text, pick: () if "!" in text.text else None,
        lambda text: "!" in text.text,
    ),
    "questions": Kind(
        "marks",
        "Ask exactly {0} questions.",
        _counts(lambda text: _endings(text, "?"), 2),
        lambda text, count: _endings(text, "?") == count,
        level=2,
    ),
    "no questions": Kind(
        "marks",
        "Ask no questions.",
        lambda text, pick: None if "?" in text.text else (),
        lambda text: "?" not in text.text,
    ),
    "required word": Kind(
        "required",
        'Also use the word "{0}".',
        lambda text, pick: (pick(words),) if (words := _telling(text)) else None,
        lambda text, word: text.count(word) > 0,
    ),
    "required words": Kind(
        "required",
        'Also use the words "{0}" and "{1}".',
        lambda text, pick: _two(_telling(text), pick),
        lambda text, *words: all(map(text.count, words)),
        level=2,
    ),
    "a word so often": Kind(
        "repeated",
        'Use the word "{0}" exactly {1} times.',
        _repeated,
        lambda text, word, count: text.count(word) == count,
        level=3,
    ),
    "forbidden words": Kind(
        "forbidden",
        'Use neither the word "{0}" nor the word "{1}".',
        lambda text, pick: _two([word for word in _AVOIDED if not text.count(word)], pick),
        lambda text, *words: not any(map(text.count, words)),
    ),
}
"""Every kind by name; a text has at least one word where they are asked."""
