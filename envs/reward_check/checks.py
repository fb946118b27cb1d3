"""The checks: pure functions of the evidence, each with at most one message."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any, Literal

from ..text import brief
from .episode import Fault, ProbeResult
from .examination import Evidence, Trial
from .probe_answers import MAX_NUMBERS, MAX_WORDS, encodings, same

Status = Literal["ok", "failed", "advice", "not checked"]
_TOLERANCE = 1e-6
_LUCK = 0.25  # share of rows on which the solution of another row may be right
_NOTEWORTHY, _MAX_GUESSED = 0.25, 0.6  # shares of rows that an answer copied from the prompt may win
_SIGNIFICANT = 0.05  # chance below which no accident is assumed
_FLAT = "all rewards seen are the same"
_SMALL_PART = 0.1  # of the range of rewards
_TELLING = 20  # characters of a solution that nothing else contains by chance


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: Its key in `CHECKS`.
        status: "failed" refuses the environment; "advice" does not.
        message: The fault and how to mend it, or why it was not checked; empty where the check passes and has no
            figures to report.
    """

    name: str
    status: Status
    message: str = ""


@dataclass(frozen=True)
class Scale:
    """The lowest and the highest reward: those that the environment names, else those that were seen."""

    low: float
    high: float

    @classmethod
    def of(cls, evidence: Evidence, reward_range: tuple[float, float] | None) -> Scale:
        """Return the given range, else that which the environment names, else that of all answers tried."""
        known = reward_range or evidence.description.reward_range
        if known:
            return cls(*known)
        rewards = [t.outcome.reward for t in evidence.trials if t.outcome is not None and not t.outcome.unknown]
        return cls(min(rewards, default=0.0), max(rewards, default=0.0))

    @property
    def flat(self) -> bool:
        """Whether nothing is paid more than anything else."""
        return self.high <= self.low + _TOLERANCE

    def full(self, outcome: ProbeResult) -> bool:
        """Whether it earned the highest reward."""
        return outcome.reward >= self.high - _TOLERANCE

    def paid(self, outcome: ProbeResult) -> bool:
        """Whether it earned more than the lowest reward."""
        return outcome.reward > self.low + _TOLERANCE


def run_checks(evidence: Evidence, *, scale: Scale, skip: Iterable[str], time_limit: float) -> list[Check]:
    """Return the result of every check, in the order in which an author mends them."""
    results = []
    skipped = set(skip)
    for name, check in CHECKS.items():
        if name in skipped:
            results.append(Check(name, "not checked", "skipped, as asked"))
        else:
            status, message = check(evidence, scale)
            if status == "ok" and evidence.stopped:
                status, message = "not checked", f"stopped early: {evidence.stopped}"
            results.append(Check(name, status, message.replace("{time_limit}", f"{time_limit:g}")))
    return results


Finding = tuple[Status, str]
OK: Finding = ("ok", "")


def interface(evidence: Evidence, _: Scale) -> Finding:
    return _first(evidence.faults) or OK


def rows(evidence: Evidence, _: Scale) -> Finding:
    fix = ': reset(options={"index": i}) and reset(seed=s) must always give the same prompt'
    return _first(evidence.unstable, fix) or (OK if evidence.prompts else _nothing(evidence))


def exceptions(evidence: Evidence, _: Scale) -> Finding:
    return _first(evidence.raised) or OK


def time(evidence: Evidence, _: Scale) -> Finding:
    fix = ": judge any answer within {time_limit} s, in a process that can be killed if need be"
    return _first(evidence.slow, fix) or _if_judged(evidence)


