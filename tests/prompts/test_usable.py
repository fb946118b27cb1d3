"""Prompts that cannot be trained on: found before the first step in finite data, passed over in endless data."""

from __future__ import annotations

import logging

import pytest
from datasets import Dataset, IterableDataset
from transformers import AutoTokenizer

from dapo_trl import DAPOTrainer
from dapo_trl.errors import ConfigError, RewardError
from dapo_trl.prompts import usable
from dapo_trl.prompts.stream import PromptStream, prompt_stream
from dapo_trl.prompts.usable import PromptCheck, usable_prompts
from envs import TaskEnv

from ..support.recorded import config

LONG = "a" * 600
"""Longer than the tiny model's context of 512 bytes."""
FEW = {"per_device_train_batch_size": 4, "group_filter": "none", "max_completion_length": 8}


def vowels(completions, **_):
    return [float("a" in str(text)) for text in completions]


def run(model, folder, data, reward=vowels, tokenizer=None, train=True, **changes):
    made = DAPOTrainer(
        model,
        reward,
        config(folder, **{**FEW, "max_steps": 3, **changes}),
        Dataset.from_dict(data) if isinstance(data, dict) else data,
        processing_class=tokenizer,
    )
    if train:
        made.train()
    return made


def check(**changes) -> PromptCheck:
    """A token for each letter, 26 of them; 10 tokens of context are for the prompt."""
    settings = {"completion": 10, "context": 20, "vocabulary": 26, "embeddings": 26}
    return PromptCheck(lambda prompt: [ord(letter) - ord("a") for letter in prompt], **settings | changes)


class TestFiniteData:
    def test_long_prompts_are_left_out_and_counted_before_the_first_step(self, tiny_model, tmp_path, caplog):
        made = run(tiny_model, tmp_path, {"prompt": ["a", LONG, "b", LONG]}, train=False)
        assert (
            "2 of 4 prompts are left out (on_long_prompt is 'skip'): the prompt of row 1 has 600 tokens: with "
            "max_completion_length 8 that is 608, and the model's context holds 512; " in caplog.text
        )
        assert made.sampling.sources[0].stream.size == 2
        assert {made.sampling.sources[0].stream.row(i)["prompt"] for i in range(4)} == {"a", "b"}

    def test_a_run_goes_on_to_its_end_and_is_resumed(self, tiny_model, tmp_path):
        data = {"prompt": ["a", LONG, "b"]}
        run(tiny_model, tmp_path, data, save_strategy="steps", save_steps=1, max_steps=2)
        again = run(tiny_model, tmp_path, data, train=False)
        again.train(resume_from_checkpoint=True)
        assert again.state.global_step == 3 and again.sampling.sources[0].stream.position == 3

    def test_or_refused(self, tiny_model, tmp_path):
        with pytest.raises(ConfigError, match="the prompt of row 1 has 600 tokens"):
            run(tiny_model, tmp_path, {"prompt": ["a", LONG]}, on_long_prompt="raise", train=False)
        with pytest.raises(ConfigError, match="all 2 prompts are too long: the prompt of row 0 has 600 tokens"):
            run(tiny_model, tmp_path, {"prompt": [LONG, LONG]}, train=False)

    def test_the_rows_of_a_finite_environment(self, tiny_chat_model, tmp_path):
        class Repeat(TaskEnv):
            num_rows = 3

            def row(self, index):
                return {"prompt": LONG * 8 if index == 1 else "b", "answer": "b"}

            def verify(self, row, completion):
                return completion == "b"

        made = DAPOTrainer(tiny_chat_model, args=config(tmp_path, **FEW), env=Repeat())
        assert made.sampling.sources[0].stream.size == 2 and {
            made.sampling.sources[0].stream.row(i)["index"] for i in range(2)
        } == {0, 2}

    def test_large_data_are_checked_as_they_are_drawn(self, monkeypatch):
        monkeypatch.setattr(usable, "MAX_LOOKED_THROUGH", 3)
        stream = prompt_stream(Dataset.from_dict({"prompt": ["a", "b" * 11, "c", "d"]}), seed=0, shuffle=False)
        usable_prompts(stream, check(), skip=True, finite=True, warn=print)
        assert [stream.usable(i) for i in range(4)] == [True, False, True, True]

    @pytest.mark.parametrize(
        ("prompts", "message"),
        [
            (["a", ""], "the prompt of row 1 is empty"),
            (["a", None], r"the prompt of row 1 is None \(NoneType\): it must be text or a list of chat messages"),
            ([[], []], "the prompt of row 0 is empty"),
        ],
    )
    def test_no_prompt_at_all(self, tiny_model, tmp_path, prompts, message):
        with pytest.raises(ConfigError, match=message):
            run(tiny_model, tmp_path, {"prompt": prompts}, train=False)

    def test_a_token_without_an_embedding(self, tiny_model, tmp_path):
        tokenizer = AutoTokenizer.from_pretrained(tiny_model)
        tokenizer.add_special_tokens({"additional_special_tokens": ["<new>"]})
        with pytest.raises(ConfigError, match=r"row 1 holds the token \d+, and the model has embeddings for"):
            run(tiny_model, tmp_path, {"prompt": ["a", "<new> a"]}, tokenizer=tokenizer, train=False)


