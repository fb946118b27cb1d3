"""What is replied and paid, and that nothing else is."""

import gymnasium
import my_task  # noqa: F401  # registers the environment

import envs


def test_an_episode_of_two_turns():
    env = gymnasium.make("my_task/MyTask-v0")
    env.reset(options={"index": 0})
    first, second, third = env.unwrapped.numbers[0]
    reply, reward, over, *_ = env.step(f"Answer: {first + second}")
    assert f"{first + second} + {third}" in reply and (reward, over) == (0.0, False)
    assert env.step(f"Answer: {first + second + third}")[1:3] == (1.0, True)


def test_a_turn_without_a_number_ends_the_episode():
    env = gymnasium.make("my_task/MyTask-v0")
    env.reset(options={"index": 0})
    _, reward, over, _, info = env.step("I do not know.")
    assert (reward, over, info["verdict"]) == (0.0, True, "no_answer")


def test_the_reward_is_sound():
    envs.check_reward_env("my_task/MyTask-v0", rows=8, strict=True)
