"""Held-out accuracy of a model in an environment, with its uncertainty."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import gymnasium
import numpy as np
import torch
from transformers import GenerationConfig

from .config import DAPOConfig
from .conversation import Conversation
from .dialect import Dialect
from .episodes import Agree, play
from .judging import Judges
from .rollout import EnvironmentRows

AT_ONCE = 64
"""completions generated at once, unless the memory is known to hold fewer"""


@dataclass(frozen=True)
class Evaluation:
    """``k`` samples of each of ``P`` problems."""

    accuracy: np.ndarray
    """``[P, k]`` raw correctness in [0, 1]; NaN where it could not be told"""
    lengths: np.ndarray
    """``[P, k]`` tokens of the model's own"""
    truncated: np.ndarray
    """``[P, k]`` bool: cut off at the length limit"""
    verdicts: Counter[str]
    levels: list[Any]
    """the environment's ``info["level"]`` of each problem, or None"""

    @property
    def mean(self) -> float:
        """avg@k: the mean over problems of the mean over samples."""
        return _mean_over_problems(self.accuracy)

    def interval(self, confidence: float = 0.95, *, resamples: int = 4000, seed: int = 0) -> tuple[float, float]:
        """Percentile bootstrap over problems: samples of one problem are not independent, problems are."""
        rng = np.random.default_rng(seed)
        per_problem = _per_problem(self.accuracy)
        if len(per_problem) == 0:
            return float("nan"), float("nan")
        draws = rng.integers(len(per_problem), size=(resamples, len(per_problem)))
        means = per_problem[draws].mean(axis=1)
        tail = (1 - confidence) / 2
        low, high = np.quantile(means, [tail, 1 - tail])
        return float(low), float(high)

    def by_level(self) -> dict[Any, float]:
        """avg@k of the problems of each level, in the order of the levels; empty without levels."""
        levels = sorted({level for level in self.levels if level is not None})
        return {
            level: _mean_over_problems(self.accuracy[[row for row, found in enumerate(self.levels) if found == level]])
            for level in levels
        }

    def summary(self) -> dict[str, Any]:
        """The figures as plain data."""
        low, high = self.interval()
        return {
            "problems": self.accuracy.shape[0],
            "samples": self.accuracy.shape[1],
            "accuracy": self.mean,
            "interval_95": [low, high],
            "by_level": {str(level): value for level, value in self.by_level().items()},
            "mean_length": float(self.lengths.mean()),
            "truncated": float(self.truncated.mean()),
            "verdicts": dict(self.verdicts),
        }


def _per_problem(accuracy: np.ndarray) -> np.ndarray:
    """Mean of each problem's scorable samples; problems without any are left out."""
    return np.nanmean(accuracy[~np.isnan(accuracy).all(axis=1)], axis=1)


def _mean_over_problems(accuracy: np.ndarray) -> float:
    """NaN when no problem could be scored."""
    per_problem = _per_problem(accuracy)
    return float(per_problem.mean()) if len(per_problem) else float("nan")


