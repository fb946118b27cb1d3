"""The bridge between Gymnasium and TRL, and what it says when an environment misbehaves."""

from __future__ import annotations

import gymnasium
import pytest

from dapo_trl import DAPOTrainer
from dapo_trl.errors import ConfigError, RewardError
from dapo_trl.rollout.chat_format import ChatFormat
from dapo_trl.rollout.environments import EnvironmentRows, has_overlong_penalty, make_env
from dapo_trl.rollout.episode import Episode
from dapo_trl.rollout.trl_bridge import EnvironmentReward
from envs import Completion, OverlongPenalty, TaskEnv
from envs.math.problem import ProblemEnv

from ..support.recorded import config
from ..support.tiny import byte_tokenizer


class Echo(TaskEnv):
    """Right when the completion begins with the row's letter."""

    num_rows = 3
    prompts = ("say a", "say b", "say c")

    def row(self, index):
        return {"prompt": self.prompts[index], "letter": self.prompts[index][-1]}

    def verify(self, row, completion):
        return completion.startswith(row["letter"])


class Moody(Echo):
    """Shows another prompt every time."""

    asked = 0

    def row(self, index):
        type(self).asked += 1
        return {**super().row(index), "prompt": f"say something {self.asked}"}


class Broken(Echo):
    def __init__(self, reward):
        super().__init__()
        self.reward = reward

    def step(self, action):
        observation, _, terminated, truncated, info = super().step(action)
        return observation, self.reward, terminated, truncated, info


class TestMakeEnv:
    def test_an_instance_passes_through(self):
        env = Echo()
        assert make_env(env) is env

    @pytest.mark.parametrize(
        ("env", "message"),
        [
            ("math/Arithmatic-v0", "Did you mean math/Arithmetic-v0"),
            ("math/Arithmetic-v7", "math/Arithmetic"),
            ("nothing-like-it", "no such environment is registered"),
            ("my/Task-v0", "named 'your_module:your/Task-v0'"),
            ("maths/Arithmetic-v0", "Did you mean math/Arithmetic-v0"),
            ("no_such_module:my/Task-v0", "No module named 'no_such_module'"),
        ],
    )
    def test_an_unknown_id_is_one_clear_error(self, env, message):
        with pytest.raises(ConfigError, match="env is") as error:
            make_env(env)
        assert message in str(error.value)

    def test_bad_arguments_are_named(self):
        with pytest.raises(ConfigError, match=r"cannot be made with path='missing.jsonl'"):
            make_env("math/Problem-v0", path="missing.jsonl")
        with pytest.raises(ConfigError, match="nonsense"):
            make_env("math/Arithmetic-v0", nonsense=1)
        with pytest.raises(ConfigError, match=r"row 0 of rows"):
            make_env("math/Problem-v0", rows=[{"prompt": "1 + 1?"}])

    def test_an_empty_file_is_named(self, tmp_path):
        (tmp_path / "rows.jsonl").write_text("")
        with pytest.raises(ConfigError, match=r"rows\.jsonl"):
            make_env("math/Problem-v0", path=str(tmp_path / "rows.jsonl"))


def test_rows_are_text_or_chat_as_the_tokenizer_wants():
    plain, chat = byte_tokenizer(), byte_tokenizer(chat=True)
    assert EnvironmentRows(Echo(), plain)[1] == {"prompt": "say b", "question": "say b", "index": 1, "level": None}
    asked = [{"role": "user", "content": "say b"}]
    assert EnvironmentRows(Echo(), chat)[1] == {"prompt": asked, "question": "say b", "index": 1, "level": None}


def test_the_reward_function_decodes_tokens_and_tells_stop_from_length():
    tokenizer = byte_tokenizer()
    reward = EnvironmentReward(OverlongPenalty(Echo(), max_length=3))
    reward.chat_format = ChatFormat(tokenizer, [tokenizer.eos_token_id])
    stopped = [*tokenizer("a")["input_ids"], tokenizer.eos_token_id]
    cut = tokenizer("bbbbb")["input_ids"]
    batch = {"question": ["say a", "say b"], "completion_ids": [stopped, cut], "index": [0, 1]}
    assert reward(**batch, prompts=["-", "-"]) == [1.0, pytest.approx(1 - 0.02)]
    outcomes = reward.judge(*batch.values())
    assert [outcome.verdict for outcome in outcomes] == ["correct", "correct"]
    assert outcomes[1].accuracy == 1.0
    assert outcomes[1].components == {"correctness": 1.0, "overlong": pytest.approx(-0.02)}
    assert reward(**batch, prompts=["-", "-"], outcome=outcomes[::-1]) == [
        pytest.approx(1 - 0.02),
        1.0,
    ]  # known ones are not judged again


def test_a_group_must_see_one_prompt():
    with pytest.raises(RewardError, match="two different prompts for index 1"):
        Episode(Moody(), 1, "say something else").step(Completion("a"))


