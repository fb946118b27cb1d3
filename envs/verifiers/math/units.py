r"""The unit or noun that follows a number: taken off, and compared where both answers name one.

`5`, `5 cm`, `5\text{ cm}^2`, `\$5` and `18 eggs per day` have the values 5 and 18. An answer that names another unit of
measurement than the gold answer does (`5 m` for `5 cm`) is wrong; one that names none is not. Words that change the
value, such as "million", "dozen" or "squared", are no units.
"""

from __future__ import annotations

import re

from .rationals import parse_rational

_MODIFIERS = frozenset(
    """
    hundred hundreds thousand thousands million millions billion billions trillion trillions dozen dozens doz score
    gross mil mio mn bn
    half halves third thirds fourth fourths fifth fifths sixth sixths seventh sevenths eighth eighths ninth ninths
    tenth tenths hundredth hundredths thousandth thousandths
    one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty sixty seventy eighty
    ninety negative minus plus times squared cubed factorial root power reciprocal twice double triple divided modulo
    mod not no never none isn't aren't cannot can't don't doesn't wrong false incorrect except unless without neither
    nor if else otherwise but or either maybe perhaps possibly probably approximately approx about around roughly almost
    nearly more less greater fewer bigger smaller larger over under above below between than least most to off
    pi tau infinity inf sin cos tan log ln exp sqrt
    тысяча тысячи тысяч тыс миллион миллиона миллионов млн миллиард миллиарда миллиардов млрд не или около примерно
    """.split()  # noqa: SIM905
)
_CLAUSES = frozenset("is are was were for where with when only all any every even odd that which".split())  # noqa: SIM905
_UNITS = {
    name: unit
    for unit, names in (
        ("mm", "mm millimeter millimetre"),
        ("cm", "cm centimeter centimetre"),
        ("m", "m meter metre"),
        ("km", "km kilometer kilometre"),
        ("in", "inch inche"),
        ("ft", "ft foot feet"),
        ("yd", "yd yard"),
        ("mi", "mi mile"),
        ("mg", "mg milligram"),
        ("g", "g gram"),
        ("kg", "kg kilogram"),
        ("lb", "lb pound"),
        ("oz", "oz ounce"),
        ("s", "s sec second"),
        ("min", "min minute"),
        ("h", "h hr hour"),
        ("day", "day"),
        ("week", "week"),
        ("month", "month"),
        ("year", "year yr"),
        ("ml", "ml mL milliliter millilitre"),
        ("l", "l L liter litre"),
        ("gal", "gal gallon"),
        ("dollar", "dollar USD ¤"),
        ("cent", "cent ¢"),
        ("euro", "euro EUR €"),
        ("GBP", "£"),
        ("N", "N newton"),
        ("J", "J joule"),
        ("W", "W watt"),
        ("V", "V volt"),
        ("A", "A amp ampere"),
        ("Ω", "Ω ohm"),
        ("Pa", "Pa pascal"),
        ("Hz", "Hz hertz"),
        ("mol", "mol mole"),
        ("cal", "cal calorie"),
        ("kcal", "kcal"),
        ("nm", "nm nanometer nanometre"),
        ("um", "um μm micron micrometer micrometre"),
        ("us", "us μs microsecond"),
        ("ug", "ug μg microgram"),
        ("ms", "ms millisecond"),
        ("ha", "ha hectare"),
        ("acre", "acre"),
        ("t", "ton tonne"),
        ("degC", "degC celsius degcelsius"),
        ("degF", "degF fahrenheit degfahrenheit"),
        ("INR", "Rs INR rupee ₹"),
        ("JPY", "JPY yen ¥"),
    )
    for name in names.split()
}
_UNITS |= {
    name: name
    for unit in "V A W Wh J N Hz Pa Ω F eV mol B bps".split()  # noqa: SIM905
    for name in (f"k{unit}", f"M{unit}", f"G{unit}", f"m{unit}", f"n{unit}")
}
_UNITS |= {name: name for name in ("pts", "pcs", "rpm", "bpm", "fps")}
_IN_NO_UNIT = frozenset("十百千万萬亿億半倍多余余约約不非或和")
"""Signs of Chinese and Japanese that change a number."""
_LONGEST = 100  # characters of a unit
_CURRENCY = "¤€£¥₹¢"
_LETTER = r"[^\W\d_]"
_WORD = rf"{_LETTER}(?:{_LETTER}|[.'-])*"
_IN_TEXT = r"\\text\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}"
_QUOTIENT = r"\\frac\{\\text\{[^{}\d]*\}\}\{\\text\{[^{}\d]*\}\}"
_ATOM = rf"(?:{_IN_TEXT}|{_QUOTIENT}|{_WORD}|[{_CURRENCY}])(?:\^\{{-?[1-4]\}}|(?<=m)[23](?!\d))?"
_UNIT = re.compile(rf"(?:(?>{_ATOM})(?:[ /*]|\\cdot )*+)++")
_TAIL = re.compile(
    rf"(?:[\d)}}.!%] *|[A-Za-z](?: +|(?=\\text)))(?=(?:\\text\{{|\\frac\{{\\text|{_LETTER}|[{_CURRENCY}]))"
)
_NAMES = re.compile(rf"{_LETTER}(?:{_LETTER}|['.])*|[{_CURRENCY}]")
_PREFIX = re.compile(rf"([-+]? ?)((?:US|CA|AU)?[{_CURRENCY}]|Rs\.?|INR|USD|EUR|GBP|JPY) ?(?=[-+\d.\\])")
_RATE = re.compile(r"(?<=[\d)}]) ?/ ?(?:\\text\{ ?)?([a-z]{3,})(?: ?\})?$")
_SPELLED = (
    (re.compile(r"(?<=[\d ])(?:μ|\\mu) ?(?:\\text\{ ?([A-Za-z]+) ?\}|(?=[A-Za-z]+$))"), r" μ\1"),
    (re.compile(r"(?<=\d) ?\\Omega ?$"), " Ω"),
)


