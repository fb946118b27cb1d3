"""Tasks with verifiable rewards, as Gymnasium environments. Importing this package registers their ids."""

from gymnasium import register

from .base import Completion, Judgement, TaskEnv, Verdict
from .spaces import UnicodeText
from .wrappers import OverlongPenalty, overlong_penalty

__all__ = [
    "Completion",
    "Judgement",
    "OverlongPenalty",
    "TaskEnv",
    "UnicodeText",
    "Verdict",
    "overlong_penalty",
]

# The passive checker would warn of the NaN reward by which an infrastructure failure is told apart from a
# wrong answer.
register("math/Arithmetic-v0", f"{__name__}.math.arithmetic:ArithmeticEnv", disable_env_checker=True)
register("math/Problem-v0", f"{__name__}.math.problem:ProblemEnv", disable_env_checker=True)
