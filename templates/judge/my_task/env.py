"""Explain something; a language model judges the explanation: put a task of your own in its place."""

from envs import TaskEnv, judges

ROWS = (
    ("Why does ice float on water?", "Ice is less dense than water."),
    ("Why is the sky dark at night?", "The side of the Earth that we are on faces away from the sun."),
    ("Why do we see lightning before we hear thunder?", "Light is faster than sound."),
    ("Why does a wet shirt feel cold?", "Water takes heat from the skin when it evaporates."),
    ("Why do leaves look green?", "Chlorophyll absorbs other colours and reflects green light."),
    ("Why does bread rise?", "Yeast makes carbon dioxide, and its bubbles lift the dough."),
    ("Why does metal feel colder than wood?", "Metal conducts heat away from the hand faster."),
    ("Why does the moon have phases?", "We see different parts of its sunlit half as it goes round the Earth."),
)
RUBRIC = {"reason": {"ask": "Does it give the reason that the right answer gives?", "points": 10}}


class MyTask(TaskEnv):
    """Explain something in a sentence or two.

    Args:
        judge: Settings of `envs.judges.Judge`, such as {"model": "judge"}; the server is JUDGE_URL or "url".
    """

    num_rows = len(ROWS)

    def __init__(self, *, judge, correct_reward=1.0, wrong_reward=0.0):
        super().__init__(correct_reward=correct_reward, wrong_reward=wrong_reward)
        self.judge = judges.Judge(**{"rubric": RUBRIC, "pass_mark": 0.8, "max_characters": 2_000, **judge})

    def row(self, index):
        question, reference = ROWS[index]
        return {
            "prompt": f"{question} Explain it in one or two sentences.",
            "question": question,
            "reference": reference,
        }

    def verify(self, row, completion):
        return self.judge(row["question"], completion, reference=row["reference"])

    def solution(self, index):
        return ROWS[index][1]
