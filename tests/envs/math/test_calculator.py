"""`math/Calculator-v0`: problems, calls, and what ends an episode."""

import gymnasium
import pytest

import envs
from envs.math.calculator import Problem, calculate


def task(**kwargs):
    return gymnasium.make("math/Calculator-v0", **kwargs).unwrapped


def test_a_problem_by_hand():
    problem = Problem((12, 3, 40, 5), "*-+")
    assert problem.prompt.startswith("Compute ((12 * 3) - 40) + 5.\n")
    assert (problem.values, problem.answer, problem.level) == ([12, 36, -4, 1], 1, 3)


@pytest.mark.parametrize("index", range(20))
def test_calculating_everything_solves_it(index):
    env = task(levels=range(1, 9))
    prompt, info = env.reset(options={"index": index})
    *calls, answer = env.dialogue(index)
    expression = prompt.partition(".")[0].removeprefix("Compute ")
    assert answer == f"Answer: {eval(expression)}" == env.solution(index)
    assert len(calls) == info["level"]
    for call in calls:
        observation, reward, terminated, _, _ = env.step(call)
        assert observation.startswith("Result: ") and (reward, terminated) == (0.0, False)
    assert observation == f"Result: {answer.removeprefix('Answer: ')}\n"
    assert env.step(answer)[1:3] == (1.0, True)


@pytest.mark.parametrize(
    ("call", "result"),
    [
        ("12 * 34", "408"),
        ("-12−-34", "22"),
        (" 7 × 6\n", "42"),
        ("9" * 150 + "+1", "1" + "0" * 150),
        ("9" * 151 + "+1", None),
        ("1 / 3", None),
        ("2 ** 99", None),
        ("1 + 2 + 3", None),
        ("１ + 2", None),
        ("__import__('os')", None),
        ("", None),
    ],
)
def test_one_operation_on_two_numbers(call, result):
    found = calculate(call)
    assert found == result if result else found.startswith("none, the calculator takes one operation")


@pytest.mark.parametrize(
    "message",
    [
        "<calc>1+1</calc> so Answer: 2",
        "<think><calc>1+1</calc>",
        "<calc>1+1",
        "Answer: 5",
        "",
        "<calc><calc></calc></calc>",
    ],
)
def test_what_is_no_call_ends_the_episode(message):
    env = task()
    env.reset(options={"index": 0})
    assert env.step(message)[1:3] == (0.0, True)


def test_the_calls_of_an_episode_are_bounded():
    env = task(levels=[1, 2])
    index, level = next((i, env.row(i)["info"]["level"]) for i in range(99) if env.row(i)["info"]["level"] == 1)
    env.reset(options={"index": index})
    over = [env.step("<calc>1+1</calc>")[2] for _ in range(4 * level + 1)]
    assert over == [False] * 4 * level + [True]


def test_the_splits_share_no_problem():
    train, test = task(levels=1, digits=2), task(levels=1, digits=2, split="test")
    assert not {train.row(i)["prompt"] for i in range(2000)} & {test.row(i)["prompt"] for i in range(2000)}


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"levels": 9}, r"levels=9 must be one or more integers from 1 to 8 \(operations\)"),
        ({"levels": []}, r"levels=\[\] must be"),
        ({"digits": 1}, "digits=1 must be an integer from 2 to 12"),
        ({"digits": True}, "digits=True must be"),
        ({"split": "dev"}, "split='dev' must be 'train' or 'test'"),
    ],
)
def test_bad_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        task(**kwargs)


def test_thinking_before_a_call_is_fine():
    env = task()
    env.reset(options={"index": 0})
    assert env.step(envs.Completion("<think>hm</think>Let me see. <calc>2*3</calc>\n"))[0] == "Result: 6\n"
