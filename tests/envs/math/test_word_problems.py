"""`math/WordProblems-v0`: its templates, its problems, its splits, its worked solutions and its verdicts."""

import re
from collections import Counter
from itertools import islice

import gymnasium
import pytest

import envs  # noqa: F401
from envs.math.expression import parse_expression
from envs.math.procedural import draws
from envs.math.word_problems import WordProblemsEnv
from envs.math.word_templates import Template, templates

LEVELS = range(1, 7)
STEPS = {1: {1}, 2: {2}, 3: {2}, 4: {3}, 5: {3, 4}, 6: {4, 5, 6}}
EVERY = [template for level in LEVELS for split in ("train", "test") for template in templates(level, split)]
every_level_and_split = pytest.mark.parametrize(
    ("level", "split"), [(level, split) for level in LEVELS for split in ("train", "test")]
)


def written(template: Template, count: int) -> list[tuple[dict[str, int], str, tuple[str, ...]]]:
    """Return problems written from a template: its numbers, the problem, and the lines of the solution."""
    bits = draws("written", template.text)
    drawn = (template.draw(bits) for _ in range(60 * count))
    found = [(numbers, *template.write(numbers, bits)) for numbers in islice(filter(None, drawn), count)]
    assert len(found) == count, f"hardly any numbers fit: {template.text}"
    return found


# --- templates


def test_there_are_many_and_each_split_has_its_own():
    assert len(EVERY) == 82 and len({template.text for template in EVERY}) == 82
    assert all(len(templates(level, "train")) >= 8 and len(templates(level, "test")) >= 3 for level in LEVELS)


def test_a_level_has_its_steps_and_its_distractor():
    for template in EVERY:
        assert len(template.steps) in STEPS[template.level], template.text
        used = set("".join(step.expression for step in template.steps))
        assert bool(set(template.given) - used) == (template.level == 5), template.text
        assert set(template.ranges) | set(template.derived) >= set(template.given)


def test_what_is_written_is_english():
    """No slot or choice is left, articles fit, and no number is 1, so that every plural is one."""
    for template in EVERY:
        for numbers, text, solution in written(template, 12):
            whole = " ".join([text, *solution])
            assert not re.search(r"[{}\[\]|]|  |\b[Aa] [aeiou]|\b[Aa]n [^aeiouh]|\b1 [a-z]| [.,?]", whole), whole
            assert text.endswith("?") and re.match(r"[A-Z]", text) and all(line.endswith(".") for line in solution)
            assert min(numbers.values()) >= 2


def test_every_step_is_true_and_the_last_is_the_answer():
    for template in EVERY:
        for numbers, _, solution in written(template, 6):
            steps = re.findall(r"([\d][\d +*/-]*) = \$?(\d+)", " ".join(solution))
            assert len(steps) == len(template.steps)
            assert all(parse_expression(left).value == int(right) for left, right in steps)
            assert int(steps[-1][1]) == numbers[template.steps[-1].name]


# --- problems


@every_level_and_split
def test_problems(level, split):
    env = WordProblemsEnv(levels=level, split=split)
    problems = [env.problem(index) for index in range(150)]
    assert {(problem.level, problem.split) for problem in problems} == {(level, split)}
    assert len({problem.prompt for problem in problems}) > 120
    for problem in problems:
        question = env.style.question(problem.prompt)
        assert str(problem.answer) not in re.findall(r"\d+", question)


def test_level_1_is_one_step_with_small_numbers():
    problems = [WordProblemsEnv(levels=1).problem(index) for index in range(300)]
    assert max(int(number) for problem in problems for number in re.findall(r"\d+", problem.prompt)) <= 90
    assert all(len(problem.solution) == 1 and problem.answer <= 90 for problem in problems)
    assert Counter(problem.answer for problem in problems).most_common(1)[0][1] < 30, "one guess is often right"


def test_splits_share_neither_templates_nor_numbers():
    seen = {}
    for split in ("train", "test"):
        env = WordProblemsEnv(levels=[1, 2], split=split)
        seen[split] = {tuple(sorted(env.problem(index).numbers)) for index in range(400)}
    assert len(seen["train"]) > 200 and seen["train"].isdisjoint(seen["test"])


def test_problems_never_change():
    """Pinned: a change here means another version of the environment."""
    env = WordProblemsEnv()
    assert [env.solution(index).splitlines()[-2] for index in range(3)] == PINNED
    assert env.problem(2**31 + 5) == WordProblemsEnv(levels=[1, 2]).problem(2**31 + 5)


PINNED = [
    "She gets 50 - 15 = $35 in change.",
    "She makes 7 * 2 = $14 a day.",
    "There are still 28 - 11 = 17 of them on the bus.",
]


# --- answers


@pytest.mark.parametrize("style", ["answer_line", "hash", "boxed"])
@every_level_and_split
def test_solutions_earn_the_maximum(level, split, style):
    env = WordProblemsEnv(levels=level, split=split, answer_style=style)
    for index in range(20):
        row, solution = env.row(index), env.solution(index)
        assert env.verify(row, solution).accuracy == 1.0, solution
        assert env.verify(row, env.style.solution(str(row["answer"] + 1))).accuracy == 0.0


@pytest.mark.parametrize(
    ("answer", "accuracy"),
    [("{}", 1), ("${}", 1), ("{} apples", 1), ("{}.00", 1), ("{}.", 1), ("{} or 3", 0), ("-{}", 0), ("{}0", 0)],
)
def test_units_and_dollars_are_fine_and_hedging_is_not(answer, accuracy):
    env = WordProblemsEnv(levels=1)
    row = env.row(0)
    assert env.verify(row, f"Answer: {answer.format(row['answer'])}").accuracy == accuracy


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": 7}, r"WordProblemsEnv: levels=7 must be one or more integers from 1 to 6 \(difficulty\)"),
        ({"split": "dev"}, r"split='dev' must be 'train' or 'test'"),
        ({"answer_style": "shout"}, r"answer_style='shout' must be one of auto, answer_line, "),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        gymnasium.make("math/WordProblems-v0", **arguments)
