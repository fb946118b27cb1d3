"""Games of textarena, against textarena itself."""

from __future__ import annotations

import copy
import random
import shlex

import numpy as np
import pytest
import yaml

import envs
from dapo_trl.cli.main import main
from dapo_trl.rollout.environments import make_env
from envs.interop.foreign import untouched_generators
from envs.reward_check.probe_answers import worthless

from . import commands, shown

ta = pytest.importorskip("textarena", reason="textarena is not installed: pip install 'dapo-trl[textarena]'")


def directly(game, seed, actions):
    """The prompt, the reward and the number of actions that textarena itself gives."""
    with untouched_generators([]):
        random.seed(seed)
        env = ta.make(game)
        env.reset(num_players=1, seed=seed)
        prompt = env.get_observation()[1]
        for number, action in enumerate(actions, 1):
            done, _ = env.step(action)
            env.get_observation()
            if done:
                return prompt.strip(), env.close()[0][0], number
    return prompt.strip(), None, len(actions)


@pytest.mark.parametrize("game", ["GuessTheNumber-v0", "FrozenLake-v0-random", "Mastermind-v0"])
def test_a_game_alone_pays_what_textarena_pays(game):
    env = envs.make(f"textarena:{game}")
    prompts = set()
    moves = ["[1]", "[7]", "[12]", "[right]", "[down]", "[1 2 3 4]", "[4 3 2 1]", "[5 6 1 2]"]
    for seed in range(100):
        hostile = list(worthless(seed).values())
        for opening in ([], [hostile[seed % len(hostile)]]):
            actions = [*opening, *random.Random(seed).choices(moves, k=30), *hostile]
            prompt, expected, count = directly(game, seed, actions)
            assert env.reset(options={"index": seed})[0] == prompt
            steps = []
            for action in actions:
                steps.append(env.step(action))
                if steps[-1][2] or steps[-1][3]:
                    break
            assert (steps[-1][1], len(steps)) == (expected, count)
            prompts.add(prompt)
    assert (len(prompts) > 50) == (game == "FrozenLake-v0-random")


def test_an_opponent_plays_the_other_places_by_the_seed():
    for player in (0, 1):
        env = envs.make("textarena:TicTacToe-v0", player=player)
        games = {}
        for seed in [0, 1, 2, 3, 0]:
            env.reset(options={"index": seed})
            replies = []
            for cell in range(9):
                step = env.step(f"[{cell}]")
                replies.append(step[0])
                if step[2]:
                    break
            assert step[1] in (-1.0, 0.0, 1.0) and 0.0 <= step[4]["accuracy"] <= 1.0 and step[4]["cause"]
            assert games.setdefault(seed, replies) == replies
        assert len({tuple(replies) for replies in games.values()}) > 1


def last_move(observation, generator):
    return [line for line in observation.splitlines() if "Available" in line][-1].rsplit("'", 2)[1]


def test_an_opponent_of_ones_own_and_a_game_that_needs_one():
    env = envs.make("textarena:TicTacToe-v0", opponent=f"{__name__}:last_move")
    env.reset(options={"index": 0})
    assert "[Player 1] [8]" in env.step("[0]")[0]
    with pytest.raises(ValueError, match="name an opponent of yours"):
        envs.make("textarena:ConnectFour-v0")
    with pytest.raises(ValueError, match="TicTacToe-v0"):
        envs.make("textarena:TicTacTo-v0")


def test_the_global_generators_and_copies_are_untouched():
    env = envs.make("textarena:FrozenLake-v0-random")
    random.seed(3), np.random.seed(3)
    before = random.getstate(), np.random.get_state()[1].tolist()
    env.reset(options={"index": 1})
    env.step("[right]")
    twin = copy.deepcopy(env)
    assert env.step("[down]") == twin.step("[down]")
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_the_commands_of_the_page(capsys):
    lines = [shlex.split(line)[1:] for line in commands() if " show textarena:" in line]
    assert len(lines) == 2
    for words in lines:
        assert main(words) == 0
    assert "Guess The Number" in capsys.readouterr().out
    (settings,) = (yaml.safe_load(block) for block in shown("yaml"))
    assert make_env(settings["env"], **settings["env_kwargs"]).unwrapped.max_turns == 20


def test_the_reply_is_new_to_the_model_and_does_not_repeat_its_action():
    env = envs.make("textarena:GuessTheNumber-v0")
    env.reset(options={"index": 1})
    reply = env.step("I say [1]")[0]
    assert reply == "[GAME] The target number is higher."
