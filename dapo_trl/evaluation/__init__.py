"""How good a model is in an environment: samples, and figures with their uncertainty.

settings.py    the settings of `dapo-trl eval`
command.py     `dapo-trl eval`, from settings to results
loading.py     the model to be measured, with its adapter
evaluator.py   samples of problems, judged by their environment
estimators.py  avg@k, pass@k, maj@k and their intervals: NumPy alone
results.py     the figures of all samples, as data and as tables
journal.py     the folder of an evaluation, from which a killed one continues
comparison.py  the difference of two evaluations
split.py       the problems that a run measures and does not train on
held_out.py    held-out accuracy during a run, and the best model
"""

from .evaluator import BATCH_TOKENS, EvalProblem, Evaluator, Sample, Sampling, collect, evaluate, evaluated_at_once
from .results import Evaluation

__all__ = [
    "BATCH_TOKENS",
    "EvalProblem",
    "Evaluation",
    "Evaluator",
    "Sample",
    "Sampling",
    "collect",
    "evaluate",
    "evaluated_at_once",
]
