r"""Extraction, exact numbers, comparison, and the worker that can be killed."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import gymnasium
import pytest
from hypothesis import given
from hypothesis import strategies as st

import envs
from envs.base import Judgement
from envs.math.answers import ANSWER_STYLES
from envs.verifiers import symbolic
from envs.verifiers.extraction import after_thinking, answer_line, boxes, hash_line
from envs.verifiers.latex import brackets, clean, matrix_rows, split, word_form
from envs.verifiers.math import check_gold, judge
from envs.verifiers.rationals import parse_rational, read_integer

PAIRS = Path(__file__).resolve().parents[3] / "shared" / "data" / "math_pairs.json"


def verify(completion, gold):
    check_gold(gold)
    return ANSWER_STYLES["auto"].judge(completion, gold, judge)


# --- the shared cases


def test_shared_pairs():
    if not PAIRS.is_file():
        pytest.skip("the shared math pairs are not there")
    disagreements = []
    for pair in json.loads(PAIRS.read_text()):
        try:
            found = verify(pair["pred"], pair["gold"])
        except ValueError as error:  # a gold answer that is refused is never paid for
            found = Judgement.of(False, str(error))
        if (found.accuracy == 1.0) != pair["expected"]:
            disagreements.append((pair, found))
    assert disagreements == []


# --- extraction


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("no thoughts", "no thoughts"),
        ("<think>a</think>b", "b"),
        ("a</think>b", "b"),  # the prompt may end with <think>
        ("<think>a</think>b<think>c</think>d", "d"),
        ("<think>a", None),
        ("<think>a</think>b<think>c", None),
    ],
)
def test_after_thinking(text, rest):
    assert after_thinking(text) == rest


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Answer: 34", "34"),
        ("answer : 34", "34"),
        ("**Answer:** 34", "34"),
        ("**Answer: 34**", "34"),
        ("The final answer: 34\nThat is it.", "34"),
        ("Answer: 33\nAnswer: 34", "34"),
        ("Answer: 33 Answer: 34", "33 Answer: 34"),
        ("Answer:\n$$\\boxed{34}$$", "34"),
        ("Answer: 33\nAnswer:", None),
        ("Answers: 34", None),
        ("The answer is 34", None),
    ],
)
def test_answer_line(text, answer):
    assert answer_line(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{34}", "34"),
        (r"\boxed {\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\fbox{34}", "34"),
        (r"\boxed{33}, so after all \boxed{34}", "34"),
        (r"\boxed{33} or \boxed{34}", "33, 34"),
        (r"$\boxed{33}$ and $\boxed{34}$", "33, 34"),
        (r"\boxed{\boxed{34}}", r"\boxed{34}"),
        (r"\boxed{33} and then \boxed{34", "33"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{", None),
        ("34", None),
    ],
)
def test_boxes(text, answer):
    assert boxes(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [("#### 34", "34"), ("a\n#### 33\n #### 34 ", "34"), ("a #### 34", None), ("####", None)],
)
def test_hash_line(text, answer):
    assert hash_line(text) == answer


# --- exact numbers


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("34", Fraction(34)),
        ("-1,234.50", Fraction("-1234.5")),
        (".5", Fraction(1, 2)),
        ("+7.", Fraction(7)),
        (r"\frac{1}{-2}", Fraction(-1, 2)),
        (r"-\frac{6}{4}", Fraction(-3, 2)),
        (r"1\frac{1}{2}", Fraction(3, 2)),
        (r"-1\frac{1}{2}", Fraction(-3, 2)),
        ("1/2/2", Fraction(1, 4)),
        (r"0.1\overline{6}", Fraction(1, 6)),
        (r"1.5\times 10^{3}", Fraction(1500)),
        ("2^{-3}", Fraction(1, 8)),
        ("(-2)^{3}", Fraction(-8)),
        ("(-2)^{-3}", Fraction(-1, 8)),
        ("((34))", Fraction(34)),
        ("50%", Fraction(50)),
    ],
)
def test_rationals(text, value):
    number = parse_rational(text)
    assert Fraction(number.numerator, number.denominator) == value and number.denominator > 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "1,2",
        "12,34",
        "3 4",
        "1+1",
        "1 - 1",
        "1/0",
        r"\frac{1}{0}",
        r"\frac{1}",
        "0^0",
        "0^{-1}",
        "10^{1000000}",
        "10^{10^{10}}",
        "9^{9^9}",
        "(",
        "(" * 1000 + "1" + ")" * 1000,
        "1..2",
        "%",
        "^2",
        "34e0",
        "0x22",
    ],
)
def test_no_rationals(text):
    assert parse_rational(text) is None


@given(st.integers(), st.integers(1), st.integers(1, 1000))
def test_fractions_compare_exactly(numerator, denominator, factor):
    written = parse_rational(rf"\frac{{{numerator * factor}}}{{{denominator * factor}}}")
    assert written.equals(parse_rational(f"{numerator}/{denominator}"))
    assert not written.equals(parse_rational(f"{numerator * denominator + 1}/{denominator * denominator}"))


@given(st.integers(1, 9), st.integers(0, 20_000))
def test_integers_of_any_length_are_read(first, zeros):
    assert read_integer(f"{first}" + "0" * zeros) == first * 10**zeros


def test_percent():
    half, fifty, percent = (parse_rational(text) for text in ("0.5", "50", "50%"))
    assert percent.equals(fifty) and percent.equals(half) and half.equals(percent) and percent.equals(percent)
    assert not half.equals(fifty) and not parse_rational("0.5%").equals(percent)


def test_long_numbers_are_exact():
    gold = "7" * 20_000
    assert judge(gold, gold).verdict == "correct"
    assert judge("0" + gold, gold).verdict == "correct"
    assert judge(gold[:-1] + "8", gold).verdict == "wrong"
    assert judge(rf"\frac{{{gold}}}{{2}}", rf"\frac{{{gold}}}{{2}}").verdict == "correct"


# --- one spelling


@pytest.mark.parametrize(
    ("answer", "cleaned"),
    [
        (r"$\boxed{5\text{ cm}}$.", "5"),
        (r"\dfrac12", r"\frac{1}{2}"),
        (r"\frac\pi4", r"\frac{\pi}{4}"),
        (r"\left(1,\;2\right)", "(1, 2)"),
        (r"12\,345", "12345"),
        (r"98,\!770", "98,770"),
        (r"\$40", "40"),
        ("$40", "40"),
        ("−3", "-3"),
        (r"90^\circ", "90"),
        ("18 eggs per day", "18"),
        ("5 million", "5 million"),
        ("5x", "5x"),
        (r"4\text{ or }5", "4, 5"),
        (r"50\%", "50%"),
        ("the number is $34$", "34"),
        ("not $34$", "not $34$"),
        ("1 1/2", r"1\frac{1}{2}"),
        ("{1, 2}", r"\{1, 2\}"),
        (r"\text{Yes}", "Yes"),
        ("2√3", r"2\sqrt{3}"),
    ],
)
def test_clean(answer, cleaned):
    assert clean(answer) == cleaned


def test_parts():
    assert split("1, (2, 3], \\frac{1}{2}") == ["1", "(2, 3]", "\\frac{1}{2}"]
    assert brackets("(1, 2]") == ("(]", "1, 2")
    assert brackets(r"\{1\}") == ("{}", "1")
    assert brackets("(1)(2)") == ("", "(1)(2)")
    assert matrix_rows(r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}") == [["1", "2"], ["3", "4"]]
    assert matrix_rows("(1)") is None


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("Yes", "yes"),
        ("(B)", "B"),
        ("Monday", "monday"),
        (r"x \text{ only}", "x only"),
        ("xy", None),
        (r"\sqrt{2}", None),
        ("sin x", None),
        ("34", None),
    ],
)
def test_word_form(answer, words):
    assert word_form(answer) == words


# --- comparison

CORRECT = [
    ("34", "34.0"),
    ("34", "+34"),
    ("34", "34 apples"),
    ("34", r"\$34.00"),
    ("34", "x = 34"),
    ("34", r"\text{34}"),
    ("-5", "−5"),
    ("10,800", "10800"),
    ("3000", r"3 \times 10^3"),
    ("50", "50 degrees"),
    ("0.5", "50%"),
    ("1.5", "3/2"),
    (r"\frac{x}{2}", "0.5x"),
    (r"2\sqrt{3}", r"\sqrt{12}"),
    ("4", r"\sqrt{16}"),
    (r"12\pi", "12 pi"),
    ("1,2", "2 and 1"),
    ("1,2", "x=1 or x=2"),
    (r"\{1,2,3\}", "{3,2,1}"),
    ("(1,2)", "1, 2"),
    ("[1,2)", r"\left[1, 2\right)"),
    (r"x\in[1,2)", "[1,2)"),
    ("B", "(B)"),
    (r"\text{east}", "East"),
    ("x>3", "3<x"),
    ("y=2x+3", "3+2x"),
    ("2x+3", "y=2x+3"),
    ("x^2+y^2=1", "x^2+y^2-1=0"),
    ("7:30", "7:30"),
    (r"2 \pm \sqrt{3}", r"2-\sqrt{3}, 2+\sqrt{3}"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix}1\\ \frac{4}{2}\end{bmatrix}"),
    (r"(-\infty,2)\cup(3,\infty)", r"(3,\infty) \cup (-\infty,2)"),
    ("5", r"\boxed{5}"),
    ("100!", "100!"),
]
WRONG = [
    ("34", "35"),
    ("34", "3 4"),
    ("34", "not 34"),
    ("34", "34, 34"),
    ("34", "[34]"),
    ("34", "{34}"),
    ("34", "17+17"),
    ("34", "17*2"),
    ("34", "35-1"),
    ("34", "34 = 34"),
    ("34", "$33$ or $34$"),
    ("34", "35 $34$"),
    ("34", "$34 < 35$"),
    ("34", r"\int_0^{34} dx"),
    ("34", r"34 \pm 0"),
    ("34", "thirty-four"),
    ("34", "between 33 and 35"),
    ("34", "NaN"),
    ("34", "34 million"),
    ("5", "5x"),
    ("5", "5 pi"),
    ("0", "0.0000001"),
    (r"\frac{1}{3}", "0.3333"),
    (r"\sqrt{2}", "1.41421356237"),
    (r"\pi", "3.14159265"),
    (r"\infty", r"-\infty"),
    ("(1,2)", "(2,1)"),
    (r"\frac{\sqrt{2}}{10^{20}}", r"\frac{\sqrt{3}}{10^{20}}"),
    ("[1,2)", "[1,2]"),
    ("1,2", "1,2,3"),
    ("1,2", "1,1"),
    ("B", "A or B"),
    ("x>3", r"x \ge 3"),
    ("y=2x+3", "x=2y+3"),
    (r"\sqrt{2}", "NaN"),
    ("1010_2", "1010_3"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1&2\end{pmatrix}"),
    ("x^2", "x^2 = x^2"),
]


@pytest.mark.parametrize(("gold", "answer"), CORRECT)
def test_correct(gold, answer):
    assert verify(f"I think.\nAnswer: {answer}", gold).verdict == "correct"


@pytest.mark.parametrize(("gold", "answer"), WRONG)
def test_wrong(gold, answer):
    judgement = verify(f"I think.\nAnswer: {answer}", gold)
    assert (judgement.verdict, judgement.accuracy) == ("wrong", 0.0)


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        ("17+17", "leaves arithmetic to the reader"),
        ("33, 34", "several candidates"),
        (r"\sum_i i", r"restates the problem, with '\\sum'"),
        ("thirty four", "gives words where a number is asked for"),
        ("x" * 10_000, "has 10000 characters: too many"),
    ],
)
def test_causes(answer, cause):
    assert cause in judge(answer, "34").cause


@pytest.mark.parametrize("gold", ["", " ", "$$", "[INVALID]", "None", "N/A", "?", r"\frac{1}{", "1 +"])
def test_bad_gold_is_refused(gold):
    with pytest.raises(
        ValueError, match=r"the gold answer .* (is empty|is a placeholder|does not verify against itself)"
    ):
        check_gold(gold)


# --- hostile answers end, whatever the thread or process

HOSTILE = [
    "10^{10^{10}}",
    "9^{9^9}",
    "(" * 1000 + "34" + ")" * 1000,
    "{" + ",".join(map(str, range(2000))) + "}",
    "a" * 100_000,
    "9" * 100_000,
    r"\boxed{" * 14_000,
    "Answer: " * 12_000,
    "$" * 100_000,
    "-" * 3_900 + "34",
    r"\frac{" * 700,
    "{" * 100_000,
    " " * 100_000 + "34 1",
    "\\" * 100_000,
    "1," * 50_000,
    "or " * 30_000,
]


@pytest.mark.parametrize("gold", ["34", r"\sqrt{2}"])
@pytest.mark.parametrize("answer", HOSTILE, ids=lambda answer: answer[:12])
def test_hostile_answers_end(answer, gold):
    start = time.monotonic()
    judgement = verify(f"Answer: {answer}", gold)
    assert judgement.accuracy == 0.0
    assert time.monotonic() - start < 30  # the bound is 2 s; this leaves room for a machine under load


def test_a_time_out_is_one_and_the_next_comparison_works():
    assert judge("10^{10^{10}}", r"\sqrt{2}").verdict == "timeout"
    assert judge(r"\frac{2}{\sqrt{2}}", r"\sqrt{2}").verdict == "correct"


def test_the_parts_of_an_answer_share_one_budget():
    budget = symbolic.TimeBudget(0.5)
    with pytest.raises(symbolic.SymbolicTimeout, match=r"longer than 0.5 s"):
        symbolic.symbolically_equal("10^{10^{10}}", r"\sqrt{2}", budget)
    assert budget.seconds <= 0
    with pytest.raises(symbolic.SymbolicTimeout, match="no time is left"):
        symbolic.symbolically_equal("x", "x", budget)


def test_alarms_of_this_process_are_left_alone():
    handler = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 1000)
    try:
        assert judge(r"\sqrt{8}", r"2\sqrt{2}").verdict == "correct"
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 1000
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


def test_threads_get_their_own_answers():
    found = {}

    def work(number):
        found[number] = judge(rf"{number}\sqrt{{8}}", r"6\sqrt{2}").verdict.value

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: "correct" if number == 3 else "wrong" for number in range(1, 7)}


def _judge_into(queue):
    queue.put(judge(r"\sqrt{8}", r"2\sqrt{2}").verdict.value)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_daemonic_processes(method):
    assert judge(r"\sqrt{8}", r"2\sqrt{2}").verdict == "correct"  # a worker that a fork must not share
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=_judge_into, args=(queue,), daemon=True)
    process.start()
    assert queue.get(timeout=60) == "correct"
    process.join()
    assert judge(r"\sqrt{18}", r"3\sqrt{2}").verdict == "correct"


def test_asynchronous_vector_environments():
    rows = [{"prompt": "?", "answer": r"2\sqrt{2}"}]
    env = gymnasium.make_vec("math/Problem-v0", num_envs=2, vectorization_mode="async", rows=rows)
    try:
        env.reset()
        assert list(env.step([r"Answer: \sqrt{8}", r"Answer: \sqrt{9}"])[1]) == [1.0, 0.0]
    finally:
        env.close()


def test_a_script_without_a_main_guard_runs_once(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from envs.verifiers.math import judge\nprint('start')\nprint(judge(r'\\sqrt{8}', r'2\\sqrt{2}').verdict)\n"
    )
    root = Path(envs.__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, check=True)
    assert run.stdout.split() == ["start", "correct"] and run.stderr == ""


# --- workers that fail


def _kill_idle_workers():
    for worker in symbolic._pool._idle:
        worker.process.kill()
        worker.process.wait()


def test_a_worker_that_died_is_replaced():
    assert judge(r"\sqrt{8}", r"2\sqrt{2}").verdict == "correct"
    _kill_idle_workers()
    assert judge(r"\sqrt{18}", r"3\sqrt{2}").verdict == "correct"


def test_a_worker_that_dies_twice_is_an_infrastructure_failure(tmp_path, monkeypatch):
    broken = tmp_path / "worker.py"
    broken.write_text("print('ready', flush=True)\ninput()\nraise SystemExit(3)\n")
    monkeypatch.setattr(symbolic, "_pool", symbolic._Pool())
    monkeypatch.setattr(symbolic, "_WORKER", broken)
    judgement = judge(r"\sqrt{8}", r"2\sqrt{2}")
    assert judgement.verdict == "infra_failure"
    assert judgement.cause == "the math-verify worker failed twice: it ended with status 3"


def test_a_worker_that_does_not_start_says_how_to_find_out(tmp_path, monkeypatch):
    broken = tmp_path / "worker.py"
    broken.write_text("raise SystemExit('no math-verify here')\n")
    monkeypatch.setattr(symbolic, "_pool", symbolic._Pool())
    monkeypatch.setattr(symbolic, "_WORKER", broken)
    judgement = judge(r"\sqrt{8}", r"2\sqrt{2}")
    assert judgement.verdict == "infra_failure"
    assert "did not start" in judgement.cause and "import math_verify" in judgement.cause


def test_a_worker_that_hangs_is_killed(tmp_path, monkeypatch):
    hanging = tmp_path / "worker.py"
    hanging.write_text("import time\nprint('ready', flush=True)\ntime.sleep(1000)\n")
    monkeypatch.setattr(symbolic, "_pool", symbolic._Pool())
    monkeypatch.setattr(symbolic, "_WORKER", hanging)
    monkeypatch.setattr(symbolic, "_GRACE", 0.1)
    assert judge(r"\sqrt{8}", r"2\sqrt{2}").verdict == "timeout"


def test_workers_end_with_their_parent():
    program = (
        "import os, signal; from envs.verifiers import math, symbolic;"
        "math.judge(r'\\sqrt{8}', r'2\\sqrt{2}');"
        "print(symbolic._pool._idle[0].process.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    pid = int(run.stdout)
    deadline = time.monotonic() + 30
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid):
    """Whether a process is there and no zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
