"""The tests of a programming task: read, checked, and ready to be run.

A row gives them as one of

    {"kind": "stdin", "inputs": ["2 3\\n"], "outputs": ["5\\n"]}   and "printing": "codeforces" for its rule
    {"kind": "call", "entry_point": "add", "inputs": [[2, 3]], "outputs": [5]}
    {"kind": "assert", "setup": "", "asserts": ["assert add(2, 3) == 5"]}

where "entry_point" is a function, a method of a class `Solution`, or "Class.method". Asserts are any statements; with
an "entry_point" only that name is the program's, without one every name is that nothing else defines.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

from ...sandbox import Program
from ...sandbox.inside import codec
from ...text import brief
from .asserts import AssertedCall, Names, asserted_calls, assertions_of, imports_of, names_of
from .values import same_output, same_output_apps, same_output_codeforces, same_output_livecodebench

_MAX_VALUE_BYTES = 1 << 28
_BRIEF = 100  # characters of a value in a message
_KEYS = {
    "stdin": {"inputs", "outputs", "printing"},
    "call": {"entry_point", "inputs", "outputs"},
    "assert": {"setup", "asserts", "entry_point"},
}


Printing = Literal["", "apps", "codeforces", "livecodebench"]
_PRINTING_RULES = {
    "apps": same_output_apps,
    "codeforces": same_output_codeforces,
    "livecodebench": same_output_livecodebench,
}


class _Tests:
    @cached_property
    def key(self) -> bytes:
        """What tells these tests from others: 32 bytes."""
        return hashlib.blake2b(repr(self).encode("utf-8", "backslashreplace"), digest_size=32).digest()


@dataclass(frozen=True)
class StdinTests(_Tests):
    """Texts for standard input, and what should be printed.

    Attributes:
        inputs: The texts.
        outputs: What should be printed for each.
        printing: The benchmark whose rule says what counts as the same, or "" for none.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    printing: Printing = ""

    def is_right(self, number: int, printed: str, tolerance: float) -> bool:
        """Whether that is right for the input of that number."""
        rule = _PRINTING_RULES.get(self.printing)
        expected = self.outputs[number]
        is_same = same_output(printed, expected, tolerance=tolerance)
        return is_same or (rule is not None and rule(printed, expected))


@dataclass(frozen=True)
class CallTests(_Tests):
    """Arguments for a function, and for each call the values that are right: one, or several that count the same."""

    entry_point: str
    inputs: tuple[tuple[Any, ...], ...]
    outputs: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class AssertTests(_Tests):
    """Statements that raise for a wrong program.

    Attributes:
        setup: Statements that come before.
        asserts: The statements.
        entry_point: The one name that the program defines, or None for all that are defined nowhere else.
    """

    setup: str
    asserts: tuple[str, ...]
    entry_point: str | None = None

    @cached_property
    def calls(self) -> tuple[str, tuple[AssertedCall, ...]] | None:
        """The function and its calls, if all that is asserted is what single calls return; else None."""
        return asserted_calls(self.setup, self.asserts, self.entry_point)

    @cached_property
    def names(self) -> Names:
        """What the names in the statements stand for."""
        return names_of(self.setup, "\n".join(self.asserts), self.entry_point)

    @cached_property
    def weights(self) -> tuple[int, ...]:
        """For each assertion, in the setup and then the statements, how many tests it is worth."""
        return tuple(weight for _, weight in self._assertions())

    def assertion(self, number: int) -> str:
        """Return the text of the assertion of that number, counted as the weights are; "" for one below 0."""
        return ast.unparse(self._assertions()[number][0]) if number >= 0 else ""

    def _assertions(self) -> list[tuple[ast.Assert, int]]:
        return assertions_of(self.setup) + assertions_of("\n".join(self.asserts))

    @cached_property
    def imports(self) -> str:
        """The import statements of the setup, which programs may rely on."""
        return imports_of(self.setup)


Tests = StdinTests | CallTests | AssertTests


