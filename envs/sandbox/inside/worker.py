"""Where the program runs: one process, already behind the wall, that ends with its work.

Nothing here is secret and nothing it says is a verdict: a program may look at all of it and speak in its place.
All it could say is a value, which it could have returned as well.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import gc
import io
import os
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

from . import codec

# file descriptors: the texts; where values go; where each next input is allowed; in a dialog, what the other side sent
_TASK, _REPLY, _GO, _INBOX = 3, 4, 5, 6
_CAUSE_LENGTH = 300  # characters
_STDOUT = sys.stdout


def run_script(source: tuple[int, int]) -> int:
    """Run a whole program and return its exit status, after whatever the interpreter would do at its end.

    Args:
        source: Position and length of its text.
    """
    status = 0
    try:
        text = _text(source)
        os.close(_TASK)
        exec(_compiled(text), _module("__main__"))
    except SystemExit as exit:
        status = _exit_status(exit)
    except BaseException as error:
        status = 1
        _print_error(error)
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as at the end of any program
        atexit._run_exitfuncs()
    except BaseException as error:
        status = status or 1
        _print_error(error)
    _flush()
    return status


def _flush() -> None:
    """Write what is still in buffers, as the interpreter does when it ends and destroys them: text first."""
    with contextlib.suppress(Exception):
        kinds = io.TextIOWrapper, io.BufferedWriter
        files = [value for value in gc.get_objects() if issubclass(type(value), kinds)]
        for file in (sys.stdout, _STDOUT, *sorted(files, key=lambda file: issubclass(type(file), kinds[1]))):
            with contextlib.suppress(Exception):  # closed, detached, or no file at all
                file.flush()


def serve(task: Any, first: int, count: int) -> None:
    """Load the program, report on that, then answer `count` inputs from number `first` on, one at a time."""
    max_bytes = task.limits["output_bytes"]
    # bound here, before the program can put something else in their place
    write, read, encode, decode = os.write, os.read, codec.encode, codec.read

    ticket = bytes(8)  # of the input that is being answered: shown with the reply

    def reply(kind: bytes, text: str = "") -> None:
        message = ticket + kind + text.encode("ascii", "backslashreplace")
        rest = memoryview(len(message).to_bytes(4, "big") + message)
        while rest:
            rest = rest[write(_REPLY, rest) :]

    def next_ticket() -> int:
        """Wait for the next ticket, and return the length of the message that comes with it."""
        nonlocal ticket
        shown = read(_GO, 16)
        ticket = shown[:8]
        return int.from_bytes(shown[8:], "big")

    def exchange(value: Any) -> Any:
        """In a dialog: send a value to the other side, and return its answer."""
        reply(b"q", encode(value, max_bytes))
        length = next_ticket()
        return codec.decode(os.pread(_INBOX, length, 0), max_bytes)

    def fail(error: BaseException) -> None:
        kind = b"m" if type(error) is MemoryError else b"o" if type(error) is codec.TooLarge else b"c"
        reply(kind, _describe(error))

    namespace = _module("solution")
    try:
        exec(_compiled(_text(task.source)), namespace)
    except BaseException as error:
        return fail(error)
    reply(b"l")
    for place in task.inputs[first : first + count]:
        next_ticket()
        try:
            text = _text(place)
            if task.mode == "dialog":
                value = _find(namespace, task.entry_point)(exchange, *decode(text))
            elif task.mode == "call":
                value = _find(namespace, task.entry_point)(*decode(text))
            else:
                value = eval(_compiled(text, "eval"), namespace)
        except BaseException as error:
            fail(error)
            continue
        try:
            reply(b"v", encode(value, max_bytes))
        except codec.TooLarge as error:
            reply(b"o", str(error))
        except codec.CodecError as error:
            reply(b"i", str(error))
        except BaseException as error:
            fail(error)


def _text(place: tuple[int, int]) -> str:
    position, length = place
    return os.pread(_TASK, length, position).decode("utf-8", "surrogatepass")


def _compiled(source: str, mode: str = "exec") -> Any:
    return compile(source.removeprefix("\ufeff"), "<program>", mode, dont_inherit=True)


def _module(name: str) -> dict[str, Any]:
    module = types.ModuleType(name)
    sys.modules[name] = module
    module.__builtins__ = builtins  # type: ignore[attr-defined]
    return module.__dict__


def _find(namespace: dict[str, Any], entry_point: str) -> Callable[..., Any]:
    owner, _, name = entry_point.rpartition(".")
    if not owner and name not in namespace and hasattr(namespace.get("Solution"), name):
        owner = "Solution"
    if not owner:
        if name not in namespace:
            raise NameError(f"the program does not define {name!r}")
        return namespace[name]
    if owner not in namespace:
        raise NameError(f"the program does not define {owner!r}")
    return getattr(namespace[owner](), name)


def _describe(error: BaseException) -> str:
    """Describe an exception whose class may be hostile."""
    try:
        text = f"{type(error).__name__}: {error}"[:_CAUSE_LENGTH]
        line, trace = None, error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == "<program>":
                line = trace.tb_lineno
            trace = trace.tb_next
        return text if line is None else f"{text} (line {line})"
    except BaseException:
        return "an exception that cannot be described"


def _print_error(error: BaseException) -> None:
    try:
        os.write(2, b"\n" + _describe(error).encode("utf-8", "backslashreplace"))
    except BaseException:
        os._exit(1)


def _exit_status(exit: SystemExit) -> int:
    if exit.code is None or type(exit.code) is int:
        return (exit.code or 0) & 0xFF
    _print_error(exit)
    return 1
