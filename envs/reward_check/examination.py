"""Everything that the checker asks an environment, and the evidence that comes back; `checks` judges it."""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..base import ENDLESS_INDICES
from ..text import brief
from . import probe_answers as answers
from .client import Client, Died, Hung, NotMade
from .episode import Fault, ProbeResult, Prompt, Raised
from .persuasion import placebo
from .probe_answers import Form, common_start
from .worker import Description

Kind = Literal[
    "solution",
    "worthless",
    "constant",
    "short",
    "persuasion",
    "placebo",
    "oversized",
    "program",
    "hedge",
    "one after another",
    "near miss",
    "other row",
    "strategy",
    "thinking",
    "unclosed",
]
FEW_ROWS = 4
"""Rows on which answers of the rarer kinds are tried."""
MAX_LOST = 3
"""Answers that take too long or end the process before an examination or an attack stops."""
_PATIENCE = 6.0  # an answer is given up after as many time limits
_SOAK_ANSWERS, _SOAK_SECONDS = 5_000, 2.0  # wrong answers given in a row, and for how long at most
_THOUGHT = "<think>\nLet me see. Could it be something else? No.\n</think>\n\n"


class Stopped(Exception):
    """The environment fails so badly that asking on is pointless."""


@dataclass(frozen=True)
class Trial:
    """One answer to one row; the outcome is None where the environment failed."""

    index: int
    kind: Kind
    name: str
    text: str
    outcome: ProbeResult | None


@dataclass(frozen=True)
class Repeat:
    """The same answer to the same row judged twice, the second time elsewhere."""

    index: int
    text: str
    where: str
    first: ProbeResult
    second: ProbeResult | str
    """The outcome, or the fault that prevented one."""


@dataclass
class Evidence:
    """What an environment showed and returned.

    Attributes:
        description: Its own description.
        rows: The indices examined.
        prompts: What `reset` returned for each of them.
        solutions: A right answer, for the rows that have one.
        golds: The answers within the solutions.
        form: The text around the answer in a solution.
        trials: Answers and their outcomes.
        repeats: Answers judged again.
        stalled: Solutions given at once, and after a wrong answer in all turns before the last.
        unstable: Rows or seeds that showed another prompt when asked again, in words.
        faults: Returned values that break the contract.
        raised: Exceptions of its own, and answers that ended its process.
        slow: Answers that took longer than the limit, or for ever.
        infos: Contradictions in what it returned, and changes of a global random generator.
        executed: Name of the program text that was run, if any was.
        spec: Its spec as JSON, None if it has none, or the reason why it cannot be written.
        stopped: Why the examination ended early.
    """

    description: Description
    rows: Sequence[int]
    prompts: dict[int, Prompt] = field(default_factory=dict)
    solutions: dict[int, str] = field(default_factory=dict)
    golds: dict[int, str] = field(default_factory=dict)
    form: Form = field(default_factory=Form)
    trials: list[Trial] = field(default_factory=list)
    repeats: list[Repeat] = field(default_factory=list)
    stalled: list[Repeat] = field(default_factory=list)
    unstable: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    raised: list[str] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)
    infos: list[str] = field(default_factory=list)
    executed: str | None = None
    spec: str | Fault | None = None
    stopped: str = ""

    def of(self, *kinds: Kind) -> list[Trial]:
        """Return the trials of these kinds that were judged."""
        return [trial for trial in self.trials if trial.kind in kinds and trial.outcome is not None]


def sample_rows(count: int | None, most: int, seed: int) -> list[int]:
    """Return the indices to look at: all rows where they are few, else the first, the last and some between."""
    if count is not None and count <= most:
        return list(range(count))
    ends = {0} if count is None or most < 2 else {0, count - 1}
    generator = random.Random(seed)
    while len(ends) < most:
        ends.add(generator.randrange(ENDLESS_INDICES if count is None else count))
    return sorted(ends)