def split_unit(text: str) -> tuple[str, frozenset[str]]:
    """Take the unit off a cleaned answer.

    Returns:
        The value, and what is known of the unit that was taken off: the units of measurement in it, in their short
        spelling, and its powers, such as "^2". That is nothing for a noun such as "apples".
    """
    units = frozenset[str]()
    if not text.isascii() or "\\mu" in text or "\\Omega" in text:
        for spelling, letter in _SPELLED:
            text = spelling.sub(letter, text)
    if prefix := _PREFIX.match(text):
        text, units = prefix[1].strip() + text[prefix.end() :], _measures([prefix[2].lstrip("USCA") or prefix[2]])
    if (rate := _RATE.search(text)) and (measures := _measures([rate[1]])):
        return text[: rate.start()], units | measures
    if not (text[-1:].isalpha() or text[-1:] in "}.¢'" or text[-2:] in ("m2", "m3") or text[-1:] in _CURRENCY):
        return text, units
    for tail in _TAIL.finditer(text, max(0, len(text) - _LONGEST)):
        unit = _UNIT.fullmatch(text, tail.end())
        if unit is None:
            continue
        value, gap = text[: tail.end()].rstrip(), text[tail.end() - 1].isspace()
        names = _NAMES.findall(re.sub(r"\\text|\\frac|\\cdot", " ", unit[0]))
        if len(names) > 1 and names[-1] in ("squared", "cubed") and _measures(names[:1]):
            names.pop()
        if not names or any(_is_modifier(name) or name.lower() in _CLAUSES for name in names):
            return text, units
        if any(len(name) == 1 and name not in _UNITS and name.isascii() for name in names):
            return text, units
        is_plain = "\\" not in unit[0]
        if is_plain and (parse_rational(value) is None or not _is_plain_unit(names, gap)):
            continue
        return value, units | _measures(names) | _powers(unit[0])
    return text, units


def contradict(left: frozenset[str], right: frozenset[str]) -> bool:
    """Whether two units, as `split_unit` returns them, both say something and not the same."""
    powers = [{name for name in unit if name[0] == "^"} for unit in (left, right)]
    measures = left - powers[0], right - powers[1]
    return left != right if all(measures) else all(powers) and powers[0] != powers[1]


def is_modified(words: str) -> bool:
    """Whether words beside a number change its value, deny it, or leave it open."""
    return any(_is_modifier(word) for word in _NAMES.findall(words))


def _is_modifier(word: str) -> bool:
    return word.lower().strip(".'") in _MODIFIERS


def _is_plain_unit(names: list[str], gap: bool) -> bool:
    """Whether words in plain type are a unit, and not the variables of a product such as `12xy` or `5 x`."""
    first = names[0]
    known = bool(_measures([first])) or first.rstrip(".") in ("sq", "square", "cu", "cubic")
    if not first.isascii():
        return known or not _IN_NO_UNIT & set(first)
    if len(first) == 1:
        return known and (gap or len(names) > 1 or first in _CURRENCY)
    return known or (gap and (len(first) > 3 or bool(re.search("[eiou]", first))))


def _powers(unit: str) -> frozenset[str]:
    words = {"^2": r"\b(?:sq|squared?)\b", "^3": r"\b(?:cu|cubic|cubed)\b"}
    found = {f"^{power}" for power in re.findall(r"(?:\^\{?-?|(?<=m)(?=[23]))([2-4])", unit)}
    return frozenset(found | {power for power, word in words.items() if re.search(word, unit)})


def _measures(names: list[str]) -> frozenset[str]:
    if "mph" in names:
        return frozenset(("mi", "h"))
    spellings = ((name, name.lower().rstrip("."), name.lower().rstrip(".").removesuffix("s")) for name in names)
    return frozenset(_UNITS[found] for tried in spellings if (found := next((n for n in tried if n in _UNITS), "")))
