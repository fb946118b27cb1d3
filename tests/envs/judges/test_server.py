"""Servers that are slow, down, rate limited or lying, and what is asked of them."""

from __future__ import annotations

import email.utils
import json
import math
import pickle
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from envs.judges import BudgetSpent
from envs.judges import server as module

from ...support.judge_server import JudgeServer, completion, running

ASKED = {"question": "Why does ice float?", "answer": "Because ice is less dense.", "reference": "Ice is less dense."}


def failed(judge, **changes):
    found = judge(**{**ASKED, **changes})
    assert found.verdict == "infra_failure" and math.isnan(found.accuracy)
    return found.cause


def test_a_failure_that_passes_is_tried_again(served, judge_of, pauses):
    served.faults = [500, "reset", 503, 502, 408]
    before = random.getstate()
    found = judge_of(served)(**ASKED)
    assert random.getstate() == before  # the pauses are drawn elsewhere
    assert found.verdict == "correct" and found.details["figures"]["judge_requests"] == 6
    assert len(served.requests) == 6 and len(pauses) == 5
    assert all(half <= pause <= 2 * half for pause, half in zip(pauses, (0.25, 0.5, 1, 2, 4), strict=True))


def test_a_server_that_stays_down_is_given_up_in_time(served, judge_of, pauses):
    served.always = 500
    cause = failed(judge_of(served, vote_seconds=60, request_seconds=20))
    assert "within 60 s: status 500" in cause and sum(pauses) < 60 < sum(pauses) + 16


def test_nobody_is_there(judge_of, pauses):
    assert "ConnectError" in failed(judge_of("http://127.0.0.1:9/v1"))


def test_a_reply_that_never_comes_is_a_timeout(served, judge_of, pauses):
    served.seconds = 0.3  # and no request may take more than a tenth of it
    assert "no reply within 0.03 s" in failed(judge_of(served, request_seconds=0.03, vote_seconds=2))


def test_a_rate_limit_is_kept_by_all_requests(served, judge_of, pauses):
    served.faults = [(429, {"Retry-After": "7"}, b"slow down")]
    judge = judge_of(served)
    assert judge(**ASKED).verdict == "correct" and 7 <= pauses[0] <= 7.5
    moment = email.utils.formatdate(time.time() + 3600, usegmt=True)
    served.faults = [(429, {"Retry-After": moment}, b"see you")]
    assert "status 429: 'see you'" in failed(judge, answer="Another answer.")  # beyond the time of a vote
    assert "no time left" in failed(judge, answer="A third one.") and len(served.requests) == 3
    pauses.append(90.0)  # later
    assert judge(**{**ASKED, "answer": "Ice is less dense, once more."}).verdict == "correct"


@pytest.mark.parametrize("header", ["soon", "", "-5", "nan", "inf", "1e999", "Wed, 99 Foo"])
def test_a_strange_retry_after_asks_for_nothing(header):
    assert module._retry_after(header) == 0.0


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ((200, {}, b"<html>Welcome</html>"), "sent no chat completion: '<html>Welcome</html>'"),
        ((200, {}, b'{"choices": []}'), "sent no chat completion"),
        ((200, {}, b"[" * 5000), "sent no chat completion"),
        ((200, {}, completion(None)), "sent no chat completion"),
        ((200, {}, completion("{", finish_reason="length")), "cut off at its limit of tokens: raise reply_tokens"),
        ((200, {}, b" " * (module._MAX_BYTES + 1)), "sent more than 1,048,576 bytes"),
        ((302, {"Location": "/"}, b"elsewhere"), "status 302: 'elsewhere'"),
        (lambda body: "I would give it 10 of 10.", "is not one JSON object"),
        (lambda body: json.dumps({"scores": {"reason": 10}, "mark": "0123abcd"}), "and not that of the request"),
        (lambda body: "9" * 100_000, "is not one JSON object"),
    ],
    ids=range(10),
)
def test_a_lying_server_gives_no_verdict(served, judge_of, pauses, fault, cause):
    served.always = fault
    assert cause in failed(judge_of(served))
    assert len(served.requests) == 1 and not pauses


def test_a_schema_is_asked_for_where_the_server_knows_it(served, judge_of, caplog):
    judge_of(served)(**ASKED)
    assert served.requests[0]["response_format"]["json_schema"]["schema"]["required"] == ["scores", "mark"]
    served.offers_schema, judge = False, judge_of(served)
    for place in range(3):
        assert judge(**{**ASKED, "answer": f"{ASKED['answer']} {place}"}).verdict == "correct"
    asked = ["response_format" in request for request in served.requests]
    assert asked == [True, True, False, False, False] and caplog.text.count("takes no JSON schema") == 1
    served.always = 400  # not for the schema's sake: it is asked for again, and nothing is concluded
    judge = judge_of(served)
    with pytest.raises(ValueError, match=r"refuses the request \(see extra\): status 400"):
        judge(**ASKED)
    served.always, served.offers_schema = None, True
    assert judge(**ASKED).verdict == "correct" and "response_format" in served.requests[-1]


