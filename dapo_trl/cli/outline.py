"""The settings of a command, read from the source of the classes that declare them.

Importing TRL takes many seconds, parsing four files a tenth of one: a misspelt flag, a missing file or a value of the
wrong type is answered before torch is imported. A request without such a mistake is checked again by the classes.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..settings import Rule, check_value, read_files, read_flags

RUN = ("dapo_trl/run/settings.py", "RunConfig")
EVALUATION = ("dapo_trl/evaluation/settings.py", "EvalConfig")
TRAINER = (
    ("dapo_trl/config.py", "DAPOConfig"),
    ("trl/trainer/grpo_config.py", "GRPOConfig"),
    ("trl/trainer/base_config.py", "_BaseConfig"),
    ("transformers/training_args.py", "TrainingArguments"),
)
"""The trainer's settings, a class before its bases."""
OTHER = "Everything else of TRL's GRPOConfig and of transformers' TrainingArguments, under their own names"


@dataclasses.dataclass(frozen=True)
class Declared:
    """A setting as the source of its class declares it."""

    name: str
    kind: str
    """Its annotation."""
    default: Any
    """`UNKNOWN` where the class computes it."""
    doc: str
    limits: Rule


UNKNOWN: Any = object()


class _Names(dict[str, Any]):
    """The names in an annotation; one that is neither built in nor of `typing` stands for any type."""

    def __missing__(self, name: str) -> Any:
        return getattr(builtins, name, None) or getattr(typing, name, Any)


def check_words(
    files: Sequence[str],
    flags: Sequence[str],
    *owners: tuple[str, str],
    options: Sequence[str] = (),
    label: Callable[[str], str] = str,
) -> dict[str, Any]:
    """Read files and flags as `load_settings` will, without the classes that declare the settings.

    Args:
        owners: File and name of each class, as in `TRAINER`.
        options: Options of the command itself, which a misspelt flag may have meant.
        label: The name under which a message mentions a setting.

    Returns:
        The values that were given.

    Raises:
        ConfigError: For a missing or damaged file, an unknown name, or a value of the wrong type or beyond its limits.
    """
    known = tuple(outline(*owner) for owner in owners)
    values = {**read_files(files, known), **dict(read_flags(flags, known, options))}
    for name, value in values.items():
        owner = next(owner for owner in known if name in owner.__annotations__)
        if (limits := owner.DECLARED[name].limits) != Rule():  # type: ignore[attr-defined]
            check_value(owner, name, value, limits, label=label)
    return values


@cache
def outline(path: str, name: str) -> type:
    """A dataclass with the settings that a class declares itself, their types, and each as `Declared` in ``DECLARED``.

    Args:
        path: The file of the class, below the folder of installed packages.
    """
    body = next(node.body for node in _tree(path).body if isinstance(node, ast.ClassDef) and node.name == name)
    fields = [
        node
        for node in body
        if isinstance(node, ast.AnnAssign)
        and not ast.unparse(node.annotation).startswith("ClassVar")
        and _arguments(node.value).get("init") is not False
    ]
    made = dataclasses.make_dataclass(
        name,
        [(field.target.id, _type(field.annotation), None) for field in fields],  # type: ignore[union-attr]
    )
    made.DECLARED = {found.name: found for found in (_declared(path, field) for field in fields)}  # type: ignore[attr-defined]
    return made


def groups(*owners: tuple[str, str]) -> dict[str, tuple[str, list[Declared]]]:
    """The settings of some classes in the groups that their modules declare as ``GROUPS``: a sentence on each group and
    its settings. The rest are in the group ``other``, if any. A setting that no installed version has is left out."""
    known: dict[str, Declared] = {}
    for owner in owners:
        known = {**outline(*owner).DECLARED, **known}  # type: ignore[attr-defined]
    found: dict[str, tuple[str, list[Declared]]] = {}
    for path, _ in owners:
        for name, (sentence, words) in (constant(path, "GROUPS") or {}).items():
            found.setdefault(name, (sentence, []))[1].extend(known.pop(word) for word in words.split() if word in known)
    return {**found, "other": (OTHER, list(known.values()))} if known else found


