"""The farm: the same results as at home, and "infra_failure" alone when it fails.

What programs give is tested on a small server with SandboxFusion's protocol, and on a real one too if
DAPO_TRL_TEST_FUSION has its address, such as "fusion+http://127.0.0.1:8080".
"""

import base64
import io
import json
import logging
import multiprocessing
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from envs.sandbox import Limits, Program, Sandbox, SandboxUnavailable, Status, open_sandbox
from envs.sandbox.fusion import sandbox as fusion
from envs.sandbox.fusion import servers
from envs.sandbox.fusion.sandbox import FusionSandbox
from envs.sandbox.inside import frames
from envs.verifiers.code.run_tests import run_tests

from ...support.fusion_server import run_code, serving

REAL = os.environ.get("DAPO_TRL_TEST_FUSION", "")
DOUBLE = Program("def f(x): return x * 2", "call", "f")
QUICK = Limits(cpu_seconds=0.5, wall_seconds=20, memory_bytes=1 << 28, output_bytes=1 << 16)


@pytest.fixture(scope="module", autouse=True)
def no_proxy():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield


@pytest.fixture(scope="module")
def server():
    with serving() as server:
        yield server


@pytest.fixture(scope="module", params=["small server", "real server"])
def farm(request, server):
    if request.param == "real server" and not REAL:
        pytest.skip("DAPO_TRL_TEST_FUSION has no address of a real server")
    with opened(REAL if request.param == "real server" else server.address) as farm:
        yield farm


@pytest.fixture(scope="module")
def small_farm(server):
    with opened(server.address) as small_farm:
        yield small_farm


@pytest.fixture
def small(small_farm, server, monkeypatch):
    """A farm that works, of the small server, for tests that put other answers into its mouth."""
    monkeypatch.setattr(servers, "_FIRST_PAUSE", 0.001)
    server.requests.clear()
    yield small_farm
    small_farm.close()
    server.answers.clear()
    server.always = "run"


def opened(address, **settings):
    farm = FusionSandbox(address, **settings)
    try:
        assert farm.isolation == "fusion"
    except SandboxUnavailable as reason:
        if "seccomp" not in str(reason):
            raise
        pytest.skip(str(reason))
    return farm


# --- what programs give


@pytest.mark.parametrize(
    ("program", "inputs", "given"),
    [
        (Program("print(int(input()) * 2)"), ["21\n", "x", "4"], ["42\n", Status.CRASH, "8\n"]),
        (Program("import sys; print(sys.stdin.read(), end='')"), ["ä\r\n\0" * 3000], ["ä\r\n\0" * 3000]),
        (Program("import os; os.write(1, b'\\xff42')"), [""], ["\ufffd42"]),
        (Program("import sys; print(1); sys.exit(0)"), [""], ["1\n"]),
        (Program("import sys; print(1); sys.exit(3)"), [""], [Status.CRASH]),
        (Program("import sys\nprint(hasattr(sys, 'x')); sys.x = 1"), ["", ""], ["False\n", "False\n"]),
        (
            DOUBLE,
            [[2], ["a"], [None], [[1, (2, {3})]], [1 << 99]],
            [4, "aa", Status.CRASH, [1, (2, {3})] * 2, 1 << 100],
        ),
        (Program("class Solution:\n  def f(self, a, b): return {a: b}", "call", "f"), [[1, 2.5]], [{1: 2.5}]),
        (Program("seen = []\ndef f(x): seen.append(x); return seen", "call", "f"), [[1], [2]], [[1], [1, 2]]),
        (
            Program("seen = []\ndef f(x): seen.append(x); return seen", "call", "f", isolate_inputs=True),
            [[1], [2]],
            [[1], [2]],
        ),
        (
            Program("import os\ndef f(x): return os._exit(0) if x < 0 else x", "call", "f"),
            [[-1], [1]],
            [Status.CRASH, 1],
        ),
        (Program("T = 2", "eval"), ["T + 1", "T.x", "(h := [T])", "h * 2"], [3, Status.CRASH, [2], [2, 2]]),
        (Program("def f(:", "call", "f"), [[1], [2]], [Status.CRASH] * 2),
        (Program("print('x' * 2_000_000)"), [""], [Status.OUTPUT_LIMIT]),
        (Program("def f(): return 'x' * 2_000_000", "call", "f"), [[]], [Status.OUTPUT_LIMIT]),
        (Program("while True: pass"), [""], [Status.TIMEOUT]),
        (Program("def f(x):\n  while x: pass", "call", "f"), [[0], [1], [0]], [None, Status.TIMEOUT, None]),
        (Program("x = bytearray(1 << 34)"), [""], [Status.MEMORY]),
        (Program("def f(): return object()", "call", "f"), [[]], [Status.INVALID_VALUE]),
        (Program("import os; os.abort()"), [""], [Status.CRASH]),
    ],
)
def test_results_are_those_of_home(farm, program, inputs, given):
    results = farm.run(program, inputs, QUICK)
    assert [r.value if r.status is Status.OK else r.status for r in results] == given
    assert all(r.cause for r in results if r.status is not Status.OK)


