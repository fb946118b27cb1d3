r"""One spelling for the many ways to write the same answer: `clean`, and the parts an answer is made of.

Only notation is changed here, never a value: `\dfrac12` becomes `\frac{1}{2}`, `\left(1,\; 2\right)` becomes
`(1, 2)`, `$\boxed{5\text{ cm}}$` becomes `5`.
"""

from __future__ import annotations

import re

from .extraction import box_spans
from .rationals import parse_rational

_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("`", "`"))
_MATH_SPAN = re.compile(r"\$\$.+?\$\$|\$[^$]+\$|\\\(.+?\\\)|\\\[.+?\\\]", re.DOTALL)
_PROSE = re.compile(r"[A-Za-z\s,.;:!'*]*")  # what may stand around the one formula of an answer
_HEDGE = re.compile(r"\b(?:or|and|not|either|neither|maybe|perhaps|than)\b", re.IGNORECASE)

_REPLACEMENTS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\s+", " "),
        (r"[−–﹣－]", "-"),
        (r"×", r"\\times "),
        (r"[·⋅]", r"\\cdot "),
        (r"÷", "/"),
        (r"∞", r"\\infty "),
        (r"π|(?<![\\A-Za-z])pi(?![A-Za-z])", r"\\pi "),
        (r"≤|\\leq(?:slant)?(?![A-Za-z])", r"\\le "),
        (r"≥|\\geq(?:slant)?(?![A-Za-z])", r"\\ge "),
        (r"√\s*(\w+)|(?:√|(?<!\\)\bsqrt|(?<=\d)sqrt)\s*\(([^()]*)\)", r"\\sqrt{\1\2}"),
        (r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits)(?![A-Za-z])\.?", ""),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r",\\!|\{,\}", ","),
        (r"(?<=\d)(?:\\[,:;! ]|~)(?=\d{3}(?!\d))", ""),
        (r"(?<!\\)(?:\\!|\\[,:; ]|\\q?quad(?![A-Za-z]))|~", " "),
        (r"\\%| ?\b[Pp]er ?cent\b", "%"),
        (r"\^ ?(?:\{ ?\\circ ?\}|\\circ(?![A-Za-z]))|°|\\degree(?![A-Za-z])| ?\bdegrees?\b", ""),
        (r"\\(?:mathrm|mathbf|textbf|textit|textrm|mbox|operatorname)(?= ?\{)", r"\\text"),
        (r"\\text ?\{ ?(?:and|or) ?\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])", ", "),
        (r"\\sqrt ?(\w)", r"\\sqrt{\1}"),
        (r"\\frac ?(\w|\\pi(?![A-Za-z]))", r"\\frac{\1}"),
        (r"(\\frac ?\{[^{}]*\}) ?(\w|\\pi(?![A-Za-z]))", r"\1{\2}"),
        (r"([_^]) ?\{ ?(\w) ?\}", r"\1\2"),
        (r"^\\text ?\{([^{}]*)\}$", r"\1"),
        (r"(?<![\d./])(\d+) (\d+) ?/ ?(\d+)(?![\d/])", r"\1\\frac{\2}{\3}"),
        (r"^\{(.*[^\\])\}$", r"\\{\1\\}"),
        (r",[ ,]*,", ","),
        (r" +", " "),
        (r" ,", ","),
    )
)
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_UNIT = re.compile(r"(?:\\text\s*\{[^{}]*\}|[A-Za-z][A-Za-z.]+(?:[\s/]+[A-Za-z.]+)*)\s*(?:\^\s*[23])?")
_NO_UNIT = re.compile(
    r"pi|tau|sqrt|log|ln|sin|cos|tan|exp|inf|infinity|(?:hundred|thousand|[mbtr]+illion|dozen)s?|k|not|half|mod|[ap]\.?m\.?",
    re.IGNORECASE,
)
_WORD = re.compile(r"(?<![\\A-Za-z])(?!a?(?:sin|cos|tan|arc|log|sqrt))(?:[^\W\d_]{4,}|[A-Z][a-z]+|[ap]\.m\b)")
_MATRIX = re.compile(
    r"\\begin\{(?P<name>[pbvBV]?matrix|array)\}(?:\{[lcr|]+\})?(?P<rows>.*)\\end\{(?P=name)\}", re.DOTALL
)


