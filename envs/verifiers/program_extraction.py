"""Finding the program in what a model wrote.

The rules: only text after a closed `</think>` counts; the last closed block that is labelled as Python is the program,
or the last closed block without a label if none is. A block that is never closed means that there is no answer, like
thinking that is never closed: what came before it was not the model's last word, and half a program is none. Tags of
thinking within a block of code are code, unless they have a line to themselves.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .answer_extraction import after_thinking

_FENCE = re.compile(r"(?P<indent>[ \t]*+)(?P<marks>`{3,}+|~{3,}+)[ \t]*+(?P<label>[^\s`{,]*+)(?P<rest>[^`]*+)")
_PYTHON = re.compile(r"(?:i?python|py|pypy)[\d.]*+(?:[:=/#].*)?")
_FUTURE = re.compile(
    r"^(from[ \t]+__future__[ \t]+import\b(?:[ \t]*\([^)]{0,500}\)|(?:[\w \t,]|\\\n){0,500}))(?:;[ \t]*|(?=#|$))",
    re.MULTILINE,
)
MAX_FENCES = 100_000
"""An answer with more fences and thinking tags has no program: to read them takes as long as a program may run."""

_TAGS = re.compile(r"</?think>")
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
    Where no such line follows before the next block or the end of the text, the last that is indented further ends it.
    """
    blocks: list[Block] = []
    opening: re.Match[str] | None = None
    lines: list[str] = []
    indented = 0  # lines of the block before the last fence that is indented too far to end it
    for line in text.replace("\r\n", "\n").split("\n"):
        fence = _fence(line)
        if opening is None:
            opening, indented = fence, 0
        elif fence is None:
            lines.append(line)
        elif _closes(fence, opening, 3):
            blocks.append(_block(opening, lines, is_closed=True))
            opening, lines = None, []
        elif indented and fence["label"] and not fence["indent"]:
            blocks.append(_block(opening, lines[:indented], is_closed=True))
            opening, lines, indented = fence, [], 0
        else:
            indented = len(lines) if _closes(fence, opening, None) else indented
            lines.append(line)
    if opening is not None:
        blocks.append(_block(opening, lines[:indented] if indented else lines, is_closed=bool(indented)))
    return blocks


def fenced_program(text: str) -> str | None:
    """Return the program of an answer by the rules above, or None if there is none."""
    if text.count("```") + text.count("~~~") + text.count("think>") > MAX_FENCES:
        return None
    rest = _after_thinking(text) if "think>" in text else text
    blocks = fenced_blocks(rest) if rest is not None else []
    if not blocks or not blocks[-1].is_closed:
        return None
    labelled = [block.text for block in blocks if _PYTHON.fullmatch(block.label)]
    unlabelled = [block.text for block in blocks if not block.label]
    program = (labelled or unlabelled or [""])[-1]
    return program if program.strip() else None


def _after_thinking(text: str) -> str | None:
    """Return what follows the thinking, None while it still goes on; see the rules above."""
    start = position = 0
    is_thinking = False
    opening: re.Match[str] | None = None  # of the block of code that is open
    for line in text.split("\n"):
        rest = line
        for tag in _TAGS.finditer(line) if "think>" in line else ():
            if opening is None or line.strip() == tag[0] == "</think>":
                is_thinking, opening = tag[0] == "<think>", None
                start = position + tag.end()
                rest = line[tag.end() :]
        fence = None if is_thinking else _fence(rest)
        if opening is None:
            opening = fence
        elif fence is not None and _closes(fence, opening, None):
            opening = None
        position += len(line) + 1
    return None if is_thinking else text[start:]


def _fence(line: str) -> re.Match[str] | None:
    return _FENCE.fullmatch(line) if line.lstrip(" \t").startswith(("```", "~~~")) else None


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
    program = program.removeprefix("\ufeff")
    first = "".join(f"{line}\n" for line in _FUTURE.findall(program))
    return f"{first}{preamble.rstrip()}\n\n{_FUTURE.sub('', program)}"


def _closes(fence: re.Match[str], opening: re.Match[str], max_columns: int | None) -> bool:
    """Whether a fence ends a block, indented by at most so many columns more than its opening."""
    marks, first = fence["marks"], opening["marks"]
    is_bare = not fence["label"] and not fence["rest"].strip()
    columns = len(fence["indent"].expandtabs()) - len(opening["indent"].expandtabs())
    is_aligned = max_columns is None or columns <= max_columns
    return is_bare and is_aligned and marks[0] == first[0] and len(marks) >= len(first)


def _block(opening: re.Match[str], lines: list[str], *, is_closed: bool) -> Block:
    indent = opening["indent"]
    if indent and all(line.startswith(indent) or not line.strip() for line in lines):
        lines = [line.removeprefix(indent) for line in lines]
    text = "\n".join(lines) + "\n" if lines else ""
    return Block(opening["label"].lower(), text, is_closed)
