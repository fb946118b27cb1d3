"""Gymnasium wrappers: three shape the reward, one records it, and one puts text around the question.

shaping.py     RewardShaping, which adds a component to the reward; write your own on it
overlong.py    OverlongPenalty, by the length in tokens, with both published formulas
formats.py     FormatReward, for the form that was asked for
repetition.py  RepetitionPenalty, for n-grams of words that occur more than once
recording.py   RecordVerdicts, a file of every episode with its reward
prompting.py   Prompting: a system prompt, worked examples, a template
"""

from .formats import FormatReward
from .overlong import OverlongPenalty, OverlongShape, overlong_penalty
from .prompting import Prompting
from .recording import RecordVerdicts
from .repetition import RepetitionPenalty, repetition_penalty
from .shaping import RewardShaping

__all__ = [
    "FormatReward",
    "OverlongPenalty",
    "OverlongShape",
    "Prompting",
    "RecordVerdicts",
    "RepetitionPenalty",
    "RewardShaping",
    "overlong_penalty",
    "repetition_penalty",
]
