"""Whether an answer is the gold answer.

judge.py         `judge`, `check_gold`, `canonical_answer`; its docstring has the rules
copied.py        formulas of the question that are no answer to it
compare.py       a cleaned answer with a cleaned gold answer, part by part
intervals.py     assignments, inequalities, intervals and their unions
rationals.py     exact numbers, and whether they are worked out
units.py         the unit after a number
latex.py         one spelling for an answer: delimiters, words, brackets, matrices
notation.py      one notation for a formula
operands.py      powers, roots and functions with their arguments, as LaTeX or as in a program
sympy_pool.py    math-verify in processes that can be killed
sympy_worker.py  the script that runs in them
"""

from .judge import canonical_answer, check_gold, judge

__all__ = ["canonical_answer", "check_gold", "judge"]
