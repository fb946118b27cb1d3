"""The subprocess of `symbolic`: reads comparisons as JSON lines, answers true or false.

Not part of the package's imports: it is run as a script, so that it loads nothing but math-verify.
"""

import contextlib
import json
import logging
import os
import resource
import signal
import sys
from functools import lru_cache
from typing import Any

MEMORY_LIMIT = 2 * 2**30  # bytes of address space


@lru_cache(maxsize=512)
def parse(formula: str) -> tuple[Any, ...]:
    """Return the SymPy readings of a LaTeX formula; none if it can not be read."""
    from math_verify import LatexExtractionConfig, parse

    config = LatexExtractionConfig(boxed_match_priority=-1)
    return tuple(parse(f"${formula}$", [config], fallback_mode="no_fallback", parsing_timeout=None))


def equal(target: str, gold: str) -> bool:
    """Whether math-verify finds the formulas equal, to 50 digits where it compares numbers."""
    from math_verify import verify

    return bool(verify(list(parse(gold)), list(parse(target)), numeric_precision=50, timeout_seconds=None))


def main() -> None:
    with contextlib.suppress(ValueError, OSError):  # not every system lets a process limit its address space
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    logging.disable()
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints must not pass for a reply
    equal("x", "x")  # load everything before saying so
    print("ready", file=replies)
    for line in sys.stdin:
        request = json.loads(line)
        # nobody handles this alarm, so the system ends the process, in the middle of any computation
        signal.setitimer(signal.ITIMER_REAL, request["seconds"])
        try:
            reply = equal(request["target"], request["gold"])
        except (MemoryError, RecursionError):
            reply = False  # too large to be anybody's answer
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(reply), file=replies)


if __name__ == "__main__":
    main()
