"""`math/Arithmetic-v0`: its problems, its splits, its worked solutions and its verdicts."""

from collections import Counter
from itertools import product

import gymnasium
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import envs  # noqa: F401
from envs.math.arithmetic import ArithmeticEnv, Problem
from envs.math.worked import composed_answer, render, worked_solution, worked_steps

# --- worked solutions


@pytest.mark.parametrize(
    ("problem", "solution"),
    [
        ((47, "+", 85), "7+5+0=12 write 2 carry 1\n4+8+1=13 write 3 carry 1\nAnswer: 132"),
        ((9, "+", 4), "9+4+0=13 write 3 carry 1\nAnswer: 13"),
        ((0, "+", 0), "0+0+0=0 write 0 carry 0\nAnswer: 0"),
        (
            (999, "+", 1),
            "9+1+0=10 write 0 carry 1\n9+0+1=10 write 0 carry 1\n9+0+1=10 write 0 carry 1\nAnswer: 1000",
        ),
        ((52, "-", 7), "2-7-0=-5 write 5 borrow 1\n5-0-1=4 write 4 borrow 0\nAnswer: 45"),
        (
            (100, "-", 99),
            "0-9-0=-9 write 1 borrow 1\n0-9-1=-10 write 0 borrow 1\n1-0-1=0 write 0 borrow 0\nAnswer: 1",
        ),
        ((8, "-", 8), "8-8-0=0 write 0 borrow 0\nAnswer: 0"),
    ],
)
def test_worked_by_hand(problem, solution):
    assert worked_solution(*problem) == solution


def test_a_slip_goes_on_to_the_answer():
    slip = worked_solution(47, "+", 85, corrupt=lambda column, digit, carry: (digit, 0 if column == 0 else carry))
    assert slip == "7+5+0=2 write 2 carry 0\n4+8+0=12 write 2 carry 1\nAnswer: 122"


operands = st.integers(0, 10**12 - 1)


@given(a=operands, b=operands, operation=st.sampled_from("+-"))
def test_worked_answers_are_right(a, b, operation):
    a, b = max(a, b), min(a, b)
    answer = a + b if operation == "+" else a - b
    assert composed_answer(worked_steps(a, operation, b)) == answer
    assert worked_solution(a, operation, b).endswith(f"\nAnswer: {answer}")


@given(a=operands, b=operands, operation=st.sampled_from("+-"), data=st.data())
def test_one_wrong_step_moves_the_answer_by_what_it_is_off(a, b, operation, data):
    a, b = max(a, b), min(a, b)
    right = worked_steps(a, operation, b)
    column = data.draw(st.integers(0, len(right) - 1))
    slip = data.draw(st.tuples(st.integers(0, 9), st.integers(0, 1)))
    assume(slip != (right[column].digit, right[column].carry))
    steps = worked_steps(a, operation, b, corrupt=lambda at, *step: slip if at == column else step)
    off = steps[column].total - right[column].total
    assert off != 0
    assert composed_answer(steps) == composed_answer(right) + off * 10**column
    assert render(steps).count("\n") == len(right)


@pytest.mark.parametrize("problem", [(1, "-", 2), (-1, "+", 2), (1, "*", 2)])
def test_problems_that_can_not_be_worked(problem):
    with pytest.raises(ValueError, match="worked_steps: "):
        worked_steps(*problem)


@pytest.mark.parametrize("slip", [(10, 0), (-1, 0), (3, 2)])
def test_a_slip_is_a_digit_and_a_carry(slip):
    with pytest.raises(ValueError, match="a digit from 0 to 9 and a carry of 0 or 1"):
        worked_steps(1, "+", 2, corrupt=lambda *_: slip)


# --- problems


@pytest.mark.parametrize("level", [1, 2, 5, 12])
@pytest.mark.parametrize("split", ["train", "test"])
def test_level_is_the_digits_of_the_larger_operand(level, split):
    env = ArithmeticEnv(levels=level, split=split)
    for index in range(100):
        problem = env.problem(index)
        assert len(str(max(problem.a, problem.b))) == level
        assert problem.answer >= 0
        assert problem.split == split
        assert env.row(index)["info"] == {"level": level}


def test_levels_and_operations_are_drawn_equally_often():
    env = ArithmeticEnv(levels=(1, 2, 3, 4))
    problems = [env.problem(index) for index in range(4000)]
    levels = Counter(len(str(max(problem.a, problem.b))) for problem in problems)
    operations = Counter(problem.operation for problem in problems)
    assert set(levels) == {1, 2, 3, 4} and all(900 < count < 1100 for count in levels.values())
    assert all(1850 < count < 2150 for count in operations.values())