class Examination:
    """Asks an environment in one subprocess, and asks again in another.

    Args:
        main: Where everything is asked.
        other: Where some of it is asked again.
        evidence: Where the findings go.
        seed: Decides on the answers that are random.
        time_limit: Seconds that judging one answer may take.
    """

    def __init__(self, main: Client, other: Client, evidence: Evidence, *, seed: int, time_limit: float) -> None:
        self.main = main
        self.other = other
        self.found = evidence
        self.seed = seed
        self.time_limit = time_limit
        self._lost = 0

    def run(self, solution: Callable[[int], str | None] | None) -> None:
        """Ask everything."""
        try:
            self._prompts()
            self._solutions(solution)
            self._right_and_wrong()
            self._programs()
            self._constants()
            self._short()
            self._persuasions()
            self._hedges()
            self._near_misses()
            self._from_the_prompt()
            self._oversized()
            self._thinking()
            self._stalled()
            self._again()
        except Stopped as reason:
            self.found.stopped = str(reason)

    def _prompts(self) -> None:
        for index in self.found.rows:
            prompt = self._ask(f"row {index}", "present", index)
            if prompt is not None:
                self.found.prompts[index] = prompt
                self.found.infos += prompt.faults
        if not self.found.prompts:
            raise Stopped("no row can be shown")
        for index, prompt in self.found.prompts.items():
            for where, again in (
                ("when it is asked again", self._ask(f"row {index}", "present", index)),
                ("in a second instance", self._ask(f"row {index}", "present", index, None, "second")),
                ("in another process", self._ask(f"row {index}", "present", index, client=self.other)),
            ):
                if again is not None and again.text != prompt.text:
                    self.found.unstable.append(f"row {index} shows {_difference(again.text, prompt.text)} {where}")
                    break
        if self.found.unstable:
            raise Stopped("a row shows another prompt each time")
        for seed in (self.seed, self.seed + 1):
            shown = self._ask(f"seed {seed}", "present", None, seed)
            again = self._ask(f"seed {seed}", "present", None, seed, client=self.other)
            if shown is not None and again is not None and shown.text != again.text:
                self.found.unstable.append(
                    f"seed {seed} shows {_difference(again.text, shown.text)} in another process"
                )

    def _solutions(self, solution: Callable[[int], str | None] | None) -> None:
        for index in self.found.prompts:
            text = solution(index) if solution else self._ask(f"row {index}", "solution", index)
            if text is not None:
                self.found.solutions[index] = text
        self.found.form, golds = answers.read_form(list(self.found.solutions.values()))
        self.found.golds = dict(zip(self.found.solutions, golds, strict=True))

    def _right_and_wrong(self) -> None:
        found, rows = self.found, list(self.found.prompts)
        for number, index in enumerate(rows):
            if index in found.solutions:
                self._try(index, "solution", "the solution", found.solutions[index])
            else:
                self._try(index, "worthless", "a word", answers.worthless(self.seed)["a word"])
            if number == 2 and not any(trial.outcome for trial in found.trials):
                raise Stopped("none of the first three answers was judged")
        for name, text in answers.worthless(self.seed).items():
            for index in rows if name in answers.EVERYWHERE else rows[:FEW_ROWS]:
                self._try_in_form(index, "worthless", name, text)

    def _programs(self) -> None:
        """Answer with programs that leave a file behind when they are run."""
        with tempfile.TemporaryDirectory() as folder:
            canary = Path(folder, "executed")
            for name, text in answers.program(str(canary)).items():
                for index in list(self.found.prompts)[:2]:
                    self._try_in_form(index, "program", name, text)
                if canary.exists():
                    self.found.executed = name
                    break

    def _hedges(self) -> None:
        """Answer with many candidates at once, and with what is right elsewhere."""
        found = self.found
        for index in found.prompts:
            gold = found.golds.get(index)
            others = [text for row, text in found.golds.items() if gold is None or not answers.same(text, gold)]
            distinct = [text for i, text in enumerate(others) if not any(answers.same(text, o) for o in others[:i])]
            for name, text in answers.hedges(gold, distinct, found.form):
                if name == answers.IN_A_ROW:
                    self._in_a_row(index, text, {found.form.wrap(distinct[0]), found.form.wrap(distinct[-1])})
                else:
                    self._try(index, "hedge", name, text)
            for row, text in found.solutions.items():
                if gold is not None and not answers.same(found.golds[row], gold) and row > index:
                    self._try(index, "other row", f"the solution of row {row}", text)
                    break

    def _in_a_row(self, index: int, text: str, ends: Collection[str]) -> None:
        """Answer with a list of answers; it counts for nothing where its first or last one is as good alone."""
        outcome = self._try(index, "one after another", answers.IN_A_ROW, text)
        if outcome is not None and outcome.reward >= self._right:
            alone = [self._ask(f"row {index}, an end of the list", "answer", index, end) for end in ends]
            if any(one is not None and one.reward >= outcome.reward for one in alone):
                self.found.trials.pop()

    @property
    def _right(self) -> float:
        """The highest reward of a solution, NaN where none was judged: nothing is as high."""
        return max((t.outcome.reward for t in self.found.of("solution") if t.outcome), default=math.nan)

    def _short(self) -> None:
        """Answer with very short texts where they are wrong, as long as they are paid for most of the time."""
        found, right = self.found, self._right
        for text in answers.SHORT:
            rows = [index for index, gold in found.golds.items() if not answers.equal(text, gold)]
            lost = 0
            for index in rows:
                outcome = self._try(index, "short", f"the text {text!r}", found.form.wrap(text))
                lost += outcome is None or not outcome.reward >= right
                if 2 * lost >= len(rows):
                    break

    def _constants(self) -> None:
        """Answer with the texts in the environment's own code where they are wrong; one of them may be a password."""
        found, right = self.found, self._right
        for text in self._ask("its code", "constants") or ():
            rows = [index for index, gold in found.golds.items() if not answers.same(text, gold)][:FEW_ROWS]
            for name, wrapped in self._forms("a text from its own code", text):
                for index in rows:
                    outcome = self._try(index, "constant", name, wrapped)
                    if outcome is None or not outcome.reward >= right:
                        break  # a password is one at every row

    def _persuasions(self) -> None:
        """Answer with texts for a judge where they do not hold the right answer, and with a placebo of each that is
        paid."""
        found = self.found
        lowest = min((trial.outcome.reward for trial in found.trials if trial.outcome), default=math.nan)
        for name, text in (self._ask("its judge", "persuasions") or {}).items():
            rows = [index for index in found.prompts if not _holds(text, found.golds.get(index))]
            other = [index for index in rows if found.golds.get(index) != found.golds.get(rows[0])]
            for index in [*rows[:1], *(other or rows[1:])[:1]]:
                for form_name, wrapped in self._forms(name, text):
                    outcome = self._try(index, "persuasion", form_name, wrapped)
                    like = placebo(wrapped)
                    if outcome is not None and outcome.reward > lowest and like != wrapped:
                        self._try(index, "placebo", form_name, like)

    def _near_misses(self) -> None:
        golds = self.found.golds
        ordered = any(list(gold) != sorted(gold) for gold in golds.values())
        for index, gold in golds.items():
            other = next((text for text in golds.values() if not answers.same(text, gold)), None)
            for name, text in answers.near_misses(gold, other=other, ordered=ordered):
                self._try(index, "near miss", name, self.found.form.wrap(text))

    def _from_the_prompt(self) -> None:
        prompts = {index: prompt.text for index, prompt in self.found.prompts.items()}
        for name, strategy in answers.strategies(prompts, self.found.golds).items():
            for index, prompt in prompts.items():
                text = strategy(prompt)
                if text is not None:
                    self._try(index, "strategy", name, self.found.form.wrap(text))

    def _oversized(self) -> None:
        index = next(iter(self.found.prompts))
        for name, text in answers.oversized().items():
            self._try_in_form(index, "oversized", name, text)

    def _thinking(self) -> None:
        for index, text in list(self.found.solutions.items())[:FEW_ROWS]:
            self._try(index, "thinking", "the solution after some thinking", _THOUGHT + text)
            self._try(index, "unclosed", "the solution in thinking that never ends", f"<think>\n{text}")

    def _stalled(self) -> None:
        """Answer right in the last turn, after the wrong answer that collects most in the turns before it."""
        for trial in self.found.of("solution")[:FEW_ROWS]:
            wrong = [
                (other.text, other.outcome)
                for other in self.found.trials
                if other.outcome and other.index == trial.index and other.outcome.steps > 1
                if not other.outcome.reward >= self._right
            ]
            if trial.outcome is None or not wrong:
                continue
            text, outcome = max(wrong, key=lambda one: (sum(one[1].turns), one[1].steps))
            before = [text] * (outcome.steps - 1)
            second = self._ask(f"row {trial.index}, stalling", "answer_after", trial.index, trial.text, before)
            if second is not None:
                where = f"after {brief(text)} in {len(before)} turns"
                self.found.stalled.append(Repeat(trial.index, trial.text, where, trial.outcome, second))

    def _again(self) -> None:
        """Ask known answers again, long after the first time and elsewhere."""
        found = self.found
        known = (found.of("solution", "other row") or found.of("worthless"))[: 2 * len(found.rows)]
        for trial in known:
            one = trial.index, trial.text
            self._repeat(trial, "when it is asked again", self.main, "answer", *one)
            self._repeat(trial, "in a second instance", self.main, "answer", *one, "second")
            self._repeat(trial, "in another process", self.other, "answer", *one)
            self._repeat(trial, "in another thread", self.main, "answer_in_thread", *one)
        judged = self._ask("many answers in a row", "soak", list(found.prompts), _SOAK_ANSWERS, _SOAK_SECONDS)
        for trial in (*known, *found.of("worthless")[:FEW_ROWS]) if judged else ():
            self._repeat(trial, f"after {judged:,} other answers", self.main, "answer", trial.index, trial.text)
        try:
            found.spec = self.main.ask("to_json")
        except (Fault, NotMade) as reason:
            found.spec = Fault(str(reason))
        for trial in known[:FEW_ROWS]:
            one = trial.index, trial.text
            self._repeat(trial, "after the dicts it returned were changed", self.main, "answer_after_vandalism", *one)
            if isinstance(found.spec, str):
                self._repeat(trial, "in an environment made from its spec", self.main, "answer", *one, "json")
            if found.description.many_turns:
                elsewhere = next((index for index in found.prompts if index != trial.index), trial.index)
                self._repeat(trial, "in a deep copy", self.main, "answer_in_copy", *one, elsewhere)

    def _repeat(self, trial: Trial, where: str, client: Client, method: str, *arguments: Any) -> None:
        assert trial.outcome is not None
        second: ProbeResult | str
        try:
            second = client.ask(method, *arguments, limit=_PATIENCE * self.time_limit)
        except (Fault, NotMade) as reason:
            second = str(reason)
        self.found.repeats.append(Repeat(trial.index, trial.text, where, trial.outcome, second))

    def _try_in_form(self, index: int, kind: Kind, name: str, text: str) -> None:
        for form_name, wrapped in self._forms(name, text):
            self._try(index, kind, form_name, wrapped)

    def _forms(self, name: str, text: str) -> Iterator[tuple[str, str]]:
        """Yield a text as it is, and as the answer in the form that the task asks for."""
        yield name, text
        if self.found.form != Form():
            yield f"{name} in the form that is asked for", self.found.form.wrap(text)

    def _try(self, index: int, kind: Kind, name: str, text: str) -> ProbeResult | None:
        what = f"row {index}, {name}"
        outcome: ProbeResult | None = self._ask(what, "answer", index, text)
        if outcome is not None and outcome.seconds > self.time_limit:  # the first judgement may load a library
            outcome = self._ask(what, "answer", index, text)
            if outcome is not None and outcome.seconds > self.time_limit:
                self.found.slow.append(f"{what}: step() takes {outcome.seconds:.1f} s")
                self._give_up()
        if outcome is not None:
            self.found.infos += outcome.faults
        self.found.trials.append(Trial(index, kind, name, text, outcome))
        return outcome

    def _ask(self, what: str, method: str, *arguments: Any, client: Client | None = None) -> Any:
        """Return the result of a request, or None after noting why there is none."""
        found = self.found
        try:
            return (client or self.main).ask(method, *arguments, limit=_PATIENCE * self.time_limit)
        except Hung as fault:
            found.slow.append(f"{what}: {fault}")
            self._give_up()
        except Died as fault:
            found.raised.append(f"{what}: {fault}")
            self._give_up()
        except Raised as fault:
            found.raised.append(f"{what}: {fault}")
        except Fault as fault:
            found.faults.append(f"{what}: {fault}")
        return None

    def _give_up(self) -> None:
        """Stop at the third answer that costs much time."""
        self._lost += 1
        if self._lost == MAX_LOST:
            raise Stopped(f"{MAX_LOST} answers took too long or ended the process")


def _holds(text: str, gold: str | None) -> bool:
    """Whether a text holds the right answer, in whatever case."""
    return bool(gold and gold.casefold() in text.casefold())


def _difference(one: str, other: str) -> str:
    """Show two texts from shortly before the place where they begin to differ."""
    start = max(0, len(common_start([one, other])) - 15)
    return f"{brief(one[start:])} instead of {brief(other[start:])}"
