"""Each row is kept, or left out with a reason; and the rollouts and tokens that saves."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..prompts.difficulty import Difficulty
from .golds import doubts, understated
from .overlap import Twin, copies, twins
from .samples import Row, Sampled, read_samples, vote, why_no_golds
from .settings import TriageOptions

RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""False discovery rates for which the number of doubted golds is shown."""

MAX_UNDERSTATED = 2.0
"""A factor by which `understated` raises the rates, from which the notes mention it."""


class Reason(StrEnum):
    """Why a row is left out; the first that applies."""

    TEST = "in the test set"
    NEAR = "nearly in the test set"
    COPY = "copy of another row"
    GOLD = "gold probably wrong"
    SOLVED = "solved"
    HOPELESS = "hopeless"


@dataclass(frozen=True)
class Finding:
    """A row, and what is known of it."""

    row: Row
    chance: float
    """How likely its next group is informative."""
    gold: str | None
    leader: str | None
    """The answer of the majority that contradicts the gold, if there is one."""
    votes: int
    """Samples that gave it."""
    doubt: float
    """The least false discovery rate at which the gold is doubted; NaN without such a majority."""
    reason: Reason | None
    """Why the row is left out; None: it is kept."""
    detail: str
    """The reason in words; empty for a kept row."""


@dataclass(frozen=True)
class Cost:
    """The price of one group to train on, with every prompt drawn in turn."""

    rollouts: float
    """Completions generated."""
    tokens: float
    """Tokens of these."""


@dataclass(frozen=True)
class Triage:
    """The rows of an environment, sorted."""

    findings: list[Finding]
    before: Cost
    """With all rows."""
    after: Cost
    """With the kept rows."""
    rated: dict[float, int]
    """Golds doubted at each of `RATES`; empty where golds cannot be doubted."""
    notes: list[str]
    """What could not be done, a sentence each."""

    @property
    def kept(self) -> list[Finding]:
        """The rows that are kept."""
        return [finding for finding in self.findings if finding.reason is None]

    @property
    def reasons(self) -> dict[Reason, int]:
        """Rows left out for each reason."""
        counts = Counter(finding.reason for finding in self.findings)
        return {reason: counts[reason] for reason in Reason if counts[reason]}

    @property
    def saved(self) -> float:
        """Share of the generated tokens that leaving rows out saves, for the same number of trained groups; NaN where
        nothing was generated or is kept."""
        return 1.0 - self.after.tokens / self.before.tokens if self.before.tokens and self.kept else math.nan


def chances(rows: Sequence[Row], group_size: int, rule: str) -> np.ndarray:
    """How likely the next group of each row is informative, by the difficulty memory of training.

    Returns:
        ``[R]`` probabilities; of a row without scored samples that of its level.
    """
    memory = Difficulty(len(rows), group_size=group_size, rule=rule)
    places, levels = list(range(len(rows))), [row.level for row in rows]
    passes = np.array([float(sum(row.accuracy)) for row in rows])
    memory.observe(places, levels, passes, np.array([len(row.accuracy) for row in rows]))
    return memory.chances(places, levels)


def cost(rows: Sequence[Row], likely: np.ndarray, group_size: int) -> Cost:
    """The price of a trained group if all these rows are drawn equally often.

    Args:
        likely: ``[R]``: how likely the group of each is informative.
    """
    lengths = [float(np.mean(row.lengths)) for row in rows if row.lengths]
    groups = 1.0 / max(float(likely.mean()), 1e-12) if len(rows) else math.nan
    return Cost(group_size * groups, group_size * groups * (float(np.mean(lengths)) if lengths else 0.0))