@pytest.mark.parametrize("operation", ["+", "-"])
def test_splits_share_no_problem_and_both_exist_from_the_first_level_on(operation):
    digits = range(10)
    splits = {(a, b): Problem(a, operation, b).split for a, b in product(digits, digits) if operation == "+" or a >= b}
    assert set(splits.values()) == {"train", "test"}
    if operation == "+":
        assert all(splits[a, b] == splits[b, a] for a, b in splits)
    seen = {split: set() for split in ("train", "test")}
    for split, problems in seen.items():
        env = ArithmeticEnv(levels=(1, 2), operations=operation, split=split)
        problems.update(frozenset((env.problem(i).a, env.problem(i).b)) for i in range(1000))
    assert seen["train"].isdisjoint(seen["test"])


def test_about_one_problem_in_eight_is_for_the_test():
    env = [Problem(a, "+", b).split for a in range(100) for b in range(a + 1)]
    assert env.count("test") / len(env) == pytest.approx(1 / 8, abs=0.015)


def test_problems_never_change():
    """Pinned: a change here means another version of the environment."""
    env = ArithmeticEnv()
    assert [env.row(index)["prompt"].split(" digit")[0] for index in range(6)] == [
        "Compute 3 - 1",
        "Compute 8601 - 1974",
        "Compute 3 + 9",
        "Compute 86 + 13",
        "Compute 298 - 5",
        "Compute 6 + 7",
    ]
    assert env.problem(2**31 + 5) == ArithmeticEnv().problem(2**31 + 5)


def test_prompt():
    env = gymnasium.make("math/Arithmetic-v0")
    prompt, info = env.reset(options={"index": 3})
    assert prompt == 'Compute 86 + 13 digit by digit, then give the result as "Answer: <number>".'
    assert info == {"index": 3, "level": 2}


# --- verdicts


@pytest.mark.parametrize(
    ("completion", "verdict"),
    [
        ("6+3+0=9 write 9 carry 0\n8+1+0=9 write 9 carry 0\nAnswer: 99", "correct"),
        ("answer : 99.", "correct"),
        ("**Answer: 99**", "correct"),
        ("Answer: 12\nAnswer: 99", "correct"),
        ("Answer: 0099", "correct"),
        ("<think>Answer: 1</think>Answer: 99", "correct"),
        ("Answer: 98", "wrong"),
        ("Answer: -99", "wrong"),
        ("Answer: 9,9", "wrong"),
        ("Answer: 99\nAnswer: 12", "wrong"),
        ("Answer: 98 or 99", "wrong"),
        ("Answer: 98 Answer: 99", "wrong"),
        ("Answer: " + "9" * 100_000, "wrong"),
        ("99", "no_answer"),
        ("", "no_answer"),
        ("<think>Answer: 99", "no_answer"),
        ("<think>Answer: 99</think>", "no_answer"),
        ('Compute 86 + 13 digit by digit, then give the result as "Answer: <number>".', "wrong"),
    ],
)
def test_verdicts(completion, verdict):
    env = gymnasium.make("math/Arithmetic-v0")
    env.reset(options={"index": 3})
    _, reward, _, _, info = env.step(completion)
    assert (info["verdict"], reward) == (verdict, float(verdict == "correct"))


def test_thousands_may_have_commas():
    env = gymnasium.make("math/Arithmetic-v0")
    env.reset(options={"index": 1})
    assert env.step("Answer: 6,627")[1] == 1.0


@pytest.mark.parametrize("split", ["train", "test"])
def test_solutions_are_right(split):
    env = ArithmeticEnv(levels=range(1, 13), split=split)
    for index in range(200):
        env.reset(options={"index": index})
        assert env.step(env.solution(index))[1] == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": 0}, r"ArithmeticEnv: levels=0 must be one or more integers from 1 to 12 \(digits\)"),
        ({"levels": (1, 13)}, r"levels=\(1, 13\) must be"),
        ({"levels": ()}, r"levels=\(\) must be"),
        ({"levels": (1.5,)}, r"levels=\(1.5,\) must be"),
        ({"operations": "*"}, r"operations='\*' must be one or more of '\+' and '-'"),
        ({"operations": ()}, r"operations=\(\) must be"),
        ({"split": "dev"}, r"split='dev' must be 'train' or 'test'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        gymnasium.make("math/Arithmetic-v0", **arguments)
