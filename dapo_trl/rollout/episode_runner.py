"""From prompts to whole episodes, in tokens: the model takes a turn, the environment replies, until it is over.

A reply is appended to the context as the chat template would write it, and is foreign to the loss. The tokens that the
model sampled stay as they are: nothing is decoded and encoded again. A turn is judged as soon as its last token is
sampled, while others are still generated.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

import gymnasium
import torch
from accelerate import Accelerator

from envs import TaskEnv
from envs.numeric import is_count

from ..distributed import SyncFn
from ..errors import ConfigError
from ..generation.params import FinishedFn
from .chat_format import ChatFormat
from .environments import env_name, may_reply
from .episode import Episode, duplicate
from .types import Sampled

T = TypeVar("T")

GenerateFn = Callable[[list[list[int]], int, FinishedFn], tuple[list[list[int]], list[list[float]] | None]]
"""``generate(contexts, room, on_finished)``: tokens sampled for each context, and their log-probabilities where they
are known; ``room`` is the most tokens that any of them may still have. ``on_finished`` may be called with the place of
a context and its tokens, before all are returned."""


class SubmitFn(Protocol):
    """``submit(episode, work)``: begin some work on an episode; returns a function that waits for its result."""

    def __call__(self, episode: Episode, work: Callable[[], T], /) -> Callable[[], T]: ...


@dataclass
class Transcript:
    """The tokens after a prompt, the model's own and the environment's."""

    ids: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    """1 for the model's own tokens, 0 for foreign ones."""
    logprobs: list[float] = field(default_factory=list)
    """By the sampler; 0 for foreign tokens; empty where they are not known."""
    starts: list[int] = field(default_factory=list)
    """The first token of each turn of the model."""
    truncated: bool = False
    """Ended because there was no room left, in the middle of a turn or before a reply."""

    @property
    def own(self) -> int:
        """Tokens that the model wrote."""
        return sum(self.mask)

    def extend(self, ids: list[int], mask: int, logprobs: list[float] | None) -> None:
        self.ids += ids
        self.mask += [mask] * len(ids)
        self.logprobs += logprobs or []

    def goes_on(self, reply: list[int], limit: int) -> bool:
        """Append the reply, if that leaves the model room for a turn; else the transcript is truncated here."""
        self.truncated = len(self.ids) + len(reply) >= limit
        if not self.truncated:
            self.extend(reply, 0, [0.0] * len(reply) if self.logprobs else None)
        return not self.truncated


def run_episodes(
    episodes: Sequence[Episode],
    prompts: Sequence[list[int]],
    generate: GenerateFn,
    *,
    chat_format: ChatFormat,
    limit: int | Sequence[int],
    submit: SubmitFn,
    sync: SyncFn = lambda active, room: (active, room),
    on_judged: Callable[[int, int], None] = lambda done, total: None,
) -> list[Transcript]:
    """Run every episode to its end; their outcomes are then in them.

    Which turns are judged at once, and when, changes nothing but the time: replies are awaited in the order of the
    episodes, and every turn is generated for all episodes that go on.

    Args:
        episodes: New ones, ``n``.
        prompts: The tokens of their prompts, ``n``.
        generate: Samples the model's turns.
        chat_format: Turns text into tokens and back.
        limit: Tokens of an episode after its prompt at most, replies included: for all, or ``n``, for each.
        submit: Begins the environment's turns; see `EnvPool.open`.
        sync: Agrees with other processes before each turn. One with fewer contexts than agreed generates along with a
            prompt of its own and drops the result: a sharded model only generates on all processes at once.
        on_judged: Called while judgements are awaited, with those of this turn that are there and with their total.

    Raises:
        RewardError: As `Episode.step`; of several, that of the first episode.
    """
    limits = [limit] * len(episodes) if isinstance(limit, int) else limit
    transcripts = [Transcript() for _ in episodes]
    active = list(range(len(episodes)))
    while True:
        rooms = [limits[i] - len(transcripts[i].ids) for i in active]
        count, room = sync(len(active), max(rooms, default=0))
        if count == 0:
            return transcripts
        contexts = [prompts[i] + transcripts[i].ids for i in active]
        turn = _Turn([episodes[i] for i in active], contexts, rooms, chat_format, submit)
        sampled, logprobs = generate(contexts + [prompts[0]] * (count - len(contexts)), room, turn.finished)
        turn.finish(sampled)
        for place, i in enumerate(active):
            left = rooms[place]
            transcripts[i].starts.append(len(transcripts[i].ids))
            transcripts[i].extend(sampled[place][:left], 1, None if logprobs is None else logprobs[place][:left])
        going_on, endings = [], []
        for place, i in enumerate(active):
            transcripts[i].truncated, reply = turn.replied(place)
            on_judged(place + 1, len(active))
            if reply is None:
                continue
            if transcripts[i].goes_on(reply, limits[i]):
                going_on.append(i)
            else:
                endings.append(submit(episodes[i], episodes[i].truncate))
        for ended in endings:
            ended()
        active = going_on


