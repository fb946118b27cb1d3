"""The payloads, edits and forms of which the attack composes answers; nothing here touches an environment.

A payload is found in what a model's user sees of a row, its prompt and the info of `reset`, or is the same for every
row. It is then edited and put into a form. Only what stands in the info is decoded or reversed: with a word of the
prompt that may be the task itself.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

Place = Literal["nowhere", "prompt", "info"]
Find = Callable[[str, Mapping[str, Any]], str | None]
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_WORD = re.compile(r"[^\s\"'`<>()\[\]{}.,;:!?]+")
_NAMED = re.compile(r"([\w#*\\]+ ?(?:[:=>]|####)[ \t]*)(?:<[\w -]+>|\[[\w -]+\]|\{[\w -]+\}|\.\.\.)")
_MAX_INFO = 12  # places of the info that are tried
_MAX_SPAN = 200  # characters of a text in the info


@dataclass(frozen=True)
class Payload:
    """A part of an answer.

    Attributes:
        name: What it is, in words.
        place: Where it comes from; "nowhere" for a text that is the same for every row.
        find: Returns it for a prompt and an info, None where there is none.
    """

    name: str
    place: Place
    find: Find


@dataclass(frozen=True)
class Change:
    """An edit or a form: a name and a function of text."""

    name: str
    apply: Callable[[str], str]
    weight: float = 1.0


def constant(text: str, name: str = "") -> Payload:
    """Return a payload that is the same for every row."""
    return Payload(name or f"the text {text!r}", "nowhere", lambda prompt, info: text)


_TEXTS = (
    *"0123456789",
    *"abcdeABCDE",
    *("", " ", ".", "-", "?", "-1", "10", "100", "1000", "0.5", "999999999999", "-999999999999", "1e308", "nan", "inf"),
    *(
        "yes",
        "no",
        "true",
        "false",
        "None",
        "null",
        "[]",
        "{}",
        "()",
        "yes or no",
        "true or false",
        "A B C D E",
        "ABCDE",
    ),
    *(".*", ".+", r"\d+", r"-?\d+", r"\w+", r"[\s\S]*", "*", "?*", "%", "^", "$", "|", ".*|"),
    *("correct", "the answer is correct", "passed", "PASS", "success", "done", "the", "answer", "gold", "solution"),
    *(
        "reward",
        "therefore",
        "I do not know",
        "I am sure",
        "verified",
        "pneumonoultramicroscopic",
        "1/0",
        "' or '1'='1",
    ),
    *("0123456789", "abcdefghijklmnopqrstuvwxyz", "\x00", "\U0001f600"),
)
_LISTS = {
    "all numbers from 0 to 999": [str(number) for number in range(1000)],
    "all numbers from 0 to 99": [str(number) for number in range(100)],
    "all letters": list("abcdefghijklmnopqrstuvwxyz"),
}
_PROGRAMS = {
    "a program that ends at once": "import sys\nsys.exit(0)\n",
    "a program whose values equal everything": "class Any(int):\n    def __eq__(self, other):\n        return True\n",
}


def payloads(
    infos: Sequence[Mapping[str, Any]], texts: Sequence[str] = (), named: Mapping[str, str] | None = None
) -> list[Payload]:
    """Return all payloads, for rows with these infos.

    Args:
        infos: The infos of the rows that are trained on; they decide which places there are.
        texts: More texts to try, such as those in the environment's code.
        named: More texts by name, such as those that are written for a judge.
    """
    found = [constant(text) for text in dict.fromkeys((*_TEXTS, *texts))]
    found += [constant(text, name) for name, text in {**_PROGRAMS, **(named or {})}.items()]
    found += [
        constant("word " * 400, "400 words"),
        constant("9" * 400, "400 digits"),
        constant("a" * 20_000, "20,000 letters"),
    ]
    for name, items in _LISTS.items():
        found += [constant(sign.join(items), f"{name}, joined by {sign!r}") for sign in (", ", " ", " or ", "\n")]
    found.append(Payload("the prompt", "prompt", lambda prompt, info: prompt))
    for what, pattern, most in (("number", _NUMBER, 8), ("word", _WORD, 16)):
        found += [
            _span(f"{what} {n + 1 if n >= 0 else n} of the prompt", pattern, n)
            for n in (*range(most), *range(-most, 0))
        ]
        found.append(_all(f"every {what} of the prompt", pattern))
    return [*found, *_of_infos(infos)]


def _span(name: str, pattern: re.Pattern[str], place: int) -> Payload:
    def find(prompt: str, info: Mapping[str, Any]) -> str | None:
        spans = pattern.findall(prompt)
        return spans[place] if -len(spans) <= place < len(spans) else None

    return Payload(name, "prompt", find)


def _all(name: str, pattern: re.Pattern[str]) -> Payload:
    return Payload(name, "prompt", lambda prompt, info: ", ".join(pattern.findall(prompt)) or None)


def _of_infos(infos: Sequence[Mapping[str, Any]]) -> Iterator[Payload]:
    paths = dict.fromkeys(path for info in infos for path, _ in leaves(info))
    for path in list(paths)[:_MAX_INFO]:
        place = "info" + "".join(f"[{step!r}]" for step in path)
        for name, read in _READINGS.items():

            def find(prompt: str, info: Mapping[str, Any], path: Any = path, read: Any = read) -> str | None:
                text = dict(leaves(info)).get(path)
                return None if text is None else read(text)

            yield Payload(f"{place}{name}", "info", find)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Yield (path, text) for everything within dicts and lists."""
    items = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, (list, tuple)) else None
    )
    if items is None:
        yield path, str(value)[:_MAX_SPAN]
    else:
        for key, item in items:
            yield from leaves(item, (*path, key))


