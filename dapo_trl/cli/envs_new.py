"""``dapo-trl envs new``: a package with an environment, its test and its settings, from the templates that ship.

Nothing here imports torch.
"""

from __future__ import annotations

import argparse
import builtins
import keyword
import re
import tokenize
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

from envs.rows import read_file
from envs.text import one_line
from envs.verifiers.math.judge import check_gold

from ..errors import ConfigError
from ..settings import shipped

HELP = (
    "Write a package into a new folder: an environment, its test, an entry point, a README and a configuration that "
    "trains at once. Without an option the task has one turn and makes its rows itself."
)
COLUMNS = ("prompt", "answer")
"""Columns that own rows must have."""
ROWS = Path("data") / "rows.jsonl"
"""Where own rows lie in the package."""
_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")


def add_parser(commands: Any) -> None:
    """Add ``new`` to the commands of ``envs``."""
    new = commands.add_parser("new", help="write a package with an environment of your own", description=HELP)
    new.add_argument("name", metavar="NAME", help="of the folder and the package, such as my-task")
    kind = new.add_mutually_exclusive_group()
    kind.add_argument("--turns", dest="kind", action="store_const", const="turns", help="a task of many turns")
    kind.add_argument("--judge", dest="kind", action="store_const", const="judge", help="a model judges the answers")
    kind.add_argument("--rows", type=Path, metavar="FILE", help="rows of your own: jsonl with prompt and answer")
    new.set_defaults(run=_new, kind="task")


def _new(args: argparse.Namespace) -> int:
    kind = "rows" if args.rows else args.kind
    folder = create(args.name, kind, Path.cwd(), rows=args.rows)
    package = folder.name.replace("-", "_")
    console = Console(highlight=False, soft_wrap=True)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        console.print(str(path.relative_to(folder.parent)), markup=False)
    task = f"{package}:{package}/{_class_name(package)}-v0"
    commands = [f"cd {folder.name}", f"dapo-trl envs check {task} --strict", "dapo-trl train --config config.yaml"]
    if kind == "judge":
        commands.insert(1, "export JUDGE_URL=http://localhost:8000/v1")
        commands[2] += " --env_kwargs '{judge: {model: judge}}'"
    console.print("", *commands, sep="\n", markup=False)
    return 0


def create(name: str, kind: str, parent: Path, *, rows: Path | None = None) -> Path:
    """Write the package.

    Args:
        name: Of the folder; the package has underscores in place of hyphens.
        kind: The template: "task", "turns", "judge" or "rows".
        parent: The folder in which the new one is made.
        rows: A file of rows for the kind "rows", which is copied.

    Returns:
        The new folder.

    Raises:
        ConfigError: The name cannot be one of a package, the folder exists, or the rows cannot be used.
    """
    package, folder = name.replace("-", "_"), parent / name
    if not _NAME.fullmatch(name) or keyword.iskeyword(package):
        raise ConfigError(f"name is {name!r}: it must be small letters, digits and hyphens, as in my-task.")
    sources = [shipped("templates") / "common", shipped("templates") / kind]
    own_class = _class_name(package)
    if keyword.iskeyword(own_class) or hasattr(builtins, own_class) or own_class in _names_in(sources):
        raise ConfigError(f"name is {name!r}, and its class {own_class} would hide another name: choose another one.")
    if folder.exists():
        raise ConfigError(f"{folder} exists: choose another name, or remove it.")
    if find_spec(package) is not None:
        raise ConfigError(f"name is {name!r}, and there is a module {package} already: choose another name.")
    own = None if rows is None else _own_rows(rows)
    names = {"my_task": package, "MyTask": own_class, "my-task": package.replace("_", "-")}
    for source in sources:
        for path in sorted(source.rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                _write(
                    folder / _renamed(str(path.relative_to(source)), names), _renamed(path.read_text("utf-8"), names)
                )
    if own is not None:
        _write(folder / package / ROWS, own)
    return folder


def _own_rows(path: Path) -> str:
    """The text of a file of rows.

    Raises:
        ConfigError: It cannot be read, a row lacks a column, or its answer could never be matched.
    """
    try:
        if path.suffix != ".jsonl":
            raise ValueError(f"{path} is no .jsonl file")
        rows = list(read_file(path))
        if not rows:
            raise ValueError(f"{path} has no rows")
        for number, row in enumerate(rows):
            if missing := [column for column in COLUMNS if row.get(column) in (None, "")]:
                raise ValueError(f"row {number} of {path} has no {missing[0]!r} (columns: {', '.join(row) or 'none'})")
            if not isinstance(row["prompt"], str):
                raise ValueError(f"row {number} of {path}: 'prompt' is a {type(row['prompt']).__name__} and not a text")
            try:
                check_gold(str(row["answer"]))  # as the template does
            except ValueError as error:
                raise ValueError(f"row {number} of {path}: {error}") from error
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"--rows cannot be used: {one_line(error)}: give rows with 'prompt' and 'answer'.") from error


def _names_in(folders: Iterable[Path]) -> set[str]:
    """The names in the sources of templates."""
    found = set()
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        with tokenize.open(path) as file:
            found |= {token.string for token in tokenize.generate_tokens(file.readline) if token.type == tokenize.NAME}
    return found


def _class_name(package: str) -> str:
    return "".join(part.capitalize() for part in package.split("_"))


def _renamed(text: str, names: dict[str, str]) -> str:
    return re.sub("|".join(names), lambda found: names[found[0]], text)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