def triage(sampled: Sampled, tests: Sequence[str], options: TriageOptions) -> Triage:
    """Sort the rows of an evaluation.

    Args:
        tests: The questions that must not be trained on.

    Raises:
        ConfigError: The trusted evaluation is of another model, or drawn in another way.
    """
    rows, notes, rated = sampled.rows, [], {}
    leaders: list[str | None] = [None] * len(sampled.rows)
    if obstacle := why_no_golds(sampled):
        notes.append(f"Golds are not examined. {obstacle}")
        doubt, counts = np.full(len(rows), np.nan), np.zeros(len(rows), dtype=int)
    else:
        votes, leaders, failures = vote(sampled)
        doubt = doubts(votes, None if options.trusted is None else vote(_trusted(sampled, options.trusted))[0])
        if failures:
            notes.append(f"The golds of {len(failures):,} rows are not examined, such as that of {failures[0]}.")
        counts, rated = votes.leader, {rate: int((doubt <= rate).sum()) for rate in RATES}
        if options.trusted is None and understated(votes) > MAX_UNDERSTATED:
            notes.append(
                "The samples vary too little to tell a wrong gold from a mistake that the model always makes: "
                f"{int((votes.others == 0)[votes.right > 0].sum()):,} rows name nothing but their gold, "
                f"more than {MAX_UNDERSTATED:g} times as many as the other rows let one expect, so golds are hardly "
                "doubted. Sample at a higher temperature, or give rows with right golds (--trusted)."
            )
    if not tests:
        notes.append("No test set was named (--against), so rows are compared with each other alone.")
    if failed := sum(row.unscored for row in rows):
        notes.append(f"{failed:,} samples could not be scored (infra_failure) and count nowhere.")
    asked = [row.question for row in rows]
    likely = chances(rows, options.num_generations, options.group_filter)
    findings = []
    for row, chance, leader, count, rate, twin, first in zip(
        rows, likely, leaders, counts, doubt, twins(asked, tests, options.near), copies(asked), strict=True
    ):
        finding = Finding(row, float(chance), sampled.gold(row), leader, int(count), float(rate), None, "")
        reason, detail = _reason(finding, twin, None if first is None else rows[first].index, options)
        findings.append(replace(finding, reason=reason, detail=detail))
    kept = np.array([place for place, finding in enumerate(findings) if finding.reason is None], dtype=int)
    after = cost([rows[place] for place in kept], likely[kept], options.num_generations)
    return Triage(findings, cost(rows, likely, options.num_generations), after, rated, notes)


def _trusted(sampled: Sampled, folder: Path) -> Sampled:
    return read_trusted(folder, sampled.results, sampled.results["environments"][0]["samples"])


def read_trusted(folder: Path, request: Mapping[str, Any], samples: int) -> Sampled:
    """The evaluation of rows with right golds.

    Args:
        request: How the rows are sampled, as far as that is known.
        samples: Samples of a row.

    Raises:
        ConfigError: It is of another model or was drawn in another way, or golds cannot be doubted in it.
    """
    trusted = read_samples(folder)
    for name in ("weights", "engine", "temperature", "top_p", "max_completion_length"):
        if name in request and trusted.results[name] != request[name]:
            raise ConfigError(
                f"trusted is {folder}, sampled with {name} {trusted.results[name]}, and the rows with "
                f"{request[name]}: sample both alike."
            )
    theirs = trusted.results["environments"][0]["samples"]
    if theirs != samples:
        raise ConfigError(
            f"trusted is {folder}, with {theirs} samples of a row, and the rows have {samples}: sample both alike."
        )
    if obstacle := why_no_golds(trusted):
        raise ConfigError(f"trusted is {folder}, which cannot be used: {obstacle}")
    return trusted


def _reason(
    finding: Finding, twin: Twin | None, first: int | None, options: TriageOptions
) -> tuple[Reason | None, str]:
    """Why a row is left out, if it is, and the same in words.

    Args:
        first: The row that it is a copy of.
    """
    row, passed = finding.row, sum(finding.row.accuracy)
    if twin is not None and twin.similarity == 1.0:
        return Reason.TEST, f"test question {twin.place} has the same words"
    if twin is not None:
        return Reason.NEAR, f"test question {twin.place} has a similarity of {twin.similarity:.2f}"
    if first is not None:
        return Reason.COPY, f"row {first} has the same words"
    samples = f"{len(row.accuracy)} samples"
    if finding.doubt <= options.rate:
        return Reason.GOLD, f"{finding.votes} of {samples} answer {finding.leader} and not {finding.gold}"
    if row.accuracy and finding.chance < options.least_chance:
        reason = Reason.SOLVED if 2 * passed > len(row.accuracy) else Reason.HOPELESS
        return reason, f"{passed:g} of {samples} are right: its next group is informative at {finding.chance:.3f}"
    return None, ""