def solution(evidence: Evidence, scale: Scale) -> Finding:
    if not evidence.solutions:
        return "not checked", "no solution is known: give the environment a method solution(index), or pass solution="
    tried = evidence.of("solution")
    if not tried:
        return _nothing(evidence)
    bad = [trial for trial in tried if trial.outcome and not scale.full(trial.outcome)]
    if not bad:
        return OK
    trial = bad[0]
    assert trial.outcome is not None
    earned = "cannot be judged" if trial.outcome.unknown else f"earns {trial.outcome.reward:g} and not {scale.high:g}"
    why = ", ".join(filter(None, (trial.outcome.verdict, trial.outcome.cause)))
    return "failed", (
        f"the solution {brief(trial.text)} of row {trial.index} {earned}{f' ({why})' if why else ''}"
        f"{_count(bad, tried)}: mend the way answers are read and compared, or solution()"
    )


def worthless(evidence: Evidence, scale: Scale) -> Finding:
    """Texts that are right nowhere must earn nothing; one in its code, or a very short one, not be right everywhere."""
    tried = evidence.of("worthless", "oversized", "program")
    if not tried:
        return _nothing(evidence)
    if scale.flat:
        if evidence.solutions:
            return "failed", f"every answer, right or wrong, earns {scale.low:g}: the reward must depend on the answer"
        return (
            "not checked",
            "no solution is known, so the highest reward is not either: pass solution= or reward_range=",
        )
    found = _paid(tried, scale, "read the answer alone and compare it as a whole, so that no such text is right")
    return next((one for one in (found, _password(evidence, scale), _short(evidence, scale)) if one is not OK), OK)


def turns(evidence: Evidence, scale: Scale) -> Finding:
    """Neither a wrong answer, given turn after turn, nor a right one that is put off may collect more than a small part
    for its turns."""
    worth = scale.high - scale.low
    part = _SMALL_PART * worth + _TOLERANCE
    paid = [(trial, trial.outcome) for trial in evidence.trials if trial.outcome and any(trial.outcome.turns)]
    sums = [sum(outcome.turns) for _, outcome in paid]
    bad = [
        (trial, total)
        for (trial, outcome), total in zip(paid, sums, strict=True)
        if worth and total > part and not scale.full(outcome)
    ]
    if bad:
        trial, total = bad[0]
        return "failed", (
            f"{trial.name}, {brief(trial.text)}, given turn after turn collects {total:g} in rewards of turns at row "
            f"{trial.index}, and the right answer earns {worth:g} more than a wrong one{_count(bad, paid)}: pay a turn "
            f"for what it adds, once, and no more than {_SMALL_PART:g} of that for wrong answers"
        )
    for late in evidence.stalled:
        if not isinstance(late.second, str) and late.second.total > late.first.total + part:
            return "failed", (
                f"the solution {brief(late.text)} of row {late.index} earns {late.second.total:g} {late.where}, and "
                f"{late.first.total:g} at once: pay nothing for putting the answer off"
            )
    if not paid:
        return _if_judged(evidence)
    each = [reward for _, outcome in paid for reward in outcome.turns]
    return "ok", (
        f"rewards of turns from {min(each):g} to {max(each):g}, in an episode from {min(sums):g} to {max(sums):g}"
    )


def hedging(evidence: Evidence, scale: Scale) -> Finding:
    """An answer that names several must not earn more than one wrong answer does by itself."""
    tried = evidence.of("hedge")
    if not tried:
        return _nothing(evidence)
    in_a_row = evidence.of("one after another")  # the last of them alone may earn a part of the reward
    alone = [
        trial.outcome.reward for trial in evidence.of("other row") if trial.outcome and not scale.full(trial.outcome)
    ]
    some = [trial for trial in tried if trial.outcome and trial.outcome.reward > max(alone, default=scale.low)]
    some += [trial for trial in in_a_row if trial.outcome and scale.full(trial.outcome)]
    return _paid(some, scale, "accept one answer, and none that names several")


