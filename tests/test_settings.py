"""Configuration files and models that come with the project are found by name from any folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from dapo_trl.cli.main import main
from dapo_trl.settings import accelerate_files, config_files, find_config, find_model, read_yaml

from .conftest import ROOT


def test_no_two_shipped_files_have_the_same_name():
    names = [path.name for path in config_files()]
    assert len(set(names)) == len(names) > 20


@pytest.mark.parametrize("name", ["gsm8k", "gsm8k.yaml", "task/gsm8k", "configs/task/gsm8k.yaml"])
def test_a_shipped_file_is_found_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == ROOT / "configs/task/gsm8k.yaml"
    assert find_config("qwen2.5-32b-paper") == ROOT / "configs/qwen2.5-32b-paper.yaml"


def test_a_file_at_hand_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("gsm8k.yaml").write_text("env: math/Problem-v0\n")
    assert find_config("gsm8k.yaml") == Path("gsm8k.yaml")


@pytest.mark.parametrize(
    "name", ["gsm", "8k", "", "..", "configs", "task", "hardware/gsm8k", "/configs/task/gsm8k.yaml", "ddp"]
)
def test_any_other_name_is_a_path(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == Path(name)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("models/arithmetic-0.8m", "models/arithmetic-0.8m"),
        ("arithmetic-0.8m", "models/arithmetic-0.8m"),
        ("configs/models/qwen2.5-7b.json", "configs/models/qwen2.5-7b.json"),
        ("qwen2.5-7b.json", "configs/models/qwen2.5-7b.json"),
    ],
)
def test_a_shipped_model_is_found_from_any_folder(name, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_model(name) == str(ROOT / place)


@pytest.mark.parametrize(
    "name", [None, "", ".", "..", "Qwen/Qwen2.5-7B", "models", "other/arithmetic-0.8m", "quickstart.json"]
)
def test_any_other_model_is_as_it_was_named(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_model(name) == name


def test_a_model_at_hand_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("arithmetic-0.8m").mkdir()
    assert find_model("arithmetic-0.8m") == "arithmetic-0.8m"


def test_a_flag_of_a_hundred_thousand_brackets_is_one_short_line(capsys):
    assert main(["train", "--config", "quickstart", "--env_kwargs", "[" * 100_000]) == 2
    error = capsys.readouterr().err
    assert "(100,002 characters) is not valid YAML: more than 50 lists" in error
    assert error.count("\n") == 1 and len(error) < 400


@pytest.mark.parametrize(
    "text", ["!!bool maybe", "!!timestamp x", "!!int ''", "9" * 5000, "{[1]: 2}", "!!python/name:os.system"]
)
def test_whatever_the_constructors_raise_is_a_yaml_error(text):
    with pytest.raises(yaml.YAMLError):
        read_yaml(text)


def test_aliases_of_a_usual_file_are_read():
    text = "a: &a {x: 1}\nb: *a\nc: {<<: *a, y: [*a, *a]}\n"
    assert read_yaml(text) == yaml.safe_load(text)


def test_a_file_for_accelerate_is_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [find_config(name, among=accelerate_files()) for name in ("fsdp2", "configs/accelerate/fsdp2.yaml")] == [
        ROOT / "configs/accelerate/fsdp2.yaml"
    ] * 2


def test_the_list_has_a_line_of_one_sentence_for_each_file(capsys):
    assert main(["configs"]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert [name for name, _ in lines] == [path.stem for path in config_files()]
    assert all(20 < len(text) < 160 and "--" not in text and not text.endswith("eq") for _, text in lines)
