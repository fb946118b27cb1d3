"""Settings: how a dataclass declares, documents and checks them, and how files and flags give them their values.

A setting is a field made by `setting`; ``__post_init__`` calls `check`. docs/configuration.md is made from the same
fields.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from envs.text import brief

from .errors import ConfigError, did_you_mean, one_line


@dataclasses.dataclass(frozen=True)
class Rule:
    """The limits of a setting's value, beyond its annotated type."""

    least: float | None = None
    """Smallest number that is allowed."""
    above: float | None = None
    """Largest number that is too small."""
    most: float | None = None
    """Largest number that is allowed."""
    choices: tuple[str, ...] = ()
    """The texts that are allowed; empty: any."""
    own: bool = False
    """A class of the user's is allowed too, as ``module:Class``; see docs/extending.md."""

    def allow(self, value: object) -> bool:
        """Whether a value of the right type is within the limits."""
        if isinstance(value, str):
            return not self.choices or value in self.choices or (self.own and ":" in value)
        if not isinstance(value, int | float):
            return True
        return (
            math.isfinite(value)
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
        )

    @property
    def range(self) -> str:
        """The numbers that are allowed, in words; empty: any finite one."""
        lower = f"{self.least:g} or more" if self.least is not None else ""
        lower = f"above {self.above:g}" if self.above is not None else lower
        if self.most is None:
            return lower
        return f"from {self.least:g} to {self.most:g}" if self.least is not None else f"{lower}, at most {self.most:g}"


def setting(
    default: Any = dataclasses.MISSING,
    doc: str = "",
    *,
    factory: Any = dataclasses.MISSING,
    least: float | None = None,
    choices: Sequence[str] = (),
    own: bool = False,
) -> Any:
    """A dataclass field that is a setting.

    Args:
        doc: the setting, its unit, and when to change it.
        factory: makes the default, in place of ``default``.
        least: smallest number that is allowed.
        choices: the texts that are allowed.
        own: a class of the user's is allowed too, as ``module:Class``.
    """
    metadata = {"help": doc, "limits": Rule(least, choices=tuple(choices), own=own)}
    return dataclasses.field(default=default, default_factory=factory, metadata=metadata)


def check(settings: Any, inherited: Mapping[str, Rule] | None = None, *, label: Callable[[str], str] = str) -> None:
    """Check type and limits of every setting of a dataclass.

    Args:
        inherited: fields that are declared elsewhere and checked too.
        label: the name under which a message mentions a setting.

    Raises:
        ConfigError: with the value and the rule.
    """
    owner: type = type(settings)
    own = {field.name: field.metadata["limits"] for field in dataclasses.fields(owner) if "limits" in field.metadata}
    for name, limits in {**own, **(inherited or {})}.items():
        check_value(owner, name, getattr(settings, name), limits, label=label)


def check_value(owner: type, name: str, value: Any, limits: Rule, *, label: Callable[[str], str] = str) -> None:
    """Check type and limits of one setting; arguments as for `check`.

    Raises:
        ConfigError: with the value and the rule.
    """
    adapter = _adapter(owner, name)
    try:
        if adapter is not None:
            adapter.validate_python(os.fspath(value) if isinstance(value, os.PathLike) else value, strict=True)
        valid = limits.allow(value)
    except ValidationError:
        valid = False
    if not valid:
        rule = _rule(_hints(owner)[name], limits)
        if isinstance(value, float) and not math.isfinite(value):
            rule = rule.replace("a number", "a finite number")
        raise ConfigError(f"{label(name)} is {_shown(value)}: it must be {rule}.")


def require(values: Mapping[str, Any], *names: str) -> None:
    """Refuse settings that lack one which has no default.

    Raises:
        ConfigError: with the ways to give it.
    """
    for name in names:
        if values.get(name) is None:
            raise ConfigError(
                f"{name} is not set: give it in a configuration file or as --{name} (a quick start: "
                "--config configs/quickstart.yaml)."
            )