def test_two_programs_talk(farm):
    ask = Program(
        "def main(exchange, n):\n    exchange(None)\n    return [exchange(i) for i in range(n)]", "dialog", "main"
    )
    echo = Program(
        "def main(exchange, k):\n    x = exchange(0)\n    while x < 2: x = exchange(x * k)", "dialog", "main"
    )
    one, other = farm.converse(ask, echo, ([2], [5]), (QUICK, QUICK))
    assert one.value == [0, 5] and other.status is Status.NOT_RUN
    one, other = farm.converse(ask, echo, ([4], [5]), (QUICK, QUICK))
    assert one.value == [0, 5, None, None] and (other.status, other.value) == (Status.OK, None)


def test_modules_of_our_own_are_sent_along(server):
    asker = Program("from ours import ask", "dialog", "ask")
    answerer = Program("def main(exchange): exchange(1)", "dialog", "main")
    with opened(server.address, modules={"ours": "def ask(exchange, n): return n + exchange(None)"}) as farm:
        assert farm.converse(asker, answerer, ([2], []), (QUICK, QUICK))[0].value == 3


def test_stops_at_the_first_failure(farm):
    program, inputs = Program("print(1 // int(input()))"), list("1021")
    for settings in ({"stop_at": {Status.CRASH}}, {"stop": lambda number, result: result.status is Status.CRASH}):
        results = farm.run(program, inputs, **settings)
        assert [result.status for result in results] == ["ok", "crash", "not_run", "not_run"]


def test_long_values_come_back_whole(farm):
    """Longer than what the real server takes from standard output, and than what its pipe holds."""
    (result,) = farm.run(Program("print('x' * 3_000_000)"), [""], Limits(output_bytes=4_000_000))
    assert result.value == "x" * 3_000_000 + "\n"


def test_packages(server):
    pytest.importorskip("numpy")
    source = "import numpy as np\ndef f(n): return np.arange(n) * 2"
    with opened(server.address, packages=("numpy",)) as farm:
        assert farm.run(Program(source, "call", "f"), [[3]])[0].value == [0, 2, 4]
    with (
        FusionSandbox(server.address, packages=("no_such_package",)) as farm,
        pytest.raises(SandboxUnavailable, match="has no package 'no_such_package'"),
    ):
        assert farm.isolation


@pytest.mark.parametrize(
    "attack",
    [
        "import os; os.write(4, b'\\0\\0\\0\\2v1' * 9)",
        "import os; os.kill(os.getppid(), 9)",
        "import os; [os.kill(pid, 9) for pid in range(2, 1 << 16)]",
        "import glob\nfor p in glob.glob('/tmp/*/'): open(p + 'reports', 'wb').write(b'\\0')",
        "import os\nwhile True: os.fork()",
        "print('reports', flush=True)",
        "import sys; sys.__stdout__.write('{}' * 10 ** 6)",
    ],
)
def test_a_program_speaks_for_itself_alone(farm, attack):
    source = f"def f(x):\n  if x == 2:\n    exec({attack!r})\n  return x * 10"
    results = farm.run(Program(source, "call", "f"), [[1], [2], [3]], QUICK)
    assert len(results) == 3
    assert results[0].value == 10
    assert results[1].status is not Status.INFRA_FAILURE
    assert results[2].value in (None, 30)
    assert farm.run(DOUBLE, [[7]])[0].value == 14


def test_programs_run_at_the_same_time(farm):
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda n: farm.run(DOUBLE, [[n], [n + 1]]), range(12)))
    assert [[result.value for result in pair] for pair in results] == [[2 * n, 2 * n + 2] for n in range(12)]


def test_requests_at_a_time_are_limited(server):
    with opened(f"{server.address}?workers=2") as farm:
        server.most_running = 0
        with ThreadPoolExecutor(6) as pool:
            assert all(results[0].value == 2 for results in pool.map(lambda _: farm.run(DOUBLE, [[1]]), range(6)))
    assert server.most_running == 2


