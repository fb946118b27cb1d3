"""Rows, episodes, failures and rules of environments from other packages, with one that can be made to break any."""

from __future__ import annotations

import copy
import itertools
import math
import random
import threading
from dataclasses import dataclass, field

import pytest
from gymnasium.envs.registration import load_env_creator

from envs import Completion
from envs.contract import contradictions, read_reset
from envs.description import arguments, misfit
from envs.interop.doors import DOORS
from envs.interop.foreign import ForeignEnv, ForeignWarning, RuleError, untouched_generators
from envs.interop.sessions import AwayError, CapacityError, Reply, SessionError, Shown


@dataclass
class Server:
    """Holds the sessions of a counting game: it is won by saying the row's number after two turns of any text."""

    capacity: int = 1_000
    prompt: str = "row {index}"
    away: bool = False
    broken: str = ""
    seeded: bool = True
    opened: int = 0
    played: list[str] = field(default_factory=list)
    sessions: set = field(default_factory=set)
    draws: itertools.count = field(default_factory=itertools.count)

    def connect(self):
        if self.away:
            raise AwayError("the server is away")
        if len(self.sessions) >= self.capacity:
            raise CapacityError("the server is full")
        session = _Session(self)
        self.sessions.add(session)
        self.opened += 1
        return session


class _Session:
    def __init__(self, server):
        self.server = server

    def reset(self, index):
        if self.server.away:
            raise AwayError("the server is away")
        self.index, self.turns = index, 0
        self.hidden = 0 if self.server.seeded else next(self.server.draws)
        return Shown(self.server.prompt.format(index=index, draw=next(self.server.draws)), {"level": index % 3})

    def step(self, action):
        if self.server.away or self.server.broken == action:
            raise SessionError("the server broke")
        self.turns += 1
        self.server.played.append(str(action))
        if self.turns < 3:
            return Reply(f"turn {self.turns} of {self.index}, {self.hidden}", 0.25)
        return Reply("", 0.5 * (action == str(self.index)), True, {"cause": "three turns"})

    def close(self):
        self.server.sessions.discard(self)


class Counting(ForeignEnv):
    def __init__(self, server, **settings):
        self.server = server
        super().__init__(**{"patience": 0.01, **settings})

    def _connect(self):
        return self.server.connect()


def play(env, index, *actions):
    env.reset(options={"index": index})
    return [env.step(action) for action in actions]


def test_an_episode_adds_its_rewards_up_and_ends_with_a_verdict():
    env = Counting(Server())
    assert read_reset(env.reset(options={"index": 7})) == ("row 7", {"index": 7, "level": 1})
    first, second, last = play(env, 7, "a", "b", "7")
    assert first == ("turn 1 of 7, 0", 0.25, False, False, {"index": 7, "rewards": {"correctness": 0.25}})
    assert second[:4] == ("turn 2 of 7, 0", 0.25, False, False)
    assert last[:4] == ("", 0.5, True, False)
    assert (last[4]["verdict"], last[4]["accuracy"], last[4]["cause"]) == ("correct", 1.0, "three turns")
    wrong = play(env, 7, "a", "b", "8")[-1]
    assert (wrong[4]["verdict"], wrong[4]["accuracy"]) == ("wrong", 0.5)
    assert not [fault for step in (first, second, last, wrong) for fault in contradictions(step)]
    assert env.server.opened <= 2  # sessions are used again


def test_rows_are_drawn_by_the_seed_and_a_row_out_of_range_is_refused():
    env = Counting(Server(), num_rows=9)
    assert env.reset(seed=3) == env.reset(seed=3)
    with pytest.raises(IndexError, match="0 to 8"):
        env.reset(options={"index": 9})


@pytest.mark.parametrize("capacity", [1, 2, 5])
def test_more_episodes_than_sessions_are_played_again_when_their_turn_comes(capacity):
    server = Server(capacity=capacity)
    env = Counting(server)
    episodes = []
    for index in range(7):
        env.reset(options={"index": index})
        assert env.step("a")[0] == f"turn 1 of {index}, 0"
        episodes.append(copy.deepcopy(env))  # as an episode goes on in a copy of its own
    for index, episode in enumerate(episodes):
        assert episode.step("b")[0] == f"turn 2 of {index}, 0"
    for index, episode in enumerate(episodes):
        assert episode.step(str(index))[4]["verdict"] == "correct"
    assert len(server.sessions) <= capacity


def test_the_original_of_a_copy_goes_on_as_well():
    env = Counting(Server())
    env.reset(options={"index": 4})
    env.step("a")
    twin = copy.deepcopy(env)
    assert twin.step("b")[0] == env.step("c")[0] == "turn 2 of 4, 0"
    assert (twin.step("4")[1], env.step("5")[1]) == (0.5, 0.0)


