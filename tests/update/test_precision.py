"""`cpu_precision: auto`: chosen by a trial, once, and what is trained in bfloat16 is what is trained in float32."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator

from dapo_trl.errors import ConfigError
from dapo_trl.update import precision
from dapo_trl.update.precision import Precision

from ..support.recorded import config, prompts_of, trainer, weights

DATA = prompts_of("mixed", "mixed")


@pytest.fixture
def trial(monkeypatch):
    """A processor with the instructions, and the seconds that a pass takes on it."""

    def is_so_fast(float32: float, bfloat16: float, *, instructions: bool = True) -> None:
        monkeypatch.setattr(precision, "cpu_has_bf16", lambda: instructions)
        ticks = {False: float32, True: bfloat16}
        clock = SimpleNamespace(now=0.0, precision=None)
        monkeypatch.setattr(precision.time, "perf_counter", lambda: clock.now)

        original = Precision.settle

        def settle(self, forward):
            def timed():
                forward()
                clock.now += ticks[bool(self.halved)]

            original(self, timed)

        monkeypatch.setattr(Precision, "settle", settle)

    return is_so_fast


def trained(model: str, folder, **changes):
    lines: list[str] = []
    run = trainer(model, config(folder, cpu_precision="auto", num_iterations=2, max_steps=2, **changes), DATA)
    run.microbatches.precision._say = lines.append
    run.train()
    return run, lines


@pytest.mark.parametrize("float32, bfloat16, halved", [(3.0, 2.0, True), (3.0, 2.9, False), (2.0, 3.0, False)])
def test_the_faster_type_is_chosen_once_by_a_tenth_at_least(trial, tiny_model, tmp_path, float32, bfloat16, halved):
    trial(float32, bfloat16)
    run, lines = trained(tiny_model, tmp_path)
    assert run.microbatches.precision.halved is halved
    name = "bfloat16" if halved else "float32"
    gain = float32 / bfloat16
    assert lines == [f"cpu_precision is 'auto': computing in {name}, bfloat16 is {gain:.2f} times as fast here."]
    assert all(weight.dtype == torch.float32 for weight in run.model.parameters())


def test_without_instructions_nothing_is_tried(trial, tiny_model, tmp_path):
    trial(3.0, 1.0, instructions=False)
    run, lines = trained(tiny_model, tmp_path)
    assert run.microbatches.precision.halved is False and "no instructions" in lines[0] and len(lines) == 1


def test_one_processor_without_instructions_decides_for_all(trial, monkeypatch):
    trial(3.0, 1.0)
    monkeypatch.setattr(precision, "gather", lambda mine: torch.cat([mine, torch.tensor([False])]))
    choice = Precision(Accelerator(cpu=True), tries=True, say=lambda line: None)
    choice.settle(lambda: pytest.fail("tried by one process of two"))
    assert choice.dtype is None


def test_bfloat16_trains_the_same_up_to_its_rounding(trial, tiny_model, tmp_path):
    trial(3.0, 1.0)
    half, _ = trained(tiny_model, tmp_path / "half")
    one = trainer(tiny_model, config(tmp_path / "one", num_iterations=2, max_steps=2), DATA)
    before = weights(one)
    one.train()
    moved = torch.cat([(a - before[name]).flatten() for name, a in weights(one).items()])
    moved_in_half = torch.cat([(a - before[name]).flatten() for name, a in weights(half).items()])
    assert not torch.equal(moved, moved_in_half)
    assert torch.cosine_similarity(moved, moved_in_half, dim=0) > 0.99
    assert (moved - moved_in_half).norm() < 0.1 * moved.norm()


def test_a_trial_leaves_the_random_state_alone_and_is_restored(trial):
    accelerator, seen = Accelerator(cpu=True), []
    choice = Precision(accelerator, tries=True, say=seen.append)
    trial(3.0, 1.0)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    types: list[torch.dtype] = []

    def forward() -> None:
        with choice.autocast():
            types.append((torch.rand(2, 2) @ torch.rand(2, 2)).dtype)

    choice.settle(forward)
    assert torch.equal(torch.rand(3), expected) and set(types) == {torch.float32, torch.bfloat16}
    assert choice.dtype == torch.bfloat16
    choice.settle(lambda: pytest.fail("tried again"))


@pytest.mark.parametrize(
    ("asked", "instructions", "dtype"),
    [("auto", True, torch.bfloat16), ("auto", False, None), ("float32", True, None)],
)
def test_resumed_as_it_was_chosen_where_that_is_asked_for_and_possible(
    trial, tiny_model, tmp_path, asked, instructions, dtype
):
    trial(3.0, 1.0)
    run, _ = trained(tiny_model, tmp_path)
    state = run.microbatches.state_dict()
    trial(3.0, 1.0, instructions=instructions)
    again = trainer(tiny_model, config(tmp_path, cpu_precision=asked), DATA)
    again.microbatches.load_state_dict(state)
    assert again.microbatches.precision.dtype == dtype


def test_float32_is_the_default_and_other_values_are_refused(tiny_model, tmp_path):
    run = trainer(tiny_model, config(tmp_path), DATA)
    run.train()
    assert run.microbatches.precision.halved is None
    with pytest.raises(ConfigError, match="cpu_precision is 'bf16'"):
        config(tmp_path, cpu_precision="bf16")