class _Turn:
    """One turn of several episodes: each is judged from the moment its tokens are known."""

    def __init__(
        self,
        episodes: list[Episode],
        contexts: list[list[int]],
        rooms: list[int],
        chat_format: ChatFormat,
        submit: SubmitFn,
    ):
        self._episodes, self._contexts, self._rooms = episodes, contexts, rooms
        self._chat_format, self._submit = chat_format, submit
        self._tokenizer = threading.Lock()  # a fast one may refuse to be used by two threads at once
        self._found: dict[int, tuple[list[int], Callable[[], tuple[bool, list[int] | None]]]] = {}

    def finished(self, place: int, ids: list[int]) -> None:
        """Have a turn judged; what is generated beyond the episodes only keeps a process in step."""
        if place < len(self._episodes):
            self._found[place] = ids, self._submit(self._episodes[place], partial(self._judge, place, ids))

    def finish(self, sampled: list[list[int]]) -> None:
        """Have all turns judged that were not yet.

        Raises:
            ConfigError: The backend returned other tokens than it reported.
        """
        for place, ids in enumerate(sampled):
            if place not in self._found:
                self.finished(place, ids)
            elif list(self._found[place][0]) != list(ids):
                raise ConfigError(
                    f"the generation backend called on_finished with {len(self._found[place][0])} tokens for context "
                    f"{place} and returned {len(ids)} tokens that are not the same: a finished turn must not change."
                )

    def replied(self, place: int) -> tuple[bool, list[int] | None]:
        """Wait for a turn's judgement.

        Returns:
            Whether the turn was cut off, and the tokens of the environment's reply; None when the episode is over.
        """
        return self._found[place][1]()

    def _judge(self, place: int, ids: list[int]) -> tuple[bool, list[int] | None]:
        with self._tokenizer:
            action = self._chat_format.completion(ids[: self._rooms[place]], self._contexts[place])
        reply = self._episodes[place].step(action)
        with self._tokenizer:
            return action.finish_reason == "length", None if reply is None else self._chat_format.reply_ids(reply)


def continued(
    episodes: Sequence[Episode], prompts: Sequence[list[int]], contexts: Sequence[list[int]]
) -> tuple[list[int], list[int]]:
    """The episode that each context of a `GenerateFn` is of, and the tokens that it has after its prompt.

    The contexts are those of the episodes that go on, in order. Any beyond these only keep a process in step: they are
    put down as the first episode's beginning.
    """
    rows = [row for row, episode in enumerate(episodes) if not episode.over][: len(contexts)]
    starts = [len(context) - len(prompts[row]) for context, row in zip(contexts, rows, strict=False)]
    extra = [0] * (len(contexts) - len(rows))
    return rows + extra, starts + extra


