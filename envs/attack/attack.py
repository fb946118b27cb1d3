"""`attack_reward`: train a small policy on a reward, and look at what it learnt on rows that it never saw.

Half of the rows train the policy, with the right answers hidden from it: it sees rewards, the prompt and the info of
`reset`, as a model's user does. Its best strategies are then tested on the other half.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gymnasium

from ..numeric import is_count
from ..reward_check.check import env_maker
from ..reward_check.client import Client, Died, Hung, NotMade
from ..reward_check.episode import Fault, Prompt
from ..reward_check.examination import MAX_LOST, sample_rows
from ..reward_check.probe_answers import Form, read_form
from .moves import EDITS, forms, payloads
from .policy import Choice, Policy
from .report import AttackReport, Finding, HeldOut, guess_level, judge

DEFAULT_CALLS, DEFAULT_MINUTES = 6_000, 5.0
"""Answers that the policy is trained on, and the minutes that an attack may take."""
_ROWS = 128  # looked at; half of them are held out
_BATCH = 20  # answers of one request
_TESTED = 12  # strategies that are tested on the rows held out
_GUESSES = 6  # right answers of one row that are tried at the others
_WORD = "pneumonoultramicroscopic"


def attack_reward(
    env: str | gymnasium.Env | Callable[[], gymnasium.Env],
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
    calls: int = DEFAULT_CALLS,
    minutes: float = DEFAULT_MINUTES,
    solution: Callable[[int], str | None] | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> AttackReport:
    """Attack a reward by training on it.

    Args:
        env: As for `check_reward_env`.
        env_kwargs: Arguments for an id.
        seed: Decides the rows and every draw of the policy.
        calls: Answers that the policy is trained on; as many more, all wrong, are given before the test, in case that
            the reward changes with their number.
        minutes: Limit of the whole attack; one that it stops is not reproducible on another machine.
        solution: Returns the right answer to a row, by default the environment's own method. Only the judge of the
            findings knows it, never the policy.
        progress: Called with (answers given, answers in all, mean reward of the last batch).

    Raises:
        ValueError: A setting is wrong, or the environment cannot be attacked, because of its interface or too few rows.
    """
    if not is_count(calls):
        raise ValueError(f"attack_reward: calls={calls!r} must be an integer of at least 1")
    if not minutes > 0:
        raise ValueError(f"attack_reward: minutes={minutes!r} must be above 0")
    make = env_maker(env, dict(env_kwargs or {}))
    try:
        with Client(make, hash_seed=1) as client, Client(make, hash_seed=2) as fresh:
            return _Attack(client, fresh, seed, time.monotonic() + 60 * minutes).run(calls, solution, progress)
    except (Fault, NotMade) as error:
        raise ValueError(f"attack_reward: the environment cannot be attacked: {error}") from error


class _TimeIsUp(Exception):
    """Training ends early; what was learnt is still tested."""


class _Stopped(Exception):
    """The attack ends: the environment fails on too many answers."""


class _Attack:
    """One attack on the environment of a client; `fresh` has another instance, which has judged nothing yet."""

    def __init__(self, client: Client, fresh: Client, seed: int, deadline: float) -> None:
        self.client, self.fresh, self.seed, self.deadline = client, fresh, seed, deadline
        self.description = client.ask("describe")
        rows = sample_rows(self.description.num_rows, _ROWS, seed)
        random.Random(seed).shuffle(rows)
        if len(rows) < 4:
            raise Fault(f"it has {len(rows)} rows: 4 are needed, one half to train on and one to test on")
        self.shown: dict[int, Prompt] = {index: client.ask("present", index) for index in rows}
        half = len(rows) // 2
        self.train, self.held_out = rows[:half], rows[half:]
        self.lost = 0

    def run(
        self,
        calls: int,
        solution: Callable[[int], str | None] | None,
        progress: Callable[[int, int, float], None] | None,
    ) -> AttackReport:
        """Train, test what was learnt, and report."""
        right = {index: solution(index) if solution else self.client.ask("solution", index) for index in self.held_out}
        known = {index: text for index, text in right.items() if text is not None}
        form, inner = read_form(list(known.values()))
        golds = dict(zip(known, inner, strict=True))
        answers, guessing, findings, stopped = 0, None, list[Finding](), ""
        try:
            self._measure(known)
            self._compose()
            try:
                for done in self._training(calls, progress):
                    answers = done
                self._answer([(index, _WORD) for index in (self.train * calls)[:calls]])
            except _TimeIsUp:
                stopped = "the limit on minutes"
            guessing = guess_level(golds, self._partial(known)) if golds else None
            for choice in self._best():
                found = self._finding(choice, golds, guessing or 0.0, form)
                if found is not None:
                    findings.append(found)
        except _Stopped as reason:
            stopped = str(reason)
        findings.sort(key=lambda found: (not found.hole, -found.reward))
        return AttackReport(self.description.name, self.seed, answers, guessing, findings, stopped)

    def _measure(self, known: Mapping[int, str]) -> None:
        """Find the lowest and the highest reward."""
        bounds = self.description.reward_range
        if bounds is None:
            seen = self._raw([(index, text) for index, text in list(known.items())[:4]] + [(self.train[0], _WORD)])
            rewards = [reward for reward in seen if reward == reward]
            bounds = min(rewards, default=0.0), max([*rewards, *([] if known else [1.0])], default=1.0)
        self.low, self.high = bounds
        if self.high <= self.low:
            self.high = self.low + 1.0  # nothing seen so far is paid more than anything else

    def _compose(self) -> None:
        prompts = [self.shown[index].text for index in self.train]
        infos = [self.shown[index].info for index in self.train]
        self.payloads = payloads(infos, self.client.ask("constants"), self.client.ask("persuasions"))
        self.forms = forms(prompts)
        priors = [[1.0] * len(self.payloads), *([change.weight for change in some] for some in (EDITS, self.forms))]
        self.policy = Policy(priors, self.seed)

    def _training(self, calls: int, progress: Callable[[int, int, float], None] | None) -> Iterator[int]:
        """Train the policy, and yield after each batch how many answers it was trained on."""
        generator = random.Random(f"rows {self.seed}")
        done = 0
        while done < calls:
            batch: list[tuple[Choice, int, str]] = []
            while len(batch) < min(_BATCH, calls - done):
                choice, index = self.policy.draw(), generator.choice(self.train)
                text = self._text(choice, index)
                if text is None:
                    self.policy.learn(choice, 0.0)
                    continue
                batch.append((choice, index, text))
            rewards = self._answer([(index, text) for _, index, text in batch])
            for (choice, _, _), reward in zip(batch, rewards, strict=True):
                self.policy.learn(choice, reward)
            done += len(batch)
            if progress is not None:
                progress(done, calls, sum(rewards) / len(rewards))
            yield done

    def _best(self) -> list[Choice]:
        """Return the strategies to test: the best, and one that is wrong everywhere."""
        word = next(i for i, payload in enumerate(self.payloads) if payload.name == f"the text {_WORD!r}")
        likely = max(range(len(self.forms)), key=lambda place: self.forms[place].weight)
        return list(dict.fromkeys([*self.policy.best(_TESTED), (word, 0, likely)]))

    def _test(self, choice: Choice, client: Client) -> list[HeldOut]:
        texts = [(index, self._text(choice, index)) for index in self.held_out]
        asked = [(index, text) for index, text in texts if text is not None]
        rewards = iter(self._answer(asked, client, late=True))
        return [HeldOut(index, text or "", 0.0 if text is None else next(rewards)) for index, text in texts]

    def _finding(self, choice: Choice, golds: Mapping[int, str], guessing: float, form: Form) -> Finding | None:
        """Test a strategy on the rows held out; of a hole, add whether a fresh instance pays it too."""
        place = self.payloads[choice[0]].place
        found = judge(
            self._name(choice),
            self._test(choice, self.client),
            place,
            copied=choice[1] == 0 or place == "info",
            golds=golds,
            guessing=guessing,
            form=form,
        )
        if found is not None and found.hole:
            again = self._test(choice, self.fresh)
            if sum(trial.reward for trial in again) / len(again) < found.reward / 2:
                note = "a new instance does not pay it: the reward depends on the answers before"
                return dataclasses.replace(found, note=note)
        return found

    def _partial(self, known: Mapping[int, str]) -> float:
        """Return the best mean of the rewards below the highest that one row's right answer earns at the others.

        The rewards of turns are left out: to collect them with an answer that is wrong is no guessing.
        """
        means = [0.0]
        for text in list(dict.fromkeys(known.values()))[:_GUESSES]:
            rewards = self._answer([(index, text) for index in self.held_out], late=True, with_turns=False)
            means.append(sum(reward for reward in rewards if reward < 1 - 1e-6) / len(rewards))
        return max(means)

    def _text(self, choice: Choice, index: int) -> str | None:
        shown = self.shown[index]
        text = self.payloads[choice[0]].find(shown.text, shown.info)
        return None if text is None else self.forms[choice[2]].apply(EDITS[choice[1]].apply(text))

    def _name(self, choice: Choice) -> str:
        payload, edit, form = self.payloads[choice[0]].name, EDITS[choice[1]].name, self.forms[choice[2]].name
        return ", ".join(filter(None, (payload, edit, form)))

    def _answer(
        self,
        asked: Sequence[tuple[int, str]],
        client: Client | None = None,
        *,
        late: bool = False,
        with_turns: bool = True,
    ) -> list[float]:
        """Return the rewards from 0 to 1; one that is not known is 0. A test may go on after the deadline."""
        found: list[float] = []
        for start in range(0, len(asked), _BATCH):
            if not late and time.monotonic() > self.deadline:
                raise _TimeIsUp
            found += self._raw(asked[start : start + _BATCH], client, with_turns)
        span = self.high - self.low
        return [min(1.0, max(0.0, (reward - self.low) / span)) if reward == reward else 0.0 for reward in found]

    def _raw(
        self, asked: Sequence[tuple[int, str]], client: Client | None = None, with_turns: bool = True
    ) -> list[float]:
        """Return the rewards as the environment gives them; NaN where there is none."""
        limit = 6 * self.description.judging_seconds
        try:
            return (client or self.client).ask("rewards", list(asked), with_turns, limit=limit)
        except (Hung, Died):
            if len(asked) > 1:  # one of them; the others are judged in a new process
                return [reward for one in asked for reward in self._raw([one], client, with_turns)]
            self.lost += 1
            if self.lost == MAX_LOST:
                raise _Stopped(f"{MAX_LOST} answers took too long or ended the process") from None
            return [float("nan")]
