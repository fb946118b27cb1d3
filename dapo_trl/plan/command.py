"""``dapo-trl plan``: what a run will do and whether it fits."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import warnings
from collections.abc import Sequence
from typing import Any

import yaml

from ..config import DAPOConfig
from ..errors import ConfigError, one_line
from ..settings import RunConfig, load_settings
from .calibration import speed_of
from .cautions import cautions
from .devices import Devices, planned_config, spread
from .planner import Assumed, Plan, make_plan, with_rows
from .refill import read_rates
from .remedies import Replan, remedies
from .show import as_dict, as_text
from .task import look_at_task
from .weights import read_config

DOES_NOT_FIT = 1


def plan_run(options: argparse.Namespace, flags: Sequence[str]) -> int:
    """Carry out the command; returns the exit code: 0 it fits, 1 it does not."""
    warnings.simplefilter("ignore")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    plan, again, cut_off = _plan(options, flags)
    changes = [] if plan.fits else remedies(plan, again)
    sentences = cautions(plan, cut_off=cut_off)
    if options.json:
        print(json.dumps(as_dict(plan, sentences, changes), indent=2))
    else:
        print(as_text(plan, sentences, changes))
    return 0 if plan.fits else DOES_NOT_FIT


def _plan(options: argparse.Namespace, flags: Sequence[str]) -> tuple[Plan, Replan, float]:
    """The plan, what plans again with changes, and the share of completions that the calibrating run cut off."""
    assumed, cut_off = Assumed(read_rates(_value("pass_rate", options.pass_rate)), options.completion_tokens), 0.0
    if options.calibration:
        speed, mean, cut_off = speed_of(options.calibration)
        assumed = dataclasses.replace(assumed, speed=speed, completion_tokens=options.completion_tokens or mean)
    devices = spread(options.accelerate, options.devices)

    def planned(more: dict[str, Any], on: Devices) -> tuple[RunConfig, DAPOConfig]:
        changed = [text for name, value in more.items() for text in (f"--{name}", json.dumps(value))]
        run, args, _ = load_settings(options.config, [*flags, *changed], make=planned_config(on, options.card))
        return run, args

    run, args = planned({}, devices)
    config = read_config(str(run.model))
    template = args.chat_template_kwargs if isinstance(args.chat_template_kwargs, dict) else {}
    task = with_rows(look_at_task(run, template=template, prompt_tokens=options.prompt_tokens), options.rows)

    def again(more: dict[str, Any], on: Devices) -> Plan:
        run, args = planned(more, on)
        return make_plan(run, args, config, task, assumed)

    return again({}, devices), again, cut_off


def _value(name: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--{name} {text!r} cannot be read: {one_line(error)}") from error
