r"""Finding the answer in what a model wrote; nothing here knows the gold answer.

The rules: only text after a closed `</think>` counts, and an unclosed one means that there is no answer;
then the last answer line ("Answer: 34"), or the last balanced `\boxed{}`, or the last "#### 34", as the
answer style asks.

- An answer line may be emphasised (`**Answer:** 34`). If nothing follows the colon, the last box below counts, or else
  the next line; a formula that it opens may go on over several lines.
- A sentence such as "the answer is 34" is no answer line, and an answer line that ends the text is blank.
- Boxes side by side are one answer with several values, so hedging between them is never right; the same box twice
  counts once. A box that comes later after other words replaces the ones before.
- Markdown emphasis is taken off in pairs: a star without a partner (`*73`) stays, and makes a number none. A special
  token such as `<|im_end|>` ends a line.

Everything here is one pass over the text, however hostile.
"""

from __future__ import annotations

import re

MAX_TEXT = 200_000
"""Characters at the end of a text in which an answer is looked for."""

_ANSWER_LINE = re.compile(r"(?<![A-Za-z])answer[ \t*_]*[:\uff1a][ \t]*", re.IGNORECASE)
_HASH_LINE = re.compile(r"^[ \t]*####[ \t]*(\S[^\n]*)$", re.MULTILINE)
_NUMBER = re.compile(r"(?<![\w.])-?\$?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?%?")
_SPECIAL_TOKEN = re.compile(
    r"<\|[\w-]{1,40}\|>|<\uff5c[\w\u2581-]{1,40}\uff5c>|</?s>|<(?:eos|bos|pad|(?:start|end)_of_turn)>"
)
_BRACES = re.compile(
    r"(?P<box>\\{1,3}(?:boxed|fbox)\s*(?:\{|(?P<bare>[-+]?\d(?:[\d,]*\d)?(?:\.\d+)?|[A-Za-z](?![A-Za-z]))))"
    r"|\\.|(?P<open>\{)|(?P<close>\})",
    re.DOTALL,
)
_BOX = re.compile(r"\\{1,3}(?:boxed|fbox)\s*")
_BESIDE = re.compile(
    r"(?:[\s$,;.*/|&+:~()\[\]–—-]|\\(?:text|mathrm|mbox)\s*\{|\}|\\[()\[\],;!&\\]|\\q?quad|\\(?:lor|vee|pm|to|cup)\b"
    r"|\b(?:and|or|either|maybe|perhaps|possibly|also|alternatively|versus|vs|nor|else|both|then)\b)*",
    re.IGNORECASE,
)
_JOINED = re.compile(
    r"(?:(?!\n\s*\n|[.!?]\s|\b(?:so|thus|hence|therefore|gives?|get|then)\b).){0,80}", re.IGNORECASE | re.DOTALL
)
_AND_OR = re.compile(r"\b(?:and|or)\b", re.IGNORECASE)
_EMPHASIS = re.compile(
    r"(?<![^\s(\[{\"'$,:;/|>~-])(?:(?P<stars>\*{1,3})(?=[^\s*])(?P<strong>[^\n]*?)(?<=[^\s*])(?P=stars)(?![\d*({\\])"
    r"|(?P<lines>_{1,3})(?=[^\s_])(?P<slanted>[^\n]*?)(?<=[^\s_])(?P=lines)(?![\w({\\]))"
)
_LEFT_OPEN = re.compile(r"(?<![\w*])(?:\*{1,3}|_{1,3})(?=[^\s*_])")
_AROUND = re.compile(r"(?P<mark>\*{1,3}|_{1,3})(?P<inner> [^\n*_]+|[^\n*_]+ )(?P=mark)")
_EMPHASISED = 4_000  # characters of a line in which emphasis is looked for
_OPENED = re.compile(
    r"\\\\(?:\[[^\[\]\n]*\])?|\\[{}]|(?P<up>\\begin\{[a-z*]+\}|\\\[|\{)|(?P<down>\\end\{[a-z*]+\}|\\\]|\})|(?P<display>\$\$)"
)
_BLOCK = 4_000  # characters that a formula of several lines may have


def after_thinking(text: str) -> str | None:
    """Return what follows the last `</think>`, all of `text` without thinking, None while it still thinks.

    A `Completion` whose prompt ended inside of `<think>` begins in the middle of its thinking.
    """
    _, closing, rest = text.rpartition("</think>")
    return None if "<think>" in rest or (not closing and getattr(text, "thinking", False)) else rest


def answer_text(text: str) -> str | None:
    """Return the part of `text` in which an answer counts, None while it still thinks.

    That is the last `MAX_TEXT` characters after the thinking, with line ends instead of special tokens.
    """
    rest = after_thinking(text)
    return None if rest is None else _SPECIAL_TOKEN.sub("\n", rest[-MAX_TEXT:])


