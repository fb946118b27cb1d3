"""Alarms: signs of trouble in the metrics as they are logged.

Each rule checks the newest logs and returns one sentence, with the number, the likely cause and the setting to change;
or None. An alarm is raised once, and again only after `CLEARED_AFTER` quiet logs. Pure: the report finds the alarms of
a finished run by the same rules.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..sampling.token_ledger import MOSTLY_TRUNCATED
from .diagnosis import (
    COLLAPSED,
    EXPLODED,
    HELD_OUT,
    LEARNT,
    LOST_GRADIENT,
    MORE_NATS,
    RARELY_INFORMATIVE,
    Row,
    held_out,
    lost_gradient,
    rises,
    why_uninformative,
)

NEWEST = 3
"""Newest values of a metric that are averaged, so that one odd batch raises no alarm."""
EARLIER = 10
"""Distance, in values, to the earlier ones that the newest are compared with."""
KEPT = 21
"""Values of each metric that are kept."""
DIFFERENCE = "sampling/sampling_logp_difference/mean"
WATCHED = (
    "accuracy/sampled",
    "completions/clipped_ratio",
    "completions/mean_length",
    "entropy",
    "grad_norm",
    *LOST_GRADIENT,
    "importance_ratio/deviation",
    "sampling/importance_sampling_ratio/mean",
    DIFFERENCE,
)
CLEARED_AFTER = 5
SOLVED = 0.9
"""Accuracy above which a low entropy is certainty, not collapse."""
LONGER = 2.0
"""Growth in length, against `EARLIER` values ago, that is alarming."""
CUT_OFF = 0.3
"""Share of completions at the length limit that is alarming after a rise by `CUT_OFF_RISE`."""
CUT_OFF_RISE = 0.2
NOISE = 4.0
"""Entropy in nats that is alarming at any time: a token is drawn as from 55 equally likely ones."""
REWARD_RISE = 0.02
MEASUREMENTS = 4
"""Held-out measurements over which the accuracy must rise if the reward does."""
FAR_RATIO = 0.3
"""Mean distance of the importance ratio from 1 that is alarming."""
MISMATCH = 2.0
"""Factor between the probabilities of sampler and trainer that is alarming."""
DRIFT, DRIFTED = 4.0, 0.05
"""Growth of the difference of sampler and trainer, and its size in nats a token, that are alarming together."""
SPIKE = 10.0
"""Multiple of the usual gradient norm that is alarming."""
MAX_GRAD_NORM = 1.0
"""Gradient norm below which no spike is reported, where the settings give none: gradients below it are not clipped."""


@dataclass
class Alarm:
    """An alarm and, once it is quiet again, the step since which it is."""

    name: str
    step: int
    message: str
    cleared: int | None = None

    def __str__(self) -> str:
        return f"step {self.step}: alarm, {self.name.replace('_', ' ')}: {self.message}"


class _Known:
    """The input of the rules: the first and the newest values of each metric."""

    def __init__(self, settings: Mapping[str, Any]):
        self.settings = settings
        self.first: dict[str, list[float]] = {}
        self.values: dict[str, deque[float]] = {}
        self.batches: deque[Row] = deque(maxlen=NEWEST)
        """The newest logs that sampled groups."""
        self.rewards: list[float] = []
        self.measured: list[tuple[int, Row]] = []
        """Logs with a held-out accuracy, each with the number of rewards logged before it."""
        self.spiked = False
        """Whether the newest log has a gradient norm."""

    def take(self, row: Row) -> None:
        """Add one log."""
        for name in WATCHED:
            value = row.get(name)
            if value is None:
                continue
            if len(first := self.first.setdefault(name, [])) < NEWEST:
                first.append(float(value))
            self.values.setdefault(name, deque(maxlen=KEPT)).append(float(value))
        if row.get("groups/sampled"):
            self.batches.append(row)
        if row.get("reward/sampled") is not None:
            self.rewards.append(float(row["reward/sampled"]))
        if held_out(row) is not None:
            self.measured.append((len(self.rewards), row))
        self.spiked = row.get("grad_norm") is not None

    def newest(self, name: str) -> float:
        """Mean of the `NEWEST` last values; NaN without any."""
        return _mean(list(self.values.get(name, ()))[-NEWEST:])

    def earlier(self, name: str) -> float:
        """`EARLIER` values before the newest, or at the start of a shorter run; NaN of a run too short to compare."""
        values = list(self.values.get(name, ()))
        last = max(len(values) - EARLIER, NEWEST)
        return _mean(values[last - NEWEST : last]) if len(values) >= 2 * NEWEST else math.nan

    def setting(self, name: str) -> str:
        """A setting's name, with its value where it is known."""
        value = self.settings.get(name)
        return name if value is None else f"{name} (now {value})"


