r"""Judging answers: what counts as the gold answer, what does not, and that every judging ends."""

import json
import re
import resource
import sys
import time
from pathlib import Path

import pytest

from envs.base import Judgement
from envs.math.answers import ANSWER_STYLES, gold_answer
from envs.verifiers.math import sympy_pool as symbolic
from envs.verifiers.math.judge import canonical_answer, check_gold, judge

MODULE = sys.modules[judge.__module__]
SHARED_PAIRS = Path(__file__).resolve().parents[5] / "shared" / "data" / "math_pairs.json"
DATA = Path(__file__).parent / "data"


def verify(completion, gold):
    check_gold(gold)
    return ANSWER_STYLES["auto"].judge(completion, gold, judge)


def read_answers(name):
    """Yield the blocks of a data file: kind, gold answer, answers that are the same, answers that are not."""
    kind, gold, found = "", "", {}
    for line in [*(DATA / name).read_text(encoding="utf-8").splitlines()[1:], "# end"]:
        if line.startswith("  "):
            found[line[2]] += line[4:].split("   ")
            continue
        if gold:
            yield pytest.param(gold, found["="], found["!"], id=f"{kind}: {gold}")
        kind, gold = (line[2:], "") if line.startswith("#") else (kind, line)
        found = {"=": [], "!": []}


def work_of(function):
    """Return the result of a function, and how many calls of functions it took."""
    calls = 0

    def count(_, event, __):
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        result = function()
    finally:
        sys.setprofile(None)
    return result, calls


# --- what counts


@pytest.mark.parametrize(
    ("spelling", "answers"),
    [
        ("1234", ("1234", "1,234", " +1234 ", "01234", "$1234$.", r"\boxed{1234}", "x = 1234", "1234 cm")),
        ("0", ("0", "-0", "000")),
        ("1/2", ("0.5", r"\frac{2}{4}", r"\dfrac12", "1/2", ".5")),
        ("50%", ("50%", r"50\%")),
        ("17*2", ("17*2",)),  # arithmetic left to the reader is no 34
        ("yes", ("Yes", r"\text{yes}")),
        ("A", ("A", "(A)")),
        ("(1,2)", ("(1, 2)", "(1,2)")),
        ("", ("", " ")),
    ],
)
def test_answers_that_are_one_vote(spelling, answers):
    assert {canonical_answer(answer) for answer in answers} == {spelling}


def test_a_judgement_has_the_answer_in_one_spelling_and_never_the_gold_answer():
    found = [verify(f"So.\nAnswer: {answer}", "7") for answer in (r"\frac{14}{2}", "7.0", "8", "9" * 5000)]
    assert [judgement.details["answer"] for judgement in found[:3]] == ["7", "7", "8"]
    assert len(found[3].details["answer"]) == 1000
    assert "answer" not in verify("I do not know.", "7").details | verify("Answer:", "7").details


@pytest.mark.parametrize("answer", ["9" * 6000, "1/" + "7" * 6000, "\\frac{" * 600, "10^{99999}", "(" * 3000])
def test_the_spelling_of_an_enormous_answer_is_found_with_little_work(answer):
    spelling, calls = work_of(lambda: canonical_answer(answer))
    assert isinstance(spelling, str) and calls < 100_000


def test_shared_pairs():
    if not SHARED_PAIRS.is_file():
        pytest.skip("the shared math pairs are not there")
    disagreements = []
    for pair in json.loads(SHARED_PAIRS.read_text()):
        try:
            found = verify(pair["pred"], pair["gold"])
        except ValueError as error:  # a gold answer that is refused is never paid for
            found = Judgement.of(False, str(error))
        if (found.accuracy == 1.0) != pair["expected"]:
            disagreements.append((pair, found))
    assert disagreements == []


@pytest.mark.parametrize(("gold", "same", "other"), [*read_answers("math_answers.txt")])
@pytest.mark.parametrize(
    "form", ["Let me think.\n\nAnswer: $\\boxed{%s}$", "So.\nAnswer: %s", "Hence \\(\\boxed{%s}\\)."]
)
def test_answers(form, gold, same, other):
    assert [answer for answer in [gold, *same] if verify(form % answer, gold).verdict != "correct"] == []
    assert [answer for answer in other if verify(form % answer, gold).verdict != "wrong"] == []


@pytest.mark.parametrize(("gold", "same", "other"), [*read_answers("line_answers.txt")])
def test_answers_on_a_line(gold, same, other):
    assert [answer for answer in same if verify(f"So.\nAnswer: {answer}", gold).verdict != "correct"] == []
    assert [answer for answer in other if verify(f"So.\nAnswer: {answer}", gold).verdict != "wrong"] == []


