"""`math/Countdown-v0`: its problems, its splits and its verdicts."""

from collections import Counter
from fractions import Fraction
from itertools import permutations
from math import prod

import gymnasium
import pytest

import envs  # noqa: F401
from envs.math.countdown import CountdownEnv
from envs.math.expression import parse_expression

NUMBERS, TARGET = (55, 36, 7, 19), 133


class Fixed(CountdownEnv):
    """The one problem of the verdicts below."""

    def row(self, index):
        return {"prompt": "?", "answer": "(55 - 36) * 7", "numbers": NUMBERS, "target": TARGET}


def judged(answer):
    env = Fixed()
    env.reset(options={"index": 0})
    _, reward, _, _, info = env.step(answer)
    return info["verdict"], info["cause"], reward


# --- problems


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("level", [3, 4, 5, 6])
def test_every_problem_is_solvable_and_none_is_trivial(level, split):
    env = CountdownEnv(levels=level, split=split)
    for index in range(150):
        problem, row = env.problem(index), env.row(index)
        assert problem.split == split and row["info"] == {"level": level} and len(problem.numbers) == level
        assert 10 <= problem.target <= 999 and all(1 <= number <= 99 for number in problem.numbers)
        expression = parse_expression(problem.answer)
        assert expression.value == problem.target
        assert sorted(expression.numbers) == sorted(problem.numbers)
        pairs = [(a + b, a - b, a * b, Fraction(a, b)) for a, b in permutations(problem.numbers, 2)]
        easy = {*problem.numbers, sum(problem.numbers), prod(problem.numbers), *(n for pair in pairs for n in pair)}
        assert problem.target not in easy
        assert problem.answer not in row["prompt"]
        assert str(problem.target) in row["prompt"] and all(str(number) in row["prompt"] for number in problem.numbers)


def test_levels_are_drawn_equally_often_and_all_operations_occur():
    env = CountdownEnv()
    problems = [env.problem(index) for index in range(2000)]
    levels = Counter(problem.level for problem in problems)
    assert set(levels) == {3, 4} and all(900 < count < 1100 for count in levels.values())
    assert {sign for problem in problems for sign in problem.answer} >= set("+-*/")


def test_splits_share_no_problem_in_whatever_order():
    seen = {}
    for split in ("train", "test"):
        env = CountdownEnv(levels=3, split=split)
        seen[split] = {(problem.target, *sorted(problem.numbers)) for problem in map(env.problem, range(3000))}
    assert seen["train"].isdisjoint(seen["test"])


def test_problems_never_change():
    """Pinned: a change here means another version of the environment."""
    env = CountdownEnv()
    assert [(problem.numbers, problem.target) for problem in map(env.problem, range(4))] == PINNED
    assert env.problem(2**31 + 5) == CountdownEnv(levels=[3, 4]).problem(2**31 + 5)


PINNED = [((91, 29, 80), 18), ((29, 70, 51), 10), ((96, 41, 99, 73), 227), ((9, 9, 39, 9), 333)]


def test_prompt():
    env = gymnasium.make("math/Countdown-v0", levels=3)
    prompt, info = env.reset(options={"index": 0})
    assert prompt == PROMPT
    assert info == {"index": 0, "level": 3}


PROMPT = (
    "Using the numbers 84, 60 and 35, each at most once, write an expression with +, -, *, / and parentheses that "
    'equals 59. Think step by step, then give it as "Answer: <expression>".'
)


# --- verdicts


@pytest.mark.parametrize(
    "answer",
    [
        "First 55 - 36 = 19, then 19 * 7 = 133.\nAnswer: (55 - 36) * 7",
        "Answer: 7*(55-36)",
        "Answer: 7 × (55 − 36)",
        "Answer: 19 * 7",
        "Answer: (55 - 36) * 7 = 133",
        "Answer: $(55 - 36) \\times 7 = 133$",
        "Answer: \\boxed{(55 - 36) * 7}",
        "**Answer: (55 - 36) * 7**",
        "Answer: `(55 - 36) * 7`.",
        "<think>Answer: 1</think>Answer: (55 - 36) * 7",
    ],
)
def test_any_expression_that_reaches_the_target(answer):
    assert judged(answer) == ("correct", "", 1.0)


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        ("Answer: 133", "it uses 133 more often than it is given"),
        ("Answer: 19 * (14 / 2)", "it uses 2 more often than it is given"),
        ("Answer: 19 * 7 + 55 - 55", "it uses 55 more often than it is given"),
        ("Answer: 55 + 36 + 7 + 19", "it equals 117"),
        ("Answer: 36 / 55", "it equals 36/55"),
        ("Answer: 557 - 36", "it uses 557 more often than it is given"),
        ("Answer: 5 5 - 36", "can not be read: '5' comes unexpectedly"),
        ("Answer: -(36 - 55) * 7", "can not be read: '-' comes unexpectedly"),
        ("Answer: (55 - 36) ** 7", "can not be read"),
        ("Answer: (55 - 36) * 7 = 134", 'what comes after "=" is not the target 133'),
        ("Answer: (55 - 36) * 7 = 133 = 133", 'what comes after "=" is not the target 133'),
        ("Answer: 133 = (55 - 36) * 7", 'what comes after "=" is not the target 133'),
        ("Answer: 19 * 7 or 55 + 36", "can not be read: 'or 55 + 36' is no part of an expression"),
        ("Answer: 19 * 7, 55", "can not be read"),
        ("Answer: 19 / (7 - 7)", "can not be read: it divides by zero"),
        ("Answer: 9**9**9**9", "can not be read"),
        ("Answer: " + "(" * 100_000, "more than 400"),
        ("Answer: " + "9" * 300, "300 digits"),
        ("Answer: 19 * 7\nAnswer: 55", "it equals 55"),
    ],
)
def test_wrong_answers_and_why(answer, cause):
    verdict, why, reward = judged(answer)
    assert (verdict, reward) == ("wrong", 0.0) and cause in why


@pytest.mark.parametrize("answer", ["", "(55 - 36) * 7", "<think>Answer: (55 - 36) * 7", "Answer:"])
def test_no_answer(answer):
    assert judged(answer)[0] == "no_answer"


@pytest.mark.parametrize("split", ["train", "test"])
def test_solutions_are_right(split):
    env = CountdownEnv(levels=(3, 4, 5, 6), split=split)
    for index in range(200):
        env.reset(options={"index": index})
        assert env.step(env.solution(index))[1] == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": 2}, r"CountdownEnv: levels=2 must be one or more integers from 3 to 6 \(numbers\)"),
        ({"levels": (3, 7)}, r"levels=\(3, 7\) must be"),
        ({"split": "dev"}, r"CountdownEnv: split='dev' must be 'train' or 'test'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        gymnasium.make("math/Countdown-v0", **arguments)
