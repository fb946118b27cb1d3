"""`math/Chain-v0`: its problems, its splits, its worked solutions and its verdicts."""

from collections import Counter
from statistics import correlation

import gymnasium
import pytest
from hypothesis import given
from hypothesis import strategies as st

import envs  # noqa: F401
from envs.math.chain import Chain, ChainEnv, Step, worked_chain

steps = st.builds(Step, st.sampled_from("+-*"), st.integers(1, 9))
chains = st.builds(Chain, st.integers(0, 999), st.lists(steps, min_size=1, max_size=64).map(tuple))


# --- worked solutions


@pytest.mark.parametrize(
    ("start", "operations", "solution"),
    [
        (412, "*7 +8 -5", "1: 412*7=884\n2: 884+8=892\n3: 892-5=887\nAnswer: 887"),
        (998, "+9", "1: 998+9=7\nAnswer: 7"),
        (0, "*9 +1", "1: 0*9=0\n2: 0+1=1\nAnswer: 1"),
    ],
)
def test_worked_by_hand(start, operations, solution):
    chain = Chain(start, tuple(Step(step[0], int(step[1:])) for step in operations.split()))
    assert worked_chain(chain) == solution
    assert solution.endswith(f"Answer: {chain.answer}")


@given(chain=chains, data=st.data())
def test_a_slip_goes_on_to_the_answer(chain, data):
    """What follows a slip is the right continuation of what it wrote."""
    at = data.draw(st.integers(0, len(chain.steps) - 1))
    slip = data.draw(st.integers(0, 999))
    lines = worked_chain(chain, corrupt=lambda step, total: slip if step == at else total).splitlines()
    right = worked_chain(chain).splitlines()
    rest = Chain(slip, chain.steps[at + 1 :])
    assert lines[:at] == right[:at] and lines[at].endswith(f"={slip}")
    assert lines[-1] == f"Answer: {rest.answer}" and len(lines) == len(right)


@pytest.mark.parametrize("total", [-1, 1000, 1.5])
def test_a_slip_is_a_total(total):
    with pytest.raises(ValueError, match=r"corrupt returned .*: a number from 0 to 999"):
        worked_chain(Chain(1, (Step("+", 2),)), corrupt=lambda *_: total)


# --- problems


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("level", [1, 2, 17, 64])
def test_level_is_the_number_of_steps(level, split):
    env = ChainEnv(levels=level, split=split)
    for index in range(50):
        problem = env.problem(index)
        assert (len(problem.steps), problem.split) == (level, split)
        assert env.row(index)["info"] == {"level": level}
        assert env.row(index)["prompt"].count("\n") == level + 1


def test_no_total_is_negative():
    env = ChainEnv(levels=64)
    for index in range(100):
        problem = env.problem(index)
        total = problem.start
        for step in problem.steps:
            assert step.operation != "-" or step.operand <= total
            total = step(total)


def test_a_solution_is_as_long_as_its_steps():
    env = ChainEnv()
    problems = [(env.problem(index).level, len(env.solution(index))) for index in range(500)]
    assert correlation(*zip(*problems, strict=True)) > 0.99
    assert len(env.solution(next(i for i, (level, _) in enumerate(problems) if level == 32))) > 300


def test_the_default_levels_double_and_are_drawn_equally_often():
    env = ChainEnv()
    levels = Counter(env.problem(index).level for index in range(4000))
    assert sorted(levels) == [2, 4, 8, 16, 32] and all(700 < count < 900 for count in levels.values())


@pytest.mark.parametrize("level", [1, 4, 32])
def test_no_answer_is_likely(level):
    """The best blind guess is right in well under one case in a hundred."""
    env = ChainEnv(levels=level)
    answers = Counter(env.problem(index).answer for index in range(5000))
    assert answers.most_common(1)[0][1] / 5000 < 0.005
    assert len(answers) > 950


def test_splits_share_no_problem():
    seen = {}
    for split in ("train", "test"):
        env = ChainEnv(levels=1, split=split)
        seen[split] = {(problem.start, problem.steps) for problem in map(env.problem, range(2000))}
    assert seen["train"].isdisjoint(seen["test"])


def test_problems_never_change():
    """Pinned: a change here means another version of the environment."""
    env = ChainEnv(levels=(2, 4))
    assert [(problem.start, " ".join(map(str, problem.steps))) for problem in map(env.problem, range(4))] == PINNED
    assert env.problem(2**31 + 5) == ChainEnv(levels=[2, 4]).problem(2**31 + 5)


PINNED = [(504, "+4 *3"), (324, "+4 +1 -5 *7"), (913, "-4 +5 -7 -6"), (949, "+6 -8 +8 +3")]


def test_prompt():
    env = gymnasium.make("math/Chain-v0", levels=2)
    prompt, info = env.reset(options={"index": 0})
    assert prompt == PROMPT
    assert info == {"index": 0, "level": 2}


PROMPT = """\
Start with 392 and do these steps in order, keeping only the last three digits of each result:
1: -6
2: -2
Write a line for each step, then give the result as "Answer: <number>".\
"""


# --- verdicts


@pytest.mark.parametrize(
    ("completion", "verdict"),
    [
        ("{worked}", "correct"),
        ("Answer: {right}", "correct"),
        ("Answer: {right:03}", "correct"),
        ("Answer: {wrong}", "wrong"),
        ("Answer: -{right}", "wrong"),
        ("Answer: {right}.5", "wrong"),
        ("Answer: {right} or {wrong}", "wrong"),
        ("Answer: {right}\nAnswer: {wrong}", "wrong"),
        ("{right}", "no_answer"),
        ("<think>Answer: {right}", "no_answer"),
        ("", "no_answer"),
    ],
)
def test_verdicts(completion, verdict):
    env = gymnasium.make("math/Chain-v0", levels=3)
    for index in range(20):
        right = env.unwrapped.problem(index).answer
        env.reset(options={"index": index})
        text = completion.format(worked=env.unwrapped.solution(index), right=right, wrong=(right + 1) % 1000)
        _, reward, _, _, info = env.step(text)
        assert (info["verdict"], reward) == (verdict, float(verdict == "correct"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": 65}, r"ChainEnv: levels=65 must be one or more integers from 1 to 64 \(steps\)"),
        ({"levels": ()}, r"levels=\(\) must be"),
        ({"levels": "12"}, r"levels='12' must be"),
        ({"levels": True}, r"levels=True must be"),
        ({"levels": None}, r"levels=None must be"),
        ({"split": "dev"}, r"ChainEnv: split='dev' must be 'train' or 'test'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        gymnasium.make("math/Chain-v0", **arguments)