BLOCKS = [
    (r"\begin{pmatrix}1\\2\end{pmatrix}", "Answer: $$\\begin{pmatrix}\n1 \\\\\n2\n\\end{pmatrix}$$"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", "Answer: \\[\n\\boxed{\\begin{pmatrix}\n1 \\\\[2pt] 2\n\\end{pmatrix}}\n\\]"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", "**Answer:** \\begin{bmatrix} 1 \\\\\n 2 \\end{bmatrix}.\nThat is it."),
    ("x=2, y=3", "Answer: $$\\begin{aligned}\nx &= 2 \\\\\ny &= 3\n\\end{aligned}$$"),
    ("5", "Answer: 5<|im_end|>"),
    ("5", "Answer: 5</s>"),
    ("5", "Answer: 5<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nThanks"),
    ("5", "Answer: 5<\uff5cend\u2581of\u2581sentence\uff5c>"),
    ("5", r"So \boxed{5}<|endoftext|>"),
    ("7", r"So it is $\boxed 7$."),
    ("x", r"\boxed x"),
    ("12.5", r"Answer: \fbox 12.5"),
    ("5", "Answer\uff1a 5"),
]


@pytest.mark.parametrize(("gold", "text"), BLOCKS)
def test_formulas_of_several_lines_special_tokens_and_boxes_without_braces(gold, text):
    assert verify(text, gold).verdict == "correct"
    assert (
        verify(text.replace("2", "4").replace("5", "6").replace("7", "8").replace("x", "z"), gold).verdict != "correct"
    )


@pytest.mark.parametrize(
    ("left", "right"), [("73", "**73**"), ("73", "**73**."), ("73", "*73*"), ("no", "**No**"), ("5/2", "2 and 1/2")]
)
def test_emphasis_and_notation_make_no_other_vote(left, right):
    assert canonical_answer(left) == canonical_answer(right)


COMPLETIONS: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = [
    (
        "34",
        (
            *(
                "answer : 34",
                "ANSWER:34",
                "**Answer**: 34",
                "__Answer:__ 34",
                "### Final Answer: 34",
                "So the answer: 34.",
            ),
            *("Answer: $$34$$.", r"Answer: \(34\)", "Answer: **34**", "Answer: `34`", "Answer: 34\nThanks!"),
            *("Answer:\n34", "**Answer:**\n\n$$\\boxed{34}$$", "Answer:\n\\[\n34\n\\]", "Answer: $$\n34\n$$"),
            *(
                "Answer: The answer is 34",
                "Answer: The final answer is $34$. I hope it is correct.",
                "Answer: There are $34$ ways.",
            ),
            *(
                "Answer: The largest $n$ is 34.",
                "Answer: $\\boxed{34}$ apples",
                "Answer: 33\nAnswer: 34",
                "\\boxed{33}\nAnswer: 34",
            ),
            *(
                r"\boxed {34}",
                r"\boxed{\boxed{34}}",
                "\\boxed{34}\n\nSo it is \\boxed{34}.",
                "<think>33</think>\\boxed{34}",
            ),
            *(r"First \boxed{33}. But no: \boxed{34}.", r"We get \boxed{33}, but checking gives \boxed{34}"),
        ),
        (
            *("The answer is 34", "Answers: 34", "Answer:", "", "<think>Answer: 34", "<think>Answer: 34</think>done"),
            *(
                "Answer: 34 or 35",
                "Answer: 35 Answer: 34",
                "Answer: 34 Answer: 35",
                "Answer: 34\nAnswer: 35",
                "Answer: 34\nAnswer: ",
            ),
            *(
                r"Answer: \boxed{34} or \boxed{35}",
                r"Answer: 34 \boxed{35}",
                r"\boxed{35}\boxed{34}",
                "\\boxed{35}\n\\boxed{34}",
            ),
            *(r"\boxed{35} \text{ or } \boxed{34}", r"It is \boxed{33} in one reading, or \boxed{34} in the other"),
            *(
                "Answer: It isn't $34$",
                "Answer: half of $34$",
                "Answer: $34$ squared",
                "Answer: negative $34$",
                r"\boxed{} ",
            ),
            *(
                "Answer: see above",
                "Answer: <answer>",
                "Answer: 34 for even n",
                "Answer: 34 but could be 35",
                r"\boxed{34",
            ),
        ),
    ),
    (
        "1,2",
        (
            r"$x = \boxed{1}$ or $x = \boxed{2}$",
            r"\boxed{1}\quad\text{and}\quad\boxed{2}",
            "Answer: The solutions are $1$ and $2$",
        ),
        (r"\boxed{1} and \boxed{3}", "Answer: 1 to 2"),
    ),
    ("B", ("Answer: The answer is B", "Answer: (B)."), ("Answer: neither A nor B", r"\boxed{A} \boxed{B}")),
]


