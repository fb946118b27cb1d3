"""``dapo-trl plan``: what a run will do and whether it fits."""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from envs.text import brief

from ..errors import ConfigError, one_line
from ..settings import read_yaml, require
from .outline import RUN, TRAINER, check_words

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from ..plan.devices import Card, Placement
    from ..plan.planner import Assumed, Plan

HELP = (
    "Takes the arguments of train (dapo-trl train --help) and loads no weights: parameters, memory of each device, "
    "rollouts, tokens, time and warnings. Exits with 1 if it does not fit, and names the changes that would help most."
)
DOES_NOT_FIT = 1


def add_parser(commands: Any) -> None:
    """Add the command to those of ``dapo-trl``."""
    plan = commands.add_parser(
        "plan",
        help="show what a run will do and whether it fits",
        description=HELP,
        usage="dapo-trl plan --config FILE [FILE ...] [--field value ...] [--card NAME] [--json]",
        allow_abbrev=False,
    )
    add = plan.add_argument
    own = [
        add("--config", nargs="+", action="extend", default=[], metavar="FILE", help="as for train"),
        add("--card", metavar="NAME", help="a GPU: RTX 4090, A100 80GB, ...; default: the one here, or this CPU"),
        add("--devices", type=int, metavar="N", help="number of devices; default: that of --accelerate, or 1"),
        add("--accelerate", metavar="FILE", help="the file that accelerate launch will be given"),
        add("--pass_rate", default="0.5", metavar="RATE", help="pass rate of the prompts: 0.3, or {0: 3, 0.5: 7}"),
        add("--completion_tokens", type=float, metavar="N", help="mean length of completions; default: the limit"),
        add("--prompt_tokens", type=int, metavar="N", help="length of the prompts; default: measured"),
        add("--rows", type=int, metavar="N", help="prompts of the data; default: the environment's"),
        add("--calibration", metavar="RUN_DIR", help="an earlier run of this model, for tokens per second"),
        add("--calibrate", metavar="DIR", help="train for a minute on the device here, into DIR, for its calibration"),
        add("--json", action="store_true", help="print the plan as JSON"),
    ]
    plan.set_defaults(run=_plan, takes_settings=True, own=[action.dest for action in own])


def _plan(options: argparse.Namespace) -> int:
    """Carry out the command; returns the exit code: 0 it fits, 1 it does not."""
    for name in ("completion_tokens", "prompt_tokens", "rows", "devices"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise ConfigError(f"{name} is {value:g}: it must be above 0.")
    elsewhere = [
        name for name in ("card", "devices", "accelerate", "calibration") if getattr(options, name) is not None
    ]
    if options.calibrate and elsewhere:
        raise ConfigError(f"--calibrate measures the one device that is here: leave --{elsewhere[0]} out.")
    require(check_words(options.config, options.settings, RUN, *TRAINER, options=options.own), "model", "env")
    # Torch is imported here, after the arguments are known to be well-formed.
    from ..plan.cautions import cautions
    from ..plan.devices import placement, planned_config
    from ..plan.planner import Assumed, look_at_task, make_plan
    from ..plan.refill import read_rates
    from ..plan.remedies import as_flag, paper_batch, remedies, uses
    from ..plan.show import as_dict, as_text
    from ..plan.trace import read_config
    from ..run.lora import as_new_adapter
    from ..run.settings import load_settings

    warnings.simplefilter("ignore")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    assumed = Assumed(read_rates(_value("pass_rate", options.pass_rate)), options.completion_tokens)
    where = placement(options.accelerate, options.devices)

    def settings(changed: Mapping[str, Any], on: Placement) -> Any:
        flags = [text for name, value in changed.items() for text in (f"--{name}", as_flag(value))]
        given = [*options.settings, *flags]
        run, args, asked = load_settings(
            options.config, given, make=planned_config(options.card, on), options=options.own
        )
        return as_new_adapter(run), args, asked

    run, args, _ = settings({}, where)
    if options.completion_tokens and options.completion_tokens > args.max_completion_length:
        raise ConfigError(
            f"completion_tokens is {options.completion_tokens:g}, and no completion is longer than "
            f"max_completion_length {args.max_completion_length}: lower the first or raise the second."
        )
    config = read_config(run.model)
    if options.calibrate:
        from ..run.calibration import calibrate

        calibrate(options.config, options.settings, Path(options.calibrate))
        options.calibration = options.calibrate
    if options.calibration:
        assumed = _calibrated(assumed, options, config, args.card)
    task = look_at_task(run, args, prompt_tokens=options.prompt_tokens, rows=options.rows)

    def replan(changed: Mapping[str, Any], on: Placement | None) -> Plan:
        run, args, _ = settings(changed, on or where)
        return make_plan(run, args, config, task, assumed)

    plan = replan({}, None)
    changes = uses(plan, replan) if plan.fits else remedies(plan, replan)
    show = (lambda *parts: json.dumps(as_dict(*parts), indent=2)) if options.json else as_text
    print(show(plan, cautions(plan), changes, paper_batch(plan, replan)))
    return 0 if plan.fits else DOES_NOT_FIT


def _calibrated(assumed: Assumed, options: argparse.Namespace, config: PreTrainedConfig, card: Card) -> Assumed:
    """The assumptions with speed and lengths of an earlier run, if that was of this model on such a device."""
    from ..plan.schedule import read_run, unlike

    known = read_run(options.calibration)
    if difference := unlike(known, config, card):
        return replace(assumed, unlike=difference)
    mean = options.completion_tokens or known.completion_tokens
    return replace(assumed, completion_tokens=mean, speed=known.speed, cut_off=known.cut_off)


def _value(name: str, text: str) -> Any:
    try:
        return read_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--{name} {brief(text)} cannot be read: {one_line(error)}") from error
