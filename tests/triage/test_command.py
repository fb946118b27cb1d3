"""From the folder of an evaluation to the files of a triage."""

from __future__ import annotations

import json
import math
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import yaml
from rich.console import Console

from dapo_trl.cli.main import main
from dapo_trl.config import DAPOConfig
from dapo_trl.errors import ConfigError
from dapo_trl.evaluation import EvalProblem, Sample, Sampling, collect
from dapo_trl.evaluation.journal import Journal
from dapo_trl.evaluation.settings import load_eval_settings
from dapo_trl.plan.refill import expected_refill
from dapo_trl.rollout.environments import make_env
from dapo_trl.run.settings import OWNERS
from dapo_trl.triage.command import run_triage
from dapo_trl.triage.rows import write_settings
from dapo_trl.triage.samples import Row, read_samples, vote
from dapo_trl.triage.settings import TriageOptions, evaluation_flags
from dapo_trl.triage.sorting import chances, cost
from envs import TaskEnv, Verdict
from envs.base import Judgement
from envs.description import describe

K = 8
GOLDS = {3: r"\frac{1}{2}", 5: "7"}
"""A gold that is no whole number, and a wrong one."""
QUIET = Console(quiet=True)


class Kind(TaskEnv):
    """Two rows; the arguments say of which kind the task is."""

    num_rows = 2

    def __init__(self, *, turns: int = 1):
        super().__init__()
        self.max_turns = turns

    def row(self, index):
        return {"prompt": f"Question {index}", "answer": "1"}

    def verify(self, row, completion):
        raise AssertionError("a judge is not asked again")


class Whole(TaskEnv):
    """Rows with the golds that the arguments give; answers are compared as whole numbers or as lists."""

    def __init__(self, *, golds: list):
        super().__init__()
        self.golds, self.num_rows = golds, len(golds)

    def row(self, index):
        return {"prompt": f"Question {index}", "answer": self.golds[index]}

    def verify(self, row, completion):
        answer, gold = completion.rpartition(" ")[2], row["answer"]
        right = answer == json.dumps(gold) if isinstance(gold, list) else abs(int(answer) - gold) == 0
        return Judgement(Verdict.CORRECT if right else Verdict.WRONG, float(right), details={"answer": answer})


gymnasium.register("kinds/Kind-v0", f"{__name__}:Kind")
gymnasium.register("kinds/Whole-v0", f"{__name__}:Whole")


def evaluation(folder: Path, name: str, kwargs: dict, answers: dict[int, list[str | None]], **results) -> Path:
    """The folder of a complete evaluation in which row ``i`` was answered so; None: the judge failed. An answer of a
    task that reads none is whether it is right."""
    env = make_env(name, **kwargs)
    problems, samples = [], {}
    for index, given in answers.items():
        prompt, info = env.reset(options={"index": index})
        problems.append(EvalProblem(index, prompt, [index], info.get("level")))
        for number, answer in enumerate(given):
            text = f"So it is.\nAnswer: {answer}"
            if isinstance(answer, bool):
                verdict, found = ("correct" if answer else "wrong"), {"accuracy": float(answer)}
            elif answer is None:
                verdict, found = "infra_failure", {"accuracy": math.nan}
            else:
                env.reset(options={"index": index})
                found = env.step(text)[4]
                verdict = found["verdict"]
            samples[index, number] = Sample(
                index, number, verdict, found["accuracy"], found.get("answer"), "", 10 + index, False, text
            )
    k = len(given)
    journal = Journal(folder)
    folder.mkdir()
    described = {"env": name, "env_kwargs": kwargs, **describe(env)}
    figures = collect(problems, samples, k=k, sampling=Sampling()).summary()
    request = {"model": {"name": "m", "adapter": None}, "weights": "w", "engine": "transformers", **vars(Sampling())}
    journal.finish({**request, **results, "environments": [{**described, **figures}]}, [(problems, samples)], k)
    return folder


@pytest.fixture
def rows(tmp_path) -> dict:
    """Arguments of an environment of eighty rows with one more column; two rows repeat another one."""
    lines = [
        {"prompt": f"What is {place} + {place}?", "answer": GOLDS.get(place, str(2 * place)), "id": f"row-{place}"}
        for place in range(80)
    ]
    lines[8]["prompt"] = lines[9]["prompt"] = "What is  7 + 7"
    lines[8]["answer"] = lines[9]["answer"] = "14"
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (tmp_path / "test.jsonl").write_text(json.dumps({"prompt": "what is 20 + 20", "answer": "40"}) + "\n")
    return {"path": str(tmp_path / "rows.jsonl")}


