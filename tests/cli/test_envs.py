"""`dapo-trl envs list | show | check`, run as people run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from dapo_trl.cli.main import main
from envs.reward_check.checks import CHECKS

MODULE = """
import gymnasium
from envs import TaskEnv


class Doubling(TaskEnv):
    \"\"\"Double a number.

    Not a word of this.
    \"\"\"

    num_rows = 1400

    def __init__(self, *, factor=2, correct_reward=3.0, wrong_reward=-1.0):
        super().__init__(correct_reward=correct_reward, wrong_reward=wrong_reward)
        self.factor = factor

    def row(self, index):
        number = 100 + index
        return {"prompt": f"{self.factor} * {number} = ? Answer: <number>", "answer": str(self.factor * number)}

    def verify(self, row, completion):
        return completion.rpartition("</think>")[2].strip() == f"Answer: {row['answer']}"


class Generous(Doubling):
    \"\"\"Pays for anything at all.\"\"\"

    def verify(self, row, completion):
        return True


class Raising(Doubling):
    def verify(self, row, completion):
        return {}["missing"]


gymnasium.register("mine/Doubling-v0", "my_doubling:Doubling")
gymnasium.register("mine/Sevenfold-v0", "my_doubling:Doubling", kwargs={"factor": 7, "wrong_reward": 0})
gymnasium.register("mine/Generous-v0", Generous)
gymnasium.register("mine/Raising-v0", "my_doubling:Raising")
gymnasium.register("mine/Gone-v0", "my_doubling:Gone")
"""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "COLUMNS": "200"}


@pytest.fixture
def envs(tmp_path):
    """Run `dapo-trl envs ...` in a folder with a module of the user's."""
    (tmp_path / "my_doubling.py").write_text(MODULE)

    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "dapo_trl", "envs", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment(), timeout=120)

    return run


class TestList:
    def test_it_has_a_line_for_each_environment(self, envs):
        done = envs("list")
        assert done.returncode == 0 and done.stderr == ""
        lines = {line.split()[0]: line for line in done.stdout.splitlines() if "/" in line.split(" ")[0]}
        arithmetic = " ".join(lines["math/Arithmetic-v0"].split())
        assert (
            arithmetic == "math/Arithmetic-v0 endless 1 / 0 Add or subtract two whole numbers, working digit by digit."
        )
        assert "of the data set" in lines["math/GSM8K-v0"] and "openai/gsm8k" in lines["math/GSM8K-v0"]
        assert "of its arguments" in lines["math/Problem-v0"]
        assert "CartPole" not in done.stdout and "mine/" not in done.stdout

    def test_a_module_of_the_users_own_is_imported(self, envs):
        lines = envs("list", "my_doubling").stdout
        assert "mine/Doubling-v0" in lines and "1,400" in lines and "3 / -1" in lines and "Double a number." in lines
        assert "3 / 0" in lines and "Pays for anything" in lines and "Not a word" not in lines
        assert "cannot be loaded: module 'my_doubling' has no attribute 'Gone'" in lines

    def test_a_module_that_is_not_there_is_one_line(self, envs):
        done = envs("list", "no_such_module")
        assert done.returncode == 2
        assert done.stderr == "error: module 'no_such_module' cannot be imported: No module named 'no_such_module'.\n"


