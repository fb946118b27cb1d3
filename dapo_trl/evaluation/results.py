"""The results of an evaluation: every figure with its interval over problems, as data and as tables on a terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .estimators import avg_at_k, interval, is_constant, maj_at_k, mean_of, pass_at_k, sizes, voted

_ARRAYS = ("accuracy", "lengths", "truncated", "verdicts", "answers")


@dataclass(frozen=True)
class Evaluation:
    """Results of ``k`` samples of each of ``P`` problems."""

    accuracy: np.ndarray
    """Raw correctness ``[P, k]`` in [0, 1]; NaN for samples that could not be scored."""
    lengths: np.ndarray
    """Tokens of the model's own, ``[P, k]``."""
    truncated: np.ndarray
    """Whether each sample was truncated at the length limit, ``[P, k]`` of bool."""
    verdicts: np.ndarray
    """Verdicts, ``[P, k]`` of str."""
    answers: np.ndarray
    """The answers that the environment read, ``[P, k]``; None where it names none."""
    levels: list[Any]
    """The environment's ``info["level"]`` of each problem, or None."""
    room: int
    """Longest completion allowed, in tokens."""
    temperature: float
    """Sampling temperature."""
    top_p: float
    """Nucleus (top-p) of sampling."""

    @property
    def mean(self) -> float:
        """avg@k: the mean over problems of the mean over samples."""
        return mean_of(avg_at_k(self.accuracy))

    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of avg@k; see `estimators.interval`."""
        return interval(avg_at_k(self.accuracy))

    def by_level(self) -> dict[Any, float]:
        """avg@k of the problems of each level, in the order of the levels; empty without levels."""
        return {level: part.mean for level, part in self.levels_apart().items()}

    def levels_apart(self) -> dict[Any, Evaluation]:
        """The problems of each level, in the order of the levels."""
        found = {level for level in self.levels if level is not None}
        order = sorted(found) if len({type(level) for level in found}) == 1 else sorted(found, key=str)
        return {level: self.part([row for row, of in enumerate(self.levels) if of == level]) for level in order}

    def part(self, rows: Sequence[int]) -> Evaluation:
        """Some of the problems, by their places."""
        parts = {name: getattr(self, name)[rows] for name in _ARRAYS}
        return replace(self, **parts, levels=[self.levels[row] for row in rows])

    @property
    def ks(self) -> list[int]:
        """The numbers of samples for which pass@k and maj@k are given: powers of two, and all."""
        return sizes(self.accuracy.shape[1])

    def summary(self) -> dict[str, Any]:
        """The figures as plain data; beside each ``figure`` its ``figure_interval_95``, avg@k's in ``interval_95``."""
        problems, samples = self.accuracy.shape
        return plain(
            {
                "problems": problems,
                "samples": samples,
                "temperature": self.temperature,
                "top_p": self.top_p,
                "unscorable": int(np.isnan(self.accuracy).sum()),
                "accuracy": self.mean,
                "interval_95": self.interval(),
                "all_alike": is_constant(avg_at_k(self.accuracy)),
                **_figure("truncated", self.truncated.mean(axis=1)),
                **_figure("mean_length", self.lengths.mean(axis=1), bounds=(0.0, float(self.room))),
                "by_level": {str(level): value for level, value in self.by_level().items()},
                "verdicts": self.verdict_counts(),
                "by_k": self._by_k(),
                "levels": [part._of_level(level) for level, part in self.levels_apart().items()],
                "verdict_shares": [self._of_verdict(verdict) for verdict in self.verdict_counts()],
            }
        )

    def verdict_counts(self) -> dict[str, int]:
        """Samples of each verdict, the most frequent first."""
        return dict(Counter(self.verdicts.ravel().tolist()).most_common())

    def _by_k(self) -> list[dict[str, Any]]:
        """pass@k and maj@k; the latter is None where no answer was read: the environment names none, or the model never
        gave one."""
        majority = maj_at_k(self.accuracy, self.answers, self.ks) if voted(self.answers) else None
        return [
            {
                "k": k,
                **_figure("pass_at_k", pass_at_k(self.accuracy, k)),
                **_figure("maj_at_k", None if majority is None else majority[:, place]),
            }
            for place, k in enumerate(self.ks)
        ]

    def _of_level(self, level: Any) -> dict[str, Any]:
        problems, samples = self.accuracy.shape
        return {
            "level": level,
            "problems": problems,
            "accuracy": self.mean,
            "interval_95": self.interval(),
            **_figure("pass_at_k", pass_at_k(self.accuracy, samples)),
            "truncated": float(self.truncated.mean()),
            "mean_length": float(self.lengths.mean()),
        }

    def _of_verdict(self, verdict: str) -> dict[str, Any]:
        given = self.verdicts == verdict
        return {
            "verdict": verdict,
            "samples": int(given.sum()),
            **_figure("share", given.mean(axis=1)),
            "truncated": float(self.truncated[given].mean()),
            "mean_length": float(self.lengths[given].mean()),
        }


def merge(parts: Sequence[Evaluation]) -> Evaluation:
    """Join the evaluations of several processes, each of other problems."""
    arrays: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS}
    return replace(parts[0], **arrays, levels=[level for part in parts for level in part.levels])


