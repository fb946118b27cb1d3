r"""One spelling for the many ways to write the same answer: `clean`, and the parts an answer is made of.

Only delimiters, layout and notation are changed here, never a value: `$\boxed{x = ½}$` becomes `x = \frac{1}{2}`.
"""

from __future__ import annotations

import re

from ..answer_extraction import box_content, box_spans, without_emphasis
from .notation import one_notation, split
from .units import is_modified

_DELIMITERS = (
    ("$$", "$$"),
    ("$", "$"),
    (r"\(", r"\)"),
    (r"\[", r"\]"),
    ("`", "`"),
    ('"', '"'),
    ("'", "'"),
    ("\u201c", "\u201d"),
    ("\u2018", "\u2019"),
    ("\u00ab", "\u00bb"),
    ("\u201e", "\u201c"),
    ("\u300c", "\u300d"),
)
_MATH_SPAN = re.compile(r"\$\$[^$]+\$\$|\$[^$]+\$|\\\([^\\]*(?:\\[^()][^\\]*)*\\\)|\\\[[^\\]*(?:\\[^\[\]][^\\]*)*\\\]")
_BEFORE = re.compile(
    r"[A-Za-z\s,.;:!'*]*?(?:\b([A-Za-z]\s*=\s*)|[A-Za-z]{2}\s*=\s*)?(?:\$\$?|\\\(|\\\[)?\s*"
)  # what may stand around the one formula of an answer; its name is part of it
_AFTER = re.compile(r"\s*(?:\$\$?|\\\)|\\\])?\s*(\\?%)?([A-Za-z\s,.;:!'*]*)")
_ASIDE = re.compile(r"(?:is|are|was|were|as|which|because|since|so|I)\b")  # starts words that are no unit
_GAP = re.compile(r"\$((?:[\s,;]|\b(?:and|or)\b)+)\$")  # between two formulas, also where they are inside a box
_LISTED = re.compile(r"(?:[\s,;]|\b(?:and|or)\b)*")  # what may stand between the formulas of a list
_STATEMENT = re.compile(
    r"(?:\\text\{ ?)?(?:(?:[A-Za-z,']+|\$[^$]{1,20}\$) )*(?:is|are|was|were|be|equals?|have|has|gets?|needs?)"
    r"(?:[ :]+\}?|\})[ :]*(?=[-+\d.¤$\\(])"
    r"|(?:(?:so|thus|hence|therefore),? )?(?:the|my) (?:final |correct )?(?:answer|solution|choice|value) is:? (?=\w)"
    r"|it(?: is|'s) (?=[A-Za-z])",
    re.IGNORECASE,
)

_LEADING_SIGN = re.compile(r"^= ?(?!=)")
_LAST_WORDS = re.compile(r"(?<=[\w})%$])\.\s+[A-Z][A-Za-z\s,.;:!']*$")  # a sentence after the answer

_SPACING = re.compile(r"(?<!\d)\s+|\s+(?!\d)")  # but not between two digits: "3 4" is not 34
_SHORT_WORDS = frozenset(
    """
    no yes odd even all two one six ten red big old new low far hot wet add sum act ant any art air arc are age ago am
    an as at be by cry dry fly fry go he hi how if in is it its me my of on or so sky the to try up us we why
    """.split()  # noqa: SIM905
)
"""Words that could be products of variables or labels."""
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_CHOICE = re.compile(r"(?:(?:option|choice|answer) )?\(?([A-Z])\)?", re.IGNORECASE)
_WORD = re.compile(r"(?<![\\A-Za-z])(?!a?(?:sin|cos|tan|arc|log|sqrt))(?:[^\W\d_]{4,}|[A-Z][a-z]+|[ap]\.m\b)")
_MATRIX = re.compile(
    r"\\begin\{(?P<name>[pb]?matrix|smallmatrix|array)\}(?:\{[lcr| ]+\})?(?P<rows>.*)\\end\{(?P=name)\}"
)
_ROW_END = re.compile(r"\\\\(?: ?\[[^\[\]]*\])?|\\cr(?![A-Za-z])")


def clean(answer: str) -> str:
    """Return `answer` in one spelling, without delimiters, layout commands, degrees and full stop."""
    text = answer.replace("\\$", "¤").replace("\\pounds", "£")  # a dollar that does not delimit a formula
    text = _GAP.sub(r" \1 ", text)
    if (words := _LAST_WORDS.search(text)) and not is_modified(words[0]):
        text = text[: words.start()]
    text = one_notation(_unwrap(text.rstrip("\\ \n")))
    text = _without_full_stop(text.rstrip(";, "))
    return _without_statement(_LEADING_SIGN.sub("", text))


