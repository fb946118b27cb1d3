"""Check every task of the installed reasoning-gym and write down which can be trained on.

    pip install -e '.[reasoning-gym]'
    python scripts/check_reasoning_gym.py [TASK ...]

Takes some twenty minutes on two cores. Without names it rewrites `envs/reasoning_gym_tasks.json`: the version, the
tasks that pass `check_reward_env` and an attack, with their category, and the reason for each of the others. With names
it prints all findings of the checks on those tasks and writes nothing.
"""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path

import reasoning_gym
from reasoning_gym.factory import DATASETS

from envs import reasoning_gym_tasks
from envs.attack.attack import attack_reward
from envs.reasoning_gym_tasks import ReasoningGymEnv
from envs.reward_check.check import Report, reward_report

RESULT = Path(reasoning_gym_tasks.__file__).with_suffix(".json")


def report(task: str) -> Report:
    """Check one task with its own default settings."""
    return reward_report(partial(ReasoningGymEnv, task=task, unchecked=True))


def refusal(report: Report) -> str | None:
    """Return why a task is not offered, in one line, or None if it is."""
    reasons = [f"{check.name}: {check.message}" for check in report.failures]
    if not reasons and report["solution"].status == "not checked":
        reasons.append("solution: the task has no answer that its scorer could be checked with")
    return " ".join(" | ".join(reasons).split()) or None


def attacked(task: str) -> str | None:
    """Return how a task that passes the checks is paid all the same, in one line, or None if no way is found."""
    found = attack_reward(partial(ReasoningGymEnv, task=task, unchecked=True), calls=1_000, minutes=0.5)
    if not found.holes:
        return None
    hole = found.holes[0]
    return f"attack: {hole.strategy}, {hole.text[:60]!r}, earns {hole.reward:g} of 1 and should be {hole.should}"


def main(names: list[str]) -> None:
    offered, refused = {}, {}
    tasks = names or sorted(set(DATASETS) - {"composite"})  # a mixture of other tasks, and none by itself
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # each waits for subprocesses of its own
        for task, found in zip(tasks, pool.map(report, tasks), strict=True):
            reason = refusal(found) or attacked(task)
            print(f"{task}: {reason or 'offered'}", flush=True)
            if names:
                for check in found.checks:
                    print(f"  {check.name:12} {check.status:12} {check.message}")
            elif reason:
                refused[task] = reason
            else:
                offered[task] = reasoning_gym.create_dataset(task, seed=0, size=1).category
    if not names:
        result = {"version": version("reasoning-gym"), "offered": offered, "refused": refused}
        RESULT.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{len(offered)} offered, {len(refused)} refused: {RESULT}")


if __name__ == "__main__":
    main(sys.argv[1:])