def test_works_after_a_fork(small):
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def child():
        theirs.send(small.run(DOUBLE, [[4]])[0].value)

    process = context.Process(target=child)
    process.start()
    assert ours.recv() == 8
    process.join()
    assert small.run(DOUBLE, [[5]])[0].value == 10


def test_the_request_holds_program_and_inputs(small, server):
    small.run(DOUBLE, [[3], [4]])
    (request,) = server.requests
    sent = json.loads(request["stdin"])
    assert sorted(sent) == ["filter", "machine", "modules", "nonce", "packages", "tasks"] and sent["modules"] == {}
    task = base64.b64decode(sent["tasks"][0])
    fields = json.loads(frames.read(io.BytesIO(task).read, 1 << 20))
    assert sorted(fields) == ["entry_point", "isolate_inputs", "lengths", "limits", "mode", "stop_at"]
    assert task.endswith(b'def f(x): return x * 2{"tuple":[3]}{"tuple":[4]}')
    assert request["run_timeout"] >= 2 * Limits().wall_seconds


# --- failures of the farm


def error(status, text=b"busy"):
    return status, text


def changed(**fields):
    """The right answer with other fields; those that are None are left out."""

    def change(answer):
        answer |= fields
        return 200, json.dumps({name: value for name, value in answer.items() if value is not None}).encode()

    return change


def with_reports(change):
    def answer(right):
        reports = change(base64.b64decode(right["files"]["reports"]))
        return 200, json.dumps(right | {"files": {"reports": base64.b64encode(reports).decode()}}).encode()

    return answer


@pytest.mark.parametrize("fault", [error(500), error(503), error(429), None], ids=["500", "503", "429", "dropped"])
def test_a_flaky_server_is_asked_again(small, server, fault):
    server.answers[:] = [fault] * 3
    assert small.run(DOUBLE, [[4]])[0].value == 8
    assert len(server.requests) == 4


