"""What `reset` and `step` may return, and what each message says."""

import math
import re

import numpy as np
import pytest

from envs.contract import ContractError, Step, contradictions, read_reset, read_step


def step(reply="", reward=1.0, terminated=True, truncated=False, info=None):
    return reply, reward, terminated, truncated, {} if info is None else info


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("a prompt", r"reset() returned 'a prompt' (str): return (prompt, info), a str and a dict"),
        (("a", {}, 1), r"reset() returned a tuple of 3: return (prompt, info), a str and a dict"),
        ((7, {}), "reset() returned 7 (int) as the observation: return the prompt as a str"),
        (("a", None), "reset() returned the info None (NoneType): return a dict"),
    ],
)
def test_what_reset_may_not_return(returned, message):
    with pytest.raises(ContractError) as error:
        read_reset(returned)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (step()[:4], "step() returned a tuple of 4: return (observation, reward, terminated, truncated, info)"),
        (1.0, r"step() returned 1.0 (float): return (observation"),
        (list(step()), "(list): return (observation"),
        (step(reward=None), "the reward None (NoneType): return a float"),
        (step(reward="1.0"), "the reward '1.0' (str): return a float"),
        (step(reward=True), "the reward True (bool): return a float"),
        (step(reward=np.bool_(True)), "(bool): return a float"),
        (step(reward=math.inf), "the reward inf (float): return a float"),
        (step(reward=10**5000), "the reward <int without a repr: ValueError> (int): return a float"),
        ((*step()[:4], None), "the info None (NoneType): return a dict"),
        (step(info={"rewards": [1.0]}), 'info["rewards"] [1.0]: return a dict of numbers'),
        (step(info={"rewards": {"a": "x"}}), "info[\"rewards\"] {'a': 'x'}: return a dict of numbers"),
        (step(info={"figures": 7}), 'info["figures"] 7: return a dict of numbers, what a run is to log of it by name'),
        (step(info={"figures": {"a": [1]}}), "info[\"figures\"] {'a': [1]}: return a dict of numbers"),
        (step(info={"accuracy": "high"}), "info[\"accuracy\"] 'high' (str): return the raw correctness"),
        (step(info={"accuracy": 7.0}), 'info["accuracy"] 7.0 (float): return the raw correctness'),
        (step(reply=None, terminated=False), "None (NoneType) as the observation and does not end the episode"),
    ],
)
def test_what_step_may_not_return(returned, message):
    with pytest.raises(ContractError, match=re.escape(message)):
        read_step(returned)


def test_a_step_is_read():
    info = {"accuracy": np.float32(1), "verdict": "correct", "answer": 34, "cause": None, "rewards": {"a": np.int64(2)}}
    info["figures"] = {"calls": np.int32(3)}
    read = read_step(step(reward=np.float64(2), info=info))
    assert read == Step("", 2.0, True, info, {"a": 2.0}, 1.0, "correct", "", "34", {"calls": 3.0})
    assert type(read.reward) is type(read.accuracy) is type(read.rewards["a"]) is float
    assert list(contradictions(step(reward=np.float64(2), info=info))) == []


def test_a_step_of_a_foreign_environment_is_read():
    assert read_step(step(None, reward=np.array(0.5), terminated=1)) == Step("", 0.5, True)
    assert math.isnan(read_step(step(reward=math.nan)).reward)


@pytest.mark.parametrize(
    ("returned", "messages"),
    [
        (step("go on", 0.0, terminated=False), []),
        (step(reward=math.nan, info={"verdict": "infra_failure", "accuracy": math.nan}), []),
        (step(terminated="yes"), ["terminated='yes' (str): return a bool"]),
        (step(None), ['None (NoneType) as the observation: return a str, "" at the end']),
        (step(reward=np.array(1.0)), ["(ndarray): return a float"]),
        (
            step(reward=math.nan),
            ['the reward nan: return a finite number, or NaN together with info["verdict"] = "inf'],
        ),
        (step(info={"verdict": "fine"}), ["info[\"verdict\"] is 'fine': give one of correct, crash"]),
        (step(terminated=False, info={"verdict": "wrong"}), ['"verdict" before the episode is over: leave it out']),
        (step(info={"accuracy": math.nan}), ['info["accuracy"] is nan where the reward is 1']),
        (step(info={"rewards": {}}), ["sums to 0 where the reward is 1: the parts must sum to it"]),
        (step(2, 1.0, info={"verdict": 3, "rewards": {"a": 2}}), ["2 (int) as the obs", "is 3: give", "sums to 2"]),
    ],
)
def test_all_contradictions_are_found(returned, messages):
    found = list(contradictions(returned))
    assert len(found) == len(messages) and all(text in one for text, one in zip(messages, found, strict=True)), found
