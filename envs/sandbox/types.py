"""What goes into the sandbox and what comes out."""

from __future__ import annotations

import keyword
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Literal, get_args

Mode = Literal["stdin", "call", "eval", "dialog"]


class Status(StrEnum):
    """How one input ended; each member equals its plain string."""

    OK = "ok"
    """The program came to its end, and what it gave is in `Result.value`."""
    TIMEOUT = "timeout"
    """It took more CPU or wall time than its limit."""
    MEMORY = "memory"
    """It ran out of memory."""
    OUTPUT_LIMIT = "output_limit"
    """It printed, or returned, more than its limit."""
    CRASH = "crash"
    """It raised, exited early or with a failure, was ended by a signal, or could not be compiled."""
    INVALID_VALUE = "invalid_value"
    """It returned something that is no plain value, such as an object of its own class."""
    NOT_RUN = "not_run"
    """The caller wanted no more results after an earlier input."""
    INFRA_FAILURE = "infra_failure"
    """Our own machinery failed: nothing is known about the program."""


class SandboxUnavailable(RuntimeError):
    """No isolation works on this machine; the message says which probe failed and how to mend it."""


@dataclass(frozen=True)
class Program:
    """A Python program that somebody else wrote.

    Args:
        source: Its text.
        mode: How it is used. "stdin": the whole program runs once per input, a text to read from standard input;
            the value is what it prints. "call": an input is a sequence of positional arguments for `entry_point`;
            the value is what that returns. "eval": an input is a Python expression over the program's names; the
            value is the expression's. "dialog": a program of our own that exchanges values with another one.
        entry_point: The function to call in "call" and "dialog", as "name", or as "Class.name" for a method of a new
            instance. A plain name that the program does not define is looked for in its class `Solution`.
        isolate_inputs: Give every input of "call" and "eval" a process of its own. By default one process loads the
            program and serves the inputs in order, as the published graders do; it is replaced when an input
            brings it down. Inputs of "stdin" are always apart.

    Raises:
        ValueError: The mode is unknown, or mode and entry point do not go together.
    """

    source: str
    mode: Mode = "stdin"
    entry_point: str | None = None
    isolate_inputs: bool = False

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ValueError(f"Program: mode={self.mode!r} must be one of {', '.join(map(repr, get_args(Mode)))}")
        if (self.mode in ("call", "dialog")) != (self.entry_point is not None):
            raise ValueError(
                f"Program: entry_point={self.entry_point!r} with mode={self.mode!r}: "
                "name the function to call in mode 'call' or 'dialog', and there only"
            )
        if self.entry_point is not None:
            parts = self.entry_point.split(".")
            if len(parts) > 2 or not all(part.isidentifier() and not keyword.iskeyword(part) for part in parts):
                raise ValueError(f"Program: entry_point={self.entry_point!r} must be 'function' or 'Class.method'")


@dataclass(frozen=True)
class Limits:
    """What one program may take. Loading the program counts towards the first input.

    Args:
        cpu_seconds: Processor time per input, over all its threads.
        wall_seconds: Elapsed time per input; it catches what waits without computing, and should leave room for a
            busy machine.
        total_seconds: Elapsed time for all inputs of a program together; twice `wall_seconds` if None.
        memory_bytes: Address space, of which the interpreter itself takes about 50 MiB, with NumPy 400 MiB.
        output_bytes: Printed bytes per input, or size of the returned value as JSON.
        threads: Threads at a time, besides the main one. There are no processes.
        open_files: Open files at a time, among them standard input, output and error.

    Raises:
        ValueError: A limit is not a positive finite number (threads may be 0).
    """

    cpu_seconds: float = 10.0
    wall_seconds: float = 30.0
    total_seconds: float = None  # type: ignore[assignment]  # filled in below
    memory_bytes: int = 1 << 30
    output_bytes: int = 4 << 20
    threads: int = 32
    open_files: int = 64

    def __post_init__(self) -> None:
        if self.total_seconds is None and isinstance(self.wall_seconds, (int, float)):
            object.__setattr__(self, "total_seconds", 2 * self.wall_seconds)
        for field in fields(self):
            value = getattr(self, field.name)
            is_count = field.type == "int"
            if not isinstance(value, int if is_count else (int, float)) or isinstance(value, bool):
                raise ValueError(f"Limits: {field.name}={value!r} must be {'an integer' if is_count else 'a number'}")
            if not math.isfinite(value) or value < 0 or (value == 0 and field.name != "threads"):
                raise ValueError(f"Limits: {field.name}={value!r} must be positive and finite")


@dataclass(frozen=True)
class Result:
    """What became of one input.

    Attributes:
        status: How it ended.
        value: What the program printed (mode "stdin", a str in which invalid UTF-8 became U+FFFD) or returned; None
            unless `status` is "ok". It consists of builtin types alone, and of the program's own making: compare it,
            do not trust it.
        cause: Why, in words, if `status` is not "ok"; partly written by the program.
        seconds: Wall time it took, in seconds.
    """

    status: Status
    value: Any = None
    cause: str = ""
    seconds: float = 0.0


Stop = Callable[[int, Result], bool]
"""Whether the inputs that follow are left out, given the number of an input, from 0, and its result."""
