"""``dapo-trl eval``: measure a model, or compare two measurements."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from rich.console import Console

from ..errors import ConfigError
from ..settings import long_flags
from .help import SettingsHelp
from .outline import EVALUATION, RUN, TRAINER, check_words, constant

HELP = (
    "Measure a model: avg@k, pass@k and maj@k with their intervals, by level and by verdict, such as --model "
    "models/arithmetic-0.8m --env 'math/Arithmetic-v0: {split: test}' --k 8. Files are the same as for train; "
    "flags are the settings below. --k, --problems, --temperature and --top_p set the measurement, and "
    "--env may be given several times. A killed evaluation continues with the same command."
)


def add_parser(commands: Any) -> None:
    """Add ``eval``."""
    parser = commands.add_parser(
        "eval",
        help="measure a model on an environment, or compare two measurements",
        description=HELP,
        usage="dapo-trl eval --model DIR --env ID [--k 32] [--config FILE ...] [--field value ...]\n"
        "       dapo-trl eval --compare A B",
        add_help=False,
    )
    parser.add_argument(
        "-h", "--help", action=SettingsHelp, owners=(EVALUATION,), aliases=lambda: constant(EVALUATION[0], "ALIASES")
    )
    parser.add_argument(
        "--config", nargs="+", action="extend", default=[], metavar="FILE", help="YAML files, as for train"
    )
    parser.add_argument(
        "--compare",
        nargs=2,
        metavar=("A", "B"),
        help="folders of two evaluations: the gain of B over A, with its interval",
    )
    parser.set_defaults(run=_eval, takes_settings=True)


def _eval(args: argparse.Namespace) -> int:
    if args.compare:
        if args.config or args.settings:
            raise ConfigError(
                f"--compare takes two folders and nothing else, not {(args.config + args.settings)[0]!r}."
            )
        from ..evaluation.comparison import compare

        compare(Path(args.compare[0]), Path(args.compare[1]), Console(soft_wrap=True, highlight=False))
        return 0
    aliases = constant(EVALUATION[0], "ALIASES")
    short = {long: name for name, long in aliases.items()}
    check_words(
        args.config,
        long_flags(args.settings, aliases),
        *(EVALUATION, RUN, *TRAINER),
        label=lambda name: short.get(name, name),
    )
    # Torch is imported here, after the arguments are known to be well-formed.
    from accelerate import Accelerator

    from ..evaluation.command import run_evaluation
    from ..evaluation.settings import load_eval_settings
    from ..run.owner import end_with_launcher
    from ..run.settings import OWNERS
    from ..run.startup import quieten, share_cores

    end_with_launcher()
    config = load_eval_settings(args.config, args.settings, training=OWNERS)
    console = Console(soft_wrap=True, highlight=False, quiet=int(os.environ.get("RANK", 0)) != 0)
    quieten(console)
    accelerator = Accelerator(cpu=config.use_cpu)
    share_cores(accelerator.device, accelerator.num_processes)
    return run_evaluation(config, accelerator, console)
