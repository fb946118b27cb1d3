"""The texts that the checker answers with; nothing here touches an environment."""

from __future__ import annotations

import base64
import codecs
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import takewhile

LONG = 100_000
"""Characters of the longest answers."""
MAX_NUMBERS, MAX_WORDS = 12, 60
"""Numbers and words of a prompt, from its start and from its end, that are tried as the answer."""
IN_A_ROW = "every answer given one after another"
"""Name of a list of answers of which an environment may read the first or the last."""
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_WORD = re.compile(r"[^\s\"'`<>()\[\]{}.,;:!?]+")
_MARKED = re.compile(r"(?:answer|solution|result|gold|hint)\W{0,4}(?:is|=|:)?\W{0,4}([^\s.,;\"'<>()]+)", re.IGNORECASE)
_FORMS = (
    re.compile(r"(?P<before>.*<answer>)\s*(?P<gold>.*?)\s*(?P<after></answer>)\s*", re.DOTALL),
    re.compile(r"(?P<before>.*```[\w+-]*\n)(?P<gold>.*?)(?P<after>\n```)\s*", re.DOTALL),
    re.compile(r"(?P<before>.*\\boxed\{)(?P<gold>.*)(?P<after>\})[.$\s]*", re.DOTALL),
    re.compile(r"(?P<before>.*####[ \t]*)(?P<gold>[^\n]+?)(?P<after>)\s*", re.DOTALL),
    re.compile(r"(?P<before>.*\b[Aa]nswer:[ \t]*)(?P<gold>[^\n]+?)(?P<after>)\s*", re.DOTALL),
)
_INTEGER = re.compile(r"(-?)(\d+)")
_DECIMAL = re.compile(r"-?\d+\.\d*[1-9]\d*")
_INTEGERS = re.compile(r"-?\d+([\s,;]+-?\d+)+")
_WORDS = re.compile(r"[^\W\d_]+(\s+[^\W\d_]+)+")
_JOINED = re.compile(r"-?\d+([/:^*x+-]-?\d+)+")
_ROUGH = 0.02  # relative error beyond which no tolerance is assumed
_LONG_ANSWER = 12  # characters of an answer of which one half cannot be right
_MARKERS = ("<answer>", "```", "\\boxed{", "####", "answer:")


@dataclass(frozen=True)
class Form:
    """The form that a task asks for: the text before and after the answer itself."""

    before: str = ""
    after: str = ""

    def wrap(self, text: str) -> str:
        """Return `text` in this form."""
        return f"{self.before}{text}{self.after}"


def read_form(solutions: Sequence[str]) -> tuple[Form, list[str]]:
    r"""Find the form that solutions have in common, and the answer in each.

    Known are `<answer>34</answer>`, a fenced block, `\boxed{34}`, `#### 34` and `Answer: 34`; of solutions in
    another form it is what all of them begin and end with.
    """
    for pattern, marker in zip(_FORMS, _MARKERS, strict=True):
        found = [pattern.fullmatch(text) for text in solutions]
        if solutions and all(found):
            first = found[0]
            assert first is not None
            start = first["before"].lower().rfind(marker)
            return Form(first["before"][start:], first["after"]), [match["gold"] for match in found if match]
    if len(set(solutions)) < 2:
        return Form(), list(solutions)
    before = re.sub(r"[\w.+-]+$", "", common_start(solutions))
    after = re.sub(r"^[\w.+-]+", "", common_start([text[::-1] for text in solutions])[::-1])
    golds = [text[len(before) : len(text) - len(after)] for text in solutions]
    return (Form(before, after), golds) if all(golds) else (Form(), list(solutions))


def common_start(texts: Sequence[str]) -> str:
    """Return what all texts begin with."""
    return "".join(
        one for one, _ in takewhile(lambda pair: pair[0] == pair[1], zip(min(texts), max(texts), strict=False))
    )


