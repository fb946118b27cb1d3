"""The other side of `symbolic`: run as a script, so that it loads nothing but math-verify.

The process that is started loads math-verify once and never compares anything. For each connection it is handed it
forks a supervisor, which forks the process that compares: when that one reaches its limit on CPU time the system ends
it, in the middle of any computation, the supervisor says so, and a new fork is ready within milliseconds. All of them
end when the other end of their connection is closed.
"""

import contextlib
import gc
import importlib
import json
import logging
import os
import resource
import select
import signal
import socket
import sys
import time
from functools import lru_cache
from typing import Any, NoReturn

MEMORY_LIMIT = 2 * 2**30  # bytes of address space of each process
_RETIRE_ABOVE = 512 * 1024  # kilobytes (bytes on macOS, which retires later) that a process may have used at its peak
_DONE, _RETIRED = 0, 3  # exit statuses of the process that compares

_DIGITS = 200  # with which values are compared, besides two for each character: no formula agrees to more by design
_TOLERANCE = 150  # of the first that must agree
_TYPICAL = (r"\frac{1}{2}x^{2} - 3\sqrt{2}", r"2\pi r^{3} + \sin(x)", "y = 2x + 3", "x > 5", r"\log_{2} 3", "n!")


@lru_cache(maxsize=512)
def parse(formula: str) -> Any:
    """Return the SymPy reading of a LaTeX formula; raises what the parser raises if there is none."""
    from latex2sympy2_extended import latex2sympy
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig
    from sympy import I, Symbol

    # math-verify's own entry point takes units off, and letters that look like them, and lowers the case of variables
    expression = latex2sympy(
        formula, is_real=True, normalization_config=None, conversion_config=ConversionConfig(lowercase_symbols=False)
    )
    return expression.subs(Symbol("i", real=True), I)


def equal(target: str, gold: str) -> bool:
    """Whether two LaTeX formulas are equal; False if one can not be read."""
    from math_verify import verify
    from sympy import Equality, Expr, nan, zoo

    try:
        left, right = parse(target), parse(gold)
        if left.has(nan, zoo) or right.has(nan, zoo):
            return False
        left, right = with_joined_powers(left), with_joined_powers(right)
        if left == right:
            return bool(left.free_symbols) or not left.evalf().has(nan, zoo)
        if isinstance(left, Expr) and isinstance(right, Expr):
            same = same_at_a_point(left, right, 2 * (len(target) + len(gold)))
            if same is False or (same and not (left.free_symbols or right.free_symbols)):
                return same
        if isinstance(left, Equality) and isinstance(right, Equality) and are_multiples(left, right):
            return True
        return bool(verify(right, left, numeric_precision=50, timeout_seconds=None))
    except (MemoryError, RecursionError):
        raise
    except Exception:  # the parser and SymPy raise all kinds, for formulas that make no sense
        return False


def with_joined_powers(expression: Any) -> Any:
    r"""Write an even root of an odd power, such as `\sqrt{x^3}`, as one power.

    Where the variable is real both are real for `x \ge 0` alone, and equal there.
    """
    from sympy import Pow

    return expression.replace(
        lambda part: (
            isinstance(part, Pow)
            and part.exp.is_Rational
            and part.exp.q % 2 == 0
            and isinstance(part.base, Pow)
            and part.base.base.is_Symbol
            and part.base.exp.is_odd
        ),
        lambda part: Pow(part.base.base, part.base.exp * part.exp),
    )


def same_at_a_point(left: Any, right: Any, written: int = 0) -> bool | None:
    """Whether two expressions have the same value where their variables have some fixed ones; None if they have none.

    Values are compared relative to their size, which math-verify does not do: it takes all tiny numbers for zero.
    `written` more digits than usual are compared, so that a decimal with many digits of pi is not pi.
    """
    from sympy import Derivative, Float, Integral, Limit, Product, Sum, oo

    if any(value.has(Sum, Product, Integral, Derivative, Limit) for value in (left, right)):
        return None  # these may take long, and are not defined everywhere
    point, digits = point_of(left, right), _DIGITS + written
    difference = left - right
    if difference.is_Rational and difference != 0:
        return False  # such as 10^{-400}
    left, right = (value.subs(point).evalf(digits, maxn=2 * digits) for value in (left, right))
    if left in (oo, -oo) or right in (oo, -oo):
        return bool(left == right)
    if not (left.is_number and right.is_number and left.is_finite and right.is_finite):
        return None
    return bool(abs(left - right) <= Float(10, digits) ** -(digits - _DIGITS + _TOLERANCE) * abs(right))


def are_multiples(left: Any, right: Any) -> bool:
    """Whether one equation is the other one times a number."""
    from sympy import expand

    differences = [equation.lhs - equation.rhs for equation in (left, right)]
    point = point_of(left, right)
    at_point = [difference.subs(point) for difference in differences]
    if any(value.is_number is False or not value.is_nonzero for value in at_point):
        return False
    return bool(expand(differences[0] * at_point[1] - differences[1] * at_point[0]) == 0)


def point_of(*expressions: Any) -> dict[Any, Any]:
    """Return some value for each variable, such that no two have a simple relation."""
    from sympy import Rational, prime

    variables = sorted(set().union(*(expression.free_symbols for expression in expressions)), key=str)
    return {variable: Rational(prime(i + 3), 3) for i, variable in enumerate(variables)}


def serve(control: socket.socket) -> None:
    """Fork a supervisor for every connection that comes through `control`, until that is closed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system collects them
    typical = list(_TYPICAL)
    while True:
        if typical and not select.select([control], [], [], 0)[0]:
            formula = typical.pop()  # nobody is waiting: fill the caches that later forks share
            equal(formula, formula + "+1")
            gc.freeze()
            continue
        message, connections, _, _ = socket.recv_fds(control, 1, 1)
        if not message:
            return
        if os.fork() == 0:
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            with contextlib.suppress(OSError):  # nobody listens any more
                supervise(connections[0])
            os._exit(_DONE)
        os.close(connections[0])


def supervise(connection: int) -> None:
    """Keep a process that compares at one end of `connection`, and say how it ended when it ends early."""
    while True:
        process = os.fork()
        if process == 0:
            with contextlib.suppress(OSError):
                compare(connection)
            os._exit(_DONE)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if status == _DONE:
            return
        if status != _RETIRED:
            _send(connection, {"status": status})


def compare(connection: int) -> None:
    """Answer one comparison after another, until the other end is closed or this process is worn out."""
    with open(connection, encoding="utf-8", closefd=False) as requests:
        for line in requests:
            request = json.loads(line)
            start, worn_out = time.process_time(), False
            # nobody handles this signal, so the system ends the process
            signal.setitimer(signal.ITIMER_PROF, request["seconds"])
            try:
                reply = equal(request["target"], request["gold"])
            except (MemoryError, RecursionError):  # too large to be anybody's answer, and SymPy's caches are suspect
                reply, worn_out = False, True
            signal.setitimer(signal.ITIMER_PROF, 0)
            _send(connection, {"equal": reply, "seconds": time.process_time() - start})
            if worn_out or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > _RETIRE_ABOVE:
                os._exit(_RETIRED)


def _send(connection: int, message: dict[str, Any]) -> None:
    os.write(connection, json.dumps(message).encode() + b"\n")


def main() -> NoReturn:
    with contextlib.suppress(ValueError, OSError):  # not every system lets a process limit its address space
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # whatever was inherited
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPROF])
    logging.disable()
    importlib.import_module("math_verify")
    serve(socket.socket(fileno=sys.stdin.fileno()))
    os._exit(_DONE)


if __name__ == "__main__":
    main()
