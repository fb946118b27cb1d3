"""The page as one file: styles, scripts and data inside, nothing fetched.

The data are compressed JSON in base64, so that nothing in them can end a script or be taken for markup; the page shows
them as text. A content security policy allows the page's own scripts, by their hashes, and no connection.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from .. import __version__
from . import rollouts, summary
from .curves import plot_curves
from .reading import Run, read_run

SCRIPTS = ("uplot/uPlot.iife.min.js", "text.js", "data.js", "charts.js", "figures.js", "rollouts.js", "app.js")
STYLES = ("uplot/uPlot.min.css", "style.css")
_ASSETS = Path(__file__).parent / "assets"


def write_report(folders: Sequence[Path], output: Path | None = None) -> Path:
    """Write the page of some runs, and the main curves of each beside it as PNG; returns the page's path.

    Args:
        output: the page, or a folder for ``report.html`` (one that exists, or a name without an ending); None: the
            run's folder, or the current one for several runs.

    Raises:
        ConfigError: a folder is not that of a run.
        OSError: the page cannot be written.
    """
    runs = [read_run(folder) for folder in folders]
    labels = summary.labels(folders)
    output = output or (folders[0] if len(folders) == 1 else Path())
    if output.is_dir() or not output.suffix:
        output /= "report.html"
    output.parent.mkdir(parents=True, exist_ok=True)
    html = render(data(runs, labels), title=", ".join(labels))
    new = output.with_name(f"{output.name}.new")
    new.write_text(html, encoding="utf-8")
    new.replace(output)
    for run, label, picture in zip(runs, labels, pictures(output, len(runs)), strict=True):
        plot_curves(run, picture, title=label)
    return output


def pictures(page: Path, runs: int) -> list[Path]:
    """The PNGs beside a page, one for each of its runs."""
    names = ["curves.png"] if runs == 1 else [f"{page.stem}-{number}-curves.png" for number in range(1, runs + 1)]
    return [page.with_name(name) for name in names]


def data(runs: Sequence[Run], labels: Sequence[str]) -> bytes:
    """Everything the page shows, compressed: lines of JSON. The first is the summary, the second the index by which
    rollouts are found, and each of the others is one rollout."""
    entries = [rollouts.index(run.folder, run.notes) for run in runs]
    share = max(len(runs), 1)
    chosen = [
        rollouts.select(found, most=rollouts.MAX_SHOWN // share, size=rollouts.MAX_CHARACTERS // share)
        for found in entries
    ]
    shown = [(number, rollouts.load(entry)) for number, found in enumerate(chosen) for entry in found]
    described = [summary.describe_run(run, label) for run, label in zip(runs, labels, strict=True)]
    for run, found, kept in zip(described, entries, chosen, strict=True):
        run["rollouts"] = {"recorded": len(found), "shown": len(kept)}
    content = {
        "version": __version__,
        "runs": described,
        "settings": summary.settings_table(runs),
        "environments": summary.environment_table(runs),
        "meanings": summary.meanings(),
    }
    index = [
        [number, *(found[name] for name in ("step", "level", "verdict", "account", "advantage", "tokens"))]
        for number, found in shown
    ]
    lines = [_json(content), _json(index), *(_json(found) for _, found in shown)]
    return gzip.compress("\n".join(lines).encode(), compresslevel=6, mtime=0)


def render(content: bytes, *, title: str, live: bool = False) -> str:
    """The HTML of a page.

    Args:
        content: as `data` returns it.
        live: the page asks its server for newer data every few seconds.
    """
    scripts = [(_ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS]
    hashes = " ".join(f"'sha256-{_base64(hashlib.sha256(text.encode()).digest())}'" for text in scripts)
    source = "'self'" if live else "'none'"
    environment = Environment(
        loader=PackageLoader("dapo_trl.report", "assets"), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("page.html").render(
        title=title,
        styles=[(_ASSETS / name).read_text(encoding="utf-8") for name in STYLES],
        scripts=scripts,
        policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src {hashes}; img-src data:; "
        f"connect-src {source}; base-uri 'none'; form-action 'none'",
        content=_base64(content),
        live=live,
    )


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
