"""`check_reward_env` on sound environments, and on environments with one fault each."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import envs
from envs.reward_check import probe_answers as answers
from envs.reward_check.check import RewardCheckError, check_reward_env, reward_report
from envs.reward_check.checks import CHECKS
from envs.reward_check.examination import sample_rows

from ...conftest import ROOT
from ...support import faulty
from ..test_registered import every_environment

report = partial(reward_report, rows=8)


@every_environment
def test_every_registered_environment_passes(name, kwargs):
    if name.startswith("code/"):  # a program that never ends takes all that it may
        kwargs = {**kwargs, "limits": {"cpu_seconds": 1}}
    solution = weighted_difference if name == "code/LiveCodeBench-v0" else None  # its rows have none
    found = check_reward_env(name, env_kwargs=kwargs, rows=12, strict=True, solution=solution)
    assert [check.name for check in found.checks] == list(CHECKS)
    assert {check.status for check in found.checks} == {"ok"}


def weighted_difference(index):
    return f"```python\na, b = map(int, input().split())\nprint({index + 1} * a - b)\n```"


@pytest.mark.parametrize("env", [faulty.Sums, faulty.Guess, faulty.GuessWithHints])
def test_a_sound_environment_passes(env):
    found = check_reward_env(env, rows=8, strict=True)
    assert found["spec"].status == "not checked"
    paid = "rewards of turns from 0 to 0.1, in an episode from 0.1 to 0.1" if env is faulty.GuessWithHints else ""
    assert (found["turns"].status, found["turns"].message) == ("ok", paid)


def changed(change):
    return partial(faulty.Returns, change)


def shown(change):
    return partial(faulty.ResetReturns, change)


FAULTS = [
    # what is returned
    (changed(lambda o, r, t, u, i: (o, r, t, i)), "interface", r"step\(\) returned a tuple of 4: return \(obs"),
    (changed(lambda o, r, t, u, i: [o, r, t, u, i]), "interface", r"step\(\) returned \[.*\(list\): return \(obs"),
    (changed(lambda o, r, t, u, i: (o, None, t, u, i)), "interface", r"the reward None \(NoneType\): return a float"),
    (changed(lambda o, r, t, u, i: (o, r > 0, t, u, i)), "interface", r"the reward (True|False) \(bool\): return a"),
    (changed(lambda o, r, t, u, i: (o, str(r), t, u, i)), "interface", r"the reward '[01]\.0' \(str\): return a float"),
    (changed(lambda o, r, t, u, i: (o, float("nan"), t, u, i)), "contract", r"the reward nan: .* \"infra_failure\""),
    (changed(lambda o, r, t, u, i: (o, float("inf"), t, u, i)), "interface", r"the reward inf \(float\): return a fl"),
    (changed(lambda o, r, t, u, i: (None, r, t, u, i)), "contract", r"None \(NoneType\) as the observation: ret"),
    (changed(lambda o, r, t, u, i: (o, r, "yes", u, i)), "contract", r"terminated='yes' \(str\): return a bool"),
    (changed(lambda o, r, t, u, i: (o, r, t, u, None)), "interface", r"the info None \(NoneType\): return a dict"),
    (changed(lambda o, r, t, u, i: (o, r, False, False, i)), "exceptions", r"step\(\) raised ResetNeeded"),
    (shown(lambda p, i: p), "interface", r"reset\(\) returned 'What is .*: return \(prompt, info\)"),
    (shown(lambda p, i: (7, i)), "interface", r"reset\(\) returned 7 \(int\) as the observation: return the prompt"),
    (shown(lambda p, i: (p, None)), "interface", r"reset\(\) returned the info None"),
    (faulty.NoNumRows, "interface", "it has no num_rows: set it to the number of rows, or None"),
    (faulty.CannotBeMade, "interface", "cannot be made in another process: OSError: no such disk"),
    (faulty.PaysATurnNaN, "exceptions", r"ValueError: reply returned the reward nan: give a finite number"),
    (
        faulty.PaysEveryTurn,
        "turns",
        r"given turn after turn collects 1 in rewards of turns at row 0, and the right answer earns 1 more than",
    ),
    (faulty.PaysPatience, "turns", r"given turn after turn collects 0\.9 in .* no more than 0\.1 of that for wrong"),
    (faulty.DrawsTheRewardOfTurns, "repeatable", r"earns 0 \(wrong\) after 0\.\S+, .* for turns, but 0 \(wrong\)"),
    (faulty.GuessWithoutEnd, "interface", "the episode is not over after 64 steps: return terminated=True"),
    (faulty.StepRaises, "exceptions", r"step\(\) raised KeyError: 'missing' \(faulty\.py:\d+\) for the answer '"),
    (faulty.RaisesOnJunk, "exceptions", r"raised ValueError: .* for the answer '': judge any text"),
    (faulty.EndsTheProcess, "exceptions", r"it ends the process \(status 3\)"),
    (faulty.TooManyRows, "exceptions", r"row 40: reset\(\) raised KeyError: .*: every index below num_rows"),
    (faulty.SolutionRaises, "exceptions", r"solution\(0\) raised KeyError"),
    (changed(lambda o, r, t, u, i: (o, r, t, u, {**i, "accuracy": 2.0})), "interface", r'info\["accuracy"\] 2\.0'),
    (changed(lambda o, r, t, u, i: (o, r, t, u, {**i, "verdict": "fine"})), "contract", r"is 'fine': give one of c"),
    (changed(lambda o, r, t, u, i: (o, r, t, u, {**i, "rewards": [r]})), "interface", r'info\["rewards"\] \[.*:'),
    (changed(lambda o, r, t, u, i: (o, r + 1, t, u, i)), "contract", r"sums to 1 where the reward is 2"),
    (faulty.UsesRandom, "contract", r"step\(\) changes the global generator of random,"),
    (faulty.SeedsNumPy, "contract", r"reset\(\) changes the global generator of numpy\.random,"),
    # what is shown
    (faulty.AnotherPromptEachTime, "rows", r"row 0 shows .* instead of .* when it is asked again .*: reset\(opt"),
    (faulty.AnotherPromptInEachProcess, "rows", r"row \d+ shows .* instead of .* in another process"),
    (faulty.IgnoresTheSeed, "rows", r"seed \d+ shows .* instead of .* in another process"),
    (faulty.AnswerAtTheEnd, "copying", r"the last number of the prompt is right in 8 of 8 rows: take the answer out"),
    (faulty.AnswerInTheMiddle, "copying", r"number 2 of the prompt is right in 8 of 8 rows: take the answer out"),
    (faulty.SolutionInThePrompt, "leak", r"the prompt holds the solution \(and 7 more of 8\): take it out"),
    (faulty.AnswerInTheInfo, "leak", r"info\['meta'\]\['gold'\] of reset\(\) holds the solution"),
    # what is paid
    (faulty.ReadsAnotherForm, "solution", r"'Answer: 75' of row 0 earns 0 and not 1 \(wrong\) \(and 7 more of 8\)"),
    (faulty.WrongSolution, "solution", r"the solution 'Answer: 0' of row 39 earns 0 and not 1 \(wrong\): mend"),
    (faulty.NeverKnows, "solution", r"cannot be judged \(infra_failure\)"),
    (faulty.PaysAnyText, "worthless", r"a word .*, '<answer>pneumono.*', earns 1 at row 0, where the lowest "),
    (faulty.PaysEmptyText, "worthless", r"an empty answer, '', earns 1"),
    (faulty.PaysNotANumber, "worthless", r"not a number, 'nan', earns 1"),
    (faulty.PaysMentions, "hedging", r"every answer joined by 'or', 'Answer: .*, earns 1"),
    (faulty.PaysAnyNumber, "other-rows", r"the solution of row \d+, 'Answer: \d+', earns the full 1 at row 0"),
    (faulty.Executes, "execution", r"a Python expression was executed: never give a model's text to eval\(\)"),
    # what is not always the same
    (faulty.DrawsTheReward, "repeatable", r"earns [01] \(.*\), but [01] \(.*\) (when|in) "),
    (faulty.DependsOnTheProcess, "repeatable", r"in another process"),
    (faulty.DependsOnTheThread, "repeatable", r"in another thread: .*signal only works in main thread"),
    (faulty.DependsOnTheInstance, "repeatable", r"in a second instance"),
    (faulty.SharedInfo, "repeatable", r"step\(\) returned the same dict twice: return a new info"),
    (faulty.KeptInfo, "repeatable", r"changing the info of one reset\(\) changes that of the next: return a new dict"),
    (faulty.GuessSharedByCopies, "repeatable", r"in a deep copy"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("env", "name", "message"), FAULTS, ids=[f"{name}-{i}" for i, (_, name, _) in enumerate(FAULTS)]
)
def test_a_fault_is_found_by_the_check_for_it(env, name, message):
    found = report(env)
    assert found[name].status == "failed"
    assert re.search(message, found[name].message), found[name].message
    if name in ("interface", "exceptions", "rows"):
        assert len(found.failures) == 1


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (faulty.Hangs, r"row 0, .* no answer within 3 s .*: judge any answer within 0\.5 s"),
        (faulty.Backtracks, r"row 0, a word: no answer within 3 s"),
        (faulty.Sleeps, r"row 0, the solution: step\(\) takes 0\.\d s .*: judge any answer within 0\.2 s"),
    ],
)
def test_what_takes_long_is_named_and_holds_nothing_up(env, message):
    found = report(env, rows=3, time_limit=0.2 if env is faulty.Sleeps else 0.5)
    assert found["time"].status == "failed" and re.search(message, found["time"].message), found["time"].message
    assert found["repeatable"].message == "stopped early: 3 answers took too long or ended the process"


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (faulty.NotReadAfterThinking, r"wrong once <think>\.\.\.</think> stands before it"),
        (faulty.PaysUnfinishedThinking, r"inside of a <think> that never ends is paid"),
    ],
)
def test_advice_refuses_only_when_strict(env, message):
    found = report(env)
    assert not found.failures and found["thinking"].status == "advice" and re.search(message, found["thinking"].message)
    with pytest.raises(RewardCheckError, match="thinking"):
        check_reward_env(env, rows=4, strict=True)


class TestForeignEnvironments:
    """Plain Gymnasium environments: text in, text out, and nothing of this package's in their info."""

    @staticmethod
    def solution(index):
        return str(index + 1)

    def test_a_sound_one_passes(self):
        assert check_reward_env(faulty.Foreign, rows=6, solution=self.solution)["solution"].status == "ok"

    def test_one_that_knows_seeds_alone_passes(self):
        def solution(index):
            return str(int(np.random.default_rng(index).integers(1000)) + 1)

        found = check_reward_env(faulty.ForeignBySeed, rows=6, solution=solution)
        assert not found.failures and found["solution"].status == found["rows"].status == "ok"

    def test_without_a_solution_that_check_says_so(self):
        found = check_reward_env(faulty.Foreign, rows=6)
        skipped = {check.name for check in found.checks if check.status == "not checked"}
        flat = {"worthless", "persuasion", "copying"}  # all rewards seen are the same
        assert skipped == {"solution", "near-misses", "other-rows", "leak", "spec", "thinking"} | flat
        assert "pass solution=" in found["solution"].message and "reward_range=" in found["worthless"].message

    def test_a_reward_range_stands_in_for_the_solution(self):
        assert report(faulty.Foreign, reward_range=(-0.5, 1.0))["worthless"].status == "ok"
        found = report(faulty.PaysEverything, reward_range=(0.0, 1.0))
        assert re.match(r"a word, '.*', earns 1 at row 0, where the lowest ", found["worthless"].message)

    def test_a_fault_is_found(self):
        found = report(faulty.ForeignPaysLong, solution=self.solution)
        assert [check.name for check in found.failures] == ["worthless", "hedging"]

    def test_an_answer_that_earns_more_the_later_it_comes_is_found(self):
        found = report(faulty.PaysTheLate, rows=4, solution=self.solution)["turns"]
        assert found.status == "failed"
        assert re.match(
            r"the solution '1' of row 0 earns 2 after .* in 2 turns, and 1 at once: pay noth", found.message
        )

    def test_a_constant_reward_is_none(self):
        found = report(faulty.PaysEverything, solution=self.solution)
        assert found["worthless"].message == (
            "every answer, right or wrong, earns 1: the reward must depend on the answer"
        )