class EnvPool:
    """Threads that step copies of an environment, as many as its `max_concurrency` says.

    Args:
        env: The environment of the episodes.
        processes: Processes of this machine that judge at the same time; they share what the environment allows.

    Raises:
        ConfigError: `max_concurrency` is neither a number from 1 on nor "cores".
        RewardError: The environment cannot be copied.
    """

    def __init__(self, env: gymnasium.Env, *, processes: int = 1):
        allowed = env.get_wrapper_attr("max_concurrency") if env.has_wrapper_attr("max_concurrency") else 1
        if allowed != "cores" and not is_count(allowed):
            raise ConfigError(
                f"env {env_name(env)} has max_concurrency {allowed!r}: it must be 1 or more, or 'cores' for as many as "
                "the machine has."
            )
        self._in_threads = allowed != 1
        """Otherwise the caller's own thread steps the environment itself."""
        self.threads = (
            max((os.cpu_count() or 1) // processes, 2) if allowed == "cores" else max(allowed // processes, 1)
        )
        self._copies: SimpleQueue[gymnasium.Env] = SimpleQueue()
        if self._in_threads:
            self._original = duplicate(env)

    @contextmanager
    def open(self) -> Iterator[SubmitFn]:
        """Within the block, work on episodes is begun; without threads, when its result is asked for.

        On leaving, work that has not begun is dropped and the rest awaited.
        """
        if not self._in_threads:
            yield lambda episode, work: work
            return
        executor = ThreadPoolExecutor(self.threads, thread_name_prefix="judge")
        try:
            yield lambda episode, work: executor.submit(self._work, episode, work).result
        finally:
            executor.shutdown(cancel_futures=True)

    def _work(self, episode: Episode, work: Callable[[], T]) -> T:
        try:
            env = self._copies.get_nowait()
        except Empty:
            env = duplicate(self._original)
        try:
            episode.use_env(env)
            return work()
        finally:
            self._copies.put(env)


@contextmanager
def open_pools(pools: Mapping[str, EnvPool], episodes: Sequence[Episode], names: Sequence[str]) -> Iterator[SubmitFn]:
    """As `EnvPool.open`, for episodes of several environments, each in the pool of its own.

    Args:
        names: ``n``, the name of the pool of each episode.
    """
    with ExitStack() as opened:
        submits = {name: opened.enter_context(pools[name].open()) for name in dict.fromkeys(names)}
        of = {id(episode): submits[name] for episode, name in zip(episodes, names, strict=True)}
        yield lambda episode, work: of[id(episode)](episode, work)


class EnvironmentSource:
    """The rows of a round as whole episodes of an environment, judged as they end.

    Args:
        envs: The environments by their names in the run.
        limits: For each the tokens of an episode after its prompt at most.
        chat_format: Turns text into tokens and back.
        tokenize: Token ids of prompts.
        generate: Samples the model's turns, as a `GenerateFn`; its third argument is for each context the number of its
            completion in the run and its tokens so far, `on_finished` the fourth.
        accelerator: The processes of the run.
        equal_counts: The sampler needs equally many contexts on every process (vLLM).
        count_tokens: Called with the tokens that this process generated, prompts included.
        on_activity: Called with a line about the judging, for a progress bar.

    Raises:
        ConfigError: The chat template cannot write an earlier turn of the model, and the task has several.
    """

    def __init__(
        self,
        envs: Mapping[str, gymnasium.Env],
        limits: Mapping[str, int],
        chat_format: ChatFormat,
        *,
        tokenize: Callable[[list[Any]], list[list[int]]],
        generate: Callable[[list[list[int]], int, list[tuple[int, int]], FinishedFn], Any],
        accelerator: Accelerator,
        equal_counts: bool,
        count_tokens: Callable[[int], None],
        on_activity: Callable[[str], None],
    ):
        self.envs, self.chat_format, self.limits = envs, chat_format, limits
        self._tokenize, self._generate, self._count_tokens = tokenize, generate, count_tokens
        self._accelerator, self._equal_counts, self._on_activity = accelerator, equal_counts, on_activity
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", accelerator.num_processes))
        self._pools = {name: EnvPool(env, processes=processes) for name, env in envs.items()}
        self._may_reply = any(map(may_reply, envs.values()))
        if any(may_reply(env) and isinstance(env.unwrapped, TaskEnv) for env in envs.values()):
            chat_format.reply_ids("-")  # an unfit chat template is an error before anything is generated

    def sample(self, rows: list[dict[str, Any]], numbers: range) -> Sampled:
        """The episodes of rows of `EnvironmentRows`, with their outcomes.

        Args:
            numbers: Which completion of the run each row is.
        """
        prompts = [row["prompt"] for row in rows]
        prompt_ids = self._tokenize(prompts)
        episodes = [Episode(self.envs[row["env"]], row["index"], row["question"]) for row in rows]

        def generate(contexts: list[list[int]], room: int, on_finished: FinishedFn) -> Any:
            places, starts = continued(episodes, prompt_ids, contexts)
            streams = [(numbers[i], start) for i, start in zip(places, starts, strict=True)]
            return self._generate(contexts, room, streams, on_finished)

        with open_pools(self._pools, episodes, [row["env"] for row in rows]) as submit:
            transcripts = run_episodes(
                episodes,
                prompt_ids,
                generate,
                chat_format=self.chat_format,
                limit=[self.limits[row["env"]] for row in rows],
                submit=submit,
                sync=self._sync,
                on_judged=lambda done, total: self._on_activity(f"judging {done} of {total}"),
            )
        own = [transcript.own for transcript in transcripts]
        self._count_tokens(sum(map(len, prompt_ids)) + sum(own))
        completion_ids = [transcript.ids for transcript in transcripts]
        known = bool(transcripts[0].logprobs)
        return Sampled(
            prompts=prompts,
            prompt_ids=prompt_ids,
            completion_ids=completion_ids,
            completions=self.chat_format.completions(prompts, prompt_ids, completion_ids),
            truncated=[transcript.truncated for transcript in transcripts],
            logprobs=[transcript.logprobs for transcript in transcripts] if known else None,
            loss_masks=[transcript.mask for transcript in transcripts] if self._may_reply else None,
            turn_starts=[transcript.starts for transcript in transcripts],
            outcomes=[episode.outcome for episode in episodes],
            columns={"own_tokens": own} if self._may_reply else {},
        )

    def _sync(self, active: int, room: int) -> tuple[int, int]:
        """As many contexts as the busiest process has where the sampler needs equal numbers, else one or more."""
        alike = not self._may_reply and len(set(self.limits.values())) == 1
        if self._accelerator.num_processes == 1 or alike:
            return active, room
        mine = torch.tensor([[active, room]], device=self._accelerator.device)
        most, room = self._accelerator.gather(mine).max(dim=0).values.tolist()
        return most if self._equal_counts else max(active, min(most, 1)), room
