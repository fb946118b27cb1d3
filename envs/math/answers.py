r"""How an answer is asked for and how it is found again: one object, so that they agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..base import Judgement, Verdict
from ..verifiers.extraction import after_thinking, answer_line, boxes, hash_line


@dataclass(frozen=True)
class AnswerStyle:
    """A prompt template and the extractor that reads what it asks for.

    Attributes:
        template: The prompt, with `{question}` where the question goes.
        form: What it asks for, in words, for the cause of a `no_answer`.
        extract: Finds the answer in a text (without thinking), or returns None.
    """

    template: str
    form: str
    extract: Callable[[str], str | None]

    def prompt(self, question: str) -> str:
        """Return the prompt that asks `question` in this style."""
        return self.template.format(question=question)

    def judge(self, completion: str, gold: str, compare: Callable[[str, str], Judgement]) -> Judgement:
        """Find the answer in `completion` and judge it with `compare(answer, gold)`."""
        text = after_thinking(completion)
        if text is None:
            return Judgement.of(Verdict.NO_ANSWER, "the thinking never ends, and no answer counts inside of it")
        answer = self.extract(text)
        if answer is None:
            return Judgement.of(Verdict.NO_ANSWER, f"there is no answer: this style asks for {self.form}")
        return compare(answer, gold)


def _line_or_box(text: str) -> str | None:
    line = answer_line(text)
    return boxes(text) if line is None else line


_AS_LINE = '{question}\n\nReason step by step, then give the final answer on a last line "Answer: <answer>".'

ANSWER_STYLES: dict[str, AnswerStyle] = {
    "auto": AnswerStyle(_AS_LINE, r'a last line "Answer: ..." or a \boxed{...}', _line_or_box),
    "answer_line": AnswerStyle(_AS_LINE, 'a last line "Answer: ..."', answer_line),
    "boxed": AnswerStyle(
        "{question}\n\nReason step by step, and put the final answer within \\boxed{{}}.",
        r"a \boxed{...}",
        boxes,
    ),
    "hash": AnswerStyle(
        '{question}\n\nReason step by step, then give the final answer on a last line "#### <answer>".',
        'a last line "#### ..."',
        hash_line,
    ),
}
"""The styles of `math/Problem-v0`; "auto" asks for an answer line and accepts a box too."""


def gold_answer(value: str) -> str:
    r"""Reduce a worked solution to its answer: what follows "####", else the last box, else all of it."""
    for extract in (hash_line, boxes):
        if (answer := extract(value)) is not None:
            value = answer
            break
    return " ".join(value.split())