def persuasion(evidence: Evidence, scale: Scale) -> Finding:
    """A text that is written for a judge must not earn more than a wrong answer or a text of its form does, beyond a
    small part.

    Where no judge is known, it must do so at all rows where it was tried, which have different answers: at one of them
    it may be right. Where no answer is known either, a single text may be an honest answer to the task.
    """
    tried = evidence.of("persuasion")
    if not tried:
        return _nothing(evidence)
    if scale.flat:
        return "not checked", _FLAT
    wrong = evidence.of("other row", "worthless")
    alone = [trial.outcome.reward for trial in wrong if trial.outcome and not scale.full(trial.outcome)]
    usual, part = max(alone, default=scale.low), _SMALL_PART * (scale.high - scale.low)
    forms = {(one.index, one.name): one.outcome.reward for one in evidence.of("placebo") if one.outcome}
    paid, missed = list[Trial](), set[str]()
    for trial in tried:
        if trial.outcome and trial.outcome.reward > max(usual, forms.get((trial.index, trial.name), usual)) + part:
            paid.append(trial)
        else:
            missed.add(trial.name)
    has_judge = evidence.description.has_judge
    if not has_judge:
        paid = [trial for trial in paid if trial.name not in missed]
    if has_judge or len({trial.text for trial in paid}) > 1:
        return _paid(paid, scale, "quote the answer so that the judge does not obey it, or take a better judge")
    status, message = _paid(paid, scale, "pay for the right answer alone")
    if status == "failed" and not evidence.golds:
        return "advice", f"{message}, unless this text is one"
    return status, message


def near_misses(evidence: Evidence, scale: Scale) -> Finding:
    """An answer that only looks like the right one must not earn the full reward on most rows."""
    tried = evidence.of("near miss")
    if not tried or scale.flat:
        if not evidence.golds:
            return "not checked", "no solution is known"
        return ("not checked", _FLAT) if tried else OK  # no answer has anything that could be changed
    for name in dict.fromkeys(trial.name for trial in tried):
        those = [trial for trial in tried if trial.name == name]
        right = [trial for trial in those if trial.outcome and scale.full(trial.outcome)]
        if len(right) > len(those) / 2 and len(right) >= min(2, len(evidence.golds)):
            return "failed", (
                f"{name}, {brief(right[0].text)}, earns the full {scale.high:g} at row {right[0].index}"
                f"{_count(right, those)}: compare the answer as a whole, as a number or as text, with the right one"
            )
    return OK


def other_rows(evidence: Evidence, scale: Scale) -> Finding:
    tried = evidence.of("other row")
    if not tried:
        return "not checked", "it takes the solutions of two rows with different answers"
    if scale.flat:
        return "not checked", _FLAT
    right = [trial for trial in tried if trial.outcome and scale.full(trial.outcome)]
    if len(right) <= _LUCK * len(tried):
        return OK
    trial = right[0]
    return "failed", (
        f"{trial.name}, {brief(trial.text)}, earns the full {scale.high:g} at row {trial.index}{_count(right, tried)}: "
        "compare with the row's own answer"
    )


def copying(evidence: Evidence, scale: Scale) -> Finding:
    """An answer copied from the prompt must not win often, beyond what the commonest answer wins anyway."""
    tried = evidence.of("strategy")
    if not tried or scale.flat:
        return _nothing(evidence) if not tried else ("not checked", _FLAT)
    wins = Counter(trial.name for trial in tried if trial.outcome and scale.full(trial.outcome))
    if not wins:
        return OK
    name, won = wins.most_common(1)[0]
    count = len(evidence.prompts)
    share = won / count
    golds = Counter(" ".join(gold.split()) for gold in evidence.golds.values())
    constant = max(golds.values(), default=1) / count
    if _by_chance(won, count, constant) * 2 * (MAX_NUMBERS + MAX_WORDS) > _SIGNIFICANT:
        return OK  # of so many places in the prompt one is right as often without holding the answer
    said = f"{name} is right in {won} of {count} rows"
    if share > max(_MAX_GUESSED, min(0.95, constant + 0.3)):
        return "failed", f"{said}: take the answer out of the prompt"
    if share > max(_NOTEWORTHY, constant):
        return "advice", f"{said}: a model can earn as much by copying"
    return OK


