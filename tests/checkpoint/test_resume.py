"""Killed runs go on where their last complete checkpoint is, and end in the weights of a run that nothing disturbed."""

from __future__ import annotations

import json
import logging
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from trl import GRPOConfig, GRPOTrainer

from dapo_trl.checkpoint.files import MANIFEST, UNFINISHED, begin, choose, finish, last_complete, problem, signature
from dapo_trl.cli.main import main
from dapo_trl.config import DAPOConfig
from dapo_trl.errors import ConfigError
from dapo_trl.run.settings import RunConfig
from dapo_trl.run.train import _find_checkpoint, _print_last_checkpoint

from ..cli.test_main import config_file
from ..support.recorded import weights
from ..support.resume_run import SUMS, Mortal, has_vowel, outcome, ten_steps
from ..support.warm_start import CPU_2


def checkpoint(folder: Path, step: int, *, ours: bool = True) -> Path:
    """A checkpoint without a model, as this package writes it or as plain TRL does."""
    path = folder / f"checkpoint-{step}"
    if ours:
        begin(path)
    (path / "shards").mkdir(parents=True)
    (path / "model.safetensors").write_bytes(bytes(100))
    (path / "shards" / "optimizer.pt").write_bytes(bytes(50))
    state = {"global_step": step, "stateful_callbacks": signature(step) if ours else {}}
    (path / "trainer_state.json").write_text(json.dumps(state))
    if ours:
        finish(path)
    return path


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:7])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("checkpoint-*"))


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