def test_episodes_in_threads_share_few_sessions():
    env = Counting(Server(capacity=3))
    found = {}

    def work(number, own):
        for index in range(number, 60, 6):
            found[index] = [step[1] for step in play(own, index, "a", "b", str(index))]

    threads = [threading.Thread(target=work, args=(number, copy.deepcopy(env))) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {index: [0.25, 0.25, 0.5] for index in range(60)}


def test_sessions_of_abandoned_episodes_are_used_again():
    server = Server()
    env = Counting(server)
    before = len(server.sessions)
    for index in range(20):
        env.reset(options={"index": index})
        env.step("a")
        copy.deepcopy(env)
    assert len(server.sessions) <= before + 2


def test_a_failure_while_an_answer_is_judged_is_no_wrong_answer():
    server = Server()
    env = Counting(server)
    env.reset(options={"index": 1})
    env.step("a")
    server.broken = "x"
    step = env.step("x")
    assert math.isnan(step[1]) and step[2] and step[4]["verdict"] == "infra_failure" and "broke" in step[4]["cause"]
    assert not list(contradictions(step))
    server.broken = ""
    assert play(env, 1, "a", "b", "1")[-1][4]["verdict"] == "correct"


def test_a_server_that_is_away_costs_the_answers_and_a_prompt_is_waited_for():
    server = Server()
    env = Counting(server)
    env.reset(options={"index": 5})
    server.away = True
    assert env.reset(options={"index": 5}) == ("row 5", {"index": 5, "level": 2})  # the prompt is known
    assert env.step("a")[4]["verdict"] == "infra_failure"
    with pytest.raises(AwayError, match="away"):
        env.reset(options={"index": 6})
    env.patience = 60.0
    back = threading.Timer(0.3, lambda: setattr(server, "away", False))
    back.start()
    assert env.reset(options={"index": 6})[0] == "row 6"
    back.join()


def test_an_episode_that_does_not_repeat_is_unknown_not_wrong():
    server = Server(capacity=1, seeded=False)
    env = Counting(server)
    env.reset(options={"index": 1})
    env.step("a")
    first = copy.deepcopy(env)
    play(env, 2, "a")  # takes the only session
    step = first.step("b")
    assert step[4]["verdict"] == "infra_failure" and "goes on differently at action 1" in step[4]["cause"]


def test_a_row_that_shows_another_prompt_later_is_unknown_not_a_crash():
    server = Server()
    env = Counting(server)
    prompt = env.reset(options={"index": 3})[0]
    server.prompt = "another {index}"
    assert env.reset(options={"index": 3})[0] == prompt
    assert "another prompt" in env.step("a")[4]["cause"]


def test_the_turn_limit_and_a_cut_off_answer_truncate_the_episode():
    env = Counting(Server(), max_turns=2)
    last = play(env, 1, "a", "b")[-1]
    assert last[2:4] == (False, True) and last[4]["accuracy"] == 0.5
    cut = play(env, 1, Completion("a", n_tokens=4, finish_reason="length"))[-1]
    assert cut[2:4] == (False, True) and cut[4]["verdict"] == "wrong"
    out_of_tokens = play(env, 1, "a", Completion("", n_tokens=0, finish_reason="length"))[-1]
    assert out_of_tokens[1:4] == (0.0, False, True) and out_of_tokens[4]["accuracy"] == 0.25
    assert "" not in env.server.played


def test_prompts_that_follow_no_seed_are_refused_at_once_with_the_rule():
    with pytest.raises(RuleError, match="a row always shows the same prompt: row 0 shows 'row 0 0', then 'row 0 1'"):
        Counting(Server(prompt="row {index} {draw}"))
    env = Counting(Server(prompt="row {index} {draw}"), check=False)
    assert env.reset(options={"index": 2})[0] == "row 2 0"  # for people to look at


def test_rows_that_look_alike_are_a_warning_that_says_what_works():
    with pytest.warns(ForeignWarning, match="rows have prompts of their own.*training and evaluation work"):
        env = Counting(Server(prompt="the same"))
    assert [rule.usable for rule in env.broken_rules] == [True]


@pytest.mark.parametrize("settings", [{"num_rows": 0}, {"max_turns": True}, {"timeout": math.inf}, {"best_reward": 0}])
def test_a_setting_that_cannot_be_is_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        Counting(Server(), **settings)


def test_every_argument_is_named_and_explained():
    for door, (entry_point, argument) in DOORS.items():
        explained = arguments(load_env_creator(entry_point))
        assert {argument, "num_rows", "best_reward", "check"} <= set(explained)
        assert not [name for name, line in explained.items() if name != argument and ": " not in line], door
    assert "unexpected keyword argument 'split'" in misfit("textarena:TicTacToe-v0", {"split": "test"})


def test_generators_are_left_as_they_were_and_a_game_keeps_its_own():
    random.seed(5)
    expected = random.random(), random.random()
    random.seed(5)
    own = []
    with untouched_generators(own):
        random.seed(1)
        first = random.random()
    assert random.random() == expected[0]
    with untouched_generators(own):
        second = random.random()
    assert random.random() == expected[1]
    random.seed(1)
    assert (random.random(), random.random()) == (first, second)
