"""Judging beside generation: as many at once as the environment allows, and nothing that depends on when it ends."""

from __future__ import annotations

import random
import threading
import time

import gymnasium
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dapo_trl import DAPOTrainer
from dapo_trl.errors import ConfigError, RewardError
from dapo_trl.evaluation import Sampling, evaluate
from dapo_trl.rollout.chat_format import ChatFormat
from dapo_trl.rollout.episode import Episode
from dapo_trl.rollout.episode_runner import EnvPool, run_episodes
from dapo_trl.rollout.trl_bridge import EnvironmentReward
from envs import OverlongPenalty, TaskEnv

from ..support.recorded import config, weights
from ..support.tiny import byte_tokenizer

WAIT = 30.0
"""Seconds after which what never comes is given up."""


class Sums(TaskEnv):
    """A question is asked again, anything else ends the episode; notes what is judged at once, and where."""

    num_rows = 64
    max_turns = 3

    def __init__(self, at_once=1, delays=None):
        super().__init__()
        self.max_concurrency, self.delays = at_once, delays
        self.threads, self.inside, self.most, self.lock = set(), [], [0], threading.Lock()

    def row(self, index):
        return {"prompt": f"{index}? ", "answer": str(index)}

    def reply(self, row, turns):
        with self.noted():
            return f"not {turns[-1]}" if turns[-1].endswith("?") else None

    def verify(self, row, completion):
        with self.noted():
            return completion == row["answer"]

    def noted(self):
        return Noted(self)


class Noted:
    def __init__(self, env):
        self.env = env

    def __enter__(self):
        env = self.env
        with env.lock:
            env.threads.add(threading.current_thread())
            env.inside.append(1)
            env.most[0] = max(env.most[0], len(env.inside))
        if env.delays is not None:
            time.sleep(env.delays.random() * 0.01)

    def __exit__(self, *_):
        self.env.inside.pop()


class Speaker:
    """Says a line of each row's, turn by turn, and reports the rows in an order of its own before it returns."""

    def __init__(self, lines, order=None, reported=lambda: None):
        self.tokenizer = byte_tokenizer()
        self.lines, self.order, self.reported = lines, order, reported
        self.turn = 0

    def __call__(self, contexts, room, on_finished):
        texts = [lines[self.turn] for lines in self.lines if len(lines) > self.turn]
        self.turn += 1
        turns = [[*self.tokenizer(text)["input_ids"], self.tokenizer.eos_token_id] for text in texts]
        assert len(turns) == len(contexts)
        if self.order is not None:
            for place in self.order.sample(range(len(turns)), len(turns) // 2 + 1):
                on_finished(place, turns[place])
            self.reported()
        return turns, None


LINES = [["x?", "y?", "2"], ["1"], ["x?", "2"], ["x?", "3"], ["4"], ["x"], ["x?", "too long?"], ["7"]]


def played(env, speaker, limit=22):
    episodes = [Episode(env, index) for index in range(len(LINES))]
    tokenizer = speaker.tokenizer
    chat_format = ChatFormat(tokenizer, [tokenizer.eos_token_id])
    prompts = [tokenizer(f"{index}? ")["input_ids"] for index in range(len(LINES))]
    how = {"chat_format": chat_format, "limit": limit, "on_judged": speaker.judged}
    with EnvPool(env).open() as submit:
        transcripts = run_episodes(episodes, prompts, speaker, submit=submit, **how)
    return [(episode.outcome, transcript) for episode, transcript in zip(episodes, transcripts, strict=True)]


def started(lines=LINES, **options):
    speaker = Speaker(lines, **options)
    speaker.counts = []
    speaker.judged = lambda done, total: speaker.counts.append((done, total))
    return speaker


def judging_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("judge")]


def test_whatever_judging_takes_and_whenever_a_turn_ends_the_results_are_the_same():
    plain = started()
    expected = played(OverlongPenalty(Sums(), max_length=5), plain)
    assert plain.counts == [(n, 8) for n in range(1, 9)] + [(n, 4) for n in range(1, 5)] + [(1, 1)]
    assert {outcome.verdict for outcome, _ in expected} == {"correct", "wrong"}
    assert any(transcript.truncated for _, transcript in expected)
    for seed in range(6):
        env = Sums(3, random.Random(seed))
        speaker = started(order=random.Random(seed))
        assert played(OverlongPenalty(env, max_length=5), speaker) == expected
        assert speaker.counts == plain.counts and env.most[0] <= 3
    assert not judging_threads()


def test_a_turn_is_judged_while_others_are_generated():
    env, judged = Sums(2), threading.Event()
    env.verify = lambda row, completion: bool(judged.set()) or True
    speaker = started(order=random.Random(0), reported=lambda: judged.wait(WAIT) or pytest.fail("nothing was judged"))
    played(env, speaker)


def test_as_many_are_judged_at_once_as_the_environment_allows():
    together = threading.Barrier(4, timeout=WAIT)
    env = Sums(8)
    env.verify = lambda row, completion: together.wait() >= 0
    with EnvPool(env, processes=2).open() as submit:
        episodes = [Episode(env, index) for index in range(8)]
        for result in [submit(episode, episode.truncate) for episode in episodes]:
            result()
    assert EnvPool(Sums(8), processes=2).threads == 4 and EnvPool(Sums(2), processes=8).threads == 1
    assert EnvPool(Sums("cores"), processes=64).threads == 2


