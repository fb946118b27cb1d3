"""Questions from `data/rows.jsonl`, each with one right answer."""

from pathlib import Path

from envs import TaskEnv
from envs.math.answers import ANSWER_STYLES
from envs.rows import read_file
from envs.verifiers.math.judge import check_gold, judge

ROWS = Path(__file__).parent / "data" / "rows.jsonl"
STYLE = ANSWER_STYLES["answer_line"]


class MyTask(TaskEnv):
    """Answer a question with a number, a formula or a few words.

    Args:
        path: A jsonl or parquet file of rows with a "prompt" and an "answer"; by default the rows of the package.
    """

    max_concurrency = "cores"  # formulas are compared in other processes

    def __init__(self, *, path=ROWS, correct_reward=1.0, wrong_reward=0.0):
        super().__init__(correct_reward=correct_reward, wrong_reward=wrong_reward)
        self.rows = tuple(read_file(Path(path)))
        for row in self.rows:
            check_gold(str(row["answer"]))
        self.num_rows = len(self.rows)

    def row(self, index):
        row = self.rows[index]
        return {"prompt": STYLE.prompt(row["prompt"]), "answer": str(row["answer"])}

    def verify(self, row, completion):
        return STYLE.judge(completion, row["answer"], judge)
