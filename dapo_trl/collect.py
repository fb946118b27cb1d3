"""Collecting one rollout batch: TRL generates and scores, the sampler decides, kept rows are dealt to the processes.

Every decision rests on values gathered from all processes, so they take the same number of rounds.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
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


@dataclass
class _Round:
    """One round of generation: this process's rollouts, and numbers of all ``n * G`` rows of all processes."""

    rollouts: list[Rollout]
    lengths: Tensor
    truncated: Tensor
    accuracy: Tensor
    totals: Tensor
    scores: Tensor
    """``[n, G]``: what the filter looks at"""
    kept: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))


class RolloutCollector:
    """Fills rollout batches for a `DAPOTrainer`."""

    def __init__(self, trainer: DAPOTrainer):
        self.trainer = trainer
        self.args = trainer.args
        self.accelerator = trainer.accelerator

    def fill(self) -> tuple[RolloutBatch | None, DynamicSampler]:
        """Sample rounds until the sampler is content. None instead of a batch when no group is informative.

        Raises:
            RefillLimitError: too few informative groups at the limit and ``on_refill_limit`` is ``"raise"``.
            RewardError: not one completion could be scored.
        """
        started = time.perf_counter()
        sampler: DynamicSampler[int] = DynamicSampler(
            target=self.args.groups_per_rollout,
            rule=self.args.group_filter,
            min_valid_fraction=self.args.min_valid_fraction,
            max_refill_rounds=self.args.max_refill_rounds,
        )
        rounds: list[_Round] = []
        kept: list[Rollout] = []
        size = self.args.num_generations
        while wanted := sampler.groups_wanted():
            self.trainer.on_activity(f"sampling, round {sampler.rounds + 1}: {wanted} groups")
            current = self._round(self._divisible(wanted), number=len(rounds))
            keep = sampler.add(list(range(len(current.scores))), current.scores)
            current.kept = torch.tensor(keep, device=current.accuracy.device).repeat_interleave(size)
            kept += [rollout for rollout in current.rollouts if keep[rollout.order[1] // size]]
            rounds.append(current)
        self._log(sampler, rounds, time.perf_counter() - started)
        self._check(sampler)
        self.trainer.on_activity("updating")
        return (self._deal(kept) if sampler.kept else None), sampler

    def _divisible(self, groups: int) -> int:
        """The next number of groups whose rows divide evenly among the processes."""
        while groups * self.args.num_generations % self.accelerator.num_processes:
            groups += 1
        return groups

    def _round(self, groups: int, number: int) -> _Round:
        trainer, size = self.trainer, self.args.num_generations
        rows = [dict(row) for row in trainer.prompts.take(groups) for _ in range(size)]
        per_process = len(rows) // self.accelerator.num_processes
        first = self.accelerator.process_index * per_process
        rows = rows[first : first + per_process]
        prompts = [row["prompt"] for row in rows]

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
            if not name.startswith("completions/"):  # these are logged below, over all rounds
                previous[name].extend(values)

        prompt_ids, completion_ids, masks, completions, logprobs, extra, _, _ = generated
        for name, values in extra.items():
            for i, row in enumerate(rows):
                row[name] = values[i] if isinstance(values, list) else values
        rewards = trainer._calculate_rewards(rows, prompts, completions, completion_ids)
        columns = {name: list(values) for name, values in trainer._pending_extra_logs.items()}
        trainer._pending_extra_logs.clear()

        truncated = [ids[-1] not in trainer.stop_ids for ids in completion_ids]
        numbers = torch.tensor(
            [[len(ids), cut] for ids, cut in zip(completion_ids, truncated, strict=True)],
            dtype=torch.float32,
            device=self.accelerator.device,
        )
        accuracy = trainer.accuracy_of(rewards[first : first + per_process])
        numbers = gather(torch.cat([numbers, accuracy.unsqueeze(1)], dim=1))
        scores = trainer.columns.scores(rewards, numbers[:, 2], self.args.filter_key)
        mine = rewards[first : first + per_process].tolist()
        rollouts = [
            Rollout(
                row=rows[i],
                prompt=prompts[i],
                completion=completions[i],
                prompt_ids=prompt_ids[i],
                completion_ids=completion_ids[i],
                order=(number, first + i),
                accuracy=float(accuracy[i]),
                rewards=mine[i],
                logprobs=None if logprobs is None else logprobs[i],
                loss_mask=None if masks is None else masks[i],
                log_columns={name: values[i] for name, values in columns.items()},
            )
            for i in range(per_process)
        ]
        return _Round(
            rollouts=rollouts,
            lengths=numbers[:, 0],
            truncated=numbers[:, 1],
            accuracy=numbers[:, 2],
            totals=trainer.columns.total(rewards),
            scores=scores.view(-1, size),
        )

    def _check(self, sampler: DynamicSampler) -> None:
        counts = sampler.counts
        if counts.unscorable == counts.sampled:
            raise RewardError(
                f"none of the {counts.sampled * self.args.num_generations} completions of this rollout batch could be "
                "scored: every reward is None or NaN. Look at the reward function (a None or NaN means: this "
                "completion cannot be scored), or at the environment's infra_failure."
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

    def _log(self, sampler: DynamicSampler, rounds: list[_Round], seconds: float) -> None:
        lengths, truncated, accuracy, totals, kept = (
            torch.cat([getattr(current, name) for current in rounds])
            for name in ("lengths", "truncated", "accuracy", "totals", "kept")
        )
        ended = lengths[truncated == 0]
        ended = ended if ended.numel() else torch.zeros(1)
        counts, prompts = sampler.counts, self.trainer.prompts
        values: dict[str, Any] = {
            "completions/mean_length": lengths.mean(),
            "completions/min_length": lengths.min(),
            "completions/max_length": lengths.max(),
            "completions/clipped_ratio": truncated.mean(),
            "completions/mean_terminated_length": ended.mean(),
            "completions/min_terminated_length": ended.min(),
            "completions/max_terminated_length": ended.max(),
            "accuracy/sampled": accuracy.nanmean(),
            "accuracy/trained": accuracy[kept].nanmean(),
            "reward/sampled": totals.nanmean(),
            "groups/sampled": counts.sampled,
            "groups/kept": counts.kept,
            "groups/all_wrong": counts.all_wrong,
            "groups/all_right": counts.all_right,
            "groups/constant": counts.constant,
            "groups/unscorable": counts.unscorable,
            "sampling/refill_rounds": sampler.refill_rounds,
            "sampling/prompts": prompts.consumed,
            "sampling/epochs": prompts.epochs,
            "sampling/unscorable": totals.isnan().float().mean(),
            "time/rollout": seconds,
            "throughput/tokens_per_second": lengths.sum() / seconds,
        }
        for name, value in values.items():
            self.trainer._metrics["train"][name].append(float(value))
