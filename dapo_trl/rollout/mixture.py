"""The environments of a run, as ``env`` names them: one, or several with weights."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import gymnasium

from envs.text import brief

from ..config import DAPOConfig
from ..errors import ConfigError, did_you_mean
from .environments import env_name, make_env, wrap_env, wrapper_settings

FILTERS = ("zero_variance", "all_zero", "none")
_FIELDS = ("id", "name", "weight", "kwargs", "wrappers", "eval_kwargs", "group_filter", "max_completion_length")
_EXAMPLE = "{id: math/Arithmetic-v0, weight: 2, kwargs: {levels: 2}}"


@dataclass(frozen=True)
class EnvEntry:
    """One environment of a run. A run on a single one is a mixture of one entry."""

    env: str | gymnasium.Env
    """Id of the environment, or the environment itself."""
    name: str
    """Its name in metrics, checkpoints and the report."""
    weight: float = 1.0
    """Its share of every rollout batch, relative to the weights of the others."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    wrappers: Sequence[Any] = ()
    """As in `RunConfig.env_wrappers`."""
    eval_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments that override `kwargs` when accuracy is measured."""
    group_filter: str | None = None
    """As in `DAPOConfig`; None: the run's."""
    max_completion_length: int | None = None
    """Longest completion in tokens, at most the run's; None: the run's."""

    @property
    def id(self) -> str:
        return self.env if isinstance(self.env, str) else env_name(self.env)

    def make(self, *, training: bool = True) -> gymnasium.Env:
        """The environment with its wrappers.

        Args:
            training: False makes it as it is measured: with `eval_kwargs`, without wrappers that only shape the reward.

        Raises:
            ConfigError: There is no such environment or wrapper, or it refuses its arguments.
        """
        arguments = self.kwargs if training else {**self.kwargs, **self.eval_kwargs}
        return wrap_env(make_env(self.env, **arguments), self.wrappers, training=training)


def read_entries(
    env: Any,
    *,
    kwargs: Mapping[str, Any] | None = None,
    eval_kwargs: Mapping[str, Any] | None = None,
    wrappers: Sequence[Any] = (),
) -> list[EnvEntry]:
    """The environments that ``env`` names.

    Args:
        env: An id, an environment, an `EnvEntry` or a mapping with an ``id`` and other fields of an entry; or a list of
            these.
        kwargs, eval_kwargs: Arguments of every environment; its own override them.
        wrappers: Wrappers of environments that name none of their own.

    Raises:
        ConfigError: Something that is none of these, a weight that is not above 0, or two of the same name.
    """
    items = list(env) if isinstance(env, list | tuple) else [env]
    if not items:
        raise ConfigError("env is an empty list: name at least one environment.")
    found: list[EnvEntry] = []
    for place, item in enumerate(items):
        where = f"env[{place}]" if isinstance(env, list | tuple) else "env"
        entry = item if isinstance(item, EnvEntry) else _read(where, item, wrappers)
        entry = replace(
            entry, kwargs={**(kwargs or {}), **entry.kwargs}, eval_kwargs={**(eval_kwargs or {}), **entry.eval_kwargs}
        )
        if any(entry.name == other.name for other in found):
            raise ConfigError(
                f"{where} has the name {entry.name!r}, and so has another environment: give one of them a name of its "
                f"own, as in {{id: {entry.id}, name: {entry.name}-2}}."
            )
        found.append(entry)
    return found


