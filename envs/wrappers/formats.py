"""The format reward: whether an answer has the form that was asked for. One pass over the text, however hostile."""

from __future__ import annotations

import difflib
import importlib
import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gymnasium

from ..math.answers import ANSWER_STYLES
from ..verifiers.answer_extraction import answer_text
from .shaping import RewardShaping

Check = Callable[[str], float]
"""How much of a form a text has: 0 to 1, or a bool."""

TEMPLATES = {
    "think": "<think>...</think>...",
    "think_answer": "<think>...</think><answer>...</answer>",
}
"""Forms by name; the answer styles of `math/Problem-v0` are forms too."""

_PARTS = re.compile(r"(\.\.\.|</?\w+>)")
_FUNCTION = re.compile(r"[\w.]+:\w+")


def follows(text: str, template: str) -> bool:
    """Whether `text` has the form of `template`, such as "<think>...</think><answer>...</answer>".

    "..." stands for any text that is not blank. Everything else must occur as often as in the template and in the
    same order, so that a tag too many is not the form; blanks around it do not count. The `<think>` that ended the
    prompt of a `Completion` counts as its first.
    """
    text = f"<think>{text}" if getattr(text, "thinking", False) else text
    position, gap = 0, False
    for part in _split(template):
        if part == "...":
            gap = True
            continue
        start = text.find(part, position)
        if start < 0 or text.count(part) != template.count(part) or bool(text[position:start].strip()) != gap:
            return False
        position, gap = start + len(part), False
    return bool(text[position:].strip()) == gap


def find_form(form: str) -> Check:
    """Return the check of a form: a name, a template with "...", or a function as "module:function".

    Raises:
        ValueError: There is no such form, or no such function.
        TypeError: `form` is not a str.
    """
    if not isinstance(form, str):
        name = f"{getattr(form, '__module__', 'my_module')}:{getattr(form, '__name__', 'my_function')}"
        raise TypeError(
            f"FormatReward: form={form!r} ({type(form).__name__}) must be a str; a function is named, as {name!r}, so "
            "that the environment can be made again from its spec"
        )
    template = TEMPLATES.get(form, form)
    if "..." in template:
        if not any(part != "..." for part in _split(template)):
            raise ValueError(f"FormatReward: form={form!r} asks for nothing: a template needs text beside its '...'")
        return partial(follows, template=template)
    if form in ANSWER_STYLES:
        return partial(_has_answer, style=form)
    if _FUNCTION.fullmatch(form):
        return _function(form)
    names = [*TEMPLATES, *ANSWER_STYLES]
    near = difflib.get_close_matches(form, names, n=1)
    raise ValueError(
        f"FormatReward: form={form!r} is not known.{f' Did you mean {near[0]}?' if near else ''} It must be one of "
        f"{', '.join(names)}, a template such as '<think>...</think>...', or a function as 'module:function'"
    )


class FormatReward(RewardShaping):
    r"""Pay for the form that was asked for, or deduct for another one, as "format".

    The form is one of these, or a list of which the answer must have all:

    - "think": thinking, then an answer: `<think>...</think>...`, each tag exactly once.
    - "think_answer": `<think>...</think><answer>...</answer>`, each tag exactly once and nothing besides.
    - "answer_line", "boxed", "hash", "auto": after any thinking there is an answer in that `answer_style` of
      `math/Problem-v0`.
    - A template with "...", such as "<plan>...</plan><code>...</code>"; see `follows`. Where the prompt opens the
      thinking already, "...</think>..." is the form of the answer.
    - "module:function", a function of the text that returns a bool, or a share from 0 to 1 for part of the form.

    The bonus is small by default: the right form must never be worth as much as the right answer.

    Args:
        env: The environment to shape.
        form: As above.
        bonus: Reward for the form.
        penalty: What is subtracted without it.
        every_turn: Ask the form of every turn of an episode; otherwise of the last, which is the answer.

    Raises:
        ValueError: A form that does not exist, `bonus` or `penalty` negative or not finite, both 0, or (in `step`) a
            function that returned no share.
        TypeError: A form that is not a str.
    """

    component = "format"

    def __init__(
        self,
        env: gymnasium.Env[str, str],
        *,
        form: str | Sequence[str],
        bonus: float = 0.1,
        penalty: float = 0.0,
        every_turn: bool = False,
    ) -> None:
        forms: list[Any] = list(form) if isinstance(form, (list, tuple)) else [form]
        self._checks = {name: find_form(name) for name in forms}
        for name, amount in (("bonus", bonus), ("penalty", penalty)):
            if not (math.isfinite(amount) and amount >= 0):
                raise ValueError(f"FormatReward: {name}={amount} must be finite and at least 0")
        if not forms or bonus == penalty == 0:
            raise ValueError(
                f"FormatReward: form={form!r}, bonus={bonus}, penalty={penalty} do nothing: give a form, and a bonus "
                "or a penalty above 0"
            )
        super().__init__(env, form=form, bonus=bonus, penalty=penalty, every_turn=every_turn)
        self.bonus, self.penalty, self.every_turn = bonus, penalty, every_turn

    def shape(self, turns: tuple[str, ...]) -> float:
        asked = turns if self.every_turn else turns[-1:]
        share = min(_share(name, check(turn)) for turn in asked for name, check in self._checks.items())
        return share * self.bonus - (1 - share) * self.penalty


def _split(template: str) -> list[str]:
    """Cut a template into "...", its tags, and what is between them."""
    return [part for piece in _PARTS.split(template) if (part := piece.strip())]


def _has_answer(text: str, style: str) -> bool:
    answer = answer_text(text)
    return answer is not None and bool(ANSWER_STYLES[style].extract(answer))


def _function(form: str) -> Check:
    module, _, name = form.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"FormatReward: form={form!r} cannot be found: {error}") from error
    if not callable(function):
        raise ValueError(f"FormatReward: form={form!r} is a {type(function).__name__}: it must be a function of a str")
    return function


def _share(form: str, found: float) -> float:
    share = float(found)
    if not 0 <= share <= 1:
        raise ValueError(f"FormatReward: {form} returned {found!r}: it must be a bool or a number from 0 to 1")
    return share
