r"""Comparing a cleaned answer with a cleaned gold answer, part by part, the way the gold answer is built.

A gold answer is a number, a time, words, a matrix, a number in another base, a ratio, a region of the real line, a
collection, an equation or a formula, tried in this order. What one of the exact rules can decide is decided by it;
only formulas that are left, such as `2\sqrt{3}` for `\sqrt{12}`, are handed to math-verify.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from itertools import chain as flatten

from .intervals import Assignment, Region, assignment, chain, interval, region, value_of
from .latex import brackets, is_labels, matrix_rows, squeezed, word_form
from .notation import AND, BOTH, EITHER, split, with_commas
from .rationals import Rational, parse_rational, read_number
from .units import contradict, split_unit

_MAX_SYMBOLIC = 500  # characters, beyond four times the gold formula's, of what is handed to math-verify
_EXACT_TEXT = re.compile(r"-?\\infty|\\emptyset|\\mathbb\{[A-Z]\}")
_CLOCK = re.compile(r"(\d{1,2})(?::([0-5]\d))? ?(?:([ap])\.? ?m\.?)?", re.IGNORECASE)
_BASE = re.compile(r"(-?)\(?([0-9A-Za-z]+(?:\.[0-9A-Za-z]+)?|\.[0-9A-Za-z]+)\)?_\{(?:\\text\{ ?)?(\w+)(?: ?\})?\}")
_BASES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_RATIO = re.compile(r" ?(?::|\\text\{ ?to ?\}|(?<=\d) to (?=\d)) ?")
_DECIMAL_COMMA = re.compile(r"(?<=\d),(?=\d+$)")
_PLUS_MINUS = re.compile(r"\\pm(?![A-Za-z])")
_NUMERIC = re.compile(r"(?:\\(?:frac|sqrt|times|cdot)(?![A-Za-z])|[\d.,*/^(){}\[\]\s+-])+")
_SUM = re.compile(r"[^\s({\[^*/,+-]\s*[+-]")
_RELATION = re.compile(
    r"\\(?:sum|prod|i*int|oint|lim|mid|approx|simeq|sim|equiv|ne|implies|to|iff|[lL]eftarrow|[rR]ightarrow|partial|pmod"
    r"|bmod|mod|le|ge|in|cup|cap|wedge|vee|land|lor|lfloor|lceil|max|min|gcd|det|binom|deg)(?![A-Za-z])"
    r"|\\frac\{d\}\{d|(?<![A-Za-z\\])(?:max|min|gcd|lcm|mod|lim|sum)(?![A-Za-z])|[:≡→⇒∑∫=<>]"
)
_SIGN = re.compile(r"\\(?:le|ge|ne)(?![A-Za-z])|[=<>]")
_FOREIGN = re.compile(
    r"\\(?:text|boxed|[lc]?dots|quad|begin|cancel|overset|underset|atop)|\$|\\[()\[\]\\&]|\.\.\.|'|\"|[?&@#_]"
    rf"|^ ?\*|\* ?$|[{BOTH}{EITHER}]"
)
_FUNCTION = re.compile(
    r"\\(sin|cos|tan|sec|csc|cot|arcsin|arccos|arctan|sinh|cosh|tanh|log|ln|exp|arg|Re|Im)(?![A-Za-z])|[!|]"
)
_FAMILY = dict.fromkeys(("sin", "cos", "tan", "sec", "csc", "cot"), "trigonometric") | {"ln": "log"}
_VARIABLE = re.compile(
    r"(?<![A-Za-z\\])[A-Za-z]+|\\(?:alpha|beta|gamma|delta|epsilon|theta|lambda|mu|nu|phi|rho|sigma|tau|omega)"
)
_JOINED = re.compile(f"[{BOTH}{EITHER}]")
_MIRRORED = {"<": ">", "\\le": "\\ge"}
_MIXED = re.compile(r"(?<![\d.}^_])(\d{1,99}) ?\\frac\{(\d{1,99})\}\{(\d{1,99})\}")
_DECIMAL = re.compile(r"(\d*)\.(\d+)")
_TIMES = re.compile(r" ?\\(?:cdot|times)(?![A-Za-z]) ?")
_PRODUCT = re.compile(r"(?<!_)(?<=[\d)]) ?(?=\()|(?<=\)) ?(?=\d)")


class Comparison:
    """One comparison, and the cause of a "no".

    Args:
        symbolically_equal: Whether two formulas are equal, for those that no rule can decide.
        same_text_is_equal: False leaves out the shortcut for equal texts, to see whether a text can be read.
    """

    def __init__(self, symbolically_equal: Callable[[str, str], bool], *, same_text_is_equal: bool = True) -> None:
        self.cause = ""
        self._symbolically_equal = symbolically_equal
        self._same_text_is_equal = same_text_is_equal

    def equal(self, target: str, gold: str) -> bool:
        """Whether the answer `target` is `gold`; both as `clean` returns them. `cause` says why not."""
        if self._same_text_is_equal and squeezed(target) == squeezed(gold) and not (gold.isalpha() and " " in target):
            return True
        gold = gold.replace(AND, ", " if len(split(gold)) > 1 else "")
        target = target.replace(AND, "" if parse_rational(gold) else ", ")
        if _JOINED.search(gold + target) and not region(gold):
            gold, target = with_commas(gold), target if region(target) else with_commas(target)
        if (time := _clock(gold)) is not None:
            return _is_time(time, target)
        (target, unit), (gold, gold_unit) = split_unit(target), split_unit(gold)
        if contradict(unit, gold_unit):
            return self._no(f"its unit is {' '.join(sorted(unit))} instead of {' '.join(sorted(gold_unit))}")
        if (number := read_number(gold)) is not None:
            if (number.percent and unit) or (gold_unit and (given := read_number(value_of(target))) and given.percent):
                return self._no(
                    "percent is another unit than the gold answer's" if gold_unit else "it is no percentage"
                )
            return self._equals_number(target, number, gold)
        if (named := assignment(gold)) is not None and not _PLUS_MINUS.search(gold):
            return self._equals_assignment(target, named, gold)
        if _EXACT_TEXT.fullmatch(squeezed(gold)):
            return squeezed(value_of(target)) == squeezed(gold) or region(target) == region(gold) is not None
        if (rows := matrix_rows(gold)) is not None:
            return self._equals_matrix(matrix_rows(value_of(target)), rows)
        if is_labels(gold):
            return re.sub(r"\\text\{([^{}]*)\}|\s", r"\1", target) == gold or self._no("it is another sequence")
        if (words := word_form(gold)) is not None and not split(gold)[1:]:
            return words == word_form(target, force=True) or self._no("it is another word")
        if (based := _in_base(gold)) is not None:
            return _in_base(value_of(target)) == based
        if len(ratio := _RATIO.split(gold)) > 1 and "\\" not in gold:
            return self._equals_ratio(_RATIO.split(value_of(target)), ratio)
        if (wanted := region(gold)) is not None:
            return self._equals_region(target, wanted, gold)
        return self._equals_collection(target, gold)

    def _equals_number(self, target: str, gold: Rational, gold_text: str) -> bool:
        target, _ = split_unit(value_of(target))
        number = read_number(target)
        if number is None and gold.denominator != 1:
            number = parse_rational(_RATIO.sub("/", target) if ":" in target else _DECIMAL_COMMA.sub(".", target))
        if number is not None:
            if gold.plain and not number.evaluated:
                return self._no("it leaves arithmetic to the reader")
            return number.equals(gold)
        if len(_values(target)[1]) > 1 or brackets(target)[0] in ("{}", "[]"):
            return self._no("it gives several candidates, or a set, where one number is asked for")
        if relation := _RELATION.search(target):
            return self._no(f"it restates the problem, with {relation[0]!r}, instead of giving a number")
        if word_form(target) is not None:
            return self._no("it gives words where a number is asked for")
        if gold.plain or not _NUMERIC.fullmatch(target) or _SUM.search(target):
            return self._no("it leaves arithmetic to the reader, or is no number")
        return self._symbolic(target, gold_text)

    def _equals_assignment(self, target: str, gold: Assignment, gold_text: str) -> bool:
        named = assignment(target)
        if named is not None and _same_name(named.name, gold.name):
            return self.equal(named.value, gold.value)
        if named is None and not _SIGN.search(target):
            return self.equal(target, gold.value)
        if region(gold_text) is not None or interval(gold_text) is not None:
            return self.equal(target, gold.value)
        if not _variables(gold.value):
            return self._no(f"it does not say what {gold.name} is, but restates the problem")
        return self._symbolic_if_alike(target, gold_text)

    def _equals_matrix(self, target: list[list[str]] | None, gold: list[list[str]]) -> bool:
        if target is None or [len(row) for row in target] != [len(row) for row in gold]:
            return self._no("it is no matrix of the shape that is asked for")
        return self._same_values([*flatten(*target)], [*flatten(*gold)], ordered=True)

    def _equals_ratio(self, target: list[str], gold: list[str]) -> bool:
        if len(target) == 1 and len(gold) == 2:  # a fraction will do for it
            quotient, wanted = parse_rational(target[0]), parse_rational("/".join(gold))
            return quotient is not None and wanted is not None and quotient.evaluated and quotient.equals(wanted)
        if len(target) != len(gold):
            return self._no(f"it gives {len(target)} parts where {len(gold)} are asked for")
        parts, wanted_parts = [*map(parse_rational, target)], [*map(parse_rational, gold)]
        if None in parts or None in wanted_parts:
            return self._same_values(target, gold, ordered=True)
        quotients = [parse_rational(f"({part})/({target[0]})") for part in target]
        wanted_quotients = [parse_rational(f"({part})/({gold[0]})") for part in gold]
        return all(
            left is not None and right is not None and left.equals(right)
            for left, right in zip(quotients, wanted_quotients, strict=True)
        )

    def _equals_region(self, target: str, gold: Region, gold_text: str) -> bool:
        found = region(target) or interval(target)
        if found is None:
            return self._symbolic_if_alike(target, gold_text)
        if found.variable and gold.variable and not _same_name(found.variable, gold.variable):
            return self._no(f"it is about {found.variable} instead of {gold.variable}")
        left = list(found.intervals)
        if len(left) != len(gold.intervals):
            return self._no("it is another region")
        for piece in gold.intervals:
            match = next(
                (
                    i
                    for i, other in enumerate(left)
                    if (other.low_closed, other.high_closed) == (piece.low_closed, piece.high_closed)
                    and self.equal(other.low, piece.low)
                    and self.equal(other.high, piece.high)
                ),
                None,
            )
            if match is None:
                return self._no("it is another region")
            left.pop(match)
        return True

    def _equals_collection(self, target: str, gold: str) -> bool:
        gold_kind, golds = ("", tuples) if len(tuples := _tuples(gold)) > 1 else _values(value_of(gold))
        if len(golds) == 1 and gold_kind in ("", "()"):
            return self._equals_formula(target, gold if gold_kind == "" else golds[0])
        as_interval = interval(gold)
        if as_interval is not None and region(target) is not None:
            return self._equals_region(target, as_interval, gold)
        if (names := _names(golds)) is not None:
            return self._equals_named(target, golds, names)
        kind, values = _values(value_of(target))
        if all(brackets(value)[0] == "()" for value in golds) and (tuples := _tuples(target)):
            kind, values = "", tuples
        ordered = gold_kind not in ("", "{}")
        if (kind != gold_kind and not (kind == "" and gold_kind == "()")) if ordered else kind not in ("", "()", "{}"):
            return self._no(f"it is no {gold_kind[0]}...{gold_kind[1]}" if gold_kind else "it is no list")
        return self._same_values([*map(value_of, values)], [*map(value_of, golds)], ordered=ordered)

    def _equals_named(self, target: str, golds: list[str], names: list[str]) -> bool:
        """Compare with `x = 2, y = 3`: by name, or in this order if the answer has no names."""
        _, values = _values(target)
        given = _names(values)
        if given is None:
            return self._same_values(values, [*map(value_of, golds)], ordered=True)
        if sorted(given) != sorted(names):
            return self._no(f"it gives {', '.join(given)} instead of {', '.join(names)}")
        by_name = dict(zip(given, map(value_of, values), strict=True))
        return self._same_values([by_name[name] for name in names], [*map(value_of, golds)], ordered=True)

    def _same_values(self, targets: list[str], golds: list[str], *, ordered: bool) -> bool:
        may_repeat = not ordered and len(set(golds)) == len(golds)  # in a set, nothing counts twice
        if may_repeat:
            targets = list(dict.fromkeys(map(squeezed, targets)))
            golds = list(map(squeezed, golds))
        if len(targets) != len(golds) and not (may_repeat and len(golds) < len(targets) <= 2 * len(golds)):
            return self._no(f"it gives {len(targets)} values where {len(golds)} are asked for")
        if ordered:
            return all(self.equal(target, gold) for target, gold in zip(targets, golds, strict=True))
        every_gold = golds
        if self._same_text_is_equal:
            texts, gold_texts = Counter(targets), Counter(golds)
            targets, golds = [*(texts - gold_texts).elements()], [*(gold_texts - texts).elements()]
        left = list(targets)
        for gold in golds:
            match = next((i for i, target in enumerate(left) if self.equal(target, gold)), None)
            if match is None:
                return self._no(f"{gold} is missing")
            left.pop(match)
        if all(any(self.equal(target, gold) for gold in every_gold) for target in left):
            return True
        return self._no(
            f"it gives {len(targets) + len(every_gold) - len(golds)} values where {len(every_gold)} are asked for"
        )

    def _equals_formula(self, target: str, gold: str) -> bool:
        terms, signs = chain(gold)
        if len(signs) > 1:
            target_terms, target_signs = chain(target)
            return target_signs == signs and self._same_values(target_terms, terms, ordered=True)
        if not signs:
            target = value_of(target)
        kind, values = _values(target)
        if len(values) > 1 or kind in ("{}", "[]"):
            return self._no("it gives several candidates, or a set, where one value is asked for")
        if not _variables(gold) and (names := _variables(target) - {"d"}):
            return self._no(f"it has the variable {min(names)}, which the gold answer does not have")
        return self._symbolic_if_alike(target, gold)

    def _symbolic_if_alike(self, target: str, gold: str) -> bool:
        """Compare by math-verify what is no restatement of the problem."""
        if added := _tokens(_RELATION, target) - _tokens(_RELATION, gold):
            return self._no(f"it restates the problem, with {min(added)!r}, which the gold answer does not have")
        if (missing := {*chain(gold)[1]} - {*chain(target)[1]}) or len(split(target)) > 1:
            return self._no(f"it has no {min(missing)!r}" if missing else "it gives several candidates")
        if not _variables(gold) and (added := _functions(target) - _functions(gold)):
            return self._no(f"it leaves a function to be worked out ({min(added)})")
        if len(word_form(target) or "") > 1 and sorted(target) != sorted(gold):
            return self._no("it gives words where a formula is asked for")
        return self._symbolic(target, gold)

    def _symbolic(self, target: str, gold: str) -> bool:
        if _tokens(_FOREIGN, target) - _tokens(_FOREIGN, gold) or re.search(r"\d\s+\d", target):
            return self._no("it is no single formula")
        if len(target) > _MAX_SYMBOLIC + 4 * len(gold):
            return self._no(f"its formula has {len(target)} characters: too many to be the answer")
        return self._symbolically_equal(_exact(target), _exact(gold))

    def _no(self, cause: str) -> bool:
        self.cause = cause
        return False


def _clock(text: str) -> tuple[int, int, str] | None:
    """Read a time of day as hour, minute and "a", "p" or ""; None if the text is none."""
    text = re.sub(r" ?: ?", ":", re.sub(r" ?\\text\{ ?([^{}]*)\}", r" \1", text)).strip()
    match = _CLOCK.fullmatch(text)
    if match is None or not ((match[2] and int(match[1]) < 24) or match[3]):
        return None
    return int(match[1]), int(match[2] or 0), (match[3] or "").lower()


def _is_time(gold: tuple[int, int, str], target: str) -> bool:
    time = _clock(target)
    return time is not None and time[:2] == gold[:2] and (not gold[2] or time[2] == gold[2])


def _in_base(text: str) -> tuple[str, str, int] | None:
    """Read a number in another base, such as `1010_2`, as sign, digits and base; None if the text is none."""
    match = _BASE.fullmatch(text.replace(" ", ""))
    if match is None:
        return None
    name, digits = match[3].lower(), match[2].upper()
    base = _BASES.index(name) if name in _BASES else int(name) if name.isdecimal() and len(name) < 3 else 0
    if not 2 <= base <= 36 or any(int(digit, 36) >= base for digit in digits if digit != "."):
        return None
    whole, _, decimals = digits.partition(".")
    return match[1], f"{whole.lstrip('0')}.{decimals.rstrip('0')}", base


def _values(text: str) -> tuple[str, list[str]]:
    r"""Return the brackets around a list and its values; `\pm` counts as two."""
    kind, inner = brackets(text)
    return kind, [
        _PLUS_MINUS.sub(sign, value, count=1).strip().removeprefix("+")
        for value in split(inner)
        for sign in ("+-" if _PLUS_MINUS.search(value) else "+")
    ]


def _names(values: list[str]) -> list[str] | None:
    """Return the names in `x = 2, y = 3`; None unless every value has one of its own."""
    found = [assignment(value) for value in values]
    names = [named.name for named in found if named is not None]
    return names if len(values) > 1 and len(set(names)) == len(values) else None


def _tuples(text: str) -> list[str]:
    """Read `p=5, q=2; p=7, q=2` as `(5, 2)` and `(7, 2)`; nothing unless the same names come again and again."""
    found = [assignment(value) for value in split(text)]
    names = [named.name for named in found if named is not None]
    size = len(dict.fromkeys(names))
    if size < 2 or len(names) < len(found) or len(names) % size or names != names[:size] * (len(names) // size):
        return []
    values = [named.value for named in found if named is not None]
    return [f"({', '.join(values[start : start + size])})" for start in range(0, len(values), size)]


def _same_name(left: str, right: str) -> bool:
    """Whether two names may stand for the same: a word such as "Area" may stand for any."""
    left, right = (re.sub(r"m?\\angle|\\text\{(.*)\}", r"\1", name) for name in (left, right))
    return left == right or any(len(name) > 2 and name.isalpha() for name in (left, right))


def _variables(text: str) -> set[str]:
    """Return the letters in a formula that may stand for anything."""
    text = re.sub(r"\\(?:text|mathbb|begin|end)\{[^{}]*\}", "", text)
    return {letter for run in _VARIABLE.findall(text) for letter in ([run] if "\\" in run else run)} - {"e", "i"}


def _tokens(pattern: re.Pattern[str], text: str) -> set[str]:
    """Return what `pattern` finds; an inequality may be read from either side."""
    return {_MIRRORED.get(match[0], match[0]) for match in pattern.finditer(text)}


def _functions(text: str) -> set[str]:
    return {_FAMILY.get(match[1] or "", match[1] or match[0]) for match in _FUNCTION.finditer(text)}


def _exact(formula: str) -> str:
    """Write what math-verify reads differently: decimals, mixed numbers, and products without a sign."""
    formula = _MIXED.sub(lambda m: rf"\frac{{{int(m[1]) * int(m[3]) + int(m[2])}}}{{{m[3]}}}", formula)
    formula = _DECIMAL.sub(lambda m: rf"\frac{{{m[1]}{m[2]}}}{{1{'0' * len(m[2])}}}", formula)
    return _PRODUCT.sub(" * ", _TIMES.sub(" * ", formula))
