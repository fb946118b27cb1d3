"""Whether a value is a number of the kind that is asked for."""

from __future__ import annotations

import math
from typing import Any


def is_number(value: Any) -> bool:
    """Whether a value is a number of any library, or NaN; infinity is none, nor is text."""
    try:
        return not isinstance(value, (str, bytes)) and not math.isinf(float(value))
    except (TypeError, ValueError, OverflowError):
        return False


def is_count(value: Any, least: int = 1) -> bool:
    """Whether a value is an `int` of at least `least`; a bool is none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
