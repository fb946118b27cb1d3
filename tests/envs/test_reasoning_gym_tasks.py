"""`reasoning_gym/...`: what is on offer, and the tasks themselves where the package is installed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import warnings
from functools import partial

import gymnasium
import pytest

import envs
from envs import reasoning_gym_tasks
from envs.reasoning_gym_tasks import STYLE, Checked, ReasoningGymEnv, answer_tag, checked
from envs.reward_check.check import reward_report

INSTALLED = importlib.util.find_spec("reasoning_gym") is not None
needs_reasoning_gym = pytest.mark.skipif(not INSTALLED, reason="pip install 'dapo-trl[reasoning-gym]'")


class TestTheOffer:
    def test_every_task_that_passed_has_an_id_and_no_other(self):
        ids = {name for name, spec in gymnasium.registry.items() if spec.namespace == "reasoning_gym"}
        assert ids == {f"reasoning_gym/{task}-v0" for task in checked().offered}
        assert len(ids) > 60 and not set(checked().offered) & set(checked().refused)

    def test_what_was_refused_has_its_reason(self):
        assert checked().refused["game_of_life_halting"].startswith("worthless: ")
        assert "was executed" in checked().refused["countdown"]
        assert all(": " in reason and "\n" not in reason for reason in checked().refused.values())

    @pytest.mark.parametrize(
        ("task", "message"),
        [
            ("game_of_life_halting", r"is not on offer: worthless: .*\(unchecked=True takes it all the same\)"),
            ("no_such_task", r"is not on offer: it is none of reasoning-gym \d"),
        ],
    )
    def test_what_is_not_on_offer_is_refused(self, task, message):
        with pytest.raises(ValueError, match=message):
            ReasoningGymEnv(task=task)

    @pytest.mark.skipif(INSTALLED, reason="reasoning-gym is installed")
    def test_without_the_package_the_way_to_install_it_is_named(self):
        with pytest.raises(gymnasium.error.DependencyNotInstalled, match=r"pip install 'dapo-trl\[reasoning-gym\]'"):
            gymnasium.make("reasoning_gym/chain_sum-v0")


class TestTheAnswer:
    @pytest.mark.parametrize(
        ("text", "answer"),
        [
            ("<answer>34</answer>", "34"),
            ("so\n<answer>\n 1 2\n 3 4 \n</answer> done", "1 2\n 3 4"),
            ("<answer>1</answer> no, <answer>2</answer>", "2"),
            ("<answer><answer>1</answer>", "1"),
            ("<answer></answer>", ""),
            ("<answer>1", None),
            ("1</answer>", None),
            ("</answer>1<answer>", None),
            ("34", None),
        ],
    )
    def test_it_is_what_stands_in_the_last_tags(self, text, answer):
        assert answer_tag(text) == answer

    def test_the_prompt_asks_for_these_tags(self):
        assert STYLE.prompt("1 + {question}?").startswith("1 + {question}?\n\n")
        assert answer_tag(STYLE.prompt("?")) is not None and answer_tag(STYLE.solution("7")) == "7"


@needs_reasoning_gym
class TestTheTasks:
    def make(self, task="chain_sum", **kwargs):
        return gymnasium.make(f"reasoning_gym/{task}-v0", **kwargs).unwrapped

    @pytest.mark.parametrize("task", ["chain_sum", "word_ladder", "sudoku", "leg_counting"])
    def test_it_passes_the_check(self, task):
        assert envs.check_reward_env(f"reasoning_gym/{task}-v0", rows=5, strict=True)["spec"].status == "ok"

    def test_the_task_that_pays_for_any_text_is_found(self):
        found = reward_report(partial(ReasoningGymEnv, task="game_of_life_halting", unchecked=True), rows=8)
        assert found["worthless"].status == "failed" and "<answer>pneumono" in found["worthless"].message

    def test_the_task_that_ignores_the_sign_is_found(self):
        found = reward_report(partial(ReasoningGymEnv, task="gsm_symbolic", unchecked=True), rows=8)
        assert found["near-misses"].status == "failed" and "with the other sign" in found["near-misses"].message

    def test_it_is_the_same_in_another_process(self):
        program = (
            "import gymnasium, envs; env = gymnasium.make('reasoning_gym/chain_sum-v0');"
            "print([env.reset(options={'index': i})[0] for i in (0, 7, 2**40)])"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        env = self.make()
        assert done.stdout.strip() == str([env.reset(options={"index": i})[0] for i in (0, 7, 2**40)])

    def test_the_splits_are_disjoint_where_there_are_few_problems(self):
        config = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
        train, test = (
            {env.row(index)["prompt"] for index in range(200)}
            for env in (self.make(split=split, config=config) for split in ("train", "test"))
        )
        assert len(train) > 80 and len(test) > 30 and not train & test

    def test_a_task_of_a_single_problem_has_a_single_split(self):
        refused = 0
        for split in ("train", "test"):
            try:
                self.make("count_bits", split=split, config={"min_n": 5, "max_n": 5}).row(0)
            except RuntimeError as error:
                refused += 1
                assert f"belongs to the {split} split, because they are all alike" in str(error)
        assert refused == 1

    def test_the_config_reaches_the_task(self):
        prompt = self.make(config={"min_terms": 6, "max_terms": 6}).row(3)["prompt"]
        assert prompt.count(" + ") + prompt.count(" - ") == 5

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ({"seed": 3}, "config sets seed: leave it out, the index decides"),
            ({"no_such": 3}, r"refuses config=\{'no_such': 3\}: .*no_such"),
            ({"min_terms": -1}, "refuses config="),
        ],
    )
    def test_a_wrong_config_is_named(self, config, message):
        with pytest.raises(ValueError, match=message):
            self.make(config=config)

    def test_a_score_below_full_marks_counts_only_when_asked(self):
        text = "<answer>it is {}, I think</answer>"
        for partial_credit, least, most in ((False, 0.0, 0.0), (True, 0.001, 0.9)):
            env = self.make("figlet_font", partial_credit=partial_credit)
            gold = answer_tag(env.solution(0))
            env.reset(options={"index": 0})
            accuracy = env.step(text.format(gold[: len(gold) - 1]))[4]["accuracy"]
            assert least <= accuracy <= most

    def test_another_version_is_a_warning(self, monkeypatch):
        monkeypatch.setattr(reasoning_gym_tasks, "checked", lambda: Checked("0.0.1", {"chain_sum": ""}, {}))
        reasoning_gym_tasks._warn_of_version.cache_clear()
        with pytest.warns(UserWarning, match=r"is installed, but its tasks were checked with 0\.0\.1: check those"):
            ReasoningGymEnv(task="chain_sum")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ReasoningGymEnv(task="chain_sum")  # said once
        reasoning_gym_tasks._warn_of_version.cache_clear()

    def test_every_task_on_offer_makes_and_solves_its_first_problem(self):
        for task in checked().offered:
            env = self.make(task)
            env.reset(options={"index": 0})
            assert env.step(env.solution(0))[1] == 1.0, task


def test_the_data_file_is_as_the_script_writes_it():
    text = (reasoning_gym_tasks.__file__.removesuffix(".py")) + ".json"
    with open(text, encoding="utf-8") as file:
        content = file.read()
    assert content == json.dumps(json.loads(content), indent=2, ensure_ascii=False) + "\n"
