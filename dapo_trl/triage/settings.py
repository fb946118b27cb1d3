"""The options of ``dapo-trl triage``; how samples are drawn is set as for ``dapo-trl eval``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError
from ..settings import read_files

SAMPLES = 16
"""Completions of each row, unless ``--k`` is given."""
RULES = ("zero_variance", "all_zero")


@dataclass(frozen=True)
class TriageOptions:
    """What becomes of a row, given its samples.

    Raises:
        ConfigError: A value is out of range.
    """

    against: tuple[Any, ...] = ()
    """Environments whose questions must not be among the kept rows, each a name or one name with its arguments."""
    trusted: Path | None = None
    """Folder of an evaluation of the same model on rows whose golds are known to be right."""
    rate: float = 0.05
    """Share of right golds among the doubted ones that is accepted: the false discovery rate."""
    near: float = 0.4
    """Similarity, in (0, 1], from which a question counts as a near-copy of a test question."""
    least_chance: float = 0.1
    """Rows whose next group is less likely informative are left out; 0 keeps them all."""
    num_generations: int = 8
    """Completions of a group in training."""
    group_filter: str = "zero_variance"
    """The rule by which training drops groups."""
    measured: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the environment that the run has in place of others where it measures."""

    def __post_init__(self) -> None:
        for name, least, most in (("rate", 0.0, 1.0), ("near", 0.0, 1.0)):
            if not least < (value := getattr(self, name)) <= most:
                raise ConfigError(f"{name} is {value:g}: it must lie in ({least:g}, {most:g}].")
        if not 0 <= self.least_chance < 1:
            raise ConfigError(f"least_chance is {self.least_chance:g}: it must lie in [0, 1).")
        if self.num_generations < 2:
            raise ConfigError(f"num_generations is {self.num_generations}: a group has 2 completions or more.")
        if self.group_filter not in RULES:
            raise ConfigError(f"group_filter is {self.group_filter!r}: it must be one of {', '.join(RULES)}.")


def evaluation_flags(files: Sequence[str], flags: Sequence[str], training: tuple[type, ...]) -> list[str]:
    """The flags of the evaluation that samples the rows which a run would train on: all of them, `SAMPLES` times.

    Args:
        files: Configuration files of the run.
        flags: Settings of the evaluation as the user gave them; they win.
        training: The dataclasses of a training run's settings.

    Raises:
        ConfigError: The files train on several environments.
    """
    found = ["--k", str(SAMPLES), "--problems", "0"]
    asked = read_files(files, training)
    for name in ("temperature", "top_p"):  # as in training, and not as the run measures
        found += [f"--{name}", str(asked.get(name, 1.0))]
    if (env := asked.get("env")) is not None and not any(flag.partition("=")[0] == "--env" for flag in flags):
        if not isinstance(env, str):
            raise ConfigError("env names several environments: triage looks at one at a time, given as --env.")
        entry = {env: asked.get("env_kwargs") or {}}
        found += ["--env", yaml.safe_dump(entry, default_flow_style=True, sort_keys=False, width=10_000).strip()]
    return [*found, *flags]
