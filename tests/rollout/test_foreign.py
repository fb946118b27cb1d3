"""Training on a plain Gymnasium environment that knows nothing of this package."""

from __future__ import annotations

import gymnasium
import pytest

from dapo_trl import DAPOTrainer
from dapo_trl.rollout.environments import make_env

from ..support.faulty import Foreign, ForeignBySeed
from ..support.recorded import config


@pytest.fixture
def registered():
    gymnasium.register("foreign/Next-v0", "tests.support.faulty:Foreign")
    yield "foreign/Next-v0"
    del gymnasium.registry["foreign/Next-v0"]


def test_it_supplies_prompts_and_rewards(registered, tiny_chat_model, tmp_path):
    run = DAPOTrainer(tiny_chat_model, args=config(tmp_path, group_filter="none", max_steps=2), env=registered)
    run.train()
    logs = run.state.log_history[0]
    assert run.state.global_step == 2 and run.reward_func_names[0] == "environment"
    assert logs["rewards/environment/mean"] == -0.5  # a random model guesses no number


def test_an_instance_does_as_well_as_an_id(registered, tiny_chat_model, tmp_path):
    for env in (Foreign(), make_env(registered)):
        run = DAPOTrainer(tiny_chat_model, args=config(tmp_path, group_filter="none"), env=env)
        run.train()
        assert run.state.global_step == 1


def test_one_that_ignores_options_has_the_rows_of_its_seeds(tiny_chat_model, tmp_path):
    run = DAPOTrainer(tiny_chat_model, args=config(tmp_path, group_filter="none", max_steps=2), env=ForeignBySeed())
    run.train()
    assert run.state.global_step == 2
    texts = [run.sampling.sources[0].stream.row(i)["prompt"][0]["content"] for i in range(8)]
    assert len(set(texts)) == 8
    assert texts[3] == ForeignBySeed().reset(seed=3)[0]
