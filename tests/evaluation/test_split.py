"""The held-out problems: chosen by content, never trained on, the same again when the run is resumed."""

from __future__ import annotations

import json

import pytest
import yaml

from dapo_trl.cli.main import main
from dapo_trl.errors import ConfigError
from dapo_trl.evaluation.command import _held_out, _measured
from dapo_trl.evaluation.settings import load_eval_settings
from dapo_trl.evaluation.split import SHARE, measured_elsewhere, split_off
from dapo_trl.rollout.environments import make_env
from dapo_trl.run.settings import OWNERS, RunConfig
from dapo_trl.run.train import _described, held_out_rows
from envs import TaskEnv
from envs.description import describe


def problems(rows):
    return make_env("math/Problem-v0", rows=[{"prompt": text, "answer": "1"} for text in rows])


def asked(env, indices):
    return {env.reset(options={"index": index})[0] for index in indices}


def left(env, split, rows):
    """The texts of the rows that a trainer draws."""
    shown = ({"prompt": env.reset(options={"index": index})[0], "index": index} for index in rows)
    return {row["prompt"] for row in shown if not split.skips(row)}


SUMS = [f"{i} + {i}" for i in range(40)]


def test_the_choice_is_by_content():
    env, turned = problems(SUMS), problems(SUMS[::-1])
    split, again = split_off(env, 10), split_off(turned, 10)
    held = asked(env, split.indices)
    assert len(held) == 10 and held == asked(turned, again.indices), "whatever the order of the rows"
    assert not held & left(env, split, range(40)) and len(left(env, split, range(40))) == 30
    assert sorted(split.indices) != list(range(10)), "not the first rows of a file that may be sorted"
    more = problems([*SUMS, "7 + 1", "7 + 2"])
    assert len(held & asked(more, split_off(more, 10).indices)) >= 8, "nearly the same with more rows"
    assert split.note.startswith("10 of the 40 rows") and "measured" in split.note


def test_fewer_problems_are_a_part_of_more():
    env = problems(SUMS)
    assert set(split_off(env, 4).indices) < set(split_off(env, 10).indices)


def test_a_copy_of_a_held_out_row_is_not_trained_on_either():
    env = problems(SUMS * 3)
    split = split_off(env, 10)
    assert len(asked(env, split.indices)) == 10, "each is measured once"
    assert not asked(env, split.indices) & left(env, split, range(120))
    assert split.note.startswith("30 of the 120 rows") and split.note.endswith(
        "the 10 different ones among them are measured."
    )


def test_endless_data():
    env = make_env("math/Arithmetic-v0", levels=[2, 3])
    split = split_off(env, 20)
    held = asked(env, split.indices)
    trained = left(env, split, range(2000))
    assert len(held) == 20 and not held & trained
    assert {*split_off(env, 5).indices} < {*split.indices}
    assert abs(len(trained) / len(asked(env, range(2000))) - (1 - 1 / SHARE)) < 0.03
    assert f"One problem in {SHARE}" in split.note


def test_a_test_row_among_the_training_rows_is_skipped():
    train, test = problems(SUMS), problems(["3 + 3", "100 + 1", "5 + 5", "1 + 0"])
    split = measured_elsewhere(train, test, 3)
    assert split.indices == (0, 1, 2) and split.note == ""
    assert asked(train, range(40)) - left(train, split, range(40)) == asked(train, [3, 5])


class Secret(TaskEnv):
    """Many turns after the same first prompt."""

    num_rows = 30
    max_turns = 3

    def row(self, index):
        return {"prompt": "Guess the number.", "answer": str(index)}

    def reply(self, row, turns):
        return "no"

    def verify(self, row, completion):
        return completion == row["answer"]