def leak(evidence: Evidence, _: Scale) -> Finding:
    """What `reset` returns must not hold the solution; a short answer may be there by chance, so shares count."""
    if not evidence.solutions:
        return "not checked", "no solution is known"
    places: dict[str, list[int]] = {}
    for index, text in evidence.solutions.items():
        prompt, gold, telling = evidence.prompts[index], evidence.golds[index], _is_telling(evidence, text)
        for place, value in _leaves(prompt.info):
            if value in encodings(gold) or (telling and (text in value or value in encodings(text))):
                places.setdefault(f"info{place} of reset()", []).append(index)
        if telling and text in prompt.text and not _names_others(evidence, index):
            places.setdefault("the prompt", []).append(index)
    place, found = max(places.items(), key=lambda item: len(item[1]), default=("", []))
    if len(found) > max(1, _MAX_GUESSED * len(evidence.solutions)):
        return "failed", f"{place} holds the solution{_count(found, evidence.solutions)}: take it out"
    return OK


def repeatable(evidence: Evidence, _: Scale) -> Finding:
    if not evidence.repeats:
        return _nothing(evidence)
    bad = [
        repeat
        for repeat in evidence.repeats
        if isinstance(repeat.second, str) or not _equal(repeat.first, repeat.second)
    ]
    if not bad:
        return OK
    repeat = bad[0]
    if isinstance(repeat.second, str):
        return "failed", f"row {repeat.index} {repeat.where}: {repeat.second}"
    return "failed", (
        f"{brief(repeat.text)} at row {repeat.index} earns {_earned(repeat.first)}, but {_earned(repeat.second)} "
        f"{repeat.where}{_count(bad, evidence.repeats)}: a reward must depend on the row and the answer alone"
    )


def contract(evidence: Evidence, _: Scale) -> Finding:
    return _first(evidence.infos) or _if_judged(evidence)


def spec(evidence: Evidence, _: Scale) -> Finding:
    if evidence.spec is None:
        return "not checked", "it was not made by gymnasium.make" if evidence.repeats else "nothing was judged"
    if isinstance(evidence.spec, Fault):
        return "advice", (
            f"its spec cannot be written as JSON ({evidence.spec}): register it by name, 'module:Class', and take "
            "arguments that JSON can hold"
        )
    return OK


def execution(evidence: Evidence, _: Scale) -> Finding:
    if evidence.executed is None:
        return OK if evidence.of("program") else _nothing(evidence)
    return "failed", (
        f"{evidence.executed} was executed: never give a model's text to eval(), nor to sympy.parse_expr(), "
        "which calls it"
    )


def thinking(evidence: Evidence, scale: Scale) -> Finding:
    tried = evidence.of("thinking")
    if not tried:
        return "not checked", "no solution is known"
    if not all(scale.full(trial.outcome) for trial in tried if trial.outcome):
        return "advice", (
            "the solution is wrong once <think>...</think> stands before it, as reasoning models write: judge what "
            "follows the last </think>"
        )
    if any(scale.paid(trial.outcome) for trial in evidence.of("unclosed") if trial.outcome):
        return "advice", (
            "the solution inside of a <think> that never ends is paid, although the model never gave an answer: judge "
            "only what follows the last </think>"
        )
    return OK


def style(evidence: Evidence, _: Scale) -> Finding:
    weakness = evidence.description.weakness
    return ("advice", f"its answer style is easier to game than others: {weakness}") if weakness else OK


CHECKS: dict[str, Callable[[Evidence, Scale], Finding]] = {
    "interface": interface,
    "rows": rows,
    "exceptions": exceptions,
    "time": time,
    "solution": solution,
    "worthless": worthless,
    "turns": turns,
    "hedging": hedging,
    "persuasion": persuasion,
    "near-misses": near_misses,
    "other-rows": other_rows,
    "copying": copying,
    "leak": leak,
    "execution": execution,
    "repeatable": repeatable,
    "contract": contract,
    "spec": spec,
    "thinking": thinking,
    "style": style,
}
"""Every check by name."""


def _first(messages: Sequence[str], fix: str = "") -> Finding | None:
    """Report the first of some faults, if there are any."""
    more = f" (and {len(messages) - 1} more)" if len(messages) > 1 else ""
    return ("failed", f"{messages[0]}{more}{fix}") if messages else None


