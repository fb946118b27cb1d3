r"""Answers with a relation sign: `x = 5`, `(x, y) = (1, 2)`, `x \in [1, 2)`, `x > 3`, `1 \le x < 2`.

An assignment has a value, and an inequality that is solved for one variable has a region of the real line, which can
be written as an interval or a union of intervals too. Everything else stays a formula.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from .latex import brackets
from .notation import BOTH, EITHER, split, with_commas
from .rationals import parse_rational
from .units import is_modified

_SIGN = re.compile(r"\\(?:le|ge|ne|in)(?![A-Za-z]) ?|[<>=]")
_INDEX = re.compile(r"_(?:\w|\{[^{}]*\})|'")
_GREEK = (
    "alpha|beta|gamma|delta|epsilon|varepsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|rho|sigma|tau|phi|varphi|chi|psi"
    "|omega|Gamma|Delta|Theta|Lambda|Sigma|Phi|Psi|Omega|ell"
)
_LETTER = rf"(?:[A-Za-z]|\\(?:{_GREEK})(?![A-Za-z]) ?)"
_ACCENT = "(?:over|under)line|over(?:right|left|leftright)arrow|vec|(?:wide)?(?:hat|tilde)|bar"
_NAME = re.compile(
    rf"(?:m ?)?(?:\\(?:angle|triangle|measuredangle) ?)?"
    rf"(?:{_LETTER}+(?: {_LETTER}+)*|\\(?:text|{_ACCENT})\{{[A-Za-z .]+\}}|\|[A-Z]{{2}}\|)"
    rf"(?:\({_LETTER}\))?|[f-hpqrA-Z](?:\^\{{-1\}})?\((?:[\w ,.-]|\\(?:{_GREEK}|cap|cup|mid)(?![A-Za-z]))*\)"
)
_RATIO_OF_NAMES = re.compile(r"([^:]*):([^:]*)|\\frac\{([A-Z]{2})\}\{([A-Z]{2})\}")
_BUILDER = re.compile(rf"\\\{{ ?{_LETTER} ?(?:\\in ?\\mathbb\{{R\}} ?)?(?:\\mid|[:|]) ?(.*?) ?\\\}}")
_UNKNOWN = re.compile(rf"{_LETTER}(?:\({_LETTER}\))?")
_POINT = re.compile(r"[A-Z]'?(?=\()")
_WORKED_OUT = re.compile(r"(?<![A-Za-z\\])(?:sin|cos|tan|log|ln|exp|max|min|gcd|lcm)(?![A-Za-z])")


@dataclass(frozen=True)
class Assignment:
    """A name without spaces, and what it is said to be."""

    name: str
    value: str


@dataclass(frozen=True)
class Interval:
    r"""A piece of the real line; a point is closed on both sides. Its ends are formulas, `\infty` among them."""

    low: str
    high: str
    low_closed: bool = False
    high_closed: bool = False


@dataclass(frozen=True)
class Region:
    """A part of the real line, and the variable that is said to lie in it, or "" if it is given as a set."""

    intervals: tuple[Interval, ...]
    variable: str = ""


LINE = Interval("-\\infty", "\\infty")


def assignment(text: str) -> Assignment | None:
    r"""Read `name = value`, or `name \in value`, where the name is a letter, word, segment, angle or point.

    An equation such as `2x = 10`, `\log x = 5` or `x + y = 5` is none.
    """
    signs = _signs(text)
    if len(signs) != 1 or signs[0][0].strip() not in ("=", "\\in"):
        return None
    (sign,) = signs
    name, value = text[: sign.start()].strip(), text[sign.end() :].strip()
    if sign[0] == "=" and _is_name(value) and not _is_name(name):
        name, value = value, name
    if not value or not _is_name(name):
        return None
    return Assignment(name.replace(" ", ""), value)


def value_of(text: str) -> str:
    """Return the value of an assignment such as `x = 5` or of a named point such as `P(1, 2)`, else the text."""
    found = assignment(text)
    return _POINT.sub("", found.value if found else text, count=1) if found or _POINT.match(text) else text


def region(text: str) -> Region | None:
    r"""Read a union of intervals, or inequalities in one variable that is alone on its side; None for anything else.

    `(1, 2)` alone is none, since it may be a point: see `interval`.
    """
    if builder := _BUILDER.fullmatch(text):
        text = builder[1]
    pieces = [_inequality(part) for part in split(with_commas(text.replace("\\cup", ",")))]
    if all(pieces):
        return _combine([piece for piece in pieces if piece], {BOTH, EITHER}.intersection(text))
    found = assignment(text)
    body = found.value if found else text
    if body.replace(" ", "") in ("\\mathbb{R}", "(-\\infty,\\infty)"):
        return Region((LINE,), found.name if found else "")
    if "\\cup" not in body:
        return None
    intervals = [piece for part in split(body.replace("\\cup", "∪"), "∪") for piece in _pieces(part)]
    return Region(tuple(intervals), found.name if found else "") if intervals else None


def interval(text: str) -> Region | None:
    r"""Read one interval such as `[1, 2)`, `x \in (1, 2)` or, in this place, `(1, 2)`."""
    found = assignment(text)
    pieces = _pieces(found.value if found else text)
    return Region(pieces, found.name if found else "") if len(pieces) == 1 else None


def chain(text: str) -> tuple[list[str], list[str]]:
    r"""Take `a < b \le c` apart into what is compared and the signs, turned so that they point to the left."""
    found = _signs(text)
    starts, ends = [0, *(sign.end() for sign in found)], [*(sign.start() for sign in found), len(text)]
    terms = [text[start:end].strip() for start, end in zip(starts, ends, strict=True)]
    signs = [sign[0].strip() for sign in found]
    turned = {">": "<", "\\ge": "\\le"}
    if any(sign in turned for sign in signs) and not any(sign in turned.values() for sign in signs):
        return terms[::-1], [turned.get(sign, sign) for sign in signs[::-1]]
    return terms, signs


def _signs(text: str) -> list[re.Match[str]]:
    """Return the relation signs outside of all braces."""
    return [
        sign for sign in _SIGN.finditer(text) if text.count("{", 0, sign.start()) == text.count("}", 0, sign.start())
    ]


def _is_name(text: str) -> bool:
    if text.startswith("(") and text.endswith(")"):
        return all(_is_name(part) for part in split(text[1:-1]))
    if ratio := _RATIO_OF_NAMES.fullmatch(text):
        left, right = (ratio[1], ratio[2]) if ratio[3] is None else (ratio[3], ratio[4])
        return _is_name(left.strip()) and _is_name(right.strip())
    text = _INDEX.sub("", text)
    return bool(_NAME.fullmatch(text)) and not _WORKED_OUT.search(text) and (text.isupper() or not is_modified(text))


def _pieces(text: str) -> tuple[Interval, ...]:
    r"""Return the one interval, or the points of the set, that `text` is; nothing if it is neither."""
    kind, inner = brackets(text.strip())
    values = split(inner)
    if kind == "{}":
        return tuple(Interval(value, value, True, True) for value in values)
    if len(values) != 2 or kind not in ("()", "[]", "[)", "(]"):
        return ()
    return (Interval(values[0], values[1], kind[0] == "[", kind[1] == "]"),)


def _inequality(text: str) -> Region | None:
    terms, signs = chain(text)
    if not signs or any(sign not in ("<", "\\le", "\\ne") for sign in signs):
        return None
    places = [i for i, term in enumerate(terms) if _UNKNOWN.fullmatch(_INDEX.sub("", _inside_bars(term)))]
    if len(places) != 1 or len(terms) > 3 or not all(terms):
        return None
    (place,) = places
    variable = terms[place].replace(" ", "").strip("|")
    if any(variable in term for i, term in enumerate(terms) if i != place):
        return None
    if signs == ["\\ne"]:
        if _inside_bars(terms[place]) != terms[place]:
            return None
        bound = terms[1 - place]
        return Region((replace(LINE, high=bound), replace(LINE, low=bound)), variable)
    if "\\ne" in signs or (len(terms) == 3 and place != 1):
        return None
    found = LINE
    if place > 0:
        found = replace(found, low=terms[place - 1], low_closed=signs[place - 1] == "\\le")
    if place < len(terms) - 1:
        found = replace(found, high=terms[place + 1], high_closed=signs[place] == "\\le")
    if _inside_bars(terms[place]) != terms[place]:
        return _mirrored(found, variable)
    return Region((found,), variable)


def _inside_bars(term: str) -> str:
    return term[1:-1].strip() if len(term) > 2 and term[0] == term[-1] == "|" else term


def _mirrored(found: Interval, variable: str) -> Region | None:
    r"""Return where the variable lies if its absolute value lies in `found`: `1 < |x| < 2` is two intervals."""
    bounds = [parse_rational(bound) for bound in (found.low, found.high) if "\\infty" not in bound]
    if any(bound is None or bound.numerator <= 0 for bound in bounds):
        return None
    if found.low == LINE.low:
        return Region((replace(found, low=f"-({found.high})", low_closed=found.high_closed),), variable)
    low = LINE.low if found.high == LINE.high else f"-({found.high})"
    left = Interval(low, f"-({found.low})", found.high_closed, found.low_closed)
    return Region((left, found), variable)


def _combine(regions: list[Region], joined: set[str]) -> Region | None:
    """Read several inequalities in one variable, joined by `BOTH` or `EITHER`.

    With commas, they are their intersection, or their union if they do not meet. None is also for no values at all.
    """
    if len(regions) == 1:
        return regions[0]
    if len({found.variable for found in regions}) > 1 or len(joined) > 1:
        return None
    if any(len(found.intervals) > 1 for found in regions):
        return None
    pieces = [piece for found in regions for piece in found.intervals]
    variable = regions[0].variable
    if any(piece.low != LINE.low and piece.high != LINE.high for piece in pieces):
        return None if BOTH in joined else Region(tuple(pieces), variable)
    below, above = sorted(pieces, key=lambda piece: piece.low != LINE.low)[:2]
    if len(pieces) > 2 or (below.low, above.high) != (LINE.low, LINE.high) or LINE.low == above.low:
        return None
    high, low = parse_rational(below.high), parse_rational(above.low)
    if high is None or low is None:
        return None
    if low.numerator * high.denominator < high.numerator * low.denominator:
        if EITHER in joined:
            return Region((LINE,), variable)
        return Region((replace(above, high=below.high, high_closed=below.high_closed),), variable)
    return None if BOTH in joined else Region((below, above), variable)
