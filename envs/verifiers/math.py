r"""Is this answer the gold answer? Exact where that is possible, symbolic in a killable worker elsewhere.

An answer is taken apart the way its gold answer is built (number, words, list, interval, matrix, equation),
and a part that one of the exact rules can decide is decided by it; only what is left, such as `2\sqrt{3}`
for `\sqrt{12}`, is handed to math-verify. What is wrong unless the gold answer has that form too: several
candidates where one value is asked for, an equation or condition, a sum over an index, and arithmetic left
to the reader (`17 + 17`).
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import chain

from ..base import Judgement, Verdict
from .latex import brackets, clean, matrix_rows, split, word_form
from .rationals import Rational, parse_rational
from .symbolic import SymbolicFailure, SymbolicTimeout, TimeBudget, symbolically_equal

TIME_LIMIT = 1.5
"""Seconds that the symbolic part of judging one answer may take; beyond, it scores 0 as a `timeout`."""

_MAX_LENGTH = 4_000  # characters beyond the gold answer's: no notation is that much longer
_MAX_SYMBOLIC = 500  # the same for what is handed to math-verify
_PLACEHOLDER = re.compile(r"[\[<]\s*[A-Za-z_ /]*\s*[\]>]|none|null|nan|n/?a|\?+|tbd|unknown", re.IGNORECASE)
_INTEGER = re.compile(r"\s*[-+]?\d+\s*")
_RELATION = re.compile(
    r"\\(?:sum|prod|i*int|oint|lim|mid|vert|approx|simeq|sim|equiv|neq?|implies|to|iff|[lL]eftarrow|[rR]ightarrow"
    r"|binom|choose|p?mod|bmod|le|ge|in|lt|gt)(?![A-Za-z])|[|:≈≠=<>≡→⇒∈∑∫]"
)
_ASSIGNMENT = re.compile(r"(\\?[A-Za-z]+(?:_\w)?(?:\(\s*\w(?:\s*,\s*\w)*\s*\))?)\s*(?:=|\\in(?![A-Za-z]))\s*([^=]*)")
_NUMBER_BASE = re.compile(r"[0-9A-Za-z.]+_(?:\d|\{\d+\})")
_SUM = re.compile(r"[^\s({^*/,+-]\s*[+-]")
_PLUS_MINUS = re.compile(r"\\pm(?![A-Za-z])|±")
_SPACING = re.compile(r"(?<!\d)\s+|\s+(?!\d)")  # but not between two digits: "3 4" is not 34
_SIDE_BY_SIDE = re.compile(r"\d\s+\d|\$|\\[()\[\]]|\\boxed")
_MIRRORED = {"<": ">", "\\lt": ">", "\\gt": ">", "\\le": "\\ge"}
_DECIMAL = re.compile(r"(\d*)\.(\d+)")


def judge(answer: str, gold: str) -> Judgement:
    """Compare an extracted answer with the gold answer.

    Args:
        answer: What the model gave as its answer, as `extraction` found it.
        gold: The right answer, which must have passed `check_gold`.

    Returns:
        `correct`, `wrong`, `no_answer` (it is blank), `timeout`, or `infra_failure` (see `SymbolicFailure`).
    """
    if len(answer) > _MAX_LENGTH + 2 * len(gold) and not _INTEGER.fullmatch(answer):
        return Judgement.of(False, f"the answer has {len(answer)} characters: too many to be one")
    target = clean(answer)
    if not target:
        return Judgement.of(Verdict.NO_ANSWER, "the answer is empty")
    comparison = _Comparison()
    try:
        return Judgement.of(comparison.equal(target, _clean_gold(gold)), comparison.cause)
    except SymbolicTimeout as timeout:
        return Judgement.of(Verdict.TIMEOUT, str(timeout))
    except SymbolicFailure as failure:
        return Judgement.of(Verdict.INFRA_FAILURE, str(failure))


def check_gold(gold: str) -> None:
    """Refuse a gold answer that no answer could match.

    Raises:
        ValueError: It is empty, a placeholder such as "[INVALID]", or does not verify against itself.
        SymbolicFailure: The worker that should have told could not be used.
    """
    target = _clean_gold(gold)
    if not target:
        raise ValueError(f"the gold answer {gold!r} is empty")
    if _PLACEHOLDER.fullmatch(gold.strip()):
        raise ValueError(f"the gold answer {gold!r} is a placeholder")
    comparison = _Comparison(same_text_is_equal=False)
    try:
        if not comparison.equal(target, target):
            raise ValueError(f"the gold answer {gold!r} can not be read: it does not verify against itself")
    except SymbolicTimeout as timeout:
        raise ValueError(f"the gold answer {gold!r} does not verify against itself: {timeout}") from timeout


@lru_cache(maxsize=4096)
def _clean_gold(gold: str) -> str:
    return clean(gold)


class _Comparison:
    """One comparison: a time budget shared by all its symbolic parts, and the cause of a "no".

    `same_text_is_equal=False` leaves out the shortcut for equal texts, to see whether a text can be read.
    """

    def __init__(self, *, same_text_is_equal: bool = True) -> None:
        self.cause = ""
        self._same_text_is_equal = same_text_is_equal
        self._budget = TimeBudget(TIME_LIMIT)

    def equal(self, target: str, gold: str) -> bool:
        if self._same_text_is_equal and _squeezed(target) == _squeezed(gold):
            return True
        number = parse_rational(gold)
        if number is not None:
            return self._equals_number(target, number, gold)
        if "\\cup" in gold:
            return self._same_values(_split_union(target), _split_union(gold), ordered=False)
        if (rows := matrix_rows(gold)) is not None:
            return self._equals_matrix(matrix_rows(target), rows)
        if (words := word_form(gold)) is not None and not split(gold)[1:]:
            return words == word_form(target, force=True)
        if _NUMBER_BASE.fullmatch(gold):
            return _squeezed(target) == _squeezed(gold)
        if ":" in gold and "\\" not in gold:
            return self._same_values(split(target, ":"), split(gold, ":"), ordered=True)
        return self._equals_collection(target, gold)

    def _equals_number(self, target: str, gold: Rational, gold_text: str) -> bool:
        target = _value(target)
        number = parse_rational(target)
        if number is not None:
            if gold.evaluated and not number.evaluated:
                return self._no("it leaves arithmetic to the reader")
            return number.equals(gold)
        if len(_values(target)[1]) > 1 or brackets(target)[0] in ("{}", "[]"):
            return self._no("it gives several candidates, or a set, where one number is asked for")
        if relation := _RELATION.search(target):
            return self._no(f"it restates the problem, with {relation[0]!r}, instead of giving a number")
        if _SUM.search(target):
            return self._no("it leaves arithmetic to the reader")
        if word_form(target) is not None:
            return self._no("it gives words where a number is asked for")
        return self._symbolic(target, gold_text)

    def _equals_matrix(self, target: list[list[str]] | None, gold: list[list[str]]) -> bool:
        if target is None or [len(row) for row in target] != [len(row) for row in gold]:
            return self._no("it is no matrix of the shape that is asked for")
        return self._same_values([*chain(*target)], [*chain(*gold)], ordered=True)

    def _equals_collection(self, target: str, gold: str) -> bool:
        gold_kind, gold_values = _values(gold)
        if len(gold_values) == 1 and gold_kind in ("", "()"):
            return self._equals_formula(target, gold if gold_kind == "" else gold_values[0])
        kind, values = _values(_value(target))
        if len(values) != len(gold_values):
            return self._no(f"it gives {len(values)} values where {len(gold_values)} are asked for")
        ordered = gold_kind not in ("", "{}")
        if ordered and kind != gold_kind and not (kind == "" and gold_kind == "()"):
            return self._no(f"it is no {gold_kind[0]}...{gold_kind[1]}")
        return self._same_values(values, gold_values, ordered=ordered)

    def _same_values(self, targets: list[str], golds: list[str], *, ordered: bool) -> bool:
        if len(targets) != len(golds):
            return self._no(f"it gives {len(targets)} values where {len(golds)} are asked for")
        if ordered:
            return all(self.equal(target, gold) for target, gold in zip(targets, golds, strict=True))
        left = list(targets)
        for gold in golds:
            match = next((i for i, target in enumerate(left) if self.equal(target, gold)), None)
            if match is None:
                return False
            left.pop(match)
        return True

    def _equals_formula(self, target: str, gold: str) -> bool:
        gold_assigned, assigned = _ASSIGNMENT.fullmatch(gold), _ASSIGNMENT.fullmatch(target)
        if gold_assigned and assigned and gold_assigned[1] == assigned[1]:
            return self.equal(assigned[2], gold_assigned[2])
        if gold_assigned and not _RELATION.search(target):
            return self.equal(target, gold_assigned[2])
        if assigned and not _RELATION.search(gold):
            return self.equal(assigned[2], gold)
        kind, values = _values(target)
        if len(values) > 1 or kind in ("{}", "[]"):
            return self._no("it gives several candidates, or a set, where one value is asked for")
        if added := _relations(target) - _relations(gold):
            return self._no(f"it restates the problem, with {min(added)!r}, which the gold answer does not have")
        if word_form(target) is not None:
            return self._no("it gives words where a formula is asked for")
        return self._symbolic(target, gold)

    def _symbolic(self, target: str, gold: str) -> bool:
        if _SIDE_BY_SIDE.search(target):
            return self._no("it gives several values side by side")
        if len(target) > _MAX_SYMBOLIC + 4 * len(gold):
            return self._no(f"its formula has {len(target)} characters: too many to be the answer")
        return symbolically_equal(_exact(target), _exact(gold), self._budget)

    def _no(self, cause: str) -> bool:
        self.cause = cause
        return False


def _value(text: str) -> str:
    """Return the value of an assignment such as `x = 5`, anything else as it is."""
    assigned = _ASSIGNMENT.fullmatch(text)
    return assigned[2] if assigned else text


def _values(text: str) -> tuple[str, list[str]]:
    r"""Return the brackets around a list and its values; `\pm` counts as two."""
    kind, inner = brackets(text)
    values = split(inner)
    return kind, [
        _PLUS_MINUS.sub(sign, value, count=1)
        for value in values
        for sign in ("+-" if _PLUS_MINUS.search(value) else "+")
    ]


def _relations(text: str) -> set[str]:
    """Return the relations and index operators in `text`; an inequality may be read from either side."""
    return {_MIRRORED.get(match[0], match[0]) for match in _RELATION.finditer(text)}


def _split_union(text: str) -> list[str]:
    return split(text.replace("\\cup", "∪"), "∪")


def _squeezed(text: str) -> str:
    return _SPACING.sub("", text).removeprefix("+")


def _exact(formula: str) -> str:
    """Write decimals as fractions, because math-verify rounds decimals before it compares."""
    return _DECIMAL.sub(lambda number: rf"\frac{{{number[1]}{number[2]}}}{{1{'0' * len(number[2])}}}", formula)