class AlarmWatch:
    """Takes in logs one by one.

    Args:
        settings: the run's settings by name; messages show their values where they are known.
    """

    def __init__(self, settings: Mapping[str, Any] | None = None):
        self._known = _Known(settings or {})
        self._sounding: dict[str, tuple[Alarm, int]] = {}
        """Alarms that are on, by name, each with the number of quiet logs since."""

    def see(self, row: Row) -> list[Alarm]:
        """The alarms that this log raises."""
        if row.get("loss") is None and held_out(row) is None:
            return []
        self._known.take(row)
        raised = []
        for rule in RULES:
            name, message = rule.__name__, rule(self._known)
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
    """All alarms of a run, in order."""
    watch = AlarmWatch(settings)
    return [alarm for row in rows for alarm in watch.see(row)]


def entropy_collapse(known: _Known) -> str | None:
    """`entropy` is below a tenth of its first values, and `accuracy/sampled` below 0.9."""
    first, last = _mean(known.first.get("entropy", [])), known.newest("entropy")
    if not last < COLLAPSED * first or known.newest("accuracy/sampled") > SOLVED:
        return None
    return (
        f"entropy is {last:.3g} nats, {last / first:.0%} of what it was at first, and the task is not solved. Nothing "
        f"new is tried any more: the updates favour what is likely already. Raise {known.setting('epsilon_high')} or "
        f"{known.setting('beta')}, lower {known.setting('learning_rate')}."
    )


def entropy_explosion(known: _Known) -> str | None:
    """`entropy` is above 4 nats, or above 3 times its first values and 0.5 nats more, and `accuracy/sampled` neither
    above 0.9 nor 0.05 above its first values.
    """
    first, last = _mean(known.first.get("entropy", [])), known.newest("entropy")
    accuracy, before = known.newest("accuracy/sampled"), _mean(known.first.get("accuracy/sampled", []))
    if len(known.values.get("entropy", ())) < NEWEST or not (
        last > NOISE or last > max(EXPLODED * first, first + MORE_NATS)
    ):
        return None
    if accuracy > SOLVED or accuracy - before >= LEARNT:
        return None
    return (
        f"entropy is {last:.3g} nats, and it was {first:.3g} at first: the completions turn into noise. Lower "
        f"{known.setting('learning_rate')} or {known.setting('epsilon_high')}, raise {known.setting('beta')}. If it "
        f"was high from the start, lower {known.setting('temperature')}, and make sure that the model is the right one."
    )


def truncation(known: _Known) -> str | None:
    """`completions/clipped_ratio` is above 0.5, or above 0.3 and has risen by 0.2 within 10 values."""
    before, now = known.earlier("completions/clipped_ratio"), known.newest("completions/clipped_ratio")
    enough = len(known.values.get("completions/clipped_ratio", ())) >= NEWEST
    if not (now >= MOSTLY_TRUNCATED and enough) and not (now >= CUT_OFF and now - before >= CUT_OFF_RISE):
        return None
    rise = f", where {before:.0%} were" if now - before >= CUT_OFF_RISE else ""
    return (
        f"{now:.0%} of the completions are cut off at the length limit{rise}. What is cut off cannot be correct, most "
        f"often: raise {known.setting('max_completion_length')}, ask for shorter answers, or shorten them with "
        f"{known.setting('overlong_coefficient')}."
    )


def length_explosion(known: _Known) -> str | None:
    """`completions/mean_length` has doubled within 10 values while accuracy rose by less than 0.05."""
    before, now = known.earlier("completions/mean_length"), known.newest("completions/mean_length")
    cut = known.newest("completions/clipped_ratio")
    learnt = known.newest("accuracy/sampled") - known.earlier("accuracy/sampled") >= LEARNT
    if learnt or not now >= LONGER * before > 0:
        return None
    return (
        f"completions have {now:.0f} tokens, where they had {before:.0f}, {cut:.0%} are cut off at the limit, and "
        "accuracy has not risen with them. Length is not paid for, or endings are unlearnt: raise "
        f"{known.setting('overlong_coefficient')} or start it earlier ({known.setting('overlong_max_length')}); if the "
        f"task needs the room, raise {known.setting('max_completion_length')}."
    )


