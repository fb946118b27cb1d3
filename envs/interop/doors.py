"""Ids of environments that live in other packages, and the specs that make them."""

from __future__ import annotations

import importlib
import json
from copy import copy
from types import ModuleType
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

_PACKAGE = __name__.rpartition(".")[0]
DOORS = {
    "openenv": (f"{_PACKAGE}.openenv_client:OpenEnvEnv", "url"),
    "verifiers": (f"{_PACKAGE}.verifiers_client:VerifiersEnv", "taskset"),
    "textarena": (f"{_PACKAGE}.textarena_games:TextArenaEnv", "game"),
}
"""For each prefix of an id the class of its environments, and the argument that takes the rest of the id."""
_NAME = "door"
"""Stands for the id while a spec is made: Gymnasium parses ids, and a URL is none to it."""


def make(env: str | EnvSpec, /, **kwargs: Any) -> gymnasium.Env:
    """Make an environment from its id, be it registered (`math/Arithmetic-v0`, `module:id`) or of another package
    (`openenv:URL`, `verifiers:ID`, `textarena:ID`), or from the spec of one.

    Raises:
        gymnasium.error.Error, ModuleNotFoundError, ...: As `gymnasium.make`.
    """
    spec = door_spec(env) if isinstance(env, str) else env
    if spec is None or door_spec(spec.id) is None:
        return gymnasium.make(env, disable_env_checker=True, **kwargs)
    made = gymnasium.make(_named(spec, _NAME), disable_env_checker=True, **kwargs)
    assert made.unwrapped.spec is not None
    made.unwrapped.spec = _named(made.unwrapped.spec, spec.id)
    return made


def door_spec(env: str) -> EnvSpec | None:
    """Return the spec of an id of another package; None for any other id."""
    prefix, colon, rest = env.partition(":")
    if not colon or not rest or prefix not in DOORS:
        return None
    entry_point, argument = DOORS[prefix]
    return _named(EnvSpec(_NAME, entry_point=entry_point, disable_env_checker=True, kwargs={argument: rest}), env)


def known_spec(env: str) -> EnvSpec | None:
    """Return the spec of an id as `make` takes it, None where it is unknown so far."""
    return door_spec(env) or gymnasium.registry.get(env.rpartition(":")[2])


def spec_from_json(text: str) -> EnvSpec:
    """Return the spec that `EnvSpec.to_json` wrote, also one of another package's environment."""
    data = json.loads(text)
    if door_spec(str(data["id"])) is None:
        return EnvSpec.from_json(text)
    return _named(EnvSpec.from_json(json.dumps({**data, "id": _NAME})), data["id"])


def require(module: str, extra: str) -> ModuleType:
    """Import a module of a package that is an extra of this one.

    Raises:
        ModuleNotFoundError: It, or something that it needs, is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{module.partition('.')[0]} cannot be imported ({error}): pip install 'dapo-trl[{extra}]'", name=error.name
        ) from error


def _named(spec: EnvSpec, env: str) -> EnvSpec:
    """Return a copy of a spec under another id."""
    named = copy(spec)
    named.id = named.name = env
    return named
