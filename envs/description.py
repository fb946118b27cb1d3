"""An environment as plain data (its spec, wrappers and package versions), and made again from it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

PACKAGES = ("dapo-trl", "gymnasium", "math-verify", "latex2sympy2-extended", "sympy", "reasoning-gym")
"""Packages whose version may change a reward."""


def describe(env: gymnasium.Env) -> dict[str, Any]:
    """Return an environment as data that JSON can hold.

    Returns:
        "id", "spec" (what `EnvSpec.to_json` writes, as a dict), and "versions" of `PACKAGES`. "spec" is None if the
        environment cannot be made again from one, and "reason" then says why.
    """
    spec, reason = _spec(env)
    name = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
    described: dict[str, Any] = {"id": name, "spec": spec, "versions": versions()}
    return described if spec is not None else {**described, "reason": reason}


def remake(description: Mapping[str, Any]) -> gymnasium.Env:
    """Make the environment of a description again, wrappers included.

    Raises:
        ValueError: It has no spec.
        gymnasium.error.Error, ImportError, ...: `gymnasium.make` fails, such as for a module that is gone.
    """
    if description["spec"] is None:
        raise ValueError(f"environment {description['id']} cannot be made again: {description['reason']}")
    return gymnasium.make(EnvSpec.from_json(json.dumps(description["spec"])))


def versions() -> dict[str, str | None]:
    """Return the installed version of Python and of each of `PACKAGES`, None for one that is not installed."""
    found: dict[str, str | None] = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def _spec(env: gymnasium.Env) -> tuple[dict[str, Any] | None, str]:
    if env.spec is None:
        return None, "it was not made by gymnasium.make, so it has no spec"
    unrecorded = [wrapper.name for wrapper in env.spec.additional_wrappers if wrapper.kwargs is None]
    if unrecorded:
        return None, f"{', '.join(unrecorded)} does not record its arguments (gymnasium.utils.RecordConstructorArgs)"
    spec, creator = env.spec, env.spec.entry_point
    if callable(creator):  # gymnasium.register takes a class, JSON its name
        module, name = creator.__module__, getattr(creator, "__name__", "")
        if module != "__main__" and getattr(sys.modules.get(module), name, None) is creator:
            spec = replace(spec, entry_point=f"{module}:{name}")
    try:
        return json.loads(spec.to_json()), ""
    except (ValueError, TypeError) as error:
        return None, f"its spec is not JSON: {error}"
