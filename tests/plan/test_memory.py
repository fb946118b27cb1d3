"""Bytes part by part, against numbers worked out by hand."""

from __future__ import annotations

import pytest
import yaml

from dapo_trl.errors import ConfigError
from dapo_trl.plan import memory
from dapo_trl.plan.devices import CARDS, GIB, Placement, find_card, placement, this_cpu
from dapo_trl.plan.memory import Memory
from dapo_trl.plan.trace import Weights
from dapo_trl.update.batching import split_tokens

from ..conftest import ROOT

BILLION = 10**9


def weights(**changes) -> Weights:
    """A model of a billion float32 weights, a tenth of them outside its layers."""
    given = {
        "trained": BILLION,
        "trained_bytes": 4 * BILLION,
        "frozen": 0,
        "frozen_bytes": 0,
        "quantized": 0,
        "largest_quantized": 0,
        "layer": BILLION // 10,
        "outside": BILLION // 10,
        "head": BILLION // 20,
        "head_trained": True,
        "largest": BILLION // 20,
        "base": BILLION,
    }
    return Weights(**{**given, **changes})


def states(where: Placement, *, given: Weights | None = None):
    return memory.model_bytes(given or weights(), placement=where, optimizer="adamw_torch_fused", mixed=True)


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("adamw_torch_fused", 4, 8.0),
        ("adamw_torch", 2, 4.0),  # PyTorch's states have the type of the weights
        ("adamw_bnb_8bit", 4, 2 * (1 + 4 / 256)),
        ("paged_adamw_8bit", 2, 2 * (1 + 4 / 256)),
        ("lion_32bit", 4, 4.0),
        ("sgd", 4, 0.0),
        ("adafactor", 4, 0.0),
        ("something_new", 4, 8.0),
    ],
)
def test_optimizer_states(name, size, expected):
    assert memory.optimizer_bytes(name, BILLION, size) == round(expected * BILLION)


def test_every_optimizer_of_transformers_has_states_of_its_kind():
    from transformers.training_args import OptimizerNames

    names = [str(name.value) for name in OptimizerNames]
    found = {name: memory.optimizer_bytes(name, 1000, 4) for name in names}
    assert set(found.values()) <= {0, 1016, 2031, 4000, 8000}
    assert all(size < 2100 for name, size in found.items() if "8bit" in name)
    assert {size for name, size in found.items() if "adamw" in name and "8bit" not in name} == {8000}


def test_one_device_holds_sixteen_bytes_a_weight():
    held, training = states(Placement(1, "none"))
    assert sum(held.values()) + sum(training.values()) == 16 * BILLION


def test_ddp_holds_the_gradients_twice():
    alone, together = states(Placement(1, "none")), states(Placement(8, "ddp"))
    assert sum(together[0].values()) - sum(alone[0].values()) == 4 * BILLION
    assert together[1] == alone[1]


def test_zero_2_shares_out_all_but_the_weights():
    """2 bytes of weights each; 2 of gradients, 4 of master weights and 8 of states shared out over 8."""
    held, training = states(Placement(8, "zero2"))
    buckets = held.pop("communication buckets")
    assert sum(held.values()) + sum(training.values()) == 2 * BILLION + (2 + 4 + 8) * BILLION // 8
    assert buckets == 2 * 2 * 500_000_000


