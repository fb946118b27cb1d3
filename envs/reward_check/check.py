"""`check_reward_env` does for rewards what Gymnasium's `check_env` does for interfaces.

A policy finds every reward that can be had without the right answer. So the checker tries what an author would not:
the right answer on many rows, empty and hostile answers, lists of all candidates, answers that only look right, the
answers of other rows, answers copied from the prompt, each of them again in another instance, thread and process.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import cloudpickle
import gymnasium

from ..interop.doors import make
from ..numeric import is_count
from ..text import one_line
from .checks import CHECKS, Check, Scale, run_checks
from .client import Client, NotMade
from .episode import Fault
from .examination import Evidence, Examination, sample_rows

DEFAULT_ROWS = 20
"""Rows that are looked at by default."""


@dataclass(frozen=True)
class Report:
    """The results of all checks.

    Attributes:
        env: The name of the environment.
        checks: A result for each check, in the order in which an author best mends them.
        strict: Whether advice counts as a failure.
    """

    env: str
    checks: Sequence[Check]
    strict: bool = False

    @property
    def failures(self) -> list[Check]:
        """The checks that refuse the environment."""
        bad = ("failed", "advice") if self.strict else ("failed",)
        return [check for check in self.checks if check.status in bad]

    @property
    def not_made(self) -> list[Check]:
        """The checks that could not be made, or were to be left out."""
        return [check for check in self.checks if check.status == "not checked"]

    @property
    def ok(self) -> bool:
        """Whether every check was made and none refuses the environment."""
        return not self.failures and not self.not_made

    @property
    def summary(self) -> str:
        """The outcome in one line."""
        failed, missing = (", ".join(check.name for check in checks) for checks in (self.failures, self.not_made))
        outcome = f"failed ({failed})" if failed else "no check failed" if missing else "ok"
        note = f"; {len(self.not_made)} of {len(self.checks)} checks were not made ({missing})" if missing else ""
        return f"{self.env}: {outcome}{note}"

    def __getitem__(self, name: str) -> Check:
        return next(check for check in self.checks if check.name == name)


class RewardCheckError(Exception):
    """An environment whose reward cannot be trained on; `report` has every result."""

    def __init__(self, report: Report) -> None:
        self.report = report
        lines = [f"  {check.name}: {check.message}" for check in report.failures]
        super().__init__(f"{report.env} fails {len(lines)} of {len(report.checks)} checks:\n" + "\n".join(lines))


def check_reward_env(env: str | gymnasium.Env | Callable[[], gymnasium.Env], **settings: Any) -> Report:
    """Check that an environment pays for right answers and for nothing else, always the same.

    Args:
        env: As for `reward_report`.
        settings: As for `reward_report`.

    Returns:
        The report, when no check failed; its `ok` is whether all were made.

    Raises:
        RewardCheckError: A check failed; the message has a line for each.
        ValueError: A setting is wrong.
    """
    report = reward_report(env, **settings)
    if report.failures:
        raise RewardCheckError(report)
    return report


def reward_report(
    env: str | gymnasium.Env | Callable[[], gymnasium.Env],
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    rows: int = DEFAULT_ROWS,
    seed: int = 0,
    solution: Callable[[int], str | None] | None = None,
    reward_range: tuple[float, float] | None = None,
    time_limit: float | None = None,
    skip: Iterable[str] = (),
    strict: bool = False,
) -> Report:
    """Check an environment's reward and report on every check.

    The environment runs in subprocesses, so that an answer on which it hangs costs no more than its time limit.
    The answer is sent as a `Completion` of one token, so that a penalty on length stays out of the reward.

    Args:
        env: An id (also `module:id`), an environment, or a function that makes one. What is not an id is pickled, by
            value where it has to be.
        env_kwargs: Arguments for an id.
        rows: How many rows are looked at, spread over the environment.
        seed: Decides which rows, and the answers that are random.
        solution: Returns a text that earns the highest reward at a row; by default the environment's own method
            `solution(index)` (see `TaskEnv.solution`).
        reward_range: The lowest and the highest reward; by default those of a `TaskEnv`, else of all answers tried.
        time_limit: Seconds that judging one answer may take; by default those of the environment
            (`TaskEnv.judging_seconds`, 5 where it sets no other).
        skip: Names of checks to leave out, for a task that breaks such a rule on purpose.
        strict: Count advice as a failure.

    Raises:
        ValueError: A setting is wrong.
    """
    skip = list(skip)
    _check_settings(rows, time_limit, skip)
    make = env_maker(env, dict(env_kwargs or {}))
    name = env if isinstance(env, str) else "the environment"
    try:
        with ExitStack() as stack:
            main, other = (stack.enter_context(Client(make, hash_seed=hash_seed)) for hash_seed in (1, 2))
            description = main.ask("describe")
            name = description.name
            time_limit = description.judging_seconds if time_limit is None else time_limit
            evidence = Evidence(description, sample_rows(description.num_rows, rows, seed))
            Examination(main, other, evidence, seed=seed, time_limit=time_limit).run(solution)
    except (Fault, NotMade) as fault:
        rest = [Check(other, "not checked", "mend the interface first") for other in CHECKS if other != "interface"]
        return Report(name, [Check("interface", "failed", str(fault)), *rest], strict)
    scale = Scale.of(evidence, reward_range)
    return Report(name, run_checks(evidence, scale=scale, skip=skip, time_limit=time_limit), strict)


def env_maker(
    env: str | gymnasium.Env | Callable[[], gymnasium.Env], kwargs: dict[str, Any]
) -> Callable[[], gymnasium.Env]:
    """Return what makes the environment in a subprocess, where the registrations of this process are unknown."""
    if isinstance(env, str):
        return partial(make, env if ":" in env else gymnasium.spec(env), **kwargs)
    if kwargs:
        raise ValueError("check_reward_env: env_kwargs go with an id: give the arguments to what makes the environment")
    return _Pickled(env)


class _Pickled:
    """An environment, or what makes one, as bytes: each call gives an instance of its own, in whatever process.

    What is defined in a module that another process cannot import, such as a notebook, goes along by value.
    """

    def __init__(self, env: gymnasium.Env | Callable[[], gymnasium.Env]) -> None:
        owner = type(env.unwrapped) if isinstance(env, gymnasium.Env) else env
        module = sys.modules.get(getattr(owner, "__module__", ""))
        by_value = module is not None and module.__name__ != "__main__" and not _is_importable(module.__name__)
        try:
            if module is not None and by_value:
                cloudpickle.register_pickle_by_value(module)
            self._bytes = cloudpickle.dumps(env)
        except Exception as error:
            raise ValueError(
                f"check_reward_env: the environment cannot be pickled ({type(error).__name__}: {one_line(error)}): "
                "give its id, or a function that makes it"
            ) from error
        finally:
            if module is not None and by_value:
                cloudpickle.unregister_pickle_by_value(module)

    def __call__(self) -> gymnasium.Env:
        env = cloudpickle.loads(self._bytes)
        return env if isinstance(env, gymnasium.Env) else env()


def _is_importable(module: str) -> bool:
    """Whether a new process with this one's path finds the package that a module belongs to."""
    return any(finder.find_spec(module.partition(".")[0], None) for finder in sys.meta_path)


def _check_settings(rows: int, time_limit: float | None, skip: Iterable[str]) -> None:
    if not is_count(rows):
        raise ValueError(f"check_reward_env: rows={rows!r} must be an integer of at least 1")
    if time_limit is not None and not time_limit > 0:
        raise ValueError(f"check_reward_env: time_limit={time_limit!r} must be above 0 (seconds)")
    for name in skip:
        if name not in CHECKS:
            near = difflib.get_close_matches(name, CHECKS, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(f"check_reward_env: skip={name!r} is not a check{hint}: they are {', '.join(CHECKS)}")
