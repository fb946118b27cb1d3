"""Attack every reward that is held to be sound: the tasks of reasoning-gym on offer, and this package's own.

    pip install -e '.[reasoning-gym]'
    python scripts/attack_sound.py [--calls 1500] [--minutes 0.5]

Takes some ten minutes on two cores. Prints a line for each task, every hole that is found, and the tasks too slow to be
attacked within the limit.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from envs.attack.attack import attack_reward
from envs.reasoning_gym_tasks import checked

_ROWS = [{"prompt": f"What is {3 * n + 11} + {n * n % 97}?", "answer": 3 * n + 11 + n * n % 97} for n in range(200)]
OWN: list[tuple[str, dict[str, Any]]] = [
    *[("math/Arithmetic-v0", {"levels": [level]}) for level in (1, 2, 3, 4)],
    *[("math/Chain-v0", {"levels": [level]}) for level in (1, 2, 4, 8, 16)],
    *[("math/Countdown-v0", {"levels": [level]}) for level in (3, 4, 5)],
    *[("math/Calculator-v0", {"levels": [level]}) for level in (2, 3)],
    *[("math/Problem-v0", {"rows": _ROWS, "answer_style": style}) for style in ("auto", "boxed", "hash", "dapo")],
    *[("math/WordProblems-v0", {"levels": [level]}) for level in (1, 3, 6)],
    *[("text/Instructions-v0", {"levels": [level]}) for level in (1, 3)],
    ("math/Arithmetic-v0", {"split": "test"}),
    ("math/Countdown-v0", {"split": "test"}),
]
"""This package's own tasks, each with its arguments."""


def attack(case: tuple[str, dict[str, Any]], *, calls: int, minutes: float) -> str:
    """Attack one task, and return its line."""
    name, kwargs = case
    start = time.monotonic()
    try:
        found = attack_reward(name, env_kwargs=kwargs, calls=calls, minutes=minutes)
    except ValueError as error:
        return f"NOT MADE {name} {str(kwargs)[:40]}: {' '.join(str(error).split())[:200]}"
    outcome = f"{len(found.holes)} holes" if found.holes else "no hole" if found.answers == calls else "NOT FINISHED"
    lines = [f"{outcome} {name} {str(kwargs)[:40]}: {found.answers:,} answers, {time.monotonic() - start:.0f} s"]
    if found.stopped:
        lines[0] += f", stopped early: {found.stopped}"
    lines += [f"  {hole.strategy}: {hole.text[:80]!r}, {hole.reward:g} ({hole.should})" for hole in found.holes]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1_500)
    parser.add_argument("--minutes", type=float, default=0.5)
    args = parser.parse_args()
    cases = [*OWN, *((f"reasoning_gym/{task}-v0", {}) for task in checked().offered)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # each waits for subprocesses of its own
        for line in pool.map(partial(attack, calls=args.calls, minutes=args.minutes), cases):
            print(line, flush=True)


if __name__ == "__main__":
    main()
