"""``dapo-trl plan``: its arguments. What it does is in `dapo_trl.plan`."""

from __future__ import annotations

import argparse
from typing import Any

HELP = (
    "Takes what train takes and loads no weights: parameters, memory of each device, rollouts, tokens and time, and "
    "what will go wrong. Exits with 1 if it does not fit, and says which changes would help most."
)


def add_parser(commands: Any) -> None:
    """Add the command to those of ``dapo-trl``."""
    plan = commands.add_parser(
        "plan",
        help="say what a run will do and whether it fits",
        description=HELP,
        usage="dapo-trl plan --config FILE [FILE ...] [--field value ...] [--card NAME] [--json]",
        allow_abbrev=False,
    )
    add = plan.add_argument
    add("--config", nargs="+", action="extend", default=[], metavar="FILE", help="as for train")
    add("--card", metavar="NAME", help="a GPU: RTX 4090, A100 80GB, ...; default: the one here, or this CPU")
    add("--devices", type=int, metavar="N", help="how many of them; default: those of --accelerate, or 1")
    add("--accelerate", metavar="FILE", help="the file that accelerate launch will be given")
    add("--pass_rate", default="0.5", metavar="RATE", help="of the prompts: 0.3, [0.1, 0.9], {0: 3, 0.5: 7}")
    add("--completion_tokens", type=float, metavar="N", help="mean length; default: the limit")
    add("--prompt_tokens", type=int, metavar="N", help="length of the prompts; default: measured")
    add("--rows", type=int, metavar="N", help="prompts of the data; default: the environment's")
    add("--calibration", metavar="RUN_DIR", help="an earlier run, for tokens per second")
    add("--json", action="store_true", help="print the plan as JSON")
    plan.set_defaults(run=_plan, takes_settings=True)


def _plan(args: argparse.Namespace) -> int:
    from .plan.command import plan_run  # torch is imported here, after the arguments are known to be well-formed

    return plan_run(args, args.settings)
