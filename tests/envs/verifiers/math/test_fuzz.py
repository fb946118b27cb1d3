"""Whatever a model writes, judging it ends with a verdict: odd answers put together from odd pieces."""

import sys

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from envs.base import Verdict
from envs.math.answers import ANSWER_STYLES
from envs.verifiers.math.judge import judge

MODULE = sys.modules[judge.__module__]
GOLDS = [
    "4",
    "0.5",
    r"\frac{1}{2}",
    r"2\sqrt{3}",
    "x=4",
    "(1,2)",
    r"\{1,2\}",
    "x^2+1",
    "[1,2)",
    "x>3",
    "no",
    "HHT",
    "3:5",
]
GOLDS += [
    "y=2x+3",
    r"\begin{pmatrix}1\\2\end{pmatrix}",
    "1010_2",
    "4:30 p.m.",
    r"5\text{ cm}^2",
    r"\pm 2",
    "B",
    "2^{10}",
]
PIECES = [
    *"0123456789xyzfABeinπ√∛°%$.,;:!?'\"`~|/\\+-*=<>()[]{}^_& \n\t",
    "\x00",
    "\u200e",
    "٣",
    "½",
    "²",
    "₂",
    "−",
    "元",
]
PIECES += [
    "\ud800",
    "\U0001f600",
    ":=",
    "=:",
    "::=",
    "==",
    "**",
    "__",
    "~~",
    "\\\\",
    "...",
    "$$",
    "''",
    "\\(",
    "\\]",
    "\\{",
    "\\}",
]
PIECES += [
    rf"\{name} "
    for name in "frac sqrt text boxed left right begin end sum int pm cup in le infty overline".split()  # noqa: SIM905
]
PIECES += [
    r"\frac{1}{2}",
    r"\sqrt{2}",
    r"\text{or}",
    r"\boxed{4}",
    r"\begin{cases}",
    r"\end{cases}",
    r"\begin{aligned}",
]
PIECES += [
    "x = ",
    "y := ",
    "f(x)",
    "(1,2)",
    "[1,2)",
    "10^{99999}",
    "9^{9^9}",
    "1e99999",
    "1,234",
    "0.5",
    "-4",
    "4",
    " and ",
    " or ",
]
PIECES += [
    " is ",
    "not ",
    "Answer: ",
    "the answer is ",
    " million",
    " cm",
    "°C",
    "sqrt(",
    "log_2(",
    "abs(",
    "sin",
    "AB:CD",
    "%",
]

answers = st.lists(st.sampled_from(PIECES), min_size=1, max_size=9).map("".join)
never = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])


def judged(answer, gold):
    """Judge an answer, whole and as the end of a completion, by a judge that knows a question."""
    found = [judge(answer, gold, f"Simplify ${gold}$ and {answer}.")]
    found += [ANSWER_STYLES[style].judge(f"So.\nAnswer: {answer}", gold, judge) for style in ("auto", "boxed")]
    assert [judgement.cause for judgement in found if judgement.verdict is Verdict.INFRA_FAILURE] == []


def test_every_answer_has_a_verdict(monkeypatch):
    monkeypatch.setattr(MODULE, "symbolically_equal", lambda *_: False)  # what the worker does is another test's

    @settings(never, max_examples=20_000)
    @given(answers, st.sampled_from(GOLDS))
    def every(answer, gold):
        assert judge(answer, gold, f"Simplify ${answer}$.").verdict is not Verdict.INFRA_FAILURE

    every()


@settings(never, max_examples=200)
@given(answers, st.sampled_from(GOLDS))
def test_every_answer_has_a_verdict_from_the_worker_too(answer, gold):
    judged(answer, gold)


@settings(never, max_examples=500)
@given(st.text(max_size=60), st.sampled_from(GOLDS))
def test_any_text_has_a_verdict(text, gold):
    judged(text, gold)


def test_a_fault_of_the_judge_is_a_failure_with_its_text_and_not_the_end_of_the_run(monkeypatch):
    def broken(*_):
        raise AttributeError("'NoneType' object has no attribute 'strip'")

    monkeypatch.setattr(MODULE, "_comparison", broken)
    judgement = judge("x := 4", "y+1")
    assert judgement.verdict == "infra_failure" and "has no attribute 'strip'" in judgement.cause
    assert "'x := 4'" in judgement.cause
