"""Programs."""

from .judge import Grading, judge, judgement_of, outcome_of, sandbox_of

__all__ = ["Grading", "judge", "judgement_of", "outcome_of", "sandbox_of"]
