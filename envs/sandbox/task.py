"""What every sandbox does: `AnySandbox`, and the `Task` that goes in, with reports that come out, taken as hostile."""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from typing import Any, Self

from .inside import codec, frames
from .types import Limits, Program, Result, Status, Stop
from .zygote_client import Channel, ZygoteFailure, sealed_file

_GRACE_SECONDS = 10.0  # for a process to be forked and to report, beyond what the program may take
_REPORTED = frozenset(Status) - {Status.NOT_RUN}
_MAX_HEADER, _MAX_CAUSE = 1 << 12, 1 << 13  # bytes
_CAUSE_LENGTH = 500  # characters


class AnySandbox(ABC):
    """Runs programs that nobody has read, here (`Sandbox`) or on a farm (`FusionSandbox`).

    It returns values, never verdicts, and is never told what is expected. It may be used from any thread.
    """

    @property
    @abstractmethod
    def isolation(self) -> str:
        """The level in use; starts the sandbox if need be.

        Raises:
            SandboxUnavailable: It does not work here.
        """

    def run(
        self,
        program: Program,
        inputs: Sequence[Any],
        limits: Limits | None = None,
        *,
        stop_at: Collection[Status] = (),
        stop: Stop | None = None,
    ) -> tuple[Result, ...]:
        """Run a program on each input, in order.

        Args:
            program: The program, and how to use it.
            inputs: Texts for standard input, argument sequences of plain values, or expressions; see `Program.mode`.
            limits: What it may take; `Limits()` by default.
            stop_at: Leave out the inputs that follow one with such a status.
            stop: Leave them out after a result for which this returns true. It is called in this thread as results
                come in, while the program may go ahead with the next inputs; from the first on again if the sandbox
                failed in between. A farm has run all inputs by then.

        Returns:
            One result per input, in their order, "not_run" for those left out. If the sandbox itself fails, twice in
            a row, their status is "infra_failure".

        Raises:
            SandboxUnavailable: No level that is allowed works here.
            ValueError: There is no input, or an input does not fit the mode.
        """
        return self._run(Task(program, inputs, limits or Limits(), stop_at=stop_at, stop=stop))

    def _run(self, task: Task) -> tuple[Result, ...]:
        return self._attempt(task.limits, len(task), task.exchange)

    def converse(
        self,
        asker: Program,
        answerer: Program,
        first: tuple[Sequence[Any], Sequence[Any]],
        limits: tuple[Limits, Limits],
    ) -> tuple[Result, Result]:
        """Have two programs of mode "dialog" exchange values, each behind a wall of its own, until the asker ends.

        Their entry points are called with a function `exchange`, which sends a plain value to the other side and
        returns its answer, and with the first arguments. What the asker sends first is answered by what the answerer
        sends first. After the answerer's end the asker is answered with None.

        Args:
            asker: One program.
            answerer: The other.
            first: The first arguments of each.
            limits: What each may take for every answer, and in all.

        Returns:
            How each of them ended: with what it returned (`ok`), or otherwise; `not_run` for one that had not ended.

        Raises:
            SandboxUnavailable: No level that is allowed works here.
        """
        sides = zip((asker, answerer), first, limits, strict=True)
        tasks = tuple(Task(program, [arguments], limit) for program, arguments, limit in sides)
        longest = max(limits, key=lambda limit: limit.total_seconds)
        one, other = self._attempt(longest, 2, lambda channel: _converse(tasks, channel))
        return one, other

    @abstractmethod
    def _attempt(
        self, limits: Limits, count: int, exchange: Callable[[Channel], tuple[Result, ...]]
    ) -> tuple[Result, ...]:
        """Return the `count` results of `exchange` on a channel, at the second try if the machinery fails at first."""

    @abstractmethod
    def close(self) -> None:
        """End everything that runs ("infra_failure"). The next `run` starts it again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Task:
    """A program with its inputs, checked and written down, to be sent as often as need be; see `Sandbox.run`.

    Raises:
        ValueError: There is no input, or an input does not fit the mode.
    """

    def __init__(
        self,
        program: Program,
        inputs: Sequence[Any],
        limits: Limits,
        *,
        stop_at: Collection[Status] = (),
        stop: Stop | None = None,
    ) -> None:
        if isinstance(inputs, str) or len(inputs) == 0:
            raise ValueError(f"Sandbox.run: inputs={inputs!r} must be a list of at least one input")
        self._program, self.limits = program, limits
        self._stop_at, self._stop = stop_at, stop
        write = _arguments if program.mode in ("call", "dialog") else _text
        self._texts = [program.source.encode("utf-8", "surrogatepass")]
        self._texts += [write(number, value) for number, value in enumerate(inputs)]

    def __len__(self) -> int:
        """Return the number of inputs."""
        return len(self._texts) - 1

    def exchange(self, channel: Channel) -> tuple[Result, ...]:
        """Have the program run, and return one result per input, whatever arrives.

        The supervisor goes ahead with the next input while this side looks at a result, so that neither waits for
        the other. Every task is answered up to its end, which keeps the answers of two tasks apart.

        Raises:
            ZygoteFailure: The machinery failed, and the channel is of no more use.
        """
        results: list[Result] = []
        count, is_enough = len(self), False
        with sealed_file(self.text()) as file:
            channel.send(file)
            while report := self.receive(channel, self.limits.wall_seconds):
                if is_enough:  # it had been under way already
                    continue
                if len(results) == count:
                    raise ZygoteFailure("the supervisor sent more reports than there are inputs")
                results.append(self.result(*report))
                is_enough = self._is_enough(len(results) - 1, results[-1])
                if is_enough and len(results) < count:
                    channel.stop()
        if len(results) < count and not is_enough:
            raise ZygoteFailure(f"the supervisor sent {len(results)} reports on {count} inputs")
        skipped = Result(Status.NOT_RUN, cause="left out after an earlier input")
        return (*results, *[skipped] * (count - len(results)))

    def receive(self, channel: Channel, seconds: float) -> tuple[bytes, bytes] | None:
        """Return header and payload of the next report, or None at the end of the answer."""
        header = channel.receive(_MAX_HEADER, seconds + _GRACE_SECONDS)
        max_bytes = max(self.limits.output_bytes, _MAX_CAUSE)
        return (header, channel.receive(max_bytes, seconds + _GRACE_SECONDS)) if header else None

    def _is_enough(self, number: int, result: Result) -> bool:
        is_asked_to = self._stop is not None and self._stop(number, result)
        return is_asked_to or result.status in self._stop_at

    def text(self) -> bytes:
        """Return the task as a supervisor reads it."""
        fields = {
            "lengths": list(map(len, self._texts)),
            "mode": self._program.mode,
            "entry_point": self._program.entry_point,
            "isolate_inputs": self._program.isolate_inputs,
            "stop_at": list(self._stop_at),
            "limits": vars(self.limits),
        }
        return b"".join([frames.pack(json.dumps(fields).encode()), *self._texts])

    def result(self, header: bytes, payload: bytes) -> Result:
        """Read a report.

        Raises:
            ZygoteFailure: It is none.
        """
        try:
            name, taken, cause = header.decode().split(" ", 2)
            if name == "asks":  # in a dialog that the other side ended
                return Result(Status.NOT_RUN, cause="the other side ended", seconds=float(taken))
            status, seconds = Status(name), float(taken)
            if status not in _REPORTED:
                raise ValueError(f"status {status}")
        except ValueError as error:
            raise ZygoteFailure(f"the supervisor sent a malformed report: {error}") from error
        if status is Status.OK:
            return self._success(payload, seconds)
        last_line = payload.decode("utf-8", "replace").strip().rpartition("\n")[2]
        if self._program.mode == "stdin" and status is Status.CRASH and last_line.startswith("MemoryError"):
            status = Status.MEMORY
        return Result(status, cause=": ".join(filter(None, (cause, last_line)))[:_CAUSE_LENGTH], seconds=seconds)

    def _success(self, payload: bytes, seconds: float) -> Result:
        if self._program.mode == "stdin":
            return Result(Status.OK, payload.decode("utf-8", "replace"), seconds=seconds)
        try:
            return Result(Status.OK, codec.decode(payload, self.limits.output_bytes), seconds=seconds)
        except codec.CodecError as error:
            return Result(Status.INVALID_VALUE, cause=str(error), seconds=seconds)


def _converse(tasks: tuple[Task, ...], channel: Channel) -> tuple[Result, ...]:
    """Have the two sides of a dialog run, and return how each ended."""
    seconds = max(task.limits.total_seconds for task in tasks)
    with ExitStack() as stack:
        channel.send(*[stack.enter_context(sealed_file(task.text())) for task in tasks])
        reports = [task.receive(channel, seconds) for task in tasks]
        if None in reports or tasks[0].receive(channel, 0.0):
            raise ZygoteFailure("the supervisor did not send one report for each side")
    return tuple(task.result(*report) for task, report in zip(tasks, reports, strict=True) if report)


def _arguments(number: int, arguments: Any) -> bytes:
    if not isinstance(arguments, (list, tuple)):
        raise ValueError(f"Sandbox.run: inputs[{number}]={arguments!r} must be a list of positional arguments")
    try:
        return codec.encode(tuple(arguments), sys.maxsize).encode()
    except codec.CodecError as error:
        raise ValueError(f"Sandbox.run: inputs[{number}]: {error}") from error


def _text(number: int, text: Any) -> bytes:
    if not isinstance(text, str):
        raise ValueError(f"Sandbox.run: inputs[{number}]={text!r} must be a str")
    return text.encode("utf-8", "surrogatepass")