def load_object(name: str, *, what: str, kind: str = "a class or a function") -> Any:
    """Import the class or function that a setting names as ``module:Name``.

    Args:
        what: The setting, for messages.
        kind: What it must be, for messages.

    Raises:
        ConfigError: There is no such module, or no such name in it, or it cannot be called.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{what} names {name!r}, which cannot be imported: {one_line(error)}.") from error
    if not callable(found):
        raise ConfigError(f"{what} names {name!r}, a {type(found).__name__}: it must be {kind}.")
    return found


def shipped(kind: str) -> Path:
    """The folder of its ``"configs"``, ``"models"`` or ``"templates"``: in the package, or in its checkout."""
    inside = Path(__file__).parent / kind
    return inside if inside.is_dir() else Path(__file__).parents[1] / kind


def find_config(name: str | Path, *, among: Sequence[Path] | None = None) -> Path:
    """The file of that path, else the shipped one of that name: ``gsm8k`` and ``configs/task/gsm8k.yaml`` are found
    from any folder.

    Args:
        among: The shipped files; None: those of runs.
    """
    path = Path(name)
    if path.is_file():
        return path
    parts = path.parts[1:] if path.parts[:1] == ("configs",) else path.parts
    files = config_files() if among is None else among
    known = [file for file in files if file.with_suffix("").parts[-len(parts) :] == _stems(parts)]
    return known[0] if parts and len(known) == 1 else path


def _stems(parts: tuple[str, ...]) -> tuple[str, ...]:
    return (*parts[:-1], parts[-1].removesuffix(".yaml")) if parts else ()


def config_files() -> list[Path]:
    """The shipped configuration files of runs; no two have the same name."""
    folder = shipped("configs")
    return sorted(path for path in folder.rglob("*.yaml") if path.parent.name != "accelerate")


def accelerate_files() -> list[Path]:
    """The shipped configuration files of accelerate."""
    return sorted((shipped("configs") / "accelerate").glob("*.yaml"))


def find_model(name: str | None) -> str | None:
    """The name itself if there is such a file or folder, else the shipped model or model shape of that name, if any."""
    if name is None or Path(name).exists():
        return name
    path = Path(name)
    inside = Path(*path.parts[1:]) if path.parts[:1] in (("models",), ("configs",)) else path
    places = [shipped("models") / inside.name] if len(inside.parts) == 1 else []
    places += [shipped("configs") / inside, shipped("configs") / "models" / inside] if inside.suffix == ".json" else []
    return next((str(place) for place in places if inside.name and place.exists()), name)


def read_files(files: Sequence[str | Path], owners: tuple[type, ...]) -> dict[str, Any]:
    """The values of files merged from left to right, each checked by its name and type.

    Args:
        owners: the dataclasses whose fields they may be, the first that has one decides its type.
    """
    values: dict[str, Any] = {}
    for path in map(find_config, files):
        for name, value in _read(path).items():
            values[name] = _checked(name, value, owners, source=str(path))
    return values


def read_flags(flags: Sequence[str], owners: tuple[type, ...], options: Sequence[str] = ()) -> list[tuple[str, Any]]:
    """Flags as names and values, in order; ``owners`` as for `read_files`, ``options`` as for `load_settings`."""
    return [
        (name, _checked(name, _read_flag(name, text), owners, source=f"--{name}", text=text, options=options))
        for name, text in _parse_flags(flags)
    ]


def long_flags(flags: Sequence[str], aliases: Mapping[str, str]) -> list[str]:
    """Flags with the names of the settings in place of their short names."""
    parts = [flag.partition("=") for flag in flags]
    long = [aliases.get(name[2:].replace("-", "_")) if name.startswith("--") else None for name, _, _ in parts]
    return [
        f"--{name}{''.join(rest)}" if name else flag for flag, name, (_, *rest) in zip(flags, long, parts, strict=True)
    ]


PROSE = frozenset({"system_prompt", "prompt_template"})
"""Settings that are text for the model: a template that begins with ``{question}`` would be a mapping in YAML."""
MAX_DEPTH = 50
"""Levels of lists and mappings in one another that a YAML text may have."""
MAX_NODES = 100_000
"""Values that a YAML text may hold, those behind an alias counted each time."""
MAX_BYTES = 1 << 20
"""Size of a configuration file, beyond which it is taken for a file of data."""


MAX_SHOWN = 200
"""Characters of a value in a message."""


class _Loader(yaml.SafeLoader):
    """Refuses a text that is deeper or larger than any configuration, before anything is built of it."""

    depth = nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        is_alias = self.check_event(yaml.AliasEvent)
        before, self.depth = self.nodes, self.depth + 1
        if self.depth > MAX_DEPTH:
            raise yaml.YAMLError(f"more than {MAX_DEPTH} lists or mappings in one another")
        node = super().compose_node(parent, index)
        self.depth -= 1
        if is_alias and not hasattr(node, "nodes"):
            raise yaml.YAMLError("a value that holds itself")
        self.nodes += node.nodes if is_alias else 1  # type: ignore[union-attr]
        if self.nodes > MAX_NODES:
            raise yaml.YAMLError(f"more than {MAX_NODES:,} values, aliases written out")
        if not is_alias:
            node.nodes = self.nodes - before  # type: ignore[union-attr]
        return node


def read_yaml(text: str) -> Any:
    """The value of a YAML text, in bounded time and memory whatever the text is.

    Raises:
        yaml.YAMLError: It is not YAML, or larger than `MAX_DEPTH` and `MAX_NODES` allow, or holds a value
            that is not of its type.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError:
        raise
    except Exception as error:  # of PyYAML's constructors, as for `!!bool maybe` or the date 2024-13-01
        raise yaml.YAMLError(f"a value is not of its type ({one_line(error)})") from error