def test_completions_that_somebody_else_generated_are_judged_at_once_too():
    env, together = Sums(3), threading.Barrier(3, timeout=WAIT)
    env.verify = lambda row, completion: bool(together.wait() >= 0) and completion == row["answer"]
    reward, tokenizer = EnvironmentReward(env), byte_tokenizer()
    reward.chat_format = ChatFormat(tokenizer, [tokenizer.eos_token_id])
    ids = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in ("0", "x", "2")]
    questions = ["0? ", "1? ", "2? "]
    assert reward(questions, ids, questions, [0, 1, 2]) == [1.0, 0.0, 1.0]


def test_one_after_another_in_this_thread_where_the_environment_says_nothing():
    env = Sums()
    assert EnvPool(env).threads == 1
    played(env, started(order=random.Random(0)))
    assert env.threads == {threading.current_thread()} and env.most == [1]


def test_a_wrapper_may_say_how_many():
    class AloneAgain(gymnasium.Wrapper):
        max_concurrency = 1

    env = Sums(8)
    assert EnvPool(OverlongPenalty(env, max_length=5)).threads == 8
    assert EnvPool(AloneAgain(OverlongPenalty(env, max_length=5))).threads == 1


@pytest.mark.parametrize("allowed", [0, -1, 2.5, True, None, "all"])
def test_what_is_no_number_of_judgements(allowed):
    with pytest.raises(ConfigError, match=r"env Sums has max_concurrency .*: it must be 1 or more, or 'cores'"):
        EnvPool(Sums(allowed))


def test_an_error_names_the_first_row_that_has_one_and_ends_the_rest():
    class Fails(Sums):
        asked = 0

        def verify(self, row, completion):
            type(self).asked += 1
            if int(row["answer"]) % 2:
                raise KeyError(row["prompt"])
            time.sleep(0.001)
            return True

    for at_once in (1, 3):
        Fails.asked, env = 0, Fails(at_once)
        episodes = [Episode(env, index) for index in range(64)]
        named = pytest.raises(RewardError, match=r"env Fails, index 1: step\(\) raised KeyError: '1\? '")
        with named, EnvPool(env).open() as submit:
            for result in [submit(episode, episode.truncate) for episode in episodes]:
                result()
        assert Fails.asked < 64 and not judging_threads()


def test_an_interrupt_leaves_nothing_behind():
    env, begun, release = Sums(2), threading.Semaphore(0), threading.Event()
    asked = []

    def verify(row, completion):
        asked.append(row["answer"])
        begun.release()
        return release.wait(WAIT)

    def interrupt():
        assert begun.acquire(timeout=WAIT) and begun.acquire(timeout=WAIT)
        threading.Timer(0.05, release.set).start()
        raise KeyboardInterrupt

    env.verify = env.reply = verify
    with pytest.raises(KeyboardInterrupt):
        played(env, started(order=random.Random(0), reported=interrupt))
    assert len(asked) == 2 and not judging_threads()  # what had begun was awaited


def test_a_backend_that_returns_other_tokens_than_it_reported():
    speaker = started()

    def generate(contexts, room, on_finished):
        on_finished(2, [65, 66, speaker.tokenizer.eos_token_id])
        return speaker(contexts, room, on_finished)

    generate.tokenizer, generate.judged = speaker.tokenizer, speaker.judged
    with pytest.raises(ConfigError, match="called on_finished with 3 tokens for context 2 and returned 3 tokens that"):
        played(Sums(2), generate)


class Letters(TaskEnv):
    """Asks again after a turn of odd length; judged in random time."""

    num_rows, max_turns = 12, 3

    def __init__(self, max_concurrency=1):
        super().__init__()
        self.max_concurrency = max_concurrency

    def row(self, index):
        return {"prompt": f"row {index}: "}

    def reply(self, row, turns):
        self.dawdle()
        return "ask on\n" if len(turns[-1]) % 2 else None

    def verify(self, row, completion):
        self.dawdle()
        return any(letter in "ae" for letter in completion)

    def dawdle(self):
        if self.max_concurrency != 1:
            time.sleep(random.random() * 0.003)


def test_a_run_is_the_same_to_the_last_bit_and_so_is_an_evaluation(tiny_model, tmp_path):
    def trained(at_once):
        trainer = DAPOTrainer(tiny_model, args=config(tmp_path / str(at_once), max_steps=2), env=Letters(at_once))
        trainer.train()
        logs = [
            {name: value for name, value in log.items() if not set(name.split("_")) & {"time", "seconds", "runtime"}}
            for log in trainer.state.log_history
        ]
        return weights(trainer), [log.get("reward") for log in logs], [log.get("loss") for log in logs]

    (alone, *logs), (together, *others) = trained(1), trained(5)
    assert logs == others and all(torch.equal(alone[name], together[name]) for name in alone)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    sampling = Sampling(top_p=1.0, max_completion_length=24)
    alone, together = (evaluate(model, tokenizer, Letters(n), range(12), k=4, sampling=sampling) for n in (1, 5))
    assert (alone.accuracy == together.accuracy).all() and (alone.lengths == together.lengths).all()
    assert 0 < alone.accuracy.mean() < 1