def _if_judged(evidence: Evidence) -> Finding:
    return OK if any(trial.outcome for trial in evidence.trials) else _nothing(evidence)


def _nothing(evidence: Evidence) -> Finding:
    return "not checked", f"stopped early: {evidence.stopped}" if evidence.stopped else "nothing was judged"


def _paid(tried: Sequence[Trial], scale: Scale, fix: str) -> Finding:
    bad = [trial for trial in tried if trial.outcome and scale.paid(trial.outcome)]
    if not bad:
        return OK
    trial = bad[0]
    assert trial.outcome is not None
    return "failed", (
        f"{trial.name}, {brief(trial.text)}, earns {trial.outcome.reward:g} at row {trial.index}, where the lowest "
        f"reward is {scale.low:g}{_count(bad, tried)}: {fix}"
    )


def _password(evidence: Evidence, scale: Scale) -> Finding:
    """Report a text in the environment's own code that earns the full reward at rows with different answers."""
    trials: dict[str, list[Trial]] = {}
    for trial in evidence.of("constant"):
        trials.setdefault(trial.text, []).append(trial)
    for text, tried in trials.items():
        golds = {evidence.golds[trial.index] for trial in tried}
        if len(golds) > 1 and all(trial.outcome and scale.full(trial.outcome) for trial in tried):
            return "failed", (
                f"{tried[0].name}, {brief(text)}, earns the full {scale.high:g} at rows with different answers: pay "
                "for the right answer alone"
            )
    return OK


def _short(evidence: Evidence, scale: Scale) -> Finding:
    """Report a very short text that earns the full reward at most of the rows that have another answer."""
    trials: dict[str, list[Trial]] = {}
    for trial in evidence.of("short"):
        trials.setdefault(trial.name, []).append(trial)
    for tried in trials.values():
        right = [trial for trial in tried if trial.outcome and scale.full(trial.outcome)]
        if len({evidence.golds[trial.index] for trial in right}) > 1 and len(right) > len(tried) / 2:
            trial = right[0]
            return "failed", (
                f"{trial.name} earns the full {scale.high:g} at row {trial.index}{_count(right, tried)}, where the "
                f"answer is {brief(evidence.golds[trial.index])}: compare the answer as a whole with the right one"
            )
    return OK


def _by_chance(won: int, count: int, share: float) -> float:
    """Return the probability of `won` or more of `count` when each is won with probability `share`."""
    return sum(math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(won, count + 1))


def _is_telling(evidence: Evidence, solution: str) -> bool:
    """Whether a solution is long enough, or has a form of its own, so that no text contains it by chance."""
    return bool(evidence.form.before.strip()) or len(solution) >= _TELLING


def _names_others(evidence: Evidence, index: int) -> bool:
    """Whether the prompt of a row also holds the solutions of others, as one does that names the possible answers."""
    gold, prompt = evidence.golds[index], evidence.prompts[index].text
    others = {evidence.solutions[row] for row, other in evidence.golds.items() if not same(other, gold)}
    return sum(other in prompt for other in others) > len(others) / 2


def _count(some: Sized, of: Sized) -> str:
    return f" (and {len(some) - 1} more of {len(of)})" if len(some) > 1 else ""


def _equal(one: ProbeResult, other: ProbeResult) -> bool:
    same = one.reward == other.reward or (one.unknown and other.unknown)
    return same and repr(one.turns) == repr(other.turns) and one.verdict == other.verdict  # as text, NaN equals NaN


def _earned(outcome: ProbeResult) -> str:
    turns = f" after {', '.join(f'{reward:g}' for reward in outcome.turns)} for turns" if any(outcome.turns) else ""
    return f"{outcome.reward:g} ({outcome.verdict}){turns}"


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Yield (place, text) for everything within dicts and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield place, value
    else:
        for key, item in items:
            yield from _leaves(item, f"{place}[{key!r}]")
