"""A sample of the rollouts, kept with their tokens, for a person to look at: ``rollouts-*.jsonl``.

Of each rollout batch some completions are kept: the best and the worst of a few groups that are trained on, and one of
each of a few groups that were dropped. Each process writes the completions that it trains on or dropped, with the
change of every token's log-probability from sampling to the last microbatch with the completion: the figure comes from
that microbatch, so it costs nothing, and does not show its own update. Nothing here enters the training, and no random
number is drawn.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..rollout.environments import question_of
from ..rollout.types import Rollout, TrainingRow
from ..update.batching import Microbatch

logger = logging.getLogger("dapo_trl")

_UNFINISHED = "\ufffd"
"""The character to which tokenizers decode a part of a character."""
SCHEMA = 1
"""Version of a line; a later one may have more fields."""
MAX_BYTES = 64 * 2**20
"""Bytes of the files of all processes together; at the limit every second rollout batch is deleted, and from then on
skipped."""
MAX_TOKENS = 4096
"""Tokens recorded of a completion; of a longer one the beginning and the end."""
LAST_TOKENS = 1024
MAX_QUESTION = 500
"""Characters of a question, for lists."""
MAX_CHARACTERS = 20_000
"""Characters recorded of a prompt or a solution."""
DROPPED_SHARE = 4
"""At most one in this many recorded completions is of a dropped group."""


@dataclass
class _Sample:
    rollout: Rollout
    advantages: list[float]
    """Of its turns, or of all its tokens."""
    before: Tensor | None = None
    """Log-probabilities at sampling time, ``[T]``."""
    change: Tensor | None = None
    """Change of the log-probabilities since then, ``[T]``."""
    updates: int = 0
    """Optimizer steps between the two."""


class RolloutRecorder:
    """Keeps ``count`` completions of each rollout batch; the same choice on every process.

    Args:
        path: of this process's file.
        envs: the environments trained on by name, for their solutions; empty without one.
        max_bytes: limit on this process's file.
    """

    def __init__(
        self, path: Path, tokenizer: Any, *, count: int, names: Sequence[str], envs: Mapping[str, Any], max_bytes: int
    ):
        self.path = path
        self.tokenizer = tokenizer
        self.count = count
        self.names = names
        """Names of the reward functions."""
        self.envs = envs
        self.max_bytes = max_bytes
        self._samples: list[_Sample] = []
        self._dropped = 0
        self._batch: int | None = None
        self._step = 0
        self._every = 1
        """Every so many rollout batches, one is recorded."""
        self._failed = False

    def begin(self, batch: int, step: int) -> None:
        """A new rollout batch, the number ``batch``, after ``step`` optimizer steps: the one before is written."""
        if self._batch is None:
            self._keep(lambda line: line.get("batch", 0) < batch)  # a resumed run samples the later ones again
        self.flush()
        self._batch, self._step = batch, step
        self._samples, self._dropped = [], 0

    def wanted_dropped(self, names: Sequence[str]) -> list[int]:
        """Choose among the groups of a round that the filter dropped.

        Args:
            names: the filter's verdict on each group.
        """
        room = self.count // DROPPED_SHARE - self._dropped
        found = [group for group, name in enumerate(names) if name != "kept"][: max(room, 0)]
        self._dropped += len(found)
        return found

    def add_dropped(self, rollout: Rollout) -> None:
        """A completion of a dropped group, on the process that sampled it."""
        self._samples.append(_Sample(rollout, advantages=[0.0]))

    def mark(
        self, steps: list[list[TrainingRow]], plan: list[list[int]], fresh: list[Rollout], advantages: Tensor, size: int
    ) -> None:
        """Choose among the completions that are trained on, and mark this process's rows of them.

        Args:
            steps: the rows of each optimizer step.
            plan: their numbers; the last ``len(fresh)`` are those of ``fresh``, groups of ``size`` side by side.
            advantages: ``[rows of all processes]``, or of each of their turns ``[rows, K]``.
        """
        first, worth = len(advantages) - len(fresh), advantages.view(len(advantages), -1).tolist()
        whole = [of_turns[0] for of_turns in worth[first:]]  # all that is earned counts from the first turn on
        chosen = {first + i for i in choose(whole, size, self.count - self._dropped)}
        for rows, numbers in zip(steps, plan, strict=True):
            for row, number in zip(rows, numbers, strict=True):
                row.sample = len(self._samples) if number in chosen else -1
                if number in chosen:
                    self._samples.append(_Sample(fresh[number - first], worth[number]))

    def see(self, batch: Microbatch, logps: Tensor, step: int) -> None:
        """A pass over some rows: their log-probabilities ``[N, T]`` under the policy after ``step`` optimizer steps."""
        old = batch.old_logps
        for row, number in enumerate(batch.samples):
            if old is None or not 0 <= number < len(self._samples):
                continue
            sample = self._samples[number]
            if sample.rollout.account == "trained":
                length = len(sample.rollout.completion_ids)
                sample.before = old[row, :length].detach().clone()
                sample.change = (logps[row, :length] - old[row, :length]).detach()
                sample.updates = step - self._step

    def flush(self) -> None:
        """Write the samples of the rollout batch. An error of the file ends the recording with one warning."""
        samples, self._samples = self._samples, []
        if not samples or self._failed or (self._batch or 0) % self._every:
            return
        text = "".join(json.dumps(self._line(sample)) + "\n" for sample in samples)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)
            while self.path.stat().st_size > self.max_bytes and self._every < 2**30:
                self._every *= 2
                self._keep(lambda line: line.get("batch", 0) % self._every == 0)
        except OSError as error:
            self._failed = True
            logger.warning(f"{self.path} cannot be written ({error}): no more rollouts are recorded.")

    def _keep(self, wanted: Any) -> None:
        """Rewrite the file with the lines that are wanted; torn ones go."""
        if not self.path.is_file():
            return
        new = self.path.with_suffix(".new")
        with self.path.open(encoding="utf-8", errors="replace") as lines, new.open("w", encoding="utf-8") as kept:
            for line in lines:
                try:
                    if line.endswith("\n") and wanted(json.loads(line)):
                        kept.write(line)
                except (ValueError, AttributeError, TypeError, RecursionError):
                    continue
        new.replace(self.path)

    def _line(self, sample: _Sample) -> dict[str, Any]:
        rollout, outcome = sample.rollout, sample.rollout.outcome
        length = len(rollout.completion_ids)
        gap = (MAX_TOKENS - LAST_TOKENS, length - LAST_TOKENS) if length > MAX_TOKENS else (length, length)

        def part(values: Any) -> list:
            return [*values[: gap[0]], *values[gap[1] :]]

        index = rollout.row.get("index")
        rewards = {name: _number(value) for name, value in zip(self.names, rollout.rewards, strict=True)}
        line = {
            "schema": SCHEMA,
            "batch": self._batch,
            "step": self._step,
            "index": index,
            "env": rollout.row.get("env") if len(self.envs) > 1 else None,
            "level": rollout.row.get("level"),
            "prompt": shortened(self.tokenizer.decode(rollout.prompt_ids), MAX_CHARACTERS),
            "question": question_of({"prompt": rollout.prompt, **rollout.row})[:MAX_QUESTION],
            "pieces": pieces(self.tokenizer, part(rollout.completion_ids.tolist())),
            "tokens": rollout.tokens,
            "left_out": [gap[0], gap[1] - gap[0]],
            "own": None if rollout.loss_mask is None else part(rollout.loss_mask),
            "account": rollout.account,
            "verdict": None if outcome is None else outcome.verdict,
            "accuracy": None if outcome is None else _number(outcome.accuracy),
            "rewards": rewards,
            "components": {} if outcome is None else {k: _number(v) for k, v in outcome.components.items()},
            "advantage": _number(sample.advantages[0]),
            "turns": _turns(sample),
            "solution": self._solution(rollout.row.get("env"), index),
            "updates": sample.updates,
        }
        if sample.change is not None and sample.before is not None:
            line["before"] = [_number(value) for value in part(sample.before.tolist())]
            line["change"] = [_number(value) for value in part(sample.change.tolist())]
        return line

    def _solution(self, env: Any, index: Any) -> str | None:
        """The environment's solution; it is for display alone, so None where the environment fails."""
        try:
            return shortened(self.envs[env].unwrapped.solution(index), MAX_CHARACTERS)
        except Exception:
            return None


