r"""Finding the answer in what a model wrote; nothing here knows the gold answer.

The rules: only text after a closed `</think>` counts, and an unclosed one means that there is no answer;
then the last answer line ("Answer: 34"), or the last balanced `\boxed{}`, or the last "#### 34", as the
answer style asks.

- An answer line may be emphasised (`**Answer:** 34`). If nothing follows the colon, the last box below counts, or else
  the next line; display math may go on over several lines.
- A sentence such as "the answer is 34" is no answer line, and an answer line that ends the text is blank.
- Boxes side by side are one answer with several values, so hedging between them is never right; the same box twice
  counts once. A box that comes later after other words replaces the ones before.

Everything here is one pass over the text, however hostile.
"""

from __future__ import annotations

import re

_ANSWER_LINE = re.compile(r"(?<![A-Za-z])answer[ \t*_]*:[ \t*_]*", re.IGNORECASE)
_HASH_LINE = re.compile(r"^[ \t]*####[ \t]*(\S[^\n]*)$", re.MULTILINE)
_BRACES = re.compile(r"(?P<box>\\{1,3}(?:boxed|fbox)\s*\{)|\\.|(?P<open>\{)|(?P<close>\})", re.DOTALL)
_BESIDE = re.compile(
    r"(?:[\s$,;.*/|&+:~()\[\]–—-]|\\(?:text|mathrm|mbox)\s*\{|\}|\\[()\[\],;!&\\]|\\q?quad|\\(?:lor|vee|pm|to|cup)\b"
    r"|\b(?:and|or|either|maybe|perhaps|possibly|also|alternatively|versus|vs|nor|else|both|then)\b)*",
    re.IGNORECASE,
)
_JOINED = re.compile(
    r"(?:(?!\n\s*\n|[.!?]\s|\b(?:so|thus|hence|therefore|gives?|get|then)\b).){0,80}", re.IGNORECASE | re.DOTALL
)
_AND_OR = re.compile(r"\b(?:and|or)\b", re.IGNORECASE)
_DISPLAYED = {"$$": "$$", r"\[": r"\]"}


def after_thinking(text: str) -> str | None:
    """Return what follows the last `</think>`, all of `text` without thinking, None while it still thinks."""
    rest = text.rpartition("</think>")[2]
    return None if "<think>" in rest else rest


def answer_line(text: str) -> str | None:
    """Return what follows "Answer:" on the last such line, or what is below it if nothing follows.

    Of several on one line the first counts: what it is followed by is then read as one (bad) answer.
    """
    last = None
    for match in _ANSWER_LINE.finditer(text):
        if last is None or "\n" in text[last.end() : match.start()]:
            last = match
    if last is None:
        return None
    rest = text[last.end() :]
    line = rest.partition("\n")[0].strip().rstrip("*_ ")
    if not line:
        return boxes(rest) or _first_line(rest)
    return _first_line(rest) if line in _DISPLAYED else line


def boxes(text: str) -> str | None:
    r"""Return the content of the last balanced `\boxed{}`, joined by commas with those right beside it."""
    found = box_spans(text)
    if not found:
        return None
    first = len(found) - 1
    while first and _are_beside(text, found[first - 1][1], found[first][0]):
        first -= 1
    contents = [text[start:end].partition("{")[2][:-1].strip() for start, end in found[first:]]
    return ", ".join(dict.fromkeys(contents))


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


def _are_beside(text: str, start: int, end: int) -> bool:
    """Whether two boxes are one answer: there are only signs between them, or an "and" or "or" in one sentence."""
    if _BESIDE.fullmatch(text, start, end):
        return True
    return bool(_JOINED.fullmatch(text, start, end) and _AND_OR.search(text, start, end))


def _first_line(text: str) -> str | None:
    """Return the first line that is not blank, with the rest of the formula if it opens one."""
    text = text.strip()
    line = text.partition("\n")[0].strip().rstrip("*_ ")
    closing = _DISPLAYED.get(line)
    if closing is None:
        return line or None
    formula, closed, _ = text.removeprefix(line).partition(closing)
    return formula.strip() if closed else None