class TestEndlessData:
    def test_long_prompts_are_passed_over_with_one_line(self, tiny_model, tmp_path, caplog):
        rows = [{"prompt": LONG if i % 2 else f"{i}"} for i in range(40)]
        data = IterableDataset.from_generator(lambda: iter(rows))
        with caplog.at_level(logging.WARNING):
            made = run(tiny_model, tmp_path, data, max_steps=4, shuffle_dataset=False)
        assert made.state.global_step == 4 and made.sampling.sources[0].stream.position == 2 * 4 - 1
        assert caplog.text.count("has 600 tokens") == 1 and "prompt 1 of the stream has 600 tokens" in caplog.text

    def test_where_none_fits_the_run_ends(self):
        stream = PromptStream({i: {"prompt": "a" * 11} for i in range(2000)}, size=None)
        usable_prompts(stream, check(), skip=True, finite=True, warn=print)
        with pytest.raises(ConfigError, match="prompt 1000 of the stream has 11 tokens"):
            for position in range(2000):
                stream.usable(position)

    def test_or_the_first_one_ends_it(self):
        stream = PromptStream({0: {"prompt": "a" * 11}}, size=None)
        usable_prompts(stream, check(), skip=False, finite=True, warn=print)
        with pytest.raises(ConfigError, match="prompt 0 of the stream has 11 tokens"):
            stream.usable(0)


def test_short_prompts_are_not_tokenized():
    def refuse(prompt):
        raise AssertionError("tokenized")

    roomy = PromptCheck(refuse, completion=10, context=2000, vocabulary=26, embeddings=26)
    assert roomy.fault("a" * 900) is None
    with pytest.raises(AssertionError, match="tokenized"):
        roomy.fault("a" * 1000)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"question": ["a"]}, r"train_dataset has no column 'prompt' \(columns: question\): rename"),
        ({"prompt": []}, "train_dataset has no rows"),
        ({"prompt": ["a"], "prompts": ["b"]}, "train_dataset has a column 'prompts': reward functions get their own"),
        ({"prompt": ["a"], "completions": ["b"]}, "train_dataset has a column 'completions'"),
    ],
)
def test_columns(tiny_model, tmp_path, data, message):
    with pytest.raises(ConfigError, match=message):
        run(tiny_model, tmp_path, data, train=False)
    with pytest.raises(ConfigError, match=message.replace("train_dataset", r"eval_dataset\['hard'\]")):
        usable.check_columns({"eval_dataset": {"hard": Dataset.from_dict(data)}, "train_dataset": None})


def test_a_tokenizer_that_cannot_end_or_pad(tiny_model, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.eos_token = None
    with pytest.raises(ConfigError, match=r"the tokenizer has no end token.*set tokenizer.eos_token"):
        run(tiny_model, tmp_path, {"prompt": ["a"]}, tokenizer=tokenizer, train=False)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_special_tokens({"pad_token": "<new>"})
    with pytest.raises(ConfigError, match="the tokenizer pads with '<new>', token"):
        run(tiny_model, tmp_path, {"prompt": ["a"]}, tokenizer=tokenizer, train=False)


def test_a_reward_function_that_asks_for_a_missing_column(tiny_model, tmp_path):
    def exact(completions, answer, **_):
        return [float(text == right) for text, right in zip(completions, answer, strict=True)]

    with pytest.raises(RewardError, match="'exact' cannot be called: missing a required argument: 'answer'"):
        run(tiny_model, tmp_path, {"prompt": ["a"], "solution": ["b"]}, exact)