def answered() -> dict[int, list[str | None]]:
    """Even rows are half right, others always or never; rows 3 and 5 get a majority against their golds."""
    found: dict[int, list[str | None]] = {}
    for place in range(80):
        right = 14 if place in (8, 9) else 2 * place
        found[place] = [str(right), str(right + 1)] * (K // 2) if place % 2 == 0 else [str(right)] * K
    found[5] = ["10"] * (K - 1) + [None]
    found[3] = ["0.75", "3/4", r"\frac{6}{8}", "75%"] * (K // 4) + ["3/4"] * (K % 4)  # in several spellings
    found[11] = [str(place) for place in range(100, 100 + K)]
    return found


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_rows_are_kept_or_left_out_with_a_reason(tmp_path, rows):
    folder = evaluation(tmp_path / "found", "math/Problem-v0", rows, answered())
    test_set = {"math/Problem-v0": {"path": str(tmp_path / "test.jsonl")}}
    assert run_triage(folder, TriageOptions(against=(test_set,), rate=1.0, least_chance=0.3), QUIET) == 0
    left_out = {line["index"]: line for line in read(folder / "left_out.jsonl")}
    reasons = {index: line["reason"] for index, line in left_out.items()}
    assert reasons[20] == "in the test set" and reasons[8] == reasons[9] == "copy of another row"
    assert reasons[3] == reasons[5] == "gold probably wrong"
    assert left_out[3]["votes"] == 8 and left_out[3]["detail"].startswith("8 of 8 samples answer 3/4 and not")
    assert left_out[5]["samples"] == 7 and left_out[5]["row"]["id"] == "row-5"
    assert reasons[11] == "hopeless" and reasons[13] == "solved"
    kept = read(folder / "kept.jsonl")
    assert [line["id"] for line in kept] == [f"row-{place}" for place in range(80) if place not in reasons]
    assert [(line["index"], line["reason"]) for line in read(folder / "triage.jsonl")] == [
        (place, reasons.get(place)) for place in range(80)
    ]
    results = json.loads((folder / "triage.json").read_text())
    assert results["kept"] == len(kept) and sum(results["left_out"].values()) == len(reasons)
    assert results["notes"][0].startswith("The samples vary too little")
    assert results["notes"][1:] == ["1 samples could not be scored (infra_failure) and count nowhere."]
    assert 0 < results["tokens_saved"] < 1
    assert results["rollouts_per_trained_group"]["after"] < results["rollouts_per_trained_group"]["before"]
    page = (folder / "triage.html").read_text(encoding="utf-8")
    assert "Gold probably wrong" in page and "<script" not in page


def test_samples_are_counted_by_what_the_environment_takes_for_the_same(tmp_path, rows):
    found = answered()
    found[3] = ["3/4", "0.75", r"\frac{6}{8}", "75%", "3/4"] + ["1/2"] * 3  # 5 samples against 3 that name the gold
    found[5] = ["7", "8", "8", "9", "9", "10", "11", "12"]
    votes, leaders, _ = vote(read_samples(evaluation(tmp_path / "found", "math/Problem-v0", rows, found)))
    counted = list(zip(votes.right.tolist(), votes.leader.tolist(), leaders, strict=True))
    assert counted[3] == (3, 5, "3/4") and counted[5][:2] == (1, 2)
    assert counted[0] == (4, 0, None) and counted[1] == (8, 0, None)  # no majority against their golds


def test_a_leading_answer_has_the_type_of_the_gold(tmp_path):
    golds = [7, 7.0, [1, 2], [1, 2]]
    given = {0: ["8"] * K, 1: ["8"] * K, 2: ["[1]"] * K, 3: ["[1"] * K}
    folder = evaluation(tmp_path / "found", "kinds/Whole-v0", {"golds": golds}, given)
    votes, leaders, failures = vote(read_samples(folder))
    assert votes.leader.tolist() == [K, K, K, 0] and leaders == ["8", "8", "[1]", None]
    assert len(failures) == 1 and failures[0].startswith("row 3: SyntaxError: ")
    assert run_triage(folder, TriageOptions(), QUIET) == 0
    notes = json.loads((folder / "triage.json").read_text())["notes"]
    assert notes[0].startswith("The golds of 1 rows are not examined, such as that of row 3: SyntaxError")
    assert notes[1].startswith("The samples vary too little")


def test_the_kept_rows_are_the_environment_that_its_settings_name(tmp_path, rows):
    folder = evaluation(
        tmp_path / "found", "math/Problem-v0", {**rows, "deduplicate": True}, {0: ["0"] * K, 2: ["4"] * K}
    )
    run_triage(folder, TriageOptions(least_chance=0), QUIET)
    settings = yaml.safe_load((folder / "kept.yaml").read_text())
    task = make_env(settings["env"], **settings["env_kwargs"]).unwrapped
    assert task.num_rows == 2 and "What is 2 + 2?" in task.row(1)["prompt"]


def test_an_environment_that_makes_its_rows_gets_a_list_of_indices(tmp_path):
    folder = evaluation(tmp_path / "found", "math/Arithmetic-v0", {}, {7: ["1"] * K, 9: ["2"] * K})
    run_triage(folder, TriageOptions(least_chance=0), QUIET)
    assert [line["index"] for line in read(folder / "kept.jsonl")] == [7, 9]
    assert not (folder / "kept.yaml").exists()
    assert "makes its rows itself" in json.loads((folder / "triage.json").read_text())["notes"][-1]


@pytest.mark.parametrize(("turns", "why"), [(1, "reads no answers"), (3, "many turns")])
def test_without_answers_golds_are_not_examined(tmp_path, turns, why):
    folder = evaluation(tmp_path / "found", "kinds/Kind-v0", {"turns": turns}, {0: [True] * K, 1: [True, False] * 4})
    run_triage(folder, TriageOptions(), QUIET)
    results = json.loads((folder / "triage.json").read_text())
    assert why in results["notes"][0] and results["doubted_at"] == {} and results["rows"] == 2


def test_trusted_rows_must_be_sampled_alike(tmp_path, rows):
    folder = evaluation(tmp_path / "found", "math/Problem-v0", rows, answered())
    other = evaluation(tmp_path / "other", "math/Problem-v0", rows, {0: ["0"] * K}, weights="others")
    with pytest.raises(ConfigError, match="weights others"):
        run_triage(folder, TriageOptions(trusted=other), QUIET)
    fewer = evaluation(tmp_path / "fewer", "math/Problem-v0", rows, {0: ["0"] * 4})
    with pytest.raises(ConfigError, match="with 4 samples of a row, and the rows have 8"):
        run_triage(folder, TriageOptions(trusted=fewer), QUIET)
    alike = evaluation(tmp_path / "alike", "math/Problem-v0", rows, {place: [str(2 * place)] * K for place in (0, 2)})
    assert run_triage(folder, TriageOptions(trusted=alike), QUIET) == 0


def test_rows_that_have_changed_are_refused(tmp_path, rows):
    folder = evaluation(tmp_path / "found", "math/Problem-v0", rows, answered())
    Path(rows["path"]).write_text(Path(rows["path"]).read_text().replace("What is 6 +", "What was 6 +"))
    with pytest.raises(ConfigError, match="row 6 reads differently now"):
        run_triage(folder, TriageOptions(), QUIET)


def test_a_runs_files_name_the_rows_and_how_they_are_sampled(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(
        "env: math/Problem-v0\nenv_kwargs: {path: rows.jsonl}\neval_env_kwargs: {path: test.jsonl}\n"
        "temperature: 0.9\neval_temperature: 0.1\neval_problems: 7\neval_samples: 2\n"
    )
    flags = evaluation_flags([str(file)], ["--k", "4"], OWNERS)
    config = load_eval_settings([file], ["--model", str(tmp_path), *flags], training=OWNERS)
    assert config.environments() == [("math/Problem-v0", {"path": "rows.jsonl"})]
    assert (config.eval_problems, config.eval_samples, config.sampling.temperature) == (0, 4, 0.9)
    file.write_text("env: [{id: math/Arithmetic-v0}, {id: math/Chain-v0}]\n")
    with pytest.raises(ConfigError, match="one at a time"):
        evaluation_flags([str(file)], [], OWNERS)


def test_the_kept_rows_of_a_published_set_are_measured_on_its_test_split(tmp_path):
    hub = {"dataset": "openai/gsm8k", "splits": ["train", "test"]}
    write_settings(
        tmp_path / "kept.yaml", "math/GSM8K-v0", {"hub": hub, "answer_style": "hash"}, tmp_path / "kept.jsonl"
    )
    settings = yaml.safe_load((tmp_path / "kept.yaml").read_text())
    assert settings["env_kwargs"] == {"answer_style": "hash", "path": str(tmp_path / "kept.jsonl")}
    assert settings["eval_env_kwargs"] == {"path": None, "split": "test"}


def test_the_kept_rows_of_a_data_set_are_measured_as_the_run_was(tmp_path):
    kwargs = {"dataset": "own/sums", "name": "hard", "split": "train", "answer_style": "hash"}
    write_settings(tmp_path / "kept.yaml", "math/Problem-v0", kwargs, tmp_path / "kept.jsonl", {"split": "test"})
    settings = yaml.safe_load((tmp_path / "kept.yaml").read_text())
    measured = {**settings["env_kwargs"], **settings["eval_env_kwargs"]}
    assert measured == {**kwargs, "path": None, "split": "test"}
    assert settings["env_kwargs"] == {"answer_style": "hash", "path": str(tmp_path / "kept.jsonl")}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--against", "math/GSM9K-v0"], "GSM9K"),
        (["--trusted", "nowhere"], "nowhere: there is no such folder"),
        (["--trusted", "found"], "sampled with temperature 1.0, and the rows with 0.5"),
        (["--group_filter", "none"], "group_filter is 'none'"),
    ],
)
def test_mistakes_are_found_before_anything_is_sampled(tmp_path, rows, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dapo_trl.evaluation.command.run_evaluation", lambda *_: pytest.fail("sampled"))
    evaluation(tmp_path / "found", "math/Problem-v0", rows, {0: ["0"] * K})
    command = ["triage", "--model", "m", "--env", "math/Arithmetic-v0", "--temperature", "0.5", "--use_cpu", "true"]
    assert main([*command, *flags]) == 2
    assert message in capsys.readouterr().err


def test_overwriting_the_samples_removes_what_was_made_of_them(tmp_path, rows):
    folder = evaluation(tmp_path / "found", "math/Problem-v0", rows, {0: ["0"] * K})
    run_triage(folder, TriageOptions(least_chance=0), QUIET)
    (folder / "request.json").write_text("{}")
    (folder / "mine.txt").write_text("")
    Journal(folder).begin({}, overwrite=True)
    assert sorted(path.name for path in folder.iterdir()) == ["mine.txt", "request.json"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"rate": 0.0}, "rate is 0: it must lie in"),
        ({"near": 1.5}, "near is 1.5"),
        ({"least_chance": 1.0}, "least_chance is 1"),
        ({"num_generations": 1}, "num_generations is 1"),
        ({"group_filter": "none"}, "group_filter is 'none'"),
    ],
)
def test_options_out_of_range_are_refused(option, message):
    with pytest.raises(ConfigError, match=message):
        TriageOptions(**option)


