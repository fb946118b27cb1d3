"""`dapo-trl eval`, mostly in this process; with two processes as people run it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet
import pytest
import torch
import yaml
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from dapo_trl.cli.main import main
from dapo_trl.errors import ConfigError
from dapo_trl.evaluation import Sampling
from dapo_trl.evaluation.journal import Journal
from dapo_trl.evaluation.loading import fingerprint
from dapo_trl.evaluation.settings import load_eval_settings
from dapo_trl.run.settings import OWNERS

from ..conftest import ROOT, SHIPPED_MODEL
from ..support.warm_start import CPU_2

SUMS = "math/Arithmetic-v0: {levels: [1, 3], split: test}"
SMALL = ["--model", str(SHIPPED_MODEL), "--problems", "6", "--max_completion_length", "48", "--use_cpu", "true"]


def arguments(folder: Path, *more: str, env: str = SUMS, k: int = 3) -> list[str]:
    return ["eval", *SMALL, "--env", env, "--k", str(k), "--output_dir", str(folder), *more]


def rows(folder: Path) -> list[dict]:
    return pyarrow.parquet.read_table(folder / "samples.parquet").to_pylist()


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    """A complete evaluation; nobody changes it."""
    folder = tmp_path_factory.mktemp("measured")
    assert main(arguments(folder)) == 0
    return folder


@pytest.fixture
def copied(measured, tmp_path) -> Path:
    return Path(shutil.copytree(measured, tmp_path / "copied"))


def test_an_evaluation_leaves_a_table_figures_and_every_sample(measured, tmp_path, capsys):
    folder = tmp_path / "again"
    assert main(arguments(folder)) == 0
    told = capsys.readouterr().out
    assert "6 problems x 3 samples, temperature 1, top_p 1, at most 48 tokens, seed 42" in told
    for heading in ("avg@3", "pass@k", "maj@k", "95 % interval", "level", "verdict", "truncated", "length"):
        assert heading in told
    results = json.loads((folder / "results.json").read_text())
    (found,) = results["environments"]
    assert found["env_kwargs"] == {"levels": [1, 3], "split": "test"} and found["spec"]["id"] == "math/Arithmetic-v0"
    assert found["problems"] == 6 and found["samples"] == 3 and results["weights"]
    samples = rows(folder)
    assert samples == rows(measured)  # the same request gives the same samples
    assert [(row["index"], row["number"]) for row in samples] == [(i, n) for i in range(6) for n in range(3)]
    assert sum(row["accuracy"] for row in samples) / 18 == pytest.approx(found["accuracy"])
    assert all(row["prompt"].startswith("Compute") and row["level"] in "13" for row in samples)
    assert all(row["answer"] in row["completion"] for row in samples if row["verdict"] == "correct")


def test_an_interrupted_one_goes_on_and_ends_in_the_same_samples(measured, tmp_path, capsys, monkeypatch):
    """Stopped after two batches, its last line torn, then finished in batches of another size."""
    append, calls = Journal.append, []

    def stop_after_two(self, *batch):
        append(self, *batch)
        calls.append(batch)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "append", stop_after_two)
        assert main(arguments(tmp_path, "--batch_tokens", "300")) == 130
    assert f"are in {tmp_path}: the same command continues from there" in capsys.readouterr().out
    lines = tmp_path / "samples-0.jsonl"
    text = lines.read_text()
    lines.write_text(text[: len(text) - 30])
    kept = sum(line.startswith("{") and line.endswith("}") for line in lines.read_text().splitlines())
    assert 0 < kept < 18
    assert main(arguments(tmp_path)) == 0
    assert f"{kept} of 18 samples are there already" in capsys.readouterr().out
    assert rows(tmp_path) == rows(measured)


def test_more_samples_and_problems_may_be_asked_for_later(copied, measured):
    assert main(arguments(copied, "--problems", "7", k=4)) == 0
    assert len(rows(copied)) == 28 and [row for row in rows(copied) if row in rows(measured)] == rows(measured)
    assert main(arguments(copied, k=2)) == 0 and len(rows(copied)) == 12


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["--temperature", "0.5", "--seed", "1"],
            "temperature 1.0, now 0.5; seed 42, now 1: choose another --output_d",
        ),
        (
            ["--env", "math/Chain-v0: {split: test}"],
            "now \"math/Arithmetic-v0(levels=[1, 3], split='test'), math/Chain",
        ),
        (["--dtype", "bfloat16"], "weights"),
    ],
)
def test_another_request_does_not_go_into_the_same_folder(copied, capsys, more, message):
    assert main(arguments(copied, *more)) == 2
    error = capsys.readouterr().err
    assert message in error and "--overwrite true" in error and error.count("\n") == 1


def test_another_prompt_is_another_evaluation(measured, copied, tmp_path, capsys):
    asked = ["--prompt_template", "{question} "]
    assert main(arguments(copied, *asked)) == 2 and "additional_wrappers" in capsys.readouterr().err
    other = tmp_path / "other"
    assert main(arguments(other, *asked, k=1)) == 0
    (found,) = json.loads((other / "results.json").read_text())["environments"]
    assert found["spec"]["additional_wrappers"][0]["kwargs"]["prompt_template"] == "{question} "
    assert {row["prompt"] for row in rows(other)} == {row["prompt"] for row in rows(measured)}, "the question alone"
    capsys.readouterr()
    assert main(["eval", "--compare", str(measured), str(other)]) == 2
    assert "math/Arithmetic-v0 is not the same environment in both: additional_wrappers" in capsys.readouterr().err


def test_examples_that_leave_no_room_are_named_with_their_tokens(tmp_path, capsys):
    assert main(arguments(tmp_path / "run", "--few_shot", "20")) == 2
    error = capsys.readouterr().err
    assert re.search(r"prompt of \d{4} tokens \(\d{4} of them few_shot examples: show fewer\) \+ max_compl", error)


@pytest.mark.parametrize(
    ("settings", "flags", "source"),
    [
        ({"eval_env_kwargs": {"split": "test"}}, [], {"levels": [2], "split": "train"}),
        ({}, ["--env", "math/Arithmetic-v0: {levels: [3], split: test}"], {"levels": [3]}),
        (
            {"env": ["math/Arithmetic-v0", "math/Countdown-v0"], "eval_env_kwargs": {"split": "test"}},
            [],
            {"levels": [2], "split": "train"},
        ),
        (
            {
                "env": [{"id": "math/Arithmetic-v0", "kwargs": {"levels": [4]}, "wrappers": ["FormatReward"]}],
                "eval_env": "math/Chain-v0",
                "eval_env_kwargs": {"split": "test"},
            },
            [],
            {"levels": [4], "split": "train"},
        ),
    ],
)
def test_a_number_of_examples_draws_from_the_rows_of_training(tmp_path, settings, flags, source):
    trained = {
        "model": str(SHIPPED_MODEL),
        "env": "math/Arithmetic-v0",
        "env_kwargs": {"levels": [2], "split": "train"},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**trained, **settings}))
    config = load_eval_settings([tmp_path / "config.yaml"], [*flags, "--few_shot", "2"], training=OWNERS)
    (name, arguments), *_ = config.environments()
    if "eval_env" in settings:
        measured = {**source, "split": "test"}
        assert (name, arguments, config.wrappers(0)) == ("math/Chain-v0", measured, ["FormatReward"])
    assert config.few_shot == 2 and arguments["split"] == "test"
    assert config.source_of_examples(0, name, arguments) == ("math/Arithmetic-v0", source)


def test_overwrite_starts_anew_and_touches_nothing_else(copied):
    (copied / "notes.txt").write_text("mine")
    assert main(arguments(copied, "--temperature", "0", "--overwrite", "true", k=1)) == 0
    assert len(rows(copied)) == 6 and (copied / "notes.txt").read_text() == "mine"
    assert (copied / "samples-0.jsonl").read_text().count("{") == 6


def test_a_problem_that_has_changed_is_noticed(copied, capsys):
    lines = [json.loads(line) for line in (copied / "samples-0.jsonl").read_text().splitlines() if line]
    lines[3]["problem"] = "0" * 16
    (copied / "samples-0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(arguments(copied)) == 2
    assert f"problem {lines[3]['index']} reads differently now" in capsys.readouterr().err


def test_what_could_not_be_scored_is_tried_again(copied, measured):
    lines = [json.loads(line) for line in (copied / "samples-0.jsonl").read_text().splitlines() if line]
    lines[3] |= {"accuracy": None, "verdict": "infra_failure"}
    (copied / "samples-0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(arguments(copied)) == 0 and rows(copied) == rows(measured)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> Path:
    """A LoRA adapter that changes what the shipped model says, saved without a tokenizer."""
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(SHIPPED_MODEL)
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    model.peft_config["default"].base_model_name_or_path = str(SHIPPED_MODEL)
    model.save_pretrained(folder := tmp_path_factory.mktemp("adapter"))
    return folder


def test_an_adapter_is_measured_on_its_base_model(adapter, measured, tmp_path):
    given = arguments(tmp_path / "as-adapter", "--adapter", str(adapter), k=1)
    assert main(given) == 0
    as_model = arguments(tmp_path / "as-model", "--model", str(adapter), k=1)
    assert main(as_model) == 0
    assert rows(tmp_path / "as-adapter") == rows(tmp_path / "as-model")
    results = json.loads((tmp_path / "as-adapter" / "results.json").read_text())
    assert results["weights"] != json.loads((measured / "results.json").read_text())["weights"]
    base = AutoModelForCausalLM.from_pretrained(SHIPPED_MODEL)
    assert results["weights"] == fingerprint(PeftModel.from_pretrained(base, adapter))


def test_adapters_that_cannot_be_used(adapter, tmp_path, capsys):
    lost = Path(shutil.copytree(adapter, tmp_path / "lost"))
    config = json.loads((lost / "adapter_config.json").read_text())
    (lost / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(tmp_path / "gone")}))
    other = Path(shutil.copytree(adapter, tmp_path / "other"))
    (other / "adapter_config.json").write_text(json.dumps({**config, "r": 3}))
    for more, message in (
        (["--model", str(lost)], f"an adapter of {tmp_path / 'gone'}, where there is no model: --model BASE --adapter"),
        (["--adapter", str(tmp_path)], "the folder holds no adapter_config.json, so it is not a saved adapter"),
        (["--adapter", str(other)], f"adapter is '{other}' and does not fit model"),
        (["--model", str(adapter), "--adapter", str(adapter)], "name the base model"),
    ):
        assert main(arguments(tmp_path / "out", *more)) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_several_environments_from_a_training_file(tmp_path, capsys):
    file = tmp_path / "both.yaml"
    environments = [{"math/Arithmetic-v0": {"levels": 1}}, {"math/Arithmetic-v0": {"levels": 2}}, "math/Chain-v0"]
    settings = {"env": environments, "env_kwargs": {"split": "test"}, "eval_problems": 3, "eval_samples": 2}
    file.write_text(
        yaml.safe_dump({**settings, "learning_rate": 1e-4, "output_dir": "runs/training", "overwrite": True})
    )
    folder = tmp_path / "out"
    flags = ["--model", str(SHIPPED_MODEL), "--max_completion_length", "20", "--use_cpu", "true"]
    assert main(["eval", "--config", str(file), *flags, "--output_dir", str(folder)]) == 0
    results = json.loads((folder / "results.json").read_text())["environments"]
    assert [found["env_kwargs"] for found in results] == [
        {"split": "test", "levels": 1},
        {"split": "test", "levels": 2},
        {"split": "test"},
    ]
    assert [row["env"] for row in rows(folder)] == [0] * 6 + [1] * 6 + [2] * 6
    told = capsys.readouterr().out
    assert "environment" in told and "were cut off at 20 tokens" in told and "no split was asked for" not in told


class TestSettings:
    def test_a_training_file_names_the_held_out_environment(self):
        config = load_eval_settings([ROOT / "configs/task/dapo17k.yaml"], ["--model", "m"], training=OWNERS)
        assert config.environments() == [("math/AIME2024-v0", {"wrong_reward": -1.0})]
        assert (config.eval_samples, config.eval_top_p, config.max_completion_length) == (32, 0.7, 20480)
        config = load_eval_settings(
            [ROOT / "configs/task/math.yaml"], ["--model=m", "--k=5", "--top-p", "0.9"], training=OWNERS
        )
        assert config.environments() == [("math/MATH-v0", {"split": "test"})]
        assert (config.eval_samples, config.sampling) == (5, Sampling(1.0, 0.9, 2048, 42))

    def test_an_environment_on_the_command_line_stands_for_itself(self):
        flags = ["--model", "m", "--env", "a/B-v0", "--env", "c/D-v0: {x: 1}", "--env_kwargs", "{y: 2}"]
        config = load_eval_settings([ROOT / "configs/task/dapo17k.yaml"], flags, training=OWNERS)
        assert config.environments() == [("a/B-v0", {"y": 2}), ("c/D-v0", {"y": 2, "x": 1})]

    def test_the_mixture_of_a_training_run_is_measured_environment_by_environment(self, tmp_path):
        own = "{id: math/MATH-v0, weight: 2, kwargs: {x: 1, split: train}, eval_kwargs: {split: test}, wrappers: []}"
        text = f"model: m\nenv_wrappers: [RepetitionPenalty]\nenv: [{own}, {{id: math/Chain-v0, name: chain}}]\n"
        (tmp_path / "run.yaml").write_text(text + "env_kwargs: {y: 2}\neval_env_kwargs: {z: 3}\n")
        config = load_eval_settings([tmp_path / "run.yaml"], training=OWNERS)
        expected = [("math/MATH-v0", {"y": 2, "x": 1, "split": "test", "z": 3}), ("math/Chain-v0", {"y": 2, "z": 3})]
        assert config.environments() == expected
        assert [config.wrappers(place) for place in (0, 1)] == [[], ["RepetitionPenalty"]]
        trained = {"y": 2, "x": 1, "split": "train"}
        assert config.source_of_examples(0, *expected[0]) == ("math/MATH-v0", trained), "as in training"
        (tmp_path / "twice.yaml").write_text("model: m\nenv: [{id: a/B-v0, name: x}, {id: a/B-v0, name: y}]\n")
        config = load_eval_settings([tmp_path / "twice.yaml"], training=OWNERS)
        assert config.environments() == [("a/B-v0", {})] * 2, "one environment under two names, as in training"
        with pytest.raises(ConfigError, match="env names a/B-v0 twice"):
            load_eval_settings([], ["--model", "m", "--env", "[{id: a/B-v0}, a/B-v0]"], training=OWNERS)
        flags = ["--model", "m", "--env", f"[{own}, a/B-v0]", "--env", "c/D-v0"]
        config = load_eval_settings([], flags, training=OWNERS)
        assert [name for name, _ in config.environments()] == ["math/MATH-v0", "a/B-v0", "c/D-v0"]

    @pytest.mark.parametrize(
        ("flags", "folder"),
        [
            ([], "runs/eval/models--m--e"),
            (["--env", "my_pkg:my/T-v0", "--env", "e: {a: 1}"], "runs/eval/models--m--e--my_pkg--my--T-v0"),
            (["--adapter", "/a/b"], "runs/eval/models--m--a--b--e"),
            (["--output_dir=x"], "x"),
        ],
    )
    def test_the_folder_is_named_after_model_and_environment(self, flags, folder):
        assert load_eval_settings([], ["--model", "./models/m", "--env", "e", *flags], training=OWNERS).folder == Path(
            folder
        )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--model", "models/arithmetic-08m"], "Did you mean models/arithmetic-0.8m?"),
        (["--model", "tests"], "the folder holds no config.json, so it is not a saved model"),
        (["--model", "no/such"], "model is 'no/such' and cannot be loaded"),
        (["--env", "math/Aritmetic-v0"], "Did you mean math/Arithmetic-v0"),
        (["--env", "math/Chain-v0: 3"], "it must be the name of an environment, or one name with its arguments"),
        (["--env", "math/Arithmetic-v0: {levels: 99}"], "cannot be made with levels=99"),
        (["--env", SUMS], "twice with the same arguments"),
        (["--env", "math/Problem-v0: {rows: [{prompt: a, answer: 2}]}"], "problems is 6, but math/Problem-v0 has 1"),
        (["--k", "0"], "k is 0: it must be from 1 to 1024"),
        (["--temperature", "0"], "Set k to 1, or a temperature above 0"),
        (["--batch_tokens", "0"], "batch_tokens is 0 (int): it must be a whole number, 1 or more"),
        (["--dtype", "int3"], "dtype is 'int3' (str): it must be one of auto, float32"),
        (["--learning_rate", "1"], "--learning_rate is a setting of training"),
        (["--topp", "1"], "there is no setting named 'topp'. Did you mean"),
        (["--output_dir", "README.md"], "output_dir README.md is a file"),
        (["--compare", "a", "b"], "--compare takes two folders and nothing else"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path, capsys, monkeypatch, more, message):
    monkeypatch.chdir(ROOT)
    assert main(arguments(tmp_path / "out", *more)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("given", "missing"), [(["--env", "e"], "model"), (["--model", "m"], "env")])
def test_what_must_be_given_is_named(capsys, given, missing):
    assert main(["eval", *given]) == 2 and f"{missing} is not set" in capsys.readouterr().err


def test_a_folder_of_something_else_is_never_written_over(tmp_path, capsys):
    (tmp_path / "results.json").write_text("mine")
    for more in ([], ["--overwrite", "true"]):
        assert main(arguments(tmp_path, *more)) == 2
        assert "holds results.json and no request.json" in capsys.readouterr().err
    (tmp_path / "request.json").write_text("{")
    assert main(arguments(tmp_path)) == 2 and "request.json is damaged" in capsys.readouterr().err


class TestCompare:
    def test_the_difference_is_shown_problem_by_problem(self, measured, tmp_path, capsys):
        assert main(arguments(tmp_path / "b", "--temperature", "1.5", "--top_p", "0.9", "--problems", "5", k=2)) == 0
        capsys.readouterr()
        assert main(["eval", "--compare", str(measured), str(tmp_path / "b")]) == 0
        told = capsys.readouterr().out
        assert "temperature 1.0 and 1.5, top_p 1.0 and 0.9" in told and "5 problems" in told
        assert "Both were sampled with max_completion_length 48." in told
        assert (
            "avg@3 and 2" in told and "pass@2" in told and "maj@2" in told and "pass@4" not in told and "B - A" in told
        )

    def test_a_model_does_not_differ_from_itself(self, measured, capsys):
        assert main(["eval", "--compare", str(measured), str(measured)]) == 0
        told = " ".join(capsys.readouterr().out.split())
        assert "+0.000 -0.459 to +0.459" in told and "is better" not in told

    @pytest.mark.parametrize(
        ("env", "message"),
        [
            ("math/Arithmetic-v0: {levels: [1, 3]}", 'is not the same environment in both: split "test" in'),
            ("math/Chain-v0: {levels: 2}", "there is nothing in common to compare"),
        ],
    )
    def test_different_problems_are_refused(self, measured, tmp_path, capsys, env, message):
        assert main(arguments(tmp_path / "b", env=env, k=1)) == 0
        assert main(["eval", "--compare", str(measured), str(tmp_path / "b")]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1

    def test_other_data_under_the_same_name_are_refused(self, measured, copied, capsys):
        table = pyarrow.parquet.read_table(copied / "samples.parquet")
        changed = [{**row, "prompt": row["prompt"].replace("Compute", "Work out")} for row in table.to_pylist()]
        pyarrow.parquet.write_table(table.from_pylist(changed, schema=table.schema), copied / "samples.parquet")
        assert main(["eval", "--compare", str(measured), str(copied)]) == 2
        assert "problem 0 reads differently in" in capsys.readouterr().err

    def test_what_is_not_complete_is_refused(self, copied, measured, capsys):
        (copied / "results.json").unlink()
        for folder, message in ((copied, "holds no results.json"), (copied / "gone", "there is no such folder")):
            assert main(["eval", "--compare", str(measured), str(folder)]) == 2
            assert message in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_draw_the_same_samples(warm_start, measured, tmp_path):
    done = warm_start.run("dapo_trl", *arguments(tmp_path), accelerate=CPU_2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("results: ") == 1 and {path.name for path in tmp_path.glob("*.jsonl")} == {
        "samples-0.jsonl",
        "samples-1.jsonl",
    }
    assert rows(tmp_path) == rows(measured)


def test_help_does_not_wait_for_torch():
    code = "import sys; from dapo_trl.cli.main import main\ntry: main(['eval', '--help'])\nexcept SystemExit: pass\n"
    done = subprocess.run(
        [sys.executable, "-c", code + "assert 'torch' not in sys.modules"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0 and "--compare A B" in done.stdout, done.stderr


def test_the_tokenizer_of_an_adapter_is_its_own(adapter, tmp_path):
    from dapo_trl.evaluation.loading import load

    folder = Path(shutil.copytree(adapter, tmp_path / "own"))
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED_MODEL)
    tokenizer.chat_template = "{{ messages[0].content }}"
    tokenizer.save_pretrained(folder)
    _, found = load(str(SHIPPED_MODEL), str(folder), dtype="float32", device=torch.device("cpu"))
    assert found.chat_template == tokenizer.chat_template
