"""`reasoning_gym/...`: the tasks of the package reasoning-gym whose reward can be trained on.

The package (https://github.com/open-thought/reasoning-gym) comes with `pip install 'dapo-trl[reasoning-gym]'`. Not all
of its scorers are fit for training: some pay for any text, some give the model's text to `eval`. Every task was checked
by `check_reward_env`, and `reasoning_gym_tasks.json`, written by `scripts/check_reasoning_gym.py`, has the outcome:
the tasks that passed are offered, the others are refused with the reason.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, get_args

import gymnasium

from .base import Judgement, TaskEnv
from .math.answers import AnswerStyle

_TEST_SHARE = 4  # one problem in this many belongs to the test split
_ATTEMPTS = 200  # problems drawn for a row until one belongs to its split
_KEPT = 256  # problems kept at hand

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Checked:
    """What is known of the tasks of one version of reasoning-gym.

    Attributes:
        version: The version that was checked.
        offered: The tasks that passed, each with a description.
        refused: The others, each with the reason.
    """

    version: str
    offered: Mapping[str, str]
    refused: Mapping[str, str]


@cache
def checked() -> Checked:
    """Return the outcome of checking, which is shipped beside this module."""
    return Checked(**json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8")))


def register_tasks() -> None:
    """Register an id for every task on offer, whether or not reasoning-gym is installed."""
    for task in checked().offered:
        gymnasium.register(
            f"reasoning_gym/{task}-v0", f"{__name__}:ReasoningGymEnv", kwargs={"task": task}, disable_env_checker=True
        )


def answer_tag(text: str) -> str | None:
    """Return what stands in the last `<answer>...</answer>`, or None."""
    before, closed, _ = text.rpartition("</answer>")
    _, opened, answer = before.rpartition("<answer>")
    return answer.strip() if closed and opened else None


STYLE = AnswerStyle(
    template=(
        "{question}\n\nReason step by step, then give the final answer, and nothing else, between <answer> and "
        "</answer>."
    ),
    form="<answer>...</answer>",
    extract=answer_tag,
    final="<answer>{answer}</answer>",
)


class ReasoningGymEnv(TaskEnv):
    """Solve a problem that reasoning-gym generates.

    ## Description
    Every index is a problem, the same in every process. The answer is asked for in `<answer>` tags, as in
    reasoning-gym's own examples for TRL and verl, and the last pair of them is given to the task's scorer. Problems of
    the train and the test split are disjoint by construction: each question belongs to one of them (about one in four
    to test).

    ## Action Space
    `UnicodeText`: the model's answer, in `<answer>` tags, after any thinking.

    ## Observation Space
    `UnicodeText`: the question, and how to give the answer.

    ## Reward
    `correct_reward` for an answer with the scorer's full marks, else `wrong_reward`.

    ## Episode End
    After one step: terminated, or truncated if the action is a `Completion` with `finish_reason="length"`.

    ## Information
    `reset` and `step`: "index". `step`: also "verdict", "accuracy", "cause" and "rewards"; see `TaskEnv`.

    ## Arguments
    - `task`: its name in reasoning-gym; the id fixes it.
    - `split="train"`: or "test".
    - `config=None`: the task's own settings, such as `{"min_terms": 3}` for chain_sum.
    - `partial_credit=False`: whether a score below full marks counts. Many scorers give a little to any text that
      contains the answer, and even to any text at all, which a policy learns to collect.
    - `unchecked=False`: take a task that was refused or never checked.
    - `correct_reward=1.0`, `wrong_reward=0.0`: see `TaskEnv`.

    ## Version History
    - v0: first version.
    """

    num_rows = None

    def __init__(
        self,
        *,
        task: str,
        split: Split = "train",
        config: Mapping[str, Any] | None = None,
        partial_credit: bool = False,
        unchecked: bool = False,
        correct_reward: float = 1.0,
        wrong_reward: float = 0.0,
    ) -> None:
        super().__init__(correct_reward=correct_reward, wrong_reward=wrong_reward)
        if split not in get_args(Split):
            raise ValueError(f"reasoning_gym/{task}: split={split!r} must be 'train' or 'test'")
        if not unchecked and task not in checked().offered:
            reason = checked().refused.get(task, f"it is none of reasoning-gym {checked().version}")
            raise ValueError(f"reasoning_gym/{task} is not on offer: {reason} (unchecked=True takes it all the same)")
        self.task = task
        self.split = split
        self.partial_credit = partial_credit
        self.config = dict(config or {})
        self._scorer = _dataset(task, self.config, seed=0)
        self._drawn: dict[int, dict[str, Any]] = {}

    def row(self, index: int) -> dict[str, Any]:
        if (
            index not in self._drawn
        ):  # shown once and judged once for every answer of a group, slow to draw in some tasks
            if len(self._drawn) == _KEPT:
                del self._drawn[next(iter(self._drawn))]
            self._drawn[index] = self._draw(index)
        entry = self._drawn[index]
        return {"prompt": STYLE.prompt(entry["question"]), "entry": entry}

    def solution(self, index: int) -> str | None:
        """Return the problem's own answer, in the tags that are asked for; None if it has none."""
        answer = self.row(index)["entry"]["answer"]
        return None if answer is None else STYLE.solution(str(answer))

    def verify(self, row: Mapping[str, Any], completion: str) -> Judgement:
        return STYLE.judge(completion, "", lambda answer, _: self._score(answer, row["entry"]))

    def _score(self, answer: str, entry: dict[str, Any]) -> Judgement:
        try:
            score = float(self._scorer.score_answer(answer, entry))
        except Exception as error:  # scorers read the answer in many ways, and not all of them expect any text
            return Judgement.of(False, f"the scorer cannot read it: {type(error).__name__}: {error}")
        if self.partial_credit:
            return Judgement.of(min(1.0, max(0.0, score)))
        return Judgement.of(score >= 1.0, "" if score >= 1.0 else f"the scorer gives {score:g} of 1")

    def _draw(self, index: int) -> dict[str, Any]:
        for attempt in range(_ATTEMPTS):
            entry = _dataset(self.task, self.config, seed=_hash(index, attempt) % 2**31)[0]
            if (_hash(entry["question"]) % _TEST_SHARE == 0) == (self.split == "test"):
                return entry
        raise RuntimeError(
            f"reasoning_gym/{self.task}: none of {_ATTEMPTS} problems belongs to the {self.split} split, because they "
            "are all alike: take a harder config"
        )