def constant(path: str, name: str) -> Any:
    """A constant of a module, where it is written out; None elsewhere."""
    for node in _tree(path).body:
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == name for to in node.targets):
            return _literal(node.value)
    return None


@cache
def _tree(path: str) -> ast.Module:
    return ast.parse(_place(path).read_text(encoding="utf-8"))


def _place(path: str) -> Path:
    package, _, inside = path.partition("/")
    found = find_spec(package)  # of the package alone: its modules are not imported
    assert found is not None and found.origin is not None
    return Path(found.origin).parent / inside


def _type(annotation: ast.expr) -> Any:
    """The type of an annotation."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    return eval(compile(ast.Expression(annotation), "annotation", "eval"), {}, _Names())


class _Values(dict[str, Any]):
    """The names that a default may be written with: constants and dataclasses of a module, its own or imported."""

    def __init__(self, path: str):
        super().__init__()
        self.path = path

    def __missing__(self, name: str) -> Any:
        for node in _tree(self.path).body:
            if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == name for to in node.targets):
                return _evaluated(self.path, node.value)
            if isinstance(node, ast.ClassDef) and node.name == name:
                fields = [field for field in node.body if isinstance(field, ast.AnnAssign)]
                return types.SimpleNamespace(
                    **{field.target.id: _evaluated(self.path, field.value) for field in fields if field.value}  # type: ignore[union-attr]
                )
            if isinstance(node, ast.ImportFrom) and node.level and any(alias.name == name for alias in node.names):
                folder = Path(self.path).parents[node.level - 1] / (node.module or "").replace(".", "/")
                return _Values(
                    str(folder / "__init__.py" if _place(str(folder)).is_dir() else folder.with_suffix(".py"))
                )[name]
        return getattr(builtins, name, UNKNOWN)


def _evaluated(path: str, node: ast.expr) -> Any:
    return eval(compile(ast.Expression(node), path, "eval"), {}, _Values(path))


def _declared(path: str, field: ast.AnnAssign) -> Declared:
    """A field with its default and its description, as `setting` or `dataclasses.field` are given them."""
    assert isinstance(field.target, ast.Name)
    given: dict[str | None, ast.expr] = {}
    if isinstance(field.value, ast.Call):
        given = dict(zip(("default", "doc"), field.value.args, strict=False))
        given |= {word.arg: word.value for word in field.value.keywords}
    factory, metadata = given.get("factory") or given.get("default_factory"), given.get("metadata")
    default = factory or given.get("default")
    value = UNKNOWN if default is None else _evaluated(path, default)
    help_text = ((_literal(metadata) if metadata else None) or {}).get("help")
    doc = _evaluated(path, given["doc"]) if "doc" in given else help_text
    kind = field.annotation.value if isinstance(field.annotation, ast.Constant) else ast.unparse(field.annotation)
    return Declared(
        field.target.id,
        str(kind),
        value() if factory is not None and value is not UNKNOWN else value,
        str(doc or "").replace("%%", "%"),
        _limits(path, field.value),
    )


def _limits(path: str, value: ast.expr | None) -> Rule:
    """The limits that a call of `setting` names."""
    found = _arguments(value)
    choices = found.get("choices") or ()
    if isinstance(choices, ast.Name):
        choices = constant(path, choices.id) or ()
    return Rule(found.get("least"), choices=tuple(choices), own=bool(found.get("own")))


def _arguments(call: ast.expr | None) -> Mapping[str, Any]:
    """The keyword arguments of a call that are written out, and the names of constants."""
    keywords = call.keywords if isinstance(call, ast.Call) else []
    return {word.arg: word.value if isinstance(word.value, ast.Name) else _literal(word.value) for word in keywords}  # type: ignore[misc]


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None