class TestWrappedEnvironments:
    def test_shaping_is_not_held_against_the_task(self):
        env = envs.RepetitionPenalty(envs.FormatReward(faulty.Sums(), form="think"))
        assert report(envs.OverlongPenalty(env, max_length=100)).failures == []

    def test_nor_does_it_hide_a_fault(self):
        assert [c.name for c in report(envs.RepetitionPenalty(faulty.PaysNotANumber())).failures] == ["worthless"]


class TestTheSpec:
    def test_arguments_that_json_cannot_hold_are_advice(self):
        gymnasium.register("faulty/Returns-v0", "tests.support.faulty:Returns", kwargs={"change": faulty.keep})
        try:
            found = report("faulty/Returns-v0")
            assert not found.failures and found["spec"].status == "advice"
            assert "its spec cannot be written as JSON" in found["spec"].message
        finally:
            del gymnasium.registry["faulty/Returns-v0"]

    def test_an_id_of_a_module_is_made_in_the_subprocess_alone(self, tmp_path, monkeypatch):
        text = "import gymnasium\ngymnasium.register('mine/Sums-v0', 'tests.support.faulty:Sums')\n"
        (tmp_path / "module_of_mine.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        assert check_reward_env("module_of_mine:mine/Sums-v0", rows=4).env == "mine/Sums-v0"
        assert "module_of_mine" not in sys.modules


def test_the_error_has_a_line_for_each_failure():
    with pytest.raises(RewardCheckError) as error:
        check_reward_env(faulty.PaysAnyText(), rows=4)
    first, *rest = str(error.value).splitlines()
    assert first == f"PaysAnyText fails {len(rest)} of {len(CHECKS)} checks:"
    assert [line.split(":")[0] for line in rest[:2]] == ["  worthless", "  hedging"]
    assert not error.value.report.ok


def test_a_weak_answer_style_is_refused_by_strict_alone():
    rows = [{"prompt": f"What is {n} + 58?", "answer": n + 58} for n in range(200, 212)]
    lenient, strict = (
        reward_report(
            "math/Problem-v0", env_kwargs={"rows": rows, "answer_style": "last_number"}, rows=4, strict=strict
        )
        for strict in (False, True)
    )
    assert lenient["style"].status == "advice" and "style" not in [check.name for check in lenient.failures]
    assert "style" in [check.name for check in strict.failures]
    assert strict["style"].message.startswith("its answer style is easier to game than others: ")


def test_a_check_can_be_skipped():
    found = report(faulty.PaysNotANumber, skip=["worthless"])
    assert not found.failures and found["worthless"].message == "skipped, as asked"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rows": 0}, "rows=0 must be an integer of at least 1"),
        ({"time_limit": 0}, "time_limit=0 must be above 0"),
        ({"skip": ["hedge"]}, "skip='hedge' is not a check .did you mean 'hedging'."),
        ({"env_kwargs": {"levels": 2}}, "env_kwargs go with an id"),
    ],
)
def test_a_wrong_setting_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        check_reward_env(faulty.Sums, **settings)


