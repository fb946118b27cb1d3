"""Verdicts of a judge behind HTTP: how long 200 of them take, and what a server that fails costs.

    python benchmarks/judge.py            # a minute
    python benchmarks/judge.py --quick

The server is on this machine and has no model: it waits 0.5 s and compares words (`tests/support/judge_server.py`).
Each verdict is asked for as in training, by `TaskEnv.verify` in the threads of an `EnvPool`, 32 at a time. Faults are
those of servers: down, slow, rate limited, and replies that are no verdict. For each the verdicts of 32 right answers
are counted: an answer must never be wrong because of its judge.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from functools import partial
from typing import Any

from common import Claim, arguments, finish, show
from measured import ROOT, quieten

sys.path.insert(0, str(ROOT))

from dapo_trl.rollout.episode import Episode
from dapo_trl.rollout.episode_runner import EnvPool
from envs import Completion, TaskEnv
from envs.judges import Judge
from tests.support.judge_server import JudgeServer, completion, running

VERDICTS, SECONDS, AT_ONCE, FAULTY = 200, 0.5, 32, 32
REFERENCE = "Ice is less dense than water."


class Graded(TaskEnv):
    """Every row is another question; its right answer is the reference."""

    num_rows = None

    def __init__(self, judge: Judge):
        super().__init__()
        self.judge = judge

    def row(self, index):
        return {"prompt": f"Question {index}: why does ice float?"}

    def verify(self, row, completion):
        return self.judge(row["prompt"], completion, reference=REFERENCE)


def judged(server: JudgeServer | str, count: int, **settings: Any) -> tuple[float, Counter[str], float]:
    """Seconds of so many verdicts on right answers, how often each was given, and the requests."""
    url = server if isinstance(server, str) else server.url
    judge = Judge(url=url, model="judge", rubric={"reason": "Is it right?"}, max_concurrency=AT_ONCE, **settings)
    env = Graded(judge)
    episodes = [Episode(env, index) for index in range(count)]
    started = time.perf_counter()
    with EnvPool(env).open() as submit:
        for wait in [submit(episode, partial(episode.step, Completion(REFERENCE))) for episode in episodes]:
            wait()
    seconds = time.perf_counter() - started
    requests = sum(episode.outcome.figures["judge_requests"] for episode in episodes)
    judge.close()
    return seconds, Counter(episode.outcome.verdict for episode in episodes), requests / count


def fast(repetitions: int) -> float:
    """The most seconds of 200 verdicts."""
    found = []
    for _ in range(repetitions):
        with running(JudgeServer(seconds=SECONDS)) as server:
            seconds, verdicts, _ = judged(server, VERDICTS)
            assert verdicts == {"correct": VERDICTS} and server.most_at_once == AT_ONCE
            found.append(seconds)
    return max(found)


def faults() -> list[tuple[str, float, Counter[str], float]]:
    """For each fault its seconds, verdicts and requests for a verdict."""
    found = []
    briefly = {"request_seconds": 0.5, "vote_seconds": 4.0}
    for name, always, first in (
        ("down: nothing listens", "nobody", None),
        ("down: status 500", 500, None),
        ("down for the first 32 requests, connections reset", None, "reset"),
        ("slow: longer than a request may take", "slow", None),
        ("rate limited for the first 32 requests, Retry-After 1", None, (429, {"Retry-After": "1"}, b"")),
        (
            "lying: the verdict of another request",
            lambda body: '{"scores": {"reason": false}, "mark": "0123abcd"}',
            None,
        ),
        ("lying: a score out of range", lambda body: '{"scores": {"reason": 11}, "mark": "0123abcd"}', None),
        ("lying: prose", lambda body: "The answer is wrong.", None),
        ("lying: a reply of 2 MiB", (200, {}, completion("0" * (1 << 21))), None),
        ("lying: no chat completion", (200, {}, b"<html>It works!</html>"), None),
    ):
        slow = always == "slow"
        with running(JudgeServer(always=None if slow else always, seconds=2.0 if slow else 0.0)) as server:
            server.faults = [first] * FAULTY if first is not None else []
            where = "http://127.0.0.1:9/v1" if always == "nobody" else server
            found.append((name, *judged(where, FAULTY, **briefly)))
    return found


def main() -> None:
    options = arguments(__doc__ or "")
    quieten()
    seconds = fast(1 if options.quick else 3)
    show(
        f"{VERDICTS} verdicts of {SECONDS} s, {AT_ONCE} at a time",
        ["", "seconds"],
        [
            ("one after another", f"{VERDICTS * SECONDS:.0f}"),
            ("at best", f"{-(-VERDICTS // AT_ONCE) * SECONDS:.1f}"),
            ("measured, the longest", f"{seconds:.2f}"),
        ],
    )
    found = faults()
    show(
        f"{FAULTY} right answers and a server that fails: verdicts",
        ["fault", "correct", "wrong", "infra_failure", "requests", "seconds"],
        [
            (
                name,
                *(str(verdicts[one]) for one in ("correct", "wrong", "infra_failure")),
                f"{tries:.1f}",
                f"{took:.1f}",
            )
            for name, took, verdicts, tries in found
        ],
    )
    finish(
        [
            Claim(
                f"{VERDICTS} verdicts at concurrency {AT_ONCE} / one after another",
                seconds / (VERDICTS * SECONDS),
                5 / (VERDICTS * SECONDS),
            ),
            Claim(
                "right answers that are wrong for a fault of the judge",
                sum(verdicts["wrong"] for _, _, verdicts, _ in found),
                0,
                unit="count",
            ),
            Claim(
                "right answers that are correct after a fault that passes",
                sum(verdicts["correct"] for name, _, verdicts, _ in found if "for the first" in name),
                2 * FAULTY,
                higher_is_better=True,
                unit="count",
            ),
        ],
        options.json,
    )


if __name__ == "__main__":
    main()
