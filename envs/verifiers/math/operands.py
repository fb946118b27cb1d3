r"""Powers, roots, fractions and functions with their arguments in braces, whether typed as LaTeX or as in a program.

`x**2`, `x^2` and `x^(2)` become `x^{2}`, `\frac12` becomes `\frac{1}{2}`, `sqrt(2)` and `√2` become `\sqrt{2}`, `sin(x)`
becomes `\sin (x)`, `log2(3)` becomes `\log_{2}(3)`, `abs(x)` becomes `|x|`. One pass over the tokens; a text that is
nested too deeply to be an answer is left as it is.
"""

from __future__ import annotations

import re

_MAX_DEPTH = 60  # of nested arguments
_TOKEN = re.compile(
    r"(?P<command>\\[A-Za-z]+)|(?P<escaped>\\.)|(?P<number>\d+(?:\.\d+)?|\.\d+)|(?P<word>[A-Za-z]+)"
    r"|(?P<power>\*\*|\^)|(?P<space>\s+)|(?P<sign>.)",
    re.DOTALL,
)
_VERBATIM = ("\\text", "\\mathbb", "\\begin", "\\end", "\\overline", "\\vec", "\\hat", "\\bar", "\\boxed", "\\color")
_TWO_ARGUMENTS = ("\\frac", "\\binom")
_ROOTS = {"√": "\\sqrt", "∛": "\\sqrt[3]", "∜": "\\sqrt[4]", "sqrt": "\\sqrt", "cbrt": "\\sqrt[3]"}
_AROUND = {"abs": ("|", "|"), "floor": ("\\lfloor ", "\\rfloor "), "ceil": ("\\lceil ", "\\rceil ")} | {
    "exp": ("e^{", "}"),
    "ceiling": ("\\lceil ", "\\rceil "),
}
_FUNCTIONS = {
    name: f"\\{name} "
    for name in [
        "sin",
        "cos",
        "tan",
        "sec",
        "csc",
        "cot",
        "sinh",
        "cosh",
        "tanh",
        "arcsin",
        "arccos",
        "arctan",
        "log",
        "ln",
    ]
}
_FUNCTIONS |= {"asin": "\\arcsin ", "acos": "\\arccos ", "atan": "\\arctan ", "lg": "\\log_{10} "}
_NAMES = {
    name: f"\\{name} " for name in ["pi", "theta", "alpha", "beta", "gamma", "delta", "lambda", "omega", "phi", "sigma"]
}
_NAMES |= dict.fromkeys(("infinity", "Infinity", "inf", "oo"), "\\infty ")
_OPENING = {")": "(", "}": "{", "]": "["}


def with_braces(text: str) -> str:
    """Return `text` with every argument in braces and every function as a LaTeX command."""
    try:
        return _Writer(text).write(0, None)
    except _TooDeep:
        return text


class _TooDeep(Exception):
    """The arguments are nested more deeply than any answer's."""


