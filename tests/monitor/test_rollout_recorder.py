"""What is kept of the rollouts for a person to look at: true, bounded, and without effect on the training."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from dapo_trl.monitor.rollout_recorder import MAX_TOKENS, RolloutRecorder, choose, pieces, shortened
from dapo_trl.rollout.types import Outcome, Rollout, TrainingRow
from envs.math.answers import ANSWER_STYLES

from ..conftest import ROOT
from ..support.recorded import config, prompts_of, trainer, weights
from ..support.tiny import byte_tokenizer

KINDS = ("mixed", "wrong", "mixed", "right")


def recorder(folder, tokenizer=None, **changes) -> RolloutRecorder:
    settings = {"count": 8, "names": ["correctness", "overlong"], "envs": {}, "max_bytes": 10**9, **changes}
    return RolloutRecorder(folder / "rollouts-0.jsonl", tokenizer or byte_tokenizer(), **settings)


def lines(folder, name="rollouts-0.jsonl") -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def two_updates(model, folder, *, record: bool, **changes):
    """Two optimizer steps on one rollout batch, with a checkpoint between them."""
    args = config(
        folder,
        num_iterations=2,
        max_steps=2,
        save_strategy="steps",
        save_steps=1,
        learning_rate=0.5,
        min_valid_fraction=1.0,
        **changes,
    )
    run = trainer(model, args, prompts_of(*KINDS))
    if record:
        run.recorder = recorder(folder, run.processing_class, names=run.reward_func_names)
    run.train()
    if record:
        run.recorder.flush()
    return run


def log_probabilities(model: str, prompt: str, completion: str) -> torch.Tensor:
    """Of the completion's tokens, by the model alone."""
    tokenizer = byte_tokenizer()
    first, last = tokenizer(prompt)["input_ids"], tokenizer(completion)["input_ids"]
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(model)(torch.tensor([first + last])).logits[0]
    picked = logits[len(first) - 1 : -1].log_softmax(dim=-1)
    return picked.gather(1, torch.tensor(last).unsqueeze(1)).squeeze(1)


