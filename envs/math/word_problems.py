"""`math/WordProblems-v0`: endless word problems, from one step with small numbers to four steps and more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..base import Judgement
from ..verifiers.math.judge import judge
from .answers import ANSWER_STYLES
from .procedural import ProceduralEnv, Split, draws, split_of
from .word_templates import templates


@dataclass(frozen=True)
class WordProblem:
    """A problem in words, as it is asked, with the numbers in it and its worked solution, a sentence for each line."""

    prompt: str
    numbers: tuple[int, ...]
    solution: tuple[str, ...]
    answer: int
    level: int

    @property
    def split(self) -> Split:
        """The split this problem belongs to, whatever the settings and the order of its numbers."""
        return split_of("words", *sorted(self.numbers))


class WordProblemsEnv(ProceduralEnv[WordProblem]):
    r"""Solve a word problem as school books have them.

    ## Description
    A problem is written from one of more than sixty templates, with names, things and numbers of its own. All numbers
    are whole, also those on the way to the answer, and the answer is none of the numbers in the problem.

    | level | steps | what they take |
    |---|---|---|
    | 1 | 1 | one operation on small numbers |
    | 2 | 2 | larger numbers |
    | 3 | 2 | a fraction, a percentage, a multiple or a rate |
    | 4 | 3 | all of these |
    | 5 | 3 or 4 | the same, and a number that has nothing to do with the answer |
    | 6 | 4 to 6 | all of these |

    Every index is a problem, the same in every process and on every machine. The test split has templates of its own,
    and numbers of its own: no problem of the train split, at any level, has the same numbers in it, in any order.

    ## Action Space
    `UnicodeText`: the model's answer, in the form that the prompt asks for, after any thinking.

    ## Observation Space
    `UnicodeText`: the problem, and how to give the answer.

    ## Reward
    `correct_reward` for the right number, else `wrong_reward`. A unit behind it or a dollar sign before it is fine:
    `$18`, `18 apples`; the rules are those of `math/Problem-v0`.

    ## Episode End
    After one step: terminated, or truncated if the action is a `Completion` with `finish_reason="length"`.

    ## Information
    `reset` and `step`: "index" and "level". `step`: also "verdict", "accuracy", "cause" and "rewards"; see
    `TaskEnv`.

    ## Arguments
    - `levels=(1, 2)`: from 1 to 6, one level or several; each is drawn equally often.
    - `split="train"`: or "test".
    - `answer_style="answer_line"`: how the answer is asked for and found, one of those of `math/Problem-v0`; "hash" is
      that of `math/GSM8K-v0`.
    - `correct_reward=1.0`, `wrong_reward=0.0`: see `TaskEnv`.

    ## Version History
    - v0: first version.
    """

    max_concurrency = "cores"
    level_range = range(1, 7)
    level_unit = "difficulty"

    def __init__(
        self,
        *,
        levels: int | Iterable[int] = (1, 2),
        split: Split = "train",
        answer_style: str = "answer_line",
        correct_reward: float = 1.0,
        wrong_reward: float = 0.0,
    ) -> None:
        super().__init__(levels=levels, split=split, correct_reward=correct_reward, wrong_reward=wrong_reward)
        if answer_style not in ANSWER_STYLES:
            raise ValueError(f"answer_style={answer_style!r} must be one of {', '.join(ANSWER_STYLES)}")
        self.style = ANSWER_STYLES[answer_style]

    def draw(self, level: int, choice: int, key: tuple[object, ...]) -> WordProblem | None:
        possible = templates(level, self.split)
        template = possible[choice % len(possible)]
        bits = draws("words", *key)
        numbers = template.draw(bits)
        if numbers is None:
            return None
        text, solution = template.write(numbers, bits)
        given = tuple(numbers[name] for name in template.given)
        return WordProblem(self.style.prompt(text), given, solution, numbers[template.steps[-1].name], level)

    def solution(self, index: int) -> str:
        """Return the worked solution of the problem at `index`: a sentence a line, then the answer."""
        problem = self.problem(index)
        return "\n".join([*problem.solution, self.style.solution(str(problem.answer))])

    def verify(self, row: Mapping[str, Any], completion: str) -> Judgement:
        question = self.style.question(row["prompt"]) or ""
        return self.style.judge(completion, str(row["answer"]), partial(judge, question=question))
