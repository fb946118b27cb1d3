"""A right program for each task, so that the tests can be passed, and an episode that takes two tries."""

import json
from pathlib import Path

import gymnasium
import pytest

import envs  # noqa: F401  (registers the environments)

DATA = Path(__file__).parent / "data"
PROGRAMS = {
    "train.jsonl": [
        "print(sum(int(input()) for _ in range(int(input()))))",
        "print(input()[::-1])",
        "for n in range(int(input())): print((n + 1) ** 2)",
        "numbers = list(map(int, input().split())); print(max(numbers) - min(numbers))",
        "print(sum(letter in 'aeiou' for letter in input().lower()))",
        "print(sum(map(int, input())))",
        "print(max(input().split(), key=len))",
        "print(*(n for n in input().split() if int(n) % 2 == 0))",
        "n = int(input()); print('prime' if all(n % d for d in range(2, n)) else 'composite')",
        "print(*(word[:1].upper() + word[1:] for word in input().split()))",
        "print('yes' if sorted(input()) == sorted(input()) else 'no')",
        "print(f'{int(input()):08b}')",
        "import itertools; print(*itertools.accumulate(map(int, input().split())))",
        "hours, minutes = map(int, input().split(':'))\n"
        "total = (60 * hours + minutes + int(input())) % 1440\nprint(f'{total // 60}:{total % 60:02}')",
        "line = input().replace(' ', ''); print(max(line, key=line.count))",
    ],
    "test.jsonl": [
        "lines = [input() for _ in range(int(input()))]; print(*sorted(lines, key=len), sep='\\n')",
        "values = sorted(set(map(int, input().split()))); print(values[-2] if len(values) > 1 else 'none')",
        "for n in range(int(input())): print('*' * (n + 1))",
        "print(sum(map(int, input().split('+'))))",
        "import itertools; print(''.join(letter for letter, _ in itertools.groupby(input())))",
    ],
}


def fenced(program):
    return f"```python\n{program}\n```"


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_task_can_be_solved(name):
    env = gymnasium.make("code/Repair-v0", path=DATA / name)
    assert env.unwrapped.num_rows == len(PROGRAMS[name])
    for index, program in enumerate(PROGRAMS[name]):
        env.reset(options={"index": index})
        _, reward, _, _, info = env.step(fenced(program))
        assert (reward, info["verdict"]) == (1.0, "correct"), program


def test_a_program_that_fails_is_given_back_and_mended():
    env = gymnasium.make("code/Repair-v0", path=DATA / "train.jsonl")
    env.reset(options={"index": 1})
    report, reward, over, _, _ = env.step(fenced("print(input())"))
    assert (reward, over) == (0.0, False) and "hello" in report and "olleh" not in report
    assert env.step(fenced("print(input()[::-1])"))[1:3] == (1.0, True)


def test_no_task_is_in_both_files():
    train, test = ({json.loads(line)["prompt"] for line in (DATA / name).open()} for name in PROGRAMS)
    assert len(train) == 15 and len(test) == 5 and not train & test
