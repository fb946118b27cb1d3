"""Judges that ask a local server, and a clock that stands still but for pauses."""

from __future__ import annotations

import pytest

from envs.judges import Judge
from envs.judges import server as module

from ...support.judge_server import JudgeServer, running

RUBRIC = {"reason": {"ask": "Does it give the reason that the right answer gives?", "points": 10}}


@pytest.fixture
def served():
    with running(JudgeServer()) as server:
        yield server


@pytest.fixture
def judge_of():
    """Makes judges of a server, and closes them."""
    made = []

    def make(server: JudgeServer | str, **settings) -> Judge:
        url = server if isinstance(server, str) else server.url
        made.append(Judge(**{"url": url, "model": "judge", "rubric": RUBRIC, **settings}))
        return made[-1]

    yield make
    for judge in made:
        judge.close()


@pytest.fixture
def pauses(monkeypatch):
    """The pauses between tries, which cost no time; the clock stands still otherwise."""
    found = []

    async def sleep(seconds: float) -> None:
        found.append(seconds)

    monkeypatch.setattr(module, "_sleep", sleep)
    monkeypatch.setattr(module, "_now", lambda: 1000.0 + sum(found))
    return found
