"""Answers in free text, graded by a language model behind an HTTP server that speaks OpenAI's chat protocol."""

import json
from pathlib import Path

import gymnasium

from envs import TaskEnv
from envs.judges import Judge

RUBRIC = {"reason": {"ask": "Does it give the reason that the right answer gives?", "points": 10}}


class Judged(TaskEnv):
    """Explain something in a sentence or two.

    Args:
        path: A jsonl file of rows with a "question" and a "reference".
        judge: Settings of `envs.judges.Judge`, such as {"model": "judge", "cache": "verdicts"}.
    """

    def __init__(self, *, path, judge, correct_reward=1.0, wrong_reward=0.0):
        super().__init__(correct_reward=correct_reward, wrong_reward=wrong_reward)
        self.rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
        self.num_rows = len(self.rows)
        self.judge = Judge(**{"rubric": RUBRIC, "pass_mark": 0.8, "max_characters": 2_000, **judge})

    def row(self, index):
        row = self.rows[index]
        return {"prompt": f"{row['question']} Explain it in one or two sentences.", **row}

    def verify(self, row, completion):
        return self.judge(row["question"], completion, reference=row["reference"])

    def solution(self, index):
        return self.rows[index]["reference"]


gymnasium.register("judge/Explain-v0", "judged:Judged")