def _turns(sample: _Sample) -> list[dict[str, Any]] | None:
    """The turns of an episode that has several: the first token, the reward and the advantage of each."""
    rollout = sample.rollout
    if rollout.outcome is None or len(rollout.turn_starts) < 2:
        return None
    advantages = sample.advantages * (len(rollout.turn_starts) if len(sample.advantages) == 1 else 1)
    turns = zip(rollout.turn_starts, rollout.outcome.turns, advantages, strict=False)  # others may have more turns
    return [{"start": start, "reward": _number(reward), "advantage": _number(gain)} for start, reward, gain in turns]


def choose(advantages: Sequence[float], size: int, count: int) -> list[int]:
    """``count`` rows of groups of ``size``: the best and the worst of each of the first groups, then the next ones."""
    groups = [range(first, first + size) for first in range(0, len(advantages), size)]
    orders = [sorted(group, key=lambda row: -advantages[row]) for group in groups]
    outside_in = [[order[i // 2 if i % 2 == 0 else -1 - i // 2] for i in range(size)] for order in orders]
    pairs = [order[i : i + 2] for i in range(0, size, 2) for order in outside_in]
    return [row for pair in pairs for row in pair][: max(count, 0)]


def _number(value: float) -> float | None:
    """To five digits; JSON has no NaN or infinity."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


def pieces(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The text that each token adds, special tokens by name.

    A character made of several tokens is shown with the first of them, and the others add nothing.
    """
    if not ids:
        return []
    anchor = tokenizer.encode("a", add_special_tokens=False)[-1:]  # some tokenizers drop the space of a first token
    lead = len(tokenizer.decode(anchor))
    plain = {"clean_up_tokenization_spaces": False}
    found = [text[lead:] for text in tokenizer.batch_decode([[*anchor, token] for token in ids], **plain)]
    first = 0
    while first < len(found):
        last = first + 1
        if found[first].endswith(_UNFINISHED):
            while last < len(found) and _UNFINISHED in found[last]:
                last += 1
            found[first:last] = [
                tokenizer.decode([*anchor, *ids[first:last]], **plain)[lead:],
                *[""] * (last - first - 1),
            ]
        first = last
    return found


def shortened(text: str | None, length: int) -> str | None:
    """At most ``length`` characters of a text, with a note in place of its middle."""
    if text is None or len(text) <= length:
        return text
    half = length // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half:,} characters left out ...]\n{text[-half:]}"
