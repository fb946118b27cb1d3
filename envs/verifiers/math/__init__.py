"""Mathematical answers."""

from .judge import canonical_answer, check_gold, judge

__all__ = ["canonical_answer", "check_gold", "judge"]