def _dataset(task: str, config: dict[str, Any], *, seed: int) -> Any:
    """Make reasoning-gym's generator of a single problem; some draw all their problems at once, so more would cost."""
    try:
        installed = version("reasoning-gym")
        import reasoning_gym
    except (PackageNotFoundError, ImportError) as error:
        raise gymnasium.error.DependencyNotInstalled(
            "reasoning-gym is not installed: pip install 'dapo-trl[reasoning-gym]'"
        ) from error
    _warn_of_version(installed)
    taken = sorted({"seed", "size"} & set(config))
    if taken:
        raise ValueError(f"reasoning_gym/{task}: config sets {', '.join(taken)}: leave it out, the index decides")
    try:
        return reasoning_gym.create_dataset(task, seed=seed, size=1, **config)
    except (ValueError, TypeError, AssertionError) as error:
        raise ValueError(f"reasoning_gym/{task}: reasoning-gym {installed} refuses config={config}: {error}") from error


@cache
def _warn_of_version(installed: str) -> None:
    if installed != checked().version:
        warnings.warn(
            f"reasoning-gym {installed} is installed, but its tasks were checked with {checked().version}: check those "
            "that you train on with `dapo-trl envs check`, or install the version that was checked",
            stacklevel=2,
        )


def _hash(*key: object) -> int:
    """Hash `key` to 64 bits, the same in every process and on every machine, unlike `hash`."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big")
