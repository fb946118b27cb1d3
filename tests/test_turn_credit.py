"""`turn_credit`: who gets the rewards of turns, from the environment to the gradient."""

from __future__ import annotations

import math

import pytest
import torch

from dapo_trl import DAPOTrainer
from dapo_trl.errors import ConfigError
from dapo_trl.rollout.rewards import RewardColumns, padded_turns, turn_scores
from dapo_trl.rollout.types import Outcome
from dapo_trl.sampling.group_filter import DynamicSampler
from dapo_trl.update.loss import make_loss
from envs import OverlongPenalty, TaskEnv

from .support.guessing import save_guessing_model
from .support.recorded import config, prompts_of, weights
from .support.turns_run import Paid, Scripted

NAN = math.nan


class Watched(Scripted):
    """Keeps what the loss is given."""

    def _compute_loss(self, model, inputs):
        self.seen = [*getattr(self, "seen", []), inputs]
        return super()._compute_loss(model, inputs)

    def by_turn(self) -> dict[str, list[float]]:
        """By a completion's text the advantages of its turns, of which all tokens have the same."""
        found, end = {}, self.processing_class.eos_token_id
        for batch in self.seen:
            own, gains = batch.loss_mask.bool(), batch.token_advantages.expand(batch.loss_mask.shape)
            ends = own & (batch.completion_ids == end)
            number = ends.int().cumsum(dim=1) - ends.int()
            for row, ids in enumerate(batch.completion_ids):
                text = self.processing_class.decode(ids[own[row]]).replace(self.processing_class.eos_token, " ")
                turns = [gains[row][own[row] & (number[row] == turn)].unique() for turn in range(int(ends[row].sum()))]
                found[text.strip()] = [pytest.approx(turn.item(), abs=1e-6) for turn in turns]
        return found


def watched(model, folder, env=None, **changes) -> Watched:
    settings = {
        "per_device_train_batch_size": 4,
        "group_filter": "none",
        "max_completion_length": 48,
        "overlong_shape": "none",
        "beta": 0.0,
        "turn_credit": "to_go",
        **changes,
    }
    run = Watched(model, args=config(folder, **settings), env=env or Paid())
    run.train()
    return run


def test_every_token_has_the_advantage_of_its_turn(tiny_model, tmp_path):
    """Row 0. The members ask 0, 1, 2 and 0 questions, which pay 0.5 and then -0.25; those of even number are right::

        0R        1                     returns   1
        1? W      0.5    0                        0.5    0
        2? .? R   0.5   -0.25   1                 1.25   0.75   1
        3W        0                               0

    The means are 0.6875 at the first turn, 0.375 at the second, and the third has nothing to be compared with.
    """
    run = watched(tiny_model, tmp_path)
    found = run.by_turn()
    assert found == {"0R": [0.3125], "1? W": [-0.1875, -0.375], "2? .? R": [0.5625, 0.375, 0.0], "3W": [-0.6875]}
    tokens = {"0R": [3], "1? W": [3, 2], "2? .? R": [3, 3, 2], "3W": [3]}
    total = sum(
        -float(gain.expected) * count for text in tokens for gain, count in zip(found[text], tokens[text], strict=True)
    )
    assert run.state.log_history[0]["loss"] == pytest.approx(total / 19, abs=1e-6)  # every ratio is 1


def test_one_advantage_for_the_whole_episode_is_the_default(tiny_model, tmp_path):
    found = watched(tiny_model, tmp_path, turn_credit="episode").by_turn()
    assert found == {"0R": [0.3125], "1? W": [-0.1875] * 2, "2? .? R": [0.5625] * 3, "3W": [-0.6875]}


def test_a_penalty_of_the_length_belongs_to_the_last_turn(tiny_model, tmp_path):
    """-1 for every own token beyond 7: one, of the longest. So each of its turns earns 1 less from there on, whether a
    setting or a wrapper takes it off."""
    limits = {"max_length": 7, "coefficient": 1.0}
    by_wrapper = watched(tiny_model, tmp_path / "a", OverlongPenalty(Paid(), **limits)).by_turn()
    names = {f"overlong_{name}": value for name, value in limits.items()}
    by_setting = watched(tiny_model, tmp_path / "b", overlong_shape="linear", **names).by_turn()
    # returns 1; 0.5, 0; 0.25, -0.25, 0; 0: means 0.4375 and -0.125
    assert by_wrapper["2? .? R"] == by_setting["2? .? R"] == [-0.1875, -0.125, 0.0]
    assert by_wrapper["1? W"] == by_setting["1? W"] == [0.0625, 0.125]


