"""Finding the program in what a model wrote.

The rules: only text after a closed `</think>` counts; the last closed block that is labelled as Python is the program,
or the last closed block without a label if none is. A block that is never closed means that there is no answer, like
thinking that is never closed: what came before it was not the model's last word, and half a program is none.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .answer_extraction import after_thinking

_FENCE = re.compile(r"(?P<indent>[ \t]*+)(?P<marks>`{3,}+|~{3,}+)[ \t]*+(?P<label>[^\s`{,]*+)(?P<rest>[^`]*+)")
_PYTHON = frozenset({"python", "python3", "py", "py3"})
_FUTURE = re.compile(r"^from[ \t]+__future__[ \t]+import[ \t][\w \t,]*$", re.MULTILINE)
_END_OF_FUNCTION = re.compile(r"^(?=[^\s#)\]}])|^```", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        label: The language it names, in lower case, or "".
        text: What stands between the fences, without the indentation of the opening one.
        is_closed: Whether there is a closing fence.
    """

    label: str
    text: str
    is_closed: bool


def fenced_blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a Markdown text, in order; one pass, however hostile the text.

    A fence is a line of at least three backticks or tildes. A block ends with a line of at least as many of the same
    and nothing else, indented by at most three columns more than its opening: text in a docstring does not end it.
    """
    blocks: list[Block] = []
    opening: re.Match[str] | None = None
    lines: list[str] = []
    for line in text.replace("\r\n", "\n").split("\n"):
        fence = _FENCE.fullmatch(line)
        if opening is None:
            opening = fence
        elif fence is not None and _closes(fence, opening):
            blocks.append(_block(opening, lines, is_closed=True))
            opening, lines = None, []
        else:
            lines.append(line)
    if opening is not None:
        blocks.append(_block(opening, lines, is_closed=False))
    return blocks


def fenced_program(text: str) -> str | None:
    """Return the program of an answer by the rules above, or None if there is none."""
    rest = after_thinking(text)
    blocks = fenced_blocks(rest) if rest is not None else []
    if not blocks or not blocks[-1].is_closed:
        return None
    labelled = [block.text for block in blocks if block.label in _PYTHON]
    unlabelled = [block.text for block in blocks if not block.label]
    program = (labelled or unlabelled or [""])[-1]
    return program if program.strip() else None


def completed_function(text: str) -> str | None:
    """Return the part of a raw completion that goes on with a function: all up to the next line of top-level code."""
    rest = after_thinking(text)
    if rest is None:
        return None
    first_line, newline, others = rest.partition("\n")
    end = _END_OF_FUNCTION.search(others)
    body = first_line + newline + (others[: end.start()] if end else others)
    return body if body.strip() else None


def with_preamble(preamble: str, program: str) -> str:
    """Return a program with other code before it, but for its imports from `__future__`, which must come first."""
    if not preamble.strip():
        return program
    first = "".join(f"{line}\n" for line in _FUTURE.findall(program))
    return f"{first}{preamble.rstrip()}\n\n{_FUTURE.sub('', program)}"


def _closes(fence: re.Match[str], opening: re.Match[str]) -> bool:
    marks, first = fence["marks"], opening["marks"]
    is_bare = not fence["label"] and not fence["rest"].strip()
    is_aligned = len(fence["indent"].expandtabs()) <= len(opening["indent"].expandtabs()) + 3
    return is_bare and is_aligned and marks[0] == first[0] and len(marks) >= len(first)


def _block(opening: re.Match[str], lines: list[str], *, is_closed: bool) -> Block:
    indent = opening["indent"]
    if indent and all(line.startswith(indent) or not line.strip() for line in lines):
        lines = [line.removeprefix(indent) for line in lines]
    text = "\n".join(lines) + "\n" if lines else ""
    return Block(opening["label"].lower(), text, is_closed)
