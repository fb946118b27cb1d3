"""Several environments, or several tasks of a data set, in one run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from datasets import Dataset

from dapo_trl import DAPOTrainer
from dapo_trl.cli.main import main
from dapo_trl.errors import ConfigError
from dapo_trl.monitor.metrics import METRICS
from dapo_trl.report import summary
from dapo_trl.report.reading import read_run

from .conftest import SHIPPED_MODEL
from .support.mixture_run import MIXTURE, Holds, outcome, train
from .support.recorded import config, trainer
from .support.warm_start import CPU_2

SHARES = {"vowels": 2 / 4.5, "digits": 1 / 4.5, "early": 1.5 / 4.5}


@pytest.fixture(scope="module")
def whole(tiny_model, tmp_path_factory) -> tuple[DAPOTrainer, Path]:
    folder = tmp_path_factory.mktemp("mixture")
    return train(tiny_model, folder), folder


def same(found, expected) -> bool:
    assert found["state"] == expected["state"]
    return all(torch.equal(value, expected["weights"][name]) for name, value in found["weights"].items())


@pytest.mark.slow
class TestEnvironments:
    def test_shares_are_exact_and_each_has_its_own_account(self, whole):
        run, _ = whole
        logs, sources = run.state.log_history, run.sampling.sources
        batches = [log for log in logs if "groups/trained" in log]
        assert len(batches) == 4 and all(log["groups/trained"] == 8 for log in batches)
        for number in range(1, 5):
            for name, share in SHARES.items():
                trained = sum(log[f"env/{name}/groups/trained"] for log in batches[:number])
                assert abs(trained - share * 8 * number) < 1
        last = batches[-1]
        assert last["ledger/tokens"] == sum(last[f"env/{name}/ledger/tokens"] for name in SHARES)
        assert sum(source.ledger.generated for source in sources) == run.sampling.ledger.generated
        assert sum(source.counts.kept for source in sources) == run.sampling.counts.kept
        weighted = sum(
            log[f"env/{name}/accuracy/sampled"] * log[f"env/{name}/groups/sampled"]
            for log in batches
            for name in SHARES
            if log[f"env/{name}/groups/sampled"]  # else it was filled by its surplus
        )
        everything = sum(log["accuracy/sampled"] * log["groups/sampled"] for log in batches)
        assert weighted == pytest.approx(everything, rel=1e-5)
        own = {name.split("/", 2)[2] for name in last if name.startswith("env/") and "/level_" not in name}
        assert own - set(METRICS) == {"groups/places", "figures/found"} and "env/*/groups/places" in METRICS
        first = batches[0]  # sampled for all of them
        for name in SHARES:  # a correct completion has one such letter or more
            assert first[f"env/{name}/figures/found"] >= first[f"env/{name}/accuracy/sampled"] - 1e-6

    def test_each_has_its_own_limit_filter_and_stream(self, whole):
        run, _ = whole
        for log in run.state.log_history:
            assert log.get("env/digits/completions/max_length", 0) <= 6
            assert log.get("env/early/groups/all_right", 0) == 0  # all_zero keeps these
        assert max(log.get("env/vowels/completions/max_length", 0) for log in run.state.log_history) == 12
        prompts = {source.name: source.stream.row(0)["prompt"] for source in run.sampling.sources}
        assert {name: prompt.split()[0] for name, prompt in prompts.items()} == {
            "vowels": "vowel", "digits": "digit", "early": "any"
        }  # fmt: skip
        assert all(source.selector.drawn for source in run.sampling.sources)

    def test_resumed_it_ends_bit_for_bit_the_same(self, whole, tiny_model, tmp_path):
        run, folder = whole
        shutil.copytree(folder / "checkpoint-3", tmp_path / "checkpoint-3")  # in the middle of a rollout batch
        assert same(outcome(train(tiny_model, tmp_path, str(tmp_path / "checkpoint-3"))), outcome(run))

    def test_on_two_processes_it_draws_the_same_and_resumes_bit_for_bit(self, warm_start, whole, tiny_model, tmp_path):
        def launch(folder, resume=""):
            done = warm_start.run("tests.support.mixture_run", tiny_model, str(folder), resume, accelerate=CPU_2)
            assert done.returncode == 0, done.stderr[-3000:]
            return torch.load(folder / "found.pt", weights_only=False)

        two = launch(tmp_path / "whole")
        assert two["processes"] == 2
        first = next(log for log in whole[0].state.log_history if "groups/trained" in log)
        for name, value in first.items():  # of the first batch: later ones depend on rounding
            if name.startswith("env/") and "seconds" not in name:
                assert two["logs"][0][name] == pytest.approx(value, rel=1e-5), name
        shutil.copytree(tmp_path / "whole" / "checkpoint-3", tmp_path / "part" / "checkpoint-3")
        assert same(launch(tmp_path / "part", str(tmp_path / "part" / "checkpoint-3")), two)

    def test_a_mixture_of_one_is_the_environment_alone(self, tiny_model, tmp_path):
        env = Holds("vowel", "aeiou")
        runs = [train(tiny_model, tmp_path / str(i), env=given, max_steps=2) for i, given in enumerate((env, [env]))]
        assert same(*map(outcome, runs))
        assert not any(name.startswith("env/") for run in runs for log in run.state.log_history for name in log)


class TestTasksOfADataSet:
    ROWS = Dataset.from_dict(
        {"prompt": [f"mixed {i}" for i in range(12)], "task": ["sums"] * 8 + ["words"] * 4, "other": list(range(12))}
    )

    def test_they_are_mixed_by_a_column(self, tiny_model, tmp_path):
        args = config(
            tmp_path, mix_column="task", mix_weights={"sums": 1, "words": 3}, steps_per_generation=2, max_steps=8
        )
        run = trainer(tiny_model, args, self.ROWS)
        run.train()
        sums, words = run.sampling.sources
        assert (sums.name, sums.stream.size, words.name, words.stream.size) == ("sums", 8, "words", 4)
        assert (sums.trained, words.trained) == (4, 12)
        assert [log["env/words/groups/places"] for log in run.state.log_history if "groups/trained" in log] == [3] * 4
        logged = [log["sampling/epochs"] for log in run.state.log_history if "sampling/epochs" in log]
        assert run.sampling.epochs == logged[-1] == 16 / 12

    def test_without_weights_in_proportion_to_their_rows(self, tiny_model, tmp_path):
        run = trainer(tiny_model, config(tmp_path, mix_column="task"), self.ROWS)
        assert [source.weight for source in run.sampling.sources] == [8, 4]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"mix_column": "tsk"}, r"mix_column is 'tsk', and train_dataset has the columns .* Did you mean task\?"),
            ({"mix_column": "task", "mix_weights": {"sums": 1}}, "'words' is in one of them alone. Give every task"),
            ({"mix_column": "other"}, r"12 tasks are mixed, and a rollout batch has 2 group\(s\)"),
        ],
    )
    def test_what_does_not_fit_the_data_is_refused(self, tiny_model, tmp_path, changes, message):
        with pytest.raises(ConfigError, match=message):
            trainer(tiny_model, config(tmp_path, **changes), self.ROWS)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"mix_weights": {"sums": 1}}, "mix_weights is set and mix_column is not"),
            ({"mix_column": "task", "mix_weights": {"sums": 0}}, "mix_weights gives 'sums' the weight 0"),
        ],
    )
    def test_what_can_never_work_is_refused_at_once(self, tmp_path, changes, message):
        with pytest.raises(ConfigError, match=message):
            config(tmp_path, **changes)


@pytest.mark.slow
def test_from_the_command_line_to_the_report(tmp_path, capsys):
    """Two environments, measured apart from training and resumed."""
    mixture = (
        "[{id: math/Arithmetic-v0, name: short, weight: 2, kwargs: {levels: 2}, eval_kwargs: {split: test}}, "
        "{id: math/Problem-v0, name: given, kwargs: {rows: %s}, max_completion_length: 40}]"
    ) % [{"prompt": f"{i}+1=", "answer": str(i + 1)} for i in range(12)]
    settings = {
        "model": SHIPPED_MODEL, "env": mixture, "eval_problems": 3, "eval_samples": 2, "eval_every": 2, "max_steps": 3,
        "per_device_train_batch_size": 8, "steps_per_generation": 3, "num_generations": 4, "save_steps": 2,
        "max_completion_length": 48, "learning_rate": 3e-4, "logging_steps": 1, "gradient_checkpointing": "false",
        "use_cpu": "true", "bf16": "false", "report_to": "[]", "output_dir": tmp_path / "run",
        "record_verdicts": "true",
    }  # fmt: skip
    flags = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    assert main(["train", *flags]) == 0
    told = capsys.readouterr().out
    assert "on short (math/Arithmetic-v0, 67%), given (math/Problem-v0, 33%)" in told
    assert "given: 3 of the 12 rows, chosen by a hash of their text, are kept apart" in told
    assert "short: 4 groups trained on" in told and "given: " in told
    run = read_run(tmp_path / "run")
    assert {name: set(found["by_level"]) for name, found in run.evaluations.items()} == {
        when: {"short", "given"} for when in ("before", "after")
    }
    assert run.evaluations["before"]["problems"] == 6
    measured = next(row for row in run.rows if "eval_accuracy" in row)
    accuracies = [measured[f"env/{name}/eval_accuracy"] for name in ("short", "given")]
    assert measured["eval_accuracy"] == pytest.approx(sum(accuracies) / 2)
    assert {path.name for path in run.folder.glob("verdicts-*")} == {"verdicts-short-0.jsonl", "verdicts-given-0.jsonl"}
    assert [row["name"] for row in summary.environments(run)] == ["short", "given"]
    assert set(run.environment["environments"]) == {"short", "given"} and run.environment["kept_apart"] == {
        "short": 0,
        "given": 3,
    }
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "Accuracy by environment" in page
    assert main(["train", *flags, "--resume_from_checkpoint", str(run.folder / "checkpoint-2")]) == 0
    flags[flags.index("--env") + 1] = mixture.replace("weight: 2", "weight: 3")
    assert main(["train", *flags, "--resume_from_checkpoint", "latest"]) == 2
    assert "is of another run: env [" in capsys.readouterr().err


def test_more_environments_than_groups_are_refused_before_the_model_is_loaded(tmp_path):
    with pytest.raises(ConfigError, match=r"env names 3 environments, and a rollout batch has 2 group\(s\)"):
        DAPOTrainer("no/such-model", args=config(tmp_path), env=MIXTURE)