def test_problems_of_many_turns_differ_by_their_answers():
    split = split_off(Secret(), 5)
    skipped = [index for index in range(30) if split.skips({"prompt": "Guess the number.", "index": index})]
    assert len(split.indices) == 5 and skipped == list(split.indices)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: split_off(problems(SUMS), 40), "eval_problems is 40.*it has 40 different problems in 40 rows"),
        (lambda: split_off(problems(["a"] * 9), 1), "it has 1 different problems in 9 rows"),
        (lambda: split_off(make_env("math/Arithmetic-v0", levels=1), 99), "first 9,900 rows hold"),
        (lambda: measured_elsewhere(problems(SUMS), problems(SUMS), 40), "every one of the 40 rows of math/Problem-v0"),
        (lambda: measured_elsewhere(problems(SUMS), problems(SUMS), 41), "the held-out environment has 40 rows"),
    ],
)
def test_too_few_problems(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def command(folder, rows, *more):
    return [
        "train", "--model", "models/arithmetic-0.8m", "--env", "math/Problem-v0", "--output_dir", str(folder),
        "--env_kwargs", json.dumps({"rows": rows}), "--eval_problems", "8", "--eval_samples", "2",
        "--per_device_train_batch_size", "8", "--num_generations", "4", "--max_completion_length", "8",
        "--max_steps", "6", "--save_strategy", "no", "--gradient_checkpointing", "false", "--use_cpu", "true",
        "--bf16", "false", "--report_to", "[]", "--record_verdicts", "true", "--group_filter", "none", *more,
    ]  # fmt: skip


@pytest.mark.slow
def test_a_run_on_own_rows(tmp_path, capsys):
    """What is called held out was never trained on, and stays so when the run is resumed."""
    rows, folder = [{"prompt": text, "answer": "1"} for text in SUMS[:14]], tmp_path / "run"
    saved = ("--save_strategy", "steps", "--save_steps", "3")
    assert main(command(folder, rows, *saved)) == 0
    held = set(split_off(problems(SUMS[:14]), 8).indices)

    def trained_on():
        lines = (folder / "verdicts-0.jsonl").read_text().splitlines()
        return {row["index"] for row in map(json.loads, lines) if "index" in row}

    assert trained_on() == set(range(14)) - held, "all others, and none of these"
    printed = " ".join(capsys.readouterr().out.split())
    assert "8 of the 14 rows, chosen by a hash of their text, are kept apart" in printed
    assert printed.count("(8 problems x 2 samples, temperature 1, top_p 1)") == 4
    resumed = ("--resume_from_checkpoint", "latest", "--max_steps", "9")
    assert main(command(folder, rows, *saved, *resumed)) == 0
    assert trained_on() == set(range(14)) - held
    capsys.readouterr()
    assert main(command(folder, rows, *saved, *resumed, "--eval_problems", "9")) == 2
    error = capsys.readouterr().err
    assert "eval_problems is 9, but the run to be resumed kept 8 problems apart" in error and error.count("\n") == 1
    evaluation = ["eval", "--config", str(folder / "config.yaml"), "--model", str(folder / "model")]
    assert main([*evaluation, "--output_dir", str(tmp_path / "eval")]) == 0
    found = json.loads((tmp_path / "eval" / "results.json").read_text())["environments"][0]
    after = json.loads((folder / "evaluation_after.json").read_text())
    assert {name: found[name] for name in after} == after, "the command measures the problems that were kept apart"
    assert main([*evaluation, "--output_dir", str(tmp_path / "more"), "--problems", "9"]) == 2
    assert "problems is 9, but the run kept 8 problems apart" in capsys.readouterr().err


@pytest.mark.parametrize("record", ['{"kept_apart": 8}', '{"kept_apart": {"Arithmetic": 8}}'])
@pytest.mark.parametrize(
    ("flags", "kept"), [([], 8), (["--eval_env_kwargs", "{split: test}"], 0), (["--env", "a/B-v0"], 0)]
)
def test_only_the_environment_of_the_run_has_rows_kept_apart(flags, kept, record, tmp_path):
    (tmp_path / "environment.json").write_text(record)
    (tmp_path / "config.yaml").write_text("{env: math/Arithmetic-v0, eval_problems: 8}")
    config = load_eval_settings([tmp_path / "config.yaml"], ["--model", "m", *flags], training=OWNERS)
    assert config.kept_apart_of(0) == kept


def rows_of(texts):
    return [{"prompt": text, "answer": "1"} for text in texts]


GIVEN = {"id": "math/Problem-v0", "name": "given", "kwargs": {"rows": rows_of(SUMS)}}
ELSEWHERE = {**GIVEN, "name": "elsewhere", "eval_kwargs": {"rows": rows_of(["7 + 1", "7 + 2", "7 + 3"])}}
ENDLESS = {"id": "math/Arithmetic-v0", "name": "endless", "kwargs": {"levels": [2, 3]}}


@pytest.mark.parametrize("earlier", [False, True], ids=["by name", "one number"])
def test_eval_measures_the_rows_of_a_mixture_that_the_run_measured(earlier, tmp_path):
    settings = {"env": [GIVEN, ELSEWHERE, ENDLESS], "eval_problems": 2}
    run = RunConfig(**settings)
    splits, _ = held_out_rows(run, run.entries())
    described = _described(run, run.entries(), splits)
    assert described["kept_apart"] == {"given": 2, "elsewhere": 0, "endless": 1}
    if earlier:
        described["kept_apart"] = 2
    (tmp_path / "environment.json").write_text(json.dumps(described))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model": "m", **settings}))
    config = load_eval_settings([tmp_path / "config.yaml"], training=OWNERS)
    measured = [
        tuple(_measured(config, place, _held_out(config, place, *one)))
        for place, one in enumerate(config.environments())
    ]
    assert measured == [split.indices for split in splits.values()] and measured[1] == (0, 1) != measured[0]


def test_a_resumed_mixture_kept_problems_apart_by_name(tmp_path):
    (tmp_path / "environment.json").write_text('{"kept_apart": {"given": 8, "other": 0}}')
    split = split_off(problems(SUMS), 8)
    split.check_resumed(tmp_path, "given")
    with pytest.raises(ConfigError, match="kept 0 problems apart"):
        split.check_resumed(tmp_path, "other")


def test_what_one_environment_of_a_mixture_measures_no_other_trains_on():
    run = RunConfig(env=[GIVEN, ELSEWHERE, {"id": Secret(), "name": "secret"}], eval_problems=3)
    splits, skips = held_out_rows(run, run.entries())
    env = problems(SUMS)
    shown = [{"question": env.reset(options={"index": index})[0], "index": index} for index in range(40)]
    skipped = {name: tuple(row["index"] for row in shown if skips[name](row)) for name in ("given", "elsewhere")}
    assert skipped == {"given": splits["given"].indices, "elsewhere": splits["given"].indices}
    secret = [index for index in range(30) if skips["secret"]({"question": "Guess the number.", "index": index})]
    assert secret == list(splits["secret"].indices), "what belongs to a problem besides its question is its own"


def test_what_an_endless_environment_keeps_apart_no_other_endless_one_trains_on():
    test = {**ENDLESS, "name": "test", "eval_kwargs": {"split": "test"}}
    run = RunConfig(env=[ENDLESS, test, GIVEN], eval_problems=3)
    _, skips = held_out_rows(run, run.entries())
    kept = {name: {index for index in range(200) if skips[name]({"index": index})} for name in ("endless", "test")}
    assert len(kept["endless"]) > 10 and kept["endless"] <= kept["test"]
    assert sum(skips["given"]({"index": index}) for index in range(40)) == 3, "of finite rows no share is lost"


def test_no_row_is_left_beside_another_environment():
    few = {
        **GIVEN,
        "name": "few",
        "kwargs": {"rows": rows_of(["7 + 1", "7 + 2"])},
        "eval_kwargs": {"rows": rows_of("a")},
    }
    run = RunConfig(env=[{**ELSEWHERE, "eval_kwargs": {"rows": few["kwargs"]["rows"]}}, few], eval_problems=1)
    held_out_rows(run, run.entries())
    few["kwargs"] = {"rows": few["kwargs"]["rows"][:1]}
    run = RunConfig(env=[run.env[0], few], eval_problems=1)
    with pytest.raises(ConfigError, match="every one of the 1 rows of math/Problem-v0 is a held-out problem"):
        held_out_rows(run, run.entries())


@pytest.mark.parametrize("own", [{}, {"eval_kwargs": {"rows": rows_of(["7 + 1", "7 + 2", "7 + 3", "7 + 4"])}}])
def test_prompting_as_a_wrapper_asks_held_out_problems_as_in_training_and_once(own, tmp_path):
    """In a run, and in `eval` with its settings."""
    wrappers = [{"envs:Prompting": {"few_shot": 3, "prompt_template": "Q: {question}"}}, "RepetitionPenalty"]
    wrappers.append({"envs:Prompting": {"system_prompt": "Add."}})
    settings = {"env": [{**GIVEN, **own, "wrappers": wrappers}], "eval_problems": 4}
    run = RunConfig(**settings)
    splits, _ = held_out_rows(run, run.entries())
    split = splits["given"]
    examples = run.entries()[0].make().reset(options={"index": 0})[1]["messages"][:-1]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model": "m", **settings}))
    config = load_eval_settings([tmp_path / "config.yaml"], training=OWNERS)
    for env in (split.env, _held_out(config, 0, *config.environments()[0])):
        question, info = env.reset(options={"index": split.indices[0]})
        assert info["messages"] == [*examples, {"role": "user", "content": f"Q: {question}"}]
        assert [layer["name"] for layer in describe(env)["spec"]["additional_wrappers"]] == ["Prompting"] * 2


@pytest.mark.parametrize(
    ("flags", "sampling"),
    [
        ([], (1.0, 1.0)),
        (["--top_p", "0.9", "--temperature", "0.6"], (0.6, 0.9)),
        (["--top_p", "0.9", "--eval_top_p", "0.7"], (1.0, 0.7)),
    ],
)
def test_the_sampling_is_that_of_training(flags, sampling, tmp_path):
    """In a run, and in `eval` with the same settings."""
    from dapo_trl.evaluation import Sampling
    from dapo_trl.run.settings import load_settings

    common = ["--model", "m", "--env", "math/Arithmetic-v0", "--max_steps", "1", "--use_cpu", "true", "--bf16", "false"]
    run, args, asked = load_settings([], [*common, *flags])
    found = Sampling.like_training(run, args, 8, 0)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(asked))
    config = load_eval_settings([tmp_path / "config.yaml"], [], training=OWNERS)
    for one in (found, config.sampling):
        assert (one.temperature, one.top_p) == sampling
