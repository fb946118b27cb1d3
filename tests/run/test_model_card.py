"""The model card beside saved weights: facts of the run, loadable metadata, no secrets."""

from __future__ import annotations

import sys

import pytest
import yaml
from huggingface_hub import ModelCard

from dapo_trl.run.model_card import CardFacts, facts_of, how_to_use, model_card, write_card
from dapo_trl.run.settings import RunConfig

FOUND = {"accuracy": 0.71234, "interval_95": [0.65, 0.77], "problems": 100, "samples": 8}


def facts(**changes) -> CardFacts:
    given = {"base": "Qwen/Qwen2.5-0.5B", "env": "math/GSM8K-v0", "env_kwargs": {"split": "train"}, "adapter": False}
    return CardFacts(**{**given, "asked": {"learning_rate": 1e-6}, "command": "dapo-trl train", **changes})


def test_metadata_name_the_base_and_the_measured_accuracy():
    card = model_card(facts(measured={"before": {**FOUND, "accuracy": 0.5}, "after": FOUND}), 120)
    (result,) = card.data.eval_results
    assert card.data.base_model == "Qwen/Qwen2.5-0.5B" and card.data.library_name == "transformers"
    assert (result.dataset_name, result.metric_value) == ("math/GSM8K-v0", 0.7123)
    assert "0.650 to 0.770" in result.metric_name
    assert "| before training | 0.500 |" in card.text and "| after training | 0.712 |" in card.text
    assert "by 120 optimizer steps" in card.text


def test_without_a_measurement_nothing_is_claimed():
    card = model_card(facts(), 3)
    assert card.data.eval_results is None and "accuracy" not in card.text


def test_a_local_base_shows_no_path(tmp_path):
    folder = tmp_path / "private" / "my-model"
    folder.mkdir(parents=True)
    text = str(model_card(facts(base=str(folder)), 1))
    assert "my-model" in text and "private" not in text


def test_settings_are_those_that_were_given_and_can_be_used_again():
    text = model_card(facts(asked={"learning_rate": 1e-6, "env_kwargs": {"levels": [1]}}), 1).text
    assert yaml.safe_load(text.split("```yaml\n")[1].split("```")[0]) == {
        "learning_rate": 1e-6,
        "env_kwargs": {"levels": [1]},
    }


@pytest.mark.parametrize("flags", [["--hub_token", "hf_secret"], ["--hub_token=hf_secret"]])
def test_a_token_is_not_published(monkeypatch, flags):
    monkeypatch.setattr(sys, "argv", ["/home/me/dapo-trl", "train", "--model", "m", *flags])
    made = facts_of(RunConfig(model="m", env="math/Arithmetic-v0"), {"model": "m", "hub_token": "hf_secret"})
    assert "hf_secret" not in str(model_card(made, 1)) and "dapo-trl train --model m" in made.command


def test_an_adapter_is_named_as_one(tmp_path):
    write_card(facts(adapter=True), tmp_path, 5)
    assert ModelCard.load(tmp_path / "README.md").data.library_name == "peft"
    lines = "\n".join(how_to_use(facts(adapter=True), tmp_path))
    assert f"--lora-modules trained={tmp_path}" in lines and "dapo-trl merge" in lines