def plain(value: Any) -> Any:
    """The value as JSON holds it: NaN and infinity become null."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _figure(name: str, scores: np.ndarray | None, **options: Any) -> dict[str, Any]:
    """The mean of one figure per problem, with its interval; None without scores."""
    if scores is None:
        return {name: None, f"{name}_interval_95": None}
    return {name: mean_of(scores), f"{name}_interval_95": interval(scores, **options)}


# Tables, from the data of ``results.json``

MUCH_TRUNCATED = 0.05
_RANGE = "95 % interval"


def show_results(results: Mapping[str, Any], console: Console) -> None:
    """Print the tables of every environment, and one of all if there are several."""
    model, adapter = results["model"]["name"], results["model"]["adapter"]
    environments = results["environments"]
    for found in environments:
        console.print(f"\n{model}{f' with {adapter}' if adapter else ''} on {title(found)}", style="bold", markup=False)
        console.print(
            f"{found['problems']:,} problems x {found['samples']} samples, temperature {results['temperature']:g}, "
            f"top_p {results['top_p']:g}, at most {results['max_completion_length']:,} tokens, seed {results['seed']}\n"
        )
        for table in (_whole(found), _by_k(found), _levels(found), _verdicts(found)):
            if table is not None:
                console.print(table)
        for note in notes(found, results["max_completion_length"]):
            console.print(note, style="yellow", markup=False)
    if len(environments) > 1:
        console.print()
        console.print(_overview(environments))
    console.print()


def title(found: Mapping[str, Any]) -> str:
    """An environment with the arguments that it was asked for with."""
    arguments = ", ".join(f"{name}={value!r}" for name, value in found["env_kwargs"].items())
    text = f"{found['env']}({arguments})" if arguments else found["env"]
    return text if len(text) <= 200 else f"{text[:197]}..."


def notes(found: Mapping[str, Any], room: int) -> list[str]:
    """Caveats of the figures, one sentence each."""
    found_notes = []
    if found["all_alike"]:
        low, high = found["interval_95"]
        found_notes.append(
            f"All problems have the same accuracy, so there is nothing to resample: {low:.3f} to {high:.3f} is what "
            f"{found['problems']} problems leave open of problems like them."
        )
    if found["unscorable"]:
        found_notes.append(
            f"{found['unscorable']:,} of {found['problems'] * found['samples']:,} samples could not be scored and are "
            "left out (infra_failure: the machinery, not the model); the same command tries them again."
        )
    if found["truncated"] > MUCH_TRUNCATED:
        found_notes.append(
            f"{found['truncated']:.0%} of the completions were cut off at {room:,} tokens: with a larger "
            "--max_completion_length the figures may be higher."
        )
    if all(row["maj_at_k"] is None for row in found["by_k"]):
        found_notes.append("No maj@k: no answers to vote on were read from the completions.")
    return found_notes


def figure(value: float | None) -> str:
    """A figure with three digits; a dash without one."""
    return "-" if value is None else f"{value:.3f}"


def span(ends: Sequence[float | None] | None, form: str = "{:.3f}") -> str:
    """An interval in words."""
    if ends is None or ends[0] is None or ends[1] is None:
        return "-"
    return f"{form.format(ends[0])} to {form.format(ends[1])}"


def grid(*headings: str, gap: int = 2) -> Table:
    """A plain table: the first column to the left, figures to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0))
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place == 0 else "right", no_wrap=place > 0, min_width=5)
    return table


def _overview(environments: Sequence[Mapping[str, Any]]) -> Table:
    samples = environments[0]["samples"]
    names = [found["env"] for found in environments]
    table = grid("environment", f"avg@{samples}", _RANGE, f"pass@{samples}", f"maj@{samples}")
    for found in environments:
        table.add_row(
            Text(found["env"] if names.count(found["env"]) == 1 else title(found)),
            figure(found["accuracy"]),
            span(found["interval_95"]),
            figure(found["by_k"][-1]["pass_at_k"]),
            figure(found["by_k"][-1]["maj_at_k"]),
        )
    return table


def _whole(found: Mapping[str, Any]) -> Table:
    table = grid("", f"avg@{found['samples']}", _RANGE, "truncated", _RANGE, "length", _RANGE)
    table.add_row(
        "all",
        figure(found["accuracy"]),
        span(found["interval_95"]),
        f"{found['truncated']:.1%}",
        span(found["truncated_interval_95"], "{:.1%}"),
        f"{found['mean_length']:,.1f}",
        span(found["mean_length_interval_95"], "{:,.1f}"),
    )
    return table


def _by_k(found: Mapping[str, Any]) -> Table | None:
    if found["samples"] == 1:
        return None
    table = grid("\nk", "\npass@k", f"\n{_RANGE}", "\nmaj@k", f"\n{_RANGE}")
    for row in found["by_k"]:
        table.add_row(
            str(row["k"]),
            figure(row["pass_at_k"]),
            span(row["pass_at_k_interval_95"]),
            figure(row["maj_at_k"]),
            span(row["maj_at_k_interval_95"]),
        )
    return table


def _levels(found: Mapping[str, Any]) -> Table | None:
    if not found["levels"]:
        return None
    samples = found["samples"]
    headings = ("level", "problems", f"avg@{samples}", _RANGE, f"pass@{samples}", _RANGE, "truncated", "length")
    table = grid(*(f"\n{heading}" for heading in headings), gap=1)
    for row in found["levels"]:
        table.add_row(
            Text(str(row["level"])),
            f"{row['problems']:,}",
            figure(row["accuracy"]),
            span(row["interval_95"]),
            figure(row["pass_at_k"]),
            span(row["pass_at_k_interval_95"]),
            f"{row['truncated']:.1%}",
            f"{row['mean_length']:,.1f}",
        )
    return table


def _verdicts(found: Mapping[str, Any]) -> Table:
    table = grid("\nverdict", "\nsamples", "\nshare", f"\n{_RANGE}", "\ntruncated", "\nlength")
    for row in found["verdict_shares"]:
        table.add_row(
            Text(row["verdict"]),
            f"{row['samples']:,}",
            f"{row['share']:.1%}",
            span(row["share_interval_95"], "{:.1%}"),
            f"{row['truncated']:.1%}",
            f"{row['mean_length']:,.1f}",
        )
    return table
