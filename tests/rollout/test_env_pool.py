"""Several answers judged at once: only where the task allows it, in order, and with nothing shared."""

from __future__ import annotations

import threading

import pytest

from dapo_trl.errors import RewardError
from dapo_trl.rollout.episode import Episode
from dapo_trl.rollout.episode_runner import EnvPool
from envs import Completion, OverlongPenalty, TaskEnv


class Together(TaskEnv):
    """EnvPool nobody before two are there."""

    num_rows = 100
    max_turns = 9
    concurrent = True
    both = threading.Barrier(2, timeout=30)

    def row(self, index):
        return {"prompt": f"{index}?", "answer": str(index)}

    def reply(self, row, turns):
        self.both.wait()
        return None if turns[-1] == row["answer"] else f"not {turns[-1]}"

    def verify(self, row, completion):
        return completion == row["answer"]


class Alone(TaskEnv):
    """Remembers which thread judged."""

    num_rows = 100
    threads: set[str] = set()  # noqa: RUF012

    def row(self, index):
        return {"prompt": f"{index}?"}

    def verify(self, row, completion):
        self.threads.add(threading.current_thread().name)
        return True


def said(*texts):
    return [Completion(text, n_tokens=1, finish_reason="stop") for text in texts]


def test_two_at_once_each_with_its_own_episode_and_in_order():
    env = OverlongPenalty(Together(), max_length=5)
    judges, told = EnvPool(env), []
    episodes = [Episode(env, index) for index in range(6)]
    replies = judges.step(episodes, said("x", "1", "x", "3", "x", "5"), lambda *done: told.append(done))
    assert replies == ["not x", None] * 3 and told == [(done, 6) for done in range(1, 7)]
    left = episodes[::2]
    assert judges.step(left[:2], said("0", "y")) == [None, "not y"]
    assert judges.step([left[1], left[2]], said("2", "4")) == [None, None]
    assert [episode.outcome.reward for episode in episodes] == [1.0] * 6


def test_one_after_another_in_this_thread_unless_the_task_says_otherwise():
    env = Alone()
    judges = EnvPool(env)
    assert judges.threads == 1
    judges.step([Episode(env, index) for index in range(9)], said(*"abcdefghi"))
    assert Alone.threads == {threading.current_thread().name}


def test_an_error_ends_it_and_names_the_row():
    class Fails(Alone):
        concurrent = True
        asked = 0

        def verify(self, row, completion):
            type(self).asked += 1
            raise KeyError(row["prompt"])

    env = Fails()
    with pytest.raises(RewardError, match=r"env Fails, index \d+: step\(\) raised KeyError"):
        EnvPool(env).step([Episode(env, index) for index in range(100)], said(*["x"] * 100))
    assert Fails.asked < 100
