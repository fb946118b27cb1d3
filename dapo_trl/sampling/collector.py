"""Collecting one rollout batch: rounds of sampling until enough groups are informative (dynamic sampling, eq. 11).

Every decision rests on values that all processes have alike, so they take the same number of rounds and end with the
same groups.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather, gather_object, pad_across_processes
from torch import Tensor

from envs.text import shortened

from ..algorithm import informative_groups
from ..config import DAPOConfig
from ..errors import RefillLimitError, RewardError
from ..prompts.selector import Choice
from ..rollout.environments import question_of
from ..rollout.rewards import Scorer, Scores, padded_turns, turn_scores
from ..rollout.types import Group, Rollout, Sampled
from .group_filter import DynamicSampler, GroupCounts, explain, most_groups_each, reason
from .sources import Source
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
class Part:
    """One source's part of a rollout batch."""

    source: Source
    sampler: DynamicSampler
    kept: list[Group]
    """Surplus of earlier batches."""
    groups: list[Group] = field(default_factory=list)
    """Informative groups sampled for this batch, in order; surplus included."""
    rounds: list[RoundStatistics] = field(default_factory=list)

    @property
    def needed(self) -> int:
        """Number of the `groups` that the batch has room for."""
        return self.sampler.used - self.sampler.banked

    @property
    def fresh(self) -> list[Group]:
        return self.groups[: self.needed]

    @property
    def surplus(self) -> list[Group]:
        """Informative groups beyond the batch, for the surplus buffer."""
        return self.groups[self.needed : self.needed + self.source.surplus.room]

    @property
    def excess(self) -> list[Group]:
        """Informative groups that neither the batch nor the surplus buffer has room for."""
        return self.groups[self.needed + self.source.surplus.room :]


@dataclass
class RolloutBatch:
    """The groups of one rollout batch; the same on every process."""

    kept: list[Group]
    """Surplus of earlier batches."""
    fresh: list[Group]
    """Informative groups sampled for this batch, in order."""
    surplus: list[Group]
    """Informative groups beyond it, for the surplus buffer."""
    samplers: list[DynamicSampler]
    """Those of its sources."""


