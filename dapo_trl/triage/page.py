"""The result of a triage as one page without scripts, in the style of the report."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from .. import __version__
from ..evaluation.journal import write_text
from .sorting import Finding, Reason, Triage

SHOWN = 40
"""Rows of a list at most; the files have all of them."""
BINS = 10
_STYLE = Path(__file__).parents[1] / "report" / "assets" / "style.css"


def write_page(path: Path, results: Mapping[str, Any], found: Triage) -> None:
    """Write the page.

    Args:
        results: The figures, as `command.summary` gives them.
    """
    write_text(path, [render(results, found)])


def render(results: Mapping[str, Any], found: Triage) -> str:
    """The HTML of the page."""
    environment = Environment(
        loader=PackageLoader("dapo_trl.triage", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value: "-" if value is None else f"{value:,.0f}"
    environment.filters["decimal"] = lambda value: "-" if value is None else f"{value:,.1f}"
    environment.filters["share"] = lambda value: "-" if value is None else f"{value:.1%}"
    return environment.get_template("page.html").render(
        results=results,
        style=_STYLE.read_text(encoding="utf-8"),
        version=__version__,
        bars=histogram([finding.chance for finding in found.findings]),
        lists={reason: listed(found, reason) for reason in (Reason.GOLD, Reason.TEST, Reason.NEAR, Reason.COPY)},
        reasons=found.reasons,
        shown=SHOWN,
    )


def histogram(chances: list[float]) -> list[tuple[str, int, float]]:
    """The chances in equal bins: the bin's name, its rows, and their share of the fullest bin."""
    counts, edges = np.histogram(chances, bins=BINS, range=(0.0, 1.0))
    names = [f"{low:.1f} to {high:.1f}" for low, high in pairwise(edges)]
    return [(name, int(count), float(count / max(counts.max(), 1))) for name, count in zip(names, counts, strict=True)]


def listed(found: Triage, reason: Reason) -> list[Finding]:
    """The first rows left out for a reason, the surest first."""
    rows = [finding for finding in found.findings if finding.reason is reason]
    return sorted(rows, key=lambda finding: (np.nan_to_num(finding.doubt, nan=1.0), finding.row.index))[:SHOWN]
