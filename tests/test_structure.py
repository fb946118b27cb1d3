"""The walls of the house, read from the source: no import cycle, nothing below imports above, TRL's private members in
one file, small packages and functions."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest
import transformers
import trl.trainer.grpo_trainer

from .conftest import ROOT

LAYERS = (
    "errors",
    "algorithm",
    "settings",
    "config",
    "distributed",
    "prompts",
    "generation.params",
    "rollout",
    "generation",
    "sampling",
    "update",
    "monitor",
    "checkpoint",
    "checks",
    "trl_internals",
    "trainer",
    "evaluation",
    "run.startup",
    "run.settings",
    "run.lora",
    "plan",
    "report",
    "triage",
    "run",
    "cli",
    "__main__",
)
"""From the bottom up: a module imports from its own layer and from those before it."""
CORE = ("trainer.py", "sampling", "update", "rollout", "generation", "prompts", "trl_internals.py", "algorithm.py")


def modules(package: str) -> dict[str, ast.Module]:
    paths = [path for path in (ROOT / package).rglob("*.py")]
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in names.items()}


def imports(package: str) -> dict[str, set[str]]:
    """The modules that each module imports from its own package: at its top, in functions, under TYPE_CHECKING."""
    found: dict[str, set[str]] = {}
    trees = modules(package)
    packages = {name for name in trees if any(other.startswith(f"{name}.") for other in trees)}
    for name, tree in trees.items():
        wanted: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                wanted |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                parents = name.split(".") if name in packages else name.split(".")[:-1]
                start = parents[: len(parents) - node.level + 1] if node.level else []
                base = ".".join([*start, *([node.module] if node.module else [])])
                for alias in node.names:  # a module, or a name that the package's __init__ gives out
                    inside = f"{base}.{alias.name}"
                    wanted.add(inside if inside in trees else base)
        found[name] = wanted & set(trees)
    return found


@pytest.mark.parametrize("package", ["dapo_trl", "envs"])
def test_no_import_goes_round_in_a_circle(package):
    graph = imports(package)
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def layer(module: str) -> int:
    inside = module.removeprefix("dapo_trl").removeprefix(".")
    fits = [place for place, name in enumerate(LAYERS) if inside == name or inside.startswith(f"{name}.")]
    return max(fits, key=lambda place: len(LAYERS[place]))


def test_nothing_below_imports_above():
    for module, wanted in imports("dapo_trl").items():
        for other in wanted:
            if "dapo_trl" not in (module, other):  # the package itself gives names out lazily
                assert layer(other) <= layer(module), f"{module} imports {other}, which stands above it"


def test_envs_knows_neither_torch_nor_the_trainer():
    for module, tree in modules("envs").items():
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not {name.partition(".")[0] for name in names} & {"torch", "dapo_trl"}, module


def test_trls_private_members_are_named_in_one_file():
    """Members that transformers' own trainer does not have; an override in `trainer.py` names what it overrides."""
    source = inspect.getsource(trl.trainer.grpo_trainer.GRPOTrainer)
    private = set(re.findall(r"(?:self\.|def )(_[a-z]\w+)", source)) - set(dir(transformers.Trainer))
    assert {"_generate", "_metrics", "_tokenizer", "_last_loaded_step"} <= private
    for module, tree in modules("dapo_trl").items():
        if module in ("dapo_trl.trainer", "dapo_trl.trl_internals"):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id == "self"):
                assert node.attr not in private, f"{module}, line {node.lineno}: {node.attr}"


def test_the_front_door_is_small():
    assert len(list((ROOT / "dapo_trl").glob("*.py"))) <= 10
    packages = [path.parent for path in (ROOT / "dapo_trl").glob("*/__init__.py")]
    assert len(packages) == 13
    for folder in [*packages, *(path.parent for path in (ROOT / "envs").rglob("__init__.py"))]:
        described = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
        for path in folder.glob("*.py"):
            assert path.stem == "__init__" or re.search(rf"\b{path.stem}\b", described), f"{path} is on no map"


@pytest.mark.parametrize("place", CORE)
def test_no_function_of_the_core_is_long(place):
    path = ROOT / "dapo_trl" / place
    for file in [path] if path.is_file() else sorted(Path(path).glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                first = node.body[0]
                documented = ast.get_docstring(node) is not None
                lines = (node.end_lineno or 0) - ((first.end_lineno or 0) if documented else node.lineno)
                assert lines <= 50, f"{file.name}: {node.name} has {lines} lines"