@pytest.fixture(scope="module")
def whole(tiny_model, tmp_path_factory) -> dict:
    """Ten steps in one go: its outcome and its folder, with checkpoints of steps 5 and 10."""
    folder = tmp_path_factory.mktemp("whole")
    run = ten_steps(tiny_model, folder)
    for name in ("groups/kept", "groups/all_wrong"):  # something to learn from, and something to drop
        assert sum(log.get(name, 0) for log in run.state.log_history)
    return {**outcome(run), "folder": folder}


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is warned of in this process."""
    said: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record):
            said.append(record.getMessage())

    keeper = Keeper()
    logging.getLogger("dapo_trl").addHandler(keeper)
    yield said
    logging.getLogger("dapo_trl").removeHandler(keeper)


class TestKilled:
    @pytest.mark.slow
    @pytest.mark.parametrize("processes", [1, 2])
    def test_a_run_killed_twice_ends_in_the_same_weights_bit_for_bit(
        self, warm_start, tiny_model, tmp_path, whole, processes
    ):
        """Killed in the middle of a step, resumed, killed in the middle of a checkpoint, resumed."""

        def run(folder, **asked):
            arguments = [tiny_model, str(folder), json.dumps(asked)]
            return warm_start.run("tests.support.resume_run", *arguments, accelerate=CPU_2 if processes == 2 else None)

        undisturbed = whole
        if processes == 2:
            done = run(tmp_path / "whole")
            assert done.returncode == 0, done.stderr
            undisturbed = torch.load(tmp_path / "whole" / "outcome.pt")
            undisturbed["folder"] = tmp_path / "whole"
        folder = tmp_path / "part"

        killed = run(folder, die_in_step=7)
        assert names(folder) == ["checkpoint-5"] and problem(folder / "checkpoint-5") is None, killed.stderr
        assert -signal.SIGKILL in killed.returncodes, killed.stderr

        killed = run(folder, resume=True, die_in_checkpoint=10)
        assert -signal.SIGKILL in killed.returncodes, killed.stderr
        assert problem(folder / "checkpoint-10") == "it was not written to its end"
        written, expected = (at / "checkpoint-10" / "model.safetensors" for at in (folder, undisturbed["folder"]))
        assert same(load_file(written), load_file(expected))
        assert "is torn" not in killed.stdout + killed.stderr

        resumed = run(folder, resume=True)
        output = resumed.stdout + resumed.stderr
        assert resumed.returncode == 0, output
        line = f"{folder}/checkpoint-10 is torn (it was not written to its end): resuming from {folder}/checkpoint-5 "
        assert output.count("is torn") == 1 and line + "instead." in output
        found = torch.load(folder / "outcome.pt")
        assert found["steps"] == 5 and found["processes"] == processes
        assert same(found["weights"], undisturbed["weights"])
        assert found["prompts"] == undisturbed["prompts"]
        assert problem(folder / "checkpoint-10") is None


@pytest.mark.slow
class TestTornCheckpoints:
    """Resumed in this process, from copies of whole checkpoints that were damaged."""

    @pytest.mark.parametrize("wanted", [True, "latest", "path"])
    def test_the_one_before_is_used_and_a_line_says_so(self, tiny_model, tmp_path, whole, lines, wanted):
        shutil.copytree(whole["folder"], tmp_path, dirs_exist_ok=True)
        last, before = (tmp_path / f"checkpoint-{step}" for step in (10, 5))
        truncate(last / "optimizer.pt")
        size = json.loads((last / MANIFEST).read_text())["bytes"]["optimizer.pt"]
        run = ten_steps(tiny_model, tmp_path, resume=str(last) if wanted == "path" else wanted)
        torn = [line for line in lines if "torn" in line]
        assert torn == [f"{last} is torn (optimizer.pt has 7 bytes instead of {size}): resuming from {before} instead."]
        assert outcome(run)["steps"] == 5 and same(weights(run), whole["weights"])

    def test_a_complete_path_is_taken_though_there_are_newer_ones(self, tiny_model, tmp_path, whole, lines):
        shutil.copytree(whole["folder"], tmp_path, dirs_exist_ok=True)
        run = ten_steps(tiny_model, tmp_path, resume=tmp_path / "checkpoint-5", max_steps=6)
        assert outcome(run)["steps"] == 1 and not any("torn" in line for line in lines)

    def test_nothing_complete(self, tiny_model, tmp_path):
        begin(tmp_path / "checkpoint-5")
        with pytest.raises(
            ConfigError, match=r"is True, but .* holds no complete checkpoint \(checkpoint-5: it was not"
        ):
            ten_steps(tiny_model, tmp_path, resume=True)


@pytest.mark.slow
class TestSaving:
    def test_with_a_limit_of_one_there_is_always_a_complete_checkpoint(self, tiny_model, tmp_path, monkeypatch):
        seen: list[str | None] = []

        def look():
            found, _ = last_complete(tmp_path)
            seen.append(found and found.name)

        class Watched(Mortal):
            def _save_optimizer_and_scheduler(self, output_dir):
                super()._save_optimizer_and_scheduler(output_dir)
                look()

            def own_state(self):
                look()  # Hugging Face's part is done
                return super().own_state()

        def rmtree(*args, _delete=shutil.rmtree, **options):
            _delete(*args, **options)
            look()

        monkeypatch.setattr(shutil, "rmtree", rmtree)
        run = ten_steps(tiny_model, tmp_path, cls=Watched, max_steps=3, save_steps=1, save_total_limit=1)
        run._save_checkpoint(run.model, None)  # as a stop at the end of an epoch does: the same step again
        first = seen.index("checkpoint-1")
        assert not any(seen[:first]) and all(seen[first:])
        assert "checkpoint-2" in seen and "checkpoint-3-old" in seen
        assert names(tmp_path) == ["checkpoint-3"] and problem(tmp_path / "checkpoint-3") is None

    def test_a_torn_checkpoint_takes_no_ones_place(self, tiny_model, tmp_path):
        begin(tmp_path / "checkpoint-9")
        ten_steps(tiny_model, tmp_path, max_steps=3, save_steps=1, save_total_limit=2)
        assert names(tmp_path) == ["checkpoint-2", "checkpoint-3"]

    def test_the_best_model_is_kept_and_loaded(self, tiny_model, tmp_path):
        class Scored(Mortal):
            def evaluate(self, *args, **kwargs):
                return {"eval_score": {1: 0.1, 2: 0.9, 3: 0.5, 4: 0.4}[self.state.global_step]}

        run = ten_steps(
            tiny_model, tmp_path, cls=Scored, eval_dataset=SUMS, max_steps=4, save_steps=1, save_total_limit=1,
            eval_strategy="steps", eval_steps=1, metric_for_best_model="score", load_best_model_at_end=True,
        )  # fmt: skip
        assert run.state.best_model_checkpoint == str(tmp_path / "checkpoint-2")
        assert names(tmp_path) == ["checkpoint-2"] and problem(tmp_path / "checkpoint-2") is None
        best, found = load_file(tmp_path / "checkpoint-2" / "model.safetensors"), weights(run)
        assert best and all(torch.equal(found[name], value) for name, value in best.items())

    def test_what_is_pushed_is_complete_and_the_arguments_are_those_given(self, tiny_model, tmp_path):
        class Pushing(Mortal):
            pushed: list[str | None] = []  # noqa: RUF012

            def _push_from_checkpoint(self, folder):
                self.pushed.append(problem(folder))

        run = ten_steps(tiny_model, tmp_path, cls=Pushing, max_steps=1, save_strategy="no", save_total_limit=3)
        run.args.push_to_hub = True
        run._save_checkpoint(run.model, None)
        assert run.pushed == [None]
        saved = torch.load(tmp_path / "checkpoint-1" / "training_args.bin", weights_only=False)
        assert saved.save_total_limit == 3 and saved.push_to_hub


class TestProblem:
    def test_complete(self, tmp_path):
        path = checkpoint(tmp_path, 5)
        (path / "note.txt").write_text("added later")
        assert problem(path) is None and not (path / UNFINISHED).exists()
        assert json.loads((path / MANIFEST).read_text())["bytes"]["shards/optimizer.pt"] == 50

    @pytest.mark.parametrize("name", ["model.safetensors", "shards/optimizer.pt", "trainer_state.json"])
    def test_a_missing_file(self, tmp_path, name):
        path = checkpoint(tmp_path, 5)
        (path / name).unlink()
        assert problem(path) == f"{name} is missing"

    def test_a_truncated_file(self, tmp_path):
        path = checkpoint(tmp_path, 5)
        truncate(path / "shards" / "optimizer.pt")
        assert problem(path) == "shards/optimizer.pt has 7 bytes instead of 50"

    def test_unfinished(self, tmp_path):
        path = checkpoint(tmp_path, 5)
        (path / UNFINISHED).touch()
        assert problem(path) == "it was not written to its end"

    @pytest.mark.parametrize("content", ["", "[]", '{"bytes": 3}', "{}"])
    def test_a_damaged_manifest(self, tmp_path, content):
        path = checkpoint(tmp_path, 5)
        (path / MANIFEST).write_text(content)
        assert problem(path) == f"{MANIFEST} is damaged"

    def test_one_that_is_half_deleted(self, tmp_path, whole):
        """Its manifest may go first: it must not pass for one of plain TRL."""
        for path in (checkpoint(tmp_path, 5), whole["folder"] / "checkpoint-10"):
            (path / MANIFEST).rename(tmp_path / MANIFEST)
            found = problem(path)
            (tmp_path / MANIFEST).rename(path / MANIFEST)
            assert found == f"{MANIFEST} is missing"

    def test_one_of_plain_trl_needs_its_state_alone(self, tmp_path):
        path = checkpoint(tmp_path, 5, ours=False)
        assert problem(path) is None
        state = json.loads((path / "trainer_state.json").read_text())
        state["stateful_callbacks"] = signature(3)  # it was resumed from one of ours
        (path / "trainer_state.json").write_text(json.dumps(state))
        assert problem(path) is None
        truncate(path / "trainer_state.json")
        assert problem(path) == "trainer_state.json is damaged"
        (path / "trainer_state.json").unlink()
        assert problem(path) == "trainer_state.json is missing"

    def test_a_checkpoint_that_plain_trl_wrote(self, tiny_model, tmp_path):
        args = GRPOConfig(
            output_dir=str(tmp_path), per_device_train_batch_size=4, num_generations=4, max_completion_length=4,
            max_steps=1, save_steps=1, report_to=[], bf16=False, use_cpu=True, disable_tqdm=True,
        )  # fmt: skip
        GRPOTrainer(tiny_model, has_vowel, args, SUMS).train()
        assert problem(tmp_path / "checkpoint-1") is None
        assert choose(True, tmp_path) == (str(tmp_path / "checkpoint-1"), [])


class TestChoice:
    def test_the_newest_by_number(self, tmp_path):
        for step in (10, 9, 100):
            checkpoint(tmp_path, step)
        (tmp_path / "checkpoint-best").mkdir()
        (tmp_path / "checkpoint-200").touch()
        assert last_complete(tmp_path) == (tmp_path / "checkpoint-100", [])

    def test_torn_ones_are_passed_over_and_named(self, tmp_path):
        paths = [checkpoint(tmp_path, step) for step in (1, 2, 3)]
        (paths[2] / "model.safetensors").unlink()
        (paths[1] / UNFINISHED).touch()
        torn = [(paths[2], "model.safetensors is missing"), (paths[1], "it was not written to its end")]
        assert last_complete(tmp_path) == (paths[0], torn)
        found, lines = choose("latest", tmp_path)
        assert found == str(paths[0])
        assert lines == [f"{path} is torn ({reason}): resuming from {paths[0]} instead." for path, reason in torn]

    def test_a_torn_path_gives_way_to_the_one_before_it_alone(self, tmp_path):
        paths = [checkpoint(tmp_path, step) for step in (1, 2, 3)]
        (paths[1] / MANIFEST).unlink()
        found, lines = choose(paths[1], "elsewhere")
        assert found == str(paths[0]) and len(lines) == 1
        (paths[0] / UNFINISHED).touch()
        with pytest.raises(
            ConfigError, match=r"no complete checkpoint up to that one \(checkpoint-2: .*; checkpoint-1: "
        ):
            choose(f"{paths[1]}/", "elsewhere")

    def test_nothing_there(self, tmp_path):
        assert last_complete(tmp_path / "missing") == (None, [])
        with pytest.raises(ConfigError, match=r"holds no checkpoint\. Name a complete checkpoint, or start anew"):
            choose(True, tmp_path)
        with pytest.raises(ConfigError, match="checkpoint-7: there is no such folder"):
            choose(tmp_path / "checkpoint-7", tmp_path)
        with pytest.raises(ConfigError, match=r"not a complete checkpoint \(trainer_state.json is missing\)"):
            choose(tmp_path, tmp_path)

    def test_one_set_aside_stands_in_for_the_one_that_replaces_it(self, tmp_path):
        path = checkpoint(tmp_path, 5)
        begin(path)
        assert last_complete(tmp_path) == (tmp_path / "checkpoint-5-old", [(path, "it was not written to its end")])
        begin(path)  # torn, so it is cleared away, and the complete one stays
        checkpoint(tmp_path, 5)
        assert last_complete(tmp_path) == (path, []) and names(tmp_path) == ["checkpoint-5"]


class TestCommandLine:
    def test_it_leaves_the_choice_to_the_trainer_but_errs_early(self, tmp_path, capsys):
        path = checkpoint(tmp_path / "run", 5)
        for wanted in ("latest", str(path)):
            args = DAPOConfig(output_dir=str(tmp_path / "run"), resume_from_checkpoint=wanted, use_cpu=True, bf16=False)
            assert _find_checkpoint(tmp_path / "run", RunConfig(), args) == (wanted, path)
        (path / UNFINISHED).touch()
        assert main(["train", "--config", config_file(tmp_path), "--resume_from_checkpoint", "latest"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "resume_from_checkpoint is latest, but" in error
        assert "holds no complete checkpoint (checkpoint-5: it was not written to its end)" in error

    def test_the_last_checkpoint_it_names_is_a_complete_one(self, tmp_path):
        paths = [checkpoint(tmp_path, step) for step in (1, 2)]
        (paths[1] / UNFINISHED).touch()
        console = Console(record=True, width=500)
        _print_last_checkpoint(console, tmp_path)
        assert f"The last checkpoint is {paths[0]}: resume with" in console.export_text()
