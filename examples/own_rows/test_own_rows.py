"""The rows: each solution is right, none is in both files, and the reward is sound."""

import json
from pathlib import Path

import gymnasium

import envs

DATA = Path(__file__).parent / "data"
COLUMNS = {"prompt_column": "question", "answer_column": "solution"}


def test_every_solution_earns_the_reward():
    for name in ("train", "test"):
        env = gymnasium.make("math/Problem-v0", path=DATA / f"{name}.jsonl", **COLUMNS)
        for index in range(env.unwrapped.num_rows):
            env.reset(options={"index": index})
            assert env.step(env.unwrapped.solution(index))[4]["verdict"] == "correct"


def test_no_question_is_in_both_files():
    train, test = (
        {json.loads(line)["question"] for line in (DATA / name).open()} for name in ("train.jsonl", "test.jsonl")
    )
    assert len(train) == 160 and len(test) == 40 and not train & test


def test_the_reward_is_sound():
    envs.check_reward_env("math/Problem-v0", env_kwargs={"path": str(DATA / "train.jsonl"), **COLUMNS}, rows=8)
