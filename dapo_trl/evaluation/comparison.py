"""The difference between two evaluations, on the problems they share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
from rich.console import Console

from ..errors import ConfigError
from .estimators import avg_at_k, difference, maj_at_k, mean_of, pass_at_k, sizes, voted
from .journal import PARQUET, RESULTS, differences
from .results import figure, grid, span, title

_SAMPLING = ("temperature", "top_p", "max_completion_length")


@dataclass
class Asked:
    """A problem and its samples, in order."""

    prompt: str
    accuracy: list[float] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    """Answers in order; None where none was read."""


@dataclass(frozen=True)
class Saved:
    """A complete evaluation, read back."""

    folder: Path
    results: dict[str, Any]
    problems: dict[int, dict[int, Asked]]
    """Problems of each environment, by the environment's place and the problem's index."""

    @classmethod
    def read(cls, folder: Path) -> Saved:
        """Read an evaluation's folder.

        Raises:
            ConfigError: there is none, or it is not complete.
        """
        if not folder.is_dir():
            raise ConfigError(f"{folder}: there is no such folder (looked from {Path.cwd()}).")
        for name in (RESULTS, PARQUET):
            if not (folder / name).is_file():
                raise ConfigError(
                    f"{folder} holds no {name}, so it is not a complete evaluation: give the --output_dir of a "
                    "dapo-trl eval that came to its end (the same command goes on with an interrupted one)."
                )
        try:
            results = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
            columns = ["env", "index", "number", "prompt", "accuracy", "answer"]
            rows = pyarrow.parquet.read_table(folder / PARQUET, columns=columns).to_pylist()
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise ConfigError(f"{folder} cannot be read: {error}") from error
        problems: dict[int, dict[int, Asked]] = {}
        for row in sorted(rows, key=lambda row: row["number"]):
            problem = problems.setdefault(row["env"], {}).setdefault(row["index"], Asked(row["prompt"]))
            problem.accuracy.append(row["accuracy"])
            problem.answers.append(row["answer"])
        return cls(folder, results, problems)

    @property
    def environments(self) -> list[dict[str, Any]]:
        """The results of each environment."""
        return self.results["environments"]


@dataclass(frozen=True)
class Gain:
    """The gain of the second evaluation over the first, in one figure."""

    name: str
    first: float
    second: float
    value: float
    interval: tuple[float, float]


def pairs(first: Saved, second: Saved) -> list[tuple[int, int]]:
    """The environments that both were measured on, by their places in either.

    Raises:
        ConfigError: there is none, or one was made with other arguments.
    """
    theirs = {_identity(found): place for place, found in enumerate(second.environments)}
    both = [
        (place, theirs[_identity(found)])
        for place, found in enumerate(first.environments)
        if _identity(found) in theirs
    ]
    if both:
        return both
    for found in first.environments:
        for other in second.environments:
            if found["id"] == other["id"]:
                names = ("env_kwargs",) if found["env_kwargs"] != other["env_kwargs"] else ("spec",)
                texts = [text for name in names for text in differences(found[name], other[name])]
                differing = "; ".join(text.replace(", now ", f" in {first.folder} and ") for text in texts[:3])
                raise ConfigError(
                    f"{found['id']} is not the same environment in both: {differing} in {second.folder}. Only "
                    "figures of the same problems can be compared."
                )
    raise ConfigError(
        f"{first.folder} was measured on {_listed(first)}, {second.folder} on {_listed(second)}: there is nothing in "
        "common to compare."
    )


def gains(first: Saved, second: Saved, places: tuple[int, int]) -> tuple[int, list[Gain]]:
    """The number of problems that both have of an environment, and how the second differs on them.

    Raises:
        ConfigError: a problem is not the same in both, or there is none that both have.
    """
    ours, theirs = first.problems[places[0]], second.problems[places[1]]
    name = first.environments[places[0]]["env"]
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        raise ConfigError(f"{name}: {first.folder} and {second.folder} have no problem in common.")
    for index in shared:
        if ours[index].prompt != theirs[index].prompt:
            raise ConfigError(
                f"{name}: problem {index} reads differently in {first.folder} and {second.folder}: they were measured "
                "on different data. Only figures of the same problems can be compared."
            )
    before, after = (np.array([side[index].accuracy for index in shared], dtype=float) for side in (ours, theirs))
    votes = [np.array([side[index].answers for index in shared], dtype=object) for side in (ours, theirs)]
    most = min(before.shape[1], after.shape[1])
    ks = [k for k in sizes(most) if k > 1]
    figures = [(_average_name(before, after), avg_at_k(before), avg_at_k(after))]
    figures += [(f"pass@{k}", pass_at_k(before, k), pass_at_k(after, k)) for k in ks]
    if ks and all(map(voted, votes)):
        one, other = (maj_at_k(*side, [most])[:, 0] for side in zip((before, after), votes, strict=True))
        figures.append((f"maj@{most}", one, other))
    return len(shared), [
        Gain(label, mean_of(one), mean_of(other), *difference(one, other)) for label, one, other in figures
    ]


def compare(first: Path, second: Path, console: Console) -> None:
    """Print how the second evaluation differs from the first.

    Raises:
        ConfigError: there is nothing that can be compared.
    """
    one, other = Saved.read(first), Saved.read(second)
    both = pairs(one, other)
    console.print(f"\nA: {first}, {_model(one)}\nB: {second}, {_model(other)}", markup=False)
    shown = {name: (one.results[name], other.results[name]) for name in _SAMPLING}
    if differing := [f"{name} {a} and {b}" for name, (a, b) in shown.items() if a != b]:
        console.print(f"They were sampled differently: {', '.join(differing)}.", style="yellow", markup=False)
    if same := [f"{name} {a:g}" for name, (a, b) in shown.items() if a == b]:
        console.print(f"Both were sampled with {', '.join(same)}.", markup=False)
    for places in both:
        found = one.environments[places[0]]
        if differing := differences(found["versions"], other.environments[places[1]]["versions"]):
            console.print(f"They were judged by other versions: {'; '.join(differing)}.", style="yellow", markup=False)
        problems, rows = gains(one, other, places)
        console.print(f"\n{title(found)}, {problems:,} problems", style="bold", markup=False)
        table = grid("", "A", "B", "B - A", "95 % interval", "")
        for row in rows:
            low, high = row.interval
            verdict = "" if low <= 0 <= high else "B is better" if low > 0 else "A is better"
            signed = span(row.interval, "{:+.3f}")
            table.add_row(row.name, figure(row.first), figure(row.second), f"{row.value:+.3f}", signed, verdict)
        console.print(table)
    for side, saved in enumerate((one, other)):
        shared = [places[side] for places in both]
        if alone := [title(found) for place, found in enumerate(saved.environments) if place not in shared]:
            console.print(f"Only in {saved.folder}: {', '.join(alone)}.", style="yellow", markup=False)
    console.print("\nIntervals are of the difference problem by problem (paired); one that holds 0 decides nothing.\n")


def _identity(found: Mapping[str, Any]) -> str:
    """The identity of an environment: its spec, or its arguments where there is none."""
    return json.dumps([found["id"], found["spec"] or found["env_kwargs"]], sort_keys=True)


def _listed(saved: Saved) -> str:
    return ", ".join(title(found) for found in saved.environments)


def _model(saved: Saved) -> str:
    model = saved.results["model"]
    return f"{model['name']}{' with ' + model['adapter'] if model['adapter'] else ''}"


def _average_name(before: np.ndarray, after: np.ndarray) -> str:
    samples = {before.shape[1], after.shape[1]}
    return f"avg@{samples.pop()}" if len(samples) == 1 else f"avg@{before.shape[1]} and {after.shape[1]}"