@pytest.mark.parametrize(
    ("status", "what"), [(401, "the key"), (404, "the address or the model"), (422, r"the request \(see extra\)")]
)
def test_settings_that_never_worked_are_an_error_and_later_an_outage(served, judge_of, status, what):
    served.faults = [status] * (1 + (status == 422))  # it may be the schema that is refused
    judge = judge_of(served)
    with pytest.raises(ValueError, match=f"refuses {what}: status {status}"):
        judge(**ASKED)
    assert judge(**ASKED).verdict == "correct"
    served.always = status
    assert f"status {status}" in failed(judge, answer="Something else.")


def test_the_key_is_sent_and_never_shown(served, judge_of, monkeypatch, caplog):
    monkeypatch.setenv("MY_JUDGE_KEY", "sk-secret\n")  # as a file is often read
    judge = judge_of(served, key_env="MY_JUDGE_KEY")
    served.faults = [(400, {}, b"wrong key sk-secret"), (400, {}, b"wrong key sk-secret")]
    with pytest.raises(ValueError, match="wrong key") as raised:
        judge(**ASKED)
    shown = str(raised.value) + repr(judge) + caplog.text
    served.faults = [(200, {}, b"hello sk-secret")]
    shown += failed(judge)
    assert served.requests[0]["headers"]["Authorization"] == "Bearer sk-secret"
    assert "wrong key ***" in shown and "sk-secret" not in shown


def test_a_budget_of_requests_is_kept(served, judge_of):
    judge = judge_of(served, max_requests=2)
    for answer in ("one", "two", "one"):  # the third is known
        judge(**{**ASKED, "answer": answer})
    with pytest.raises(BudgetSpent, match=r"2 requests since this process began, of 2 .* Raise max_requests"):
        judge(**{**ASKED, "answer": "three"})
    assert len(served.requests) == 2


def test_a_budget_of_tokens_is_kept_and_shared(served, judge_of, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    judge = judge_of(served, max_tokens=400)  # 200 for each of two processes, 120 for each verdict
    judge(**ASKED)
    judge(**{**ASKED, "answer": "two"})
    with pytest.raises(BudgetSpent, match=r"240 tokens .*, of 200 that it may spend. Raise max_tokens"):
        judge(**{**ASKED, "answer": "three"})


def test_judges_of_a_server_and_key_have_one_budget_in_a_run(served, judge_of, monkeypatch):
    monkeypatch.setenv("MY_JUDGE_KEY", "secret")
    training, measuring = judge_of(served, max_requests=3), judge_of(f"{served.url}/", max_requests=3)
    other = judge_of(served, max_requests=1, key_env="MY_JUDGE_KEY")
    for place, judge in enumerate((training, measuring, training, other)):
        judge(**{**ASKED, "answer": f"answer {place}"})
    for judge in (training, measuring, pickle.loads(pickle.dumps(training))):
        with pytest.raises(BudgetSpent, match=r"3 requests .*, of 3 "):
            judge(**{**ASKED, "answer": "one more"})
    judge_of(served)(**ASKED)  # one without a limit goes on
    assert len(served.requests) == 5


def test_judges_of_a_server_share_its_requests_in_flight(judge_of):
    gate = threading.Barrier(4, timeout=20)
    opinion = JudgeServer(lambda asked: gate.wait() * 0, seconds=0.1)
    with running(opinion) as server, ThreadPoolExecutor(16) as threads:
        judges = [judge_of(server, max_concurrency=most) for most in (8, 4)]
        list(threads.map(lambda place: judges[place % 2](**{**ASKED, "answer": f"Because {place}."}), range(16)))
        assert len(server.requests) == 16 and server.most_at_once == 4


def test_in_an_outage_a_vote_is_tried_once_until_there_is_a_reply(served, judge_of, pauses):
    judge = judge_of(served)
    served.always = 503
    for place in range(3):
        assert "tries within 90 s: status 503" in failed(judge, answer=f"answer {place}")
    tried, paused = len(served.requests), len(pauses)
    assert tried > 10
    for place in range(2):
        assert "as in all tries of the 3 votes before: status 503" in failed(judge_of(served), answer=f"later {place}")
    assert len(served.requests) == tried + 2 and len(pauses) == paused
    served.always = None
    assert judge(**ASKED).verdict == "correct"
    served.faults = [503]
    assert judge(**{**ASKED, "answer": "Ice is less dense, is it?"}).details["figures"]["judge_requests"] == 2


def test_a_rate_limit_is_no_outage(served, judge_of, pauses):
    served.always = 429
    for place in range(4):
        assert "tries within 90 s: status 429" in failed(judge_of(served), answer=f"answer {place}")


def test_a_server_with_other_names_of_settings_is_asked_by_extra(served, judge_of):
    extra = {"max_tokens": None, "max_completion_tokens": 99, "temperature": 1}
    assert judge_of(served, extra=extra)(**ASKED).verdict == "correct"
    (asked,) = served.requests
    assert (asked["temperature"], asked["max_completion_tokens"]) == (1, 99) and "max_tokens" not in asked


def test_tokens_that_a_server_does_not_count_are_estimated(served, judge_of):
    asked = judge_of(served)
    served.faults = [(200, {}, json.dumps({"choices": [{"message": {"content": "x" * 40}}]}).encode())]
    tokens = asked(**ASKED).details["figures"]["judge_tokens"]
    characters = sum(len(message["content"]) for message in served.requests[0]["messages"])
    assert tokens == -(-characters // 4) + 10
