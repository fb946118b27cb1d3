"""Votes, figures, caches and settings of a judge."""

from __future__ import annotations

import json
import math
import multiprocessing
import pickle
import re
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy

import gymnasium
import pytest

from envs import Completion, TaskEnv
from envs.judges import Judge, Rubric

from ...conftest import ROOT
from ...support.judge_server import Asked, JudgeServer, running
from .conftest import RUBRIC

QUESTION, REFERENCE = "Why does ice float?", "Ice is less dense than water."


def test_scores_become_an_accuracy(served, judge_of):
    judge = judge_of(served)
    found = judge(QUESTION, "Because ice is less dense than water", reference=REFERENCE)
    assert (found.verdict, found.accuracy, found.cause) == ("correct", 1.0, "reason 10/10")
    found = judge(QUESTION, "It is dense, that ice.", reference=REFERENCE)
    assert found.verdict == "wrong" and 0 < found.accuracy < 1
    assert found.details["scores"] == {"reason": round(10 * found.accuracy)}
    passed = judge_of(served, pass_mark=0.2)(QUESTION, "It is dense, that ice.", reference=REFERENCE)
    assert (passed.verdict, passed.accuracy) == ("correct", 1.0)


def test_the_pass_mark_is_met_in_spite_of_rounding(served, judge_of):
    fifths = {name: {"ask": "Is it so?", "weight": 0.3} for name in "abcde"}
    scores = {name: name != "e" for name in fifths}
    served.always = lambda body: json.dumps({"scores": scores, "mark": Asked.of(body).mark})
    found = judge_of(served, rubric=fifths, pass_mark=0.8)(QUESTION, "Because.")
    assert found.accuracy == 1 and Rubric.of(fifths).total(scores) < 0.8


def test_what_needs_no_judge_costs_no_request(served, judge_of):
    judge = judge_of(served, max_characters=100)
    for answer, verdict in (
        ("", "no_answer"),
        (" \n\t", "no_answer"),
        (":", "no_answer"),
        ("\u200b\U000e0041", "no_answer"),
        ("<think>Ice is less dense.", "no_answer"),
        (Completion("Ice is less dense.", thinking=True), "no_answer"),
        ("a" * 101, "wrong"),
    ):
        found = judge(QUESTION, answer, reference=REFERENCE)
        assert found.verdict == verdict and found.accuracy == 0 and not found.details
    assert not served.requests
    assert judge(QUESTION, "<think>Hm.</think>\nIce is less dense than water.", reference=REFERENCE).accuracy == 1
    assert Asked.of(served.requests[0]).answer == REFERENCE


def test_votes_have_a_middle_and_broken_ones_do_not_count(served, judge_of):
    judge = judge_of(served, votes=5)
    shares = iter((0.2, 0.9, 0.4, 1.0))
    served.opinion = lambda asked: next(shares)
    served.faults = [lambda body: "no verdict"]
    found = judge(QUESTION, "Because.", reference=REFERENCE)
    assert found.details["scores"] == {"reason": 4}  # of 2, 4, 9 and 10 the lower in the middle
    assert found.details["figures"]["judge_failed_votes"] == 0.2
    assert {request["temperature"] for request in served.requests} == {0.7}
    assert len({Asked.of(request).mark for request in served.requests}) == 5
    served.faults, served.opinion = [lambda body: "no verdict"] * 3, lambda asked: 1.0
    found = judge(QUESTION, "Therefore.", reference=REFERENCE)
    assert found.verdict == "infra_failure" and found.cause.startswith("3 of 5 votes failed, one of them because the")


def test_the_figures_are_what_it_cost(served, judge_of):
    judge = judge_of(served, votes=3, prices=(2.0, 10.0))
    figures = dict(judge(QUESTION, "Because.", reference=REFERENCE).details["figures"])
    assert figures.pop("judge_seconds") > 0
    assert figures == {
        "judge_known": 0.0,
        "judge_requests": 3.0,
        "judge_tokens": 360.0,
        "judge_failed_votes": 0.0,
        "judge_cost": pytest.approx(3 * (100 * 2 + 20 * 10) / 1e6),
    }
    assert judge(QUESTION, "Because.", reference=REFERENCE).details["figures"] == {"judge_known": 1.0}