def worthless(seed: int) -> dict[str, str]:
    """Return short answers that are right nowhere, by name."""
    generator = random.Random(seed)
    noise = "".join(chr(generator.choice((0x21, 0x3B1, 0x4E00, 0x1F600)) + generator.randrange(60)) for _ in range(80))
    return {
        "an empty answer": "",
        "white space": " \n\t  \n",
        "a word": "pneumonoultramicroscopic",
        "a number": "-48151623.42",
        "punctuation": "?!., ...",
        "prose": "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore.",
        "random characters": noise,
        "a program": "def main(data):\n    for item in data:\n        print(item)\n",
        "a web page": "<html><head><title>x</title></head><body><p>hello</p></body></html>",
        "not a number": "nan",
        "infinity": "inf",
        "a null byte": "\x00",
        "a refusal": "I am sorry, I cannot help with this.",
        "a pattern that matches any text": ".*",
        "a wildcard": "*",
    }


EVERYWHERE = ("an empty answer", "white space", "a word", "a number")
"""The worthless answers that are tried on every row; the others are tried on a few."""


def oversized() -> dict[str, str]:
    """Return answers of about 100,000 characters, each hard on another kind of parser, by name."""

    def fill(text: str) -> str:
        return text * (LONG // len(text))

    return {
        "100,000 letters": fill("a"),
        "100,000 digits": fill("9"),
        "100,000 spaces before a letter": fill(" ") + "x",
        "100,000 opening brackets": fill("("),
        "nested lists": fill("["),
        "a very long sum": fill("1+") + "1",
        "a tower of powers": "9**9**9**9**9",
        "many answer lines": fill("Answer: x\n"),
        "many answer tags": fill("<answer>"),
        "many boxes": fill("\\boxed{"),
        "many dollars": fill("$"),
        "many fences": fill("```\n"),
    }


def program(path: str) -> dict[str, str]:
    """Return Python that leaves a file at `path` when it is evaluated, by name."""
    touch = f"__import__('pathlib').Path({path!r}).touch()"
    return {
        "a Python expression": touch,
        "a Python expression in a list": f"[{touch}]",
        "a Python expression as a number": f"(1 if {touch} else 1)",
        "a Python program": f"import pathlib\npathlib.Path({path!r}).touch()\n",
    }


SHORT = ("0", "1", ".", "-", "a", "e")
"""Texts that most answers contain or begin with."""


def hedges(gold: str | None, others: Sequence[str], form: Form) -> Iterator[tuple[str, str]]:
    """Yield (name, text) of answers that name many candidates instead of choosing one.

    Args:
        gold: The right answer, if it is known.
        others: Different answers, such as those of other rows.
        form: The form in which an answer is given.
    """
    if gold is not None and others:
        middle = len(others) // 2
        every = [*others[:middle], gold, *others[middle:]] if middle else [others[0], gold, others[0]]
        yield "every answer joined by 'or'", form.wrap(" or ".join(every))
        yield "every answer joined by commas", form.wrap(", ".join(every))
        yield IN_A_ROW, "\n".join(map(form.wrap, every))
    yield "1 or 2 or 3 ...", form.wrap(" or ".join(map(str, range(1, 31))))
    yield "all numbers from 0 to 999", form.wrap(", ".join(map(str, range(1000))))


def near_misses(gold: str, *, other: str | None, ordered: bool) -> Iterator[tuple[str, str]]:
    """Yield (name, answer) that look like the right answer and are wrong, whatever is asked.

    Args:
        gold: The right answer.
        other: A different one, if there is any.
        ordered: Whether the order of its characters matters; in "ACD", all choices that apply, it does not.
    """
    number = _INTEGER.fullmatch(gold)
    if number:
        sign, digits = number.groups()
        if digits.strip("0"):
            yield "the answer with the other sign", digits if sign else f"-{digits}"
        yield "the answer with digits behind it", f"{gold}987"
        yield "the answer with digits before it", f"{sign}98{digits}"
        if len(digits) > 1:
            yield "the first digits of the answer", gold[:-1]
        if ordered and digits != digits[::-1]:
            yield "the answer with its digits in another order", f"{sign}{digits[::-1]}"
    elif gold.isalpha() and len(gold) > 2:
        yield "a part of the answer", gold[1:-1]
        if len(gold) > 4:
            yield "the beginning of the answer", gold[:-2]
        if ordered and gold.casefold() != gold[::-1].casefold():
            yield "the answer with its letters in another order", gold[::-1]
    elif _DECIMAL.fullmatch(gold):
        yield "the answer with the other sign", gold[1:] if gold.startswith("-") else f"-{gold}"
        yield "the answer without its point", gold.replace(".", "7")
        for name, text in (
            ("the answer without its decimals", gold.partition(".")[0]),
            ("the answer rounded", _rounded(gold)),
        ):
            if abs(float(text) - float(gold)) > _ROUGH * abs(float(gold)):
                yield name, text
    elif _INTEGERS.fullmatch(gold) or _WORDS.fullmatch(gold):
        first, separator, rest = re.split(r"([\s,;]+)", gold, maxsplit=1)
        junk = re.sub(r"[^\W\d_]+", "qx", re.sub(r"\d+", "987", rest))
        yield "the answer with another end", f"{first}{separator}{junk}"
    elif _JOINED.fullmatch(gold):
        yield "the first number of the answer", re.split(r"(?<=\d)\D", gold, maxsplit=1)[0]
    elif len(gold) >= _LONG_ANSWER:
        yield "the first half of the answer", gold[: len(gold) // 2]
    if other is not None and "\n" not in gold:  # two programs joined by "or" may be a program, and a right one
        yield "the answer with another one behind it", f"{gold} or {other}"


def _rounded(number: str) -> str:
    return str(round(Decimal(number)))


Strategy = Callable[[str], str | None]


def strategies(prompts: Mapping[int, str], golds: Mapping[int, str]) -> dict[str, Strategy]:
    """Return ways to answer from the prompt alone, by name; of each kind the one that `golds` show to be the best.

    Args:
        prompts: The prompt of each row.
        golds: The answer of each row, as far as it is known.
    """
    found: dict[str, Strategy] = {
        "the prompt itself": lambda prompt: prompt,
        "every word of the prompt": lambda prompt: ", ".join(_WORD.findall(prompt)),
        "the first number of the prompt": _picker(_NUMBER, 0),
        "the last number of the prompt": _picker(_NUMBER, -1),
        "what follows 'answer' in the prompt": lambda prompt: next(iter(_MARKED.findall(prompt)), None),
    }
    for what, pattern, count in (("number", _NUMBER, MAX_NUMBERS), ("word", _WORD, MAX_WORDS)):
        places = [*range(count), *range(-count, 0)]
        if golds:
            hits = {place: _hits(_picker(pattern, place), prompts, golds) for place in places}
            best = max(places, key=lambda place: hits[place])
            if hits[best]:
                name = f"{what} {best + 1 if best >= 0 else best} of the prompt"
                found.setdefault(name, _picker(pattern, best))
    return found


def _picker(pattern: re.Pattern[str], place: int) -> Strategy:
    def pick(prompt: str) -> str | None:
        found = pattern.findall(prompt)
        return found[place] if -len(found) <= place < len(found) else None

    return pick


def _hits(strategy: Strategy, prompts: Mapping[int, str], golds: Mapping[int, str]) -> int:
    return sum(same(strategy(prompts[index]) or "", gold) for index, gold in golds.items())


def encodings(text: str) -> set[str]:
    """Return a text as it is and in the usual disguises: backwards, rot13, hexadecimal, base32 and base64."""
    data = text.encode()
    disguised = {base64.b64encode(data), base64.urlsafe_b64encode(data), base64.b32encode(data)}
    coded = {code.decode() for code in disguised}
    return {text, text[::-1], codecs.encode(text, "rot13"), data.hex(), *coded, *(code.rstrip("=") for code in coded)}


def same(one: str, other: str) -> bool:
    """Whether two answers differ at most in white space and case."""
    return one.split() == other.split() or "".join(one.split()).casefold() == "".join(other.split()).casefold()


def equal(one: str, other: str) -> bool:
    """Whether two answers are the same, as texts or as numbers."""
    try:
        return same(one, other) or float(one) == float(other)
    except ValueError:
        return False
