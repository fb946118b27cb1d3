"""Whole programs with their tests, at every level: none that is wrong passes, none is unscorable, honest ones pass."""

import pytest

from envs.sandbox import Limits, SandboxUnavailable, open_sandbox
from envs.verifiers.code.judge import Grading, judge
from envs.verifiers.code.tests import read_tests

from ....support.programs import HONEST, HOSTILE

LEVELS = ["bubblewrap", "landlock"]


def judged(level, tests, program, reward="all", **limits):
    try:
        assert open_sandbox(level).isolation == level
    except SandboxUnavailable as reason:
        pytest.skip(str(reason))
    if isinstance(tests, list):
        tests = {"kind": "assert", "asserts": tests}
    elif isinstance(tests, tuple):
        tests = {"kind": "stdin", "inputs": [tests[0]], "outputs": [tests[1]]}
    limits = Limits(**{"output_bytes": 8 << 20, **limits})
    return judge(program, read_tests(tests, "row 0"), Grading(reward, limits=limits, sandbox=level))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", HONEST)
def test_honest(name, level):
    found = judged(level, *HONEST[name], wall_seconds=60)
    assert (found.verdict.value, found.cause) == ("correct", "")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name, level):
    found = judged(level, *HOSTILE[name], "fraction", cpu_seconds=1, wall_seconds=2, total_seconds=2)
    assert found.verdict.value in ("wrong", "crash", "timeout"), found
    assert found.accuracy <= 0.5
