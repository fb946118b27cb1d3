"""Gymnasium wrappers: three shape the reward, and one keeps what was rewarded."""

from .formats import FormatReward
from .overlong import OverlongPenalty, OverlongShape, overlong_penalty
from .recording import RecordVerdicts
from .repetition import RepetitionPenalty, repetition_penalty
from .shaping import RewardShaping

__all__ = [
    "FormatReward",
    "OverlongPenalty",
    "OverlongShape",
    "RecordVerdicts",
    "RepetitionPenalty",
    "RewardShaping",
    "overlong_penalty",
    "repetition_penalty",
]
