"""Mathematical answers."""

from .judge import check_gold, judge, one_spelling

__all__ = ["check_gold", "judge", "one_spelling"]
