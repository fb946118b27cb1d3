"""What assert statements ask of a program, read without running anything."""

from __future__ import annotations

import ast
import builtins
import operator
import symtable
import sys
from collections.abc import Collection, Iterable
from typing import Any, Literal, NamedTuple

Relation = Literal["==", "is", "true", "false", "near"]

_BUILTINS = frozenset(dir(builtins))
_IMPORTED_AS = {"np": "numpy"}
_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
_IMPORTS = (ast.Import, ast.ImportFrom)
_MAX_EXPONENT = 64  # of powers that are worked out, and bits of what is raised


class AssertedCall(NamedTuple):
    """`assert f(*arguments) == expected`, or another relation that single values can have.

    Near is what `abs(f(*arguments) - expected) < distance` holds for.
    """

    arguments: tuple[Any, ...]
    relation: Relation
    expected: Any = None
    distance: float = 0.0

    def holds(self, value: Any) -> bool:
        """Whether a plain value satisfies it, by the rules of Python."""
        if self.relation == "==":
            return bool(value == self.expected)
        if self.relation == "near":
            return self._is_near(value)
        if self.relation == "is":
            return value is self.expected
        return bool(value) == (self.relation == "true")

    def _is_near(self, value: Any) -> bool:
        try:
            return bool(abs(value - self.expected) < self.distance)
        except (TypeError, ArithmeticError):  # no number, or one beyond all floats
            return False


class Names(NamedTuple):
    """What the names in test statements stand for.

    Attributes:
        of_program: Those that the program defines.
        of_modules: Those of modules that the statements use without importing them, with the modules' own names.
        has_assertion: Whether there is an assert statement at all.
        refused: Why the statements cannot be run apart from a program; "" if they can.
    """

    of_program: tuple[str, ...]
    of_modules: dict[str, str]
    has_assertion: bool
    refused: str = ""


def asserted_calls(
    setup: str, asserts: Iterable[str], entry_point: str | None
) -> tuple[str, tuple[AssertedCall, ...]] | None:
    """Return the one function that asserts are about and its calls, if each compares one call's result to a literal.

    Then the calls can be made, and their results be compared, without running any of the statements. The setup may
    consist of imports alone, and the function may have the name of a built-in one, which the program is to replace.
    Or it may define a function `check(candidate)` of such asserts, besides what else it defines, if all that is
    asserted is `check(entry_point)`. None for anything else, and where `abs` is another function than Python's.
    """
    before = ast.parse(setup).body
    if "abs" in _defined([node for statement in before for node in ast.walk(statement)]):
        return None
    statements = [statement for text in asserts for statement in ast.parse(text).body]
    function = entry_point
    check = _check(before, statements, entry_point)
    if check is not None:
        function, statements = check.args.args[0].arg, [node for node in check.body if not _asks_nothing(node)]
    elif not all(isinstance(statement, _IMPORTS) for statement in before):
        return None
    calls = []
    for statement in statements:
        found = _asserted_call(statement)
        if found is None or found[0] != (function or found[0]):
            return None
        function = found[0]
        calls.append(found[1])
    return (entry_point or str(function), tuple(calls)) if calls else None


def _check(before: list[ast.stmt], statements: list[ast.stmt], entry_point: str | None) -> ast.FunctionDef | None:
    """Return the function of one parameter that all statements are a call of, with the entry point."""
    match statements:
        case [ast.Expr(ast.Call(ast.Name(name), [ast.Name(argument)], []))] if argument == entry_point:
            defined = [statement for statement in before if getattr(statement, "name", None) == name]
        case _:
            return None
    match defined:
        case [ast.FunctionDef(args=ast.arguments([], [_], None, [], [], None, []), decorator_list=[]) as check]:
            return check if all(map(_only_defines, before)) else None
    return None


def _only_defines(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Assign):
        return _is_literal(statement.value)
    return isinstance(statement, (*_IMPORTS, ast.FunctionDef, ast.ClassDef)) or _asks_nothing(statement)


def _asks_nothing(statement: ast.stmt) -> bool:
    """Whether a statement is an import, `pass`, a literal, a name, or an assertion that is true in itself."""
    match statement:
        case ast.Import() | ast.ImportFrom() | ast.Pass() | ast.Expr(ast.Constant()):
            return True
        case ast.Expr(ast.Name(name)):
            return name in _BUILTINS
        case ast.Assert(ast.Constant(value)):
            return bool(value)
    return False


def _value(node: ast.expr) -> Any:
    """Return the value of a literal, in which there may be sums, products, quotients and small powers of numbers.

    Raises:
        ValueError, TypeError, SyntaxError, MemoryError, RecursionError, ArithmeticError: It is none.
    """
    return ast.literal_eval(_Arithmetic().visit(node))


