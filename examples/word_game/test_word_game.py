"""The game: what is marked, how it ends, and that its reward is sound."""

import gymnasium
import pytest
from word_game import GUESSES, marks

import envs


@pytest.mark.parametrize(
    ("guess", "secret", "marked"),
    [
        ("apple", "apple", "+++++"),
        ("bring", "cloud", "-----"),
        ("pearl", "apple", "???-?"),
        ("sheet", "these", "?++??"),
        ("happy", "apple", "-?+?-"),
        ("geese", "these", "--+++"),
    ],
)
def test_letters_are_marked_once_each(guess, secret, marked):
    assert marks(guess, secret) == marked


def play(env, *guesses):
    env.reset(options={"index": 0})
    for guess in guesses:
        observation, reward, over, _, info = env.step(guess)
        if over:
            break
    return observation, reward, over, info


def test_a_game_is_won_with_the_secret_and_lost_after_six_guesses():
    env = gymnasium.make("word_game/Words-v0").unwrapped
    secret = env.secrets[0]
    other = next(word for word in env.secrets if word != secret)
    assert play(env, other, f" {secret.title()}\n")[1:3] == (1.0, True)
    assert play(env, *[other] * (GUESSES - 1))[2] is False
    _, reward, over, info = play(env, *[other] * GUESSES)
    assert (reward, over, info["verdict"]) == (0.0, True, "wrong")


def test_a_turn_that_is_no_word_is_answered_and_costs_a_guess():
    env = gymnasium.make("word_game/Words-v0").unwrapped
    observation, _, over, _ = play(env, "I guess apple")
    assert observation == "That is not one word of five letters." and not over
    assert play(env, *["two words"] * GUESSES)[3]["verdict"] == "no_answer"


def test_the_splits_share_no_secret():
    train, test = (
        set(gymnasium.make("word_game/Words-v0", split=split).unwrapped.secrets) for split in ("train", "test")
    )
    assert len(train) == 120 and len(test) == 31 and not train & test


def test_the_reward_is_sound():
    envs.check_reward_env("word_game/Words-v0", rows=8)
