"""``dapo-trl triage``: know the data before training."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from ..errors import ConfigError, one_line
from ..settings import long_flags, read_files, read_yaml
from .help import SettingsHelp
from .outline import EVALUATION, RUN, TRAINER, check_words, constant

HELP = (
    "Sample every row and sort the rows: informative ones, copies of the test set, solved and hopeless ones, golds "
    "that are probably wrong. Model, environment and sampling are set as for eval; a stopped command continues when it "
    "is repeated. With --samples the samples are those of an evaluation that is there."
)


def add_parser(commands: Any) -> None:
    """Add ``triage``."""
    triage = commands.add_parser(
        "triage",
        help="sort the rows of a task before training: useless, copied, wrong golds",
        description=HELP,
        usage="dapo-trl triage --model M --env ID [--k 16] [--against ENV] [--config FILE ...] [--field value ...]\n"
        "       dapo-trl triage --samples DIR [--against ENV]",
        add_help=False,
        allow_abbrev=False,
    )
    add = triage.add_argument
    aliases = lambda: constant(EVALUATION[0], "ALIASES")  # noqa: E731
    add("-h", "--help", action=SettingsHelp, owners=(EVALUATION,), aliases=aliases)
    add("--config", nargs="+", action="extend", default=[], metavar="FILE", help="YAML files, as for train")
    own = [
        add("--samples", type=Path, metavar="DIR", help="folder of a complete evaluation, in place of sampling"),
        add("--against", action="append", default=[], metavar="ENV", help="the test set, such as 'ID: {split: test}'"),
        add("--trusted", type=Path, metavar="DIR", help="an evaluation of the model on rows with golds that are right"),
        add("--rate", type=float, metavar="R", help="accepted share of right golds among the doubted ones (0.05)"),
        add("--near", type=float, metavar="S", help="similarity from which a question is a near-copy (0.4)"),
        add("--least_chance", type=float, metavar="P", help="leave out rows that teach less likely (0.1)"),
        add("--num_generations", type=int, metavar="G", help="completions of a group (the files', or 8)"),
        add("--group_filter", metavar="RULE", help="zero_variance or all_zero (the files', or zero_variance)"),
    ]
    triage.set_defaults(run=_triage, takes_settings=True, own=[action.dest for action in own])


def _triage(args: argparse.Namespace) -> int:
    if args.samples is not None and (args.config or args.settings):
        raise ConfigError(f"--samples takes what is there: leave out {(args.config + args.settings)[0]!r}.")
    aliases = constant(EVALUATION[0], "ALIASES")
    owners = (EVALUATION, RUN, *TRAINER)
    flags = long_flags(args.settings, aliases)
    check_words(args.config, flags, *owners, options=args.own)
    # Torch is imported here, after the arguments are known to be well-formed.
    from ..run.settings import OWNERS
    from ..triage.command import check_options, run_triage
    from ..triage.settings import TriageOptions, evaluation_flags

    options = TriageOptions(**_options(args, read_files(args.config, OWNERS)))
    console = Console(soft_wrap=True, highlight=False, quiet=int(os.environ.get("RANK", 0)) != 0)
    if args.samples is not None:
        return run_triage(args.samples, options, console)
    from accelerate import Accelerator

    from ..evaluation.command import run_evaluation
    from ..evaluation.settings import load_eval_settings
    from ..run.owner import end_with_launcher
    from ..run.startup import quieten, share_cores

    end_with_launcher()
    config = load_eval_settings(args.config, evaluation_flags(args.config, flags, OWNERS), training=OWNERS)
    if len(config.environments()) > 1:
        raise ConfigError("env names several environments: triage looks at one at a time.")
    check_options(options, config)
    quieten(console)
    accelerator = Accelerator(cpu=config.use_cpu)
    share_cores(accelerator.device, accelerator.num_processes)
    main = accelerator.is_main_process
    return run_evaluation(config, accelerator, console) or (run_triage(config.folder, options, console) if main else 0)


def _options(args: argparse.Namespace, files: dict[str, Any]) -> dict[str, Any]:
    """The options that were given; those that are settings of training come from its files otherwise."""
    found: dict[str, Any] = {"against": tuple(map(_environment, args.against))}
    for name in ("trusted", "rate", "near", "least_chance", "num_generations", "group_filter"):
        given = getattr(args, name)
        value = files.get(name) if given is None else given
        if value is not None and (given is not None or value != "none"):  # a run that drops no group has no rule
            found[name] = value
    if files.get("eval_env") is None:
        found["measured"] = files.get("eval_env_kwargs") or {}
    return found


def _environment(text: str) -> Any:
    try:
        return read_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--against {text} cannot be read: {one_line(error)}.") from error
