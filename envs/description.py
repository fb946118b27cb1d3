"""An environment as plain data (its spec, wrappers and package versions), and made again from it; its arguments."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator

from .interop.doors import known_spec, make, spec_from_json

PACKAGES = (
    *("dapo-trl", "gymnasium", "math-verify", "latex2sympy2-extended", "sympy", "reasoning-gym"),
    *("openenv-core", "verifiers", "textarena"),
)
"""Packages whose version may change a reward."""
_ENTRY = re.compile(r"((?:`[^`]*`(?:,\s+)?)+):\s+(.*)", re.DOTALL)
"""A line of a docstring's arguments: their names with defaults, and the meaning."""


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
    return make(spec_from_json(json.dumps(description["spec"])))


def arguments(make: Callable[..., Any]) -> dict[str, str]:
    """Return the arguments of an environment's class by name, each with its default and meaning where they are known.

    The meaning is read from the "## Arguments" of the class's docstring, lines such as "- `levels=(1, 2)`: digits.".
    """
    _, _, listed = (inspect.getdoc(make) or "").partition("## Arguments\n")
    entries = [_ENTRY.match(text) for text in re.split(r"^- ", listed.partition("\n## ")[0], flags=re.MULTILINE)]
    known = [match.groups() for match in entries if match]
    found = {}
    for name, parameter in inspect.signature(make).parameters.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        own = [meaning for names, meaning in known if re.search(rf"`{name}\b", names)]
        named = [meaning for _, meaning in known if f"`{name}=" in meaning]
        default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        found[name] = f"{name}{default}: {' '.join([*own, *named, ''][0].split())}".removesuffix(": ")
    return found


def misfit(env: str, kwargs: Mapping[str, Any]) -> str | None:
    """Return why an environment cannot be made with these arguments, in a sentence; None where no reason is seen.

    The reasons are an abstract class, an argument that it does not have, and one that is missing.

    Args:
        env: Its id, as `envs.make` takes it.
    """
    spec = known_spec(env)
    if spec is None:
        return None
    try:
        make = spec.entry_point if callable(spec.entry_point) else load_env_creator(str(spec.entry_point))
        signature = inspect.signature(make)
    except Exception:  # whatever the author's module raises
        return None
    if missing := sorted(getattr(make, "__abstractmethods__", ())):
        return f"{getattr(make, '__name__', make)} does not define {', '.join(missing)}"
    try:
        signature.bind(**{**spec.kwargs, **kwargs})
    except TypeError as error:
        takes = ", ".join(name for name in arguments(make) if name not in spec.kwargs) or "none"
        return f"{error}. Its arguments are {takes}; dapo-trl envs show {env} explains them"
    return None


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
