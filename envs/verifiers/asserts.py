"""What assert statements ask of a program, read without running anything."""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

Relation = Literal["==", "is", "true", "false"]

_BUILTINS = frozenset(dir(builtins))
_IMPORTED_AS = {"np": "numpy"}


class AssertedCall(NamedTuple):
    """`assert f(*arguments) == expected`, or another relation that single values can have."""

    arguments: tuple[Any, ...]
    relation: Relation
    expected: Any = None

    def holds(self, value: Any) -> bool:
        """Whether a plain value satisfies it, by the rules of Python."""
        if self.relation == "==":
            return bool(value == self.expected)
        if self.relation == "is":
            return value is self.expected
        return bool(value) == (self.relation == "true")


class Names(NamedTuple):
    """What the names in test statements stand for.

    Attributes:
        of_program: Those that the program defines.
        of_modules: Those of modules that the statements use without importing them, with the modules' own names.
        has_assertion: Whether there is an assert statement at all.
    """

    of_program: tuple[str, ...]
    of_modules: dict[str, str]
    has_assertion: bool


def asserted_calls(
    setup: str, asserts: Iterable[str], entry_point: str | None
) -> tuple[str, tuple[AssertedCall, ...]] | None:
    """Return the one function that asserts are about and its calls, if each compares one call's result to a literal.

    Then the calls can be made, and their results be compared, without running any of the statements. The setup may
    consist of imports alone, and the function may have the name of a built-in one, which the program is to replace.
    None for anything else.
    """
    if imports_of(setup) != ast.unparse(ast.parse(setup)):
        return None
    function, calls = entry_point, []
    for statement in (statement for text in asserts for statement in ast.parse(text).body):
        found = _asserted_call(statement)
        if found is None or found[0] != (function or found[0]):
            return None
        function = found[0]
        calls.append(found[1])
    return (function, tuple(calls)) if function is not None and calls else None


def imports_of(source: str) -> str:
    """Return the import statements at the top level of a program."""
    kinds = (ast.Import, ast.ImportFrom)
    return "\n".join(ast.unparse(statement) for statement in ast.parse(source).body if isinstance(statement, kinds))


def names_of(setup: str, asserts: str, entry_point: str | None) -> Names:
    """Read what the names in test statements stand for.

    Raises:
        SyntaxError: They are no Python.
    """
    nodes = [node for text in (setup, asserts) for node in ast.walk(ast.parse(text))]
    has_assertion = any(isinstance(node, ast.Assert) for node in nodes)
    used = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    with_members = {
        node.value.id for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    free = used - _BUILTINS - _defined(nodes)
    of_modules = {
        name: _IMPORTED_AS.get(name, name)
        for name in sorted(free & with_members)
        if name in _IMPORTED_AS or name in sys.stdlib_module_names
    }
    of_program = {entry_point.partition(".")[0]} if entry_point else free - of_modules.keys()
    return Names(tuple(sorted(of_program)), of_modules, has_assertion)


def _defined(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the names that anything in a program defines, wherever."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name.partition(".")[0])
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
    return names


def _asserted_call(statement: ast.stmt) -> tuple[str, AssertedCall] | None:
    if not isinstance(statement, ast.Assert):
        return None
    test = statement.test
    try:
        match test:
            case ast.Compare(left, [ast.Eq()], [right]):
                call, expected = (left, right) if isinstance(left, ast.Call) else (right, left)
                return _call(call, "==", ast.literal_eval(expected))
            case ast.Compare(left, [ast.Is()], [ast.Constant(None | True | False as expected)]):
                return _call(left, "is", expected)
            case ast.UnaryOp(ast.Not(), operand):
                return _call(operand, "false")
            case _:
                return _call(test, "true")
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):  # not a literal
        return None


def _call(node: ast.expr, relation: Relation, expected: Any = None) -> tuple[str, AssertedCall] | None:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.keywords:
        return None
    return node.func.id, AssertedCall(tuple(map(ast.literal_eval, node.args)), relation, expected)
