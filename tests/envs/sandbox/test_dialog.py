"""Two programs that talk, each behind a wall of its own."""

from dataclasses import replace

import pytest

from envs.sandbox import Limits, Program, Sandbox, Status

ASK = Program(
    "def main(exchange, n):\n    exchange(None)\n    return [exchange([i]) for i in range(n)]", "dialog", "main"
)
ECHO = Program(
    "def main(exchange, k):\n    said = exchange('ready')\n    while True: said = exchange(said * k)", "dialog", "main"
)
LIMITS = Limits(cpu_seconds=1, wall_seconds=20)


def talk(sandbox, answerer=ECHO, count=3, asker=ASK, limits=LIMITS):
    return sandbox.converse(asker, answerer, ([count], [2]), (LIMITS, limits))


def test_they_talk_in_turn(sandbox):
    asker, answerer = talk(sandbox)
    assert asker.value == [[0, 0], [1, 1], [2, 2]] and answerer.status is Status.NOT_RUN
    assert talk(sandbox, count=0)[0].value == []
    long = Program(
        "def main(exchange, n):\n    exchange(None)\n    return len(exchange('x' * 10 ** 6))", "dialog", "main"
    )
    assert talk(sandbox, asker=long)[0].value == 2 * 10**6


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("__import__('os')._exit(0)", Status.CRASH),
        ("raise ValueError", Status.CRASH),
        ("while True: pass", Status.TIMEOUT),
        ("bytearray(1 << 40)", Status.MEMORY),
        ("exchange('x' * 10 ** 8)", Status.OUTPUT_LIMIT),
        ("exchange(object())", Status.CRASH),
        ("__import__('os').write(4, b'\\0' * 99)\n    while True: pass", Status.CRASH),
        ("return 1", Status.OK),
        ("exchange(1)\n    __import__('os').ftruncate(6, 0); exchange(1)", Status.OK),
    ],
)
def test_an_answerer_that_ends_is_answered_for(any_sandbox, body, status):
    asker, answerer = talk(
        any_sandbox, Program(f"def main(exchange, k):\n    exchange(1)\n    {body}", "dialog", "main")
    )
    assert answerer.status is status
    assert asker.status is Status.OK and len(asker.value) == 3
    assert any_sandbox.run(Program("print(1)"), [""])[0].value == "1\n"


def test_the_time_for_all_answers_is_bounded(any_sandbox):
    slow = Program(
        "def main(exchange, k):\n    import time\n    while True: exchange(time.sleep(0.2))", "dialog", "main"
    )
    asker, answerer = talk(any_sandbox, slow, 100, limits=Limits(total_seconds=1))
    assert answerer.status is Status.TIMEOUT and asker.value[-1] is None


def test_an_answerer_may_end_while_nothing_is_asked(any_sandbox):
    asker = Program(
        "import time\ndef main(exchange, n):\n    exchange(None); time.sleep(0.5); return exchange(1)", "dialog", "main"
    )
    leaving = "import os, threading\ndef main(exchange, k):\n    threading.Timer(0.1, os._exit, (0,)).start()\n"
    leaving += "    exchange(1)"
    one, other = talk(any_sandbox, Program(leaving, "dialog", "main"), asker=asker)
    assert (one.status, one.value, other.status) == (Status.OK, None, Status.CRASH)


def test_each_side_has_its_threads(sandbox):
    """They share a user, whose threads the kernel counts together."""
    start = "import threading, time\ndef start():\n    n = threading.stack_size(1 << 16) * 0\n    while n < 32:\n"
    start += "        threading.Thread(target=time.sleep, args=(9,), daemon=True).start(); n += 1\n    return n\n"
    answerer = Program(f"{start}def main(exchange, k):\n    exchange(start())", "dialog", "main")
    asker = Program(f"{start}def main(exchange, n):\n    m = exchange(None)\n    return m, start()", "dialog", "main")
    assert talk(sandbox, answerer, asker=asker)[0].value == (32, 32)


def test_modules_of_our_own(any_sandbox):
    asker = Program("from ours.part import ask", "dialog", "ask")
    modules = {"ours": "", "ours.base": "ONE = 1", "ours.part": "from .base import ONE\ndef ask(_, n): return n + ONE"}
    with Sandbox(any_sandbox.isolation, modules=modules) as sandbox:
        assert talk(sandbox, asker=asker)[0].value == 4
    assert talk(any_sandbox, asker=asker)[0].status is Status.CRASH


def test_a_dialog_is_no_call(any_sandbox):
    """A program that says that it goes on, where nobody talks to it, has said nothing."""
    source = "import os\ndef f():\n    m = os.read(5, 8) + b'q1'\n    os.write(4, len(m).to_bytes(4, 'big') + m)\n"
    (result,) = any_sandbox.run(Program(source, "call", "f"), [[]], replace(LIMITS, wall_seconds=2.0))
    assert result.status in (Status.CRASH, Status.TIMEOUT)
