"""The results of an evaluation as tables on a terminal, from the same data as ``results.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

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
    """What a reader of the figures must know, in sentences."""
    said = []
    if found["all_alike"]:
        low, high = found["interval_95"]
        said.append(
            f"All problems have the same accuracy, so there is nothing to resample: {low:.3f} to {high:.3f} is what "
            f"{found['problems']} problems leave open of problems like them."
        )
    if found["unscorable"]:
        said.append(
            f"{found['unscorable']:,} of {found['problems'] * found['samples']:,} samples could not be scored and are "
            "left out (infra_failure: the machinery, not the model); the same command tries them again."
        )
    if found["truncated"] > MUCH_TRUNCATED:
        said.append(
            f"{found['truncated']:.0%} of the completions were cut off at {room:,} tokens: with a larger "
            "--max_completion_length the figures may be higher."
        )
    if all(row["maj_at_k"] is None for row in found["by_k"]):
        said.append("No maj@k: no answers to vote on were read from the completions.")
    return said


def figure(value: float | None) -> str:
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