def test_zero_3_shares_out_everything():
    held, training = states(Placement(8, "zero3"))
    moving = held.pop("communication buckets") + held.pop("gathered layers")
    assert sum(held.values()) + sum(training.values()) == 16 * BILLION // 8
    assert moving == 2 * 2 * 500_000_000 + 2 * (2 * BILLION // 10 + BILLION // 10)


def test_fsdp2_keeps_float32_in_the_shards():
    held, training = states(Placement(8, "fsdp2"))
    gathered = held.pop("gathered layers")
    assert gathered == 2 * (2 * BILLION // 10 + BILLION // 10) + 4 * BILLION // 20
    assert sum(held.values()) == (4 + 8) * BILLION // 8
    assert training["gradients"] == 4 * BILLION // 8 + 2 * BILLION // 10


def test_more_devices_never_need_more():
    def total(sharding: str, devices: int) -> int:
        held, training = states(Placement(devices, sharding))
        return sum(held.values()) + sum(training.values())

    for sharding in ("zero2", "zero3", "fsdp2"):
        sizes = [total(sharding, devices) for devices in (2, 4, 8, 64)]
        assert sizes == sorted(sizes, reverse=True)


def test_what_is_offloaded_is_not_on_the_device():
    held, _ = states(Placement(8, "zero3", True, True))
    assert set(held) == {"gathered layers", "communication buckets"}


def test_an_unknown_way_to_share_out_is_refused():
    with pytest.raises(ValueError, match="sharding is 'pipeline'"):
        states(Placement(2, "pipeline"))


def test_an_adapter_has_states_of_its_own_size_alone():
    """Rank 16 on a billion bfloat16 weights: ten million float32 numbers, with 12 bytes beside themselves."""
    small = weights(
        trained=10**7, trained_bytes=4 * 10**7, frozen=BILLION, frozen_bytes=2 * BILLION, head_trained=False
    )
    held, training = states(Placement(1, "none"), given=small)
    assert sum(held.values()) + sum(training.values()) == 2 * BILLION + 16 * 10**7


def test_the_reference_model_is_a_second_set_of_weights():
    assert memory.reference_bytes(weights(), 4, Placement()) == 4 * BILLION
    assert memory.reference_bytes(weights(), 4, Placement(8, "zero2")) == 4 * BILLION
    assert memory.reference_bytes(weights(), 4, Placement(8, "fsdp2")) == 4 * BILLION // 8


def test_keys_and_values_of_qwen_7b():
    """28 layers, 4 heads of 128: 57,344 bytes a token."""
    found = memory.kv_cache_bytes(64, 1000, layers=28, heads=4, head_size=128, size=2)
    assert found == 64 * 1000 * 57_344


def test_the_head_never_holds_all_scores():
    """8,192 tokens of a vocabulary of 152,064 in bfloat16 are 2.3 GiB of scores; a tile is 256 MiB."""
    arguments = {"vocabulary": 152_064, "hidden": 3584, "size": 2, "weight_size": 4, "cuda": True}
    forward, backward = memory.head_bytes(8192, trained=False, **arguments)
    assert forward == 4096 * 32768 * 2
    assert backward - forward == 8192 * 3584 * (4 + 2)
    _, trained = memory.head_bytes(8192, trained=True, **arguments)
    assert trained - backward == 152_064 * 3584 * 4


def test_the_head_on_a_cpu_takes_tiles_of_the_vocabulary():
    forward, _ = memory.head_bytes(100, vocabulary=320, hidden=64, size=4, weight_size=4, trained=False, cuda=False)
    assert forward == 100 * 1024 * 4 + round(7.25 * 100 * 320 * 4)


def test_an_optimizer_step_needs_scratch_where_it_is_not_fused():
    given = {"trained_bytes": 4 * BILLION, "largest_bytes": BILLION}
    assert memory.optimizer_scratch("adamw_torch", **given, cuda=True) == 4 * BILLION
    assert memory.optimizer_scratch("adamw_torch", **given, cuda=False) == 2 * BILLION
    assert memory.optimizer_scratch("adamw_torch_fused", **given, cuda=True) == 0


def test_the_peak_is_what_is_held_and_the_fullest_phase():
    found = Memory({"a": 10, "b": 5}, {"one": {"x": 3, "y": 4}, "two": {"z": 6}})
    assert (found.fullest, found.peak) == ("one", 22)


def test_four_bits_are_multiplied_a_matrix_at_a_time():
    """The largest matrix of Qwen2.5-7B: 3,584 x 18,944 numbers, 130 MiB in bfloat16."""
    assert memory.dequantized_bytes(3584 * 18944) == 135_790_592


def test_vllm_must_hold_the_model_and_a_sequence():
    assert memory.vllm_needs(16 * GIB, 4 * GIB, 2) == 11 * GIB


@pytest.mark.parametrize("name", ["RTX 4090", "rtx4090", "NVIDIA GeForce RTX 4090", "4090"])
def test_cards_go_by_many_names(name):
    assert find_card(name).name == "RTX 4090"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("A100", "may be A100 40GB, A100 80GB"),
        ("RTX 4099", "Did you mean RTX 4090?"),
        ("", "not known"),
    ],
)
def test_an_unclear_card_is_one_clear_line(name, message):
    with pytest.raises(ConfigError) as error:
        find_card(name)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_every_card_is_found_by_its_own_name_and_holds_what_it_says():
    for name, card in CARDS.items():
        assert find_card(name) is card
        assert 7 * GIB < card.memory < 200 * GIB
    assert not CARDS["T4"].bf16 and CARDS["L4"].bf16