def reward_without_accuracy(known: _Known) -> str | None:
    """`reward/sampled` rose clearly over the last 4 held-out measurements, and held-out accuracy did not."""
    if len(known.measured) < NEWEST:
        return None
    (start, first), (_, last) = known.measured[-MEASUREMENTS:][0], known.measured[-1]
    rewards = np.array(known.rewards[start:])
    before, now = held_out(first) or 0.0, held_out(last) or 0.0
    low, high = last.get(f"{HELD_OUT}_low"), last.get(f"{HELD_OUT}_high")
    noise = (high - low) / 4 if low is not None and high is not None else 0.01
    third = len(rewards) // 3
    if third < 1 or now - before > noise or not rises(rewards):
        return None
    reward_before, reward = _mean(rewards[:third]), _mean(rewards[-third:])
    if reward - reward_before < REWARD_RISE:
        return None
    return (
        f"the reward rose from {reward_before:.3f} to {reward:.3f} since step {first.get('step'):.0f} and held-out "
        f"accuracy went from {before:.3f} to {now:.3f}. Something else than solving is paid for, or the training "
        "problems are learnt by heart: look at the rollouts of highest advantage, run `dapo-trl envs check`, train on "
        f"more problems, raise {known.setting('beta')}."
    )


def nothing_informative(known: _Known) -> str | None:
    """Less than 5 % of the groups of the last 3 rollout batches are informative."""
    rows = list(known.batches)
    sampled, kept = (sum(row.get(f"groups/{name}") or 0.0 for row in rows) for name in ("sampled", "kept"))
    if len(rows) < NEWEST or kept >= RARELY_INFORMATIVE * sampled:
        return None
    return f"{kept / sampled:.1%} of the {sampled:.0f} groups sampled last are informative: {why_uninformative(rows)}."


def ratios_far_from_one(known: _Known) -> str | None:
    """`importance_ratio/deviation` is above 0.3, sampler and trainer disagree by more than a factor of 2, or
    `sampling/sampling_logp_difference/mean` is above 0.05 and 4 times its first values.
    """
    now, first = known.newest(DIFFERENCE), _mean(known.first.get(DIFFERENCE, []))
    if now > max(DRIFT * first, DRIFTED):
        return (
            f"vLLM's log-probabilities differ from the trainer's by {now:.2g} a token, where they differed by "
            f"{first:.2g} at first: it samples with older weights or an older adapter, or rounding changes more of the "
            "policy than it did. Look at its pushes (a server's log), and give both the same dtype."
        )
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


def gradient_lost(known: _Known) -> str | None:
    """`gradient/mismatch` or `gradient/mismatch_long` is above 0.1, or another loss of the gradient ledger above 0.5:
    clipped at either bound, `gradient/truncated` or `gradient/zero`.
    """
    shares = {name: known.newest(name) for name in LOST_GRADIENT if len(known.values.get(name, ())) >= NEWEST}
    lost = lost_gradient(shares, known.settings)
    return lost and f"{lost}."


def gradient_spike(known: _Known) -> str | None:
    """`grad_norm` is above 10 times the median of the last 20 values, and above `max_grad_norm`."""
    *earlier, now = known.values.get("grad_norm", (math.nan,))
    earlier = [norm for norm in earlier if norm > 0]
    if not known.spiked or len(earlier) < KEPT // 2:
        return None
    usual, limit = float(np.median(earlier)), known.settings.get("max_grad_norm")
    if not now > max(SPIKE * usual, limit if isinstance(limit, int | float) else MAX_GRAD_NORM):
        return None
    return (
        f"the gradient norm is {now:.3g}, {now / usual:.0f} times the usual. A batch of few tokens, or "
        f"an update too large before it: lower {known.setting('max_grad_norm')} or {known.setting('learning_rate')}, "
        f"raise {known.setting('min_valid_fraction')}."
    )


RULES: Sequence[Callable[[_Known], str | None]] = (
    entropy_collapse,
    entropy_explosion,
    truncation,
    length_explosion,
    reward_without_accuracy,
    nothing_informative,
    ratios_far_from_one,
    gradient_lost,
    gradient_spike,
)


def _mean(values: Sequence[float] | np.ndarray) -> float:
    """The mean; NaN without values, and every comparison with NaN is false."""
    return float(sum(values) / len(values)) if len(values) else math.nan
