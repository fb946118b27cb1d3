"""``dapo-trl envs list | show | check | attack | replay | new | serve``: the environments, their rows, whether rewards
can be trusted, whether verdicts have changed since a run, a package of one's own, and an environment as a server.

Nothing here imports torch.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import gymnasium
import yaml
from gymnasium.envs.registration import EnvSpec, load_env_creator
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from envs.attack.attack import DEFAULT_CALLS, DEFAULT_MINUTES, attack_reward
from envs.description import arguments
from envs.interop.doors import known_spec
from envs.interop.openenv_server import DEFAULT_HOST, DEFAULT_PORT, DEFAULT_SESSIONS, serve
from envs.math.answers import AnswerStyle
from envs.rejudge import replay
from envs.reward_check.check import DEFAULT_ROWS, reward_report
from envs.reward_check.checks import CHECKS
from envs.reward_check.episode import Fault, answer, present
from envs.reward_check.openenv import openenv_report
from envs.text import brief

from ..errors import ConfigError, RewardError, one_line
from ..rollout.environments import make_env, row_count
from ..rollout.prompting import prompted
from ..settings import read_yaml
from . import envs_new

_MAX_ALIKE = 12  # environments of one namespace and class that are listed apart
_COLOURS = {"ok": "green", "failed": "bold red", "advice": "yellow", "not checked": "dim"}


def add_parser(commands: Any) -> None:
    """Add ``envs`` and its own commands."""
    envs = commands.add_parser("envs", help="list, show and check environments")
    own = envs.add_subparsers(dest="action", required=True, metavar="list|show|check|attack|replay|new|serve")

    every = own.add_parser("list", help="the environments of this package, of plug-ins, and of your modules")
    every.add_argument("modules", nargs="*", metavar="MODULE", help="modules of your own that register environments")
    every.set_defaults(run=_list)

    show = own.add_parser("show", help="one row: the prompt, the solution, and what they earn")
    _add_env(show)
    show.add_argument("--index", type=int, default=0, help="which row (default: 0)")
    show.add_argument("--system_prompt", metavar="TEXT", help="a system message before the prompt, as in training")
    show.add_argument(
        "--few_shot", type=_plain, metavar="N|FILE|LIST", help="worked examples before the question, as in training"
    )
    show.add_argument("--prompt_template", metavar="TEXT", help="text around {question}, as in training")
    show.set_defaults(run=_show)

    check = own.add_parser("check", help="whether the reward is paid for right answers and for nothing else")
    _add_env(check)
    check.add_argument("--rows", type=int, default=DEFAULT_ROWS, help=f"rows to look at (default: {DEFAULT_ROWS})")
    check.add_argument("--seed", type=int, default=0, help="decides which rows (default: 0)")
    check.add_argument(
        "--time_limit",
        type=float,
        help="seconds that judging one answer may take (default: the environment's own limit, or 5)",
    )
    check.add_argument("--skip", nargs="+", default=[], metavar="CHECK", help=f"leave out any of {', '.join(CHECKS)}")
    check.add_argument("--strict", action="store_true", help="count advice as a failure")
    check.add_argument(
        "--json", action="store_true", help="print the report as JSON, with the ids of OpenEnv's RFC 008"
    )
    check.set_defaults(run=_check)

    attack = own.add_parser(
        "attack", help="train a small policy on the reward, and show how it is paid without the task"
    )
    _add_env(attack)
    attack.add_argument("--seed", type=int, default=0, help="decides rows and answers (default: 0)")
    attack.add_argument(
        "--calls", type=int, default=DEFAULT_CALLS, help=f"answers to train on (default: {DEFAULT_CALLS})"
    )
    attack.add_argument(
        "--minutes", type=float, default=DEFAULT_MINUTES, help=f"limit of the whole (default: {DEFAULT_MINUTES:g})"
    )
    attack.add_argument("--json", action="store_true", help="print the report as JSON")
    attack.set_defaults(run=_attack)

    again = own.add_parser("replay", help="judge the recorded verdicts of a run again, and name those that differ")
    again.add_argument("path", metavar="RUN", help="a run's folder, or a file that RecordVerdicts wrote")
    again.set_defaults(run=_replay)

    envs_new.add_parser(own)
    server = own.add_parser("serve", help="an environment as an OpenEnv server, for other trainers")
    _add_env(server)
    server.add_argument("--host", default=DEFAULT_HOST, help=f"address to listen at (default: {DEFAULT_HOST})")
    server.add_argument("--port", type=int, default=DEFAULT_PORT, help=f"port to listen at (default: {DEFAULT_PORT})")
    server.add_argument(
        "--sessions",
        type=int,
        default=DEFAULT_SESSIONS,
        help=f"episodes at a time (default: {DEFAULT_SESSIONS})",
    )
    server.set_defaults(run=_serve)


def _add_env(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("env", metavar="ID", help="such as math/Arithmetic-v0, or your_module:your/Task-v0")
    parser.add_argument(
        "--env_kwargs", type=_mapping, default={}, metavar="YAML", help="its arguments, such as '{levels: [1, 2]}'"
    )


def _plain(text: str) -> Any:
    try:
        return read_yaml(text)
    except yaml.YAMLError as error:
        raise argparse.ArgumentTypeError(f"{brief(text)} cannot be read: {one_line(error)}") from error


def _mapping(text: str) -> dict[str, Any]:
    value = _plain(text)
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise argparse.ArgumentTypeError(f"{brief(text)} must be a mapping, such as '{{levels: [1, 2]}}'")
    return value


@dataclass(frozen=True)
class _Entry:
    """A line of the list."""

    name: str
    rows: str
    rewards: str
    description: str


def _list(args: argparse.Namespace) -> int:
    for module in args.modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever the author's code raises
            raise ConfigError(f"module {module!r} cannot be imported: {one_line(error)}.") from error
    table = Table("id", "rows", "rewards", "task", box=None, pad_edge=False)
    table.columns[0].overflow = "fold"
    for entry in _entries(spec for spec in gymnasium.registry.values() if _root(spec) != "gymnasium"):
        table.add_row(*map(Text, (entry.name, entry.rows, entry.rewards, entry.description)))
    console = Console()
    console.print(table)
    console.print(
        "\nrows: how many problems; rewards: of a right and of a wrong answer. More: dapo-trl envs show ID",
        style="dim",
        soft_wrap=True,
    )
    return 0


def _entries(specs: Iterable[EnvSpec]) -> list[_Entry]:
    """A line for each environment; many of one namespace and class, such as those of a library, share one."""
    found = []
    for _, group in groupby(sorted(specs, key=_kind), key=_kind):
        alike = list(group)
        if len(alike) <= _MAX_ALIKE:
            found += [_entry(spec, spec.id) for spec in alike]
        else:
            entry = _entry(alike[0], f"{alike[0].namespace}/...")
            names = ", ".join(sorted(str(spec.name) for spec in alike))
            found.append(
                _Entry(entry.name, entry.rows, entry.rewards, f"{entry.description} {len(alike)} of them: {names}")
            )
    return sorted(found, key=lambda entry: entry.name)


def _kind(spec: EnvSpec) -> tuple[str, str]:
    return str(spec.namespace), str(spec.entry_point)


def _root(spec: EnvSpec) -> str:
    point = spec.entry_point
    module = point if isinstance(point, str) else getattr(point, "__module__", None)
    return str(module).partition(":")[0].partition(".")[0]


def _entry(spec: EnvSpec, name: str) -> _Entry:
    try:
        make = spec.entry_point if callable(spec.entry_point) else load_env_creator(str(spec.entry_point))
    except Exception as error:
        return _Entry(name, "?", "?", f"cannot be loaded: {one_line(error)}")
    count = getattr(make, "num_rows", "unknown")  # a property where it depends on the arguments
    rows = "endless" if count is None else f"{count:,}" if isinstance(count, int) else "of its arguments"
    parameters = inspect.signature(make).parameters
    rewards = [
        spec.kwargs.get(reward, parameters[reward].default)
        for reward in ("correct_reward", "wrong_reward")
        if reward in parameters
    ]
    description = (inspect.getdoc(make) or "").partition("\n")[0]
    if hub := spec.kwargs.get("hub"):
        rows, description = "of the data set", f"{description} Data set: {hub['dataset']}."
    return _Entry(name, rows, " / ".join(f"{reward:g}" for reward in rewards) or "?", description)


def _show_arguments(spec: EnvSpec) -> None:
    console = Console(highlight=False)
    console.print("\narguments", style="bold")
    make = spec.entry_point if callable(spec.entry_point) else load_env_creator(str(spec.entry_point))
    for name, line in arguments(make).items():
        if name not in spec.kwargs:
            console.print(Text(line), soft_wrap=True)


def _show(args: argparse.Namespace) -> int:
    try:
        env = make_env(args.env, **args.env_kwargs)
    finally:  # also of one that cannot be made without them
        if spec := known_spec(args.env):
            _show_arguments(spec)
    env, size = prompted(env, args), row_count(env)
    if args.index < 0 or (size is not None and args.index >= size):
        last = "0 or more" if size is None else f"from 0 to {size - 1}"
        raise ConfigError(f"index is {args.index}: {args.env} has rows {last}.")
    console = Console(highlight=False)

    def heading(text: str) -> None:
        console.print(f"\n{text}", style="bold")

    try:
        prompt = present(env, index=args.index)
        heading(f"prompt of row {args.index}" + (f" of {size:,}" if size else ""))
        messages = prompt.info.pop("messages", None)
        for message in messages or ():
            console.print(Text(f"[{message['role']}]"), style="dim")
            console.print(Text(message["content"]), soft_wrap=True)
        if messages is None:
            console.print(Text(prompt.text), soft_wrap=True)
        if isinstance(style := getattr(env.unwrapped, "style", None), AnswerStyle):
            heading("how it asks")
            console.print(Text(style.template), soft_wrap=True)
        heading("info")
        console.print(Text(str(prompt.info)), soft_wrap=True)
        solution = getattr(env.unwrapped, "solution", lambda _: None)(args.index)
        heading("solution")
        console.print(Text("none is known" if solution is None else solution), soft_wrap=True)
        heading("rewards")
        for name, text in (("the solution", solution), ("an empty answer", "")):
            if text is not None:
                present(env, index=args.index)
                outcome, _ = answer(env, text)
                why = ", ".join(filter(None, (outcome.verdict, outcome.cause)))
                console.print(Text(f"{name}: {outcome.reward:g}{f' ({why})' if why else ''}"), soft_wrap=True)
    except Fault as fault:
        raise RewardError(f"env {args.env}, index {args.index}: {fault}.") from fault
    finally:
        env.close()
    return 0


def _check(args: argparse.Namespace) -> int:
    make_env(args.env, **args.env_kwargs).close()  # a mistake in the request is no fault of the environment
    try:
        report = reward_report(
            args.env,
            env_kwargs=args.env_kwargs,
            rows=args.rows,
            seed=args.seed,
            time_limit=args.time_limit,
            skip=args.skip,
            strict=args.strict,
        )
    except ValueError as error:
        raise ConfigError(f"{one_line(error).removeprefix('check_reward_env: ')}.") from error
    if args.json:
        print(json.dumps(openenv_report(report), indent=2))
        return 1 if report.failures else 0
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, show_header=False)
    for check in report.checks:
        table.add_row(check.name, Text(check.status, style=_COLOURS[check.status]), Text(check.message))
    console.print(table)
    console.print(f"\n{report.summary}", style="bold", soft_wrap=True)
    return 1 if report.failures else 0


def _attack(args: argparse.Namespace) -> int:
    make_env(args.env, **args.env_kwargs).close()  # a mistake in the request is no fault of the environment
    columns = (TextColumn("attacking"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[earned]}"))
    terminal = Console(stderr=True)
    bar_off = not terminal.is_terminal
    with Progress(*columns, TimeRemainingColumn(), console=terminal, transient=True, disable=bar_off) as progress:
        bar = progress.add_task("", total=args.calls, earned="")

        def show(done: int, of: int, earned: float) -> None:
            progress.update(bar, completed=done, total=of, earned=f"mean reward {earned:.2f}")

        try:
            report = attack_reward(
                args.env,
                env_kwargs=args.env_kwargs,
                seed=args.seed,
                calls=args.calls,
                minutes=args.minutes,
                progress=show,
            )
        except ValueError as error:
            raise ConfigError(f"{one_line(error).removeprefix('attack_reward: ')}.") from error
    if args.json:
        print(json.dumps(report.as_data(), indent=2))
        return 1 if report.holes else 0
    console = Console(highlight=False)
    for found in report.findings:
        style = "bold red" if found.hole else "dim"
        console.print(Text(f"{'hole' if found.hole else 'no hole'}: {found.strategy}", style=style), soft_wrap=True)
        right = "" if found.right is None else f"; right is {brief(found.right)}"
        console.print(Text(f"  answer at row {found.index}: {brief(found.text)}{right}"), soft_wrap=True)
        earned = f"  mean reward {found.reward:.2f} of 1, paid on {found.paid} of {found.rows} rows held out"
        note = f" ({found.note})" if found.note else ""
        console.print(Text(f"{earned}; it should have been: {found.should}{note}"), soft_wrap=True)
    if report.guessing is not None:
        console.print(f"\nthe best constant guess earns {report.guessing:.2f}", style="dim")
    console.print(f"\n{report.summary}", style="bold", soft_wrap=True)
    return 1 if report.holes else 0


def _serve(args: argparse.Namespace) -> int:
    if args.sessions < 1:
        raise ConfigError(f"sessions is {args.sessions}: it must be 1 or more.")
    if not 0 < args.port < 1 << 16:
        raise ConfigError(f"port is {args.port}: it must be from 1 to 65535.")
    env = make_env(args.env, **args.env_kwargs)
    print(f"{args.env} as an OpenEnv server at http://{args.host}:{args.port}; stop it with Ctrl-C", flush=True)
    try:
        serve(env, host=args.host, port=args.port, sessions=args.sessions)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error}.") from error
    except (OSError, SystemExit) as error:  # uvicorn ends the process where it cannot listen
        raise ConfigError(f"cannot listen at {args.host}:{args.port}: choose another --port.") from error
    finally:
        env.close()
    return 0


def _replay(args: argparse.Namespace) -> int:
    try:
        found = replay(args.path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{one_line(error).rstrip('.')}.") from error
    Console(highlight=False).print(Text(str(found)), soft_wrap=True)
    return 1 if found.differences else 0
