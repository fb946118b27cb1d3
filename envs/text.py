"""Text for messages: values, long texts and exceptions written briefly."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any


def brief(value: Any, length: int = 60) -> str:
    """Return a value as Python writes it, in at most about `length` characters; a longer one ends with its length."""
    try:
        text = repr(str(value)) if isinstance(value, str) else repr(value)
    except Exception as error:  # an integer of thousands of digits, an author's own __repr__
        return f"<{type(value).__name__} without a repr: {type(error).__name__}>"
    return text if len(text) <= length else f"{text[: length - 15]}... ({len(text):,} characters)"


def shortened(text: str, length: int) -> str:
    """Return a text in at most `length` characters, with an ellipsis for what is left out of its middle."""
    half = (length - 5) // 2
    return text if len(text) <= length else f"{text[:half]} ... {text[-half:]}"


def one_line(error: BaseException) -> str:
    """Return an exception's message without line breaks."""
    return " ".join(str(error).split())


def place_of(error: BaseException) -> str:
    """Return where an exception was raised, as `file.py:12`."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"
