"""A model measured in an environment: samples of problems, each judged by the environment."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import gymnasium
import numpy as np
import torch

from ..checks import check_context
from ..config import DAPOConfig
from ..errors import ConfigError
from ..generation.params import FinishedFn
from ..generation.seeded import RandomNumbers
from ..generation.transformers import sample_turns, stop_ids
from ..rollout.chat_format import ChatFormat
from ..rollout.dataset_prompts import example_tokens
from ..rollout.environments import EnvironmentRows, env_name
from ..rollout.episode import Episode
from ..rollout.episode_runner import EnvPool, SyncFn, Transcript, continued, run_episodes
from ..rollout.prompting import prompting_of
from .estimators import MAX_SAMPLES
from .results import Evaluation

BATCH_TOKENS = 2**18
UNBOUNDED = 2**62
"""Token budget of a batch for an engine that bounds its memory by itself."""
MAX_ROWS = 256
"""Most completions of a batch; more do not make generation faster."""

Job = tuple[int, int]
"""The place of a problem, and the number of one of its samples."""


class SampleFn(Protocol):
    """Samples the model's turns of a measurement."""

    def __call__(self, contexts: list[list[int]], numbers: RandomNumbers, *, room: int) -> list[list[int]]:
        """Continue each of ``N`` contexts by at most ``room`` tokens, up to the end of the model's turn."""


@dataclass(frozen=True)
class Sampling:
    """The way completions are drawn for a measurement."""

    temperature: float = 1.0
    """Sampling temperature; 0 always takes the most probable token."""
    top_p: float = 1.0
    """Tokens are drawn from the smallest set of most probable ones whose probability reaches this."""
    max_completion_length: int = 512
    """Longest completion in tokens, an environment's replies included."""
    seed: int = 42

    @classmethod
    def like_training(cls, settings: Any, training: Any, max_completion_length: int, seed: int) -> Sampling:
        """As ``settings`` ask with ``eval_temperature`` and ``eval_top_p``; where these are None, as in training.

        Args:
            training: has the ``temperature`` and ``top_p`` of training.
        """
        temperature, top_p = settings.eval_temperature, settings.eval_top_p
        return cls(
            training.temperature if temperature is None else temperature,
            training.top_p if top_p is None else top_p,
            max_completion_length,
            seed,
        )

    def check(self, k: int, *, prefix: str = "") -> None:
        """Refuse what cannot be drawn.

        Args:
            k: samples of each problem.
            prefix: of the settings' names, for messages.

        Raises:
            ConfigError: a value is out of range.
        """
        samples = f"{prefix}samples" if prefix else "k"
        if not 1 <= k <= MAX_SAMPLES:
            raise ConfigError(f"{samples} is {k}: it must be from 1 to {MAX_SAMPLES} completions of each problem.")
        if self.temperature < 0:
            raise ConfigError(f"{prefix}temperature is {self.temperature}: it must be 0 or more.")
        if self.temperature == 0 and k > 1:
            raise ConfigError(
                f"{prefix}temperature is 0 and {samples} is {k}: all completions of a problem would be the same. Set "
                f"{samples} to 1, or a temperature above 0."
            )
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"{prefix}top_p is {self.top_p}: it must lie in (0, 1].")
        if self.max_completion_length < 1:
            raise ConfigError(f"max_completion_length is {self.max_completion_length}: it must be 1 or more tokens.")


