"""Programs, judged by tests.

tests.py            the tests of a row: read, checked, and refused if they cannot be run
asserts.py          what assert statements ask of a program, read without running anything
judge.py            a program and its tests in, a judgement out; identical programs run once
run_tests.py        tests that are inputs and expected values
values.py           comparing what a program gave with what was expected
assert_session.py   asserts that are more: statements and program behind a wall each
session_wire.py     the messages between the two
session_tests.py    the side of the statements
session_program.py  the side of the program
shared_cache.py     results that are worked out once, for any number of threads
"""

from .judge import Grading, judge, judgement_of, outcome_of, sandbox_of

__all__ = ["Grading", "judge", "judgement_of", "outcome_of", "sandbox_of"]
