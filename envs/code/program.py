"""`code/Program-v0`: programs judged by tests, and the well-known sets of such problems."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from ..base import Judgement, TaskEnv, Verdict
from ..rows import BadRows, Source
from ..sandbox import Limits
from ..verifiers.code.judge import Grading, RewardKind, judgement_of, outcome_of, sandbox_of
from ..verifiers.code.run_tests import TestReport
from .formats import FORMATS, Rows
from .problems import read_problems
from .prompts import STYLES

_OUTPUT_BYTES = 8 << 20  # that a program may print for each test, unless limits say otherwise


class ProgramEnv(TaskEnv):
    """Write a Python program that passes tests.

    ## Description
    Every row has a problem and tests: texts for standard input with what should be printed, arguments for a function
    with what it should return, or assert statements. The program runs in a sandbox on the inputs alone, and what comes
    out is compared here, so that nothing it does to its own process can make it right. Tests that could never be run,
    or none at all, are refused when the task is made, naming their row.

    The well-known data sets are registered with the arguments they need, as `envs.code.datasets` lists:
    `code/HumanEval-v0`, `code/MBPP-v0`, `code/APPS-v0` and `code/LiveCodeBench-v0`. They come from the Hub, or with
    `path=` or `rows=` from a copy with the same columns.

    ## Action Space
    `UnicodeText`: the model's answer. After any thinking, its last closed block of Python code counts. An answer whose
    last block is never closed has no program, nor has one without any block; see `envs.verifiers.program_extraction`.

    ## Observation Space
    `UnicodeText`: the problem, and how to give the program.

    ## Reward
    `correct_reward` for a program that passes all tests, else `wrong_reward`; with `reward="fraction"` what the share
    of passed tests is worth between the two. Numbers returned from calls compare as in Python (2.0 is 2, True is 1),
    floats up to a relative 1e-9; a list expected in JSON may be a tuple. Printed text is compared without whitespace at
    the ends of lines and of the text; that of APPS and LiveCodeBench as their graders do. Asserts
    hold as they are written; with "fraction" an assert statement counts as one test, in a loop over a literal as one
    for each round. What exceeds its limits, or the time for all tests, ends the program, whatever the reward.

    ## Episode End
    After one step: terminated, or truncated if the action is a `Completion` with `finish_reason="length"`.

    ## Information
    `reset` and `step`: "index", and "level" where a row has one. `step`: also "verdict", "accuracy", "cause" (the first
    test that failed: its input and what the program made of it, never what was expected), "rewards" (see `TaskEnv`)
    and, if a program was run, "tests", "tests_passed" and "seconds" (wall time in the sandbox). With `reward="all"` a
    program ends with the first test that it fails, and "tests_passed" counts those before.

    ## Arguments
    Exactly one of the first three, or at most one for a registered data set:
    - `rows=[{"prompt": ..., "tests": {"kind": ..., ...}}]`: the rows themselves; see `envs.verifiers.code.tests`.
    - `path="data.jsonl"`: a local jsonl (also .jsonl.gz) or parquet file, read once per process and again when it
      changes.
    - `dataset="..."`: a data set on the Hub or a local folder of one, read once per process, with `name=None` (its
      configuration) and `split="train"`. A file has no splits: `split` is left out there.
    - `prompt_column="prompt"`, `tests_column="tests"`: where the problem and the tests are, these as a dict or as JSON;
      a nested column has a dotted path.
    - `level_column=None`, `solution_column=None`: where the difficulty and a right program are, if anywhere.
    - `format=None`: "humaneval", "mbpp", "apps" or "livecodebench" for rows with the columns of that data set; then
      the four arguments above have no effect.
    - `answer_style="fenced"`: or "completion", for base models: the prompt is the beginning of a function, and the
      answer goes on with it, up to the next line of other code ("humaneval" alone).
    - `reward="all"`: or "fraction".
    - `tolerance=None`: relative tolerance of floats in place of the above, and of numbers in printed text.
    - `limits=None`: what a program may take for each test in place of the defaults, such as {"cpu_seconds": 2}, and
      "total_seconds" for all tests; see `envs.sandbox.Limits`.
    - `sandbox="auto"`: the strongest isolation that works here, the name of one, or the address of a farm such as
      "fusion+http://host:port"; see `envs.sandbox`.
    - `bad_rows="raise"`: refuse a source with a row that can not be used, or "skip" such rows with a warning.
    - `hub=None`: for registrations, where the rows are unless told otherwise: `{"dataset": ..., "name": ...,
      "revision": ..., "splits": [...]}`, the first split being the default.
    - `correct_reward=1.0`, `wrong_reward=0.0`: see `TaskEnv`.

    ## Version History
    - v0: first version.
    """

    max_concurrency = "cores"

    def __init__(
        self,
        *,
        rows: Sequence[Mapping[str, Any]] | None = None,
        path: str | os.PathLike[str] | None = None,
        dataset: str | None = None,
        name: str | None = None,
        split: str | None = None,
        prompt_column: str = "prompt",
        tests_column: str = "tests",
        level_column: str | None = None,
        solution_column: str | None = None,
        format: str | None = None,
        answer_style: str = "fenced",
        reward: RewardKind = "all",
        tolerance: float | None = None,
        limits: Mapping[str, Any] | None = None,
        sandbox: str = "auto",
        bad_rows: BadRows = "raise",
        hub: Mapping[str, Any] | None = None,
        correct_reward: float = 1.0,
        wrong_reward: float = 0.0,
    ) -> None:
        super().__init__(correct_reward=correct_reward, wrong_reward=wrong_reward)
        if answer_style not in STYLES:
            raise ValueError(f"answer_style={answer_style!r} must be one of {', '.join(STYLES)}")
        if format is not None and format not in FORMATS:
            raise ValueError(f"format={format!r} must be one of {', '.join(FORMATS)}, or None for rows of your own")
        if bad_rows not in get_args(BadRows):
            raise ValueError(f"bad_rows={bad_rows!r} must be 'raise' or 'skip'")
        self.style = STYLES[answer_style]
        self.grading = Grading(reward, tolerance, _read_limits(limits), sandbox)
        self.judging_seconds = self.grading.limits.total_seconds + 10.0
        read_row = FORMATS[format] if format else Rows(prompt_column, tests_column, level_column, solution_column)
        source = Source.of(rows=rows, path=path, dataset=dataset, name=name, split=split, hub=hub)
        self._problems = source.read(read_problems, read_row, bad_rows)
        if answer_style == "completion" and not all(problem.unfinished for problem in self._problems):
            raise ValueError("answer_style='completion' needs rows with an unfinished function: format='humaneval'")
        sandbox_of(sandbox).isolation  # noqa: B018  # fails here rather than after the first rollout

    @property
    def num_rows(self) -> int:  # type: ignore[override]
        return len(self._problems)

    def row(self, index: int) -> dict[str, Any]:
        problem = self._problems[index]
        info = {} if problem.level is None else {"info": {"level": problem.level}}
        return {"prompt": self.style.prompt(problem), "problem": problem, **info}

    def verify(self, row: Mapping[str, Any], completion: str) -> Judgement:
        outcome = self.outcome(row, completion)
        if outcome is None:
            return Judgement.of(Verdict.NO_ANSWER, f"the answer does not hold {self.style.form}")
        return judgement_of(outcome, self.grading)

    def outcome(self, row: Mapping[str, Any], completion: str) -> TestReport | None:
        """Run the program of an answer on the tests of `row`; None if there is no program."""
        problem = row["problem"]
        program = self.style.program(problem, completion)
        return None if program is None else outcome_of(program, problem.make_tests(), self.grading)

    def solution(self, index: int) -> str | None:
        """Return the row's solution in the form that is asked for, or None if it has none."""
        problem = self._problems[index]
        return None if problem.solution is None else self.style.answer(problem, problem.solution)


def _read_limits(limits: Mapping[str, Any] | None) -> Limits:
    try:
        return Limits(**{"output_bytes": _OUTPUT_BYTES, **(limits or {})})
    except TypeError as error:
        raise ValueError(f"limits={limits!r}: it may have {', '.join(Limits.__dataclass_fields__)}") from error