@pytest.mark.parametrize("reward", [None, "1", True, float("inf"), [1.0]])
def test_what_is_not_a_reward_is_named(reward):
    with pytest.raises(RewardError, match=r"env Broken, index 2: step\(\) returned the reward .*: return a float"):
        Episode(Broken(reward), 2).step(Completion("c"))


class Raises(Echo):
    def verify(self, row, completion):
        return {}["missing"]


class ReturnsNone(Echo):
    def verify(self, row, completion):
        return None


class NoPrompt(Echo):
    def row(self, index):
        return {"letter": "a"}


class NumberPrompt(Echo):
    def row(self, index):
        return {"prompt": 7}


class NoNumRows(TaskEnv):
    row = Echo.row
    verify = Echo.verify


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (Raises, r"env Raises, index 1: step\(\) raised KeyError: 'missing' \(test_trl_bridge\.py:\d+\)"),
        (ReturnsNone, r"env ReturnsNone, index 1: step\(\) raised TypeError: verify returned None"),
        (NoPrompt, r"env NoPrompt, index 1: reset\(\) raised TypeError: NoPrompt.row\(1\) has the prompt None"),
        (NumberPrompt, r"env NumberPrompt, index 1: reset\(\) raised TypeError: .* has the prompt 7 \(int\)"),
        (NoNumRows, r"env NoNumRows has no num_rows"),
    ],
)
def test_an_environment_that_fails_is_named_with_the_row_and_the_place(env, message):
    with pytest.raises((RewardError, ConfigError), match=message):
        EnvironmentRows(env(), byte_tokenizer())[1]
        Episode(env(), 1).step(Completion("b"))


def test_a_num_rows_that_is_no_number_is_named():
    env = Echo()
    env.num_rows = "400"
    with pytest.raises(ConfigError, match="num_rows '400': it must be 1 or more, or None"):
        EnvironmentRows(env, byte_tokenizer())


def test_an_overlong_wrapper_is_found_anywhere_in_the_stack():
    assert not has_overlong_penalty(Echo())
    wrapped = gymnasium.wrappers.OrderEnforcing(OverlongPenalty(Echo(), max_length=3))
    assert has_overlong_penalty(wrapped)


class TestInTheTrainer:
    def trainer(self, model, tmp_path, env, **changes):
        return DAPOTrainer(model=model, args=config(tmp_path, **changes), env=env)

    def test_the_environment_supplies_prompts_and_rewards(self, tiny_chat_model, tmp_path):
        run = self.trainer(tiny_chat_model, tmp_path, Echo(), group_filter="none", max_steps=2)
        run.train()
        logs = run.state.log_history[0]
        assert run.reward_func_names == ["environment", "overlong"]
        assert logs["sampling/prompts"] == 2 and 0 <= logs["accuracy/sampled"] <= 1

    def test_the_configured_penalty_is_not_added_to_an_environment_that_has_one(self, tiny_chat_model, tmp_path):
        run = self.trainer(tiny_chat_model, tmp_path, OverlongPenalty(Echo(), max_length=3))
        assert run.reward_func_names == ["environment"]

    def test_an_endless_environment_needs_max_steps(self, tiny_chat_model, tmp_path):
        with pytest.raises(ConfigError, match="is endless and max_steps is -1"):
            self.trainer(tiny_chat_model, tmp_path, "math/Arithmetic-v0", max_steps=-1)

    def test_a_data_set_beside_the_environment_is_refused(self, tiny_chat_model, tmp_path):
        with pytest.raises(ConfigError, match=r"both env \(Echo\) and train_dataset"):
            DAPOTrainer(tiny_chat_model, args=config(tmp_path), env=Echo(), train_dataset=object())

    def test_an_infrastructure_failure_is_masked_and_never_scored_zero(self, tiny_chat_model, tmp_path):
        from envs import Verdict

        class Flaky(Echo):
            def verify(self, row, completion):
                self.count = getattr(self, "count", 0) + 1
                return Verdict.INFRA_FAILURE if self.count % 2 else self.count % 4 == 0

        run = self.trainer(tiny_chat_model, tmp_path, Flaky())
        run.train()
        logs = run.state.log_history[0]
        assert logs["sampling/unscorable"] == 0.5
        assert logs["accuracy/sampled"] == 0.5  # over the scorable ones alone
        assert logs["groups/kept"] == 2

    def test_a_finite_environment_is_walked_for_as_many_epochs_as_asked(self, tiny_chat_model, tmp_path):
        env = ProblemEnv(rows=[{"prompt": f"{i} + 1?", "answer": str(i + 1)} for i in range(4)])
        run = self.trainer(tiny_chat_model, tmp_path, env, group_filter="none", max_steps=-1, num_train_epochs=2)
        run.train()
        assert run.state.global_step == 4 and run.prompts.epochs == 2.0
