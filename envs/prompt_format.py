"""`PromptFormat`, the one place that puts a prompt together: system prompt, worked examples, template, question."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .chat import Message, is_message, user
from .math.answers import bare_question
from .rows import read_file
from .text import brief

QUESTION = "{question}"
"""Stands for the question in a prompt template, exactly once; everything else in it is literal."""
FewShot = int | str | os.PathLike[str] | Sequence[Any] | None
"""A number of examples, a file of them, or a list; see `envs.wrappers.Prompting`."""


@dataclass(frozen=True)
class PromptFormat:
    """What a prompt has beside a row's own question: the one place that puts it together.

    Attributes:
        system_prompt: The system's message; empty: none.
        few_shot: Worked examples, questions and answers by turns.
        template: The text of a question, the examples' too, with one `{question}` in it.

    Raises:
        ValueError: The question does not stand in the template exactly once.
    """

    system_prompt: str = ""
    few_shot: tuple[Message, ...] = ()
    template: str = QUESTION

    def __post_init__(self) -> None:
        if self.template.count(QUESTION) != 1:
            raise ValueError(
                f"prompt_template is {self.template!r}: {QUESTION} must stand in it exactly once, where the question "
                "goes"
            )

    @classmethod
    def of(cls, system_prompt: str | None, few_shot: FewShot, prompt_template: str | None) -> PromptFormat:
        """Return the format that the settings of these names ask for; the examples of a number are not in it yet.

        Raises:
            ValueError: A template without its placeholder, a number below 0, or examples that are none.
            FileNotFoundError: There is no such file of examples.
        """
        if isinstance(few_shot, int) and few_shot < 0:
            raise ValueError(f"few_shot is {few_shot}: it must be 0 or more examples")
        template = QUESTION if prompt_template is None else prompt_template
        turns = () if few_shot is None or isinstance(few_shot, int) else read_turns(few_shot)
        return cls(system_prompt or "", turns, template)

    def messages(self, own: Sequence[Message]) -> list[Message]:
        """Return the prompt of a row.

        Args:
            own: The row's own messages, of which the last is its question.

        Raises:
            ValueError: There is a system prompt, and the row has a system message of its own.
        """
        *before, question = own
        system = [message for message in before if message["role"] == "system"]
        if system and self.system_prompt:
            raise ValueError(
                f"the row has a system message of its own, {brief(system[0]['content'])}, and system_prompt is set: "
                "leave one of the two out"
            )
        if self.system_prompt:
            system = [{"role": "system", "content": self.system_prompt}]
        examples = [self._asked(turn) if turn["role"] == "user" else dict(turn) for turn in self.few_shot]
        return [*system, *examples, *(turn for turn in before if turn["role"] != "system"), self._asked(question)]

    def is_example(self, own: Sequence[Message]) -> bool:
        """Return whether the question of a row is among the examples."""
        return bool(self.few_shot) and _bare(own[-1]["content"]) in self._questions

    @cached_property
    def _questions(self) -> frozenset[str]:
        return frozenset(_bare(turn["content"]) for turn in self.few_shot if turn["role"] == "user")

    def _asked(self, turn: Message) -> Message:
        return {**turn, "content": self.template.replace(QUESTION, turn["content"])}


def read_turns(given: Sequence[Any] | str | os.PathLike[str]) -> tuple[Message, ...]:
    """Return examples as turns, the user's and the assistant's by turns.

    Args:
        given: A list, or a jsonl or parquet file. An item or row is a message, or has "messages", or the "prompt" (text
            or messages) and "completion" (text) of an example; in a list it may also be a pair of two texts.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds something else; the message names the item.
    """
    turns: list[Message] = []
    items: Iterable[Any]
    if isinstance(given, (str, os.PathLike)):
        path = Path(os.fspath(given)).expanduser()
        if not path.is_file():
            raise FileNotFoundError(
                f"few_shot is {os.fspath(given)!r}: there is no such file (looked from {Path.cwd()}); it must be a "
                "number of examples, a list of them, or a file"
            )
        items, place_of = read_file(path), f"few_shot: row {{}} of {path.name}"
    elif not isinstance(given, (list, tuple)):
        raise ValueError(f"few_shot is {brief(given)}: it must be a number of examples, a list of them, or a file")
    else:
        items, place_of = given, "few_shot[{}]"
    for number, item in enumerate(items):
        place = place_of.format(number)
        for turn in _turns_of(item, place):
            expected = "assistant" if len(turns) % 2 else "user"
            if turn["role"] != expected:
                raise ValueError(
                    f"{place} brings a turn of the {turn['role']} where one of the {expected} must come: examples are "
                    "questions and answers by turns (a system message is the setting system_prompt)"
                )
            turns.append(turn)
    if len(turns) % 2:
        raise ValueError("few_shot ends with a question: every example needs its answer, a turn of the assistant")
    return tuple(turns)


def _turns_of(item: Any, place: str) -> Iterator[Message]:
    if isinstance(item, (list, tuple)) and len(item) == 2:
        item = dict(zip(("prompt", "completion"), item, strict=True))
    if is_message(item):
        yield {"role": item["role"], "content": item["content"]}
        return
    turns = item.get("messages") if isinstance(item, Mapping) else None
    if turns is None and isinstance(item, Mapping) and isinstance(item.get("completion"), str):
        asked = item.get("prompt")
        asked = [user(asked)] if isinstance(asked, str) else asked
        turns = [*asked, {"role": "assistant", "content": item["completion"]}] if isinstance(asked, list) else None
    if not isinstance(turns, (list, tuple)) or not all(map(is_message, turns)):
        raise ValueError(
            f'{place} is {brief(item)}: an example is {{"prompt": ..., "completion": ...}}, a pair of two texts, '
            '{"messages": [...]}, or a message {"role": "user", "content": ...} with its answer as the next one'
        )
    yield from ({"role": turn["role"], "content": turn["content"]} for turn in turns)


def _bare(question: str) -> str:
    """Return a question as it is compared: without the instructions of a known answer style, with single spaces."""
    return " ".join(bare_question(question).split())