def check_entries(entries: Sequence[EnvEntry], args: DAPOConfig) -> None:
    """Refuse entries that the settings of the run leave no room for.

    Raises:
        ConfigError: More entries than a rollout batch has groups, longer completions than the run's, a filter where
            the run has none, or no entry to take turns with.
    """
    if not entries and args.turn_credit != "episode":
        raise ConfigError(
            f"turn_credit is {args.turn_credit!r} and there is no env: reward functions judge a completion as a whole. "
            "Give an environment whose reply returns rewards, or set turn_credit to episode."
        )
    max_completion_length, group_filter = args.max_completion_length, args.group_filter
    if len(entries) > args.groups_per_rollout:
        raise ConfigError(
            f"env names {len(entries)} environments, and a rollout batch has {args.groups_per_rollout} group(s): each "
            "needs one. Raise steps_per_generation or per_device_train_batch_size, or mix fewer."
        )
    for entry in entries:
        if entry.max_completion_length is not None and entry.max_completion_length > max_completion_length:
            raise ConfigError(
                f"env {entry.name} has max_completion_length {entry.max_completion_length}, and the run "
                f"{max_completion_length}: an environment can only have less. Raise the run's."
            )
        if entry.group_filter not in (None, "none") and group_filter == "none":
            raise ConfigError(
                f"env {entry.name} has group_filter {entry.group_filter!r}, and the run 'none': dynamic sampling is "
                "off. Set the run's to zero_variance, and that of environments without a filter to none."
            )


def share_of(entry: EnvEntry, entries: Sequence[EnvEntry]) -> float:
    """Its exact share of a rollout batch."""
    return entry.weight / sum(other.weight for other in entries)


def _read(where: str, item: Any, wrappers: Sequence[Any]) -> EnvEntry:
    given: Any = {"id": item} if isinstance(item, str | gymnasium.Env) else item
    if not isinstance(given, Mapping) or not isinstance(given.get("id"), str | gymnasium.Env):
        raise ConfigError(
            f"{where} is {brief(item)}: it must be the id of an environment, or a mapping with an id, as in {_EXAMPLE}."
        )
    for name in given:
        if name not in _FIELDS:
            hint = did_you_mean(str(name), _FIELDS)
            raise ConfigError(f"{where} has a field {name!r}: it may have {', '.join(_FIELDS)}.{hint}")
    env = given["id"]
    name = given.get("name", _short_name(env if isinstance(env, str) else env_name(env)))
    if not isinstance(name, str) or not re.fullmatch(r"[\w.+-]+", name):
        raise ConfigError(f"{where} has the name {name!r}: it must consist of letters, digits and any of _ . + -")
    entry = EnvEntry(
        env,
        name,
        weight=given.get("weight", 1.0),
        kwargs=_mapping(where, "kwargs", given),
        wrappers=given.get("wrappers", wrappers),
        eval_kwargs=_mapping(where, "eval_kwargs", given),
        group_filter=given.get("group_filter"),
        max_completion_length=given.get("max_completion_length"),
    )
    _check(where, entry)
    return entry


def _check(where: str, entry: EnvEntry) -> None:
    weight, limit = entry.weight, entry.max_completion_length
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight) or weight <= 0:
        raise ConfigError(
            f"{where} ({entry.name}) has weight {weight!r}: it must be a number above 0. Leave the environment out to "
            "switch it off."
        )
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ConfigError(f"{where} ({entry.name}) has max_completion_length {limit!r}: it must be 1 or more tokens.")
    if entry.group_filter is not None and entry.group_filter not in FILTERS:
        raise ConfigError(
            f"{where} ({entry.name}) has group_filter {entry.group_filter!r}: it must be one of {', '.join(FILTERS)}."
        )
    if not isinstance(entry.wrappers, list | tuple):
        raise ConfigError(f"{where} ({entry.name}) has wrappers {brief(entry.wrappers)}: they must be a list.")
    wrapper_settings(entry.wrappers)


def _mapping(where: str, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    value = given.get(name) or {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} has {name} {brief(value)}: it must be a mapping, as in {_EXAMPLE}.")
    return {str(key): item for key, item in value.items()}


def _short_name(env: str) -> str:
    """The name of an id without its package, namespace and version: "GSM8K" of "math/GSM8K-v0"."""
    name = re.sub(r"-v\d+$", "", env.rpartition(":")[2].rpartition("/")[2])
    return re.sub(r"[^\w.+-]", "-", name) or "env"