def read_mapping(path: Path, *, what: str = "configuration file") -> dict[str, Any]:
    """The fields of a YAML file.

    Args:
        what: The file, for messages.

    Raises:
        ConfigError: It cannot be read, or does not consist of `field: value` lines.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{what} {path} is larger than {MAX_BYTES >> 20} MiB: it must be `field: value` lines.")
        content = read_yaml(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{what} {path} is not valid YAML: {one_line(error)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} {path} cannot be read: {one_line(error)}") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ConfigError(f"{what} {path} holds a {type(content).__name__}: it must be `field: value` lines.")
    return content


MEANT = {
    "batch_size": "per_device_train_batch_size",
    "train_batch_size": "per_device_train_batch_size",
    "micro_batch_size": "per_device_train_batch_size",
    "clip_range": "epsilon",
    "clip_ratio": "epsilon",
    "clip_ratio_high": "epsilon_high",
    "clip_ratio_low": "epsilon",
    "dataset": "env",
    "dataset_name": "env",
    "environment": "env",
    "epochs": "num_train_epochs",
    "grad_accum": "gradient_accumulation_steps",
    "grad_clip": "max_grad_norm",
    "group_size": "num_generations",
    "kl_coef": "beta",
    "log_every": "logging_steps",
    "lora_r": "lora_rank",
    "lr": "learning_rate",
    "lr_scheduler": "lr_scheduler_type",
    "max_length": "max_completion_length",
    "max_new_tokens": "max_completion_length",
    "max_tokens": "max_completion_length",
    "model_name": "model",
    "model_name_or_path": "model",
    "model_path": "model",
    "out": "output_dir",
    "resume": "resume_from_checkpoint",
    "rollouts": "num_generations",
    "save_every": "save_steps",
    "scheduler": "lr_scheduler_type",
    "steps": "max_steps",
    "target_modules": "lora_targets",
    "task": "env",
    "vllm": "use_vllm",
    "warmup": "warmup_steps",
}
"""Names that other programs give to a setting, where the nearest in spelling is another one."""


@cache
def names_of(owner: type) -> frozenset[str]:
    """The settings that a dataclass takes."""
    return frozenset(f.name for f in dataclasses.fields(owner) if f.init)


def _read(path: Path) -> dict[str, Any]:
    if path.suffix == ".json":
        raise ConfigError(
            f"configuration file {path} is JSON: a run's settings are YAML files of `field: value` lines. The "
            f"shape of a model is given as --model {path}, a file for DeepSpeed as --deepspeed {path}."
        )
    if not path.is_file():
        parts = str(path).split(",")
        if len(parts) > 1 and all(Path(part).is_file() for part in parts):
            raise ConfigError(
                f"configuration file {path} does not exist: separate files by spaces, as --config {' '.join(parts)}."
            )
        if path.is_dir():
            raise ConfigError(f"configuration file {path} is a folder: name a file in it.")
        folder = path.parent if path.parent.is_dir() else Path(".")
        hint = did_you_mean(str(folder / path.name), map(str, folder.glob("*.y*ml")))
        hint = hint or did_you_mean(path.stem, [file.stem for file in config_files()])
        raise ConfigError(f"configuration file {path} does not exist (looked from {Path.cwd()}).{hint}")
    return read_mapping(path)


def _parse_flags(flags: Sequence[str]) -> list[tuple[str, str | None]]:
    """Names and texts; the text of a flag without a value is None."""
    found: list[tuple[str, str | None]] = []
    rest = list(flags)
    while rest:
        flag = rest.pop(0)
        if not flag.startswith("--") or flag == "--":
            if flag.endswith((".yaml", ".yml")):
                raise ConfigError(f"{flag!r} is a file: give it as --config {flag}.")
            raise ConfigError(f"{flag!r} is not a flag: settings are given as --field value.")
        name, equals, value = flag[2:].partition("=")
        text: str | None = value if equals else None
        if not equals and rest and not rest[0].startswith("--"):
            text = rest.pop(0)
        found.append((name.replace("-", "_"), text))
    return found


def _read_flag(name: str, text: str | None) -> Any:
    """A flag's value is YAML, or prose as it stands unless it is quoted; one without a value is switched on."""
    if text is None:
        return True
    if name in PROSE and text[:1] not in ('"', "'"):
        return None if text == "null" else text
    try:
        return read_yaml(text)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or one_line(error)
        raise ConfigError(f"--{name} {brief(text, MAX_SHOWN)} is not valid YAML: {problem}.") from error


