"""Mathematics: tasks from rows, and generated tasks.

problem.py         `math/Problem-v0`: problems from a list, a file or the Hub
datasets.py        the well-known sets of problems, by id
questions.py       rows to questions with gold answers that can be verified
answers.py         answer styles: how an answer is asked for and found
procedural.py      what generated tasks share
arithmetic.py      `math/Arithmetic-v0`: sums and differences
worked.py          the worked solution of a sum, with or without slips
chain.py           `math/Chain-v0`: a running total
calculator.py      `math/Calculator-v0`: long calculations in many turns
countdown.py       `math/Countdown-v0`: a target from given numbers
word_problems.py   `math/WordProblems-v0`: word problems
word_templates.py  their templates, with the texts in word_problems.txt
expression.py      arithmetic expressions, worked out exactly
"""
