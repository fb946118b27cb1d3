r"""Is this answer the gold answer? Exact where that is possible, symbolic in a killable worker elsewhere.

What counts as the same answer:

- Another notation: `\dfrac12` for `1/2`, `1,234` for `1234`, `x = 5`, `5 cm` or `\$5` for `5`, `90^\circ` for `90`,
  `(A)` for `A`, `1\frac12`, `150\%` or `1.5` for `\frac{3}{2}`, `3 \cdot 10^8`, `0.\overline{3}` for `\frac13`.
- Another form of the same value or expression: `2\sqrt{3}` for `\sqrt{12}`, `x^2 + 2x + 1` for `(x+1)^2`,
  `y - 2x = 3` for `y = 2x + 3`, `x > 3` for `(3, \infty)`, `2 \pm \sqrt{3}` for a list of both.
- Solutions and sets in any order; points, intervals, matrices and ratios in theirs.
- A percentage with or without its sign, as 50 or as 0.5, whether it is the answer or the gold answer; but 0.5% is not
  0.5.

What does not:

- A rounded value: `0.3333` for `\frac13`, `3.14` or `\frac{22}{7}` for `\pi`. Integers and fractions compare exactly,
  at any size; other numbers to 150 digits.
- More than one candidate where one is asked for: `33, 34`, `33 or 34`, a set, an interval, `\pm`.
- The problem instead of its answer: a sum over an index, an integral, a limit, an equation or condition, arithmetic
  that is left to the reader (`17 + 17`, `115^2`, `\sqrt{36}`), or a function that is (`\log_2 8` for `3`), unless the
  gold answer has it too; a formula copied from the question, where that is known (see `copied`).
- Another unit of measurement than the gold answer's (`5 m` or `5 cm^2` for `5 cm`), or words that change the value
  (`5 squared`); but `5 million` is 5000000.
- Other words, or letters in another order: `on` for `no`, `HTH` for `HHT`.
- Another variable, also in another case: `X` for `x`.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import replace
from functools import lru_cache

from ...base import Judgement, Verdict
from .compare import Comparison
from .copied import is_copied
from .intervals import value_of
from .latex import clean, squeezed, word_form
from .notation import AND
from .rationals import Rational, read_number
from .sympy_pool import SymbolicFailure, SymbolicTimeout, TimeBudget, symbolically_equal
from .units import split_unit

TIME_LIMIT = 0.5
"""Seconds of CPU time that the symbolic part of judging one answer may take; beyond, it scores 0 as a `timeout`.

