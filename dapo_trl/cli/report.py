"""``dapo-trl report | watch``: a run as a page, afterwards and while it goes on.

Nothing here imports torch.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from ..errors import ConfigError


def add_parser(commands: Any) -> None:
    """Add ``report`` and ``watch``."""
    report = commands.add_parser("report", help="one or several runs as a page that needs no network, and as PNGs")
    report.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder (its output_dir)")
    report.add_argument(
        "--output",
        type=Path,
        metavar="PATH",
        help="the page, or a folder for report.html (default: the run's folder; for several runs the current one)",
    )
    report.set_defaults(run=_report)

    watch = commands.add_parser("watch", help="the same page in a browser on this machine, while the run goes on")
    watch.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder; it may still be empty")
    watch.add_argument("--port", type=int, default=None, help="default: 8707, or the next one that is free")
    watch.set_defaults(run=_watch)


def _report(args: argparse.Namespace) -> int:
    from ..report.page import pictures, write_report  # with matplotlib, which takes a while

    _check_distinct(args.runs)
    try:
        path = write_report(args.runs, args.output)
    except OSError as error:
        raise ConfigError(f"the report cannot be written: {error}") from error
    for written in (path, *pictures(path, len(args.runs))):
        Console(highlight=False).print(str(written), soft_wrap=True, markup=False)
    return 0


def _watch(args: argparse.Namespace) -> int:
    from ..report.live import serve

    _check_distinct(args.runs)
    serve(args.runs, port=args.port, report=lambda line: Console(highlight=False).print(line, soft_wrap=True))
    return 0


def _check_distinct(runs: list[Path]) -> None:
    folders = [run.resolve() for run in runs]
    for run, folder in zip(runs, folders, strict=True):
        if folders.count(folder) > 1:
            raise ConfigError(f"run {run} is given twice: name each run once.")