def squeezed(text: str) -> str:
    """Return a cleaned answer without the spaces and the sign that mean nothing."""
    return _SPACING.sub("", text).removeprefix("+")


def word_form(answer: str, *, force: bool = False) -> str | None:
    r"""Return a cleaned answer made of words, such as `Yes` or `(B)`, in one spelling; None for formulas.

    Letters alone are a word (`no`, `cat`), a product (`xy`, `ab`: see `_is_product`) or labels (see `is_labels`). A
    single letter may be a choice and a variable alike: it keeps its case, words do not. With `force` everything is
    taken for words.
    """
    text = " ".join(_TEXT.sub(r"\1", answer).split()).strip(" .!\"'")
    if choice := _CHOICE.fullmatch(text):
        return choice[1] if len(text) > 1 or text.isupper() or force else None
    is_word = "\\text" in answer or _WORD.search(text) or (text.isalpha() and not _is_product(text))
    if not force and (not is_word or is_labels(text)):
        return None
    return re.sub(r"^(?:the|an?) (?=[a-z])", "", text.lower()) or None


def is_labels(text: str) -> bool:
    """Whether `text` is a sequence of two or three labels, such as `HHT`, `NE` or `AB`."""
    return len(text) in (2, 3) and text.isalpha() and text.isupper() and text.lower() not in _SHORT_WORDS


def _is_product(letters: str) -> bool:
    """Whether letters alone are a product of variables, not a word: without a vowel, or in order behind one."""
    if letters.lower() in _SHORT_WORDS or not letters.isascii():
        return False
    if not letters.islower():
        return not letters[1:].islower()
    if not re.search("[aeiou]", letters):
        return True
    in_order = "".join(sorted(set(letters))) == letters
    return in_order and "o" not in letters and not re.search("[aeiou]", letters[1:])


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
    """Return the cells of a matrix or vector, as LaTeX or as `[[1, 2], [3, 4]]`, row by row; None if `text` is none."""
    kind, inner = brackets(text.strip())
    rows_inside = [brackets(row) for row in split(inner)] if kind == "[]" else []
    if rows_inside and all(kind == "[]" for kind, _ in rows_inside):
        return [split(row) for _, row in rows_inside]
    match = _MATRIX.fullmatch(brackets(text)[1].strip())
    if match is None:
        return None
    rows = _ROW_END.split(match["rows"].strip())
    if not rows[-1].strip():
        rows.pop()
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
    """Take the one formula out of its delimiters and boxes, and of the words before it."""
    text = answer.strip()
    while True:
        inner = _unwrap_once(without_emphasis(text))
        if inner == text:
            return text
        text = inner


def _without_full_stop(text: str) -> str:
    text = text.strip()
    return text if text.endswith("..") else text.removesuffix(".").rstrip()


def _without_statement(text: str) -> str:
    """Take off "the answer is" and the like, unless it says that the answer is something else."""
    statement = _STATEMENT.match(text)
    return text if statement is None or is_modified(statement[0]) else text[statement.end() :]


def _unwrap_once(text: str) -> str:
    text = _without_statement(_without_full_stop(text))
    for opening, closing in _DELIMITERS:
        inner = text[len(opening) : -len(closing)]
        if (
            len(text) >= len(opening + closing)
            and text.startswith(opening)
            and text.endswith(closing)
            and opening not in inner
            and closing not in inner
        ):
            return inner.strip()
    spans = box_spans(text) or [match.span() for match in _MATH_SPAN.finditer(text)]
    if len(spans) == 1:
        start, end = spans[0]
        before, after = text[:start], _AFTER.fullmatch(text, end)
        words_before = None if before[-1:].isalpha() else _BEFORE.fullmatch(before)  # a letter at the box is a factor
        if words_before and not is_modified(before) and after:
            formula = (words_before[1] or "") + _inside(text[start:end])
            words = after[2].strip(" .,;:!*")
            if _ASIDE.match(words) and not is_modified(words):
                words = ""
            return formula.strip() + (after[1] or "") + (f" \\text{{ {words}}}" if words else "")
    if len(spans) > 1 and all(_LISTED.fullmatch(between) for between in _MATH_SPAN.split(text)):
        return _MATH_SPAN.sub(lambda span: _inside(span[0]), text)
    if text.count("$") == 1:
        return text.replace("$", "¤")  # an amount of money
    return text


def _inside(span: str) -> str:
    """Return the formula inside a box or math delimiters."""
    if span.startswith("$"):
        return span.strip("$")
    return span[2:-2] if span[1] in "([" else box_content(span)