Honest comparisons take milliseconds. Starting math-verify, once in a process, takes about one second more: together
less than 2 s on an idle machine. On a busy one it may take longer, and the verdict is the same: see `sympy_pool`.
"""

_PRINTABLE_BITS = 10_000  # of a number that is written out, well within what Python prints under every setting
_MAX_LENGTH = 4_000  # characters beyond the gold answer's: no notation is that much longer
_INTEGER = re.compile(r"\s*([-+]?)([1-9]\d{0,2}(?:,\d{3})+|\d+)\s*")
_DOUBLED = re.compile(r"\\\\(?=[A-Za-z{}])")  # backslashes, in data that was escaped twice
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_MAX_WORDS = 15  # of a gold answer
_PLACEHOLDER = re.compile(r"[\[<]\s*[A-Za-z_ /]*\s*[\]>]|none|null|nan|n/?a|\?+|tbd|unknown", re.IGNORECASE)


def judge(answer: str, gold: str, question: str = "") -> Judgement:
    """Compare an extracted answer with the gold answer; no text makes it raise an exception.

    Args:
        answer: What the model gave as its answer, as `answer_extraction` found it.
        gold: The right answer, which must have passed `check_gold`.
        question: What was asked, so that a formula copied from it is not paid; "" if that is not known.

    Returns:
        `correct`, `wrong`, `no_answer` (it is blank), `timeout`, or `infra_failure` (see `SymbolicFailure`; also any
        fault of this package, with its text as the cause), with the answer in one spelling among its details.
    """
    try:
        judgement = _judgement(answer, gold)
        if question and judgement.verdict is Verdict.CORRECT and is_copied(answer, gold, question):
            judgement = Judgement.of(False, "it is copied from the question, and the work that was asked for is left")
        return replace(judgement, details={"answer": canonical_answer(answer)})
    except Exception as error:  # a fault of ours, which must not end a run
        return Judgement.of(Verdict.INFRA_FAILURE, f"judging {answer[:80]!r} failed: {error!r}")


def canonical_answer(answer: str) -> str:
    r"""Return an answer as votes are counted by, without looking at the gold answer.

    Numbers come out alike however they are written (`1,234`, `\frac{2}{4}` and `0.5`, `x = 5`, `5 cm`), and so do words
    and layout. Two forms of one expression (`2\sqrt{3}` and `\sqrt{12}`) stay apart.
    """
    if integer := _INTEGER.fullmatch(answer):
        return _integer(integer)
    if len(answer) > _MAX_LENGTH:
        return answer
    text = value_of(split_unit(_clean_answer(answer))[0].replace(AND, ""))
    number = read_number(text)
    if number is not None and number.evaluated and _is_printable(number):
        common = math.gcd(number.numerator, number.denominator)
        above, below = number.numerator // common, number.denominator // common
        return f"{above}{'' if below == 1 else f'/{below}'}{'%' * number.percent}"
    return word_form(text) or squeezed(text)


def _judgement(answer: str, gold: str) -> Judgement:
    integers = _INTEGER.fullmatch(answer), _INTEGER.fullmatch(gold)
    if integers[0] and integers[1]:
        number, wanted = (_integer(found) for found in integers if found)  # as text, because they may be endless
        return Judgement.of(number == wanted)
    if len(answer) > _MAX_LENGTH + 2 * len(gold):
        return Judgement.of(False, f"the answer has {len(answer)} characters: too many to be one")
    target = _clean_answer(answer)
    if not target:
        return Judgement.of(Verdict.NO_ANSWER, "the answer is empty")
    comparison = _comparison()
    try:
        equal = comparison.equal(target, _clean_gold(gold))
    except SymbolicTimeout as timeout:
        return Judgement.of(Verdict.TIMEOUT, str(timeout))
    except SymbolicFailure as failure:
        return Judgement.of(Verdict.INFRA_FAILURE, str(failure))
    return Judgement.of(equal, "" if equal else comparison.cause)


def check_gold(gold: str) -> None:
    """Refuse a gold answer that no answer could match.

    Raises:
        ValueError: It is empty, a placeholder such as "[INVALID]", a worked text without a marked answer, or does not
            verify against itself.
        SymbolicFailure: The worker that decides could not be used.
    """
    if _INTEGER.fullmatch(gold):
        return
    target = _clean_gold(gold)
    if not target:
        raise ValueError(f"the gold answer {gold!r} is empty")
    if _PLACEHOLDER.fullmatch(gold.strip()):
        raise ValueError(f"the gold answer {gold!r} is a placeholder")
    if "=" in target and all(read_number(side) for side in target.split("=")):
        raise ValueError(f"the gold answer {gold!r} is an equation between numbers: give the one that is the answer")
    if len(_PROSE.findall(target)) > _MAX_WORDS:
        raise ValueError(f"the gold answer {gold!r} is a text without an answer in it that is marked as one")
    comparison = _comparison(same_text_is_equal=False)
    try:
        if not comparison.equal(target, target):
            raise ValueError(f"the gold answer {gold!r} can not be read: it does not verify against itself")
    except SymbolicTimeout as timeout:
        raise ValueError(f"the gold answer {gold!r} does not verify against itself: {timeout}") from timeout


def _is_printable(number: Rational) -> bool:
    return max(number.numerator.bit_length(), number.denominator.bit_length()) < _PRINTABLE_BITS


def _integer(match: re.Match[str]) -> str:
    """Write a whole number in one spelling."""
    text = match[2].replace(",", "")
    digits = (text if text.isascii() else "".join(str(unicodedata.digit(digit)) for digit in text)).lstrip("0")
    return f"{'-' * (match[1] == '-')}{digits}" if digits else "0"


def _comparison(**options: bool) -> Comparison:
    budget = TimeBudget(TIME_LIMIT)  # one for all parts of an answer
    return Comparison(lambda target, gold: symbolically_equal(target, gold, budget), **options)


@lru_cache(maxsize=64)
def _clean_answer(answer: str) -> str:
    return clean(answer)


@lru_cache(maxsize=4096)
def _clean_gold(gold: str) -> str:
    return clean(gold if "\\begin" in gold else _DOUBLED.sub(r"\\", gold))
