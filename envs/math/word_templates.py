"""Templates of word problems: a text with slots, and the steps that solve it; `word_problems.txt` explains the form.

Numbers are drawn until all of them, the results of the steps included, are whole and at least 2, so that every plural
is one, and until the answer is none of the numbers in the problem.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .expression import parse_expression
from .procedural import Split

_FILE = Path(__file__).with_name("word_problems.txt")
_HEADER = re.compile(r"(?P<level>\d) (?P<split>train|test) (?P<numbers>.+)")
_CHOICE = re.compile(r"\[([^\[\]]+)\]")
_SLOT = re.compile(r"\{([^{}]+)\}")
_STEP = re.compile(r"(?P<dollar>\$?)(?P<name>[a-z]) = (?P<expression>.+)")
_NUMBER = re.compile(r"(?P<name>[a-z])(?::(?P<form>word|times|part))?")
_NOUN = re.compile(r"(?P<article>[Aa] )?(?P<list>[a-z]+?)(?P<plural>s?)(?P<other>2?)")
_VARIABLE = re.compile(r"[a-z]")
_LEAST = 2
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_PARTS = {2: "half", 3: "a third", 4: "a quarter", 5: "a fifth"}
_PRONOUNS = {"girl": ("she", "her", "her"), "boy": ("he", "his", "him")}


@dataclass(frozen=True)
class Step:
    """One step of a solution: `name = expression`."""

    name: str
    expression: str


@dataclass(frozen=True)
class Template:
    """A problem with slots.

    Attributes:
        level: Its level.
        split: The split in which it is used, and in no other.
        ranges: The values that each number may have.
        derived: Numbers that follow from these, as expressions, in the order of working them out.
        text: The problem.
        solution: A sentence for each line of the solution, with the steps in it.
    """

    level: int
    split: Split
    ranges: Mapping[str, Sequence[int]]
    derived: Mapping[str, str]
    text: str
    solution: tuple[str, ...]

    @property
    def steps(self) -> list[Step]:
        """The steps of the solution; the result of the last one is the answer."""
        found = (_STEP.fullmatch(slot) for line in self.solution for slot in _SLOT.findall(line))
        return [Step(step["name"], step["expression"]) for step in found if step]

    @property
    def given(self) -> list[str]:
        """The names of the numbers that stand in the problem."""
        found = (_NUMBER.fullmatch(slot) for slot in _SLOT.findall(self.text))
        return list(dict.fromkeys(number["name"] for number in found if number))

    def draw(self, bits: Iterator[int]) -> dict[str, int] | None:
        """Draw the numbers and work out the steps; None if a result is not whole, too small, or given in the text."""
        numbers = {name: values[next(bits) % len(values)] for name, values in self.ranges.items()}
        expressions = {**self.derived, **{step.name: step.expression for step in self.steps}}
        for name, expression in expressions.items():
            value = parse_expression(_filled(expression, numbers)).value
            if value.denominator != 1 or value < _LEAST:
                return None
            numbers[name] = int(value)
        answer = numbers[self.steps[-1].name]
        return None if answer in (numbers[name] for name in self.given) else numbers

    def write(self, numbers: Mapping[str, int], bits: Iterator[int]) -> tuple[str, tuple[str, ...]]:
        """Return the problem and the lines of its solution, with all slots filled."""
        text, *solution = (_chosen(line, bits) for line in (self.text, *self.solution))
        writer = _Writer(numbers, bits)
        return writer.fill(text), tuple(map(writer.fill, solution))


class _Writer:
    """Fills the slots of one problem and its solution; a slot that comes again gets the same word."""

    def __init__(self, numbers: Mapping[str, int], bits: Iterator[int]) -> None:
        self._numbers, self._bits = numbers, bits
        self._words: dict[str, str] = {}
        genders = ["girl", "boy"]
        gender = genders[next(bits) % 2]
        he, his, him = _PRONOUNS[gender]
        self._words["N"] = self._pick(gender)
        self._words |= {"he": he, "his": his, "him": him, "He": he.title(), "His": his.title()}
        for name in ("M", "L"):
            self._words[name] = self._pick(genders[next(bits) % 2])

    def fill(self, text: str) -> str:
        """Return `text` without slots."""
        return _SLOT.sub(lambda slot: self._written(slot[1]), text)

    def _written(self, slot: str) -> str:
        if slot in self._words:
            return self._words[slot]
        if step := _STEP.fullmatch(slot):
            left = _filled(step["expression"], self._numbers)
            return f"{left} = {step['dollar']}{self._numbers[step['name']]}"
        if number := _NUMBER.fullmatch(slot):
            return _number(self._numbers[number["name"]], number["form"])
        return self._noun(slot)

    def _noun(self, slot: str) -> str:
        noun = _NOUN.fullmatch(slot)
        if noun is None or noun["list"] not in _words():
            raise KeyError(f"word_problems.txt: {{{slot}}} is no number, person or word of a list")
        key = f"@{noun['list']}{noun['other']}"
        if key not in self._words:
            self._words[key] = self._pick(noun["list"])
        one, _, many = self._words[key].partition("/")
        if noun["plural"]:
            return many or f"{one}s"
        article = "an" if one[0] in "aeiou" else "a"
        return f"{article.title() if noun['article'] == 'A ' else article} {one}" if noun["article"] else one

    def _pick(self, name: str) -> str:
        """Draw a word of a list that is not in use yet."""
        words = [word for word in _words()[name] if word not in self._words.values()]
        return words[next(self._bits) % len(words)]


def templates(level: int, split: Split) -> list[Template]:
    """Return the templates of a level that are used in `split`."""
    return [template for template in _templates() if (template.level, template.split) == (level, split)]


@cache
def _templates() -> tuple[Template, ...]:
    blocks = "\n".join(line for line in _lines() if not line.startswith("@")).strip().split("\n\n")
    return tuple(map(_template, blocks))


@cache
def _words() -> Mapping[str, Sequence[str]]:
    """Return the lists of words by name."""
    lists = (line[1:].partition(": ") for line in _lines() if line.startswith("@"))
    return {name: words.split(", ") for name, _, words in lists}


def _lines() -> list[str]:
    return [line for line in _FILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]


def _template(block: str) -> Template:
    header, text, *solution = block.splitlines()
    found = _HEADER.fullmatch(header)
    if found is None:
        raise ValueError(f"word_problems.txt: {header!r} is no header such as '1 train a=3..20 b=2..12'")
    ranges: dict[str, Sequence[int]] = {}
    derived: dict[str, str] = {}
    for assignment in found["numbers"].split():
        name, _, values = assignment.partition("=")
        if _VARIABLE.search(values):
            derived[name] = values
        else:
            ranges[name] = _values(values)
    split: Split = "train" if found["split"] == "train" else "test"
    return Template(int(found["level"]), split, ranges, derived, text, tuple(solution))


def _values(text: str) -> Sequence[int]:
    """Read `3..20`, `10..90/5` or `2,3,4`."""
    first, dots, rest = text.partition("..")
    if not dots:
        return [int(value) for value in text.split(",")]
    last, _, step = rest.partition("/")
    return range(int(first), int(last) + 1, int(step or 1))


def _chosen(text: str, bits: Iterator[int]) -> str:
    """Take one of each `[one|another]`."""

    def one(choice: re.Match[str]) -> str:
        options = choice[1].split("|")
        return options[next(bits) % len(options)]

    return _CHOICE.sub(one, text)


def _filled(expression: str, numbers: Mapping[str, int]) -> str:
    """Return an expression with numbers for its variables."""
    return _VARIABLE.sub(lambda variable: str(numbers[variable[0]]), expression)


def _number(number: int, form: str | None) -> str:
    word = _WORDS[number] if number < len(_WORDS) else str(number)
    if form == "part":
        return _PARTS[number]
    if form == "times":
        return "twice" if number == 2 else f"{word} times"
    return word if form == "word" else str(number)