@pytest.mark.parametrize(("gold", "same", "other"), COMPLETIONS)
def test_completions(gold, same, other):
    assert [text for text in same if verify(text, gold).accuracy != 1.0] == []
    assert [text for text in other if verify(text, gold).accuracy != 0.0] == []


PUBLISHED: list[tuple[str, str, bool]] = [
    ("7425000", "7,425,000", True),
    ("1000", "1 000", True),
    ("1000.99", "1000,99", True),
    ("0.4", ".4", True),
    ("1000.99", "$1,000.99", True),
    ("2", "AZYUK2A", False),
    ("-10/9", r"-\frac{10}{9}", True),
    ("$(0,9)$", "$[0,9)$", False),
    ("$1/3$", r"$\frac13 $", True),
    (r"$28\%$", r"$28$ percent", True),
    ("$125$ miles", r"$125\textnormal{ miles}$", True),
    ("$90^\\circ$", r"$90$", True),
    ("$x >= 5$", r"Therefore $x \geq 5$ is the solution.", True),
    ("$x > 5$", "Therefore $x < 5$ is the solution.", False),
    (r"$x \leq 5$", r"$5 \geq x$", True),
    ("$7 = 11a+c$", "$11a+c$", False),
    ("$x < 1$", "$-x > -1$", True),
    ("$x < 1$", "$x > -1$", False),
    ("$a +3z = 0$", "$0$", False),
    ("$2x + z = 1$", "$1$", False),
    ("$2x+4y-3=0$", r"$y=-\frac{1}{2}x+\frac{3}{4}$", True),
    ("$x^2/4 + y^2/3 = 1$", "$x^2/16 + y^2/12 = 1/4$", True),
    (r"$\tan^2(y)+1$", r"$\sec^2(y)$", True),
    ("$34x+45y-20z+100=0$", "$-34x-45y+20z-100=0$", True),
    ("$(a+5)(b+2)$", "$(+5)(b+2)$", False),
    ("$2$", r"$\frac{1+\sqrt{5}}{2}$", False),
    ("$4$", r"$4\sqrt{2}$", False),
    (r"$-2 \le x \le 7$", r"$x \in [-2,7]$", True),
    ("$(p,q)=(3,2)$", "$(3,2)$", True),
    ("$(0;0;0),(0;-2;0)$", "$(0, -2, 0), (0, 0, 0)$", True),
    ("$-12;-11;-10$", r"$\{-12, -11, -10\}$", True),
    ("$AB=4,CD=5$", "$4, 5$", True),
    ("$S_{MBCN}:S=7:32$", "$7:32$", True),
    (r"$\frac{NO}{BO}=\frac{1}{\sqrt{6}}$", r"$\frac{1}{\sqrt{6}}$", True),
    ("$d$", r"$\text{E}$", False),
    ("$1$ and $2$ and $3$", "$1,2,3$", True),
    (r"$\text{Even}$", "$Even$", True),
    ("$|AB|=1$", "$1$", True),
    ("$0<f(x)<1$", "$(0,1)$", True),
    (r"$a_3 = 2, a_{37} = 19$", r"$a_{37} = 19, \quad a_3 = 2$", True),
    ("$n=2, 3, 4$", "$n=1, 2, 3$", False),
    ("$D = (0, 1)$", "$D = (0, 1.5)$", False),
    (r"$F_n = \sum_{k=0}^{n-1} F_k F_{n-k-1}$", r"$F_n = \sum_{k=0}^{n-2} F_k F_{n-k-2}$", False),
    (r"$F_n = \sum_{k=0}^{n-1} F_k F_{n-k-1}$", r"$F_n = \sum_{k=0}^{n-1} F_{n-k-1} F_k$", True),
    ("$19, 46, and 82$", r"$19, 46, \text{ and } 82$", True),
    ("$19, 46, and 82$", "$21, 36, and 82$", False),
    (r"$\pm 2021$", "$2021$", False),
    ("$12:00$", "$1:00$", False),
]
"""Gold answers, answers and verdicts, selected from the tests of Math-Verify (huggingface/Math-Verify, Apache-2.0)."""