def test_the_change_is_that_of_the_weights_and_the_training_is_undisturbed(tiny_model, tmp_path):
    run = two_updates(tiny_model, tmp_path / "recorded", record=True)
    found = lines(tmp_path / "recorded")
    assert [line["account"] for line in found].count("trained") == 6
    assert {line["account"] for line in found} == {"trained", "all_wrong", "all_right"}
    for line in found:
        assert line["schema"] == 1 and line["batch"] == 1 and line["step"] == 0
        assert line["accuracy"] is None and line["solution"] is None  # there is no environment
        if line["account"] != "trained":
            assert line["advantage"] == 0 and "change" not in line
            continue
        assert line["updates"] == 1 and line["tokens"] == len(line["pieces"]) == len(line["change"])
        assert line["advantage"] * (line["rewards"]["correctness"] - 0.5) > 0
        text = "".join(line["pieces"])
        before = log_probabilities(tiny_model, line["prompt"], text)
        after = log_probabilities(str(tmp_path / "recorded" / "checkpoint-1"), line["prompt"], text)
        torch.testing.assert_close(torch.tensor(line["before"]), before, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(torch.tensor(line["change"]), after - before, atol=1e-3, rtol=1e-2)
        assert (after - before).abs().max() > 0.01

    plain = two_updates(tiny_model, tmp_path / "plain", record=False)
    assert all(torch.equal(value, weights(plain)[name]) for name, value in weights(run).items())


def test_a_single_update_shows_no_change(tiny_model, tmp_path):
    """The only pass is with the policy that sampled."""
    run = trainer(tiny_model, config(tmp_path, min_valid_fraction=1.0), prompts_of(*KINDS))
    run.recorder = recorder(tmp_path, run.processing_class, names=run.reward_func_names)
    run.train()
    run.recorder.flush()
    trained = [line for line in lines(tmp_path) if line["account"] == "trained"]
    assert trained and not any("change" in line or line["updates"] for line in trained)


def test_the_best_and_the_worst_of_each_group_come_first():
    advantages = [0.1, 0.9, -0.5, -0.5, 0.0, -1.0, 0.3, 0.7]
    assert choose(advantages, 4, 4) == [1, 3, 7, 5]
    assert choose(advantages, 4, 3) == [1, 3, 7]
    assert sorted(choose(advantages, 4, 100)) == list(range(8))
    assert choose([], 4, 8) == choose(advantages, 4, 0) == []


def rollout(tokens: int = 3, **changes) -> Rollout:
    ids = byte_tokenizer()("ab " * tokens)["input_ids"][:tokens]
    return Rollout(
        **{
            "row": {"index": 1},
            "prompt": "p",
            "completion": "c",
            "prompt_ids": np.array(ids[:1]),
            "completion_ids": np.array(ids),
            "order": 0,
            "tokens": tokens,
            "account": "all_wrong",
            "rewards": [0.0, math.nan],
            **changes,
        }
    )


@pytest.mark.parametrize("style", ["dapo", "boxed"])
def test_the_question_stands_without_the_system_message_and_the_instruction(style, tmp_path):
    asked = ANSWER_STYLES[style].prompt("What is 1 + 1?")
    prompt = [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": asked}]
    keeper = recorder(tmp_path)
    keeper.begin(1, step=1)
    keeper.add_dropped(rollout(prompt=prompt))
    keeper.flush()
    assert lines(tmp_path)[0]["question"] == "What is 1 + 1?"


def test_the_file_is_bounded_and_even(tmp_path):
    keeper = recorder(tmp_path, max_bytes=6000)
    for batch in range(1, 200):
        keeper.begin(batch, step=batch)
        keeper.add_dropped(rollout())
        assert not keeper.path.exists() or keeper.path.stat().st_size <= 6000
    keeper.flush()
    batches = [line["batch"] for line in lines(tmp_path)]
    assert len(batches) > 4 and batches[-1] > 150
    assert len(set(np.diff(batches).tolist())) == 1


def test_a_resumed_run_replaces_what_it_samples_again(tmp_path):
    first = recorder(tmp_path)
    for batch in (1, 2, 3):
        first.begin(batch, step=batch)
        first.add_dropped(rollout())
    first.flush()
    with first.path.open("a") as file:
        file.write('{"batch": 1, "torn')
    again = recorder(tmp_path)
    again.begin(2, step=2)
    again.add_dropped(rollout(tokens=5))
    again.flush()
    assert [(line["batch"], line["tokens"]) for line in lines(tmp_path)] == [(1, 3), (2, 5)]


def test_only_the_ends_of_an_endless_completion_are_kept(tmp_path):
    keeper = recorder(tmp_path)
    keeper.begin(1, step=0)
    keeper.add_dropped(rollout(tokens=3 * MAX_TOKENS))
    keeper.flush()
    [line] = lines(tmp_path)
    assert len(line["pieces"]) == MAX_TOKENS and line["tokens"] == 3 * MAX_TOKENS
    assert line["left_out"] == [3072, 2 * MAX_TOKENS]
    assert line["rewards"] == {"correctness": 0.0, "overlong": None}


def test_an_environments_replies_are_told_apart(tmp_path):
    keeper = recorder(tmp_path)
    keeper.begin(1, step=0)
    keeper.add_dropped(rollout(loss_mask=[1, 0, 1]))
    keeper.flush()
    assert lines(tmp_path)[0]["own"] == [1, 0, 1]


def test_the_turns_of_an_episode_have_their_rewards_and_advantages(tmp_path):
    """Two episodes of two turns and of one, trained on: what of a turn is not known has no figure."""
    keeper = recorder(tmp_path, names=["environment"])
    outcomes = [Outcome(1.5, 1.0, "correct", {}, turns=[0.5, 1.0]), Outcome(0.0, 0.0, "wrong", {}, turns=[0.0])]
    fresh = [
        rollout(rewards=[one.reward], outcome=one, turn_starts=[0, 2][: len(one.turns)], loss_mask=[1, 0, 1])
        for one in outcomes
    ]
    ids = torch.zeros(3, dtype=torch.long)
    steps = [[TrainingRow(ids, ids, ids) for _ in fresh]]
    for batch, advantages in ((1, torch.tensor([[0.75, 0.0], [-0.75, 0.0]])), (2, torch.tensor([0.75, -0.75]))):
        keeper.begin(batch, step=0)
        keeper.mark(steps, [[0, 1]], fresh, advantages, 2)
        keeper.flush()
    two, one, *episode = lines(tmp_path)
    assert two["turns"] == [
        {"start": 0, "reward": 0.5, "advantage": 0.75},
        {"start": 2, "reward": 1.0, "advantage": 0.0},
    ]
    assert (two["advantage"], one["advantage"], one["turns"]) == (0.75, -0.75, None)
    assert [turn["advantage"] for turn in episode[0]["turns"]] == [0.75, 0.75]


def test_a_disk_that_is_full_is_said_once(tmp_path, caplog):
    keeper = recorder(tmp_path / "missing")
    for batch in (1, 2):
        keeper.begin(batch, step=0)
        keeper.add_dropped(rollout())
    keeper.flush()
    assert caplog.text.count("cannot be written") == 1


@pytest.mark.parametrize("text", ["a b", "Größe 漢字 🙂!", "\x00\n\x1b[31m", "‮abc"])
@pytest.mark.parametrize("kind", ["bytes", "shipped"])
def test_pieces_say_what_the_tokens_say(kind, text):
    from transformers import AutoTokenizer

    tokenizer = byte_tokenizer() if kind == "bytes" else AutoTokenizer.from_pretrained(ROOT / "models/arithmetic-0.8m")
    ids = tokenizer(text)["input_ids"]
    found = pieces(tokenizer, ids)
    assert len(found) == len(ids) and "".join(found) == tokenizer.decode(ids)


def test_a_torn_character_stands_alone():
    ids = byte_tokenizer()("🙂")["input_ids"]
    assert pieces(byte_tokenizer(), ids[:2]) == ["�", ""]
    assert pieces(byte_tokenizer(), []) == []


def test_shortened():
    assert shortened("abc", 3) == "abc" and shortened(None, 3) is None
    assert shortened("abcdefgh", 4) == "ab\n[... 4 characters left out ...]\ngh"
