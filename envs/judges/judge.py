"""`Judge`: a language model that judges answers, by a rubric and in several votes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import os
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..base import Judgement, RemoteJudge, Verdict
from ..numeric import is_count, is_number
from ..text import brief
from ..verifiers.answer_extraction import after_thinking
from ..verifiers.code.shared_cache import SharedCache
from . import wording
from .cache import Cache
from .rubric import Rubric, Scores
from .server import EVENT_LOOP, Bill, Limits, NoReply, Server

URL_VARIABLE = "JUDGE_URL"
"""The environment variable that names the server where the settings do not."""
_VERSION = 1  # of the wording: with another one verdicts on disk are asked for anew
_REMEMBERED = 10_000  # verdicts in memory
_MARK_BYTES = 4
_ROUNDING = 1e-9  # by which a sum of weights may miss the pass mark
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


@dataclass(frozen=True)
class _Votes:
    """The votes on one answer: the scores of each that can be read, and the reason of each that failed."""

    scores: Sequence[Scores]
    failed: Sequence[str] = ()

    @property
    def decide(self) -> bool:
        """Whether more than half of the votes can be read."""
        return len(self.scores) > len(self.failed)


@dataclass(kw_only=True, eq=False)
class Judge(RemoteJudge):
    """A language model behind an HTTP server that speaks OpenAI's chat protocol, as the judge of an environment.

    `TaskEnv.verify` calls it, from any number of threads. The task keeps it in an attribute of any name, and has its
    `max_concurrency` and its `judging_seconds` unless it sets others:

        class Explain(TaskEnv):
            def __init__(self, *, judge):
                super().__init__()
                self.judge = Judge(rubric={"reason": "Does the answer give the reason?"}, **judge)

            def verify(self, row, completion):
                return self.judge(row["prompt"], completion, reference=row["answer"])

    A verdict that the server does not give, or gives in another form, is `infra_failure`. Copies of an environment
    share one judge; a process that it is sent to makes one of its own.

    Attributes:
        rubric: The criteria, as `Rubric.of` takes them.
        model: The name by which the server knows its model.
        url: The server's address, such as http://localhost:8000/v1; None: it is in the environment variable JUDGE_URL.
        key_env: Name of the environment variable that holds the server's key; None: it needs none.
        instructions: More about the task for the judge to know.
        pass_mark: Weighted score from which an answer counts as correct, with an accuracy of 1; below, the score is
            the accuracy.
        votes: Replies on one answer, an odd number. Each criterion gets their median, of two in the middle the lower;
            more than half of the replies must be readable.
        temperature: None: 0 for one vote, 0.7 for several.
        reply_tokens: Tokens of a reply at most. A model that thinks before it replies needs thousands.
        max_characters: An answer that is longer is wrong, and the judge is not asked.
        max_concurrency: Requests in flight at a time, shared by the processes of a machine and by all judges of the
            same server and key; the smallest number that one of these has counts.
        request_seconds: Seconds of one request at most.
        vote_seconds: Seconds of a vote at most: its request, tries again and the pauses between them.
        max_requests: Requests that a run may send, shared by its processes, failed ones and those of all judges of the
            same server and key included; None: no limit. Then `BudgetSpent` is raised, which ends a training run.
        max_tokens: The same for the tokens of requests and replies.
        cache: A folder in which verdicts are kept; None: they are remembered until the process ends.
        prices: Price of a million tokens of requests, and of replies, for the figure `judge_cost`.
        extra: More that goes into each request, such as {"chat_template_kwargs": {"enable_thinking": False}}. It takes
            the place of "temperature" and "max_tokens" too; None leaves a key out, as in {"max_tokens": None,
            "max_completion_tokens": 512} for servers that want it so.

    Raises:
        ValueError: A setting is wrong.
    """

    rubric: Any
    model: str
    url: str | None = None
    key_env: str | None = None
    instructions: str = ""
    pass_mark: float = 1.0
    votes: int = 1
    temperature: float | None = None
    reply_tokens: int = 512
    max_characters: int = 20_000
    max_concurrency: int = 32
    request_seconds: float = 30.0
    vote_seconds: float = 90.0
    max_requests: int | None = None
    max_tokens: int | None = None
    cache: str | Path | None = None
    prices: Sequence[float] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            import httpx  # noqa: F401  (now and not with the first answer: its import draws from the global generator)
        except ImportError as error:
            raise ImportError("envs.judges needs httpx: install it with pip install httpx") from error
        _check(self)
        machine, run = (int(os.environ.get(name, 1)) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
        limits = Limits(
            concurrency=max(self.max_concurrency // machine, 1),
            request_seconds=self.request_seconds,
            seconds=self.vote_seconds,
            requests=None if self.max_requests is None else max(self.max_requests // run, 1),
            tokens=None if self.max_tokens is None else max(self.max_tokens // run, 1),
        )
        self._rubric = Rubric.of(self.rubric)
        self._server = Server(_address(self.url), self.key_env, limits)
        self._known: SharedCache[str, _Votes] = SharedCache(_REMEMBERED, keep=lambda votes: votes.decide)
        self._disk = None if self.cache is None else Cache(Path(self.cache).expanduser(), self._rubric)

    @property
    def judging_seconds(self) -> float:
        """Seconds within which any answer is judged, if no more of them are judged at a time than
        `max_concurrency`."""
        return self.votes * self.vote_seconds + 1.0

    @property
    def full_marks(self) -> str:
        """The reply by which this judge would pay most, but for the mark of a request: to be tried as an answer."""
        return wording.full_marks(self._rubric)

    def __call__(self, question: str, answer: str, *, reference: str | None = None) -> Judgement:
        """Judge an answer.

        Args:
            question: The question that it answers.
            answer: The answer; only what follows its thinking is judged.
            reference: A right answer to compare with, if there is one.

        Returns:
            The judgement, with "scores" (by criterion) and "figures" among its details.

        Raises:
            BudgetSpent: `max_requests` or `max_tokens` is reached.
            ValueError: The server refuses the key, the address, the model or the request, and has never worked.
        """
        found = after_thinking(answer)
        if found is None:
            return Judgement.of(Verdict.NO_ANSWER, "the thinking never ends, and no answer counts inside of it")
        if len(found) > self.max_characters:
            return Judgement.of(
                Verdict.WRONG, f"the answer has {len(found):,} characters, and the judge reads {self.max_characters:,}"
            )
        text = wording.readable(found).strip()
        if not wording.has_content(text):
            return Judgement.of(Verdict.NO_ANSWER, "the answer has no word, number or symbol")
        bill, started = Bill(), time.perf_counter()
        key = self._key(question, text, reference)
        votes = self._known.get(key, partial(self._looked_up, key, question, text, reference, bill))
        figures = self._figures(bill, votes, time.perf_counter() - started)
        if not votes.decide:
            cause = f"{len(votes.failed)} of {self.votes} votes failed, one of them because {votes.failed[0]}"
            return Judgement(Verdict.INFRA_FAILURE, math.nan, cause, {"figures": figures})
        scores = self._rubric.middle(votes.scores)
        total = self._rubric.total(scores)
        accuracy = 1.0 if total >= self.pass_mark - _ROUNDING else total
        return Judgement(
            Verdict.CORRECT if accuracy == 1.0 else Verdict.WRONG,
            accuracy,
            self._rubric.shown(scores),
            {"scores": scores, "figures": figures},
        )

    def close(self) -> None:
        """Close the connections; they are opened again if need be."""
        EVENT_LOOP.run(self._server.close())

    def __deepcopy__(self, memo: dict[int, Any]) -> Judge:
        return self  # a service that many environments ask at once

    def __reduce__(self) -> Any:
        return partial(Judge, **{item.name: getattr(self, item.name) for item in fields(self)}), ()

    def _key(self, question: str, answer: str, reference: str | None) -> str:
        """A hash of all that decides the verdict."""
        settings = [self.model, self.votes, self._heat, self.reply_tokens, self.instructions, dict(self.extra)]
        content = [_VERSION, settings, self._rubric.as_data(), question, answer, reference]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def _heat(self) -> float:
        return (0.0 if self.votes == 1 else 0.7) if self.temperature is None else self.temperature

    def _looked_up(self, key: str, question: str, answer: str, reference: str | None, bill: Bill) -> _Votes:
        """The votes from disk, else from the server."""
        on_disk = self._disk and self._disk.get(key)
        if on_disk:
            return _Votes(on_disk)
        votes = EVENT_LOOP.run(self._asked(question, answer, reference, bill))
        if self._disk and votes.decide:
            self._disk.put(key, votes.scores)
        return votes

    async def _asked(self, question: str, answer: str, reference: str | None, bill: Bill) -> _Votes:
        """All votes, at once. A budget that is spent ends them all."""
        asked = (self._vote(question, answer, reference, bill) for _ in range(self.votes))
        found = await asyncio.gather(*asked, return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException) and not isinstance(one, NoReply | wording.NoVerdict):
                raise one
        return _Votes(
            [one for one in found if isinstance(one, dict)], [str(one) for one in found if not isinstance(one, dict)]
        )

    async def _vote(self, question: str, answer: str, reference: str | None, bill: Bill) -> dict[str, int]:
        mark = secrets.token_hex(_MARK_BYTES)
        chat = wording.messages(self._rubric, self.instructions, question, reference, answer, mark)
        sampling = {"temperature": self._heat, "max_tokens": self.reply_tokens, **self.extra}
        set_keys = {key: value for key, value in sampling.items() if value is not None}
        body = {**set_keys, "model": self.model, "messages": chat}
        reply = await self._server.chat(body, wording.schema(self._rubric, 2 * _MARK_BYTES), bill)
        return wording.read_reply(reply, self._rubric, mark)

    def _figures(self, bill: Bill, votes: _Votes, seconds: float) -> dict[str, float]:
        """The cost of the verdict. A known one costs nothing, and is left out of the means of the others."""
        if votes.decide and not bill.requests:
            return {"judge_known": 1.0}
        figures = {
            "judge_known": 0.0,
            "judge_seconds": seconds,
            "judge_requests": float(bill.requests),
            "judge_tokens": float(bill.tokens),
            "judge_failed_votes": len(votes.failed) / self.votes,
        }
        if self.prices is not None:
            figures["judge_cost"] = (
                bill.prompt_tokens * self.prices[0] + bill.reply_tokens * self.prices[1]
            ) / 1_000_000
        return figures


def _address(url: str | None) -> str:
    """The server's address, from the settings or the environment."""
    found, place = (os.environ.get(URL_VARIABLE, ""), URL_VARIABLE) if url is None else (url, "url")
    if not found:
        raise ValueError(
            f"Judge: url is not set, and neither is {URL_VARIABLE}: name the judge's server, such as "
            "http://localhost:8000/v1"
        )
    parts = urlsplit(found) if isinstance(found, str) else urlsplit("")
    if parts.username or parts.password:
        raise ValueError(f"Judge: {place} holds a user or a password: leave them out, and name a key with key_env")
    try:
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none
        fits = False
    if not fits or parts.query or parts.fragment or not str(found).isprintable() or " " in str(found):
        raise ValueError(
            f"Judge: {place}={brief(found)} must be the address of a server, such as http://localhost:8000/v1"
        )
    return str(found)


