"""Configuration files and flags: merged, converted, and refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from dapo_trl.errors import ConfigError
from dapo_trl.run.settings import load_settings

from ..conftest import ROOT

BASE = ["--model", "m", "--env", "math/Arithmetic-v0", "--use_cpu", "true"]


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_files_merge_from_left_to_right_and_flags_win(tmp_path):
    one = write(
        tmp_path,
        "one.yaml",
        "model: a\nenv: math/Arithmetic-v0\nlearning_rate: 1e-3\nbeta: 0.5\nuse_cpu: true",
    )
    two = write(tmp_path, "two.yaml", "model: b\nbeta: 0.25")
    run, args, _ = load_settings([one, two], ["--beta", "0.125", "--num-generations=4"])
    assert (run.model, args.learning_rate, args.beta, args.num_generations) == ("b", 1e-3, 0.125, 4)


def test_flags_are_read_as_yaml():
    run, args, _ = load_settings(
        [],
        [
            *BASE,
            "--env_kwargs",
            "{levels: [1, 2], wrong_reward: -1}",
            "--overwrite",
            "--seed",
            "7",
            "--beta=1e-2",
        ],
    )
    assert run.env_kwargs == {"levels": [1, 2], "wrong_reward": -1} and run.overwrite is True
    assert (args.seed, args.beta) == (7, 0.01)


def test_what_was_asked_for_can_be_read_back(tmp_path):
    _, _, asked = load_settings([], [*BASE, "--steps_per_generation", "4", "--env_kwargs", "{levels: [1]}"])
    again = write(tmp_path, "config.yaml", yaml.safe_dump(asked))
    assert load_settings([again])[2] == asked and load_settings([again])[1].steps_per_generation == 4


def test_words_that_yaml_takes_for_something_else_stay_words(tmp_path):
    flags = ["--save_strategy", "no", "--run_name", "123", "--resume_from_checkpoint", "true", "--use_cpu", "yes"]
    _, args, _ = load_settings([], [*BASE, *flags])
    assert (args.save_strategy, args.run_name, args.resume_from_checkpoint, args.use_cpu) == ("no", "123", "true", True)
    file = write(tmp_path, "words.yaml", "save_strategy: no\nresume_from_checkpoint: true")
    _, args, _ = load_settings([file], BASE)
    assert (args.save_strategy, args.resume_from_checkpoint) == ("no", "true")


def test_an_empty_value_stands_for_none():
    assert (
        load_settings([], [*BASE, "--overlong_max_length", "null", "--overlong_shape", "none"])[1].overlong_max_length
        is None
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--learning_rat", "1"], "there is no setting named 'learning_rat'. Did you mean learning_rate?"),
        (["--group_fliter", "none"], "Did you mean group_filter?"),
        (["--learning_rate", "fast"], "learning_rate is 'fast' (str): it must be a number"),
        (["--num_generations", "2.5"], "num_generations is 2.5 (float): it must be a whole number"),
        (["--min_valid_fraction", "2"], "min_valid_fraction is 2"),
        (["--env_kwargs", "[1]"], "env_kwargs is [1] (list)"),
        (["--env_kwargs", "{a: "], "is not valid YAML"),
        (["--max_steps"], "max_steps is True (bool): it must be a whole number"),
        (["--learning_rate"], "learning_rate is True (bool): it must be a number"),
        (["--eval_problems", "-5"], "eval_problems is -5 (int): it must be a whole number, 0 or more"),
        (["--eval_samples", "0"], "eval_samples is 0: it must be from 1 to 1024"),
        (["stray"], "'stray' is not a flag"),
        (["--num_generations", "3"], "is not a multiple of num_generations 3"),
        (["--eval_problems", "many"], "eval_problems is 'many' (str): it must be a whole number"),
    ],
)
def test_bad_flags_are_one_clear_line(flags, message):
    with pytest.raises(ConfigError) as error:
        load_settings([], [*BASE, *flags])
    assert message in str(error.value) and "\n" not in str(error.value).strip()


def test_bad_files_are_one_clear_line(tmp_path):
    write(tmp_path, "quickstart.yaml", "")
    with pytest.raises(ConfigError, match=r"does not exist \(looked from .*\)\. Did you mean .*quickstart.yaml\?"):
        load_settings([tmp_path / "quickstrat.yaml"])
    with pytest.raises(ConfigError, match="holds a list"):
        load_settings([write(tmp_path, "list.yaml", "- a")])
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_settings([write(tmp_path, "torn.yaml", "a: [1")])
    with pytest.raises(ConfigError, match=r"typo\.yaml: there is no setting named 'modell'. Did you mean model\?"):
        load_settings([write(tmp_path, "typo.yaml", "modell: x")])


@pytest.mark.parametrize(("flags", "missing"), [([], "model"), (["--model", "m"], "env")])
def test_what_must_be_given_is_named(flags, missing):
    with pytest.raises(ConfigError, match=f"{missing} is not set"):
        load_settings([], flags)


CONFIGS = ROOT / "configs"


def test_env_takes_a_list():
    mixture = "[{id: math/Chain-v0, weight: 3, kwargs: {levels: 2}}, math/Countdown-v0]"
    common = ["--use_cpu", "--bf16", "false", "--model", "m", "--env_kwargs", "{split: train}"]
    run, _, _ = load_settings([], [*common, "--env", mixture, "--steps_per_generation", "2"])
    chain, countdown = run.entries()
    assert (chain.weight, chain.kwargs, countdown.kwargs) == (3, {"split": "train", "levels": 2}, {"split": "train"})
    assert run.env_text == "Chain (math/Chain-v0, 75%), Countdown (math/Countdown-v0, 25%)"
    with pytest.raises(ConfigError, match="eval_env is 'math/Chain-v0' and env names 2 environments"):
        load_settings([], [*common, "--env", mixture, "--eval_env", "math/Chain-v0"])
    with pytest.raises(ConfigError, match=r"env names 2 environments, and a rollout batch has 1 group\(s\)"):
        load_settings([], [*common, "--env", mixture])


def test_the_textbook_file_states_the_defaults():
    from dapo_trl import DAPOConfig

    _, stated, _ = load_settings([CONFIGS / "algorithm" / "textbook.yaml"], BASE)
    defaults = DAPOConfig(use_cpu=True)
    changed = {k for k, v in stated.to_dict().items() if v != defaults.to_dict()[k]}
    assert changed <= {"logging_dir", "output_dir"}


def test_the_paper_file_states_the_paper():
    flags = [
        *BASE,
        "--max_completion_length",
        "20480",
        "--per_device_train_batch_size",
        "512",
        "--steps_per_generation",
        "16",
    ]
    _, args, _ = load_settings([CONFIGS / "algorithm" / "paper.yaml"], flags)
    assert args.generation_batch_size == 512 * 16 and args.groups_per_rollout == 512
    assert args.updates_per_rollout == 16 and args.warmup_steps == 20 * 16
    assert (args.overlong_max_length, args.overlong_cache_length) == (20480, 4096)
    assert (args.beta, args.scale_rewards, args.min_valid_fraction) == (0.0, "group", 1.0)