class OneTurn(Paid):
    max_turns = 1
    reply = TaskEnv.reply


def test_with_one_turn_nothing_changes(tiny_model, tmp_path, caplog):
    episode, to_go = (
        watched(tiny_model, tmp_path / credit, OneTurn(), turn_credit=credit, learning_rate=0.1)
        for credit in ("episode", "to_go")
    )
    assert "turn_credit is inert: no environment replies" in caplog.text
    assert all(batch.advantages.dim() == 1 for batch in to_go.seen)
    for name, value in weights(episode).items():
        assert value.equal(weights(to_go)[name])


def test_environments_of_one_turn_and_of_several_are_mixed(tiny_model, tmp_path):
    found = watched(tiny_model, tmp_path, [Paid(), OneTurn()], per_device_train_batch_size=8).by_turn()
    assert found["2? .? R"] == [0.5625, 0.375, 0.0]
    assert found["1?"] == found["2?"] == [-0.25]  # a question is no answer: one of four is right


def test_a_completion_that_is_masked_stays_out(tiny_model, tmp_path):
    """The longest is cut off before its last token: what it earned counts in the means, its tokens not in the loss."""
    limits = {"max_completion_length": 21, "mask_truncated_completions": True}
    run = watched(tiny_model, tmp_path, **limits)
    assert run.by_turn() == {"0R": [0.3125], "1? W": [-0.1875, -0.375], "": [], "3W": [-0.6875]}
    assert run.state.log_history[0]["gradient/truncated"] > 0


def columns(weight: float = 1.0) -> RewardColumns:
    return RewardColumns(["environment", "style", "overlong"], torch.tensor([weight, 1.0, 1.0]), 2)


def test_other_reward_functions_judge_the_end_and_weights_count():
    """One group, the environment's weight 2; the third could not be scored."""
    rewards = torch.tensor([[1.5, 0.5, -1.0], [0.5, NAN, 0.0], [NAN, NAN, NAN]])
    turns = [[0.5, 1.0], [0.5], [NAN, NAN]]
    found = columns(2.0).turn_advantages(rewards, turns, 3, "none")
    # returns 3 - 0.5 and 2 - 0.5; 1: the mean of the first turn is 1.75
    assert found.tolist() == [[0.75, 0.0], [-0.75, 0.0], [0.0, 0.0]]


def outcome(*turns: float, accuracy: float | None = 0.0) -> Outcome:
    """One with an accuracy of its own, or one whose accuracy is the sum of its rewards."""
    given = accuracy is not None
    return Outcome(
        reward=sum(turns),
        accuracy=accuracy if given else sum(turns),
        verdict="wrong",
        components={},
        turns=list(turns),
        turn_scores=[*turns[:-1], accuracy if given else turns[-1]],
    )


