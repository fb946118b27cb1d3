"""Ids of environments that live in other packages."""

from __future__ import annotations

import json
import sys

import gymnasium
import pytest

import envs
from dapo_trl.errors import ConfigError
from dapo_trl.rollout.environments import make_env
from envs.description import describe, misfit
from envs.interop import doors

URL = "openenv:https://user-space.hf.space/path"


def test_an_id_with_a_known_prefix_is_a_door_and_no_other():
    assert doors.door_spec(URL).kwargs == {"url": "https://user-space.hf.space/path"}
    assert doors.door_spec("verifiers:owner/name").kwargs == {"taskset": "owner/name"}
    assert doors.door_spec("textarena:Wordle-v0-long").kwargs == {"game": "Wordle-v0-long"}
    for other in ("math/Arithmetic-v0", "my_module:my/Task-v0", "openenv:", "openenv", "open:env"):
        assert doors.door_spec(other) is None
    assert doors.known_spec("math/Arithmetic-v0") is gymnasium.registry["math/Arithmetic-v0"]


def test_a_spec_survives_json_with_its_id_though_gymnasium_cannot_parse_it():
    spec = doors.door_spec(URL)
    again = doors.spec_from_json(spec.to_json())
    assert (again.id, again.entry_point, again.kwargs) == (URL, spec.entry_point, spec.kwargs)
    ours = envs.make("math/Arithmetic-v0", levels=[2]).spec
    assert doors.spec_from_json(ours.to_json()).kwargs == {"levels": [2]}


class Pretending(gymnasium.Env):
    def __init__(self, url, factor=1):
        self.url, self.factor = url, factor


def test_the_recorded_description_names_the_door_and_makes_it_again(monkeypatch):
    monkeypatch.setitem(doors.DOORS, "openenv", (f"{__name__}:Pretending", "url"))
    made = envs.make(URL, factor=3)
    assert made.spec.id == made.unwrapped.spec.id == URL
    described = json.loads(json.dumps(describe(made)))
    assert described["id"] == described["spec"]["id"] == URL
    again = doors.make(doors.spec_from_json(json.dumps(described["spec"])))
    assert (again.spec.id, again.unwrapped.url, again.unwrapped.factor) == (URL, made.unwrapped.url, 3)
    assert "unexpected keyword argument 'faktor'" in misfit(URL, {"faktor": 3})


@pytest.mark.parametrize(
    ("env", "module", "extra"),
    [
        (URL, "openenv.core.generic_client", "openenv"),
        ("verifiers:gsm8k", "verifiers.v1", "verifiers"),
        ("textarena:TicTacToe-v0", "textarena", "textarena"),
    ],
)
def test_a_package_that_is_missing_is_one_line_that_says_how_to_install_it(monkeypatch, env, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError) as caught:
        make_env(env)
    assert f"pip install 'dapo-trl[{extra}]'" in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"env is {env!r}: {extra} cannot be imported")
