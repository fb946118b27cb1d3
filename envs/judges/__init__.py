"""A verdict from a language model behind an HTTP server that speaks OpenAI's chat protocol.

judge.py    Judge: a question and an answer in, a judgement out; votes, cache, figures, settings
rubric.py   PURE: criteria with weights, and the scores of several votes made one
wording.py  PURE: the request, in which the answer stands as a quotation, and the reply, read strictly
server.py   requests to one server: limits, retries, a budget; asynchronous, asked from any thread
cache.py    verdicts on disk, for any number of processes
"""

from .judge import Judge
from .rubric import Criterion, Rubric
from .server import BudgetSpent

__all__ = ["BudgetSpent", "Criterion", "Judge", "Rubric"]
