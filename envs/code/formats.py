"""How the rows of well-known data sets become problems: one reader for each form."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

from ..rows import column, text_of, user_text
from ..verifiers.code.tests import CallTests, Tests, read_tests
from .packed import unpack
from .problems import Problem

_RECENT = 64  # large tests kept in memory once they are read

IMPORTS = """\
import bisect, collections, functools, heapq, itertools, math, operator, random, re, string, sys
from bisect import bisect_left, bisect_right, insort
from collections import Counter, OrderedDict, defaultdict, deque
from functools import cache, cmp_to_key, lru_cache, reduce
from heapq import heapify, heappop, heappush, heappushpop, nlargest, nsmallest
from itertools import accumulate, chain, combinations, count, cycle, groupby, permutations, product, zip_longest
from math import ceil, comb, factorial, floor, gcd, inf, isqrt, lcm, log, log2, sqrt
from typing import *
"""
"""What solutions of LeetCode problems take for granted."""


@dataclass(frozen=True)
class Rows:
    """Rows of one's own: a prompt and tests, as a dict or as JSON of one.

    Attributes:
        prompt_column: Where the problem is, as text or as chat messages with one user message.
        tests_column: Where the tests are; see `envs.verifiers.code.tests`.
        level_column: Where the level of difficulty is, or None for none.
        solution_column: Where a right program is, or None for none.
    """

    prompt_column: str = "prompt"
    tests_column: str = "tests"
    level_column: str | None = None
    solution_column: str | None = None

    def __call__(self, row: Any, place: str) -> Problem:
        tests = column(row, place, self.tests_column, "tests_column", "tests")
        if isinstance(tests, str):
            tests = _json(tests, place, self.tests_column)
        checked = read_tests(tests, place)
        return Problem(
            _prompt(row, place, self.prompt_column),
            partial(_same, checked),
            level=_optional(row, place, self.level_column, "level_column"),
            solution=_optional(row, place, self.solution_column, "solution_column"),
        )


@dataclass(frozen=True)
class HumanEval:
    """A function to be completed, and a function `check(candidate)`: `openai/openai_humaneval` and its original."""

    def __call__(self, row: Any, place: str) -> Problem:
        unfinished, check, name = (_text(row, place, key) for key in ("prompt", "test", "entry_point"))
        tests = {
            "kind": "assert",
            "setup": f"{unfinished}\n{check}",
            "asserts": [f"check({name})"],
            "entry_point": name,
        }
        solution = row.get("canonical_solution")
        return Problem(
            f"Complete this Python function:\n\n```python\n{unfinished.strip()}\n```",
            partial(_same, read_tests(tests, place)),
            preamble=unfinished,
            unfinished=unfinished,
            solution=None if solution is None else unfinished + solution,
        )


@dataclass(frozen=True)
class Mbpp:
    """A sentence, a solution and asserts, of which the prompt shows the first: `google-research-datasets/mbpp`.

    The configuration "sanitized" has "prompt" and "test_imports" for "text" and "test_setup_code".
    """

    def __call__(self, row: Any, place: str) -> Problem:
        text = _text(row, place, "prompt" if isinstance(row, Mapping) and "prompt" in row else "text")
        asserts = [*column(row, place, "test_list", "path", "tests"), *(row.get("challenge_test_list") or [])]
        setup = "\n".join([*(row.get("test_imports") or []), row.get("test_setup_code") or ""]).replace("\r\n", "\n")
        solution = row.get("code")
        tests = read_tests({"kind": "assert", "setup": setup, "asserts": asserts}, place)
        return Problem(
            f"{text.strip()}\n\nIt must pass this test:\n\n```python\n{asserts[0].strip()}\n```",
            partial(_same, tests),
            shown=1,
            solution=None if solution is None else solution.replace("\r\n", "\n"),
        )


@dataclass(frozen=True)
class Apps:
    """Competition problems with tests on standard input or by calls: `codeparrot/apps`."""

    def __call__(self, row: Any, place: str) -> Problem:
        question, raw = _text(row, place, "question"), _text(row, place, "input_output")
        starter = (row.get("starter_code") or "").strip()
        solutions = _json(row["solutions"], place, "solutions") if row.get("solutions") else []
        return Problem(
            _with_starter(question, starter),
            partial(_apps_tests, raw, place),
            preamble=IMPORTS if starter else "",
            level=row.get("difficulty"),
            solution=solutions[0] if solutions else None,
        )


@dataclass(frozen=True)
class LiveCodeBench:
    """Contest problems with public tests in the text and private ones: `livecodebench/code_generation_lite`."""

    def __call__(self, row: Any, place: str) -> Problem:
        question, public = _text(row, place, "question_content"), _text(row, place, "public_test_cases")
        starter = (row.get("starter_code") or "").strip()
        raw = (public, row.get("private_test_cases") or "[]", row.get("metadata") or "{}")
        return Problem(
            _with_starter(question, starter),
            partial(_live_code_bench_tests, *raw, place),
            shown=len(_json(public, place, "public_test_cases")),
            preamble=IMPORTS if starter else "",
            level=row.get("difficulty"),
        )


FORMATS: dict[str, Callable[[Any, str], Problem]] = {
    "humaneval": HumanEval(),
    "mbpp": Mbpp(),
    "apps": Apps(),
    "livecodebench": LiveCodeBench(),
}
"""Readers of rows with fixed columns, by the name that `format=` takes."""


@lru_cache(maxsize=_RECENT)
def _apps_tests(raw: str, place: str) -> Tests:
    tests = _json(raw, place, "input_output")
    if not isinstance(tests, Mapping):
        raise ValueError(f"{place}: 'input_output' is a JSON {type(tests).__name__}: it must be an object")
    inputs, outputs, name = (tests.get(key) for key in ("inputs", "outputs", "fn_name"))
    if not name:
        texts = [list(map(_joined, part)) if isinstance(part, list) else part for part in (inputs, outputs)]
        return read_tests({"kind": "stdin", "inputs": texts[0], "outputs": texts[1], "printing": "apps"}, place)
    calls = {"kind": "call", "entry_point": name, "inputs": _integer_keys(inputs), "outputs": _integer_keys(outputs)}
    tests = read_tests(calls, place)
    assert isinstance(tests, CallTests)
    return replace(tests, outputs=tuple(_unwrapped(right) for (right,) in tests.outputs))


def _unwrapped(right: Any) -> tuple[Any, ...]:
    """Some rows hold a result as the one member of a list, and nothing tells which: then both count, as published."""
    return (right, right[0]) if isinstance(right, list) and len(right) == 1 else (right,)


def _integer_keys(value: Any) -> Any:
    """Turn the keys of dicts, which JSON makes text, back into integers where all of them are."""
    if isinstance(value, list):
        return [_integer_keys(member) for member in value]
    if isinstance(value, dict):
        is_integer = all(key.removeprefix("-").isdecimal() and key.isascii() for key in value)
        return {int(key) if is_integer else key: _integer_keys(member) for key, member in value.items()}
    return value


def _joined(text: Any) -> Any:
    """Some rows hold a text as a list of its lines."""
    return "\n".join(map(str, text)) if isinstance(text, list) else text


@lru_cache(maxsize=_RECENT)
def _live_code_bench_tests(public: str, private: str, metadata: str, place: str) -> Tests:
    cases = [*_json(public, place, "public_test_cases"), *_private(private, place)]
    name = _json(metadata, place, "metadata").get("func_name")
    try:
        kinds = {case["testtype"] for case in cases}
        pairs = [(case["input"], case["output"]) for case in cases]
    except (TypeError, KeyError) as error:
        raise ValueError(f"{place}: a test case has no {error}: each needs 'input', 'output' and 'testtype'") from error
    if kinds == {"functional"}:
        inputs = [[_json(line, place, "input") for line in given.split("\n")] for given, _ in pairs]
        outputs = [_json(right, place, "output") for _, right in pairs]
        return read_tests({"kind": "call", "entry_point": name, "inputs": inputs, "outputs": outputs}, place)
    if kinds - {"stdin"}:
        raise ValueError(
            f"{place}: its test cases are of testtype {sorted(kinds)}: all must be 'stdin' or 'functional'"
        )
    inputs, outputs = [given for given, _ in pairs], [right for _, right in pairs]
    tests = {"kind": "stdin", "inputs": inputs, "outputs": outputs, "printing": "livecodebench"}
    return read_tests(tests, place)


def _private(text: str, place: str) -> list[Any]:
    """Read the private test cases: JSON in the first releases, packed in the others."""
    if text.lstrip().startswith("["):
        return _json(text, place, "private_test_cases")
    try:
        return json.loads(unpack(text))
    except ValueError as error:
        raise ValueError(f"{place}: 'private_test_cases' cannot be unpacked: {error}") from error


def _with_starter(question: str, starter: str) -> str:
    return f"{question.strip()}\n\nStart from this code:\n\n```python\n{starter}\n```" if starter else question.strip()


def _prompt(row: Any, place: str, name: str) -> str:
    prompt = column(row, place, name, "prompt_column", "a prompt")
    return text_of(user_text(prompt, place, name), place, name, "a prompt")


def _text(row: Any, place: str, name: str) -> str:
    value = column(row, place, name, "format", f"{name!r} in this format")
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{place}: {name!r} is {str(value)[:80]!r}: it must be text that is not blank")
    return value


def _optional(row: Any, place: str, name: str | None, argument: str) -> Any:
    return None if name is None else column(row, place, name, argument, f"a {name}", may_be_none=True)


def _json(text: Any, place: str, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{place}: {name!r} is not valid JSON: {error}") from error


def _same(tests: Tests) -> Tests:
    return tests
