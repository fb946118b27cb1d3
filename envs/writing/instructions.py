"""`text/Instructions-v0`: a short text about a topic, within constraints that a program can check."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..base import Judgement, Verdict
from ..math.procedural import ProceduralEnv, Split, draws
from ..verifiers.answer_extraction import answer_text
from .constraints import KINDS, Constraint, constraint_of
from .drafts import Case, Draft, Pick, Topic, write
from .layouts import Layout, LayoutError
from .reading import Reading, normal

RewardKind = Literal["all", "fraction"]
WORDS = range(5, 81)
"""How many words any text may have."""
_MAX_CHARACTERS = 4_000
_CASES: tuple[Case, ...] = ("as usual",) * 5 + ("lower", "upper", "shout")


@dataclass(frozen=True)
class Instruction:
    """A topic, a layout and constraints, and a text that meets them."""

    topic: Topic
    layout: Layout
    constraints: tuple[Constraint, ...]
    answer: str
    level: int
    split: Split

    @property
    def prompt(self) -> str:
        ask = (
            f"Write a short text about {self.topic.about}, in plain English and whole sentences, with "
            f'{WORDS[0]} to {WORDS[-1]} words. Use the word "{self.topic.word}".'
        )
        rules = [rule for rule in (self.layout.ask, *(one.ask for one in self.constraints)) if rule]
        return f"{ask} {rules[0]}" if len(rules) == 1 else "\n- ".join([ask, *rules])

    def judge(self, text: str, *, partial: bool) -> Judgement:
        """Judge a text; with `partial` one that fails some constraints, and is about the topic, earns a part."""
        if not text:
            return Judgement.of(Verdict.NO_ANSWER, "there is no text")
        if len(text) > _MAX_CHARACTERS:
            return Judgement.of(False, f"it has {len(text)} characters, more than {_MAX_CHARACTERS:,}")
        asked = len(self.constraints) + bool(self.layout.ask)
        try:
            body, unmet = self.layout.body(text), []
        except LayoutError as error:
            body, unmet = text, [str(error)]
        reading = Reading(body)
        small = any(one.kind == "lower case" for one in self.constraints)
        fault = reading.fault(prompt=self.prompt, words=WORDS, capitals=not small)
        if not fault and not reading.count(self.topic.word) + reading.count(f"{self.topic.word}'s"):
            fault = f'the word "{self.topic.word}" is not in it'
        if fault:
            return Judgement.of(False, fault)
        unmet += [f"not met: {one.ask}" for one in self.constraints if not one.holds(reading)]
        met = asked - len(unmet)
        accuracy = met / asked if partial else float(not unmet)
        verdict = Verdict.WRONG if unmet else Verdict.CORRECT
        return Judgement(verdict, accuracy, "; ".join(unmet), {"constraints_met": met, "constraints": asked})


class InstructionsEnv(ProceduralEnv[Instruction]):
    """Write a short text about a topic within constraints, each of which a program can check.

    ## Description
    An instruction names a topic, a word that must be used, and as many constraints as its level says: on the number of
    words, sentences and paragraphs and their lengths, on letters and their case, on the signs, the start and the end,
    on words to use and not to use, and on the layout (a list, JSON, a title, quotes, two parts). There are 43 kinds.

    Every constraint is read off a text that was written first, so that no combination contradicts itself; that text is
    the solution. What a word, a sentence, a paragraph and a letter are, `envs.writing.reading` defines, for all of
    Unicode. Where a layout is asked for, the constraints are on the text within it: list marks, JSON keys and titles
    are not counted.

    So that nothing is paid for being short or empty, every text must also be plain English prose: whole sentences with
    a capital letter (unless small letters are asked for) and an end, 5 to 80 words, at least half of them different,
    none twice in a row, a fifth to nine tenths of them from the commonest of English, no sentence twice,
    no letters of other alphabets, and no six words in a row copied from the prompt. Grammar and sense are not judged.

    Every index is an instruction, the same in every process and on every machine. The test split has topics of its own.

    ## Action Space
    `UnicodeText`: the text, after any thinking; all of it counts.

    ## Observation Space
    `UnicodeText`: the topic, and the constraints, on lines of their own if there are several.

    ## Reward
    `correct_reward` for a text that meets all constraints, else `wrong_reward`. With `reward="fraction"` a plain text
    about the topic that fails some of them earns the fraction that it meets.

    ## Episode End
    After one step: terminated, or truncated if the action is a `Completion` with `finish_reason="length"`.

    ## Information
    `reset` and `step`: "index" and "level". `step`: also "verdict", "accuracy", "cause" (the constraints that are not
    met) and "rewards", see `TaskEnv`; of a plain text about the topic "constraints_met" and "constraints", as numbers.

    ## Arguments
    - `levels=(1, 2)`: constraints, from 1 to 5, one level or several; each is drawn equally often.
    - `split="train"`: or "test".
    - `reward="all"`: or "fraction", with which accuracy is the fraction of the constraints that are met.
    - `correct_reward=1.0`, `wrong_reward=0.0`: see `TaskEnv`.

    ## Version History
    - v0: first version.
    """

    max_concurrency = "cores"
    level_range = range(1, 6)
    level_unit = "constraints"

    def __init__(
        self,
        *,
        levels: int | Iterable[int] = (1, 2),
        split: Split = "train",
        reward: RewardKind = "all",
        correct_reward: float = 1.0,
        wrong_reward: float = 0.0,
    ) -> None:
        super().__init__(levels=levels, split=split, correct_reward=correct_reward, wrong_reward=wrong_reward)
        if reward not in get_args(RewardKind):
            raise ValueError(f"InstructionsEnv: reward={reward!r} must be 'all' or 'fraction'")
        self.reward = reward

    def draw(self, level: int, choice: int, key: tuple[object, ...]) -> Instruction | None:
        bits = draws("instructions", *key)

        def pick(some: Sequence[Any]) -> Any:
            return some[next(bits) % len(some)]

        case = pick(_CASES)
        draft = write(self.split, pick, laid_out=pick((True, False, False)), case=case)
        constraints = _constraints(level - bool(draft.layout.ask), level, draft, pick)
        if constraints is None or (case != "as usual") != any(KINDS[one.kind].group == "case" for one in constraints):
            return None
        found = Instruction(draft.topic, draft.layout, constraints, draft.text, level, self.split)
        return found if found.judge(found.answer, partial=False).verdict is Verdict.CORRECT else None

    def row(self, index: int) -> dict[str, Any]:
        problem = self.problem(index)
        return {"prompt": problem.prompt, "instruction": problem, "info": {"level": problem.level}}

    def solution(self, index: int) -> str:
        """Return the text that the constraints at `index` were read off."""
        return self.problem(index).answer

    def verify(self, row: Mapping[str, Any], completion: str) -> Judgement:
        text = answer_text(completion)
        if text is None:
            return Judgement.of(Verdict.NO_ANSWER, "the thinking never ends, and no text counts inside of it")
        return row["instruction"].judge(normal(text), partial=self.reward == "fraction")


def _constraints(count: int, level: int, draft: Draft, pick: Pick) -> tuple[Constraint, ...] | None:
    """Draw constraints that hold for a draft, of different groups; None if there are too few."""
    reading = Reading(draft.layout.body(draft.text))
    kinds: dict[str, list[str]] = {}
    for name, kind in KINDS.items():
        if kind.level <= level and kind.group not in draft.layout.decides:
            kinds.setdefault(kind.group, []).append(name)
    found: list[Constraint] = []
    while kinds and len(found) < count:
        group = "case" if "case" in kinds else pick(list(kinds))
        possible = (constraint_of(kind, reading, pick) for kind in kinds.pop(group))
        if some := [one for one in possible if one is not None]:
            found.append(pick(some))
    return tuple(found) if len(found) == count else None