OTHERWISE_ON_PURPOSE: list[tuple[str, str]] = [
    (r"$\frac{1}{12}$", "$0.0833333333333333$"),  # rounded
    (r"$(\frac{3}{5},\frac{8}{3}]$", "$(0.6,2.6667]$"),  # rounded
    ("$11$", r"$x\approx11$"),  # an approximation
    ("$x = 11$", "$x = 5+5+1 = 7 =11$"),  # several values in a chain
    ("$10$", r"\( (9+1) \)"),  # arithmetic left to the reader
    (
        r"$\begin{pmatrix}6 & 8\end{pmatrix}$",
        r"$\begin{pmatrix}1 & 2\end{pmatrix} + \begin{pmatrix}5 & 6\end{pmatrix}$",
    ),
    ("1000.99", "the number is not 10 which is 1,000.99€"),  # two numbers
    (r"$1 - \frac{1}{\mathrm{e}}$", r"$1 + \frac{1}{\mathrm{e}}$"),  # another number
    ("$f(x)$", "$f(y)$"),  # another variable
]
"""Pairs from the same tests that are right there and wrong by the rules here, at least one for each rule."""


@pytest.fixture
def unhurried(monkeypatch):
    """Time enough on a slow machine: what is asked is not how fast."""
    monkeypatch.setattr(MODULE, "TIME_LIMIT", 4 * MODULE.TIME_LIMIT)


def published(gold, answer):
    text = gold[1:-1] if gold.count("$") == 2 and gold[0] == gold[-1] == "$" else gold
    return verify(f"Answer: {answer}", gold_answer(text)).accuracy == 1.0


@pytest.mark.parametrize(("gold", "answer", "expected"), PUBLISHED)
def test_published_pairs(unhurried, gold, answer, expected):
    assert published(gold, answer) is expected


@pytest.mark.parametrize(("gold", "answer"), OTHERWISE_ON_PURPOSE)
def test_published_pairs_that_the_rules_here_decide_otherwise(gold, answer):
    assert not published(gold, answer)


@pytest.mark.parametrize(
    ("answer", "gold", "cause"),
    [
        ("17+17", "34", "leaves arithmetic to the reader"),
        ("33, 34", "34", "several candidates"),
        (r"\sum_i i", "34", r"restates the problem, with '\\sum'"),
        ("thirty four", "34", "gives words where a number is asked for"),
        ("x" * 10_000, "34", "has 10000 characters: too many"),
        ("5 m", r"5\text{ cm}", "its unit is m instead of cm"),
        ("x+1=6", "x=5", "does not say what x is"),
        (r"\sin 60", r"\frac{\sqrt{3}}{2}", "leaves a function to be worked out (trigonometric)"),
        ("2x", r"\sqrt{2}", "has the variable x"),
        ("1,2,3", "1,2", "gives 3 values where 2 are asked for"),
        ("1,3", "1,2", "2 is missing"),
        ("x<3", "x>3", "another region"),
        ("[1,2]", "(1,2)", "is no (...)"),
    ],
)
def test_causes(answer, gold, cause):
    judgement = judge(answer, gold)
    assert cause in judgement.cause and judgement.verdict == "wrong"
    assert judge(gold, gold).cause == ""


def test_a_blank_answer_is_none():
    for blank in ("", " ", "$$", r"\text{}", "."):
        assert judge(blank, "34").verdict == "no_answer"


# --- gold answers


@pytest.mark.parametrize(
    "gold",
    [
        *("", " ", "$$", ".", ",", r"\text{}", "[INVALID]", "<answer>", "None", "N/A", "?", "nan", r"\frac{1}{", "1 +"),
        *("x=", "=", "((", "x^", "-", "5 5", "1..2", r"\sqrt{", r"\frac{1}{0}", "0/0", r"\log(0)", "{}"),
    ],
)
def test_bad_gold_is_refused(gold):
    with pytest.raises(
        ValueError, match=r"the gold answer .* (is empty|is a placeholder|does not verify against itself)"
    ):
        check_gold(gold)


def test_a_gold_answer_that_was_escaped_twice_is_read():
    check_gold(r"\\left(\\frac{1}{5}, 2\\right)")
    assert judge("(0.2, 2)", r"\\left(\\frac{1}{5}, 2\\right)").verdict == "correct"
    assert judge(r"-2 \\le x", r"-2 \le x").verdict == "wrong"  # in an answer it is a line break


# --- hostile answers end, and never pay

