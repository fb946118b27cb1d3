"""Why a run learns nothing, in one sentence, from its logs; and the changes in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..sampling.token_ledger import MOSTLY_TRUNCATED
from .trend import LEAST_VALUES, Trend

Row = Mapping[str, Any]
"""One log: numbers by name, with its ``step``."""

HELD_OUT = "eval_accuracy"
"""Metric of avg@k on held-out problems; with ``_low`` and ``_high``, the ends of its 95 % interval."""
_OLDER_NAMES = ("held_out/accuracy", "eval/accuracy", "eval_accuracy/sampled")
LEARNT = 0.05
"""Rise in accuracy that counts as learning: a run has learnt nothing if a trend as large as this is ruled out."""
SOLVED = 0.95
"""Mean accuracy at the start above which nothing is left to learn."""
RARELY_INFORMATIVE = 0.05
COLLAPSED = 0.1
"""Share of its first value below which the entropy has collapsed."""
EXPLODED = 3.0
"""Multiple of its first value above which the entropy has exploded."""
MORE_NATS = 0.5
"""Least rise of an entropy that has exploded."""
STANDS_STILL = 1e-6
"""Mean distance of the importance ratio from 1 below which the weights do not change."""
MISMATCH_LOSS = 0.1
"""Share of the gradient of long completions that the correction for vLLM may take before it is reported."""
GRADIENT_LOSS = 0.5
"""Share of the gradient weight, in any other account than `acting` of the gradient ledger, that is reported."""
LOST_GRADIENT = tuple(
    f"gradient/{name}" for name in ("mismatch", "mismatch_long", "clipped_low", "clipped_high", "truncated", "zero")
)
"""Metrics of the gradient ledger that `lost_gradient` looks at."""

ADVICE = {
    "all_wrong": (
        "almost every group is all wrong: the task is too hard for this model, or its answers are not recognised; look "
        "at some completions, use easier problems, teach the form of the answers first (dapo-trl warmup) or raise "
        "num_generations"
    ),
    "all_right": "almost every group is all correct: the task is solved at this difficulty; use harder problems",
    "constant": "the scores within a group do not vary: filter on a finer score with filter_key, or raise temperature",
    "unscorable": "almost nothing can be scored: look at the reward function or the environment's infra_failure",
}
"""Explanation and advice, by the most frequent reason why groups are dropped."""


def why_nothing_is_learnt(history: Sequence[dict[str, Any]], *, updates_per_rollout: int) -> str | None:
    """Explain in one sentence why a run's accuracy did not rise; None for a run that learnt or is too short to judge.

    The sentence begins with "Nothing was learnt" where the trend over all logs rules out a rise by `LEARNT`, and else
    with "No clear rise yet". It is meant for a run that came to its end.

    Args:
        history: the logs in order (``trainer.state.log_history`` or the rows of ``metrics.jsonl``).
        updates_per_rollout: optimizer steps on each rollout batch.

    Raises:
        ConfigError: ``updates_per_rollout`` is less than 1.
    """
    if updates_per_rollout < 1:
        raise ConfigError(f"updates_per_rollout is {updates_per_rollout}: it must be 1 or more.")
    rows = [row for row in history if row.get("accuracy/sampled") is not None]
    sampled, kept = (sum(row[f"groups/{name}"] for row in rows) for name in ("sampled", "kept"))
    few, informative = len(rows) < LEAST_VALUES, kept >= RARELY_INFORMATIVE * sampled
    if not sampled or (few and informative):
        return None
    accuracy = series(rows, "accuracy/sampled")
    first, last = change(rows, "accuracy/sampled")
    cause, seen = _cause(rows, updates_per_rollout), f"accuracy {first:.3f} at first, {last:.3f} at last"
    if few:
        return f"Nothing was learnt ({seen}): {cause}."
    trend = Trend.of(accuracy)
    if first >= SOLVED or trend.low > 1e-6 or rises(accuracy):
        return None
    verdict = "Nothing was learnt" if trend.high < LEARNT else "No clear rise yet"
    return f"{verdict} ({seen}; trend {trend}, over {len(rows)} logs): {cause}."


def _cause(rows: Sequence[Row], updates_per_rollout: int) -> str:
    """The cause that explains most of the failures, and what to do about it."""
    sampled, kept = (sum(row[f"groups/{name}"] for row in rows) for name in ("sampled", "kept"))
    if kept < RARELY_INFORMATIVE * sampled:
        return why_uninformative(rows)
    if (truncated := change(rows, "completions/clipped_ratio")[1]) >= MOSTLY_TRUNCATED:
        return cut_off(truncated)
    if rises(series(rows, "reward/sampled")):
        first, last = change(rows, "reward/sampled")
        return (
            f"only the length penalty is: the reward rose from {first:.3f} to {last:.3f} by shorter completions; start "
            "the penalty later (overlong_max_length) or weaken it"
        )
    if any("entropy" in row for row in rows):
        first, last = change(rows, "entropy")
        if last < COLLAPSED * first:
            return (
                f"the entropy collapsed from {first:.3g} to {last:.3g} nats, so nothing new is tried; raise "
                "epsilon_high or beta, lower learning_rate"
            )
        if last > max(EXPLODED * first, first + MORE_NATS):
            return (
                f"the entropy exploded from {first:.3g} to {last:.3g} nats, so completions turn into noise; lower "
                "learning_rate or epsilon_high, raise beta"
            )
    moves = series(rows, "importance_ratio/deviation")
    if updates_per_rollout >= 2 and len(moves) and moves.max() < STANDS_STILL:
        return (
            "the policy does not change from one update to the next; raise learning_rate if it is 0, and load the "
            "trained weights in float32 if they are in half precision, where updates are rounded away"
        )
    shares = {name: series(rows, name) for name in LOST_GRADIENT}
    if lost := lost_gradient({name: float(values.mean()) for name, values in shares.items() if len(values)}):
        return lost
    if updates_per_rollout < 2:
        return (
            "clip-higher is inert and each rollout batch gets a single small update; raise steps_per_generation or "
            "num_iterations, or learning_rate"
        )
    if rises(series(rows, "accuracy/sampled")[::-1]):
        return "the updates do harm, it fell; lower learning_rate, or raise beta"
    return "groups are informative and updates are made; raise learning_rate, or train for longer"


def lost_gradient(shares: Mapping[str, float], settings: Mapping[str, Any] | None = None) -> str | None:
    """Where most of the gradient weight is lost, and the setting to change; None where most of it acts.

    Args:
        shares: The gradient ledger, by the names of `LOST_GRADIENT`; what is missing is not lost.
        settings: The run's, by name, where they are known.
    """
    limit = (settings or {}).get("max_completion_length")
    long, all_of = shares.get("gradient/mismatch_long", 0.0), shares.get("gradient/mismatch", 0.0)
    if max(long, all_of) > MISMATCH_LOSS:
        which = f"over {limit // 2:,} tokens" if limit else "longer than half of max_completion_length"
        which = f"completions {which}" if long >= all_of else "all completions"
        mode = (settings or {}).get("mismatch_correction")
        change = "" if mode == "token_truncate" else f"set mismatch_correction (now {mode}) to token_truncate, or "
        if mode is None:
            change = "set mismatch_correction to token_truncate or, if it is that already, "
        return (
            f"{max(long, all_of):.0%} of the gradient of {which} is masked by the mismatch correction: vLLM's "
            f"probabilities and the trainer's differ by too much for it; {change}give both the same weights and dtype "
            "and sample from the whole distribution (top_p 1, top_k 0)"
        )
    clipped = shares.get("gradient/clipped_low", 0.0) + shares.get("gradient/clipped_high", 0.0)
    causes = {
        clipped: "is clipped: the updates on one rollout batch go too far, or the clip is too narrow; lower "
        "learning_rate or num_iterations, raise epsilon and epsilon_high",
        shares.get("gradient/truncated", 0.0): "belongs to completions that are masked because they were cut off: "
        "raise max_completion_length, or set mask_truncated_completions to false",
        shares.get("gradient/zero", 0.0): "belongs to completions with advantage 0, whose group is all correct, all "
        "wrong or cannot be scored: set group_filter to zero_variance",
    }
    share = max((share for share in causes if share > GRADIENT_LOSS), default=None)
    return None if share is None else f"{share:.0%} of the gradient weight {causes[share]}"


def why_uninformative(rows: Sequence[Row]) -> str:
    """Why the groups of these logs were dropped, most of them, and what to do about it."""
    reason = max(ADVICE, key=lambda name: sum(row.get(f"groups/{name}") or 0 for row in rows))
    truncated = series(rows, "completions/clipped_ratio")
    if reason == "all_wrong" and len(truncated) and truncated.mean() >= MOSTLY_TRUNCATED:
        return f"almost every group is all wrong, for {cut_off(float(truncated.mean()))}"
    return ADVICE[reason]


def cut_off(share: float) -> str:
    """Explanation and advice where so many completions are cut off."""
    return (
        f"{share:.0%} of the completions are cut off at the length limit before they end; raise "
        "max_completion_length, or ask for shorter answers"
    )


# A run's logs as series


def series(rows: Sequence[Row], name: str) -> np.ndarray:
    """The logged values of a metric, in order."""
    return np.array([row[name] for row in rows if row.get(name) is not None], dtype=float)


def change(rows: Sequence[Row], name: str) -> tuple[float, float]:
    """Means of the first and of the last third of the logged values."""
    values = series(rows, name)
    third = max(len(values) // 3, 1)
    return (float(values[:third].mean()), float(values[-third:].mean())) if len(values) else (0.0, 0.0)


def rises(values: np.ndarray) -> bool:
    """Whether the last third of a series lies above the first by more than twice the error of the difference."""
    third = len(values) // 3
    if third < 2:
        return bool(len(values) > 1 and values[-1] > values[0])
    head, tail = values[:third], values[-third:]
    error = np.sqrt((head.var(ddof=1) + tail.var(ddof=1)) / third)
    return bool(tail.mean() - head.mean() > max(2 * error, 1e-6))


def held_out(row: Row) -> float | None:
    """The held-out accuracy that a log holds."""
    return next((float(row[name]) for name in (HELD_OUT, *_OLDER_NAMES) if row.get(name) is not None), None)
