"""Collecting one rollout batch: prompts are drawn, TRL generates and scores, the sampler decides, until it is full.

Every decision rests on values that all processes have alike, so they take the same number of rounds and end with the
same groups.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list, gather, gather_object

from ..algorithm import informative_groups
from ..errors import NonFiniteError, RefillLimitError, RewardError
from ..generation.vllm import kept_awake
from ..prompts.selector import Choice
from ..rollout.episode import Outcome
from ..rollout.trl_bridge import Rollout
from ..update.batching import Batch, loss_mask
from .group_filter import DynamicSampler
from .statistics import MAX_LEVELS, RoundStatistics, verdict_number
from .surplus import BankedGroup

if TYPE_CHECKING:
    from ..trainer import DAPOTrainer


@dataclass
class Group:
    """The completions of one prompt, as they were sampled."""

    rollouts: list[Rollout]
    """``[G]``"""
    seconds: float
    """of generating and scoring it: its share of its round, by tokens"""

    @property
    def tokens(self) -> list[int]:
        return [rollout.tokens for rollout in self.rollouts]

    @property
    def fates(self) -> list[str]:
        return [rollout.fate for rollout in self.rollouts]


@dataclass
class RolloutBatch:
    """What one rollout batch is made of; the same on every process."""

    banked: list[BankedGroup]
    fresh: list[Group]
    """informative groups sampled for this batch, in order"""
    surplus: list[Group]
    """informative groups beyond it, for the bank"""
    sampler: DynamicSampler


class RolloutCollector:
    """Fills rollout batches for a `DAPOTrainer`."""

    def __init__(self, trainer: DAPOTrainer):
        self.trainer = trainer
        self.args = trainer.args
        self.accelerator = trainer.accelerator
        self._example: tuple[list[int], list[int]] = ([], [])
        self._last_advice = ""
        self._levels: set[str] = set()

    def fill(self) -> RolloutBatch:
        """Take what the bank has, then sample rounds until the sampler is content. The batch may be empty.

        Raises:
            RefillLimitError: too few informative groups at the limit and ``on_refill_limit`` is ``"raise"``.
            RewardError: not one completion could be scored.
        """
        started = time.perf_counter()
        banked = self._from_bank()
        sampler = DynamicSampler(
            target=self.args.groups_per_rollout,
            rule=self.args.group_filter,
            min_valid_fraction=self.args.min_valid_fraction,
            max_refill_rounds=self.args.max_refill_rounds,
            banked=len(banked),
        )
        rounds: list[RoundStatistics] = []
        groups: list[Group] = []
        with kept_awake(self.trainer) if sampler.missing else contextlib.nullcontext():
            while missing := sampler.missing:
                found, numbers = self._round(missing, sampler)
                groups += found
                rounds.append(numbers)
        self.trainer.on_activity("updating")
        self.trainer.sampling.selector.tick()
        needed = sampler.used - sampler.banked
        room = needed + self.trainer.sampling.bank.room
        batch = RolloutBatch(banked, groups[:needed], groups[needed:room], sampler)
        self._enter_kept(batch, groups[room:])
        if rounds:
            numbers = RoundStatistics.of(rounds)
            self._log_round(numbers, time.perf_counter() - started)
            self._check(sampler, numbers)
        self._log(batch)
        if not sampler.used:
            self._explain(sampler)
        return batch

    def unfiltered(self) -> Batch:
        """One rollout batch as TRL makes it, for episodes that cannot be replayed; every group is trained on."""
        started, trainer, groups = time.perf_counter(), self.trainer, self.args.groups_per_rollout
        _, prompts = self.draw(groups, groups, groups)
        mine, _ = self.share_of(prompts)
        batch = trainer._generate_and_score_completions(mine)
        masked = batch["completion_mask"].sum(dim=1) == 0
        cut = (batch["completion_ids"][masked] != trainer._tokenizer.pad_token_id).sum()
        tokens = self.accelerator.reduce(torch.stack([loss_mask(batch).sum(), cut])).tolist()
        seconds = time.perf_counter() - started
        trainer.sampling.ledger.enter_rows(["trained", "truncated"], [int(count) for count in tokens], seconds)
        self._log_totals()
        return batch

    def _explain(self, sampler: DynamicSampler) -> None:
        """Say in full why there is no update; the same reason once more in short."""
        line = f"step {self.trainer.state.global_step}: no update, nothing to learn from"
        if sampler.advice == self._last_advice:
            counts = sampler.counts
            line += f" ({counts.all_wrong} all wrong, {counts.all_right} all right of {counts.sampled})."
        else:
            line += f". {sampler.explain()} A completion: {self._glimpse()}"
        self.trainer.warn(line)
        self._last_advice = sampler.advice

    def _glimpse(self) -> str:
        """A prompt and a completion of the last round, shortened, to show a person."""
        prompt, completion = (self.trainer._tokenizer.decode(ids, skip_special_tokens=True) for ids in self._example)
        return f"{_shortened(prompt, 100)!r} -> {_shortened(completion, 160)!r}"

    def draw(self, missing: int, least: int, most: int) -> tuple[Choice, list[dict[str, Any]]]:
        """Take the prompts of one round from the stream: the main process chooses, all read the same rows.

        Args:
            missing: informative groups that the round should yield.
            least, most: bounds on its prompts.
        """
        selector = self.trainer.sampling.selector
        choice = None
        if self.accelerator.is_main_process:
            choice = selector.choose(
                missing, at_least=least, at_most=most, multiple=self._multiple(), sigmas=self.args.refill_sigmas
            )
        if self.accelerator.num_processes > 1:
            [choice] = broadcast_object_list([choice])
        assert choice is not None
        return choice, selector.take(choice)

    def share_of(self, prompts: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
        """``num_generations`` rows of each prompt: those that this process generates, and the position of its first
        row among all. A group may lie on two processes."""
        rows = [dict(prompt) for prompt in prompts for _ in range(self.args.num_generations)]
        share = len(rows) // self.accelerator.num_processes
        first = self.accelerator.process_index * share
        return rows[first : first + share], first

    def _multiple(self) -> int:
        """The smallest number of groups whose rows divide evenly among the processes."""
        sizes = itertools.count(1)
        return next(n for n in sizes if n * self.args.num_generations % self.accelerator.num_processes == 0)

    def _from_bank(self) -> list[BankedGroup]:
        trainer, ledger = self.trainer, self.trainer.sampling.ledger
        for group in trainer.sampling.bank.expire(trainer.state.global_step):
            ledger.enter("surplus_kept", -sum(group.tokens), -group.seconds)
            ledger.enter("surplus_expired", sum(group.tokens), group.seconds)
        banked = trainer.sampling.bank.take(self.args.groups_per_rollout)
        for group in banked:
            ledger.enter("surplus_kept", -sum(group.tokens), -group.seconds)
            ledger.enter_rows(group.fates, group.tokens, group.seconds)
        return banked

    def _round(self, missing: int, sampler: DynamicSampler) -> tuple[list[Group], RoundStatistics]:
        """Generate, score and filter: everybody's informative groups and numbers."""
        started = time.perf_counter()
        trainer, size = self.trainer, self.args.num_generations
        most = sampler.target if sampler.rule == "none" else self.args.groups_per_round
        choice, shown = self.draw(missing, sampler.least, most)
        trainer.on_activity(f"sampling, round {sampler.rounds + 1}: {len(shown)} groups")
        rows, first = self.share_of(shown)
        per_process, prompts = len(rows), [row["prompt"] for row in rows]
        prompt_ids, completion_ids, masks, completions, logprobs, extra, _, _ = self._generate(rows, prompts)
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
        cut = [
            row["cut_off"] if "cut_off" in extra else ids[-1] not in trainer.stop_ids
            for row, ids in zip(rows, completion_ids, strict=True)
        ]
        accuracy = trainer.accuracy_of(rewards[first : first + per_process])
        outcomes: Sequence[Outcome | None] = trainer.outcomes or [None] * per_process
        verdicts = [-1 if outcome is None else verdict_number(outcome.verdict) for outcome in outcomes]
        local = torch.tensor([lengths, cut, verdicts]).to(accuracy)
        everyones = gather(torch.cat([local, accuracy.unsqueeze(0)]).T.contiguous())
        totals = trainer.columns.total(rewards)
        scores = trainer.columns.scores(rewards, everyones[:, 3], self.args.filter_key).view(-1, size)
        names = sampler.add(scores)
        kept = torch.tensor([name == "kept" for name in names], device=rewards.device)
        trainer.sampling.selector.observe(choice, shown, scores.cpu().double().numpy(), kept.cpu().numpy())

        def rollout(i: int, fate: str) -> Rollout:
            return Rollout(
                row=rows[i],
                prompt=prompts[i],
                completion=completions[i],
                prompt_ids=np.array(prompt_ids[i], dtype=np.int32),
                completion_ids=np.array(completion_ids[i], dtype=np.int32),
                order=first + i,
                rewards=rewards[first + i].tolist(),
                outcome=outcomes[i],
                logprobs=None if logprobs is None else logprobs[i],
                loss_mask=None if masks is None else masks[i],
                log_columns={name: values[i] for name, values in columns.items()},
                tokens=int(lengths[i]),
                fate=fate,
            )

        mine = [
            rollout(i, self._fate(cut[i], bool(totals[first + i].isnan())))
            for i in range(per_process)
            if kept[(first + i) // size]
        ]
        if trainer.recorder is not None:
            for group in trainer.recorder.wanted_dropped(names):
                if first <= group * size < first + per_process:
                    trainer.recorder.add_dropped(rollout(group * size - first, names[group]))
        self._example = prompt_ids[0], completion_ids[0]
        numbers = RoundStatistics(
            lengths=everyones[:, 0],
            truncated=everyones[:, 1],
            accuracy=everyones[:, 3],
            totals=totals,
            verdicts=everyones[:, 2].int(),
            kept=kept.repeat_interleave(size),
            shaped=(informative_groups(totals.view(-1, size)) & ~kept).repeat_interleave(size),
            levels=[prompt.get("level") for prompt in shown],
        )
        everyone = sorted(self._everyones(mine), key=lambda rollout: rollout.order)
        seconds = (time.perf_counter() - started) / max(float(numbers.lengths.sum()), 1.0)
        self._enter_dropped(names, numbers, seconds)
        groups = [everyone[i : i + size] for i in range(0, len(everyone), size)]
        return [Group(group, seconds * sum(rollout.tokens for rollout in group)) for group in groups], numbers

    def _generate(self, rows: list[dict[str, Any]], prompts: list[Any]) -> Any:
        """TRL's generation; its metrics of the lengths are left out, ours cover all rounds."""
        trainer = self.trainer
        if trainer.env_rollout is not None:
            trainer.env_rollout.rows = rows
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
            elif not name.startswith("completions/"):
                previous[name].extend(values)
        return generated

    def _everyones(self, mine: list[Rollout]) -> list[Rollout]:
        return gather_object(mine) if self.accelerator.num_processes > 1 else mine

    def _fate(self, cut: bool, unscorable: bool) -> str:
        """What a completion's tokens are in the ledger once its group is trained on."""
        if unscorable:
            return "unscorable"
        return "truncated" if cut and self.args.mask_truncated_completions else "trained"

    def _enter_dropped(self, names: list[str], numbers: RoundStatistics, seconds_per_token: float) -> None:
        size = self.args.num_generations
        tokens = numbers.lengths.view(-1, size).sum(dim=1).int().tolist()
        for name, count, shaped in zip(names, tokens, numbers.shaped[::size].tolist(), strict=True):
            if name != "kept":
                self.trainer.sampling.ledger.enter("shaping_only" if shaped else name, count, count * seconds_per_token)

    def _enter_kept(self, batch: RolloutBatch, excess: list[Group]) -> None:
        ledger = self.trainer.sampling.ledger
        for group in batch.fresh:
            ledger.enter_rows(group.fates, group.tokens, group.seconds)
        for fate, groups in (("surplus_kept", batch.surplus), ("surplus_expired", excess)):
            for group in groups:
                ledger.enter(fate, sum(group.tokens), group.seconds)

    def _check(self, sampler: DynamicSampler, numbers: RoundStatistics) -> None:
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

    def _log_round(self, numbers: RoundStatistics, seconds: float) -> None:
        """What the sampled completions were like: nothing of it in a batch that the bank filled alone."""
        self._append(numbers.metrics(seconds))
        by_level = numbers.by_level()
        self._levels |= set(by_level)
        if len(self._levels) <= MAX_LEVELS:
            self._append(by_level)

    def _log(self, batch: RolloutBatch) -> None:
        sampler, counts = batch.sampler, batch.sampler.counts
        self._append(
            {
                "groups/sampled": counts.sampled,
                "groups/kept": counts.kept,
                "groups/all_wrong": counts.all_wrong,
                "groups/all_right": counts.all_right,
                "groups/constant": counts.constant,
                "groups/unscorable": counts.unscorable,
                "groups/banked": sampler.banked,
                "groups/surplus": len(batch.surplus),
                "groups/trained": sampler.used,
                "sampling/refill_rounds": sampler.refill_rounds,
            }
        )
        self._log_totals()

    def _log_totals(self) -> None:
        trainer = self.trainer
        trainer.sampling.rollout_batches += 1
        for name, value in trainer.sampling.running_totals().items():
            trainer._metrics["train"][name] = [float(value)]  # the last one counts

    def _append(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            self.trainer._metrics["train"][name].append(float(value))


def _shortened(text: str, length: int) -> str:
    """At most ``length`` characters of a text, with an ellipsis for what is left out of its middle."""
    half = (length - 5) // 2
    return text if len(text) <= length else f"{text[:half]} ... {text[-half:]}"
