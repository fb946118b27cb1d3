"""The wiring, without a judge: what it is asked, and what an outage costs."""

import gymnasium
import my_task  # noqa: F401  # registers the environment

from envs import Judgement

NOWHERE = {"model": "judge", "url": "http://127.0.0.1:9/v1", "request_seconds": 0.2, "vote_seconds": 0.2}


def ask(env, answer):
    env.reset(options={"index": 0})
    return env.step(answer)[4]


def test_the_judge_decides():
    env = gymnasium.make("my_task/MyTask-v0", judge=NOWHERE)
    env.unwrapped.judge = lambda question, answer, reference: Judgement.of(answer == reference)
    assert ask(env, env.unwrapped.solution(0))["verdict"] == "correct"
    assert ask(env, env.unwrapped.solution(1))["verdict"] == "wrong"


def test_a_judge_that_is_not_there_costs_the_model_nothing():
    assert ask(gymnasium.make("my_task/MyTask-v0", judge=NOWHERE), "Because.")["verdict"] == "infra_failure"