def test_what_cannot_be_pickled_is_named_with_the_way_out():
    env = faulty.Sums()
    env.generator = (i for i in range(3))
    with pytest.raises(ValueError, match="give its id, or a function that makes it"):
        check_reward_env(env)


def test_a_module_that_no_other_process_can_import_goes_along(tmp_path):
    (tmp_path / "hidden.py").write_text(
        "from tests.support.faulty import Sums\nLIMIT = 10**6\n"
        "class Hidden(Sums):\n    def verify(self, row, completion):\n"
        "        return len(completion) < LIMIT and super().verify(row, completion)\n"
    )
    spec = importlib.util.spec_from_file_location("hidden_module", tmp_path / "hidden.py")
    module = sys.modules["hidden_module"] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        assert report(module.Hidden()).failures == report(module.Hidden).failures == []
    finally:
        del sys.modules["hidden_module"]


def test_an_unknown_id_is_gymnasiums_error():
    with pytest.raises(gymnasium.error.NameNotFound, match="Arithmetic"):
        check_reward_env("math/Arithmetik-v0")


def test_a_script_without_a_main_guard_can_check_an_environment_of_its_own(tmp_path):
    program = """
from envs import TaskEnv
from envs.reward_check.check import check_reward_env

class Mine(TaskEnv):
    num_rows = 30

    def row(self, index):
        return {"prompt": f"Double {index + 50}.", "answer": str(2 * index + 100)}

    def verify(self, row, completion):
        return completion == f"Answer: {row['answer']}"

print("checking")
print(check_reward_env(Mine(), rows=5).failures)
"""
    (tmp_path / "script.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}
    )
    assert (done.stdout, done.stderr) == ("checking\n[]\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process is not told that its parent is gone")
