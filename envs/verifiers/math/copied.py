r"""Whether a right answer is only a formula of the question, with the work that was asked for left undone.

"Simplify $\frac{24}{36}$" is not answered by `\frac{24}{36}`, nor "Factor $7x^2-63$" by `7x^2-63`, although the values
are equal to the gold answer's. A formula of the question is a copy if

- it is not the gold answer's own spelling, in any order of its terms and factors, and
- it leaves something to do: an operation to be worked out, a fraction to be reduced, an equation or a named point that
  was only given, or, where the question asks for another form ("as a common fraction"), a number in the old one.

A question that offers its answers ("which of ...") has no copies.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from functools import lru_cache

from .intervals import value_of
from .latex import clean, squeezed
from .notation import split
from .rationals import parse_rational

_FORMULA = re.compile(r"\$\$([^$]+)\$\$|(?<!\\)\$((?:[^$\\]|\\.)+)\$|\\\[(.*?)\\\]|\\\((.*?)\\\)", re.DOTALL)
_PROSE = re.compile(
    r"(?<![A-Za-z\\])(?!sqrt|sin|cos|tan|log|abs|exp)(?:[A-Za-z]{3,}|of|is|to|in|at|by|if|as|an|or|it|be|we|do|on)(?![A-Za-z(])"
    r"|[?!:;$]|[.,](?=\s|$)"
)
_OFFERS = re.compile(r"\bwhich (?:of|one)\b|\bchoose\b|\bselect\b", re.IGNORECASE)
_ASKS_FOR_A_FORM = re.compile(
    r"fraction|decimal|mixed number|percent|simplif|lowest terms|scientific|express|convert|rational", re.IGNORECASE
)
_WORK = re.compile(
    r"(?<=.)[-+*/^!|]|\\(?:frac|sqrt|cdot|times|div|binom|[a-z]*(?:sin|cos|tan|cot|sec|csc|log|ln))|\)[\w(]|[\w)]\("
)
_RELATION = re.compile(r"[=<>]|\\(?:le|ge|in)(?![A-Za-z])")
_TOKEN = re.compile(r"\\[A-Za-z]+|\d+(?:\.\d+)?|[^\s(){}\[\]]")
_REPEATED = re.compile(r"(\([^()]*\))\^(?:\{([2-9])\}|([2-9]))")  # (x+1)^2 is (x+1)(x+1)
_SAME = {"\\frac": "/", "\\div": "/", "\\cdot": "", "\\times": "", "*": "", "+": ""}
_MAX_QUESTION = 20_000  # characters in which formulas are looked for


def is_copied(answer: str, gold: str, question: str) -> bool:
    """Whether `answer`, which is equal to `gold`, is a formula of `question` that leaves the asked work undone."""
    text, own = clean(answer), clean(gold)
    if squeezed(text) == squeezed(own) or _OFFERS.search(question):
        return False
    signature = _signature(text)
    if signature == _signature(own) or signature not in _formulas(question[:_MAX_QUESTION]):
        return False
    number = parse_rational(text)
    leaves_work = bool(_RELATION.search(text) or value_of(text) != text or _WORK.search(text))
    if number is None or not number.evaluated or (leaves_work and not number.plain):
        return leaves_work
    if _form(text) == "fraction" and (number.denominator == 1 or math.gcd(number.numerator, number.denominator) > 1):
        return True
    return _form(text) != _form(own) and bool(_ASKS_FOR_A_FORM.search(question))


@lru_cache(maxsize=256)
def _formulas(question: str) -> frozenset[object]:
    """Return the signatures of the formulas in a question, of the sides of its equations, and of its plain text."""
    found = [next(filter(None, formula.groups()), "") for formula in _FORMULA.finditer(question)]
    found += _PROSE.split(_FORMULA.sub("$", question))
    found += [side for formula in found if formula and "=" in formula for side in formula.split("=")]
    return frozenset(_signature(clean(formula.strip(" ,.\n"))) for formula in found if formula and formula.strip())


def _signature(text: str) -> object:
    r"""Return what two copies have in common: the text of a list or matrix, of anything else the tokens in any order.

    Brackets and signs of multiplication do not count, and `\frac{a}{b}` is `a/b`.
    """
    if "\\begin" in text or len(split(text.strip("()[]"))) > 1 or "\\{" in text:
        return squeezed(text)
    text = _REPEATED.sub(lambda power: power[1] * int(power[2] or power[3]), text)
    tokens = Counter(_SAME.get(token, token) for token in _TOKEN.findall(text))
    return frozenset((token, count) for token, count in tokens.items() if token)


def _form(text: str) -> str:
    """Return how a number is written: "repeating", "mixed", "fraction", "decimal" or "whole"."""
    if "\\overline" in text:
        return "repeating"
    if "\\frac" in text or "/" in text:
        return "mixed" if re.match(r"-?\d+\\frac", text) else "fraction"
    return "decimal" if "." in text else "whole"
