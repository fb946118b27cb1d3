"""Tasks with verifiable rewards, as Gymnasium environments. Importing this package registers their ids."""

from gymnasium import register

from .base import Completion, Judgement, TaskEnv, Verdict
from .code.datasets import DATASETS as _CODE_DATASETS
from .math.datasets import DATASETS
from .plugins import load_plugins
from .reasoning_gym_tasks import register_tasks
from .reward_check.check import check_reward_env
from .spaces import UnicodeText
from .wrappers import (
    FormatReward,
    OverlongPenalty,
    RecordVerdicts,
    RepetitionPenalty,
    RewardShaping,
    overlong_penalty,
    repetition_penalty,
)

__all__ = [
    "Completion",
    "FormatReward",
    "Judgement",
    "OverlongPenalty",
    "RecordVerdicts",
    "RepetitionPenalty",
    "RewardShaping",
    "TaskEnv",
    "UnicodeText",
    "Verdict",
    "check_reward_env",
    "overlong_penalty",
    "repetition_penalty",
]

# The passive checker would warn of the NaN reward by which an infrastructure failure is told apart from a
# wrong answer.
register("math/Arithmetic-v0", f"{__name__}.math.arithmetic:ArithmeticEnv", disable_env_checker=True)
register("math/Chain-v0", f"{__name__}.math.chain:ChainEnv", disable_env_checker=True)
register("math/Countdown-v0", f"{__name__}.math.countdown:CountdownEnv", disable_env_checker=True)
register("math/Problem-v0", f"{__name__}.math.problem:ProblemEnv", disable_env_checker=True)
for _id, _kwargs in DATASETS.items():
    register(_id, f"{__name__}.math.problem:ProblemEnv", disable_env_checker=True, kwargs=_kwargs)
register("code/Program-v0", f"{__name__}.code.program:ProgramEnv", disable_env_checker=True)
register("code/Repair-v0", f"{__name__}.code.repair:RepairEnv", disable_env_checker=True)
for _id, _kwargs in _CODE_DATASETS.items():
    register(_id, f"{__name__}.code.program:ProgramEnv", disable_env_checker=True, kwargs=_kwargs)
register("math/Calculator-v0", f"{__name__}.math.calculator:CalculatorEnv", disable_env_checker=True)
register_tasks()
load_plugins()  # last, because plug-ins import this package
