"""From prompts to whole episodes, in tokens: the model takes a turn, the environment replies, until it is over.

A reply is appended to the context as the chat template would write it, and is foreign to the loss. The tokens that the
model sampled stay as they are: nothing is decoded and encoded again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import gymnasium
import torch
from accelerate import Accelerator

from envs import Completion, TaskEnv

from ..distributed import SyncFn
from .chat_format import ChatFormat
from .episode import Episode, duplicate
from .types import Sampled

GenerateFn = Callable[[list[list[int]], int], tuple[list[list[int]], list[list[float]] | None]]
"""``generate(contexts, room)``: tokens sampled for each context, and their log-probabilities where they are known;
``room`` is the most tokens that any of them may still have."""

StepFn = Callable[[list[Episode], list[Completion]], list[str | None]]
"""``step(episodes, actions)``: every episode takes its action; the replies, None where it is over."""


@dataclass
class Transcript:
    """The tokens after a prompt, the model's own and the environment's."""

    ids: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    """1 for the model's own tokens, 0 for foreign ones."""
    logprobs: list[float] = field(default_factory=list)
    """By the sampler; 0 for foreign tokens; empty where they are not known."""
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


def run_episodes(
    episodes: Sequence[Episode],
    prompts: Sequence[list[int]],
    generate: GenerateFn,
    *,
    chat_format: ChatFormat,
    limit: int,
    sync: SyncFn = lambda active, room: (active, room),
    step: StepFn | None = None,
) -> list[Transcript]:
    """Run every episode to its end; their outcomes are then in them.

    Args:
        episodes: New ones, ``n``.
        prompts: The tokens of their prompts, ``n``.
        generate: Samples the model's turns.
        chat_format: Turns text into tokens and back.
        limit: Tokens of an episode after its prompt at most, replies included.
        sync: Agrees with other processes before each turn. One with fewer contexts than agreed generates along with a
            prompt of its own and drops the result: a sharded model only generates on all processes at once.
        step: Takes the environment's turns; None: one after another. See `EnvPool`.
    """
    transcripts = [Transcript() for _ in episodes]
    active = list(range(len(episodes)))
    while True:
        count, room = sync(len(active), max((limit - len(transcripts[i].ids) for i in active), default=0))
        if count == 0:
            return transcripts
        contexts = [prompts[i] + transcripts[i].ids for i in active]
        sampled, logprobs = generate(contexts + [prompts[0]] * (count - len(contexts)), room)
        actions = []
        for place, i in enumerate(active):
            left = limit - len(transcripts[i].ids)
            ids = sampled[place][:left]
            transcripts[i].extend(ids, 1, None if logprobs is None else logprobs[place][:left])
            actions.append(chat_format.completion(ids, contexts[place]))
        taking = [episodes[i] for i in active]
        replies = step(taking, actions) if step else [one.step(a) for one, a in zip(taking, actions, strict=True)]
        going_on = []
        for i, action, reply in zip(active, actions, replies, strict=True):
            transcripts[i].truncated = action.finish_reason == "length"
            if reply is not None and _goes_on(episodes[i], transcripts[i], chat_format.reply_ids(reply), limit):
                going_on.append(i)
        active = going_on


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


def _goes_on(episode: Episode, transcript: Transcript, reply: list[int], limit: int) -> bool:
    """Append the reply, if that leaves the model room for a turn; else the episode ends here."""
    if len(transcript.ids) + len(reply) >= limit:
        transcript.truncated = True
        episode.truncate()
        return False
    transcript.extend(reply, 0, [0.0] * len(reply) if transcript.logprobs else None)
    return True