@pytest.mark.parametrize("shape", [(0.5, 0.5), (1.0, 0.25)])
def test_the_sampler_needs_as_many_rollouts_as_predicted(shape):
    """benchmarks/triage.py has more kinds of models."""
    args = DAPOConfig(use_cpu=True, bf16=False, per_device_train_batch_size=64, steps_per_generation=4)
    rng = np.random.default_rng(0)
    rates = rng.beta(*shape, size=1500)
    passes = (rng.random((1500, 16)) < rates[:, None]).astype(float)
    rows = [Row(place, "", None, list(line), lengths=[1] * 16) for place, line in enumerate(passes)]
    likely = chances(rows, args.num_generations, args.group_filter)
    fall = {}
    for name, part in (("all", likely >= 0), ("kept", likely >= 0.1)):
        found = expected_refill(args, {float(rate): 1.0 for rate in rates[part]}, rows=int(part.sum()))
        sampler = args.num_generations * found.sampled / (found.filled * args.groups_per_rollout)
        fall[name] = cost(rows, likely[part], args.num_generations).rollouts, sampler
    predicted, measured = (fall["kept"][place] / fall["all"][place] for place in (0, 1))
    assert predicted < 0.95 and predicted == pytest.approx(measured, rel=0.1)


@pytest.mark.slow
def test_the_command_samples_what_is_missing_and_sorts_it(tmp_path, tiny_model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = [
        "triage",
        "--model",
        tiny_model,
        "--env",
        "math/Arithmetic-v0: {levels: 1}",
        "--problems",
        "3",
        "--k",
        "2",
    ]
    command += ["--max_completion_length", "8", "--output_dir", "out", "--use_cpu", "true", "--least_chance", "0"]
    assert main(command) == 0
    drawn = (tmp_path / "out" / "samples-0.jsonl").read_bytes()
    assert len(read(tmp_path / "out" / "kept.jsonl")) == 3
    (tmp_path / "out" / "samples-0.jsonl").write_bytes(drawn[: len(drawn) // 2])  # as if it had been stopped there
    assert main(command) == 0
    lines = (tmp_path / "out" / "samples-0.jsonl").read_bytes().splitlines()
    assert set(drawn.splitlines()) <= set(lines) and len(lines) <= len(drawn.splitlines()) + 2
    assert main(["triage", "--samples", "out"]) == 0
    assert main(["triage", "--samples", "out", "--k", "4"]) == 2
