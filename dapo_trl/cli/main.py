"""The command line: ``dapo-trl COMMAND ...``.

``dapo-trl launch ... train ...`` is the same as ``dapo-trl train ...`` on many devices. Exit codes: 0 the
command did its work; 1 it had to stop, or found a fault; 2 the request was wrong; 130 it was interrupted (and a run can
be resumed).

A command is a function that adds its parser to the others. The parser's default ``run`` takes the parsed arguments,
and in ``settings`` the flags that it does not know if ``takes_settings`` is set, and returns the exit code. What it
needs is imported when it runs: the command line answers ``--help`` without waiting for torch.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from .. import __version__
from ..errors import ConfigError, DapoError
from . import configs, envs, eval, launch, merge, plan, report, train, triage, warmup

SPINS = 3000
"""Turns that an idle OpenMP thread waits before it sleeps, on a quiet machine: a hundredth of libgomp's own, as fast,
and less harm when others begin to compute there."""
DESCRIPTION = "Train language models to reason with DAPO (arXiv 2503.14476)."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = _Parser(prog="dapo-trl", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"dapo-trl {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for command in (train, eval, triage, warmup, launch, plan, report, merge, envs, configs):
        command.add_parser(commands)
    _let_threads_wait()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # without a GPU it misses a kernel, at every start
    if os.getcwd() not in sys.path:  # an environment of the user's own is usually a module in the current folder
        sys.path.append(os.getcwd())
    try:
        args, settings = parser.parse_known_args(argv)
        args.settings = settings
        if settings and not getattr(args, "takes_settings", False):
            parser.error(f"unrecognized arguments: {' '.join(settings)}")
        code = args.run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ConfigError as error:
        return _fail(error, 2)
    except DapoError as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130


def _let_threads_wait() -> None:
    """Choose how OpenMP's threads wait for each other, before torch is imported, unless the user has.

    On a busy machine threads that wait actively take the processor from those that they wait for; on a quiet one small
    matrices cost twice as much without (benchmarks/busy.py).
    """
    if {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        return
    if os.getloadavg()[0] > (os.cpu_count() or 1) / 2:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    else:
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (see {self.prog} --help).")


def _fail(error: Exception, code: int) -> int:
    """Print one line. A wrong request is the same on all processes, and the first prints it; an error during a run is
    printed by the process that has it."""
    process = int(os.environ.get("RANK", 0))
    if process == 0 or code == 1:
        print(f"error{f' (process {process})' if process else ''}: {error}", file=sys.stderr)
    return code
