"""The environment's turns: one after another, or several at once where the task allows it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from queue import SimpleQueue

import gymnasium

from envs import Completion, TaskEnv

from .episode import Episode, duplicate


class EnvPool:
    """Threads with a copy of the environment each; a single one, the caller's own, for a task that is not `concurrent`.

    Args:
        env: the environment of the episodes.
        processes: how many processes of this machine judge at the same time.

    Raises:
        RewardError: the environment cannot be copied.
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
            on_done: told how many of how many are done, after each.

        Raises:
            RewardError: as `Episode.step`; the first that occurs, and nothing is begun after it.
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
            places = {pool.submit(self._say, *pair): place for place, pair in enumerate(pairs)}
            for done, future in enumerate(as_completed(places), 1):
                replies[places[future]] = future.result()
                on_done(done, total)
        finally:
            pool.shutdown(cancel_futures=True)
        return replies

    def _say(self, episode: Episode, action: Completion) -> str | None:
        env = self._copies.get()
        try:
            episode.use_env(env)
            return episode.step(action)
        finally:
            self._copies.put(env)
