r"""Finding the answer in what a model wrote; nothing here knows the gold answer.

The rules: only text after a closed `</think>` counts, and an unclosed one means that there is no answer;
then the last answer line ("Answer: 34"), or the last balanced `\boxed{}`, or the last "#### 34", as the
answer style asks. Boxes side by side are one answer with several values, so hedging between them is never
right.

Everything here is one pass over the text, however hostile.
"""

from __future__ import annotations

import re

_ANSWER_LINE = re.compile(r"\banswer\b[ \t*_]*:[ \t*_]*", re.IGNORECASE)
_HASH_LINE = re.compile(r"^[ \t]*####[ \t]*(\S[^\n]*)$", re.MULTILINE)
_BRACES = re.compile(r"(?P<box>\\(?:boxed|fbox)\s*\{)|\\.|(?P<open>\{)|(?P<close>\})", re.DOTALL)
_SIDE_BY_SIDE = re.compile(r"(?:[\s$,;.*]|\\[()\[\],;!]|\\q?quad|\b(?:and|or|either|maybe|perhaps|possibly|also)\b)*")


def after_thinking(text: str) -> str | None:
    """Return what follows the last `</think>`, all of `text` without thinking, None while it still thinks."""
    rest = text.rpartition("</think>")[2]
    return None if "<think>" in rest else rest


def answer_line(text: str) -> str | None:
    """Return what follows "Answer:" on the last such line; left blank, it hands over to a box below it.

    Of several on one line the first counts: what it is followed by is then read as one (bad) answer.
    """
    last = None
    for match in _ANSWER_LINE.finditer(text):
        if last is None or "\n" in text[last.end() : match.start()]:
            last = match
    if last is None:
        return None
    rest = text[last.end() :]
    return rest.partition("\n")[0].strip().rstrip("*_ ") or boxes(rest)


def boxes(text: str) -> str | None:
    r"""Return the content of the last balanced `\boxed{}`, joined by commas with those right beside it."""
    found = box_spans(text)
    if not found:
        return None
    first = len(found) - 1
    while first and _SIDE_BY_SIDE.fullmatch(text, found[first - 1][1], found[first][0]):
        first -= 1
    return ", ".join(text[start:end].partition("{")[2][:-1].strip() for start, end in found[first:])


def box_spans(text: str) -> list[tuple[int, int]]:
    r"""Return the spans (start, end) of the balanced outermost `\boxed{}` in `text`, from left to right."""
    spans: list[tuple[int, int]] = []
    open_braces: list[int | None] = []  # where the box of an open brace started, None for a plain brace
    for token in _BRACES.finditer(text):
        if token["box"]:
            open_braces.append(token.start())
        elif token["open"]:
            open_braces.append(None)
        elif token["close"] and open_braces and (start := open_braces.pop()) is not None:
            while spans and spans[-1][0] > start:
                spans.pop()  # it was inside the box that closes here
            spans.append((start, token.end()))
    return spans


def hash_line(text: str) -> str | None:
    """Return what follows the last "####" that starts a line, as in GSM8K."""
    found = _HASH_LINE.findall(text)
    return found[-1].strip() if found else None