@dataclass
class Draw:
    """The prompts of one round: those of each source side by side."""

    choices: list[tuple[Part, Choice, range]]
    """For each source its choice, and the places of its groups in the round."""
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
        self._unscored: dict[str, int] = {}
        """Rollout batches without a score, since the last one with a score, by source."""

    def fill(self) -> RolloutBatch:
        """Take the surplus of earlier batches, then sample rounds until every source has filled its places, or reached
        its limit. The batch may be empty.

        Raises:
            RefillLimitError: Too few informative groups at the limit and ``on_refill_limit`` is ``"raise"``.
            RewardError: Not one completion could be scored, in `MAX_UNSCORED_BATCHES` rollout batches in a row.
        """
        started = time.perf_counter()
        parts = self._open()
        with self._session() if any(part.sampler.missing for part in parts) else contextlib.nullcontext():
            while wanting := [part for part in parts if part.sampler.missing]:
                statistics = self._round(wanting)
                still = sum(part.sampler.missing for part in parts)
                self.observers.on_round(
                    f"round {max(part.sampler.rounds for part in parts)} of at most {self.args.max_refill_rounds + 1}: "
                    f"{int(statistics.kept[:: statistics.group_size].sum())} of {len(statistics.levels)} groups "
                    f"informative{f', {still} still to sample for' if still else ''}"
                )
        self.observers.on_activity("updating")
        batch = RolloutBatch(
            kept=[group for part in parts for group in part.kept],
            fresh=[group for part in parts for group in part.fresh],
            surplus=[group for part in parts for group in part.surplus],
            samplers=[part.sampler for part in parts],
        )
        self._enter_informative(parts)
        self._log_rounds(parts, time.perf_counter() - started)
        for part in parts:
            self._check(part)
        self._close(parts)
        self._log(parts)
        if not batch.kept and not batch.fresh:
            self._explain(batch.samplers)
        return batch

    def _open(self) -> list[Part]:
        """Deal the places of the batch to the sources; each takes what surplus it has."""
        state, args = self.state, self.args
        active = state.taking_part()
        parts = []
        for source, places in zip(state.sources, state.quotas.deal(args.groups_per_rollout, active), strict=True):
            kept = self._from_surplus(source, places)
            sampler = DynamicSampler(
                target=places,
                rule=source.rule,
                min_valid_fraction=args.min_valid_fraction,
                max_refill_rounds=0 if source.rest.on_trial else args.max_refill_rounds,
                banked=len(kept),
            )
            parts.append(Part(source, sampler, kept))
        return parts

    def _close(self, parts: list[Part]) -> None:
        """The sources take in what came of the batch; one that has nothing to teach rests, if another has."""
        number = self.state.rollout_batches
        teaching = [part for part in parts if part.sampler.have]
        for part in parts:
            source, sampler = part.source, part.sampler
            source.selector.tick()
            source.counts += sampler.counts
            source.trained += sampler.used
            if sampler.target:
                source.solved.see(sampler)
                if source.rest.see(sampler, number, others_teach=any(other is not part for other in teaching)):
                    c = sampler.counts
                    self.run.warn(
                        f"step {self.run.step}: {source.name} has nothing to teach for now (of its last {c.sampled} "
                        f"groups {c.all_right} are all correct, {c.all_wrong} all wrong). The others take its share, "
                        f"and it is looked at again after {source.rest.length} rollout batches."
                    )

    # One round

    def _round(self, parts: list[Part]) -> RoundStatistics:
        """One round of sampling in eight steps, for the sources that have too few groups; the round in numbers."""
        started = time.perf_counter()
        draw = self._draw(parts)
        sampled = self._generate(draw)
        outcomes = self.scorer.judge(draw.rows, sampled)
        scores = self.scorer.score(draw.rows, sampled, outcomes, draw.first)
        decisions = self._filter(draw, sampled, scores)
        rollouts = self._keep(draw, sampled, scores, decisions)
        self._record(draw, sampled, scores, decisions)
        self._count(draw, rollouts, decisions, time.perf_counter() - started)
        return decisions.statistics

    def _draw(self, parts: list[Part]) -> Draw:
        """Take the prompts of one round from the streams: the main process chooses, all read the same rows."""
        size, processes = self.args.num_generations, self.accelerator.num_processes
        choices: list[Choice] = self._choose(parts) if self.accelerator.is_main_process else []
        if processes > 1:
            [choices] = broadcast_object_list([choices])
        before = self.state.drawn * size
        prompts: list[dict[str, Any]] = []
        chosen = []
        for part, choice in zip(parts, choices, strict=True):
            taken = part.source.selector.take(choice)
            chosen.append((part, choice, range(len(prompts), len(prompts) + len(taken))))
            prompts += taken
        rows = [dict(prompt) for prompt in prompts for _ in range(size)]
        share = len(rows) // processes
        first = self.accelerator.process_index * share
        return Draw(chosen, prompts, rows[first : first + share], first, range(before + first, before + first + share))

    def _choose(self, parts: list[Part]) -> list[Choice]:
        """The prompts of each source for one round."""
        most = most_groups_each([part.sampler for part in parts], self.args.groups_per_round)
        choices: list[Choice] = []
        for part, at_most in zip(parts, most, strict=True):
            sampler, is_last = part.sampler, part is parts[-1]
            choices.append(
                part.source.selector.choose(
                    sampler.missing,
                    at_least=sampler.least,
                    at_most=at_most,
                    multiple=self._multiple() if is_last else 1,
                    others=sum(len(choice.positions) for choice in choices),
                    sigmas=self.args.refill_sigmas,
                )
            )
        return choices

    def _multiple(self) -> int:
        """The smallest number of groups whose rows divide evenly among the processes."""
        sizes = itertools.count(1)
        return next(n for n in sizes if n * self.args.num_generations % self.accelerator.num_processes == 0)

    def _generate(self, draw: Draw) -> Sampled:
        number = max(part.sampler.rounds for part, _, _ in draw.choices) + 1
        self.observers.on_activity(f"sampling, round {number}: {len(draw.prompts)} groups")
        sampled = self._sample(draw.rows, draw.numbers)
        self._example = {**draw.rows[0], "prompt": sampled.prompts[0]}, sampled.completion_ids[0]
        return sampled

    def _filter(self, draw: Draw, sampled: Sampled, scores: Scores) -> Decisions:
        """Decide which groups are informative, from the numbers of all processes; the selectors learn from it."""
        size, columns = self.args.num_generations, self.scorer.columns
        none = [-1] * len(draw.rows)
        verdicts = none if scores.outcomes is None else [verdict_number(one.verdict) for one in scores.outcomes]
        local = torch.tensor([sampled.lengths, sampled.truncated, verdicts]).to(scores.accuracy)
        everyones = gather(torch.cat([local, scores.accuracy.unsqueeze(0)]).T.contiguous())
        totals = columns.total(scores.rewards)
        compared = columns.scores(scores.rewards, everyones[:, 3], self.args.filter_key).view(-1, size)
        to_go = self._scores_to_go(scores)
        truncated = everyones[:, 1].view(-1, size).sum(dim=1)
        names: list[str] = []
        for part, choice, groups in draw.choices:
            of = slice(groups.start, groups.stop)
            later = None if to_go is None else to_go[of]
            found = part.sampler.add(compared[of], to_go=later, truncated=int(truncated[of].sum()))
            informative = np.array([name == "kept" for name in found])
            part.source.selector.observe(choice, draw.prompts[of], compared[of].cpu().double().numpy(), informative)
            names += found
        kept = torch.tensor([name == "kept" for name in names], device=totals.device)
        statistics = RoundStatistics(
            lengths=everyones[:, 0],
            truncated=everyones[:, 1],
            accuracy=compared.flatten() if scores.outcomes is None else everyones[:, 3],
            totals=totals,
            verdicts=everyones[:, 2].int(),
            kept=kept.repeat_interleave(size),
            shaped=(informative_groups(totals.view(-1, size)) & ~kept).repeat_interleave(size),
            levels=[prompt.get("level") for prompt in draw.prompts],
            figures=self._figures(scores),
        )
        for part, _, groups in draw.choices:
            part.rounds.append(statistics.of_groups(groups))
        return Decisions(names, statistics, kept.tolist())

    def _figures(self, scores: Scores) -> list[dict[str, float]]:
        """The figures that the environments report, of all processes."""
        if scores.outcomes is None:
            return []
        mine = [one.figures for one in scores.outcomes]
        return gather_object(mine) if self.accelerator.num_processes > 1 else mine

    def _scores_to_go(self, scores: Scores) -> Tensor | None:
        """``[groups, G, K]`` scores with the rewards of turns, of all processes: from each turn on, or of the whole
        episode alone where turns have no advantage of their own; None where ``filter_key`` knows nothing of turns."""
        if scores.outcomes is None:
            return None
        key, device = self.args.filter_key, scores.rewards.device
        by_turn = turn_scores(scores.outcomes, key)
        if self.args.turn_credit == "episode":
            by_turn = [[sum(turns)] for turns in by_turn]
        mine = padded_turns(by_turn, device)
        turns = gather(pad_across_processes(mine, dim=1, pad_index=math.nan))
        found = self.scorer.columns.scores_to_go(scores.rewards, turns, key)
        return None if found is None else found.view(-1, self.args.num_generations, found.shape[1])

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

    def _count(self, draw: Draw, rollouts: list[Rollout], decisions: Decisions, seconds: float) -> None:
        """Enter the dropped groups in the ledgers; the kept ones are entered once their place is known."""
        size, statistics = self.args.num_generations, decisions.statistics
        each = seconds / max(float(statistics.lengths.sum()), 1.0)
        tokens = statistics.lengths.view(-1, size).sum(dim=1).int().tolist()
        shaped = statistics.shaped[::size].tolist()
        members = (rollouts[i : i + size] for i in range(0, len(rollouts), size))
        for part, _, groups in draw.choices:
            for i in groups:
                its_seconds = tokens[i] * each
                if decisions.kept[i]:
                    group = Group.of(next(members), seconds=its_seconds, step=self.run.step, source=part.source.name)
                    part.groups.append(group)
                else:
                    account = "shaping_only" if shaped[i] else decisions.names[i]
                    part.source.ledger.enter(account, tokens[i], its_seconds)

    def _rollout(self, i: int, draw: Draw, sampled: Sampled, scores: Scores, account: str) -> Rollout:
        """Completion ``i`` of this process."""
        return Rollout(
            row=draw.rows[i],
            prompt=sampled.prompts[i],
            completion=sampled.completions[i],
            prompt_ids=np.array(sampled.prompt_ids[i], dtype=np.int32),
            completion_ids=np.array(sampled.completion_ids[i], dtype=np.int32),
            order=draw.first + i,
            tokens=int(sampled.lengths[i]),
            account=account,
            logprobs=None if sampled.logprobs is None else sampled.logprobs[i],
            loss_mask=None if sampled.loss_masks is None else sampled.loss_masks[i],
            turn_starts=[0] if sampled.turn_starts is None else sampled.turn_starts[i],
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

    def _from_surplus(self, source: Source, count: int) -> list[Group]:
        ledger, surplus = source.ledger, source.surplus
        for group in surplus.expire(self.run.step):
            ledger.enter("surplus_kept", -sum(group.tokens), -group.seconds)
            ledger.enter("surplus_expired", sum(group.tokens), group.seconds)
        taken = surplus.take(count)
        for group in taken:
            ledger.enter("surplus_kept", -sum(group.tokens), -group.seconds)
            ledger.enter_rows(group.accounts, group.tokens, group.seconds)
        return taken

    def _enter_informative(self, parts: list[Part]) -> None:
        for part in parts:
            ledger = part.source.ledger
            for group in part.fresh:
                ledger.enter_rows(group.accounts, group.tokens, group.seconds)
            for account, groups in (("surplus_kept", part.surplus), ("surplus_expired", part.excess)):
                for group in groups:
                    ledger.enter(account, sum(group.tokens), group.seconds)

    # Checks, metrics and words

    def _check(self, part: Part) -> None:
        if not part.rounds:
            return
        source, sampler = part.source, part.sampler
        of = f"{source.name}: " if self.state.mixes else ""
        why = self._why_unscored(sampler, RoundStatistics.of(part.rounds))
        unscored = self._unscored[source.name] = self._unscored.get(source.name, 0) + 1 if why else 0
        if unscored >= MAX_UNSCORED_BATCHES:
            raise RewardError(f"{of}{why} So it was in {unscored} rollout batches in a row.")
        if why:
            self.run.warn(f"step {self.run.step}: {of}{why}")
        if not sampler.enough and self.args.on_refill_limit == "raise" and not source.rest.on_trial:
            raise RefillLimitError(
                f"step {self.run.step}: {of}{explain([sampler])} (on_refill_limit is 'raise'; 'train' goes on with the "
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

    def _log_rounds(self, parts: list[Part], seconds: float) -> None:
        """Log the sampled completions in numbers: nothing of it in a batch that surplus filled alone."""
        sampled = [part for part in parts if part.rounds]
        if not sampled:
            return
        everything = RoundStatistics.of([statistics for part in sampled for statistics in part.rounds])
        speed = everything.lengths.sum() / seconds
        self.run.log({**everything.metrics(), "throughput/tokens_per_second": speed, "time/rollout": seconds})
        for part in sampled:
            statistics, source = RoundStatistics.of(part.rounds), part.source
            by_level = statistics.by_level()
            source.levels |= set(by_level)
            found: dict[str, Any] = {} if len(source.levels) > MAX_LEVELS else dict(by_level)
            if self.state.mixes:
                found = source.named({**statistics.metrics(), **found})
            self.run.log(found)

    def _log(self, parts: list[Part]) -> None:
        self.run.log(_group_metrics(parts))
        if self.state.mixes:
            for part in parts:
                self.run.log(part.source.named({**_group_metrics([part]), "groups/places": part.sampler.target}))
        self.state.rollout_batches += 1
        self.run.log_last(self.state.running_totals())

    def _explain(self, samplers: list[DynamicSampler]) -> None:
        """Print in full why there is no update; the same reason once more in short."""
        line, why = f"step {self.run.step}: no update, nothing to learn from", reason(samplers)
        if why == self._last_reason:
            counts = sum((sampler.counts for sampler in samplers), GroupCounts())
            line += f" ({counts.all_wrong} all wrong, {counts.all_right} all correct of {counts.sampled})."
        else:
            line += f". {explain(samplers)} A completion: {self._glimpse()}"
        self.run.warn(line)
        self._last_reason = why

    def _glimpse(self) -> str:
        """A question and a completion of the last round, shortened, to show a person."""
        row, completion = self._example
        return f"{shortened(question_of(row), 100)!r} -> {shortened(self._decode(completion), 160)!r}"


def _group_metrics(parts: Sequence[Part]) -> dict[str, int]:
    """The groups of some sources in a rollout batch, by what became of them."""
    counts = sum((part.sampler.counts for part in parts), GroupCounts())
    return {
        "groups/sampled": counts.sampled,
        "groups/kept": counts.kept,
        "groups/all_wrong": counts.all_wrong,
        "groups/all_right": counts.all_right,
        "groups/constant": counts.constant,
        "groups/unscorable": counts.unscorable,
        "groups/banked": sum(len(part.kept) for part in parts),
        "groups/surplus": sum(len(part.surplus) for part in parts),
        "groups/trained": sum(part.sampler.used for part in parts),
        "sampling/refill_rounds": max(part.sampler.refill_rounds for part in parts),
    }