@pytest.mark.parametrize(
    ("key", "group", "kept"),
    [
        ("accuracy", [outcome(1, 0), outcome(0, 0)], True),  # all wrong, and the first turn tells them apart
        ("accuracy", [outcome(1, 0), outcome(1, 0)], False),
        ("accuracy", [outcome(0, 0, 1), outcome(0, 0, 0.5)], False),  # the end differs by shaping alone
        ("accuracy", [outcome(1, 0, accuracy=None), outcome(0, 1, accuracy=None)], True),  # equal totals
        ("accuracy", [outcome(1, 0, accuracy=None), outcome(1, accuracy=None)], False),  # and nothing to compare
        ("accuracy", [outcome(0.25), outcome(0.5)], False),
        ("reward", [outcome(1, 0), outcome(0, 1)], True),
        ("reward", [outcome(1, 0), outcome(1)], False),
        ("environment", [outcome(1, 0), outcome(0, 1)], True),
        ("style", [outcome(1, 0), outcome(0, 0)], False),
    ],
)
def test_a_group_is_informative_if_any_turn_of_it_is(key, group, kept):
    rewards = torch.tensor([[one.reward, 0.0, 0.0] for one in group])
    accuracy = torch.tensor([float(one.accuracy) for one in group])
    scores = columns().scores(rewards, accuracy, key)
    to_go = columns().scores_to_go(rewards, padded_turns(turn_scores(group, key), "cpu"), key)
    later = None if to_go is None else to_go.unsqueeze(0)
    assert DynamicSampler(target=1).add(scores.unsqueeze(0), to_go=later)[0] == ("kept" if kept else "all_wrong") or (
        not kept and scores.min() >= 1
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"importance_sampling_level": "sequence_product"},
            r"'to_go' and importance_sampling_level 'sequence_product'",
        ),
        ({"importance_sampling_level": "sequence"}, r"'to_go' and importance_sampling_level 'sequence': one ratio"),
        (
            {"multi_objective_aggregation": "normalize_then_sum"},
            r"Set multi_objective_aggregation to sum_then_normalize",
        ),
        ({"loss_type": "cispo"}, r"'to_go' together with a setting whose loss TRL computes"),
        ({"delta": 2.0}, r"'to_go' together with a setting whose loss TRL computes"),
        ({"turn_credit": "gae"}, r"turn_credit is 'gae'"),
    ],
)
def test_what_has_no_advantage_for_each_token_is_refused(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        make_loss(config(tmp_path, **{"turn_credit": "to_go", **changes}), has_auxiliary_loss=False)


def test_reward_functions_have_no_turns(tiny_model, tmp_path):
    with pytest.raises(ConfigError, match="turn_credit is 'to_go' and there is no env: reward functions judge"):
        DAPOTrainer(
            tiny_model,
            lambda prompts, **_: [0.0] * len(prompts),
            config(tmp_path, turn_credit="to_go"),
            prompts_of("a"),
        )


class FirstTurn(TaskEnv):
    """Two turns: the first earns if it begins with "A", the second nothing."""

    num_rows, max_turns = 16, 2

    def row(self, index):
        return {"prompt": f"row {index}"}

    def reply(self, row, turns):
        return " ", float(turns[0].split()[:1] == ["A"])

    def verify(self, row, completion):
        return False


@pytest.fixture(scope="module")
def guessing_model(tmp_path_factory):
    return save_guessing_model(tmp_path_factory.mktemp("guessing"), "ABCD", often=0.8)


def play(model, folder, *, resume=None, **changes) -> DAPOTrainer:
    settings = {
        "per_device_train_batch_size": 32,
        "num_generations": 8,
        "max_completion_length": 48,
        "overlong_shape": "none",
        "beta": 0.0,
        "logging_steps": 100,
        **changes,
    }
    run = DAPOTrainer(model, args=config(folder, **settings), env=FirstTurn())
    run.train(resume_from_checkpoint=resume)
    return run


def test_a_game_that_nobody_wins_is_learnt_by_its_turns(guessing_model, tmp_path):
    """All are wrong in the end, so the filter keeps a group for its turns alone."""
    run = play(guessing_model, tmp_path / "to_go", max_steps=8, learning_rate=1.0, turn_credit="to_go")
    assert run.sampling.counts.kept > 20
    with torch.no_grad():
        logits = run.model(torch.tensor([[0]])).logits[0, -1]
    assert logits.softmax(-1)[run.processing_class.convert_tokens_to_ids("A")] > 0.5  # 0.2 before


@pytest.mark.parametrize(("key", "keeps"), [("accuracy", True), ("reward", True), ("nothing", False)])
def test_with_one_advantage_for_the_episode_rewards_of_turns_count_too(guessing_model, tmp_path, key, keeps):
    def nothing(prompts, **_):
        return [0.0] * len(prompts)

    limits = {"per_device_train_batch_size": 32, "max_completion_length": 48, "overlong_shape": "none"}
    args = config(tmp_path, num_generations=8, filter_key=key, **limits)
    run = DAPOTrainer(guessing_model, nothing, args, env=FirstTurn())
    run.train()
    assert (run.sampling.counts.kept > 0) == keeps
    assert (run.sampling.ledger.tokens["shaping_only"] > 0) == (not keeps)


def test_a_resumed_run_is_the_same_bit_for_bit(guessing_model, tmp_path):
    """Stopped in the middle of a rollout batch, with surplus groups that wait for the next one."""
    settings = {
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "steps_per_generation": 2,
        "max_round_sequences": 32,
        "min_valid_fraction": 1.0,
        "max_steps": 8,
        "learning_rate": 0.1,
        "save_strategy": "steps",
        "save_steps": 5,
        "turn_credit": "to_go",
    }
    whole = play(guessing_model, tmp_path / "whole", **settings)
    again = play(guessing_model, tmp_path / "again", resume=str(tmp_path / "whole" / "checkpoint-5"), **settings)
    state = torch.load(tmp_path / "whole" / "checkpoint-5" / "dapo_state_0.pt", weights_only=False)
    assert any(source["surplus"] for source in state["everyones"]["sampling"]["sources"].values()), state.keys()
    assert again.state.global_step == 8
    for name, value in weights(whole).items():
        assert value.equal(weights(again)[name]), name