class _Writer:
    def __init__(self, text: str) -> None:
        self._tokens = [(str(token.lastgroup), token[0]) for token in _TOKEN.finditer(text)]
        self._closing: dict[int, int] = {}
        self._depth = 0
        open_brackets: dict[str, list[int]] = {"(": [], "{": [], "[": []}
        for place, (_, sign) in enumerate(self._tokens):
            if sign in open_brackets:
                open_brackets[sign].append(place)
            elif sign in _OPENING and open_brackets[_OPENING[sign]]:
                self._closing[open_brackets[_OPENING[sign]].pop()] = place

    def write(self, place: int, end: int | None) -> str:
        """Return the tokens from `place` to `end`, which is the end of the text by default."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _TooDeep
        end = len(self._tokens) if end is None else end
        written: list[str] = []
        while place < end:
            text, place = self._next(place, bool(written))
            written.append(text)
        self._depth -= 1
        return "".join(written)

    def _next(self, place: int, follows: bool) -> tuple[str, int]:
        """Return one token with its arguments, and the place after them."""
        kind, text = self._tokens[place]
        if text in _VERBATIM:
            return self._verbatim(place)
        if text in _TWO_ARGUMENTS:
            return self._command(text, place + 1, 2)
        if text == "\\sqrt":
            return self._command(*self._index(place), 1)
        if text in _ROOTS and kind == "sign":
            return self._command(_ROOTS[text], place + 1, 1, whole_numbers=True)
        if follows and (kind == "power" or text == "_"):
            argument, after = self._argument(place + 1, whole_numbers=True, signs=kind == "power")
            return ("^" if kind == "power" else "_") + argument if argument else text, after
        return self._word(place) if kind == "word" else (text, place + 1)

    def _word(self, place: int) -> tuple[str, int]:
        word, after = self._tokens[place][1], self._skip(place + 1)
        if word in _NAMES:
            return _NAMES[word], place + 1
        if word[1:] in _ROOTS or (word[1:] in _FUNCTIONS and word not in _FUNCTIONS):  # x sqrt(2) without a space
            letter, word = f"{word[0]} ", word[1:]
        else:
            letter = ""
        is_call = self._text(after) == "(" and after in self._closing
        if word in _ROOTS:
            command, after = self._command(_ROOTS[word], after, 1, whole_numbers=True)
            return (letter + command, after) if command != _ROOTS[word] else (letter + word, place + 1)
        if word in _AROUND and is_call:
            before, behind = _AROUND[word]
            return letter + before + self.write(after + 1, self._closing[after]) + behind, self._closing[after] + 1
        if word in _FUNCTIONS:
            base = self._text(after)
            if word == "log" and after == place + 1 and base in ("2", "10") and self._text(after + 1) == "(":
                return f"{letter}\\log_{{{base}}}", after + 1
            if not self._is_operand(after):
                return letter + word, place + 1
            command = _FUNCTIONS[word]
            return letter + (command.rstrip() if base in ("_", "^", "**") else command), after
        if word[:-1] in _FUNCTIONS and word[:-1] not in ("sec", "tan"):  # sinx; but not the plural of a second
            return f"{_FUNCTIONS[word[:-1]]}{word[-1]}", place + 1
        return word, place + 1

    def _verbatim(self, place: int) -> tuple[str, int]:
        opening = self._skip(place + 1)
        if self._text(opening) != "{" or opening not in self._closing:
            return self._tokens[place][1], place + 1
        after = self._closing[opening] + 1
        return "".join(text for _, text in self._tokens[place:after]), after

    def _index(self, place: int) -> tuple[str, int]:
        """Read the index of a root."""
        opening = self._skip(place + 1)
        if self._text(opening) != "[" or opening not in self._closing:
            return "\\sqrt", place + 1
        return f"\\sqrt[{self.write(opening + 1, self._closing[opening])}]", self._closing[opening] + 1

    def _command(self, name: str, place: int, count: int, *, whole_numbers: bool = False) -> tuple[str, int]:
        written = name
        for _ in range(count):
            argument, after = self._argument(place, whole_numbers=whole_numbers, brackets=count == 1)
            if not argument:
                break
            written, place = written + argument, after
        return written, place

    def _argument(
        self, place: int, *, whole_numbers: bool, signs: bool = False, brackets: bool = True
    ) -> tuple[str, int]:
        """Return the argument at `place` in braces and the place after it; "" and the place unchanged without one."""
        start = place = self._skip(place)
        kind, text = self._tokens[place] if place < len(self._tokens) else ("", "")
        sign = ""
        if signs and text in ("-", "+"):
            sign, place = text, self._skip(place + 1)
            kind, text = self._tokens[place] if place < len(self._tokens) else ("", "")
        if (text == "{" or (brackets and text == "(")) and place in self._closing:
            inner, after = self.write(place + 1, self._closing[place]), self._closing[place] + 1
        elif kind == "number" and (whole_numbers or text.isdigit()):
            inner, after = (text, place + 1) if whole_numbers else self._first(place)
        elif kind == "word":
            is_name = text in _NAMES or text in _ROOTS
            inner, after = self._next(place, False) if is_name else self._first(place)
        elif kind == "command" and not text.startswith(("\\left", "\\right")):
            inner, after = self._next(place, False)
        else:
            return "", start
        if signs and self._tokens[after : after + 1] and self._tokens[after][0] == "power":  # 2^3^2
            power, after = self._deeper(after)
            inner += power
        return f"{{{sign}{inner.strip()}}}", after

    def _deeper(self, place: int) -> tuple[str, int]:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _TooDeep
        argument, after = self._argument(place + 1, whole_numbers=True, signs=True)
        self._depth -= 1
        return (f"^{argument}", after) if argument else (self._tokens[place][1], place + 1)

    def _first(self, place: int) -> tuple[str, int]:
        """Take the first character of a token, and leave the rest of it."""
        kind, text = self._tokens[place]
        if len(text) == 1:
            return text, place + 1
        self._tokens[place] = (kind, text[1:])
        return text[0], place

    def _is_operand(self, place: int) -> bool:
        kind, text = self._tokens[place] if place < len(self._tokens) else ("", "")
        if kind == "word":
            return len(text) == 1 or text in _NAMES or text in _FUNCTIONS or text in _ROOTS
        return kind in ("number", "command", "power") or text in ("(", "{", "_", "|", "√")

    def _skip(self, place: int) -> int:
        return place + 1 if self._tokens[place : place + 1] and self._tokens[place][0] == "space" else place

    def _text(self, place: int) -> str:
        return self._tokens[place][1] if place < len(self._tokens) else ""
