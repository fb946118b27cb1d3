"""``dapo-trl configs``: the configuration files that come with the project."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..settings import accelerate_files, config_files, find_config, shipped

HELP = (
    "The configuration files that come with the project, by the names that --config takes in any folder. With a name: "
    "the text of that file."
)


def add_parser(commands: Any) -> None:
    """Add the command to those of ``dapo-trl``."""
    parser = commands.add_parser("configs", help="list the configuration files that come with it", description=HELP)
    parser.add_argument("name", nargs="?", metavar="NAME", help="print this file")
    parser.set_defaults(run=_configs)


def _configs(args: argparse.Namespace) -> int:
    if args.name:
        path = find_config(args.name)
        if not path.is_file():
            raise ConfigError(f"there is no configuration file {args.name}: dapo-trl configs lists them.")
        print(path.read_text(encoding="utf-8"), end="")
        return 0
    folder, axis = shipped("configs"), None
    for path in config_files():
        if path.parent != axis:
            axis = path.parent
            print(f"{axis.name if axis != folder else 'whole runs'}:")
        print(f"  {path.stem:20} {_subject(path)}")
    accelerate = ", ".join(path.name for path in accelerate_files())
    print(f"They are in {folder}; its accelerate/ holds files for accelerate launch --config_file: {accelerate}.")
    return 0


def _subject(path: Path) -> str:
    """The first sentence of the comment that a file begins with."""
    comment = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#") or line.startswith("#  "):  # a command, indented
            break
        comment.append(line.lstrip("# "))
    return re.split(r"(?<!\beq)\.(?= )|:(?= `)", " ".join(comment))[0].removesuffix(".")
