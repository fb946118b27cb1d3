"""Runs one program after the other: each in processes of its own, held to its limits.

No hostile code runs here, and nothing that belongs to a program is kept: its text and inputs stay in the file that
they came in, and what it prints or returns passes through a buffer that is wiped. A worker is a copy of this process,
and could search it for what others left.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from typing import Any, NamedTuple, NoReturn

from . import frames, kernel, worker
from .confined_process import FIRST_FILE, NotWanted, Wall, Worker

_CAUSE_BYTES = 4000  # of what a program says about its end
_KINDS = {b"c": "crash", b"i": "invalid_value", b"o": "output_limit", b"m": "memory", b"v": "ok", b"l": "loaded"}
_KINDS[b"q"] = "asks"  # in a dialog, which goes on
_NO_MESSAGE, _NO_ANSWER = memoryview(b""), memoryview(b"null")  # the latter of a program that has ended
_TICKET_BYTES = 8
_TICKETS_AHEAD = 256  # so that a worker need not wait for each one; a pipe holds many more
_HEAD = struct.Struct(f"!I{_TICKET_BYTES}sB")  # of a reply: length of what follows, ticket, kind
_END = frames.pack(b"")
_NULL = (0, 1, 2)  # the zygote's standard input, output and error lead nowhere


class Job(NamedTuple):
    """A program and its inputs: where they are, and how to go about it."""

    file: int
    source: tuple[int, int]
    """Position and length in the file, in bytes."""
    inputs: list[tuple[int, int]]
    mode: str
    entry_point: str | None
    isolate_inputs: bool
    stop_at: list[str]
    limits: dict[str, Any]
    end: float
    """When the time for all inputs together is over, on the monotonic clock."""


class Report(NamedTuple):
    """How one input ended. The payload is a value or what the program said about its end, in a buffer to be wiped."""

    status: str
    seconds: float
    cause: str = ""
    payload: memoryview = memoryview(b"")


Reports = Generator[Report, None, None]


def supervise(channel: socket.socket, parent: int, wall: Wall) -> NoReturn:
    """Serve the tasks that arrive on `channel` until it, or the process behind the pidfd `parent`, ends.

    A task is the descriptor of a file: a message (the fields of `Job` as JSON), then the texts. The answer is two
    messages per input, a header ("status seconds cause") and the payload, then an empty message. Anything else that
    arrives during a task ends it, and is of no effect at other times. Two files are the sides of a dialog; they are
    answered as one task with two inputs.
    """
    while os.dup(0) < FIRST_FILE:
        pass
    watched = [channel.fileno(), parent]
    while True:
        ready = select.select(watched, [], [])[0]
        message, files, _, _ = socket.recv_fds(channel, 16, 2) if parent not in ready else (b"", [], 0, None)
        if not message:
            os._exit(0)
        if files:
            jobs = [*map(_read_job, files)]
            runs: dict[str, Callable[..., Reports]] = {"dialog": _run_dialog, "stdin": _run_scripts}
            run = runs.get(jobs[0].mode, _run_calls)
            with closing(run(*jobs, wall, watched)) as reports:
                _answer(channel, sum(len(job.inputs) for job in jobs), jobs[0].stop_at, reports)
            for file in files:
                os.close(file)


def _answer(channel: socket.socket, count: int, stop_at: list[str], reports: Reports) -> None:
    with suppress(NotWanted):
        for number, report in enumerate(reports, 1):
            is_last = number == count or report.status in stop_at
            header = f"{report.status} {report.seconds:.6f} {report.cause}".encode()
            announced = frames.pack(header) + frames.header(len(report.payload))
            _send(channel, announced, report.payload, _END if is_last else b"")
            if is_last:
                return
    _send(channel, _END)


def _read_job(file: int) -> Job:
    fields = json.loads(frames.read(lambda size: os.read(file, size), 1 << 30))
    start = os.lseek(file, 0, os.SEEK_CUR)
    places = []
    for length in fields.pop("lengths"):
        places.append((start, length))
        start += length
    return Job(file, places[0], places[1:], **fields, end=time.monotonic() + fields["limits"]["total_seconds"])


def _send(channel: socket.socket, *parts: bytes | memoryview) -> None:
    """Send without putting together, which would leave a copy behind."""
    left = [memoryview(part) for part in parts if part]
    while left:
        sent = channel.sendmsg(left)
        while left and sent >= len(left[0]):
            sent -= len(left.pop(0))
        if sent:
            left[0] = left[0][sent:]


# --- mode "stdin": a process for every input, with files in memory as its standard input, output and error


def _run_scripts(job: Job, wall: Wall, watched: list[int]) -> Reports:
    def work() -> int:
        return worker.run_script(job.source)

    cpu_seconds = job.limits["cpu_seconds"]
    for position, length in job.inputs:
        if time.monotonic() > job.end:
            yield _out_of_time(job)
            continue
        files = tuple(kernel.memory_file(name) for name in ("stdin", "stdout", "stderr"))
        while length:
            copied = os.sendfile(files[0], job.file, position, length)
            position, length = position + copied, length - copied
        os.lseek(files[0], 0, os.SEEK_SET)
        printed = memoryview(bytearray())
        try:
            with closing(Worker(work, (*files, job.file), job.limits, cpu_seconds, job.end, wall, watched)) as process:
                report, printed = _judge_script(process, process.wait(), job.limits, files[1], files[2])
            yield report._replace(payload=printed)
        finally:
            printed[:] = bytes(len(printed))
            for file in files:
                os.close(file)


def _judge_script(
    process: Worker, in_time: bool, limits: dict[str, Any], stdout: int, stderr: int
) -> tuple[Report, memoryview]:
    """End a script, and return a report with what belongs to it: what it printed or, if it failed, complained."""
    status, _ = process.close()
    seconds, max_bytes = process.seconds(), limits["output_bytes"]
    if max(os.fstat(stdout).st_size, os.fstat(stderr).st_size) > max_bytes:
        return Report("output_limit", seconds, f"it printed more than {max_bytes} bytes"), _end_of(stdout, 0)
    if not in_time:
        return _timeout(seconds, limits), _end_of(stdout, 0)
    if status == 0:
        return Report("ok", seconds), _end_of(stdout, max_bytes)
    return _judge_death(process, seconds, limits), _end_of(stderr, _CAUSE_BYTES)


def _end_of(file: int, max_bytes: int) -> memoryview:
    """Return the last bytes of a file that nobody writes to any more."""
    size = os.fstat(file).st_size
    text, done = memoryview(bytearray(min(size, max_bytes))), 0
    while done < len(text):
        done += os.preadv(file, [text[done:]], size - len(text) + done)
    return text


def _judge_death(process: Worker, seconds: float, limits: dict[str, Any]) -> Report:
    status, usage = process.close()
    if not os.WIFSIGNALED(status):
        return Report("crash", seconds, f"it ended with status {os.WEXITSTATUS(status)}")
    number = os.WTERMSIG(status)
    if number == signal.SIGXCPU or process.was_stopped_by_kernel():
        return _timeout(seconds, limits)
    if number == signal.SIGXFSZ:
        return Report("output_limit", seconds, f"it wrote more than {limits['output_bytes']} bytes")
    if number == signal.SIGKILL:  # a program cannot send signals, and it was in time
        if usage.ru_maxrss * 1024 > limits["memory_bytes"] // 2:
            return Report("memory", seconds, "the system ran out of memory and ended it")
        return Report("infra_failure", seconds, "something outside the sandbox killed it")
    return Report("crash", seconds, f"it was ended by {signal.Signals(number).name}")


def _timeout(seconds: float, limits: dict[str, Any]) -> Report:
    cause = f"it took more than {limits['cpu_seconds']:g} s of CPU or {limits['wall_seconds']:g} s in all"
    return Report("timeout", seconds, cause)


def _out_of_time(job: Job) -> Report:
    """Report on an input that there is no time left for."""
    return Report("timeout", 0.0, f"its inputs together took more than {job.limits['total_seconds']:g} s")


# --- modes "call" and "eval": a process that loads the program and serves inputs until one brings it down


def _run_calls(job: Job, wall: Wall, watched: list[int]) -> Reports:
    done, count = 0, len(job.inputs)
    while done < count:
        if time.monotonic() > job.end:
            yield _out_of_time(job)
            done += 1
            continue
        batch = 1 if job.isolate_inputs else count - done
        with closing(_Session(job, done, batch, wall, watched)) as server:
            report = server.loaded()
            if report is not None:  # the program itself is at fault: every other input would end the same way
                for _ in range(count - done):
                    yield report
                return
            for _ in range(batch):
                yield server.ask()
                done += 1
                if server.is_down:
                    break


def _run_dialog(asker: Job, answerer: Job, wall: Wall, watched: list[int]) -> Reports:
    """Pass messages between two programs of our own until the asker ends; after the answerer's end they are null.

    The answerer's first message answers nothing; the asker's first one only means that it is ready for that.
    """
    one_wall = wall._replace(tasks=wall.tasks + 1 + answerer.limits["threads"])  # the other's count against each
    other_wall = wall._replace(tasks=wall.tasks + 1)
    with (
        closing(_Session(asker, 0, 1, one_wall, watched)) as one,
        closing(_Session(answerer, 0, 1, other_wall, watched)) as other,
    ):
        answer = other.loaded() or other.ask()
        question = one.loaded() or one.ask()
        while question.status == "asks":
            if answer.status != "asks":
                other.stop()
            question = one.ask(answer.payload if answer.status == "asks" else _NO_ANSWER)
            if question.status == answer.status == "asks":
                answer = other.ask(question.payload)
        yield question
        yield answer


class _Session:
    """A worker that serves `count` inputs of a task from number `first` on.

    It may write to its channel whatever and whenever it wants. What does not show the ticket of the input whose turn it
    is, or is too long, or is no reply, brings it down.
    """

    def __init__(self, job: Job, first: int, count: int, wall: Wall, watched: list[int]) -> None:
        self._limits = job.limits
        self.is_down = False
        self._buffer = memoryview(bytearray(1 << 16))
        self._used = self._filled = 0
        self._replies, reply = os.pipe()
        go, self._go = os.pipe()
        self._is_first, self._tickets, self._to_issue = True, deque[bytes](), count

        def work() -> int:
            worker.serve(job, first, count)
            return 0

        is_dialog = job.mode == "dialog"
        self._inbox = kernel.memory_file("inbox") if is_dialog else None
        files = (*_NULL, job.file, reply, go, *([self._inbox] if self._inbox is not None else []))
        cpu_seconds = job.limits["total_seconds"] if is_dialog else job.limits["cpu_seconds"] * count
        self._worker = Worker(work, files, job.limits, cpu_seconds, job.end, wall, watched, self._replies)
        os.close(reply)
        os.close(go)
        self._issue_tickets(min(count, _TICKETS_AHEAD))  # the first input follows right after loading

    def close(self) -> None:
        self._worker.close()
        self._buffer[: self._filled] = bytes(self._filled)
        for file in (self._replies, self._go, *([] if self._inbox is None else [self._inbox])):
            os.close(file)

    def stop(self) -> None:
        """End the worker; its last reply stays."""
        self._worker.close()

    def loaded(self) -> Report | None:
        """Return None when the program has been loaded, else how that ended."""
        self._worker.start_input()
        report = self._reply(bytes(_TICKET_BYTES))
        return None if report.status == "loaded" else report

    def ask(self, message: memoryview = _NO_MESSAGE) -> Report:
        """Let the worker go on with its next input, in a dialog that message, and return how that ended."""
        if not self._is_first:
            self._worker.start_input()
            if message or self._to_issue:
                self._issue_tickets(1, message)
        self._is_first = False
        report = self._reply(self._tickets.popleft())
        is_none = report.status == "loaded" or (report.status == "asks" and self._inbox is None)
        return self._broken("it sent a reply that is none") if is_none else report

    def _issue_tickets(self, count: int, message: memoryview = _NO_MESSAGE) -> None:
        """Show the worker the tickets of further inputs, and how long the message is that it finds in its inbox."""
        done = 0
        while done < len(message):
            assert self._inbox is not None
            done += os.pwrite(self._inbox, message[done:], done)
        tickets, length = [os.urandom(_TICKET_BYTES) for _ in range(count)], len(message).to_bytes(8, "big")
        self._tickets += tickets
        self._to_issue -= count
        with suppress(BrokenPipeError):  # it has ended, which is found out when its reply is read
            os.write(self._go, b"".join(ticket + length for ticket in tickets))

    def _reply(self, ticket: bytes) -> Report:
        """Read the reply to the input that `ticket` was given for."""
        self._drop()
        max_bytes = self._limits["output_bytes"]
        try:
            self._fill(_HEAD.size)
            size, shown, kind = _HEAD.unpack(self._buffer[: _HEAD.size])
            size -= _HEAD.size - 4
            if size < 0 or shown != ticket:
                return self._broken("it sent a reply that is none")
            if size > max(max_bytes, _CAUSE_BYTES):
                self.is_down = True
                return Report("output_limit", self._worker.seconds(), f"it returned more than {max_bytes} bytes")
            self._used = _HEAD.size + size
            self._fill(self._used)
        except EOFError:
            return self._death()
        except TimeoutError:
            self.is_down = True
            return _timeout(self._worker.seconds(), self._limits)
        status = _KINDS.get(bytes([kind]))
        if status is None:
            return self._broken("it sent a reply that is none")
        self.is_down = status == "memory"
        return Report(status, self._worker.seconds(), payload=self._buffer[_HEAD.size : self._used])

    def _fill(self, size: int) -> None:
        """Wait until that many bytes of the reply, or more, are there."""
        if size > len(self._buffer):
            larger = memoryview(bytearray(size))
            larger[: self._filled] = self._buffer[: self._filled]
            self._buffer[: self._filled] = bytes(self._filled)
            self._buffer = larger
        while self._filled < size:
            if not self._worker.wait():
                raise TimeoutError
            count = os.readv(self._replies, [self._buffer[self._filled :]])
            if not count:
                raise EOFError
            self._filled += count

    def _drop(self) -> None:
        """Wipe the last reply, and move to the front what arrived behind it."""
        rest = self._filled - self._used
        self._buffer[:rest] = self._buffer[self._used : self._filled]
        self._buffer[rest : self._filled] = bytes(self._used)
        self._used, self._filled = 0, rest

    def _death(self) -> Report:
        """Report on a worker that closed its channel, by ending or otherwise."""
        ended = self._worker.wait_for_end()
        self._worker.close()
        self.is_down = True
        seconds = self._worker.seconds()
        if not ended:
            return _timeout(seconds, self._limits)
        return self._too_early(_judge_death(self._worker, seconds, self._limits))

    @staticmethod
    def _too_early(report: Report) -> Report:
        return report._replace(cause=f"{report.cause} before it returned") if report.status == "crash" else report

    def _broken(self, cause: str) -> Report:
        self.is_down = True
        return Report("crash", self._worker.seconds(), cause)
