"""How good a model is in an environment: samples, figures with their uncertainty, and what is kept of them.

examiner.py     samples of problems, judged by their environment
generation.py   tokens drawn with random numbers of each sample's own
estimators.py   avg@k, pass@k, maj@k and their intervals: NumPy alone
figures.py      what the samples come to
held_out.py     held-out accuracy during a run, and the best model
command.py      `dapo-trl eval`, from settings to results
settings.py     its settings
journal.py      its folder, from which a killed evaluation goes on
loading.py      the model to be measured, with its adapter
table.py        its tables
comparison.py   the difference of two evaluations
"""

from .evaluator import BATCH_TOKENS, Evaluator, Problem, Sample, Sampling, collect, evaluate, evaluated_at_once
from .figures import Evaluation

__all__ = [
    "BATCH_TOKENS",
    "Evaluation",
    "Evaluator",
    "Problem",
    "Sample",
    "Sampling",
    "collect",
    "evaluate",
    "evaluated_at_once",
]
