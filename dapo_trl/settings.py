"""Settings of a run: configuration files merged from left to right, then flags, checked by name and by type."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from .config import DAPOConfig
from .errors import ConfigError


@dataclass
class RunConfig:
    """What `dapo-trl train` needs beside a `DAPOConfig`: the model, the task, and how the result is measured."""

    model: str | None = None
    """folder or Hub name of the model to train"""
    env: str | None = None
    """id of the Gymnasium environment to train on"""
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    """arguments of the environment"""
    eval_env: str | None = None
    """environment to measure on; None: the one trained on"""
    eval_env_kwargs: dict[str, Any] = field(default_factory=dict)
    """its arguments, laid over `env_kwargs`"""
    eval_problems: int = 0
    """held-out problems measured before and after training; 0: no measurement"""
    eval_samples: int = 8
    """completions per held-out problem"""
    eval_temperature: float = 1.0
    """temperature of the measurement"""
    eval_top_p: float = 1.0
    """nucleus of the measurement; the paper uses 0.7"""
    overwrite: bool = False
    """delete a run that is already in `output_dir`"""


def load_settings(files: Sequence[str | Path], flags: Sequence[str] = ()) -> tuple[RunConfig, DAPOConfig]:
    """Merge files left to right, then flags (``--field value`` or ``--field=value``).

    Raises:
        ConfigError: a file that is missing or not a mapping, an unknown field (with the nearest known one), a value
            of the wrong type, a combination that cannot work.
    """
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for path in files:
        for name, value in _read(Path(path)).items():
            values[name], sources[name] = value, str(path)
    for name, value in _parse_flags(flags).items():
        values[name], sources[name] = value, f"--{name}"
    run = {name: _checked(RunConfig, name, value, sources[name]) for name, value in values.items() if name in _run()}
    rest = {name: _checked(DAPOConfig, name, values[name], sources[name]) for name in values if name not in run}
    if run.get("model") is None or run.get("env") is None:
        missing = "model" if run.get("model") is None else "env"
        raise ConfigError(
            f"{missing} is not set: give it in a configuration file or as --{missing} (a quick start: "
            "--config configs/quickstart.yaml)."
        )
    try:
        return RunConfig(**run), DAPOConfig(**rest)
    except ConfigError:
        raise
    except (ValueError, TypeError) as error:
        raise ConfigError(_flat(error)) from error


@cache
def _run() -> frozenset[str]:
    return frozenset(f.name for f in dataclasses.fields(RunConfig))


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        folder = path.parent if path.parent.is_dir() else Path(".")
        near = difflib.get_close_matches(path.name, [p.name for p in folder.glob("*.y*ml")], n=1)
        hint = f" Did you mean {folder / near[0]}?" if near else ""
        raise ConfigError(f"configuration file {path} does not exist.{hint}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"configuration file {path} is not valid YAML: {_flat(error)}") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ConfigError(
            f"configuration file {path} holds a {type(content).__name__}: it must be `field: value` lines."
        )
    return content


def _flat(error: Exception) -> str:
    return " ".join(str(error).split())


def _parse_flags(flags: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    rest = list(flags)
    while rest:
        flag = rest.pop(0)
        if not flag.startswith("--") or flag == "--":
            raise ConfigError(f"{flag!r} is not a flag: settings are given as --field value.")
        name, equals, text = flag[2:].partition("=")
        if not equals:
            text = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        try:
            values[name.replace("-", "_")] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--{name} {text!r} cannot be read: {_flat(error)}") from error
    return values


def _checked(owner: type, name: str, value: Any, source: str) -> Any:
    """The value converted to the field's type."""
    known = {f.name for cls in (RunConfig, DAPOConfig) for f in dataclasses.fields(cls) if f.init}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{source}: there is no setting named {name!r}.{hint}")
    adapter = _adapter(owner, name)
    if adapter is None:
        return value
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        wanted = _type_name(_hints(owner)[name])
        raise ConfigError(f"{source}: {name} is {value!r} ({type(value).__name__}): it must be {wanted}.") from error


@cache
def _hints(owner: type) -> dict[str, Any]:
    return typing.get_type_hints(owner)


@cache
def _adapter(owner: type, name: str) -> TypeAdapter | None:
    try:
        return TypeAdapter(_hints(owner)[name], config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticSchemaGenerationError:  # a type of transformers that checks itself
        return None


def _type_name(hint: Any) -> str:
    names = [getattr(part, "__name__", str(part)) for part in typing.get_args(hint) or (hint,)]
    return " or ".join("null" if name == "NoneType" else name for name in names)