def answer_line(text: str) -> str | None:
    """Return what follows "Answer:" on the last such line, or what is below it if nothing follows.

    Of several on one line the first counts: what it is followed by is then read as one (bad) answer.
    """
    last = None
    for last in _ANSWER_LINE.finditer(text):  # noqa: B007
        pass
    if last is None:
        return None
    start, end = text.rfind("\n", 0, last.start()) + 1, text.find("\n", last.end())
    line = without_emphasis(text[start:] if end < 0 else text[start:end])
    below = "" if end < 0 else text[end:]
    first = _ANSWER_LINE.search(line)
    before, rest = (line[: first.end()], line[first.end() :]) if first else ("", text[last.end() :].partition("\n")[0])
    opened = _LEFT_OPEN.findall(before)[-1:]  # emphasis that goes on behind the colon: `**Answer:**34`
    rest = rest.removeprefix(opened[0]).lstrip() if opened else rest
    if rest.strip():
        return _formula(rest + below, *opened)
    return boxes(below) or _formula(below, *opened)


def boxes(text: str) -> str | None:
    r"""Return the content of the last balanced `\boxed{}`, joined by commas with those right beside it."""
    found = box_spans(text)
    if not found:
        return None
    first = len(found) - 1
    while first and _are_beside(text, found[first - 1][1], found[first][0]):
        first -= 1
    return ", ".join(dict.fromkeys(box_content(text[start:end]) for start, end in found[first:]))


def box_spans(text: str) -> list[tuple[int, int]]:
    r"""Return the spans (start, end) of the balanced outermost `\boxed{}` in `text`, from left to right.

    `\boxed 7` without braces is one too.
    """
    spans: list[tuple[int, int]] = []
    if "boxed" not in text and "fbox" not in text:
        return spans
    open_braces: list[int | None] = []  # where the box of an open brace started, None for a plain brace
    for token in _BRACES.finditer(text):
        if token["bare"]:
            spans.append(token.span())
        elif token["box"]:
            open_braces.append(token.start())
        elif token["open"]:
            open_braces.append(None)
        elif token["close"] and open_braces and (start := open_braces.pop()) is not None:
            while spans and spans[-1][0] > start:
                spans.pop()  # it was inside the box that closes here
            spans.append((start, token.end()))
    return spans


def box_content(box: str) -> str:
    r"""Return what a box holds: `7` for `\boxed{7}` and for `\boxed 7`."""
    content = _BOX.sub("", box, count=1)
    return (content[1:-1] if content.startswith("{") else content).strip()


def hash_line(text: str) -> str | None:
    """Return what follows the last "####" that starts a line, as in GSM8K."""
    found = _HASH_LINE.findall(text)
    return found[-1].strip() if found else None


def last_number(text: str) -> str | None:
    """Return the last number in `text`, whatever stands around it."""
    last = None
    for last in _NUMBER.finditer(text):  # noqa: B007
        pass
    return last and last[0]


def without_emphasis(text: str) -> str:
    """Take Markdown's emphasis off in pairs: `**73** apples` becomes `73 apples`; `2*3*4` stays as it is."""
    if len(text) > _EMPHASISED or not ("*" in text or "_" in text):
        return text
    previous = ""
    while text != previous:
        previous, text = text, _EMPHASIS.sub(lambda pair: pair["strong"] or pair["slanted"], text)
    return text


def unwrapped(text: str) -> str:
    """Take off the delimiters, boxes and emphasis around all of `text`, and its full stop."""
    while True:
        inner = without_emphasis(text.strip()).removesuffix(".").strip()
        if box_spans(inner) == [(0, len(inner))]:
            inner = box_content(inner)
        for opening, closing in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("`", "`"), ("**", "**")):
            enclosed = inner.removeprefix(opening).removesuffix(closing)
            if len(enclosed) == len(inner) - len(opening + closing) and opening not in enclosed:
                inner = enclosed
                break
        if inner == text:
            return text
        text = inner


def _are_beside(text: str, start: int, end: int) -> bool:
    """Whether two boxes are one answer: there are only signs between them, or an "and" or "or" in one sentence."""
    if _BESIDE.fullmatch(text, start, end):
        return True
    return bool(_JOINED.fullmatch(text, start, end) and _AND_OR.search(text, start, end))


def _formula(text: str, opened: str = "") -> str | None:
    """Return the first line that is not blank, with the lines below it that belong to a formula which it opens.

    `opened` is the mark of emphasis that was opened before it, which may close at its end.
    """
    text = text.strip()
    line = without_emphasis(text.partition("\n")[0].strip())
    line = line.removesuffix(opened).rstrip() if opened else line
    line = around["inner"].strip() if (around := _AROUND.fullmatch(line)) else line
    depth = displayed = 0
    for token in _OPENED.finditer(text, 0, _BLOCK):
        if depth == displayed == 0 and "\n" in text[: token.start()]:
            break
        depth += bool(token["up"]) - bool(token["down"])
        displayed ^= bool(token["display"])
        if depth == displayed == 0 and "\n" in text[: token.end()]:
            formula = text[: token.end()] + text[token.end() :].partition("\n")[0]
            return unwrapped(formula) or None
    return None if line in ("$$", r"\[") else line or None
