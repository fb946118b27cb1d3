"""Tasks with verifiable rewards, as Gymnasium environments. Importing this package registers their ids.

base.py                 TaskEnv, of which a task writes two methods; Completion, Verdict, Judgement
observations.py         replies made fit for a model: no special tokens, no surrogates
chat.py                 prompts as chat messages, and their plain text
prompt_format.py        system prompt, worked examples and template, put together
spaces.py               UnicodeText, the space of observations and actions
contract.py             the one check of what reset, step and info must be
rows.py                 where rows come from (directly, a file, the Hub), and how their columns are read
math/, code/, writing/  the tasks, generated ones and those over rows; ids of writing/ begin with `text/`
reasoning_gym_tasks.py  the tasks of the package reasoning-gym
verifiers/              finding the answer or the program in a text, and judging it
judges/                 verdicts of a language model behind an HTTP server
sandbox/                running programs that are not trusted
wrappers/               shaping the reward, recording it, and text around the question
reward_check/           whether a reward is paid for right answers and for nothing else
attack/                 a reward attacked by training a small policy on it
interop/                environments of OpenEnv, verifiers and textarena used here, and ours served to them
description.py          an environment as data, and made again from it
rejudge.py              recorded episodes, judged again
plugins.py              environments of installed packages
numeric.py              whether a value is a number or a count
event_loop.py           a thread in which asynchronous work runs
text.py                 values, long texts and exceptions, written briefly for messages
"""

from gymnasium import register

from .base import Completion, Judgement, TaskEnv, Verdict
from .code.datasets import DATASETS as _CODE_DATASETS
from .interop.doors import make
from .math.datasets import DATASETS
from .plugins import load_plugins
from .reasoning_gym_tasks import register_tasks
from .reward_check.check import check_reward_env
from .spaces import UnicodeText
from .wrappers import (
    FormatReward,
    OverlongPenalty,
    Prompting,
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
    "Prompting",
    "RecordVerdicts",
    "RepetitionPenalty",
    "RewardShaping",
    "TaskEnv",
    "UnicodeText",
    "Verdict",
    "check_reward_env",
    "make",
    "overlong_penalty",
    "repetition_penalty",
]

# The passive checker would warn of the NaN reward by which an infrastructure failure is told apart from a
# wrong answer.
register("math/Arithmetic-v0", f"{__name__}.math.arithmetic:ArithmeticEnv", disable_env_checker=True)
register("math/Chain-v0", f"{__name__}.math.chain:ChainEnv", disable_env_checker=True)
register("math/Countdown-v0", f"{__name__}.math.countdown:CountdownEnv", disable_env_checker=True)
register("math/Problem-v0", f"{__name__}.math.problem:ProblemEnv", disable_env_checker=True)
register("math/WordProblems-v0", f"{__name__}.math.word_problems:WordProblemsEnv", disable_env_checker=True)
for _id, _kwargs in DATASETS.items():
    register(_id, f"{__name__}.math.problem:ProblemEnv", disable_env_checker=True, kwargs=_kwargs)
register("code/Program-v0", f"{__name__}.code.program:ProgramEnv", disable_env_checker=True)
register("code/Repair-v0", f"{__name__}.code.repair:RepairEnv", disable_env_checker=True)
for _id, _kwargs in _CODE_DATASETS.items():
    register(_id, f"{__name__}.code.program:ProgramEnv", disable_env_checker=True, kwargs=_kwargs)
register("math/Calculator-v0", f"{__name__}.math.calculator:CalculatorEnv", disable_env_checker=True)
register("text/Instructions-v0", f"{__name__}.writing.instructions:InstructionsEnv", disable_env_checker=True)
register_tasks()
load_plugins()  # last, because plug-ins import this package