HOSTILE = [
    "10^{10^{10}}",
    "9^{9^9}",
    "9^{9^{9^{9}}}",
    "(10^9)!",
    r"\sin(10^{10^{10}})",
    r"\gcd(10^{10^{8}},3)",
    r"\prod_{i=1}^{10^9} i",
    "(" * 1000 + "34" + ")" * 1000,
    "(" * 200 + "x" + ")" * 200,
    r"\frac{" * 500 + "1" + "}{2}" * 500,
    r"\sqrt{" * 400 + "2" + "}" * 400,
    "y=" + r"\frac{x}{x+" * 20 + "1" + "}" * 20,
    "{" + ",".join(map(str, range(2000))) + "}",
    "*".join(["9^{99999}"] * 400),
    "(9^{9999})" * 390,
    "1e99999 " * 400,
    "a" * 100_000,
    "9" * 100_000,
    "٣" * 100_000,
    r"\boxed{" * 14_000,
    "Answer: " * 12_000,
    "$" * 100_000,
    "-" * 3_900 + "34",
    "." * 3_900,
    "½" * 3_900,
    "sqrt(" * 700,
    r"\text{a} " * 400,
    "a b " * 900,
    "x<1," * 900,
    r"(1,2)\cup " * 300,
    "{" * 100_000,
    " " * 100_000 + "34 1",
    "\\" * 100_000,
    "1," * 50_000,
    "or " * 30_000,
    "\x00" * 1_000,
    "\ud7ff" * 1_000,
]


@pytest.mark.parametrize("gold", ["34", r"\sqrt{2}", "x+1", "y=2x+3", "(1,2)", r"\{1,2\}", "x>3", "1010_2", "Monday"])
def test_hostile_answers_end(gold, monkeypatch):
    check_gold(gold)
    monkeypatch.setattr(MODULE, "TIME_LIMIT", 0.1)  # so that this does not take minutes
    for hostile in HOSTILE:
        start = time.monotonic()
        assert ANSWER_STYLES["auto"].judge(f"Answer: {hostile}", gold, judge).accuracy == 0.0
        assert time.monotonic() - start < 20  # the bound is 2 s; this leaves room for a machine under load


def test_the_memory_of_this_process_stays_flat():
    judge("x+1", "1+x")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for hostile in ["9^{9^{9^{9}}}", "10^{10^{10}}", "((100!)!)!", *HOSTILE]:
        for gold in ("34", "x+1", "(1,2)"):
            assert judge(hostile, gold).accuracy == 0.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024  # kilobytes


@pytest.mark.parametrize(
    "text",
    [
        "</think>\n" * 200_000,
        "<think>\n</think>\n" * 100_000,
        "\\boxed{3}\n" * 200_000,
        "Answer: \n" * 200_000,
        "(" * 1_000_000,
        "34 " * 700_000,
    ],
    ids=["closed", "thinking", "boxes", "lines", "brackets", "numbers"],
)
def test_megabytes_take_no_more_work_than_their_end(text):
    completion = f"{text}Answer: 34"
    judgement, calls = work_of(lambda: ANSWER_STYLES["auto"].judge(completion, "34", judge))
    longer, more = work_of(lambda: ANSWER_STYLES["auto"].judge(text * 2 + "Answer: 34", "34", judge))
    assert longer.verdict == judgement.verdict == "correct"
    assert more <= calls + 100 and calls < 1_000_000


def test_a_time_out_is_one_and_the_next_comparison_works():
    judgement = judge("9^{9^{9^{9}}}", "x+1")
    assert judgement.verdict == "timeout" and judgement.cause == "comparing took more than 0.5 s of CPU time"
    assert judge(r"\frac{2}{\sqrt{2}}", r"\sqrt{2}").verdict == "correct"


def test_the_parts_of_an_answer_share_one_budget(monkeypatch):
    budgets = []

    def ask(target, gold, budget):
        budgets.append(budget)
        budget.seconds -= 0.4 * MODULE.TIME_LIMIT
        if budget.seconds < 0:
            raise symbolic.SymbolicTimeout("no time is left")
        return True

    monkeypatch.setattr(MODULE, "symbolically_equal", ask)
    gold = ", ".join(rf"\sqrt{{{number}}}" for number in (2, 3, 5, 7))
    assert judge(gold.replace("sqrt", "sqrt "), gold).verdict == "correct"  # the same text needs nobody
    assert judge(gold.replace(r"\sqrt", r"1\sqrt"), gold).verdict == "timeout"
    assert len(budgets) == 3 and len(set(map(id, budgets))) == 1


def test_the_decisions_in_the_documentation_are_those_of_the_code():
    page = (Path(__file__).parents[4] / "docs" / "math-verdicts.md").read_text(encoding="utf-8")
    table = page.partition("could have gone the other way")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| `")]
    assert len(rows) >= 7
    for answers, gold, verdict, _ in rows:
        for answer in re.findall("`([^`]+)`", answers):
            assert verify(f"Answer: {answer}", gold.strip(" `")).verdict == verdict.strip(), answer