def _checked(
    name: str,
    value: Any,
    owners: tuple[type, ...],
    *,
    source: str,
    text: str | None = None,
    options: Sequence[str] = (),
) -> Any:
    """The value converted to the field's type. YAML reads ``no`` and ``123`` as a bool and a number: for a field that
    takes text, the words themselves are used."""
    owner = next((owner for owner in owners if name in names_of(owner)), None)
    if owner is None:
        known = frozenset(options).union(*map(names_of, owners))
        meant = MEANT.get(name.lower())
        hint = f" Did you mean {meant}?" if meant in known else did_you_mean(name, known)
        raise ConfigError(f"{source}: there is no setting named {name!r}.{hint}")
    adapter, hint = _adapter(owner, name), _hints(owner)[name]
    if adapter is None:
        return value
    if text == "" and not _takes(hint, type(None)):
        raise ConfigError(f"{source} is empty: give it a value, or leave the flag out.")
    written = text if text is not None else "no" if value is False else str(value).lower()
    attempts = [value] if _takes(hint, bool) or not isinstance(value, bool) else []
    attempts += [written] if _takes(hint, str) and isinstance(value, bool | int | float) else []
    for attempt in attempts:
        try:
            return adapter.validate_python(attempt)
        except ValidationError:
            continue
    raise ConfigError(f"{source}: {name} is {_shown(value)}: it must be {_rule(hint, Rule())}.")


def _shown(value: Any) -> str:
    """A value with its type, where that does not show."""
    return f"{brief(value, MAX_SHOWN)} ({type(value).__name__})"


def _rule(hint: Any, limits: Rule) -> str:
    """The rule of a setting, in words."""
    more = f", {limits.range}" if limits.range else ""
    own = ", or a class of your own as module:Class" if limits.own else ""
    words = {
        float: f"a number{more}",
        int: f"a whole number{more}",
        str: f"one of {', '.join(limits.choices)}{own}" if limits.choices else "text",
        bool: "true or false",
        dict: "a mapping, as in '{name: value}'",
        list: "a list",
        type(None): "null",
    }
    kinds = [typing.get_origin(part) or part for part in _parts(hint)]
    return " or ".join(dict.fromkeys(words.get(kind, getattr(kind, "__name__", str(kind))) for kind in kinds))


def _parts(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _takes(hint: Any, kind: type) -> bool:
    return kind in _parts(hint)


@cache
def _hints(owner: type) -> dict[str, Any]:
    return typing.get_type_hints(owner)


@cache
def _adapter(owner: type, name: str) -> TypeAdapter | None:
    try:
        return TypeAdapter(_hints(owner)[name], config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticSchemaGenerationError:  # a type of transformers that checks itself
        return None