class EnvPool:
    """Threads with a copy of the environment each; a single one, the caller's own, for a task that is not `concurrent`.

    Args:
        env: The environment of the episodes.
        processes: Processes of this machine that judge at the same time.

    Raises:
        RewardError: The environment cannot be copied.
    """

    def __init__(self, env: gymnasium.Env, *, processes: int = 1):
        task = env.unwrapped
        concurrent = isinstance(task, TaskEnv) and task.concurrent
        self.threads = max((os.cpu_count() or 1) // processes, 2) if concurrent else 1
        self._copies: SimpleQueue[gymnasium.Env] = SimpleQueue()
        for _ in range(self.threads if self.threads > 1 else 0):
            self._copies.put(duplicate(env))

    def step(
        self,
        episodes: Sequence[Episode],
        actions: Sequence[Completion],
        on_done: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[str | None]:
        """Let every episode take its action; returns the replies, None where an episode is over.

        Args:
            on_done: Called after each with the number done and the total.

        Raises:
            RewardError: As `Episode.step`; the first that occurs, and nothing is begun after it.
        """
        total = len(episodes)
        replies: list[str | None] = [None] * total
        if self.threads == 1 or total < 2:
            for place, (episode, action) in enumerate(zip(episodes, actions, strict=True)):
                replies[place] = episode.step(action)
                on_done(place + 1, total)
            return replies
        pool = ThreadPoolExecutor(min(self.threads, total))
        try:
            pairs = zip(episodes, actions, strict=True)
            places = {pool.submit(self._step, *pair): place for place, pair in enumerate(pairs)}
            for done, future in enumerate(as_completed(places), 1):
                replies[places[future]] = future.result()
                on_done(done, total)
        finally:
            pool.shutdown(cancel_futures=True)
        return replies

    def _step(self, episode: Episode, action: Completion) -> str | None:
        env = self._copies.get()
        try:
            episode.use_env(env)
            return episode.step(action)
        finally:
            self._copies.put(env)


class EnvironmentSource:
    """The rows of a round as whole episodes of an environment, judged as they end.

    Args:
        env: The environment.
        chat_format: Turns text into tokens and back.
        tokenize: Token ids of prompts.
        generate: Samples the model's turns, as a `GenerateFn`; its third argument is for each context the number of its
            completion in the run and its tokens so far.
        limit: Tokens of an episode after its prompt at most.
        accelerator: The processes of the run.
        equal_counts: The sampler needs equally many contexts on every process (vLLM).
        count_tokens: Called with the tokens that this process generated, prompts included.
        on_activity: Called with a line about the judging, for a progress bar.

    Raises:
        ConfigError: The chat template cannot write an earlier turn of the model, and the task has several.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        chat_format: ChatFormat,
        *,
        tokenize: Callable[[list[Any]], list[list[int]]],
        generate: Callable[[list[list[int]], int, list[tuple[int, int]]], Any],
        limit: int,
        accelerator: Accelerator,
        equal_counts: bool,
        count_tokens: Callable[[int], None],
        on_activity: Callable[[str], None],
    ):
        self.env, self.chat_format, self.limit = env, chat_format, limit
        self._tokenize, self._generate, self._count_tokens = tokenize, generate, count_tokens
        self._accelerator, self._equal_counts, self._on_activity = accelerator, equal_counts, on_activity
        self._pool = EnvPool(env, processes=int(os.environ.get("LOCAL_WORLD_SIZE", accelerator.num_processes)))
        task = env.unwrapped
        self._may_reply = not isinstance(task, TaskEnv) or task.max_turns > 1
        if isinstance(task, TaskEnv) and self._may_reply:
            chat_format.reply_ids("-")  # an unfit chat template is an error before anything is generated

    def sample(self, rows: list[dict[str, Any]], numbers: range) -> Sampled:
        """The episodes of rows of `EnvironmentRows`, with their outcomes.

        Args:
            numbers: Which completion of the run each row is.
        """
        prompts = [row["prompt"] for row in rows]
        prompt_ids = self._tokenize(prompts)
        episodes = [Episode(self.env, row["index"], row["question"]) for row in rows]

        def generate(contexts: list[list[int]], room: int) -> Any:
            places, starts = continued(episodes, prompt_ids, contexts)
            return self._generate(
                contexts, room, [(numbers[i], start) for i, start in zip(places, starts, strict=True)]
            )

        transcripts = run_episodes(
            episodes,
            prompt_ids,
            generate,
            chat_format=self.chat_format,
            limit=self.limit,
            sync=self._sync,
            step=self._step,
        )
        own = [transcript.own for transcript in transcripts]
        self._count_tokens(sum(map(len, prompt_ids)) + sum(own))
        completion_ids = [transcript.ids for transcript in transcripts]
        known = bool(transcripts[0].logprobs)
        return Sampled(
            prompt_ids=prompt_ids,
            completion_ids=completion_ids,
            completions=self.chat_format.completions(prompts, prompt_ids, completion_ids),
            truncated=[transcript.truncated for transcript in transcripts],
            logprobs=[transcript.logprobs for transcript in transcripts] if known else None,
            loss_masks=[transcript.mask for transcript in transcripts] if self._may_reply else None,
            outcomes=[episode.outcome for episode in episodes],
            columns={"own_tokens": own} if self._may_reply else {},
        )

    def _step(self, episodes: list[Episode], actions: list[Completion]) -> list[str | None]:
        return self._pool.step(episodes, actions, lambda done, total: self._on_activity(f"judging {done} of {total}"))

    def _sync(self, active: int, room: int) -> tuple[int, int]:
        """As many contexts as the busiest process has where the sampler needs equal numbers, else one or more."""
        if self._accelerator.num_processes == 1 or not self._may_reply:
            return active, room
        mine = torch.tensor([[active, room]], device=self._accelerator.device)
        most, room = self._accelerator.gather(mine).max(dim=0).values.tolist()
        return most if self._equal_counts else max(active, min(most, 1)), room
