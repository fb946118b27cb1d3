"""Collecting one rollout batch: rounds of sampling until enough groups are informative (dynamic sampling, eq. 11).

Every decision rests on values that all processes have alike, so they take the same number of rounds and end with the
same groups.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather, gather_object

from envs.text import shortened

from ..algorithm import informative_groups
from ..config import DAPOConfig
from ..errors import RefillLimitError, RewardError
from ..prompts.selector import Choice
from ..rollout.environments import question_of
from ..rollout.rewards import Scorer, Scores
from ..rollout.types import Group, Rollout, Sampled
from .group_filter import DynamicSampler
from .state import SamplingState
from .statistics import MAX_LEVELS, RoundStatistics, verdict_number

MAX_UNSCORED_BATCHES = 3
"""Consecutive rollout batches without a single score that end the run: a judge may be out of order for a while."""


class RunLog(Protocol):
    """The run as a collector sees it: how far it is, and where numbers and lines go."""

    @property
    def step(self) -> int:
        """Optimizer steps taken."""

    def log(self, values: dict[str, Any]) -> None:
        """Record metrics, to be averaged."""

    def log_last(self, values: dict[str, Any]) -> None:
        """Record running totals."""

    def warn(self, line: str) -> None:
        """Print a line."""


class DroppedRecorder(Protocol):
    """Keeps some completions of dropped groups, for a person to read."""

    def wanted_dropped(self, names: Sequence[str]) -> list[int]:
        """The groups of a round to keep a completion of, by the filter's decision on each."""

    def add_dropped(self, rollout: Rollout) -> None:
        """Keep a completion."""


@dataclass
class Observers:
    """Onlookers of a run; they change nothing of it."""

    on_activity: Callable[[str], None] = lambda activity: None
    """Called with what goes on within a step, for a progress bar."""
    on_round: Callable[[str], None] = lambda line: None
    """Called with a line about each round of sampling, when it is over."""
    recorder: Any = None
    """Keeps some rollouts to be read; a `monitor.rollout_recorder.RolloutRecorder`."""


@dataclass
class RolloutBatch:
    """The groups of one rollout batch; the same on every process."""

    kept: list[Group]
    """Surplus of earlier batches."""
    fresh: list[Group]
    """Informative groups sampled for this batch, in order."""
    surplus: list[Group]
    """Informative groups beyond it, for the surplus buffer."""
    sampler: DynamicSampler


@dataclass
class Draw:
    """The prompts of one round."""

    choice: Choice
    prompts: list[dict[str, Any]]
    """One row for each group, the same on every process."""
    rows: list[dict[str, Any]]
    """``[n]``: ``num_generations`` rows for each prompt, this process's share of them."""
    first: int
    """Place of this process's first row among those of all processes. A group may lie on two processes."""
    numbers: range
    """``[n]``: which completion of the run each row is, counted over all processes and rounds."""


@dataclass
class Decisions:
    """The filter's decisions on the groups of one round, and the numbers that they rest on; all processes alike."""

    names: list[str]
    """For each group the field of `GroupCounts` it was counted in."""
    statistics: RoundStatistics
    kept: list[bool]
    """For each group, whether it is informative."""


