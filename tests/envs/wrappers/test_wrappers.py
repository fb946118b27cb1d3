"""Reward shaping: the overlong penalty against values worked out by hand, and what all wrappers promise."""

import copy
import itertools
import math

import gymnasium
import pytest
from gymnasium.envs.registration import EnvSpec
from hypothesis import given, settings
from hypothesis import strategies as st

from envs import (
    Completion,
    FormatReward,
    Judgement,
    OverlongPenalty,
    RepetitionPenalty,
    RewardShaping,
    TaskEnv,
    Verdict,
    overlong_penalty,
)


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


@settings(deadline=None)
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


class Told(TaskEnv):
    """Goes on for as many turns as it was told, and finds what it was told to find."""

    num_rows = 4

    def __init__(self, finding=True, max_turns=1):
        super().__init__(wrong_reward=-1.0)
        self.finding, self.max_turns = finding, max_turns

    def row(self, index):
        return {"prompt": "?", "info": {"level": index}}

    def reply(self, row, turns):
        return f"go on {len(turns)}"

    def verify(self, row, completion):
        return self.finding


def test_nan_stays_nan():
    env = OverlongPenalty(Told(Verdict.INFRA_FAILURE), max_length=10)
    env.reset()
    _, reward, _, _, info = env.step(Completion("x", n_tokens=60))
    assert math.isnan(reward) and math.isnan(info["accuracy"]) and info["rewards"]["overlong"] == -0.5


def test_the_length_is_that_of_all_turns_and_counts_once_at_the_end():
    env = OverlongPenalty(Told(max_turns=3), max_length=10)
    for _ in range(2):  # the second episode knows nothing of the first
        env.reset()
        steps = [env.step(Completion("x", n_tokens=20)) for _ in range(3)]
        assert [step[1] for step in steps] == [0.0, 0.0, pytest.approx(1.0 - 0.5)]
        assert [step[4]["rewards"]["overlong"] for step in steps] == [0.0, 0.0, pytest.approx(-0.5)]


def test_spec_survives_json():
    env, solution = wrapped(shape="soft", max_length=20, cache_length=10)
    twin = gymnasium.make(EnvSpec.from_json(env.spec.to_json()))
    twin.reset(options={"index": 3})
    assert isinstance(twin, OverlongPenalty)
    assert twin.step(Completion(solution, n_tokens=15))[1] == pytest.approx(0.5)


# --- what all of them promise

SHAPERS = {
    "overlong": lambda env: OverlongPenalty(env, max_length=30),
    "soft": lambda env: OverlongPenalty(env, shape="soft", max_length=30, cache_length=20),
    "think": lambda env: FormatReward(env, form="think", bonus=0.3, penalty=0.2),
    "boxed": lambda env: FormatReward(env, form=["boxed", "...x..."], every_turn=True),
    "repetition": lambda env: RepetitionPenalty(env, ngram_size=2, max_penalty=0.7),
}
FINDINGS = [True, False, 0.3, Verdict.NO_ANSWER, Verdict.INFRA_FAILURE, Judgement(Verdict.WRONG, 0.1, "almost")]
stacks = st.lists(st.sampled_from(sorted(SHAPERS)), max_size=5)
answers = st.builds(
    Completion,
    st.text(st.sampled_from(list("ab x中")), max_size=40) | st.sampled_from(["<think>a b</think>x", r"\boxed{1} x y"]),
    n_tokens=st.integers(0, 50),
    finish_reason=st.sampled_from(["stop", "length", None]),
)


def episode(env, index, actions):
    """Play until it ends: what `reset` returned, and what every step did."""
    shown, steps = env.reset(options={"index": index}), []
    for action in actions:
        steps.append(env.step(action))
        if steps[-1][2] or steps[-1][3]:
            break
    return shown, steps


def stacked(env, names):
    for name in names:
        env = SHAPERS[name](env)
    return env


def unshaped(steps):
    """All that shaping must leave as it is; NaN made equal to itself."""
    return repr([(step[0], *step[2:4], {**step[4], "rewards": None}) for step in steps])