GARBAGE = {
    "not JSON": (200, b"<html>It works!</html>"),
    "nothing": (200, b""),
    "a list": (200, b"[1, 2]"),
    "null": (200, b"null"),
    "no UTF-8": (200, b'{"status": "\xff"}'),
    "nested": (200, b"[" * 100_000),
    "long number": (200, b"9" * 100_000),
    "no status": changed(status=None),
    "no files": changed(files=None),
    "other files": changed(files={"x": ""}),
    "files are a list": changed(files=["reports"]),
    "file is a number": changed(files={"reports": 3}),
    "file is no base64": changed(files={"reports": "%"}),
    "empty file": changed(files={"reports": ""}),
    "no run": changed(files={}, run_result=None),
    "too slow": changed(
        files={}, run_result={"status": "TimeLimitExceeded", "return_code": None, "stderr": "", "stdout": ""}
    ),
    "failure inside": changed(status="SandboxError", message="no space left"),
    "half the reports": with_reports(lambda reports: reports[: len(reports) // 2]),
    "no reports": with_reports(lambda reports: reports[: 4 + int.from_bytes(reports[:4], "big")]),
    "an early end": with_reports(lambda reports: reports[: 4 + int.from_bytes(reports[:4], "big")] + bytes(4)),
    "other bytes": with_reports(lambda reports: bytes(len(reports))),
    "wrong nonce": with_reports(lambda reports: reports.replace(b'"nonce": "', b'"nonce": "x', 1)),
    "an error": with_reports(lambda reports: frames.pack(json.dumps({"nonce": "", "error": "it failed"}).encode())),
    "a success of no status": with_reports(lambda reports: reports.replace(b"ok 0.", b"no 0.")),
    "a result not run": with_reports(lambda reports: re.sub(rb"ok \d\.\d{6}", b"not_run 0.1", reports)),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_a_failure_of_the_farm(small, server, garbage):
    server.always = garbage
    results = small.run(DOUBLE, [[1], [2]])
    assert [(result.status, result.value) for result in results] == [(Status.INFRA_FAILURE, None)] * 2
    assert all(result.cause.startswith("the farm failed: ") and len(result.cause) < 1000 for result in results)
    assert len(server.requests) == 2
    server.requests.clear()
    server.always, server.answers[:] = "run", [garbage]
    assert small.run(DOUBLE, [[1]])[0].value == 2
    assert len(server.requests) == 2


def test_an_old_answer_is_none(small, server):
    server.answers[:] = [lambda right: kept.append(right) or (200, json.dumps(right).encode())]
    kept = []
    assert small.run(DOUBLE, [[1]])[0].value == 2
    server.always = (200, json.dumps(kept[0]).encode())
    (result,) = small.run(DOUBLE, [[1]])
    assert result.status is Status.INFRA_FAILURE and "belongs to another request" in result.cause


def test_more_reports_than_inputs_change_nothing(small, server):
    server.answers[:] = [with_reports(lambda reports: reports * 3)]
    assert [result.value for result in small.run(DOUBLE, [[1], [2]])] == [2, 4]


def test_a_request_that_is_refused_is_not_repeated(small, server):
    server.answers[:] = [error(422, b'{"detail": "no such language"}')]
    (result,) = small.run(DOUBLE, [[1]])
    assert result.status is Status.INFRA_FAILURE and "no such language" in result.cause
    assert len(server.requests) == 1


def test_a_huge_answer_is_not_read_to_its_end(small, server, monkeypatch):
    monkeypatch.setattr(fusion, "MAX_REPORTS", 1000)
    monkeypatch.setattr(fusion, "_SPARE_BYTES", 1000)
    server.always = (200, b"x" * (1 << 24))
    (result,) = small.run(DOUBLE, [[1]])
    assert result.status is Status.INFRA_FAILURE and "an answer of more than" in result.cause
    assert len(server.requests) == 1


def test_values_that_are_too_much_together(server, monkeypatch):
    """The far end bounds what it sends; each value alone is within its limit."""
    far_end = {name: base64.b64decode(text) for name, text in fusion._far_end().items()}
    name = "far_end/fusion/far_end.py"
    assert far_end[name].count(b"MAX_REPORTS = 1 << 26") == 1
    far_end[name] = far_end[name].replace(b"MAX_REPORTS = 1 << 26", b"MAX_REPORTS = 5000")
    small_end = {name: base64.b64encode(text).decode() for name, text in far_end.items()}
    monkeypatch.setattr(fusion, "_far_end", lambda: small_end)
    with opened(server.address) as farm:
        results = farm.run(Program("def f(n): return 'x' * n", "call", "f"), [[3000], [3000], [30]])
    assert [result.status for result in results] == ["ok", "output_limit", "ok"]


def test_a_server_that_does_not_answer_in_time(small, server, monkeypatch):
    monkeypatch.setattr(fusion, "_START_SECONDS", 0.1)
    monkeypatch.setattr(fusion, "_WAIT_SECONDS", 0.1)
    over = threading.Event()
    server.always = lambda right: over.wait() and None
    try:
        (result,) = small.run(DOUBLE, [[1]], Limits(cpu_seconds=0.1, wall_seconds=0.1))
    finally:
        over.set()
    assert result.status is Status.INFRA_FAILURE and "Timeout" in result.cause


def test_an_outage(monkeypatch, caplog):
    """A server that goes away is asked again, then left alone, and used again once it is back."""
    monkeypatch.setattr(servers, "_FIRST_PAUSE", 0.001)
    with serving() as server, opened(server.address) as farm:
        port = server.server_port
        assert farm.run(DOUBLE, [[1]])[0].value == 2
        farm.close()
    (result,) = farm.run(DOUBLE, [[1]])  # not yet down: all tries fail
    assert result.status is Status.INFRA_FAILURE and "failed 8 times: ConnectError" in result.cause
    monkeypatch.setattr(servers, "_PATIENCE_SECONDS", 0.0)
    assert farm.run(DOUBLE, [[1]])[0].status is Status.INFRA_FAILURE
    with ThreadPoolExecutor(8) as pool:
        results = [results[0] for results in pool.map(lambda n: farm.run(DOUBLE, [[n]]), range(50))]
    assert {result.status for result in results} == {Status.INFRA_FAILURE}
    assert all("no server answers, for now none is asked" in result.cause for result in results)
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1 and f"http://127.0.0.1:{port} is down (ConnectError" in warnings[0]
    outcome = run_tests(
        farm, DOUBLE, [[1]], lambda number, value: False, QUICK, describe=lambda number: ("", ""), stop=True
    )
    assert outcome.status is Status.INFRA_FAILURE
    with serving(port):
        assert farm.run(DOUBLE, [[1]])[0].status is Status.INFRA_FAILURE  # it rests
        monkeypatch.setattr(servers.time, "monotonic", lambda: 1e12)
        assert farm.run(DOUBLE, [[1]])[0].value == 2
        monkeypatch.undo()
        assert farm.run(DOUBLE, [[1]])[0].value == 2
        farm.close()
    assert "answers again" in caplog.records[-1].getMessage()


def test_servers_take_turns_and_one_is_enough(server, monkeypatch):
    monkeypatch.setattr(servers, "_FIRST_PAUSE", 0.001)
    with serving() as other:
        hosts = f"127.0.0.1:{server.server_port},127.0.0.1:{other.server_port}"
        with opened(f"fusion+http://{hosts}") as farm:
            server.requests.clear(), other.requests.clear()
            assert all(farm.run(DOUBLE, [[1]])[0].value == 2 for _ in range(4))
            assert len(server.requests) == len(other.requests) == 2
            other.always = error(500)
            assert all(farm.run(DOUBLE, [[1]])[0].value == 2 for _ in range(4))
            assert len(server.requests) == 6


def test_a_farm_that_cannot_be_used(server, monkeypatch):
    monkeypatch.setattr(servers, "_FIRST_PAUSE", 0.001)
    with serving() as gone:
        address = gone.address
    with FusionSandbox(address) as farm:
        with pytest.raises(SandboxUnavailable, match=r"the farm cannot be used: .*ConnectError"):
            assert farm.isolation
        assert farm.run(DOUBLE, [[1]])[0].status is Status.INFRA_FAILURE
    with (
        FusionSandbox(server.address + "/other") as farm,
        pytest.raises(SandboxUnavailable, match="answered status 404"),
    ):
        assert farm.isolation
    monkeypatch.setattr(fusion, "_ATTEMPTS", {"counting": "True", "opening a file": "denied(open, '/dev/null')"})
    with (
        FusionSandbox(server.address) as farm,
        pytest.raises(SandboxUnavailable, match="it does not prevent opening a file"),
    ):
        assert farm.isolation


def test_the_filter_of_another_machine_is_not_used(server, monkeypatch):
    uname = os.uname()
    monkeypatch.setattr(fusion.os, "uname", lambda: os.uname_result((*uname[:4], "vax")))
    with FusionSandbox(server.address) as farm, pytest.raises(SandboxUnavailable, match="is for vax"):
        assert farm.isolation


# --- settings


@pytest.mark.parametrize(
    "address",
    [
        "fusion+http://",
        "fusion+ftp://host",
        "fusion+host:8080",
        "http://host:8080",
        "fusion+http://a:1,,b:2",
        "fusion+http://a?workers=0",
        "fusion+http://a?workers=many",
        "fusion+http://a?retries=3",
        "fusion+http://a#b",
        "fusion+http://a@b@c",
        "fusion+http://a b:8080",
        "fusion+http://a:8080/x http://b",
        "fusion+http://a:8080\r\nHost: b",
        "fusion+http://a:8080:9090",
    ],
)
def test_addresses_are_checked(address):
    with pytest.raises(ValueError, match="must be 'fusion"):
        FusionSandbox(address)


def test_inputs_are_checked(small):
    for program, inputs in (
        (DOUBLE, []),
        (DOUBLE, "text"),
        (DOUBLE, [3]),
        (DOUBLE, [[object()]]),
        (Program(""), [b""]),
    ):
        with pytest.raises(ValueError, match=r"Sandbox\.run: inputs"):
            small.run(program, inputs)


def test_sandboxes_are_opened_by_name():
    farm = open_sandbox("fusion+http://user:secret@127.0.0.1:1/path/?workers=3")
    assert isinstance(farm, FusionSandbox)
    assert farm is open_sandbox("fusion+http://user:secret@127.0.0.1:1/path/?workers=3")
    assert farm._urls == ["http://user:secret@127.0.0.1:1/path"]
    assert isinstance(open_sandbox("landlock"), Sandbox)
    with pytest.raises(ValueError, match="isolation='docker' must be one of"):
        open_sandbox("docker")


def test_passwords_stay_out_of_causes(monkeypatch):
    monkeypatch.setattr(servers, "_FIRST_PAUSE", 0.001)
    with serving() as gone:
        address = gone.address.replace("://", "://user:secret@")
    (result,) = FusionSandbox(address).run(DOUBLE, [[1]])
    assert result.status is Status.INFRA_FAILURE and "secret" not in result.cause


def test_the_small_server_runs_what_it_is_sent():
    answer = run_code({"code": "print(input())\nopen('a', 'w').write('b')", "stdin": "x", "fetch_files": ["a", "c"]})
    assert answer["status"] == "Success" and answer["run_result"]["stdout"] == "x\n"
    assert answer["files"] == {"a": base64.b64encode(b"b").decode()}
    assert run_code({"code": "1/0"})["status"] == "Failed"
    slow = run_code({"code": "import time; time.sleep(60)", "run_timeout": 0.1})
    assert slow["run_result"]["status"] == "TimeLimitExceeded"