def read_tests(value: Any, place: str) -> Tests:
    """Read the tests of a row.

    Args:
        value: A mapping as above.
        place: Where it is, for messages, such as "row 3 of data.jsonl".

    Raises:
        ValueError: There are no tests, or they could never be run; the message says where and why.
    """
    if not isinstance(value, Mapping):
        raise ValueError(
            f"{place}: its tests are {brief(value, _BRIEF)}: give a dict with 'kind' ('stdin', 'call' or 'assert')"
        )
    given = {key: item for key, item in value.items() if item is not None and key != "kind"}
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in _KEYS:
        raise ValueError(f"{place}: its tests have kind={brief(kind, _BRIEF)}: it must be 'stdin', 'call' or 'assert'")
    unknown = sorted(map(str, set(given) - _KEYS[kind]))
    if unknown:
        raise ValueError(f"{place}: its tests have {unknown}: those of kind {kind!r} have {sorted(_KEYS[kind])}")
    if kind == "assert":
        return _assert_tests(given, place)
    inputs, outputs = (_nonempty_list(given.get(key), key, place) for key in ("inputs", "outputs"))
    if len(inputs) != len(outputs):
        raise ValueError(f"{place} has {len(inputs)} inputs and {len(outputs)} outputs: every test needs both")
    if kind == "stdin":
        for key, texts in (("inputs", inputs), ("outputs", outputs)):
            _check_texts(texts, key, place)
        printing = given.get("printing", "")
        if printing not in get_args(Printing):
            known = " or ".join(map(repr, _PRINTING_RULES))
            raise ValueError(f"{place}: its tests have printing={brief(printing, _BRIEF)}: it must be {known}")
        return StdinTests(tuple(inputs), tuple(outputs), printing)
    return _call_tests(given.get("entry_point"), inputs, outputs, place)


def _call_tests(entry_point: Any, inputs: list[Any], outputs: list[Any], place: str) -> CallTests:
    _check_entry_point(entry_point, place)
    for number, arguments in enumerate(inputs):
        if not isinstance(arguments, (list, tuple)):
            raise ValueError(f"{place}: inputs[{number}] is {brief(arguments, _BRIEF)}: it must be a list of arguments")
    for key, values in (("inputs", inputs), ("outputs", outputs)):
        for number, plain in enumerate(values):
            try:
                codec.encode(tuple(plain) if key == "inputs" else plain, _MAX_VALUE_BYTES)
            except codec.CodecError as error:
                raise ValueError(f"{place}: {key}[{number}] is no plain value: {error}") from error
    return CallTests(entry_point, tuple(map(tuple, inputs)), tuple((output,) for output in outputs))


def _assert_tests(given: Mapping[str, Any], place: str) -> AssertTests:
    setup, entry_point = given.get("setup", ""), given.get("entry_point")
    asserts = _nonempty_list(given.get("asserts"), "asserts", place)
    _check_texts([setup], "setup", place)
    _check_texts(asserts, "asserts", place)
    if entry_point is not None:
        _check_entry_point(entry_point, place)
    tests = AssertTests(setup, tuple(asserts), entry_point)
    for text in (setup, *asserts):
        try:
            compile(text, "<tests>", "exec")
        except (SyntaxError, ValueError) as error:
            raise ValueError(f"{place}: {brief(text, _BRIEF)} is no Python: {error}") from error
    if not tests.names.has_assertion:
        raise ValueError(f"{place}: nothing is asserted in {brief(asserts[0], _BRIEF)}: a program could only pass")
    if tests.calls is None and tests.names.refused:
        raise ValueError(f"{place}: its tests cannot be run: {tests.names.refused}")
    if tests.calls is None and not tests.names.of_program:
        raise ValueError(f"{place}: {brief(asserts[0], _BRIEF)} does not call anything that a program could define")
    return tests


def _nonempty_list(value: Any, key: str, place: str) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{place}: its tests have {key}={brief(value, _BRIEF)}: it must be a list")
    if not value:
        raise ValueError(f"{place} has no tests ({key} is empty): every program would pass")
    return list(value)


def _check_texts(texts: list[Any], key: str, place: str) -> None:
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"{place}: its tests have {brief(text, _BRIEF)} in {key}: it must be text")


def _check_entry_point(entry_point: Any, place: str) -> None:
    try:
        Program("", "call", entry_point)
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f"{place}: its tests have entry_point={brief(entry_point, _BRIEF)}: it must name a function, as 'name' or "
            "'Class.name'"
        ) from error
