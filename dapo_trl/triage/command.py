"""``dapo-trl triage``, from the samples to the files of the result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from envs.math.answers import bare_question

from ..errors import ConfigError
from ..evaluation.journal import write
from ..evaluation.results import grid, plain
from ..evaluation.settings import EvalConfig
from ..rollout.environments import EnvironmentRows, make_env, row_count
from .page import write_page
from .rows import given_rows, write_lines, write_settings
from .samples import Sampled, read_samples
from .settings import TriageOptions
from .sorting import Finding, Triage, read_trusted, triage

KEPT, LEFT_OUT, ROWS = "kept.jsonl", "left_out.jsonl", "triage.jsonl"
SETTINGS, RESULTS, PAGE = "kept.yaml", "triage.json", "triage.html"


def run_triage(folder: Path, options: TriageOptions, console: Console) -> int:
    """Sort the rows of the evaluation in a folder, and write the result beside it; returns the exit code.

    Raises:
        ConfigError: The samples or an environment to compare with cannot be read.
    """
    sampled = read_samples(folder)
    found = triage(sampled, test_questions(options.against), options)
    trainable = write_rows(sampled, found, options.measured)
    results = summary(sampled, found, options)
    write(folder / RESULTS, results)
    write_page(folder / PAGE, results, found)
    show(results, console)
    console.print(f"kept rows: {folder / KEPT}   the others: {folder / LEFT_OUT}   page: {folder / PAGE}")
    if trainable:
        console.print(f"to train on the kept rows: dapo-trl train --config ... {folder / SETTINGS}")
    return 0


def check_options(options: TriageOptions, config: EvalConfig) -> None:
    """Refuse, before anything is sampled, a test set or a trusted evaluation that could not be used afterwards.

    Raises:
        ConfigError: It cannot be read, or was sampled otherwise than the rows will be.
    """
    test_questions(options.against)
    if options.trusted is not None:
        read_trusted(options.trusted, {"engine": config.engine, **vars(config.sampling)}, config.eval_samples)


def test_questions(against: tuple[Any, ...]) -> list[str]:
    """The questions of the environments, without the instructions of known answer styles.

    Raises:
        ConfigError: One is neither a name nor one name with its arguments, cannot be made, or is endless.
    """
    questions = []
    for item in against:
        name, kwargs = next(iter(item.items())) if isinstance(item, dict) and len(item) == 1 else (item, {})
        if not isinstance(name, str) or not isinstance(kwargs, dict):
            raise ConfigError(
                f"against is {item!r}: it must be an environment, as in 'math/GSM8K-v0: {{split: test}}'."
            )
        env = make_env(name, **kwargs)
        if (count := row_count(env)) is None:
            raise ConfigError(f"against is {name}, which is endless: name one with rows.")
        rows = EnvironmentRows(env, None)
        questions += [bare_question(rows.look(index)[0]) for index in range(count)]
        env.close()
    return questions


def write_rows(sampled: Sampled, found: Triage, measured: Mapping[str, Any]) -> bool:
    """Write the kept rows and the others.

    Args:
        measured: As in `TriageOptions`.

    Returns:
        Whether the kept rows are those of the environment's source, so that training takes them.
    """
    folder, env = sampled.folder, sampled.env
    given = given_rows(env, [finding.row.index for finding in found.findings])
    lines = [line_of(finding) for finding in found.findings]
    write_lines(folder / ROWS, lines)
    left_out = (line for line in lines if line["reason"] is not None)
    write_lines(
        folder / LEFT_OUT, left_out if given is None else ({**line, "row": given[line["index"]]} for line in left_out)
    )
    if given is None:
        write_lines(folder / KEPT, (line for line in lines if line["reason"] is None))
        (folder / SETTINGS).unlink(missing_ok=True)
        found.notes.append(
            "The environment makes its rows itself, so training cannot be given a file of them: kept.jsonl has their "
            "indices."
        )
        return False
    write_lines(folder / KEPT, (given[finding.row.index] for finding in found.kept))
    assert env.spec is not None
    name = sampled.results["environments"][0]["env"]
    write_settings(folder / SETTINGS, name, env.spec.kwargs, folder / KEPT, measured)
    return True


def line_of(finding: Finding) -> dict[str, Any]:
    """What is known of a row, as plain data."""
    row = finding.row
    return plain(
        {
            "index": row.index,
            "reason": None if finding.reason is None else str(finding.reason),
            "detail": finding.detail,
            "prompt": row.prompt,
            "gold": finding.gold,
            "samples": len(row.accuracy),
            "right": row.right,
            "chance": round(finding.chance, 4),
            "majority": finding.leader,
            "votes": finding.votes,
            "rate": finding.doubt,
        }
    )


def summary(sampled: Sampled, found: Triage, options: TriageOptions) -> dict[str, Any]:
    """The figures of a triage as plain data."""
    solved = [finding for finding in found.findings if finding.row.accuracy]
    levels = sorted({str(finding.row.level) for finding in found.findings if finding.row.level is not None})
    return plain(
        {
            "model": sampled.results["model"],
            "environment": sampled.results["environments"][0]["env"],
            "samples": sampled.results["environments"][0]["samples"],
            "rows": len(found.findings),
            "kept": len(found.kept),
            "left_out": {str(reason): count for reason, count in found.reasons.items()},
            "all_correct": sum(finding.row.right == len(finding.row.accuracy) for finding in solved),
            "all_wrong": sum(not any(finding.row.accuracy) for finding in solved),
            "rate": options.rate,
            "doubted_at": {f"{rate:g}": count for rate, count in found.rated.items()},
            "trusted": None if options.trusted is None else str(options.trusted),
            "group": options.num_generations,
            "least_chance": options.least_chance,
            "near": options.near,
            "rollouts_per_trained_group": {"before": found.before.rollouts, "after": found.after.rollouts},
            "tokens_per_trained_group": {"before": found.before.tokens, "after": found.after.tokens},
            "tokens_saved": found.saved,
            "levels": [_level(found, level) for level in levels],
            "notes": found.notes,
        }
    )


def _level(found: Triage, level: str) -> dict[str, Any]:
    here = [finding for finding in found.findings if str(finding.row.level) == level]
    return {
        "level": level,
        "rows": len(here),
        "kept": sum(finding.reason is None for finding in here),
        "chance": sum(finding.chance for finding in here) / len(here),
    }


def show(results: Mapping[str, Any], console: Console) -> None:
    """Print the result of a triage."""
    console.print(f"\n{results['environment']}: {results['kept']:,} of {results['rows']:,} rows are kept", style="bold")
    table = grid("left out", "rows")
    for reason, count in results["left_out"].items():
        table.add_row(reason, f"{count:,}")
    if results["left_out"]:
        console.print(table)
    rollouts, tokens = results["rollouts_per_trained_group"], results["tokens_per_trained_group"]
    table = grid("per trained group", "all rows", "kept rows")
    for name, values in (("rollouts", rollouts), ("tokens", tokens)):
        shown = ("-" if value is None else f"{value:,.1f}" for value in (values["before"], values["after"]))
        table.add_row(name, *shown)
    console.print(table)
    if results["doubted_at"]:
        table = grid("golds doubted at a rate of", *results["doubted_at"])
        table.add_row("", *(f"{count:,}" for count in results["doubted_at"].values()))
        console.print(table)
    for note in results["notes"]:
        console.print(note, style="yellow", markup=False)