def evaluated_at_once(args: DAPOConfig) -> int:
    """Completions that a process generates at once when a run measures its model: no more than when it trains."""
    return min(AT_ONCE, cast(int, args.max_round_sequences) // args.world_size)


@torch.no_grad()
def evaluate(
    model: Any,
    tokenizer: Any,
    env: gymnasium.Env,
    indices: Sequence[int],
    *,
    k: int = 8,
    max_completion_length: int = 512,
    temperature: float = 1.0,
    top_p: float = 1.0,
    batch_size: int = AT_ONCE,
    seed: int = 0,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    on_batch: Callable[[int, int], None] | None = None,
    agree: Agree = lambda active, room: (active, room),
) -> Evaluation:
    """Sample ``k`` completions of each row in ``indices`` and let the environment judge them.

    Nothing is filtered and no length penalty enters. The caller's random state is left as it was.

    Args:
        model: a causal language model with ``generate``; its training mode is restored.
        env: the held-out environment; see `environments.make_env`.
        max_completion_length: in tokens, an environment's replies included.
        batch_size: completions generated at once.
        chat_template_kwargs: what the chat template is to be told, as in training.
        on_batch: called with (completions done, completions in all) after each batch.
        agree: as in `episodes.play`, for processes that hold the model in parts and must generate all together.
    """
    rows = EnvironmentRows(env, tokenizer)
    judges = Judges(env, processes=int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    dialect = Dialect(tokenizer, _stop_ids(model, tokenizer), chat_template_kwargs or {})
    prompts, levels = [], []
    for index in indices:
        prompt, info = rows.show(index)
        prompts.append(dialect.prompt_ids(prompt))
        levels.append(info.get("level"))
    jobs = sorted(
        ((problem, sample) for problem in range(len(indices)) for sample in range(k)),
        key=lambda job: len(prompts[job[0]]),
    )
    accuracy, lengths = np.full((len(indices), k), np.nan), np.zeros((len(indices), k))
    truncated, verdicts = np.zeros((len(indices), k), dtype=bool), Counter[str]()

    def speak(contexts: list[list[int]], room: int) -> tuple[list[list[int]], None]:
        sampling = {"max_new_tokens": room, "temperature": temperature, "top_p": top_p}
        return _sample(model, dialect, contexts, **sampling), None

    was_training = model.training
    model.eval()
    devices = [model.device] if model.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            batches, _ = agree(-(-len(jobs) // batch_size), 0)
            for first in range(0, batches * batch_size, batch_size):
                batch = jobs[first : first + batch_size]
                conversations = [Conversation(env, indices[problem]) for problem, _ in batch]
                transcripts = play(
                    conversations,
                    [prompts[problem] for problem, _ in batch] or [[tokenizer.eos_token_id]],
                    speak,
                    dialect=dialect,
                    limit=max_completion_length,
                    agree=agree,
                    hear=judges.hear,
                )
                for job, conversation, transcript in zip(batch, conversations, transcripts, strict=True):
                    outcome = conversation.outcome
                    accuracy[job], lengths[job] = outcome.accuracy, transcript.own
                    truncated[job] = transcript.cut
                    verdicts[outcome.verdict] += 1
                if on_batch is not None:
                    on_batch(first + len(batch), len(jobs))
    finally:
        model.train(was_training)
    return Evaluation(accuracy, lengths, truncated, verdicts, levels)


def merge(parts: Sequence[Evaluation]) -> Evaluation:
    """One evaluation from those of several processes, each of other problems."""
    return Evaluation(
        accuracy=np.concatenate([part.accuracy for part in parts]),
        lengths=np.concatenate([part.lengths for part in parts]),
        truncated=np.concatenate([part.truncated for part in parts]),
        verdicts=sum((part.verdicts for part in parts), Counter()),
        levels=[level for part in parts for level in part.levels],
    )


def _stop_ids(model: Any, tokenizer: Any) -> list[int]:
    declared = model.generation_config.eos_token_id
    declared = declared if isinstance(declared, list) else [declared]
    return [token for token in {*declared, tokenizer.eos_token_id} if token is not None]


def _sample(model: Any, dialect: Dialect, prompts: list[list[int]], **generation: Any) -> list[list[int]]:
    tokenizer, stop_ids, width = dialect.tokenizer, list(dialect.stop_ids), max(map(len, prompts))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    # All that shapes the distribution is said here: what the model's own generation settings hold must not enter.
    settings = GenerationConfig(
        do_sample=True, top_k=0, repetition_penalty=1.0, eos_token_id=stop_ids, pad_token_id=pad, **generation
    )
    sampled = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
    return [_up_to_stop(row, stop_ids) for row in sampled[:, width:].tolist()]


def _up_to_stop(ids: list[int], stop_ids: list[int]) -> list[int]:
    end = next((i for i, token in enumerate(ids) if token in stop_ids), len(ids) - 1)
    return ids[: end + 1]