def test_a_cpu_is_shared_by_its_processes():
    one, four = this_cpu(1), this_cpu(4)
    assert one.kind == "cpu" and 0 < four.memory < one.memory


@pytest.mark.parametrize(
    ("file", "count", "sharding"),
    [
        ("ddp", 8, "ddp"),
        ("fsdp2", 8, "fsdp2"),
        ("zero2", 8, "zero2"),
        ("zero3", 8, "zero3"),
        ("multi-node", 32, "fsdp2"),
        ("two-nodes", 16, "fsdp2"),
    ],
)
def test_accelerates_files_say_how_the_model_is_spread(file, count, sharding):
    path = ROOT / "configs" / "accelerate" / f"{file}.yaml"
    found = placement(str(path), None)
    assert (found.count, found.sharding) == (count, sharding)
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["num_machines"] * 8 == count  # cards of a machine


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("distributed_type: TPU", "distributed_type is TPU"),
        ("distributed_type: DEEPSPEED\ndeepspeed_config: {zero_stage: 1}", "zero_stage is 1"),
        ("distributed_type: FSDP\nfsdp_config: {}", "fsdp_version is None"),
        ("use_cpu: true\nper_device_train_batch_size: 16", "has no distributed_type"),
        ("- a", "must be `field: value` lines"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_file_that_cannot_be_planned_is_one_clear_line(tmp_path, text, message):
    path = tmp_path / "accelerate.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        placement(str(path), None)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_offloading_is_read_from_the_file(tmp_path):
    path = tmp_path / "zero3.yaml"
    path.write_text(
        "distributed_type: DEEPSPEED\nnum_processes: 4\n"
        "deepspeed_config: {zero_stage: 3, offload_optimizer_device: cpu}"
    )
    found = placement(str(path), None)
    assert (found.count, found.offload_optimizer, found.offload_weights) == (4, True, False)


@pytest.mark.parametrize(
    ("rows", "group", "budget", "shrinks", "expected"),
    [
        (16, 1, 4 * 150, False, (4, 150, 80, 4)),  # four rows at once, each with its prompt
        (16, 1, 4 * 150, True, (4, 150, 80, 4)),
        (4, 1, 4 * 150, False, (4, 150, 80, 1)),
        (3, 1, 100, False, (1, 150, 20, 3)),  # a row that is longer than the budget is by itself
        (16, 8, 16 * 150, False, (2, 290, 320, 1)),  # both groups: 2 x (130 + 8 x 20)
        (32, 8, 16 * 150, True, (2, 290, 320, 2)),  # no more groups than with separate prompts
        (32, 8, 16 * 150, False, (4, 290, 640, 1)),
        (16, 8, 500, False, (1, 290, 160, 2)),
        (16, 8, 250, False, (1, 250, 120, 3)),  # six of a group
    ],
)
def test_the_fullest_microbatch_computes_a_prompt_once_for_its_group(rows, group, budget, shrinks, expected):
    found = memory.fullest_pass(rows, group, prompt=130, completion=20, budget=budget, shrinks=shrinks)
    assert (found.lines, found.length, found.scored, found.passes) == expected


@pytest.mark.parametrize(("rows", "longest", "budget"), [(16, 100, 1600), (16, 100, 850), (7, 64, 200), (5, 300, 128)])
def test_passes_are_those_that_the_trainer_makes(rows, longest, budget):
    found = memory.fullest_pass(rows, 1, prompt=longest - 10, completion=10, budget=budget)
    assert found.passes == len(split_tokens([longest] * rows, budget))
