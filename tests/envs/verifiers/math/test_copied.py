"""Formulas copied from the question: not paid where they leave the work, paid where they are the answer."""

import json
import re
from pathlib import Path

import gymnasium
import pytest

import envs  # noqa: F401
from envs.verifiers.math import judge

SHARED = Path(__file__).resolve().parents[5] / "shared" / "data"

COPIES = [
    (r"Simplify $\frac{24}{36}$.", r"\frac{2}{3}", [r"\frac{24}{36}", "24/36", r"\dfrac{24}{36}", "24 / 36"]),
    ("Factor $7x^2-63$.", "7(x+3)(x-3)", ["7x^2-63", "7x**2 - 63", "7*x^2-63", "-63+7x^2", r"7\cdot x^{2}-63"]),
    ("Compute (2+3i)(1-2i).", "8-i", ["(2+3i)(1-2i)", r"(1-2i)\cdot(2+3i)", r"\left(2+3i\right)\left(1-2i\right)"]),
    (r"Simplify \[\sqrt{41+24\sqrt2}.\]", r"3+4\sqrt2", [r"\sqrt{41+24\sqrt{2}}", "sqrt(41+24sqrt(2))"]),
    (r"Compute \((-144)\div 9\).", "-16", [r"(-144)\div 9", "-144/9", r"\frac{-144}{9}", "(-144) ÷ 9"]),
    (r"Express $0.\overline{5}$ as a fraction.", r"\frac{5}{9}", [r"0.\overline{5}", r"0.\bar5"]),
    (r"What is $\frac{9}{2}$ expressed as a decimal?", "4.5", [r"\frac92", "9/2"]),
    ("Let $x = -1$. Find $x + x^2 + x^3$.", "-1", ["x = -1", "-1 = x"]),
    ("Reflect $M(2,5)$ twice. Where is it?", "(2,5)", ["M(2,5)"]),
    ("Expand $(x+1)^2$.", "x^2+2x+1", ["(x+1)^2", "(x+1)(x+1)", r"(1+x)\cdot(x+1)"]),
    ("Evaluate $2^{-3}$.", r"\frac{1}{8}", ["2^{-3}", "2**-3", "2^-3"]),
    (r"Write $3 \cdot 10^4$ as a whole number.", "30000", [r"3\cdot 10^4", "3*10**4", "10^4*3"]),
    ("Expand 7(3y+2)", "21y+14", ["7(3y+2)", "7*(3y+2)"]),
]
ANSWERS = [
    (r"Simplify $\frac{24}{36}$.", r"\frac{2}{3}", ["2/3", r"\dfrac23", r"0.\overline{6}"]),
    ("Factor $7x^2-63$.", "7(x+3)(x-3)", ["7(x-3)(x+3)", "7(x-3)(3+x)"]),
    ("Is $x^2-1$ in lowest terms? Factor it.", "(x-1)(x+1)", ["(x+1)(x-1)"]),
    ("The radius falls by $20\\%$, the height by $25\\%$. By how many percent does it change?", "20", ["20", "20\\%"]),
    ("It costs $\\$5$. How much is it?", "5", ["5", "\\$5", "5 dollars"]),
    ("Which of $x+x$, $x^2$ is twice $x$?", "2x", ["x+x", "2x"]),
    ("The roots are in $\\{1,2,3\\}$. Give all.", "1, 2, 3", ["\\{1,2,3\\}", "1,2,3"]),
    ("Compute $2 + 3$.", "5", ["5", "5.0", "x = 5"]),
    ("Leave $2^{10}$ as it is.", "2^{10}", ["2^{10}", "2^10", "2**10"]),
]


@pytest.mark.parametrize(("question", "gold", "copies"), COPIES)
def test_a_copy_is_wrong_where_the_question_is_known(question, gold, copies):
    for copy in copies:
        judgement = judge(copy, gold, question)
        assert judgement.verdict == "wrong", copy
    if "4\\sqrt2" in gold or "x" in gold:  # where it is no arithmetic anyway
        assert "copied from the question" in judge(copies[0], gold, question).cause
        assert judge(copies[0], gold).verdict == "correct"


@pytest.mark.parametrize(("question", "gold", "answers"), ANSWERS)
def test_an_answer_is_right_although_its_formula_stands_in_the_question(question, gold, answers):
    assert [answer for answer in [gold, *answers] if judge(answer, gold, question).verdict != "correct"] == []


def rows(name):
    if not (SHARED / name).is_file():
        pytest.skip(f"the shared data set {name} is not there")
    text = (SHARED / name).read_text(encoding="utf-8")
    return json.loads(text) if name.endswith(".json") else [json.loads(line) for line in text.splitlines()]


def test_shared_copies():
    problems = rows("math_test.jsonl")
    paid = []
    for row in rows("turn2/restated.json"):
        problem = problems[int(re.search(r"idx (\d+)", row["note"])[1])]["problem"]
        env = gymnasium.make("math/Problem-v0", rows=[{"prompt": problem, "answer": row["gold"]}])
        env.reset(options={"index": 0})
        _, reward, _, _, info = env.step(row["pred"])
        paid += [row] * (reward != 0.0 or info["verdict"] != "wrong")
    assert paid == []


def indices(env_id):
    """Return an environment of generated problems, and where each of its answers stands."""
    env = gymnasium.make(env_id)
    return env, {str(env.unwrapped.problem(index).answer): index for index in range(6000)}


def test_shared_pairs_of_all_environments():
    generated, disagreements = {}, []
    for pair in rows("turn2/math_pairs.json"):
        env_id, gold = pair["env"], pair["gold"]
        if env_id == "math/Problem-v0":
            env, index = gymnasium.make(env_id, rows=[{"prompt": "?", "answer": gold}]), 0
        else:
            env, places = generated.setdefault(env_id, indices(env_id) if env_id not in generated else None)
            index = places[gold]
        env.reset(options={"index": index})
        info = env.step(pair["pred"])[4]
        disagreements += [(pair, info)] * ((info["verdict"] == "correct") != pair["expected"])
    assert disagreements == []
