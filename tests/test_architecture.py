"""docs/architecture.md: every file and every name in it exists, and no package is missing."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from .conftest import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PLACES = sorted(set(re.findall(r"`([\w/]+\.py)(?:::([\w.]+))?`", PAGE)))
QUESTIONS = (
    "Where is the loss?",
    "How do I add a loss?",
    "Where is a group dropped?",
    "Where does the length penalty enter?",
    "Where does a verdict come from?",
    "What is saved in a checkpoint?",
)


def located(file: str) -> Path:
    """A file as the page names it: below `dapo_trl/`, or from the root of the project."""
    return next((path for path in (ROOT / "dapo_trl" / file, ROOT / file) if path.is_file()), ROOT / file)


def names_in(path: Path) -> set[str]:
    """Classes, functions and methods that a file defines: ``Class``, ``function``, ``Class.method``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    defined = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    top = [node for node in tree.body if isinstance(node, defined)]
    members = [
        f"{node.name}.{inner.name}"
        for node in top
        if isinstance(node, ast.ClassDef)
        for inner in node.body
        if isinstance(inner, defined)
    ]
    return {node.name for node in top} | set(members)


def tree_paths() -> list[str]:
    """The paths of the annotated tree, from the indentation."""
    (tree,) = (text for text in re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL) if text.startswith("dapo_trl/"))
    parents: list[str] = []
    found = []
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name, about = line.split(maxsplit=1)
        assert about, line
        parents[depth:] = [name]
        found.append("".join(parents))
    return found


@pytest.mark.parametrize(("file", "name"), [place for place in PLACES if place[1]])
def test_every_name_is_defined_in_its_file(file, name):
    assert name in names_in(located(file))


def test_every_file_exists():
    assert len(PLACES) > 40
    for file, _ in PLACES:
        assert located(file).is_file(), file


def test_the_tree_has_every_package_and_nothing_else():
    shown = tree_paths()
    assert len(set(shown)) == len(shown)
    for path in shown:
        assert (ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file(), path
    packages = {
        f"{init.parent.relative_to(ROOT).as_posix()}/"
        for top in ("dapo_trl", "envs")
        for init in (ROOT / top).rglob("__init__.py")
    }
    assert packages == {path for path in shown if path.startswith(("dapo_trl/", "envs/")) and path.endswith("/")}


def test_the_six_questions_are_answered_with_a_place():
    rows = dict(re.findall(r"^\| (.+?) \| (.+) \|$", PAGE, re.MULTILINE))
    for question in QUESTIONS:
        assert re.search(r"`[\w/]+\.py::[\w.]+`", rows[question]), question


def test_the_way_of_a_completion_names_the_eight_steps_of_a_round():
    collector = ast.parse((ROOT / "dapo_trl/sampling/collector.py").read_text(encoding="utf-8"))
    (round_,) = (node for node in ast.walk(collector) if isinstance(node, ast.FunctionDef) and node.name == "_round")
    called = [
        node.func.attr.lstrip("_")
        for node in ast.walk(round_)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr != "perf_counter"
    ]
    text = re.search(r"which reads as eight steps: ([\w,\s]+)\.", PAGE)
    assert text is not None
    assert sorted(re.split(r",\s+", text[1])) == sorted(called)
