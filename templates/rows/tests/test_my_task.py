"""What is paid, and that nothing else is."""

import gymnasium
import my_task  # noqa: F401  # registers the environment

import envs


def test_a_right_answer_is_paid_and_a_wrong_one_is_not():
    env = gymnasium.make("my_task/MyTask-v0")
    env.reset(options={"index": 0})
    assert env.step(env.unwrapped.solution(0))[1] == 1.0
    env.reset(options={"index": 0})
    _, reward, _, _, info = env.step("Answer: none of these")
    assert (reward, info["verdict"]) == (0.0, "wrong")


def test_the_reward_is_sound():
    envs.check_reward_env("my_task/MyTask-v0", rows=8, strict=True)