def test_an_answer_that_many_threads_ask_about_is_judged_once(judge_of):
    with running(JudgeServer(seconds=0.05)) as server, ThreadPoolExecutor(8) as threads:
        judge = judge_of(server)
        found = list(threads.map(lambda _: judge(QUESTION, "Because.", reference=REFERENCE), range(16)))
        assert len(server.requests) == 1 and len({one.accuracy for one in found}) == 1
        assert sum(one.details["figures"]["judge_known"] == 0 for one in found) == 1


def test_a_failure_that_several_threads_wait_for_is_no_known_verdict(judge_of):
    refused = threading.Event()
    with running(JudgeServer()) as server, ThreadPoolExecutor(3) as threads:
        judge = judge_of(server)
        judge(QUESTION, "It works.")
        server.always = lambda body: refused.wait(20) and "no verdict"
        found = [threads.submit(judge, QUESTION, "Because.", reference=REFERENCE) for _ in range(3)]
        while len(server.requests) < 2:
            time.sleep(0.01)
        time.sleep(0.2)
        refused.set()
        figures = [one.result().details["figures"] for one in found]
        assert [(one["judge_known"], one["judge_failed_votes"]) for one in figures] == [(0.0, 1.0)] * 3


def test_no_more_requests_at_a_time_than_allowed(judge_of, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    gate = threading.Barrier(4, timeout=20)
    with running(JudgeServer(lambda asked: gate.wait() * 0)) as server, ThreadPoolExecutor(16) as threads:
        judge = judge_of(server, max_concurrency=8)  # four for each of two processes
        list(threads.map(lambda place: judge(QUESTION, f"Because {place}."), range(16)))
        assert len(server.requests) == 16 and server.most_at_once == 4


def test_verdicts_are_kept_on_disk_by_all_that_decides_them(served, judge_of, tmp_path):
    first = judge_of(served, cache=tmp_path / "verdicts")(QUESTION, "Because.", reference=REFERENCE)
    again = judge_of(served, cache=str(tmp_path / "verdicts"), url="http://127.0.0.1:9/v1")
    found = again(QUESTION, "Because.", reference=REFERENCE)  # a server elsewhere with the same model
    assert (found.accuracy, found.cause) == (first.accuracy, first.cause) and len(served.requests) == 1
    changes = (
        {"model": "other"},
        {"votes": 3},
        {"temperature": 0.1},
        {"reply_tokens": 9},
        {"instructions": "Be fair."},
        {"extra": {"top_p": 0.9}},
        {"rubric": {"reason": {"ask": "Does it?", "points": 10}}},
        {"rubric": {"reason": {**RUBRIC["reason"], "weight": 2}}},
    )
    for number, change in enumerate(changes):
        before = len(served.requests)
        judge_of(served, cache=tmp_path / "verdicts", **change)(QUESTION, "Because.", reference=REFERENCE)
        assert len(served.requests) > before, number
    before = len(served.requests)
    for question, answer, reference in (("How?", "Because.", REFERENCE), (QUESTION, "So.", REFERENCE)):
        judge_of(served, cache=tmp_path / "verdicts")(question, answer, reference=reference)
    judge_of(served, cache=tmp_path / "verdicts")(QUESTION, "Because.")
    assert len(served.requests) == before + 3


@pytest.mark.parametrize(
    "torn",
    [
        lambda text: "",
        lambda text: text[:-1],
        lambda text: "\x00" * len(text),
        lambda text: "[" * 100_000,
        lambda text: text.replace('"reason": 10', '"reason": 11'),
        lambda text: text.replace('"reason": 10', '"reason": true'),
        lambda text: text.replace('"reason": 10', '"other": 10'),
        lambda text: json.dumps({**json.loads(text), "votes": []}),
        lambda text: json.dumps({**json.loads(text), "key": "0" * 64}),
        lambda text: "7",
    ],
    ids=range(10),
)
def test_a_torn_file_is_no_verdict(served, judge_of, tmp_path, torn):
    asked = QUESTION, REFERENCE
    judge_of(served, cache=tmp_path)(*asked, reference=REFERENCE)
    (path,) = tmp_path.rglob("*.json")
    good = path.read_text()
    path.write_text(torn(good))
    found = judge_of(served, cache=tmp_path)(*asked, reference=REFERENCE)
    assert found.accuracy == 1 and len(served.requests) == 2 and path.read_text() == good
    assert [one.name for one in tmp_path.rglob("*") if one.is_file()] == [path.name]


def test_a_failure_is_never_kept(served, judge_of, tmp_path):
    judge = judge_of(served, cache=tmp_path)
    served.faults = [lambda body: "no verdict"]
    assert judge(QUESTION, REFERENCE, reference=REFERENCE).verdict == "infra_failure"
    assert not list(tmp_path.rglob("*.json"))
    assert judge(QUESTION, REFERENCE, reference=REFERENCE).verdict == "correct"


def ask(judge, results):
    results.put([judge(QUESTION, f"Ice is less dense, {place}", reference=REFERENCE).accuracy for place in range(20)])


def test_several_processes_share_a_cache(served, judge_of, tmp_path):
    context = multiprocessing.get_context("fork")
    judge, results = judge_of(served, cache=tmp_path), context.Queue()
    alone = [judge_of(served)(QUESTION, f"Ice is less dense, {i}", reference=REFERENCE).accuracy for i in range(20)]
    workers = [context.Process(target=ask, args=(judge, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert found == [alone, alone]
    assert len(list(tmp_path.rglob("*.json"))) == 20 == sum(1 for one in tmp_path.rglob("*") if one.is_file())


def test_a_fork_waits_for_no_verdict_of_its_parent(judge_of):
    replied = threading.Event()
    with running(JudgeServer(lambda asked: 1.0)) as server, ThreadPoolExecutor(1) as threads:
        judge, context = judge_of(server), multiprocessing.get_context("fork")
        server.faults = [lambda body: str(replied.wait(60))]
        found = threads.submit(judge, QUESTION, "Because.")
        while not server.requests:
            time.sleep(0.01)
        results = context.Queue()
        child = context.Process(target=lambda: results.put(judge(QUESTION, "Because.").accuracy))
        child.start()
        try:
            assert results.get(timeout=30) == 1.0
        finally:
            child.kill()
            replied.set()
        assert found.result().verdict == "infra_failure"


class Explain(TaskEnv):
    num_rows = 1

    def __init__(self, judge):
        super().__init__()
        self.judge = judge

    def row(self, index):
        return {"prompt": QUESTION}

    def verify(self, row, completion):
        return self.judge(row["prompt"], completion, reference=REFERENCE)


def test_copies_of_an_environment_share_a_judge_and_processes_do_not(served, judge_of):
    judge = judge_of(served)
    env = Explain(judge)
    env.reset(options={"index": 0})
    *_, info = deepcopy(env).step(REFERENCE)
    assert info["accuracy"] == 1 and info["figures"]["judge_tokens"] == 120 and info["scores"] == {"reason": 10}
    assert deepcopy(env).judge is judge and deepcopy({"judge": judge})["judge"] is judge
    sent = pickle.loads(pickle.dumps(judge))
    assert sent is not judge and (sent.url, sent.rubric) == (judge.url, judge.rubric)


def test_the_environment_of_the_documentation(served):
    text = (ROOT / "docs" / "judges.md").read_text(encoding="utf-8")
    names = {"__name__": "explain"}
    exec(re.search(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)[1], names)
    del gymnasium.registry["my/Explain-v0"]
    env = names["Explain"](judge={"url": served.url, "model": "judge"})
    for index in range(env.num_rows):
        env.reset(options={"index": index})
        assert env.step(env.solution(index))[1] == 1.0
        env.reset(options={"index": index})
        assert env.step(env.solution(1 - index))[1] < 0.5
    assert env.max_concurrency == 32 and env.judging_seconds == 91


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "localhost:8000"}, "url='localhost:8000' must be the address of a server, such as http://"),
        ({"url": "http://"}, "must be the address"),
        ({"url": "http://host:port/v1"}, "must be the address"),
        ({"url": "http://host/v1?key=3"}, "must be the address"),
        ({"url": 8000}, "url=8000 must be the address"),
        ({"url": "http://me:secret@host/v1"}, "url holds a user or a password: leave them out"),
        ({"model": ""}, "model='' must be the name by which the server knows its model"),
        ({"model": None}, "model=None must be"),
        ({"key_env": "sk-secret-1"}, "key_env must be the name of an environment variable, .*, and never the key"),
        ({"key_env": "NO_SUCH_KEY"}, "key_env='NO_SUCH_KEY': this environment variable is not set"),
        ({"rubric": {}}, "must name at least one criterion"),
        ({"votes": 2}, "votes=2 must be an odd integer"),
        ({"votes": True}, "votes=True must be"),
        ({"pass_mark": 0}, "pass_mark=0 must be a number above 0, at most 1"),
        ({"pass_mark": math.nan}, "pass_mark=nan must be"),
        ({"temperature": -1}, "temperature=-1 must be None or at least 0"),
        ({"max_concurrency": 0}, "max_concurrency=0 must be an integer of at least 1"),
        ({"max_requests": 0}, "max_requests=0 must be None or an integer of at least 1"),
        ({"max_tokens": 1.5}, "max_tokens=1.5 must be None or"),
        ({"request_seconds": 100}, "request_seconds=100 must be at most vote_seconds=90"),
        ({"vote_seconds": "60"}, "vote_seconds='60' must be above 0"),
        ({"prices": (1,)}, r"prices=\(1,\) must be None or two numbers"),
        ({"extra": {"a": {1, 2}}}, "extra=.* must be a mapping that JSON can hold"),
        ({"cache": 3}, "cache=3 must be None or a folder"),
        ({"cache": "/proc/no/such"}, "cache='/proc/no/such' cannot be made"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(settings, message):
    with pytest.raises(ValueError, match=message) as raised:
        Judge(**{"url": "http://127.0.0.1:9/v1", "model": "judge", "rubric": RUBRIC, **settings})
    assert "\n" not in str(raised.value) and "secret" not in str(raised.value)


def test_a_key_that_cannot_be_sent_is_refused_unseen(monkeypatch):
    monkeypatch.setenv("MY_JUDGE_KEY", "one\ntwo")
    with pytest.raises(ValueError, match="'MY_JUDGE_KEY': its value has characters that no key may have") as raised:
        Judge(url="http://127.0.0.1:9/v1", model="judge", rubric=RUBRIC, key_env="MY_JUDGE_KEY")
    assert "two" not in str(raised.value)


def test_the_address_may_be_in_the_environment(monkeypatch, served):
    monkeypatch.delenv("JUDGE_URL", raising=False)
    with pytest.raises(ValueError, match="url is not set, and neither is JUDGE_URL"):
        Judge(model="judge", rubric=RUBRIC)
    monkeypatch.setenv("JUDGE_URL", "elsewhere")
    with pytest.raises(ValueError, match="JUDGE_URL='elsewhere' must be the address"):
        Judge(model="judge", rubric=RUBRIC)
    monkeypatch.setenv("JUDGE_URL", served.url)
    judge = Judge(model="judge", rubric=RUBRIC)
    assert judge(QUESTION, REFERENCE, reference=REFERENCE).verdict == "correct"
    judge.close()


def test_without_httpx_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(ImportError, match="needs httpx: install it with pip install httpx"):
        Judge(url="http://127.0.0.1:9/v1", model="judge", rubric=RUBRIC)