class _Arithmetic(ast.NodeTransformer):
    """Works out what `_value` takes for a literal, and puts texts together."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        work = _OPERATORS.get(type(node.op))
        match node:
            case ast.BinOp(ast.Constant(int(left)), ast.Pow(), ast.Constant(int(right))) if 0 <= right <= _MAX_EXPONENT:
                return ast.Constant(left**right) if left.bit_length() <= _MAX_EXPONENT else node
            case ast.BinOp(ast.Constant(int() | float() as left), _, ast.Constant(int() | float() as right)) if work:
                return ast.Constant(work(left, right))
            case ast.BinOp(ast.Constant(str(left)), ast.Add(), ast.Constant(str(right))):
                return ast.Constant(left + right)
        return node


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def imports_of(source: str) -> str:
    """Return the import statements at the top level of a program."""
    return "\n".join(map(ast.unparse, (node for node in ast.parse(source).body if isinstance(node, _IMPORTS))))


def names_of(setup: str, asserts: str, entry_point: str | None) -> Names:
    """Read what the names in test statements stand for.

    Raises:
        SyntaxError: They are no Python.
    """
    statements = [statement for text in (setup, asserts) for statement in ast.parse(text).body]
    nodes = [node for statement in statements for node in ast.walk(statement)]
    has_assertion = any(isinstance(node, ast.Assert) for node in nodes)
    used, defined = _global_names(setup, asserts)
    with_members = {
        node.value.id for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    free = used - _BUILTINS - defined
    of_modules = {
        name: _IMPORTED_AS.get(name, name)
        for name in sorted(free & with_members)
        if name in _IMPORTED_AS or name in sys.stdlib_module_names
    }
    of_program = {entry_point.partition(".")[0]} if entry_point else free - of_modules.keys()
    refused = _refused(nodes, of_program) or _unreached(statements, used)
    return Names(tuple(sorted(of_program)), of_modules, has_assertion, refused)


def _global_names(*sources: str) -> tuple[set[str], set[str]]:
    """Return the names that statements use in the scope of their module, and those that they define there."""
    used, defined = set(), set()
    tables = [symtable.symtable(source, "<tests>", "exec") for source in sources]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        for symbol in table.get_symbols():
            if table.get_type() == "module" or symbol.is_global():
                used |= {symbol.get_name()} if symbol.is_referenced() else set()
                defined |= {symbol.get_name()} if symbol.is_assigned() or symbol.is_imported() else set()
    return used, defined


def _unreached(statements: Iterable[ast.stmt], used: Collection[str]) -> str:
    """Return which function or class that nothing uses holds the assertions, if such ones hold all of them."""
    asserting = [one for one in statements if any(isinstance(node, ast.Assert) for node in ast.walk(one))]
    kinds = ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef
    idle = [one for one in asserting if isinstance(one, kinds) and one.name not in used and not _asserts_now(one)]
    return f"nothing calls {idle[0].name!r}, which holds assertions" if idle and len(idle) == len(asserting) else ""


def _asserts_now(statement: ast.stmt) -> bool:
    """Whether a definition asserts something when it is run: a class may do so in its body, outside its methods."""
    body = statement.body if isinstance(statement, ast.ClassDef) else []
    return any(
        isinstance(node, ast.Assert)
        for one in body
        if not isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        for node in ast.walk(one)
    )


def _refused(nodes: Iterable[ast.AST], of_program: Collection[str]) -> str:
    """Return what in the statements cannot be done apart from the program."""
    for node in nodes:
        imported: list[str | None] = []
        if isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported = [node.module]
        for name in imported:
            if name is None or name.partition(".")[0] not in {*sys.stdlib_module_names, "numpy"}:
                return (
                    f"they import {name!r}: the standard library and NumPy are there, and the program needs no import"
                )
        if isinstance(node, ast.ClassDef):
            for base in node.bases:
                if isinstance(base, ast.Name) and base.id in of_program:
                    return f"their class {node.name!r} derives from {base.id!r}, which is the program's"
    return ""


def assertions_of(source: str) -> list[tuple[ast.Assert, int]]:
    """Return the assertions of a program, and how often each runs by itself, as loops over literals and ranges say."""
    found: list[tuple[ast.Assert, int]] = []

    def visit(node: ast.AST, times: int) -> None:
        if isinstance(node, ast.Assert):
            found.append((node, times))
        for name, value in ast.iter_fields(node):
            is_repeated = isinstance(node, ast.For) and name == "body"
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    visit(child, times * _rounds(node.iter) if is_repeated else times)  # type: ignore[attr-defined]

    visit(ast.parse(source), 1)
    return found


def _rounds(node: ast.expr) -> int:
    """Return how often a loop over something runs, 1 where that is not known."""
    match node:
        case ast.List(members) | ast.Tuple(members) if not any(isinstance(member, ast.Starred) for member in members):
            return max(len(members), 1)
        case ast.Call(ast.Name("range"), [*arguments], []):
            try:
                return max(len(range(*map(_value, arguments))), 1)
            except (ValueError, TypeError, SyntaxError, OverflowError):
                return 1
    return 1


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
                return _call(call, "==", _value(expected))
            case ast.Compare(
                ast.Call(ast.Name("abs"), [ast.BinOp(left, ast.Sub(), right)], []), [ast.Lt()], [distance]
            ):
                return _call(left, "near", _number(right), _number(distance))
            case ast.Compare(left, [ast.Is()], [ast.Constant(None | True | False as expected)]):
                return _call(left, "is", expected)
            case ast.UnaryOp(ast.Not(), operand):
                return _call(operand, "false")
            case _:
                return _call(test, "true")
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError, ArithmeticError):
        return None  # not a literal, or one that raises where the statement runs


def _number(node: ast.expr) -> int | float:
    value = _value(node)
    if not isinstance(value, (int, float)):
        raise ValueError(f"{value!r} is no number")
    return value


def _call(
    node: ast.expr, relation: Relation, expected: Any = None, distance: float = 0.0
) -> tuple[str, AssertedCall] | None:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.keywords:
        return None
    return node.func.id, AssertedCall(tuple(map(_value, node.args)), relation, expected, distance)
