"""Alarms: what a person should look at now, told from the metrics as they are logged.

Each rule looks at the newest logs and says one sentence, with the number, the likely cause and the setting to change;
or nothing. An alarm sounds once, and again only after it has been quiet for `CLEARED_AFTER` logs. Pure: the report
finds the alarms of a finished run by the same rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .diagnosis import COLLAPSED, RARELY_INFORMATIVE, why_uninformative
from .history import HELD_OUT, Row, held_out, rises, series

NEWEST = 3
"""logs that are averaged, so that one odd batch is no alarm"""
EARLIER = 10
"""logs back, to which the newest are compared"""
CLEARED_AFTER = 3
SOLVED = 0.9
"""accuracy above which a low entropy is certainty, not collapse"""
LONGER = 2.0
"""times as long as `EARLIER` logs ago"""
CUT_OFF = 0.3
"""share of completions at the length limit"""
CUT_OFF_RISE = 0.2
LEARNT = 0.05
"""rise in accuracy that justifies longer completions"""
REWARD_RISE = 0.02
MEASUREMENTS = 4
"""held-out measurements over which the accuracy must rise if the reward does"""
FAR_RATIO = 0.3
"""mean distance of the importance ratio from 1"""
MISMATCH = 2.0
"""times by which sampling and training disagree on probabilities"""
SPIKE = 10.0
"""times the usual gradient norm"""
SPIKE_HISTORY = 20


@dataclass
class Alarm:
    """An alarm and, once it is quiet again, since which step."""

    name: str
    step: int
    message: str
    cleared: int | None = None

    def __str__(self) -> str:
        return f"step {self.step}: alarm, {self.name.replace('_', ' ')}: {self.message}"


@dataclass
class _Known:
    """What the rules look at."""

    settings: Mapping[str, Any]
    rows: list[Row] = field(default_factory=list)
    """logs of optimizer steps"""
    measured: list[tuple[int, Row]] = field(default_factory=list)
    """logs with a held-out accuracy, each with how many rows there were before it"""

    def newest(self, name: str) -> float:
        return _mean(series(self.rows[-NEWEST:], name))

    def earlier(self, name: str) -> float:
        """`EARLIER` logs before the newest, or at the start of a shorter run."""
        last = max(len(self.rows) - EARLIER, NEWEST)
        return _mean(series(self.rows[last - NEWEST : last], name))

    def setting(self, name: str) -> str:
        value = self.settings.get(name)
        return name if value is None else f"{name} (now {value})"


class AlarmWatch:
    """Takes in logs one by one.

    Args:
        settings: of the run, by name, to be named with their values; what is missing is named alone.
    """

    def __init__(self, settings: Mapping[str, Any] | None = None):
        self._known = _Known(settings or {})
        self._sounding: dict[str, tuple[Alarm, int]] = {}
        """by name, and for how many logs it has been quiet"""

    def see(self, row: Row) -> list[Alarm]:
        """The alarms that this log raises."""
        known = self._known
        if held_out(row) is not None:
            known.measured.append((len(known.rows), row))
        if row.get("loss") is not None:
            known.rows.append(row)
        elif held_out(row) is None:
            return []
        raised = []
        for rule in RULES:
            name, message = rule.__name__, rule(known)
            if name in self._sounding:
                alarm, quiet = self._sounding[name]
                quiet = 0 if message else quiet + 1
                self._sounding[name] = (alarm, quiet)
                if quiet == CLEARED_AFTER:
                    alarm.cleared = int(row.get("step") or 0)
                    del self._sounding[name]
            elif message:
                alarm = Alarm(name, int(row.get("step") or 0), message)
                self._sounding[name] = (alarm, 0)
                raised.append(alarm)
        return raised


def alarms_in(rows: Iterable[Row], settings: Mapping[str, Any] | None = None) -> list[Alarm]:
    """All the alarms of a run, in order."""
    watch = AlarmWatch(settings)
    return [alarm for row in rows for alarm in watch.see(row)]


def entropy_collapse(known: _Known) -> str | None:
    first, last = _mean(series(known.rows[: 2 * NEWEST], "entropy")[:NEWEST]), known.newest("entropy")
    if len(known.rows) < 2 * NEWEST or not last < COLLAPSED * first or known.newest("accuracy/sampled") > SOLVED:
        return None
    return (
        f"entropy is {last:.3g} nats, {last / first:.0%} of what it was at first, and the task is not solved. Nothing "
        f"new is tried any more: the updates favour what is likely already. Raise {known.setting('epsilon_high')} or "
        f"{known.setting('beta')}, lower {known.setting('learning_rate')}."
    )


def length_explosion(known: _Known) -> str | None:
    if len(known.rows) < 2 * NEWEST:
        return None
    before, now = known.earlier("completions/mean_length"), known.newest("completions/mean_length")
    cut_before, cut = known.earlier("completions/clipped_ratio"), known.newest("completions/clipped_ratio")
    learnt = known.newest("accuracy/sampled") - known.earlier("accuracy/sampled") >= LEARNT
    if not (now >= LONGER * before > 0 and not learnt) and not (cut >= CUT_OFF and cut - cut_before >= CUT_OFF_RISE):
        return None
    return (
        f"completions have {now:.0f} tokens, where they had {before:.0f} {EARLIER} logs ago, {cut:.0%} are cut "
        "off at the limit, and accuracy has not risen with them. Length is not paid for, or endings are unlearnt: raise "
        f"{known.setting('overlong_coefficient')} or start it earlier ({known.setting('overlong_max_length')}); if the "
        f"task needs the room, raise {known.setting('max_completion_length')}."
        if not learnt
        else f"{cut:.0%} of the completions are cut off at the limit, {cut_before:.0%} were {EARLIER} logs ago. They "
        f"outgrow the limit while accuracy rises: raise {known.setting('max_completion_length')}, or shorten them with "
        f"{known.setting('overlong_coefficient')}."
    )


def reward_without_accuracy(known: _Known) -> str | None:
    if len(known.measured) < NEWEST:
        return None
    (start, first), (_, last) = known.measured[-MEASUREMENTS:][0], known.measured[-1]
    between = known.rows[start:]
    before, now = held_out(first) or 0.0, held_out(last) or 0.0
    low, high = last.get(f"{HELD_OUT}_low"), last.get(f"{HELD_OUT}_high")
    noise = (high - low) / 4 if low is not None and high is not None else 0.01
    rewards = series(between, "reward/sampled")
    third = len(rewards) // 3
    if third < 1 or now - before > noise or not rises(between, "reward/sampled"):
        return None
    reward_before, reward = _mean(rewards[:third]), _mean(rewards[-third:])
    if reward - reward_before < REWARD_RISE:
        return None
    return (
        f"the reward rose from {reward_before:.3f} to {reward:.3f} since step {first.get('step')} and held-out accuracy "
        f"went from {before:.3f} to {now:.3f}. Something else than solving is paid for, or the training problems are "
        "learnt by heart: look at the rollouts of highest advantage, run `dapo-trl envs check`, train on more problems, "
        f"raise {known.setting('beta')}."
    )


def nothing_informative(known: _Known) -> str | None:
    rows = known.rows[-NEWEST:]
    sampled, kept = series(rows, "groups/sampled").sum(), series(rows, "groups/kept").sum()
    if len(rows) < NEWEST or sampled == 0 or kept >= RARELY_INFORMATIVE * sampled:
        return None
    return f"{kept / sampled:.1%} of the groups of the last {NEWEST} logs are informative: {why_uninformative(rows)}."


def ratios_far_from_one(known: _Known) -> str | None:
    if len(known.rows) < NEWEST:
        return None
    sampling = known.newest("sampling/importance_sampling_ratio/mean")
    if sampling > MISMATCH or sampling < 1 / MISMATCH:
        return (
            f"the trainer's probabilities are {sampling:.2f} times those of the sampler, on average. The two run "
            "different weights or precisions: give both the same dtype, and look at the synchronisation of vLLM."
        )
    distance = known.newest("importance_ratio/deviation")
    if not distance > FAR_RATIO:
        return None
    return (
        f"importance ratios are {distance:.2f} away from 1, on average. The policy moves too far on one rollout batch: "
        f"lower {known.setting('learning_rate')}, {known.setting('num_iterations')} or "
        f"{known.setting('steps_per_generation')}."
    )


def gradient_spike(known: _Known) -> str | None:
    earlier = series(known.rows[-SPIKE_HISTORY - 1 : -1], "grad_norm")
    earlier, now = earlier[earlier > 0], series(known.rows[-1:], "grad_norm")
    if len(earlier) < SPIKE_HISTORY // 2 or not len(now) or not now[0] > SPIKE * np.median(earlier):
        return None
    return (
        f"the gradient norm is {now[0]:.3g}, {now[0] / np.median(earlier):.0f} times the usual. A batch of few tokens or "
        f"an update too large before it: lower {known.setting('max_grad_norm')} or {known.setting('learning_rate')}, "
        f"raise {known.setting('min_valid_fraction')}."
    )


RULES: Sequence[Callable[[_Known], str | None]] = (
    entropy_collapse,
    length_explosion,
    reward_without_accuracy,
    nothing_informative,
    ratios_far_from_one,
    gradient_spike,
)


def _mean(values: np.ndarray) -> float:
    """NaN of nothing, which no comparison is true of."""
    return float(values.mean()) if len(values) else float("nan")
