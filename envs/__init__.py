"""Tasks with verifiable rewards, as Gymnasium environments. Importing this package registers their ids.

base.py                 `TaskEnv`: the base of every environment here, and of yours; completions and judgements
contract.py             the one check of what reset, step and info must be
numeric.py              checks of numbers
spaces.py               `UnicodeText`, the space of prompts and answers
rows.py                 rows from arguments, files and data sets
math/, code/            the tasks
verifiers/              text in, judgement out: answers and programs
sandbox/                running programs that nobody has read
wrappers/               format, length and repetition rewards; recording of verdicts
reward_check/           `check_reward_env`: is a reward fit to train on
description.py          an environment as data, to compare runs and make it again
rejudge.py              recorded answers judged again
plugins.py              environments of installed packages
reasoning_gym_tasks.py  the tasks of reasoning-gym whose rewards are sound
text.py                 long texts and values, shortened for messages
"""

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
