"""A run goes on with another number of processes: the same rollout batches, the same optimizer steps."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from dapo_trl.checkpoint.batch_shape import BatchShape
from dapo_trl.checkpoint.files import MANIFEST, begin, finish, load_states, save_state
from dapo_trl.errors import ConfigError
from dapo_trl.run.settings import load_settings
from dapo_trl.update.schedule import LocalSteps

from ..cli.test_main import config_file
from ..support.warm_start import CPU_2

SHAPE = BatchShape(completions=64, num_generations=8, updates=4, processes=2, settings_for=2)


def written(folder, shape=SHAPE):
    """A complete checkpoint of this shape, without anything else in it."""
    begin(folder)
    (folder / "trainer_state.json").write_text("{}")
    for process in range(shape.processes):
        save_state(folder, process, {"process": process})
    finish(folder, shape.state_dict())
    return folder


class TestSettings:
    @pytest.mark.parametrize("processes", [1, 2, 4, 8, 16])
    @pytest.mark.parametrize("rows", [1, 2, 3, 8, 64])
    def test_they_give_the_same_rollout_batch(self, processes, rows):
        found = SHAPE.settings(processes, rows)
        size = found["per_device_train_batch_size"]
        assert 1 <= size <= rows
        assert size * processes * found["gradient_accumulation_steps"] == 64 / 4
        assert found["steps_per_generation"] == 4 * found["gradient_accumulation_steps"]

    def test_too_many_processes_are_refused_with_the_numbers_that_work(self):
        with pytest.raises(ConfigError, match=r"16 completions, which 3 processes cannot .* on 1, 2, 4, 8, 16 proc"):
            SHAPE.settings(3, 2)

    def test_another_batch_is_refused_with_the_settings_that_restore_it(self):
        now = BatchShape(completions=32, num_generations=8, updates=4, processes=1, settings_for=1)
        with pytest.raises(ConfigError) as refused:
            SHAPE.check(now, "checkpoint-5", rows=2)
        assert str(refused.value) == (
            "checkpoint-5 was written with rollout batches of 64 completions in groups of 8 for 4 optimizer steps (2 "
            "processes), now it is rollout batches of 32 completions in groups of 8 for 4 optimizer steps (1 process): "
            "resume with num_generations 8, per_device_train_batch_size 2, gradient_accumulation_steps 8, "
            "steps_per_generation 32."
        )
        SHAPE.check(
            BatchShape(completions=64, num_generations=8, updates=4, processes=1, settings_for=1),
            "checkpoint-5",
            rows=2,
        )

    @pytest.mark.parametrize("wanted", ["latest", "path"])
    def test_the_command_takes_them_from_the_checkpoint(self, tmp_path, wanted, monkeypatch):
        path = written(tmp_path / "run" / "checkpoint-5")
        file = config_file(tmp_path)
        flags = [
            "--output_dir",
            str(tmp_path / "run"),
            "--resume_from_checkpoint",
            wanted if wanted == "latest" else str(path),
        ]
        flags += ["--num_generations", "8", "--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "4"]
        flags += ["--steps_per_generation", "16"]
        monkeypatch.setenv("WORLD_SIZE", "1")
        for shape in (SHAPE, replace(SHAPE, processes=1)):  # of the first start, and of one that was resumed so already
            path = written(tmp_path / "run" / "checkpoint-5", shape)
            _, args, asked = load_settings([file], flags)
            assert (args.generation_batch_size, args.updates_per_pass, args.gradient_accumulation_steps) == (64, 4, 8)
            assert asked["gradient_accumulation_steps"] == 4  # what was asked for stays what it was
            assert BatchShape.of(args) == replace(SHAPE, processes=1)
        written(path, replace(SHAPE, processes=1, settings_for=1))
        _, args, _ = load_settings([file], flags)
        assert args.gradient_accumulation_steps == 4, "on as many processes the settings are the user's"


class TestStates:
    def test_a_state_that_is_missing_is_named(self, tmp_path):
        folder = written(tmp_path / "checkpoint-1")
        assert load_states(folder, [0, 1]) == [{"process": 0}, {"process": 1}]
        (folder / "dapo_state_1.pt").unlink()
        with pytest.raises(ConfigError, match="holds no state of process 1: all processes must see the same folder"):
            load_states(folder, [0, 1])

    def test_who_wrote_it(self, tmp_path):
        assert BatchShape.written(tmp_path) is None, "plain TRL"
        folder = written(tmp_path / "checkpoint-1")
        assert BatchShape.written(folder) == SHAPE
        (folder / MANIFEST).write_text('{"bytes": {}}')
        with pytest.raises(ConfigError, match="was written by an earlier version of dapo-trl"):
            BatchShape.written(folder)

    def test_the_rows_of_a_step_stay_in_it(self):
        def row(number, length):
            ids = torch.full((length,), number)
            return {"prompt_ids": ids[:1], "completion_ids": ids, "completion_mask": torch.ones_like(ids)}

        def step(*rows):
            return {"rows": [row(*each) for each in rows], "filler": row(9, 2)}

        states = [[step((0, 3), (1, 9)), None], [step((2, 5)), None]]
        for processes in (1, 2, 3, 4):
            shares = [
                LocalSteps.of_checkpoint(states, process, processes, torch.device("cpu"))
                for process in range(processes)
            ]
            counts = [len(share.steps[0]) for share in shares]
            numbers = sorted(int(one.completion_ids[0]) for share in shares for one in share.steps[0])
            assert numbers == [0, 1, 2] and max(counts) - min(counts) <= 1
            assert all(share.steps[1] == [] and share.filler.length == 3 for share in shares)


@pytest.mark.slow
def test_two_processes_then_one_then_two_end_in_the_weights_of_two(warm_start, tiny_model, tmp_path):
    """Killed within a rollout batch each time, and resumed on another number of processes."""

    def run(folder, processes, **asked):
        if processes == 1:
            asked |= {"gradient_accumulation_steps": 4, "steps_per_generation": 16}
        arguments = [tiny_model, str(folder), json.dumps({"save_steps": 3, **asked})]
        return warm_start.run("tests.support.resume_run", *arguments, accelerate=CPU_2 if processes == 2 else None)

    whole = run(tmp_path / "whole", 2)
    assert whole.returncode == 0, whole.stderr
    folder = tmp_path / "part"
    run(folder, 2, die_in_step=5)
    killed = run(folder, 1, resume=True, die_in_step=9)
    assert (folder / "checkpoint-6").exists() and not (folder / "checkpoint-9").exists(), killed.stderr
    assert BatchShape.written(folder / "checkpoint-6").processes == 1
    resumed = run(folder, 2, resume=True)
    assert resumed.returncode == 0, resumed.stderr
    found, expected = (torch.load(at / "outcome.pt") for at in (folder, tmp_path / "whole"))
    assert found["processes"] == 2 and found["steps"] == 4
    assert found["prompts"] == expected["prompts"]
    for name, value in expected["weights"].items():
        torch.testing.assert_close(found["weights"][name], value, atol=1e-6, rtol=0)
