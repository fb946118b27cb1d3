r"""The many ways to type the same LaTeX, written in one: `\dfrac12` as `\frac{1}{2}`, `≤` as `\le`, `1\,000` as `1000`.

Only notation is changed here, never a value. Every pattern is linear in the length of the text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from .operands import with_braces

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ", "0123456789+-=()ni")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₙᵢ", "0123456789+-=()ni")
_CHARACTERS = str.maketrans(
    {chr(code + 0xFEE0): chr(code) for code in range(0x21, 0x7F)}  # full width
    | {character: "-" for character in "−–—‐‑﹣"}
    | {character: " " for character in "\u00a0\u2002\u2003\u2009\u200a\u202f\u3000"}
    | dict.fromkeys("\u200b\u200c\u200d\u2060\u2062\ufe0f\ufeff\u00ad\u200e\u200f\u061c", "")
    | dict.fromkeys(map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]), "")  # marks of direction
    | {"℃": "^\\circ C", "℉": "^\\circ F", "\u2126": "Ω", "µ": "μ", "≔": "=", "⟹": "\\implies "}
    | {"×": "\\times ", "·": "\\cdot ", "⋅": "\\cdot ", "∙": "\\cdot ", "÷": "\\div ", "⁄": "/", "∕": "/", "∗": "*"}
    | {"∞": "\\infty ", "π": "\\pi ", "≤": "\\le ", "⩽": "\\le ", "≥": "\\ge ", "⩾": "\\ge ", "≠": "\\ne "}
    | {"∪": "\\cup ", "∩": "\\cap ", "∅": "\\emptyset ", "∈": "\\in ", "±": "\\pm ", "∓": "\\pm ", "°": "^\\circ "}
    | {"ℝ": "\\mathbb{R}", "ℤ": "\\mathbb{Z}", "ℕ": "\\mathbb{N}", "ℚ": "\\mathbb{Q}", "ℂ": "\\mathbb{C}"}
    | {"θ": "\\theta ", "α": "\\alpha ", "β": "\\beta ", "γ": "\\gamma ", "λ": "\\lambda ", "φ": "\\phi ", "…": "..."}
    | {
        "“": '"',
        "”": '"',
        "‘": "'",
        "’": "'",
        "′": "'",
        "⟨": "(",
        "⟩": ")",
        "∶": ":",
        "，": ",",
        "。": ".",
        "≈": "\\approx ",
    }
)

_COMMANDS = {
    name: replacement
    for replacement, names in (
        ("", "big Big bigg Bigg bigl Bigl biggl Biggl bigr Bigr biggr Biggr bigm Bigm displaystyle textstyle limits"),
        ("", "bf rm it mathstrut mathbf mathit mathsf mathtt mathcal mathfrak mathnormal boldsymbol bm underline emph"),
        ("", "ensuremath operatorname"),
        ("\\text", "mathrm mathop textbf textit textrm textnormal textsf texttt mbox hbox"),
        ("\\frac", "dfrac tfrac cfrac nicefrac sfrac"),
        ("\\le ", "le leq leqslant leqq"),
        ("\\ge ", "ge geq geqslant geqq"),
        ("\\ne ", "ne neq"),
        ("<", "lt"),
        (">", "gt"),
        ("\\emptyset ", "emptyset varnothing"),
        ("\\{", "lbrace"),
        ("\\}", "rbrace"),
        ("[", "lbrack"),
        ("]", "rbrack"),
        ("(", "lparen langle"),
        (")", "rparen rangle"),
        ("|", "lvert rvert vert"),
        ("\\cup ", "bigcup"),
        ("\\pm ", "mp"),
        (":", "colon"),
        ("=", "coloneqq triangleq"),
        ("*", "ast star"),
        ("\\log_{10}", "lg"),
    )
    for name in names.split()
}
_COMMAND = re.compile(r"\\(?:left|right)(?![A-Za-z])\.?|\\([A-Za-z]+)")
AND = "\u2295"
"""Stands between the parts of "2 and 1/2", which is a mixed number or a list."""

BOTH, EITHER = "\u2227\u2228"
"""Stand for "and" and "or" between inequalities: a value meets both, or at least one of them."""

_CONNECTIVE = re.compile(
    r",? ?\\text ?\{[ ,]*([aA]nd|AND|[oO]r|OR) ?\}|(?<![A-Za-z\\])([aA]nd|AND|[oO]r|OR)(?![A-Za-z])(?! so\b)"
    r"|(\\lor|\\vee|∨|\\land|\\wedge|∧)(?![A-Za-z])"
)
_INEQUALITY = re.compile(r"[<>]|\\(?:le|ge|ne)(?![A-Za-z])")
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_SCALES |= {"百": 100, "千": 1000, "万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8}
_SCALED = re.compile(
    r"(?<![\w.,^{}/])(\d{1,3}(?:,\d{3})+|\d{1,30}(?:\.\d{1,30})?) ?(\\text\{ ?)?"
    rf"({'|'.join(_SCALES)})(?![A-Za-z])(?! ?[\d/*^])( ?\}})?"
)
_ROWS = re.compile(r"\\begin\{(aligned|align\*?|gathered|split|cases)\}(.*?)\\end\{\1\}", re.DOTALL)
_REPLACEMENTS: tuple[tuple[str, re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = tuple(
    (needed, re.compile(pattern), replacement)
    for needed, pattern, replacement in (  # where `needed` is not in the text, nor is what the pattern looks for
        (":", r"(?<!:):=|=:(?!:)", "="),
        ("color", r"\\(?:text)?color ?\{[a-zA-Z0-9!]*\}", ""),
        ("space", r"\\[hv]space\*? ?\{[^{}]*\}", " "),
        (",", r",\\! ?|\{,\}", ","),
        ("\\", r"(?<=\d)\\[,:;! ](?=\d{3}(?!\d))", ""),
        ("~", r"(?<=\d)~(?=\d{3}(?!\d))", ""),
        ("\\", r"(?<!\\)(?:\\!|\\[,:;> ]|\\q?quad)", " "),
        ("~~", r"~~(?=[^~]+~~)", r"\\cancel "),
        ("~", r"^ ?~(?= ?[-+\d.\\])", r"\\approx "),
        ("~", r"~", " "),
        (" ", r"(?<![\d.,])(\d{1,3}(?: \d{3})+)(?![\d/])", lambda match: match[1].replace(" ", "")),
        ("==", r"==", "="),
        ("U", r"(?<=[)\]]) ?U ?(?=[(\[])", r"\\cup "),
        ("=", r"<=|=<", r"\\le "),
        (">=", r">=", r"\\ge "),
        ("!=", r"!=", r"\\ne "),
        ("\\}", r"\\\{ ?\\\}", r"\\emptyset "),
        ("\\mathbb ", r"\\mathbb ([A-Z])(?![A-Za-z])", r"\\mathbb{\1}"),
        ("and", r"(?<![\d./])(\d+) and (\d+) ?/ ?(\d+)(?![\d/])", rf"\1{AND}\\frac{{\2}}{{\3}}"),
        ("%", r"\\%", "%"),
        ("cent", r" ?\b[Pp]er ?cent(?:age)?\b", "%"),
        ("pct", r" ?\bpct\b", "%"),
        ("\\text", r"\\text ?\{ ?%? ?\}", lambda match: "%" if "%" in match[0] else ""),
        ("\\text", r"\\text ?\{ ?deg(?:rees?)? ?\}", ""),
        (
            "\\circ",
            r" ?\^ ?(?:\{ ?\\circ ?\}|\\circ(?![A-Za-z])) ?(?:\\text\{ ?([CF]) ?\}|([CF])(?![A-Za-z]))",
            r" \\text{ deg\1\2}",
        ),
        ("deg", r"\bdeg(?:rees?)? (?=[Cc]elsius|[Ff]ahrenheit|[CF]\b)", "deg"),
        ("\\circ", r"\^ ?(?:\{ ?\\circ ?\}|\\circ(?![A-Za-z]))", ""),
        ("deg", r"\\degree(?![A-Za-z])|(?<=[\d} )]) ?\bdeg(?:rees?)?\b", ""),
        ("", r"(?s).+", lambda match: _joined(match[0])),
        ("\\text", r"\\text ?\{ ?([ie]|[-+¤€£¥₹¢]|\W?\d[\d.,:]*) ?\}", r"\1"),
        ("\\text", r"(?:^|(?<=[(,]))\\text ?\{ ?([A-Za-z]) ?\}", r"\1"),
        ("10", r"(?<=\d) ?x ?(?=10(?:\^|\*\*))", r"\\times "),
        ("", r"(?s).+", lambda match: with_braces(match[0])),
        ("\\log", r"\\log ?_\{ ?e ?\}", r"\\ln "),
        ("^{-1}", r"\\(sin|cos|tan) ?\^\{-1\}", r"\\arc\1 "),
        (" {", r"(?<=[A-Za-z\]^_}]) +(?=\{)", ""),
        ("{ ", r"\{ +", "{"),
        (" }", r" +\}", "}"),
        ("\\over", r"\{([^{}]*)\\over(?![A-Za-z])([^{}]*)\}", r"\\frac{\1}{\2}"),
        ("\\over", r"^([^{}]*)\\over(?![A-Za-z])([^{}]*)$", r"\\frac{\1}{\2}"),
        ("\\choose", r"\{([^{}]*)\\choose(?![A-Za-z])([^{}]*)\}", r"\\binom{\1}{\2}"),
        ("\\", r"(?<=[\d.])\\(?:bar|dot) ?(\d)", r"\\overline{\1}"),
        ("\\", r"(?<=[\d.])\\(?:bar|dot)(?=\{\d+\})", r"\\overline"),
        ("\\text", r"^\\text\{([^{}]*)\}$", r"\1"),
        ("/", r"(?<![\d./])(\d+) (\d+) ?/ ?(\d+)(?![\d/])", r"\1\\frac{\2}{\3}"),
        (",", r",[ ,]*,", ","),
        ("  ", r" +", " "),
        (" ", r" ([,;])", r"\1"),
    )
)


def one_notation(text: str) -> str:
    """Return a formula, without delimiters, in one notation."""
    text = " ".join(text.translate(_CHARACTERS).split()).rstrip("\\ ")
    if not text.isascii():
        text = _ascii_numbers(text)
    if "\\begin" in text:
        text = _ROWS.sub(_list_of_rows, text)
    if "\\" in text:
        text = _COMMAND.sub(lambda command: _COMMANDS.get(command[1], command[0]) if command[1] else "", text)
    for needed, pattern, replacement in _REPLACEMENTS:
        if needed in text:
            text = pattern.sub(replacement, text)
    return _ungroup(_SCALED.sub(_worked_out, text))


def _joined(text: str) -> str:
    """Write the words between inequalities as `BOTH` or `EITHER`, and between anything else as commas."""
    parts = _CONNECTIVE.split(text)[::4]
    between = len(parts) > 1 and "," not in text and all(_INEQUALITY.search(part) for part in parts)

    def sign(connective: re.Match[str]) -> str:
        is_and = connective[connective.lastindex or 0].lower() in ("and", "\\land", "\\wedge", "∧")
        if between:
            return BOTH if is_and else EITHER
        return connective[0] if is_and and connective[3] else ", "

    return _CONNECTIVE.sub(sign, text)


def with_commas(text: str) -> str:
    """Return `text` as a plain list, whatever joins its inequalities."""
    return text.replace(BOTH, ", ").replace(EITHER, ", ")


def _list_of_rows(block: re.Match[str]) -> str:
    r"""Write the rows of an `aligned` block, or of `cases` without conditions, as a list."""
    if block[1] == "cases" and "&" in block[2]:
        return block[0]
    rows = [row.replace("&", " ").strip(" ,;.") for row in re.split(r"\\\\(?:\[[^\[\]]*\])?", block[2])]
    return re.sub(r", (?=[=<>]|\\(?:le|ge)(?![A-Za-z]))", " ", ", ".join(row for row in rows if row))


def _worked_out(scaled: re.Match[str]) -> str:
    """Write "1.5 million" as 1500000."""
    digits, text, scale, closing = scaled.groups()
    whole, _, decimals = digits.replace(",", "").partition(".")
    above, below = int(whole + decimals) * _SCALES[scale], 10 ** len(decimals)
    number = rf"\frac{{{above}}}{{{below}}}" if above % below else f"{above // below}"
    return number + ("" if text and closing else text or closing or "")


def split(text: str, separators: str = ",;") -> list[str]:
    """Split at the separators outside of all brackets, of which any closes any (as in `[1, 2)`)."""
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character in separators and depth == 0:
            parts.append(text[start:position].strip())
            start = position + 1
    return [*parts, text[start:].strip()]


def _ascii_numbers(text: str) -> str:
    """Write superscripts, subscripts and fractions that are single characters in LaTeX."""
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ]+", lambda run: f"^{{{run[0].translate(_SUPERSCRIPTS)}}}", text)
    text = re.sub("[₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₙᵢ]+", lambda run: f"_{{{run[0].translate(_SUBSCRIPTS)}}}", text)
    return re.sub(
        "[¼-¾⅐-⅞]", lambda sign: r"\frac{{{}}}{{{}}}".format(*unicodedata.normalize("NFKC", sign[0]).split("⁄")), text
    )


def _ungroup(text: str) -> str:
    r"""Take off braces that only group: `{1}/{2}` becomes `1/2`; those around a whole list become `\{...\}`."""
    if "{" not in text:
        return text
    pieces: list[str] = []
    open_groups: list[tuple[int, bool]] = []  # where in `pieces` a brace opened, and whether it only groups
    previous = ""
    for piece in re.findall(r"\\[A-Za-z]+|\\.|[^\\{}]+|[{}\\]", text):
        if piece == "{":
            is_argument = re.search(r"\\[A-Za-z]+$|[\^_}\]]$", previous) is not None
            open_groups.append((len(pieces), not is_argument))
        elif piece == "}" and open_groups:
            start, only_groups = open_groups.pop()
            if only_groups:
                inner = "".join(pieces[start + 1 :])
                if start == 0 and not open_groups and len(split(inner)) > 1:
                    opening, closing = "\\{", "\\}"
                else:
                    opening, closing = ("(", ")") if re.search(r"[-+]", inner) else ("", "")
                pieces[start:] = [opening, inner]
                piece = closing
        pieces.append(piece)
        previous = piece or previous
    return "".join(pieces)