@dataclass(frozen=True)
class EvalProblem:
    """A row of an environment, as the model sees it."""

    index: int
    prompt: str
    """Its own question, without system prompt and examples."""
    ids: list[int]
    """The prompt's tokens, with the chat template's."""
    level: Any

    @property
    def digest(self) -> str:
        """The same for the same tokens."""
        return hashlib.blake2b(json.dumps(self.ids).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Sample:
    """One completion of a problem, judged."""

    index: int
    """The problem's row in its environment."""
    number: int
    """The sample's number among those of its problem."""
    verdict: str
    accuracy: float
    """Raw correctness in [0, 1]; NaN if it could not be scored."""
    answer: str | None
    """The answer that the environment read; None if it names none."""
    cause: str
    length: int
    """Tokens of the model's own."""
    truncated: bool
    """Whether it was truncated at the length limit."""
    completion: str
    """All text after the prompt, the environment's replies included."""


class Evaluator:
    """Samples and judges a model's completions of one environment's problems.

    Args:
        model: a causal language model with ``generate``; with ``sample`` it is asked for its configuration alone.
        env: the held-out environment; see `rollout.environments.make_env`.
        batch_tokens: token budget of a batch, prompts and room for completions together; it bounds the memory.
        max_rows: most completions of a batch.
        chat_template_kwargs: arguments of the chat template, as in training.
        sync: for processes that hold the model in parts and must generate together; see `rollout.episode_runner`.
        sample: samples the model's turns; None: its own ``generate``.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        env: gymnasium.Env,
        sampling: Sampling,
        *,
        batch_tokens: int = BATCH_TOKENS,
        max_rows: int = MAX_ROWS,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        sync: SyncFn | None = None,
        sample: SampleFn | None = None,
    ):
        self.model, self.env, self.sampling, self._sample = model, env, sampling, sample
        self.batch_tokens, self.max_rows, self._sync = batch_tokens, max_rows, sync
        self.chat_format = ChatFormat(tokenizer, stop_ids(model, tokenizer), chat_template_kwargs or {})
        self._judges = EnvPool(env, processes=int(os.environ.get("LOCAL_WORLD_SIZE", 1)))

    def problems(self, indices: Sequence[int]) -> list[EvalProblem]:
        """The rows of these indices.

        Raises:
            ConfigError: one leaves no room for a completion in the model's context.
        """
        rows, found = EnvironmentRows(self.env, self.chat_format.tokenizer), []
        layer = prompting_of(self.env)
        for index in indices:
            prompt, question, info = rows.show(index)
            found.append(EvalProblem(index, question, self.chat_format.prompt_ids(prompt), info.get("level")))
        check_context(
            self.model.config,
            prompt=max((len(problem.ids) for problem in found), default=0),
            completion=self.sampling.max_completion_length,
            what=f"a {env_name(self.env)} prompt",
            examples=0 if layer is None else example_tokens(layer.format, self.chat_format),
        )
        return found

    def samples(self, problems: Sequence[EvalProblem], jobs: Sequence[Job]) -> Iterator[list[Sample]]:
        """Draw and judge samples batch by batch, the longest prompts first: too little memory shows at once, and the
        remaining time is overestimated rather than underestimated.

        Nothing is filtered and no length penalty enters. The model's training mode is restored after each batch, and no
        global random state is touched.
        """
        waiting = self._batches(problems, jobs)
        if self._sync is not None:  # one with fewer batches than another generates along with it
            waiting = [[]] * (self._sync(len(waiting), 0)[0] - len(waiting)) + waiting
        while waiting:
            batch = waiting.pop()
            try:
                done = self._run_batch(problems, batch)
            except torch.OutOfMemoryError:
                if self._sync is not None:
                    raise ConfigError(
                        f"memory ran out on a batch of {len(batch)} completions: set eval_batch_tokens (now "
                        f"{self.batch_tokens}) to half of that."
                    ) from None
                if len(batch) == 1:
                    raise ConfigError(
                        f"memory ran out on a single completion of up to {self.sampling.max_completion_length} tokens: "
                        "lower max_completion_length, or use a larger device."
                    ) from None
                done = None  # the failed batch is freed once this block is left
            if done is None:
                torch.cuda.empty_cache()
                waiting += [batch[len(batch) // 2 :], batch[: len(batch) // 2]]
            else:
                yield done

    def _batches(self, problems: Sequence[EvalProblem], jobs: Sequence[Job]) -> list[list[Job]]:
        """Jobs with prompts of similar length, the longest in the last batch."""
        room, batches = self.sampling.max_completion_length, list[list[Job]]()
        for job in sorted(jobs, key=lambda job: (len(problems[job[0]].ids), job)):
            width = len(problems[job[0]].ids) + room
            rows = max(1, min(self.max_rows, self.batch_tokens // width))
            if not batches or len(batches[-1]) >= rows:
                batches.append([])
            batches[-1].append(job)
        return batches

    @torch.no_grad()
    def _run_batch(self, problems: Sequence[EvalProblem], batch: Sequence[Job]) -> list[Sample]:
        sampling, limit = self.sampling, self.sampling.max_completion_length
        prompts = [problems[place].ids for place, _ in batch]
        episodes = [Episode(self.env, problems[place].index, problems[place].prompt) for place, _ in batch]
        keys = [(sampling.seed, problems[place].index, number) for place, number in batch]
        shape = {"temperature": sampling.temperature, "top_p": sampling.top_p}

        def generate_turn(
            contexts: list[list[int]], room: int, on_finished: FinishedFn
        ) -> tuple[list[list[int]], None]:
            rows, starts = continued(episodes, prompts, contexts)
            numbers = RandomNumbers([keys[row] if keys else (0,) for row in rows], starts, **shape)
            if self._sample is not None:
                return self._sample(contexts, numbers, room=room), None
            return sample_turns(
                self.model, self.chat_format, contexts, numbers, room=room, on_finished=on_finished
            ), None

        was_training = self.model.training
        self.model.eval()
        try:
            with self._judges.open() as submit:
                transcripts = run_episodes(
                    episodes,
                    prompts or [[self.chat_format.tokenizer.eos_token_id]],
                    generate_turn,
                    chat_format=self.chat_format,
                    limit=limit,
                    submit=submit,
                    sync=self._sync or _alone,
                )
        finally:
            self.model.train(was_training)
        return [self._judged(*row) for row in zip(batch, episodes, transcripts, strict=True)]

    def _judged(self, job: Job, episode: Episode, transcript: Transcript) -> Sample:
        outcome = episode.outcome
        return Sample(
            index=episode.index,
            number=job[1],
            verdict=outcome.verdict,
            accuracy=outcome.accuracy,
            answer=outcome.answer,
            cause=outcome.cause,
            length=transcript.own,
            truncated=transcript.truncated,
            completion=self.chat_format.text(transcript.ids),
        )


def _alone(active: int, room: int) -> tuple[int, int]:
    return active, room


def evaluated_at_once(args: DAPOConfig, *, on_cpu: bool) -> int:
    """Completions that a process generates at once when a run measures its model: on a GPU, whose memory is scarce, no
    more than when it trains."""
    return MAX_ROWS if on_cpu else min(MAX_ROWS, max(cast(int, args.max_round_sequences) // args.world_size, 1))


def collect(
    problems: Sequence[EvalProblem], samples: Mapping[tuple[int, int], Sample], *, k: int, sampling: Sampling
) -> Evaluation:
    """``k`` samples of each problem side by side.

    Args:
        samples: by the problem's index and the sample's number; all of them must be there.
        sampling: how they were drawn.
    """
    table = [[samples[problem.index, number] for number in range(k)] for problem in problems]

    def column(name: str, kind: Any) -> np.ndarray:
        return np.array([[getattr(sample, name) for sample in row] for row in table], dtype=kind).reshape(-1, k)

    return Evaluation(
        accuracy=column("accuracy", float),
        lengths=column("length", float),
        truncated=column("truncated", bool),
        verdicts=column("verdict", object),
        answers=column("answer", object),
        levels=[problem.level for problem in problems],
        room=sampling.max_completion_length,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
    )


def evaluate(
    model: Any,
    tokenizer: Any,
    env: gymnasium.Env,
    indices: Sequence[int],
    *,
    k: int = 8,
    sampling: Sampling | None = None,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
    **options: Any,
) -> Evaluation:
    """Sample ``k`` completions of each row in ``indices`` and let the environment judge them.

    Args:
        sampling: how they are drawn; None: the defaults of `Sampling`.
        on_batch: called with (completions done, completions in all) after each batch.
        options: further arguments of `Evaluator`.
    """
    sampling = sampling or Sampling()
    sampling.check(k)
    evaluator = Evaluator(model, tokenizer, env, sampling, **options)
    problems = evaluator.problems(indices)
    found: dict[tuple[int, int], Sample] = {}
    jobs = [(place, number) for place in range(len(problems)) for number in range(k)]
    for batch in evaluator.samples(problems, jobs):
        found |= {(sample.index, sample.number): sample for sample in batch}
        on_batch(len(found), len(jobs))
    return collect(problems, found, k=k, sampling=sampling)
