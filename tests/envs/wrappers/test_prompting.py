"""`Prompting`: the question stays the observation, the prompt is in info, and the spec holds the examples."""

from __future__ import annotations

import gymnasium
import pytest

from envs import Prompting, TaskEnv
from envs.description import describe, remake
from envs.reward_check.episode import present


class Counting(TaskEnv):
    """Rows of which some have no solution."""

    def __init__(self, num_rows=10, solved=10):
        super().__init__()
        self.num_rows, self.solved = num_rows, solved

    def row(self, index):
        return {"prompt": f"Count to {index}.", "answer": " ".join(map(str, range(index + 1)))}

    def verify(self, row, completion):
        return completion == row["answer"]

    def solution(self, index):
        return self.row(index)["answer"] if index < self.solved else None


def examples_of(env, size):
    return {index for index in range(size) if env.reset(options={"index": index})[1].get("is_example")}


def test_the_question_stays_the_observation_and_the_prompt_is_in_info():
    env = Prompting(
        Counting(), system_prompt="Count.", few_shot=[["Count to 2.", "1 2"]], prompt_template="{question}!"
    )
    question, info = env.reset(options={"index": 3})
    assert question == present(env, index=3).text == "Count to 3."
    assert [turn["content"] for turn in info["messages"]] == ["Count.", "Count to 2.!", "1 2", "Count to 3.!"]
    assert examples_of(env, 10) == {2}
    assert env.reset(options={"index": 3})[0] and env.step("0 1 2 3")[1] == 1.0


@pytest.mark.parametrize("env", [Counting(), gymnasium.make("math/Arithmetic-v0", levels=[1, 2])])
def test_a_number_draws_rows_with_their_solutions_the_same_ones_each_time(env):
    one, other = Prompting(env, few_shot=3), Prompting(env, few_shot=3)
    index = next(index for index in range(10) if index not in examples_of(one, 10))
    *turns, question = one.reset(options={"index": index})[1]["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 3
    assert one.format == other.format and len({turn["content"] for turn in turns[::2]}) == 3
    for asked, answered in zip(turns[::2], turns[1::2], strict=True):
        assert asked["content"] != question["content"] and answered["content"]


def test_rows_drawn_as_examples_are_marked():
    env = Prompting(Counting(), few_shot=3)
    held = {f"Count to {index}." for index in examples_of(env, 10)}
    assert held == {turn["content"] for turn in env.format.few_shot if turn["role"] == "user"} and len(held) == 3


class Guess(Counting):
    """Rows of many turns, which all begin alike."""

    max_turns = 3

    def row(self, index):
        return {**super().row(index), "prompt": "Guess."}

    def reply(self, row, turns):
        return "No."


def test_rows_of_many_turns_that_begin_alike_are_told_apart_by_their_solutions():
    env = Prompting(Guess(), few_shot=3)
    assert len(env.format.few_shot) == 6 and len(examples_of(env, 10)) == 3


@pytest.mark.parametrize(
    ("env", "few_shot", "message"),
    [
        (Counting(5), 5, "few_shot is 5, and Counting has 5 rows: .*at least one must be left"),
        (Counting(solved=2), 3, r"few_shot is 3, and Counting has 2 different rows with a solution: write solution"),
        (Counting(solved=0), 1, r"Counting has no row with a solution"),
        (gymnasium.make("math/Problem-v0", rows=[{"prompt": "1", "answer": "1"}] * 9), 2, "has 1 different rows"),
        (Counting(), -1, "few_shot is -1: it must be 0 or more examples"),
    ],
)
def test_too_few_rows(env, few_shot, message):
    with pytest.raises(ValueError, match=message):
        Prompting(env, few_shot=few_shot)


def test_it_is_made_again_with_the_same_examples_whatever_the_rows_are_by_then(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f'{{"prompt": "{i} + 1", "answer": "{i + 1}"}}\n' for i in range(9)))
    env = Prompting(gymnasium.make("math/Problem-v0", path=str(path)), few_shot=2, system_prompt="Add.")
    described, shown = describe(env), env.reset(options={"index": 0})
    assert described["spec"]["additional_wrappers"][0]["kwargs"]["few_shot"] == list(env.format.few_shot)
    path.write_text("".join(f'{{"prompt": "{i} + 1", "answer": "{i + 1}"}}\n' for i in [0, *range(20, 40)]))
    assert remake(described).reset(options={"index": 0}) == shown
    other = env.around(Counting())
    assert other.format == env.format and other.drawn
