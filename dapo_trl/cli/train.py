"""``dapo-trl train``: train a model on an environment."""

from __future__ import annotations

import argparse
from typing import Any

from ..settings import require
from .help import SettingsHelp
from .outline import RUN, TRAINER, check_words

HELP = (
    "Files merge from left to right, flags win. A flag is any setting of DAPOConfig (TRL's GRPOConfig included) or of "
    "the run: --learning_rate 1e-6 --max_steps 200 --env math/Arithmetic-v0 --env_kwargs '{levels: [1, 2]}'. A first "
    "run: --config quickstart."
)


def add_parser(commands: Any) -> None:
    """Add ``train``."""
    train = commands.add_parser(
        "train",
        help="train a model on an environment",
        description=HELP,
        usage="dapo-trl train --config FILE [FILE ...] [--field value ...]",
        add_help=False,
    )
    train.add_argument("-h", "--help", action=SettingsHelp, owners=(RUN, *TRAINER))
    train.add_argument(
        "--config", nargs="+", action="extend", default=[], metavar="FILE", help="YAML files of `field: value` lines"
    )
    train.set_defaults(run=_train, takes_settings=True)


def _train(args: argparse.Namespace) -> int:
    require(check_words(args.config, args.settings, RUN, *TRAINER), "model", "env")
    from ..run.settings import load_settings  # torch is imported here, after the arguments are known to be well-formed
    from ..run.train import train

    return train(*load_settings(args.config, args.settings))
