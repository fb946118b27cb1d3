"""Add three numbers in two turns: put a task of your own in its place."""

import random

from envs import TaskEnv
from envs.math.answers import AnswerStyle
from envs.verifiers.answer_extraction import answer_line, answer_text
from envs.verifiers.math.judge import judge

STYLE = AnswerStyle(
    template='Compute {question} digit by digit, then give the result as "Answer: <number>".',
    form='a line "Answer: <number>"',
    extract=answer_line,
)


class MyTask(TaskEnv):
    """Add two numbers; the reply asks for the sum of the result and a third one.

    Args:
        split: "train" or "test": which numbers are drawn.
    """

    max_turns = 2

    def __init__(self, *, split="train", correct_reward=1.0, wrong_reward=0.0):
        super().__init__(correct_reward=correct_reward, wrong_reward=wrong_reward)
        if split not in ("train", "test"):
            raise ValueError(f"split={split!r} must be 'train' or 'test'")
        dice = random.Random(split)
        self.numbers = [[dice.randrange(100, 300) for _ in range(3)] for _ in range(400)]
        self.num_rows = len(self.numbers)

    def row(self, index):
        first, second, third = self.numbers[index]
        prompt = STYLE.prompt(f"{first} + {second}")
        return {"prompt": prompt, "third": third, "answer": str(first + second + third)}

    def reply(self, row, turns):
        """Ask for the next sum; a turn without a number, or with the total, ends the episode."""
        given = answer_line(answer_text(turns[-1]) or "")
        if given is None or not given.isdecimal() or len(given) > 4 or given == row["answer"]:
            return None
        return "\n" + STYLE.prompt(f"{given} + {row['third']}") + "\n"

    def verify(self, row, completion):
        return STYLE.judge(completion, row["answer"], judge)