@settings(deadline=None)
@given(
    stack=stacks,
    finding=st.sampled_from(FINDINGS),
    actions=st.lists(answers, min_size=3, max_size=3),
    index=st.integers(0, 3),
    max_turns=st.integers(1, 3),
)
def test_any_stack_changes_the_reward_and_its_components_alone(stack, finding, actions, index, max_turns):
    task = Told(finding, max_turns)
    shown, bare = episode(task, index, actions)
    shown_shaped, shaped = episode(stacked(task, stack), index, actions)
    assert shown == shown_shaped and unshaped(bare) == unshaped(shaped)
    for before, after in zip(bare, shaped, strict=True):
        rewards = after[4]["rewards"]
        assert next(iter(rewards.values())) == before[1] or math.isnan(before[1])
        assert sum(rewards.values()) == pytest.approx(after[1], abs=1e-12, nan_ok=True)
        assert len(rewards) == 1 + len({SHAPERS[name](task).component for name in stack})
    for step in shaped[:-1]:
        assert step[1] == 0 and set(step[4]["rewards"].values()) == {0.0}


@settings(deadline=None)
@given(
    stack=st.sets(st.sampled_from(sorted(SHAPERS)), min_size=2, max_size=3),
    actions=st.lists(answers, min_size=2, max_size=2),
)
def test_the_order_does_not_matter(stack, actions):
    found = []
    for names in itertools.permutations(sorted(stack)):
        _, steps = episode(stacked(Told(max_turns=2), names), 0, actions)
        found.append((steps[-1][1], steps[-1][4]["rewards"]))
    for reward, rewards in found:
        assert reward == pytest.approx(found[0][0], abs=1e-12)
        assert rewards == pytest.approx(found[0][1], abs=1e-12)


def test_a_copy_in_the_middle_of_an_episode_goes_its_own_way():
    env = stacked(Told(max_turns=2), ["overlong", "think", "repetition"])
    env.reset()
    env.step(Completion("a a a", n_tokens=20))
    twin = copy.deepcopy(env)
    _, reward, _, _, info = env.step(
        Completion("<think>b</think>c", n_tokens=5)
    )  # 10 pairs of words, 8 of them distinct
    assert info["rewards"] == pytest.approx({"correctness": 1, "overlong": 0, "format": 0.3, "repetition": -0.14})
    _, reward, _, _, info = twin.step(Completion("a a a", n_tokens=35))  # four times "a a"
    assert info["rewards"] == pytest.approx({"correctness": 1, "overlong": -0.25, "format": -0.2, "repetition": -0.525})
    assert reward == pytest.approx(0.025)


def test_a_task_without_components_keeps_its_reward_as_one():
    class Plain(gymnasium.Env):
        observation_space = action_space = gymnasium.spaces.Text(10)

        def reset(self, *, seed=None, options=None):
            return "?", {}

        def step(self, action):
            return "", 2.5, True, False, {}

    env = RepetitionPenalty(Plain(), ngram_size=1)
    env.reset()
    assert env.step("a a")[1:] == (2.0, True, False, {"rewards": {"reward": 2.5, "repetition": -0.5}})


class Bad(RewardShaping):
    component = "bad"

    def shape(self, turns):
        return math.nan


def test_a_shape_that_is_no_number_is_refused():
    env = Bad(Told())
    env.reset()
    with pytest.raises(ValueError, match="Bad: shape returned nan: it must be a finite number"):
        env.step("x")


def test_the_spec_of_a_whole_stack_survives_json():
    env = stacked(gymnasium.make("math/Arithmetic-v0", wrong_reward=-1.0), sorted(SHAPERS))
    twin = gymnasium.make(EnvSpec.from_json(env.spec.to_json()))
    for text in (env.unwrapped.solution(3), "<think>no</think>no no no"):
        action = Completion(text, n_tokens=33)
        assert episode(env, 3, [action]) == episode(twin, 3, [action])
