"""Double a number: put a task of your own in its place."""

from envs import TaskEnv
from envs.math.answers import AnswerStyle
from envs.verifiers.answer_extraction import answer_line
from envs.verifiers.math.judge import judge

STYLE = AnswerStyle(
    template='Compute {question} digit by digit, then give the result as "Answer: <number>".',
    form='a line "Answer: <number>"',
    extract=answer_line,
)


class MyTask(TaskEnv):
    """Double a number.

    Args:
        split: "train" or "test": which numbers are asked for.
    """

    def __init__(self, *, split="train", correct_reward=1.0, wrong_reward=0.0):
        super().__init__(correct_reward=correct_reward, wrong_reward=wrong_reward)
        if split not in ("train", "test"):
            raise ValueError(f"split={split!r} must be 'train' or 'test'")
        self.numbers = [number for number in range(100, 500) if (number % 8 == 0) == (split == "test")]
        self.num_rows = len(self.numbers)

    def row(self, index):
        number = self.numbers[index]
        return {"prompt": STYLE.prompt(f"{number} + {number}"), "answer": str(2 * number)}

    def verify(self, row, completion):
        return STYLE.judge(completion, row["answer"], judge)
