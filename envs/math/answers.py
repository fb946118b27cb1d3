r"""How an answer is asked for and how it is found again: one object, so that they agree."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..base import Judgement, Verdict
from ..verifiers.answer_extraction import answer_line, answer_text, boxes, hash_line, last_number

_QUESTION = "{question}"
_MAX_ANSWER = 1_000  # characters that are kept of it


_CALCULATOR = re.compile(r"<<[^<>\n]*>>")  # as in GSM8K: 3 * 4 = <<3*4=12>>12
_HASH_LINE = re.compile(r"\n####[^\n]*\s*\Z")
_STATED = re.compile(r"(?:\banswer(?: is:? +| ?= ?)|^\W*(?:final )?answer\W*\n)(\S[^\n]*?)\.?$", re.IGNORECASE)


@dataclass(frozen=True)
class AnswerStyle:
    """A prompt template and the extractor that reads what it asks for.

    Attributes:
        template: The prompt, taken literally but for one `{question}` where the question goes.
        form: What it asks for, in words, for the cause of a `no_answer`.
        extract: Finds the answer in a text (without thinking), or returns None.
        final: The last line of a response in this style, with `{answer}` where the answer goes.
        weakness: Why this style is easier to game than others; "" if it is not.

    Raises:
        ValueError: The question does not stand in the template exactly once.
    """

    template: str
    form: str
    extract: Callable[[str], str | None]
    final: str = "Answer: {answer}"
    weakness: str = ""

    def __post_init__(self) -> None:
        if self.template.count(_QUESTION) != 1:
            raise ValueError(f"AnswerStyle: template={self.template!r} must have {_QUESTION} in it exactly once")

    def prompt(self, question: str) -> str:
        """Return the prompt that asks `question` in this style."""
        return self.template.replace(_QUESTION, question)

    def messages(self, question: str, *, system: bool = False) -> list[dict[str, str]]:
        """Return the prompt as chat messages.

        Args:
            question: What is asked.
            system: Give the instruction as a system message and the bare question as the user's, which some models
                were trained with; otherwise the whole prompt is the user's, which is what the trainer sends.

        Raises:
            ValueError: `system` is asked for, and the question stands in the middle of the instruction's sentence.
        """
        if not system:
            return [{"role": "user", "content": self.prompt(question)}]
        before, after = self._around
        if (before and not before.endswith("\n")) or (after and not after.startswith("\n")):
            raise ValueError(
                f"AnswerStyle.messages: system=True needs the question in a paragraph of its own, and the template "
                f"is {self.template!r}: use system=False"
            )
        instruction = "\n\n".join(part.strip() for part in (before, after) if part.strip())
        return [{"role": "system", "content": instruction}, {"role": "user", "content": question}]

    def question(self, prompt: str) -> str | None:
        """Return the question that `prompt` asks in this style, None if it is no prompt of this style."""
        before, after = self._around
        if len(prompt) <= len(before) + len(after) or not (prompt.startswith(before) and prompt.endswith(after)):
            return None
        return prompt[len(before) : len(prompt) - len(after)]

    def solution(self, answer: str) -> str:
        """Return the shortest response that gives `answer` in this style."""
        return self.final.replace("{answer}", answer)

    def judge(self, completion: str, gold: str, compare: Callable[[str, str], Judgement]) -> Judgement:
        """Find the answer in `completion` and judge it with `compare(answer, gold)`.

        The judgement has the answer among its details, in one spelling if `compare` knows one.
        """
        text = answer_text(completion)
        if text is None:
            return Judgement.of(Verdict.NO_ANSWER, "the thinking never ends, and no answer counts inside of it")
        answer = self.extract(text)
        if answer is None:
            return Judgement.of(Verdict.NO_ANSWER, f"there is no answer: this style asks for {self.form}")
        judgement = compare(answer, gold)
        if judgement.verdict is Verdict.NO_ANSWER:
            return judgement
        given = str(judgement.details.get("answer", " ".join(answer.split())))
        return replace(judgement, details={**judgement.details, "answer": given[:_MAX_ANSWER]})

    @property
    def _around(self) -> tuple[str, str]:
        before, _, after = self.template.partition(_QUESTION)
        return before, after


def _line_or_box(text: str) -> str | None:
    line = answer_line(text)
    return boxes(text) if line is None else line


_AS_LINE = '{question}\n\nReason step by step, then give the final answer on a last line "Answer: <answer>".'

# The wording of the DAPO paper's training data and of its AIME evaluation, unchanged (arXiv 2503.14476;
# BytedTsinghua-SIA/DAPO-Math-17k on the Hub).
_AS_DAPO = (
    "Solve the following math problem step by step. The last line of your response should be of the form "
    "Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\n"
    "{question}\n\n"
    'Remember to put your answer on its own line after "Answer:".'
)

ANSWER_STYLES: dict[str, AnswerStyle] = {
    "auto": AnswerStyle(_AS_LINE, r'a last line "Answer: ..." or a \boxed{...}', _line_or_box),
    "answer_line": AnswerStyle(_AS_LINE, 'a last line "Answer: ..."', answer_line),
    "dapo": AnswerStyle(_AS_DAPO, 'a last line "Answer: ..."', answer_line),
    "boxed": AnswerStyle(
        "{question}\n\nReason step by step, and put the final answer within \\boxed{}.",
        r"a \boxed{...}",
        boxes,
        r"\boxed{{answer}}",
    ),
    "hash": AnswerStyle(
        '{question}\n\nReason step by step, then give the final answer on a last line "#### <answer>".',
        'a last line "#### ..."',
        hash_line,
        "#### {answer}",
    ),
    "last_number": AnswerStyle(
        "{question}\n\nReason step by step, and end with the final answer, a number.",
        "a number",
        last_number,
        "The answer is {answer}.",
        "the last number of any text is its answer, so a text that lists several is paid for the last",
    ),
}
"""The styles of `math/Problem-v0`; "auto" asks for an answer line and accepts a box too."""


def bare_question(prompt: str) -> str:
    """Take off the instructions of whatever style `prompt` is already written in."""
    return next((question for style in ANSWER_STYLES.values() if (question := style.question(prompt))), prompt)


def gold_answer(value: str) -> str:
    r"""Reduce a worked solution to its answer.

    That is what follows "####", else the last box, else the last answer line, else what the last line states ("the
    answer is 34", "answer = 34", or 34 under the heading "Answer"), else all of it.
    """
    for extract in (hash_line, boxes, answer_line, _stated_answer):
        if (answer := extract(value)) is not None:
            value = answer
            break
    return " ".join(value.split())


def worked_solution(value: str, gold: str) -> str | None:
    """Return the text of a worked solution without GSM8K's marks (calculations in `<<>>`, a last line "#### 72"); None
    if `value` is the bare answer `gold`."""
    text = _HASH_LINE.sub("", _CALCULATOR.sub("", value)).strip()
    return None if " ".join(text.split()) in (gold, f"#### {gold}") else text


def _stated_answer(value: str) -> str | None:
    *_, heading, last = ["", "", *filter(str.strip, value.splitlines())]
    stated = _STATED.search(last) or _STATED.search(f"{heading.strip()}\n{last.strip()}")
    return stated and stated[1].strip()
