"""Collecting one rollout batch: TRL generates and scores, the sampler decides, kept rows are dealt to the processes.

Every decision rests on values gathered from all processes, so they take the same number of rounds.
"""

from __future__ import annotations

import dataclasses
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather, gather_object
from torch import Tensor

from .errors import NonFiniteError, RefillLimitError, RewardError
from .rollout import Rollout
from .sampling import DynamicSampler

if TYPE_CHECKING:
    from .trainer import DAPOTrainer


@dataclass
class RolloutBatch:
    """The kept rollouts of one batch: all of them by number, this process's share of them in full."""

    share: list[Rollout]
    """equally many on every process: a few whole groups stand in twice when the kept rows do not divide evenly"""
    real: int
    """leading rows of ``share`` to train on; the rest are stand-ins"""
    first: int
    """position of ``share[0]`` among all rows"""
    rewards: Tensor
    """``[N, F]``, stand-ins included: what TRL's reward gathering would return"""
    totals: Tensor
    """``[K * G]``: total reward of the kept rows, without stand-ins"""

    def spread(self, values: Tensor) -> Tensor:
        """This process's share of one value per kept row (``[K * G]`` to ``[len(share)]``)."""
        rows = torch.arange(self.first, self.first + len(self.share), device=values.device) % len(values)
        return values[rows]


@dataclass(frozen=True)
class _Numbers:
    """What is known of the ``n`` completions of a round, of all processes: ``[n]`` each."""

    lengths: Tensor
    truncated: Tensor
    accuracy: Tensor
    totals: Tensor
    kept: Tensor
    """bool: passed the filter"""