class RolloutCollector:
    """Fills rollout batches.

    Args:
        args: The settings of the run.
        accelerator: Its processes.
        sample: Samples completions for rows and their numbers; see `EnvironmentSource.sample`.
        scorer: Judges and rewards them.
        state: The state of dynamic sampling.
        run: The run's progress and log.
        session: A context for all sampling of one rollout batch, during which the policy stays the same.
        decode: Turns token ids into text, to show a person.
        observers: Onlookers.
    """

    def __init__(
        self,
        args: DAPOConfig,
        accelerator: Accelerator,
        *,
        sample: Callable[[list[dict[str, Any]], range], Sampled],
        scorer: Scorer,
        state: SamplingState,
        run: RunLog,
        session: Callable[[], AbstractContextManager[None]],
        decode: Callable[[list[int]], str],
        observers: Observers,
    ):
        self.args, self.accelerator = args, accelerator
        self.scorer, self.state, self.run, self.observers = scorer, state, run, observers
        self._sample, self._session, self._decode = sample, session, decode
        self._example: tuple[dict[str, Any], list[int]] = ({"prompt": ""}, [])
        self._last_reason = ""
        self._levels: set[str] = set()
        self._unscored = 0
        """Rollout batches without a score, since the last one with a score."""

    def fill(self) -> RolloutBatch:
        """Take the surplus of earlier batches, then sample rounds until the sampler accepts. The batch may be empty.

        Raises:
            RefillLimitError: Too few informative groups at the limit and ``on_refill_limit`` is ``"raise"``.
            RewardError: Not one completion could be scored, in `MAX_UNSCORED_BATCHES` rollout batches in a row.
        """
        started = time.perf_counter()
        kept = self._from_surplus()
        sampler = DynamicSampler(
            target=self.args.groups_per_rollout,
            rule=self.args.group_filter,
            min_valid_fraction=self.args.min_valid_fraction,
            max_refill_rounds=self.args.max_refill_rounds,
            banked=len(kept),
        )
        rounds: list[RoundStatistics] = []
        groups: list[Group] = []
        with self._session() if sampler.missing else contextlib.nullcontext():
            while missing := sampler.missing:
                found, statistics = self._round(missing, sampler)
                groups += found
                rounds.append(statistics)
                still = f", {sampler.missing} still to sample for" if sampler.missing else ""
                self.observers.on_round(
                    f"round {sampler.rounds} of at most {self.args.max_refill_rounds + 1}: {len(found)} of "
                    f"{len(statistics.levels)} groups informative{still}"
                )
        self.observers.on_activity("updating")
        self.state.selector.tick()
        needed = sampler.used - sampler.banked
        room = needed + self.state.surplus.room
        batch = RolloutBatch(kept, groups[:needed], groups[needed:room], sampler)
        self._enter_informative(batch, groups[room:])
        if rounds:
            statistics = RoundStatistics.of(rounds)
            self._log_rounds(statistics, time.perf_counter() - started)
            self._check(sampler, statistics)
        self._log(batch)
        if not sampler.used:
            self._explain(sampler)
        return batch

    # One round

    def _round(self, missing: int, sampler: DynamicSampler) -> tuple[list[Group], RoundStatistics]:
        """One round of sampling in eight steps: the informative groups of all processes, and the round in numbers.

        Args:
            missing: Informative groups that the round should yield.
        """
        started = time.perf_counter()
        draw = self._draw(missing, sampler)
        sampled = self._generate(draw, sampler)
        outcomes = self.scorer.judge(draw.rows, sampled)
        scores = self.scorer.score(draw.rows, sampled, outcomes, draw.first)
        decisions = self._filter(draw, sampled, scores, sampler)
        rollouts = self._keep(draw, sampled, scores, decisions)
        self._record(draw, sampled, scores, decisions)
        groups = self._count(rollouts, decisions, time.perf_counter() - started)
        return groups, decisions.statistics

    def _draw(self, missing: int, sampler: DynamicSampler) -> Draw:
        most = sampler.target if sampler.rule == "none" else self.args.groups_per_round
        return self.draw(missing, sampler.least, most)

    def draw(self, missing: int, least: int, most: int) -> Draw:
        """Take the prompts of one round from the stream: the main process chooses, all read the same rows.

        Args:
            missing: Informative groups that the round should yield.
            least, most: Bounds on its prompts.
        """
        selector, size, processes = self.state.selector, self.args.num_generations, self.accelerator.num_processes
        choice = None
        if self.accelerator.is_main_process:
            choice = selector.choose(
                missing, at_least=least, at_most=most, multiple=self._multiple(), sigmas=self.args.refill_sigmas
            )
        if processes > 1:
            [choice] = broadcast_object_list([choice])
        assert choice is not None
        before = selector.drawn * size
        prompts = selector.take(choice)
        rows = [dict(prompt) for prompt in prompts for _ in range(size)]
        share = len(rows) // processes
        first = self.accelerator.process_index * share
        return Draw(choice, prompts, rows[first : first + share], first, range(before + first, before + first + share))

    def _multiple(self) -> int:
        """The smallest number of groups whose rows divide evenly among the processes."""
        sizes = itertools.count(1)
        return next(n for n in sizes if n * self.args.num_generations % self.accelerator.num_processes == 0)

    def _generate(self, draw: Draw, sampler: DynamicSampler) -> Sampled:
        self.observers.on_activity(f"sampling, round {sampler.rounds + 1}: {len(draw.prompts)} groups")
        sampled = self._sample(draw.rows, draw.numbers)
        self._example = draw.rows[0], sampled.completion_ids[0]
        return sampled

    def _filter(self, draw: Draw, sampled: Sampled, scores: Scores, sampler: DynamicSampler) -> Decisions:
        """Decide which groups are informative, from the numbers of all processes; the selector learns from it."""
        size, columns = self.args.num_generations, self.scorer.columns
        none = [-1] * len(draw.rows)
        verdicts = none if scores.outcomes is None else [verdict_number(one.verdict) for one in scores.outcomes]
        local = torch.tensor([sampled.lengths, sampled.truncated, verdicts]).to(scores.accuracy)
        everyones = gather(torch.cat([local, scores.accuracy.unsqueeze(0)]).T.contiguous())
        totals = columns.total(scores.rewards)
        compared = columns.scores(scores.rewards, everyones[:, 3], self.args.filter_key).view(-1, size)
        names = sampler.add(compared, truncated=int(everyones[:, 1].sum()))
        kept = torch.tensor([name == "kept" for name in names], device=totals.device)
        self.state.selector.observe(draw.choice, draw.prompts, compared.cpu().double().numpy(), kept.cpu().numpy())
        statistics = RoundStatistics(
            lengths=everyones[:, 0],
            truncated=everyones[:, 1],
            accuracy=compared.flatten() if scores.outcomes is None else everyones[:, 3],
            totals=totals,
            verdicts=everyones[:, 2].int(),
            kept=kept.repeat_interleave(size),
            shaped=(informative_groups(totals.view(-1, size)) & ~kept).repeat_interleave(size),
            levels=[prompt.get("level") for prompt in draw.prompts],
        )
        return Decisions(names, statistics, kept.tolist())

    def _keep(self, draw: Draw, sampled: Sampled, scores: Scores, decisions: Decisions) -> list[Rollout]:
        """The completions of informative groups, of all processes, in order."""
        unscorable = decisions.statistics.totals.isnan().tolist()
        mine = [
            self._rollout(i, draw, sampled, scores, self._account(sampled.truncated[i], unscorable[draw.first + i]))
            for i in range(len(draw.rows))
            if decisions.kept[(draw.first + i) // self.args.num_generations]
        ]
        everyones = gather_object(mine) if self.accelerator.num_processes > 1 else mine
        return sorted(everyones, key=lambda rollout: rollout.order)

    def _record(self, draw: Draw, sampled: Sampled, scores: Scores, decisions: Decisions) -> None:
        """Show the recorder a completion of some dropped groups."""
        recorder: DroppedRecorder | None = self.observers.recorder
        if recorder is None:
            return
        for group in recorder.wanted_dropped(decisions.names):
            i = group * self.args.num_generations - draw.first
            if 0 <= i < len(draw.rows):
                recorder.add_dropped(self._rollout(i, draw, sampled, scores, decisions.names[group]))

    def _count(self, rollouts: list[Rollout], decisions: Decisions, seconds: float) -> list[Group]:
        """Enter the dropped groups in the ledger; the kept ones are entered once their place is known."""
        size, statistics = self.args.num_generations, decisions.statistics
        each = seconds / max(float(statistics.lengths.sum()), 1.0)
        tokens = statistics.lengths.view(-1, size).sum(dim=1).int().tolist()
        for name, count, shaped in zip(decisions.names, tokens, statistics.shaped[::size].tolist(), strict=True):
            if name != "kept":
                self.state.ledger.enter("shaping_only" if shaped else name, count, count * each)
        groups = [rollouts[i : i + size] for i in range(0, len(rollouts), size)]
        return [
            Group.of(group, seconds=each * sum(rollout.tokens for rollout in group), step=self.run.step)
            for group in groups
        ]

    def _rollout(self, i: int, draw: Draw, sampled: Sampled, scores: Scores, account: str) -> Rollout:
        """Completion ``i`` of this process."""
        return Rollout(
            row=draw.rows[i],
            prompt=draw.rows[i]["prompt"],
            completion=sampled.completions[i],
            prompt_ids=np.array(sampled.prompt_ids[i], dtype=np.int32),
            completion_ids=np.array(sampled.completion_ids[i], dtype=np.int32),
            order=draw.first + i,
            tokens=int(sampled.lengths[i]),
            account=account,
            logprobs=None if sampled.logprobs is None else sampled.logprobs[i],
            loss_mask=None if sampled.loss_masks is None else sampled.loss_masks[i],
            rewards=scores.rewards[draw.first + i].tolist(),
            outcome=None if scores.outcomes is None else scores.outcomes[i],
            log_columns={name: values[i] for name, values in scores.log_columns.items()},
        )

    def _account(self, truncated: bool, unscorable: bool) -> str:
        """The ledger's account of a completion once its group is trained on."""
        if unscorable:
            return "unscorable"
        return "truncated" if truncated and self.args.mask_truncated_completions else "trained"

    # The surplus of earlier batches, and the ledger

    def _from_surplus(self) -> list[Group]:
        ledger, surplus = self.state.ledger, self.state.surplus
        for group in surplus.expire(self.run.step):
            ledger.enter("surplus_kept", -sum(group.tokens), -group.seconds)
            ledger.enter("surplus_expired", sum(group.tokens), group.seconds)
        taken = surplus.take(self.args.groups_per_rollout)
        for group in taken:
            ledger.enter("surplus_kept", -sum(group.tokens), -group.seconds)
            ledger.enter_rows(group.accounts, group.tokens, group.seconds)
        return taken

    def _enter_informative(self, batch: RolloutBatch, excess: list[Group]) -> None:
        ledger = self.state.ledger
        for group in batch.fresh:
            ledger.enter_rows(group.accounts, group.tokens, group.seconds)
        for account, groups in (("surplus_kept", batch.surplus), ("surplus_expired", excess)):
            for group in groups:
                ledger.enter(account, sum(group.tokens), group.seconds)

    # Checks, metrics and words

    def _check(self, sampler: DynamicSampler, statistics: RoundStatistics) -> None:
        reason = self._why_unscored(sampler, statistics)
        self._unscored = self._unscored + 1 if reason else 0
        if self._unscored >= MAX_UNSCORED_BATCHES:
            raise RewardError(f"{reason} So it was in {self._unscored} rollout batches in a row.")
        if reason:
            self.run.warn(f"step {self.run.step}: {reason}")
        if not sampler.enough and self.args.on_refill_limit == "raise":
            raise RefillLimitError(
                f"step {self.run.step}: {sampler.explain()} (on_refill_limit is 'raise'; 'train' goes on with the "
                "informative groups there are.)"
            )

    def _why_unscored(self, sampler: DynamicSampler, statistics: RoundStatistics) -> str:
        """Why a rollout batch has no score at all; empty if it has one."""
        total = len(statistics.totals)
        if statistics.totals.isnan().all():
            return (
                f"none of the {total} completions of this rollout batch could be scored: every reward is None or NaN. "
                "Look at the reward function (a None or NaN means: this completion cannot be scored), or at the "
                "environment's infra_failure."
            )
        if sampler.counts.unscorable == sampler.counts.sampled:
            return (
                f"filter_key is {self.args.filter_key!r}, and it is None or NaN for all {total} completions of this "
                "rollout batch: filter on a score that every completion has."
            )
        return ""

    def _log_rounds(self, statistics: RoundStatistics, seconds: float) -> None:
        """Log the sampled completions in numbers: nothing of it in a batch that surplus filled alone."""
        self.run.log(statistics.metrics(seconds))
        by_level = statistics.by_level()
        self._levels |= set(by_level)
        if len(self._levels) <= MAX_LEVELS:
            self.run.log(by_level)

    def _log(self, batch: RolloutBatch) -> None:
        sampler, counts = batch.sampler, batch.sampler.counts
        self.run.log(
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
        self.log_totals()

    def log_totals(self) -> None:
        """A rollout batch is complete: log the running totals."""
        self.state.rollout_batches += 1
        self.run.log_last(self.state.running_totals())

    def _explain(self, sampler: DynamicSampler) -> None:
        """Print in full why there is no update; the same reason once more in short."""
        line = f"step {self.run.step}: no update, nothing to learn from"
        if sampler.reason == self._last_reason:
            counts = sampler.counts
            line += f" ({counts.all_wrong} all wrong, {counts.all_right} all correct of {counts.sampled})."
        else:
            line += f". {sampler.explain()} A completion: {self._glimpse()}"
        self.run.warn(line)
        self._last_reason = sampler.reason

    def _glimpse(self) -> str:
        """A question and a completion of the last round, shortened, to show a person."""
        row, completion = self._example
        return f"{shortened(question_of(row), 100)!r} -> {shortened(self._decode(completion), 160)!r}"