class TestShow:
    def test_a_row_with_all_that_is_known_of_it(self, envs):
        done = envs("show", "my_doubling:mine/Doubling-v0", "--index", "3", "--env_kwargs", "{factor: 5}")
        assert done.returncode == 0 and done.stderr == ""
        lines = [line for line in done.stdout.splitlines() if line]
        assert lines[0] == "arguments" and any(line.startswith("factor=") for line in lines)
        assert lines[lines.index("prompt of row 3 of 1,400") :] == [
            "prompt of row 3 of 1,400",
            "5 * 103 = ? Answer: <number>",
            "info",
            "{'index': 3}",
            "solution",
            "Answer: 515",
            "rewards",
            "the solution: 3 (correct)",
            "an empty answer: -1 (wrong)",
        ]

    def test_the_prompt_as_the_settings_put_it_together(self, envs):
        asked = ["--system_prompt", "Multiply.", "--few_shot", "1", "--prompt_template", "{question} Go."]
        done = envs("show", "my_doubling:mine/Doubling-v0", "--index", "3", *asked)
        assert done.returncode == 0 and done.stderr == ""
        lines = done.stdout.split("prompt of row 3 of 1,400\n")[1].splitlines()
        assert lines[:3] == ["[system]", "Multiply.", "[user]"] and lines[4] == "[assistant]"
        number = int(lines[3].split()[2])
        assert lines[3] == f"2 * {number} = ? Answer: <number> Go." and lines[5] == f"Answer: {2 * number}"
        assert lines[6:8] == ["[user]", "2 * 103 = ? Answer: <number> Go."]
        assert "messages" not in done.stdout
        refused = envs("show", "my_doubling:mine/Doubling-v0", "--few_shot", "1400")
        assert refused.returncode == 2 and refused.stderr.startswith(
            "error: few_shot is 1400, and mine/Doubling-v0 has"
        )

    def test_markup_in_a_prompt_is_text(self, envs):
        rows = '{rows: [{prompt: "[bold]1[/bold] + 1 = [red]?", answer: 2}], answer_style: boxed}'
        assert "[bold]1[/bold] + 1 = [red]?" in envs("show", "math/Problem-v0", "--env_kwargs", rows).stdout

    @pytest.mark.parametrize("index", ["1400", "-1"])
    def test_an_index_out_of_range(self, envs, index):
        done = envs("show", "my_doubling:mine/Doubling-v0", "--index", index)
        assert done.returncode == 2
        assert done.stderr == f"error: index is {index}: my_doubling:mine/Doubling-v0 has rows from 0 to 1399.\n"

    def test_an_environment_that_fails(self, envs):
        done = envs("show", "my_doubling:mine/Raising-v0")
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        assert "error: env my_doubling:mine/Raising-v0, index 0: step() raised KeyError: 'missing'" in done.stderr


class TestCheck:
    def test_a_sound_environment(self, envs):
        done = envs("check", "my_doubling:mine/Sevenfold-v0", "--rows", "6", "--strict")
        assert done.returncode == 0, done.stdout
        *checks, last = [line.split() for line in done.stdout.splitlines() if line]
        assert last == ["mine/Sevenfold-v0:", "ok"]
        assert [line[0] for line in checks] == [*CHECKS] and {tuple(line[1:]) for line in checks} == {("ok",)}

    def test_an_unsound_one(self, envs):
        done = envs("check", "my_doubling:mine/Generous-v0", "--rows", "6")
        assert done.returncode == 1 and done.stderr == ""
        assert "failed  an empty answer, '', earns 3 at row 0, where the lowest reward is -1" in done.stdout
        failed = "worthless, hedging, persuasion, near-misses, other-rows, copying"
        assert done.stdout.endswith(f"mine/Generous-v0: failed ({failed})\n")

    def test_as_json_with_the_ids_of_rfc_008(self, envs):
        done = envs("check", "my_doubling:mine/Generous-v0", "--rows", "6", "--json")
        report = json.loads(done.stdout)
        assert (done.returncode, report["target"], report["verdict"]) == (1, "mine/Generous-v0", "fail")
        status = {result["check_id"]: result["status"] for result in report["results"] if result["name"] != "hedging"}
        assert status["semantic.floor_gap"] == "fail" and status["semantic.oracle_max"] == "pass"

    def test_what_is_not_checked_says_why(self, envs):
        done = envs("check", "my_doubling:mine/Raising-v0", "--rows", "4")
        assert done.returncode == 1
        assert "not checked  stopped early: none of the first three answers was judged" in done.stdout


