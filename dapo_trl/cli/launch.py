"""``dapo-trl launch``: train or evaluate on several processes; the exit codes are those of the command itself.

``accelerate launch -m dapo_trl`` starts the same processes, but torch's launcher ends with exit code 1 and a traceback
of its own whenever a process fails or Ctrl-C stops the run, which no process that it starts can change.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from subprocess import CalledProcessError
from typing import Any, NoReturn

from ..errors import ConfigError, one_line

HELP = (
    "The same as accelerate launch -m dapo_trl train ..., with the exit codes of a single process. Options before the "
    "command are those of accelerate launch: --config_file, --num_processes, --num_machines and so on "
    "(accelerate launch --help); settings are those of the command (dapo-trl train --help)."
)
COMMANDS = ("train", "eval")
PATIENCE = 3600
"""Seconds that processes have to end their optimizer step and to save, once a signal has asked them to stop."""


def add_parser(commands: Any) -> None:
    """Add ``launch``."""
    launch = commands.add_parser(
        "launch",
        help="train or evaluate on several processes",
        description=HELP,
        usage="dapo-trl launch [--config_file FILE | --num_processes N | ...] train|eval ...",
        allow_abbrev=False,
    )
    launch.set_defaults(run=_launch, takes_settings=True)


def _launch(args: argparse.Namespace) -> int:
    place = next((place for place, word in enumerate(args.settings) if word in COMMANDS), None)
    if place is None:
        advice = "; dapo-trl plan needs no launcher: --devices 2" if "plan" in args.settings else ""
        raise ConfigError(
            "launch needs a command, train or eval: dapo-trl launch --num_processes 2 train --config ..." + advice
        )
    # torch is imported here
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    parser = launch_command_parser()
    parser.error = _refuse
    options = parser.parse_args([*args.settings[:place], "-m", "dapo_trl", *args.settings[place:]])
    options.shutdown_timeout = PATIENCE
    logging.getLogger("accelerate.commands.launch").setLevel(logging.ERROR)  # it lists the defaults that it takes
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):  # its reports follow a line that says the same
            logging.getLogger(name).setLevel(logging.CRITICAL)
    before = signal.signal(signal.SIGINT, lambda *_: None)  # until torch's handler stands; an only process has its own
    try:
        launch_command(options)
    except ChildFailedError as error:
        return _code(error)
    except SignalException:
        return 128 + signal.SIGINT
    except CalledProcessError as error:  # of the only process
        return error.returncode if error.returncode >= 0 else 1
    except (ValueError, OSError) as error:
        raise ConfigError(f"launch: {one_line(error)}") from error
    finally:
        signal.signal(signal.SIGINT, before)
    return 0


def _refuse(message: str) -> NoReturn:
    raise ConfigError(f"launch: {message} (see accelerate launch --help).")


def _code(error: Any) -> int:
    """The exit code of the process that failed first; one that a signal ended could not explain itself."""
    rank, failure = error.get_first_failure()
    if failure.exitcode >= 0:
        return failure.exitcode
    name = signal.Signals(-failure.exitcode).name
    why = " (out of memory, most often)" if name == "SIGKILL" else ""
    print(f"error: process {rank} was ended by {name}{why}.", file=sys.stderr)
    return 1
