"""The overlong penalty: both formulas against values worked out by hand, and the wrapper."""

import math

import gymnasium
import pytest
from gymnasium.envs.registration import EnvSpec
from hypothesis import given
from hypothesis import strategies as st

from envs import Completion, OverlongPenalty, TaskEnv, Verdict, overlong_penalty


@pytest.mark.parametrize(("length", "penalty"), [(0, 0.0), (100, 0.0), (101, -0.01), (150, -0.5), (300, -2.0)])
def test_linear(length, penalty):
    assert overlong_penalty(length, max_length=100) == pytest.approx(penalty)


@pytest.mark.parametrize(
    ("length", "penalty"),
    [(0, 0.0), (16384, 0.0), (16385, -1 / 4096), (18432, -0.5), (20480, -1.0), (20481, -1.0), (10**6, -1.0)],
)
def test_soft_with_the_lengths_of_the_paper(length, penalty):
    assert overlong_penalty(length, shape="soft", max_length=20480, cache_length=4096) == pytest.approx(penalty)


@pytest.mark.parametrize(("length", "penalty"), [(0, 0.0), (100, 0.0), (101, -1.0)])
def test_soft_without_a_cache_is_a_step(length, penalty):
    assert overlong_penalty(length, shape="soft", max_length=100) == penalty


@given(
    length=st.integers(0, 5000),
    shape=st.sampled_from(["linear", "soft"]),
    max_length=st.integers(2, 3000),
    data=st.data(),
)
def test_never_positive_and_never_rising_with_length(length, shape, max_length, data):
    cache_length = data.draw(st.integers(0, max_length - 1))
    settings = {"shape": shape, "max_length": max_length, "cache_length": cache_length}
    assert overlong_penalty(length + 1, **settings) <= overlong_penalty(length, **settings) <= 0


BAD_SETTINGS = [
    ({"max_length": 0}, r"max_length=0 must be at least 1 \(tokens\)"),
    ({"max_length": 10, "cache_length": 10}, r"cache_length=10 must be in \[0, max_length=10\)"),
    ({"max_length": 10, "cache_length": -1}, r"cache_length=-1 must be in \[0, max_length=10\)"),
    ({"max_length": 10, "coefficient": -0.1}, r"coefficient=-0.1 must be finite and at least 0"),
    ({"max_length": 10, "coefficient": math.nan}, r"coefficient=nan must be finite"),
    ({"max_length": 10, "shape": "hard"}, r"shape='hard' must be 'linear' or 'soft'"),
]


@pytest.mark.parametrize(("settings", "message"), BAD_SETTINGS)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        overlong_penalty(5, **settings)
    with pytest.raises(ValueError, match=message):
        OverlongPenalty(gymnasium.make("math/Arithmetic-v0"), **settings)


def test_negative_length():
    with pytest.raises(ValueError, match=r"length=-1 must be at least 0"):
        overlong_penalty(-1, max_length=10)


def wrapped(**settings):
    env = OverlongPenalty(gymnasium.make("math/Arithmetic-v0"), **settings)
    env.reset(options={"index": 3})
    return env, env.unwrapped.solution(3)


def test_wrapper_adds_its_component_and_leaves_accuracy_alone():
    env, solution = wrapped(max_length=10)
    _, reward, terminated, truncated, info = env.step(Completion(solution, n_tokens=60))
    assert reward == pytest.approx(0.5)
    assert (terminated, truncated, info["accuracy"], info["verdict"]) == (True, False, 1.0, "correct")
    assert info["rewards"] == {"correctness": 1.0, "overlong": pytest.approx(-0.5)}
    assert sum(info["rewards"].values()) == pytest.approx(reward)


def test_wrapper_needs_the_length_and_says_so_before_the_episode_is_spent():
    env, solution = wrapped(max_length=10)
    for action in (solution, Completion(solution)):
        with pytest.raises(ValueError, match=r"send Completion\(text, n_tokens=...\)"):
            env.step(action)
    assert env.step(Completion(solution, n_tokens=5))[1] == 1.0


class Failing(TaskEnv):
    num_rows = 1

    def row(self, index):
        return {"prompt": "?"}

    def verify(self, row, completion):
        return Verdict.INFRA_FAILURE


def test_nan_stays_nan():
    env = OverlongPenalty(Failing(), max_length=10)
    env.reset()
    _, reward, _, _, info = env.step(Completion("x", n_tokens=60))
    assert math.isnan(reward) and math.isnan(info["accuracy"]) and info["rewards"]["overlong"] == -0.5


def test_spec_survives_json():
    env, solution = wrapped(shape="soft", max_length=20, cache_length=10)
    twin = gymnasium.make(EnvSpec.from_json(env.spec.to_json()))
    twin.reset(options={"index": 3})
    assert isinstance(twin, OverlongPenalty)
    assert twin.step(Completion(solution, n_tokens=15))[1] == pytest.approx(0.5)