class TestReplay:
    @pytest.fixture
    def recorded(self, envs, tmp_path):
        """A file with the verdicts on two answers."""
        program = (
            "import envs, gymnasium\n"
            "env = envs.RecordVerdicts(gymnasium.make('my_doubling:mine/Doubling-v0'), 'verdicts-0.jsonl')\n"
            "for text in ('Answer: 200', 'Answer: 7'):\n"
            "    env.reset(options={'index': 0}), env.step(text)\n"
        )
        subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, env=environment())
        return str(tmp_path)

    def test_nothing_has_changed(self, envs, recorded):
        done = envs("replay", recorded)
        assert (done.returncode, done.stdout) == (0, "2 episodes judged again: 0 differ.\n"), done.stderr

    def test_what_has_changed_is_named(self, envs, recorded, tmp_path):
        module = tmp_path / "my_doubling.py"
        module.write_text(module.read_text().replace("factor=2", "factor=3"))
        done = envs("replay", recorded)
        assert done.returncode == 1 and done.stdout.endswith("2 episodes judged again: 1 differ.\n"), done.stderr
        assert "index 0" in done.stdout.splitlines()[0]

    def test_nothing_is_recorded_there(self, envs, tmp_path):
        done = envs("replay", str(tmp_path))
        assert done.returncode == 2 and "holds no verdicts-*.jsonl" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [],
            "the following arguments are required: list|show|check|attack|replay|new|serve (see dapo-trl envs --help)",
        ),
        (["lst"], "invalid choice: 'lst'"),
        (["show"], "the following arguments are required: ID"),
        (["show", "math/Aritmetic-v0"], "Did you mean math/Arithmetic-v0"),
        (["show", "math/Arithmetic-v0", "--env_kwargs", "[1"], "--env_kwargs: '[1' cannot be read"),
        (["show", "math/Arithmetic-v0", "--env_kwargs", "7"], "--env_kwargs: '7' must be a mapping, such as '{lev"),
        (["show", "math/Arithmetic-v0", "--env_kwargs", "{levels: 99}"], "cannot be made with levels=99"),
        (["check", "math/Arithmetic-v0", "--rows", "none"], "--rows: invalid int value: 'none'"),
        (["check", "math/Arithmetic-v0", "--rows", "0"], "rows=0 must be an integer of at least 1"),
        (["check", "math/Arithmetic-v0", "--skip", "hedge"], "skip='hedge' is not a check (did you mean 'hedging'?)"),
        (["check", "math/Arithmetic-v0", "--level", "2"], "unrecognized arguments: --level 2 (see dapo-trl"),
        (["check", "no_such_module:my/Task-v0"], "No module named 'no_such_module'"),
        (["check", "reasoning_gym/game_of_life_halting-v0"], "it is not offered, because its reward fails the check"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(capsys, arguments, message):
    assert main(["envs", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_it_does_not_wait_for_torch():
    program = (
        "import sys\nfrom dapo_trl.cli.main import main\n"
        "main(['envs', 'list']); main(['envs', 'show', 'math/Chain-v0'])\n"
        "assert main(['envs', 'check', 'math/Chain-v0', '--rows', '2']) == 0\n"
        "assert not {'torch', 'transformers', 'trl'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


class TestAttack:
    def test_a_hole_is_shown_with_its_reward_and_the_right_verdict(self, envs):
        done = envs("attack", "my_doubling:mine/Generous-v0", "--calls", "60")
        assert done.returncode == 1
        assert "it should have been: wrong" in done.stdout and "paid on 64 of 64 rows held out" in done.stdout
        assert "ways to be paid without the task in 60 answers" in done.stdout.splitlines()[-1]

    def test_a_sound_one_as_json(self, envs):
        done = envs("attack", "my_doubling:mine/Doubling-v0", "--calls", "60", "--json", "--seed", "3")
        report = json.loads(done.stdout)
        assert done.returncode == 0 and (report["holes"], report["seed"], report["answers"]) == (0, 3, 60)

    def test_a_wrong_setting_is_one_line(self, envs):
        done = envs("attack", "my_doubling:mine/Doubling-v0", "--calls", "0")
        assert (done.returncode, done.stderr) == (2, "error: calls=0 must be an integer of at least 1.\n")