def test_a_hanging_answer_ends_with_a_checker_that_is_killed(tmp_path):
    program = """
import os, pathlib, re
from envs import TaskEnv
from envs.reward_check.check import check_reward_env

class Mine(TaskEnv):
    num_rows = 30

    def row(self, index):
        return {"prompt": "?", "answer": index}

    def verify(self, row, completion):
        pathlib.Path("hanging").write_text(str(os.getpid()))
        re.fullmatch("(a*)*b", "a" * 100)

check_reward_env(Mine(), time_limit=1000)
"""
    (tmp_path / "script.py").write_text(program)
    checker = subprocess.Popen([sys.executable, "script.py"], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})
    deadline = time.monotonic() + 60
    while not (tmp_path / "hanging").exists() or not (tmp_path / "hanging").read_text():
        assert time.monotonic() < deadline and checker.poll() is None
        time.sleep(0.05)
    checker.kill()
    checker.wait()
    while runs((tmp_path / "hanging").read_text()):
        assert time.monotonic() < deadline, "the worker goes on without its checker"
        time.sleep(0.05)


def runs(process: str) -> bool:
    try:
        return Path("/proc", process, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class TestTheForm:
    @pytest.mark.parametrize(
        ("solutions", "form", "golds"),
        [
            (["<answer>3</answer>", "<answer> 4 </answer>"], ("<answer>", "</answer>"), ["3", "4"]),
            (["so\n1+2=3\nAnswer: 3", "Answer: 14"], ("Answer: ", ""), ["3", "14"]),
            ([r"It is $\boxed{\frac{1}{2}}$.", r"\boxed{3}"], (r"\boxed{", "}"), [r"\frac{1}{2}", "3"]),
            (["work\n#### 12", "#### 7"], ("#### ", ""), ["12", "7"]),
            (["```python\na = 1\nb\n```", "```python\nc\n```"], ("```python\n", "\n```"), ["a = 1\nb", "c"]),
            (["RESULT=<12>", "RESULT=<17>"], ("RESULT=<", ">"), ["12", "17"]),
            (["yes", "no"], ("", ""), ["yes", "no"]),
            (["yes", "yes"], ("", ""), ["yes", "yes"]),
            ([], ("", ""), []),
        ],
    )
    def test_it_is_read_off_the_solutions(self, solutions, form, golds):
        assert answers.read_form(solutions) == (answers.Form(*form), golds)


class TestTheRows:
    def test_few_are_all_taken(self):
        assert sample_rows(3, 20, 0) == [0, 1, 2]

    @pytest.mark.parametrize("count", [21, 1000, None])
    def test_many_are_sampled_with_both_ends(self, count):
        rows = sample_rows(count, 20, 0)
        assert len(rows) == len(set(rows)) == 20 and rows[0] == 0 and rows == sorted(rows) == sample_rows(count, 20, 0)
        assert count is None or rows[-1] == count - 1
        assert rows != sample_rows(count, 20, 1)
