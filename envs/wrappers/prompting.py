"""`Prompting`: a system prompt, worked examples and a template around the questions of an environment."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from ..base import ENDLESS_INDICES
from ..chat import Message, own_messages
from ..contract import read_reset, reset_to_row
from ..prompt_format import FewShot, PromptFormat

_SEED = 21  # decides which rows become examples: the same ones in training and in every evaluation
_MAX_LOOKED_AT = 1_000  # rows in which an example is looked for, for each that is wanted


class Prompting(gymnasium.Wrapper[str, str, str, str], RecordConstructorArgs):
    """Ask the questions of an environment with a system prompt, worked examples and a template.

    The observation stays the row's own question, by which it is judged; the prompt as chat messages is
    `info["messages"]`. A row that is among the examples has `info["is_example"]`: it is never trained or
    measured on. The spec holds the examples themselves, so that the environment is made again with the same ones.

    Args:
        env: The environment.
        system_prompt: The system's message.
        few_shot: Worked examples, shown as earlier turns of the chat: a list or a file of them (see `read_turns`), or
            the number of rows that are shown with their `solution()`; the same rows each time.
        prompt_template: The text of each question, the examples' too, with one `{question}` in it.

    Raises:
        ValueError: A template without its placeholder, examples that are none, or fewer rows with a solution than
            asked for.
        FileNotFoundError: There is no such file.
    """

    def __init__(
        self,
        env: gymnasium.Env[str, str],
        *,
        system_prompt: str | None = None,
        few_shot: FewShot = None,
        prompt_template: str | None = None,
    ) -> None:
        gymnasium.Wrapper.__init__(self, env)
        self.format = PromptFormat.of(system_prompt, few_shot, prompt_template)
        if isinstance(few_shot, int):
            self.format = replace(self.format, few_shot=_drawn(env, few_shot))
        self.asked = {"system_prompt": system_prompt, "few_shot": few_shot, "prompt_template": prompt_template}
        """The arguments as they were given."""
        self.drawn = isinstance(few_shot, int)
        """Whether the examples are rows of an environment, and not given."""
        self._resolved: dict[str, Any] = {**self.asked, "few_shot": list(self.format.few_shot) or None}
        RecordConstructorArgs.__init__(self, **self._resolved)

    def around(self, env: gymnasium.Env[str, str]) -> Prompting:
        """Ask another environment in the same way, with the same examples."""
        other = Prompting(env, **self._resolved)
        other.drawn = self.drawn
        return other

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Reset the environment; the prompt is in info."""
        question, info = read_reset(self.env.reset(seed=seed, options=options))
        own = own_messages(question, info)
        found = {"is_example": True} if self._is_example(own, info.get("index")) else {}
        return question, {**info, **found, "messages": self.format.messages(own)}

    def _is_example(self, own: list[Message], index: int | None) -> bool:
        """Whether the examples hold a row: in a task of many turns, where rows may begin alike, with its solution."""
        if not self.format.is_example(own):
            return False
        answers = [turn["content"] for turn in self.format.few_shot if turn["role"] == "assistant"]
        return not _has_many_turns(self) or self.unwrapped.solution(index) in answers  # type: ignore[attr-defined]


def _drawn(env: gymnasium.Env[str, str], count: int) -> tuple[Message, ...]:
    task = env.unwrapped
    name = env.spec.id if env.spec is not None else type(task).__name__
    size = getattr(task, "num_rows", None)
    if size is not None and count >= size:
        raise ValueError(
            f"few_shot is {count}, and {name} has {size} rows: rows that are shown as examples are never trained or "
            "measured on, and at least one must be left"
        )
    solution = getattr(task, "solution", lambda index: None)
    turns: list[Message] = []
    seen: set[tuple[str, str]] = set()
    for index in itertools.islice(_indices(size), _MAX_LOOKED_AT * count):
        if len(seen) == count:
            break
        answer = solution(index)
        prompt, info = read_reset(reset_to_row(env, index))
        row = (prompt, str(answer) if _has_many_turns(env) else "")
        if not isinstance(answer, str) or not answer.strip() or row in seen:
            continue
        seen.add(row)
        asked = [turn for turn in own_messages(prompt, info) if turn["role"] != "system"]
        turns += [*asked, {"role": "assistant", "content": answer}]
    if len(seen) < count:
        known = f"{len(seen)} different rows with a solution" if seen else "no row with a solution"
        raise ValueError(
            f"few_shot is {count}, and {name} has {known}: write solution(index), which returns a worked answer, or "
            "give the examples themselves, as a list or a file"
        )
    return tuple(turns)


def _has_many_turns(env: gymnasium.Env[str, str]) -> bool:
    return getattr(env.unwrapped, "max_turns", 1) > 1


def _indices(size: int | None) -> Iterator[int]:
    """Yield rows in random order, always the same one."""
    generator = np.random.default_rng(_SEED)
    if size is not None:
        yield from map(int, generator.permutation(size))
        return
    while True:
        yield int(generator.integers(ENDLESS_INDICES))
