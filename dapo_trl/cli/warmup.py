"""``dapo-trl warmup``: a cold start on an environment's own solutions."""

from __future__ import annotations

import argparse
from typing import Any

from ..errors import ConfigError
from ..settings import require
from .help import SettingsHelp
from .outline import RUN, TRAINER, check_words

HELP = (
    "A cold start, for a model whose groups are all wrong because its answers have another form: learn solutions of "
    "the environment (its solution(), which is the worked solution of GSM8K and MATH) with TRL's SFTTrainer, then go "
    "on with dapo-trl train --model DIR. Files and settings are those of train, so that prompts, adapter, batch and "
    "held-out problems are the same; the options below replace the files' own. Held-out problems are never learnt."
)


def add_parser(commands: Any) -> None:
    """Add ``warmup``."""
    warmup = commands.add_parser(
        "warmup",
        help="teach a model the form of the answers, before training",
        description=HELP,
        usage="dapo-trl warmup --env ID --model M --output_dir D [--rows N] [--config FILE ...] [--field value ...]",
        add_help=False,
        allow_abbrev=False,
    )
    add = warmup.add_argument
    add("-h", "--help", action=SettingsHelp, owners=(RUN, *TRAINER), without=("learning_rate", "output_dir"))
    add("--config", nargs="+", action="extend", default=[], metavar="FILE", help="YAML files, as for train")
    add("--rows", type=int, default=256, metavar="N", help="solutions to learn (256)")
    add("--epochs", type=float, default=1.0, metavar="E", help="times that each is learnt (1)")
    add("--learning_rate", type=float, metavar="R", help="of this training (1e-5 for all weights, 2e-4 for an adapter)")
    add("--output_dir", metavar="DIR", help="folder of the model; must not exist yet")
    warmup.set_defaults(run=_warmup, takes_settings=True)


def _warmup(args: argparse.Namespace) -> int:
    if args.output_dir is None:
        raise ConfigError("output_dir is not set: give the folder of the model as --output_dir.")
    for name in ("rows", "epochs", "learning_rate"):
        if (value := getattr(args, name)) is not None and not value > 0:
            raise ConfigError(f"{name} is {value}: it must be above 0.")
    settings = [*args.settings, "--output_dir", args.output_dir]
    options = ("rows", "epochs")
    require(check_words(args.config, settings, RUN, *TRAINER, options=options), "model", "env")
    from ..run.settings import load_settings  # torch is imported here, after the arguments are known to be well-formed
    from ..run.warmup import warm_up

    run, training, _ = load_settings(args.config, settings, options=options)
    return warm_up(run, training, rows=args.rows, epochs=args.epochs, learning_rate=args.learning_rate)