def _check(judge: Judge) -> None:
    """Refuse settings that are wrong; the rubric and the address are read elsewhere."""
    if judge.key_env is not None:
        if not isinstance(judge.key_env, str) or not _VARIABLE.fullmatch(judge.key_env):
            raise ValueError(  # not with its value, which may be a key
                "Judge: key_env must be the name of an environment variable, such as JUDGE_KEY, and never the key"
            )
        key = os.environ.get(judge.key_env, "").strip()
        if not key:
            raise ValueError(f"Judge: key_env={judge.key_env!r}: this environment variable is not set: export the key")
        if not (key.isascii() and key.isprintable()):
            raise ValueError(f"Judge: key_env={judge.key_env!r}: its value has characters that no key may have")
    for name, fits, rule in (
        ("model", _is_text(judge.model), "the name by which the server knows its model"),
        ("instructions", isinstance(judge.instructions, str), "text"),
        ("pass_mark", _is_above_zero(judge.pass_mark) and judge.pass_mark <= 1, "a number above 0, at most 1"),
        ("votes", is_count(judge.votes) and judge.votes % 2 == 1, "an odd integer of at least 1"),
        ("temperature", judge.temperature is None or _is_at_least_zero(judge.temperature), "None or at least 0"),
        ("request_seconds", _is_above_zero(judge.request_seconds), "above 0 (seconds)"),
        ("vote_seconds", _is_above_zero(judge.vote_seconds), "above 0 (seconds)"),
        ("extra", isinstance(judge.extra, Mapping) and _is_json(judge.extra), "a mapping that JSON can hold"),
        ("cache", judge.cache is None or isinstance(judge.cache, str | Path), "None or a folder"),
        ("prices", judge.prices is None or _are_prices(judge.prices), "None or two numbers of at least 0"),
        *(
            (name, is_count(getattr(judge, name)), "an integer of at least 1")
            for name in ("reply_tokens", "max_characters", "max_concurrency")
        ),
        *(
            (name, getattr(judge, name) is None or is_count(getattr(judge, name)), "None or an integer of at least 1")
            for name in ("max_requests", "max_tokens")
        ),
    ):
        if not fits:
            raise ValueError(f"Judge: {name}={brief(getattr(judge, name))} must be {rule}")
    if judge.request_seconds > judge.vote_seconds:
        raise ValueError(
            f"Judge: request_seconds={judge.request_seconds:g} must be at most vote_seconds={judge.vote_seconds:g}, "
            "within which a request is tried again"
        )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_at_least_zero(value: Any) -> bool:
    return not isinstance(value, bool) and is_number(value) and float(value) >= 0


def _is_above_zero(value: Any) -> bool:
    return _is_at_least_zero(value) and float(value) > 0


def _are_prices(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and len(value) == 2
        and all(map(_is_at_least_zero, value))
    )


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