def clean(answer: str) -> str:
    """Return `answer` in one spelling, without delimiters, layout commands, degrees, units and full stop."""
    text = _unwrap(answer.replace("\\$", ""))
    for pattern, replacement in _REPLACEMENTS:
        text = pattern.sub(replacement, text)
    text = text.strip().rstrip(".;, ").strip()
    return _without_unit(text)


def word_form(answer: str, *, force: bool = False) -> str | None:
    r"""Return a cleaned answer made of words, such as `Yes` or `(B)`, in one spelling; None for formulas.

    A single letter may be a choice and a variable alike: it keeps its case, words do not. With `force`
    everything is taken for words.
    """
    text = " ".join(_TEXT.sub(r"\1", answer).split()).strip(" .")
    if re.fullmatch(r"\([A-Za-z]\)", text):
        text = text[1:-1]
    if re.fullmatch("[A-Z]", text):
        return text
    return text.lower() if force or "\\text" in answer or _WORD.search(text) else None


def split(text: str, separator: str = ",") -> list[str]:
    """Split at the separators outside of all brackets, of which any closes any (as in `[1, 2)`)."""
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == separator and depth == 0:
            parts.append(text[start:position].strip())
            start = position + 1
    return [*parts, text[start:].strip()]


def brackets(text: str) -> tuple[str, str]:
    r"""Take off the brackets around all of `text`: `("(]", "1, 2")` for `(1, 2]`; `("", text)` without."""
    for opening in ("\\{", "(", "["):
        if not text.startswith(opening):
            continue
        for closing in ("\\}", ")", "]"):
            inner = text[len(opening) : -len(closing)]
            if text.endswith(closing) and len(text) >= len(opening + closing) and _is_closed(inner):
                return (opening + closing).replace("\\", ""), inner.strip()
    return "", text


def matrix_rows(text: str) -> list[list[str]] | None:
    """Return the cells of a LaTeX matrix or vector, row by row; None if `text` is none."""
    match = _MATRIX.fullmatch(text)
    if match is None:
        return None
    rows = match["rows"].strip().removesuffix("\\\\").split("\\\\")
    return [[cell.strip() for cell in row.split("&")] for row in rows]


def _is_closed(text: str) -> bool:
    """Whether no bracket in `text` closes one outside of it."""
    depth = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            return False
    return depth == 0


def _unwrap(answer: str) -> str:
    """Take the one formula out of its delimiters and boxes, and of the words around it."""
    text = answer.strip()
    while True:
        inner = _unwrap_once(text)
        if inner == text:
            return text
        text = inner


def _unwrap_once(text: str) -> str:
    text = text.strip().removesuffix(".").strip()
    for opening, closing in _DELIMITERS:
        inner = text[len(opening) : -len(closing)]
        if (
            len(text) > len(opening + closing)
            and text.startswith(opening)
            and text.endswith(closing)
            and opening not in inner
            and closing not in inner
        ):
            return inner.strip()
    spans = box_spans(text) or [match.span() for match in _MATH_SPAN.finditer(text)]
    if len(spans) == 1:
        start, end = spans[0]
        around = text[:start] + " " + text[end:]
        if around == " " or (_PROSE.fullmatch(around) and not _HEDGE.search(around)):
            formula = text[start:end]
            is_box = formula.startswith(("\\boxed", "\\fbox"))
            return formula.partition("{")[2][:-1].strip() if is_box else formula
    if text.count("$") == 1:
        return text.replace("$", "")  # an amount of money
    return text


def _without_unit(text: str) -> str:
    """Drop the unit that follows a number or formula: words after it, or text in math."""
    for match in _UNIT.finditer(text):
        if match.end() == len(text) and match.start():
            before, unit = text[: match.start()].rstrip(), match.group()
            names = _TEXT.sub(r"\1", unit)
            if any(_NO_UNIT.fullmatch(word) for word in re.split(r"[\s^]+", names)):
                return text
            if unit.startswith("\\text") or parse_rational(before) is not None:
                return before
    return text