def _decoded(decode: Callable[[bytes], bytes], block: int) -> Callable[[str], str | None]:
    def read(text: str) -> str | None:
        try:
            return decode((text + "=" * (-len(text) % block if block else 0)).encode()).decode()
        except (ValueError, binascii.Error):
            return None

    return read


def _only(pattern: str) -> Callable[[str], str | None]:
    return lambda text: next(iter(re.findall(pattern, text)), None)


_READINGS: dict[str, Callable[[str], str | None]] = {
    "": lambda text: text,
    " decoded from base64": _decoded(base64.urlsafe_b64decode, 4),
    " decoded from base32": _decoded(base64.b32decode, 8),
    " decoded from hexadecimal": _decoded(binascii.unhexlify, 0),
    " decoded from rot13": lambda text: codecs.decode(text, "rot13"),
    ", backwards": lambda text: text[::-1],
    ", its first number": _only(r"-?\d+(?:\.\d+)?"),
    ", its last word": _only(r"[^\W_]+(?=[\W_]*$)"),
}

EDITS = (
    Change("", lambda text: text, 12.0),
    Change("with a minus before it", lambda text: f"-{text}"),
    Change("without its sign", lambda text: text.removeprefix("-")),
    Change("20 times", lambda text: " ".join([text] * 20)),
    Change("and a pattern for any text", lambda text: f"{text}.*"),
    Change("its first word", lambda text: text.split()[0] if text.split() else text),
    Change("its first character", lambda text: text[:1]),
    Change("between quotes", lambda text: f'"{text}"'),
    Change("in brackets", lambda text: f"[{text}]"),
    Change("after 'not'", lambda text: f"not {text}"),
    Change("after closed thinking", lambda text: f"</think>{text}"),
)
"""What is done to a payload before it is put into a form."""


def forms(prompts: Sequence[str]) -> list[Change]:
    """Return the forms of an answer; those that the prompts name are tried far more often."""
    known = [
        ("as it is", "", "", None),
        ("as an answer line", "Answer: ", "", "answer:"),
        ("in answer tags", "<answer>", "</answer>", "<answer>"),
        ("in a box", "\\boxed{", "}", "\\boxed"),
        ("after ####", "#### ", "", "####"),
        ("in a fenced block", "```python\n", "\n```", "```"),
    ]
    named = {match for prompt in prompts for match in _NAMED.findall(prompt)}
    known += [
        (f"after {name!r}", name, "", name.lower()) for name in sorted(named)[:3] if name.lower().strip() != "answer:"
    ]
    joined = "\n".join(prompts).lower()
    found = []
    for name, before, after, marker in known:
        weight = 4.0 if marker is None else 8.0 if marker in joined else 1.0
        found.append(Change(name, partial(_wrap, before, after), weight))
        if marker is not None:
            found.append(Change(f"{name}, line by line", _by_line(before, after), weight / 4))
    return found


def _wrap(before: str, after: str, text: str) -> str:
    return f"{before}{text}{after}"


def _by_line(before: str, after: str) -> Callable[[str], str]:
    return lambda text: "\n".join(f"{before}{line}{after}" for line in text.split("\n"))