class RolloutCollector:
    """Fills rollout batches for a `DAPOTrainer`."""

    def __init__(self, trainer: DAPOTrainer):
        self.trainer = trainer
        self.args = trainer.args
        self.accelerator = trainer.accelerator
        self._example: tuple[list[int], list[int]] = ([], [])

    def fill(self) -> tuple[RolloutBatch | None, DynamicSampler]:
        """Sample rounds until the sampler is content. None instead of a batch when no group is informative.

        Raises:
            RefillLimitError: too few informative groups at the limit and ``on_refill_limit`` is ``"raise"``.
            RewardError: not one completion could be scored.
        """
        started = time.perf_counter()
        sampler = DynamicSampler(
            target=self.args.groups_per_rollout,
            rule=self.args.group_filter,
            min_valid_fraction=self.args.min_valid_fraction,
            max_refill_rounds=self.args.max_refill_rounds,
        )
        rounds: list[_Numbers] = []
        kept: list[Rollout] = []
        while wanted := sampler.groups_wanted():
            self.trainer.on_activity(f"sampling, round {sampler.rounds + 1}: {wanted} groups")
            rollouts, numbers = self._round(self._divisible(wanted), sampler)
            kept += rollouts
            rounds.append(numbers)
        self.trainer.on_activity("updating")
        numbers = _Numbers(
            *(torch.cat([getattr(part, f.name) for part in rounds]) for f in dataclasses.fields(_Numbers))
        )
        self._log(sampler, numbers, time.perf_counter() - started)
        self._check(sampler, numbers)
        return (self._deal(kept) if sampler.counts.kept else None), sampler

    def glimpse(self) -> str:
        """A prompt and a completion of the last round, shortened, to show a person."""
        prompt, completion = (self.trainer._tokenizer.decode(ids, skip_special_tokens=True) for ids in self._example)
        return f"{_shortened(prompt, 100)!r} -> {_shortened(completion, 160)!r}"

    def draw(self, groups: int) -> tuple[list[dict[str, Any]], int]:
        """Take prompts from the stream: this process's share of their rows, ``num_generations`` of each, and the
        position of its first row among those of all processes."""
        rows = [dict(row) for row in self.trainer.prompts.take(groups) for _ in range(self.args.num_generations)]
        share = len(rows) // self.accelerator.num_processes
        first = self.accelerator.process_index * share
        return rows[first : first + share], first

    def _divisible(self, groups: int) -> int:
        """The next number of groups whose rows divide evenly among the processes."""
        while groups * self.args.num_generations % self.accelerator.num_processes:
            groups += 1
        return groups

    def _round(self, groups: int, sampler: DynamicSampler) -> tuple[list[Rollout], _Numbers]:
        """Generate, score and filter: this process's kept rollouts, and everybody's numbers."""
        trainer, size = self.trainer, self.args.num_generations
        rows, first = self.draw(groups)
        per_process, prompts = len(rows), [row["prompt"] for row in rows]

        previous, trainer._metrics["train"] = trainer._metrics["train"], defaultdict(list)
        try:
            generated = trainer._generate(prompts)
        except RuntimeError as error:
            if "probability tensor contains" not in str(error):
                raise
            raise NonFiniteError(
                f"step {trainer.state.global_step}: the model's next-token probabilities are NaN or infinite, so it "
                "cannot generate. The weights were damaged by an earlier update: go back to a checkpoint and lower "
                "learning_rate."
            ) from error
        finally:
            scratch, trainer._metrics["train"] = trainer._metrics["train"], previous
        for name, values in scratch.items():
            if name == "num_tokens":  # a running total
                previous[name] = values
            elif not name.startswith("completions/"):  # these are logged below, over all rounds
                previous[name].extend(values)

        prompt_ids, completion_ids, masks, completions, logprobs, extra, _, _ = generated
        for name, values in extra.items():
            for i, row in enumerate(rows):
                row[name] = values[i] if isinstance(values, list) else values
        rewards = trainer._calculate_rewards(rows, prompts, completions, completion_ids)
        columns = {
            name: values if len(values) == per_process else [None] * per_process
            for name, values in trainer._pending_extra_logs.items()
        }
        trainer._pending_extra_logs.clear()

        lengths = [len(ids) for ids in completion_ids] if masks is None else [sum(mask) for mask in masks]
        cut = [ids[-1] not in trainer.stop_ids for ids in completion_ids]
        accuracy = trainer.accuracy_of(rewards[first : first + per_process])
        local = torch.stack([torch.tensor(lengths), torch.tensor(cut)]).to(accuracy)
        everyones = gather(torch.cat([local, accuracy.unsqueeze(0)]).T.contiguous())
        scores = trainer.columns.scores(rewards, everyones[:, 2], self.args.filter_key)
        order = sampler.rounds
        keep = torch.tensor(sampler.add(scores.view(-1, size)), device=rewards.device).repeat_interleave(size)
        kept = [
            Rollout(
                row=rows[i],
                prompt=prompts[i],
                completion=completions[i],
                prompt_ids=prompt_ids[i],
                completion_ids=completion_ids[i],
                order=(order, first + i),
                rewards=rewards[first + i].tolist(),
                logprobs=None if logprobs is None else logprobs[i],
                loss_mask=None if masks is None else masks[i],
                log_columns={name: values[i] for name, values in columns.items()},
            )
            for i in range(per_process)
            if keep[first + i]
        ]
        self._example = prompt_ids[0], completion_ids[0]
        return kept, _Numbers(
            lengths=everyones[:, 0],
            truncated=everyones[:, 1],
            accuracy=everyones[:, 2],
            totals=trainer.columns.total(rewards),
            kept=keep,
        )

    def _check(self, sampler: DynamicSampler, numbers: _Numbers) -> None:
        total = len(numbers.totals)
        if numbers.totals.isnan().all():
            raise RewardError(
                f"none of the {total} completions of this rollout batch could be scored: every reward is None or NaN. "
                "Look at the reward function (a None or NaN means: this completion cannot be scored), or at the "
                "environment's infra_failure."
            )
        if sampler.counts.unscorable == sampler.counts.sampled:
            raise RewardError(
                f"filter_key is {self.args.filter_key!r}, and it is None or NaN for all {total} completions of this "
                "rollout batch: filter on a score that every completion has."
            )
        if not sampler.enough and self.args.on_refill_limit == "raise":
            raise RefillLimitError(
                f"step {self.trainer.state.global_step}: {sampler.explain()} (on_refill_limit is 'raise'; 'train' goes "
                "on with the informative groups there are.)"
            )

    def _deal(self, kept: list[Rollout]) -> RolloutBatch:
        """Hand every process an equal share of the kept rows, groups in the order they were sampled."""
        processes, size = self.accelerator.num_processes, self.args.num_generations
        everyone: list[Rollout] = gather_object(kept) if processes > 1 else kept
        everyone = sorted(everyone, key=lambda rollout: rollout.order)
        total = self._divisible(len(everyone) // size) * size
        rewards = torch.tensor([rollout.rewards for rollout in everyone], device=self.accelerator.device)
        share = total // processes
        first = self.accelerator.process_index * share
        return RolloutBatch(
            share=[everyone[row % len(everyone)] for row in range(first, first + share)],
            real=min(max(len(everyone) - first, 0), share),
            first=first,
            rewards=rewards[torch.arange(total, device=rewards.device) % len(everyone)],
            totals=self.trainer.columns.total(rewards),
        )

    def _log(self, sampler: DynamicSampler, numbers: _Numbers, seconds: float) -> None:
        lengths, counts, metrics = numbers.lengths, sampler.counts, self.trainer._metrics["train"]
        ended = lengths[numbers.truncated == 0]
        ended = ended if ended.numel() else torch.zeros(1)
        values: dict[str, Any] = {
            "completions/mean_length": lengths.mean(),
            "completions/min_length": lengths.min(),
            "completions/max_length": lengths.max(),
            "completions/clipped_ratio": numbers.truncated.mean(),
            "completions/mean_terminated_length": ended.mean(),
            "completions/min_terminated_length": ended.min(),
            "completions/max_terminated_length": ended.max(),
            "accuracy/sampled": numbers.accuracy.nanmean(),
            "accuracy/trained": numbers.accuracy[numbers.kept].nanmean(),
            "reward/sampled": numbers.totals.nanmean(),
            "groups/sampled": counts.sampled,
            "groups/kept": counts.kept,
            "groups/all_wrong": counts.all_wrong,
            "groups/all_right": counts.all_right,
            "groups/constant": counts.constant,
            "groups/unscorable": counts.unscorable,
            "sampling/refill_rounds": sampler.refill_rounds,
            "sampling/unscorable": numbers.totals.isnan().float().mean(),
            "time/rollout": seconds,
            "throughput/tokens_per_second": lengths.sum() / seconds,
        }
        for name, value in values.items():
            metrics[name].append(float(value))
        metrics["sampling/prompts"] = [float(self.trainer.prompts.consumed)]  # running totals: the last one counts
        metrics["sampling/epochs"] = [self.trainer.prompts.epochs]


def _shortened(text: str, length: int) -> str:
    """At most ``length`` characters of a text, with an ellipsis for what is left out of its middle."""
    half = (length - 5) // 2
    return text if len(text) <= length else f"{text[:half]} ... {text[-half:]}"
