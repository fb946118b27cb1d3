"""The devices of a run that need not be here: their memory, how many there are, and how a model is spread over them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch

from ..config import DAPOConfig
from ..errors import ConfigError, did_you_mean
from ..settings import accelerate_files, find_config, read_mapping

MIB, GIB = 2**20, 2**30


@dataclass(frozen=True)
class Card:
    """A device that a process trains on."""

    name: str
    memory: int
    """Bytes of its memory."""
    bf16: bool = True
    """Whether it computes in bfloat16 (compute capability 8 or more)."""
    kind: str = "cuda"
    """Kind of device: "cuda" or "cpu"."""


_TABLE = {  # MiB as nvidia-smi reports them, which is less than is printed on the box where ECC takes its share
    "RTX 2080 Ti": 11264,
    "RTX 3060": 12288,
    "RTX 3080": 10240,
    "RTX 3090": 24576,
    "RTX 4060": 8188,
    "RTX 4060 Ti 16GB": 16380,
    "RTX 4070": 12282,
    "RTX 4070 Ti SUPER": 16376,
    "RTX 4080": 16376,
    "RTX 4090": 24564,
    "RTX 5070 Ti": 16303,
    "RTX 5080": 16303,
    "RTX 5090": 32607,
    "RTX A6000": 49140,
    "RTX 6000 Ada": 49140,
    "V100 16GB": 16384,
    "V100 32GB": 32768,
    "T4": 15360,
    "L4": 23034,
    "L40S": 46068,
    "A10": 23028,
    "A10G": 23028,
    "A100 40GB": 40960,
    "A100 80GB": 81920,
    "H20": 97871,
    "H100 80GB": 81559,
    "H200": 143771,
    "B200": 183359,
}
_WITHOUT_BF16 = ("RTX 2080 Ti", "V100 16GB", "V100 32GB", "T4")
CARDS = {name: Card(name, mib * MIB, bf16=name not in _WITHOUT_BF16) for name, mib in _TABLE.items()}


def find_card(name: str) -> Card:
    """The card of a name, whatever its case and spaces; a part of a name will do if it is one card's alone.

    Raises:
        ConfigError: no card, or more than one, has such a name.
    """
    wanted = _plain(name)
    exact = [card for card in CARDS.values() if _plain(card.name) == wanted]
    found = exact or [card for card in CARDS.values() if wanted and wanted in _plain(card.name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"card is {name!r}, which may be {', '.join(card.name for card in found)}: name one of them.")
    raise ConfigError(f"card is {name!r}, which is not known.{did_you_mean(name, CARDS)} Known: {', '.join(CARDS)}.")


def card_here() -> Card | None:
    """The GPU of this machine; None without one."""
    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    return Card(properties.name, properties.total_memory, bf16=properties.major >= 8)


def this_cpu(processes: int = 1) -> Card:
    """The share of one of ``processes`` in this machine's memory: available memory now, or a container's limit."""
    free = psutil.virtual_memory().available
    limit, used = (_number(Path("/sys/fs/cgroup") / f"memory.{name}") for name in ("max", "current"))
    if limit is not None and used is not None:
        free = min(free, limit - used)
    return Card(f"this CPU, {os.cpu_count()} cores", max(free, 0) // processes, kind="cpu")


@dataclass(frozen=True)
class Placement:
    """A model on ``count`` devices of one kind, one process each."""

    count: int = 1
    sharding: str = "none"
    """One of "none" (one device), "ddp", "zero2", "zero3" and "fsdp2"."""
    offload_optimizer: bool = False
    """Whether the optimizer's states are kept in the memory of the machine."""
    offload_weights: bool = False
    """Whether the weights are kept there too."""

    @property
    def shards_weights(self) -> bool:
        """Whether each device holds a part of the weights."""
        return self.sharding in ("zero3", "fsdp2")


def placement(path: str | None, count: int | None) -> Placement:
    """The placement that a configuration file of accelerate asks for.

    Args:
        path: the file, or the name of one that comes with the project; None: one device, or DDP.
        count: of devices, in place of the file's.

    Raises:
        ConfigError: the file is missing or asks for something that cannot be planned.
    """
    values = {} if path is None else _read(find_config(path, among=accelerate_files()))
    count = count or int(values.get("num_processes") or 1)
    kind = str(values.get("distributed_type", "NO")).upper()
    if kind == "DEEPSPEED":
        given = values.get("deepspeed_config") or {}
        stage = given.get("zero_stage")
        if stage not in (2, 3):
            raise ConfigError(f"{path}: zero_stage is {stage!r}: 2 and 3 can be planned.")
        offloaded = [given.get(f"offload_{part}_device", "none") != "none" for part in ("optimizer", "param")]
        return Placement(count, f"zero{stage}", *offloaded)
    if kind == "FSDP":
        given = values.get("fsdp_config") or {}
        if given.get("fsdp_version") != 2:
            raise ConfigError(f"{path}: fsdp_version is {given.get('fsdp_version')!r}: set it to 2.")
        offload = bool(given.get("fsdp_offload_params"))
        return Placement(count, "fsdp2", offload, offload)
    if kind not in ("NO", "MULTI_GPU", "MULTI_CPU"):
        raise ConfigError(f"{path}: distributed_type is {kind}: MULTI_GPU, FSDP and DEEPSPEED can be planned.")
    return Placement(count, "ddp" if count > 1 else "none")


@dataclass
class PlannedConfig(DAPOConfig):
    """A `DAPOConfig` as it would be on devices that need not be here."""

    card: Card = field(default_factory=this_cpu)
    placement: Placement = field(default_factory=Placement)

    @property
    def world_size(self) -> int:
        """Processes, one for each device."""
        return self.placement.count

    @property
    def device(self) -> torch.device:
        """The kind of device that is planned for."""
        return torch.device(self.card.kind)

    def _processes(self) -> int:
        return self.placement.count


def planned_config(card: str | None, where: Placement) -> Callable[..., PlannedConfig]:
    """A factory of a run's settings on these devices, for `run.settings.load_settings`.

    Args:
        card: its name; None: the GPU that is here, or else the memory of this machine.
    """

    def make(use_cpu: bool = False, bf16: bool | None = None, fp16: bool = False, **values: Any) -> PlannedConfig:
        if card is not None and use_cpu:
            raise ConfigError(f"card is {card!r} and use_cpu is true: the run would not touch it. Drop one of the two.")
        found = find_card(card) if card is not None else None if use_cpu else card_here()
        chosen = found or this_cpu(where.count)
        # Transformers refuses number formats that the device at hand lacks, so they are set afterwards.
        made = PlannedConfig(card=chosen, placement=where, use_cpu=True, bf16=False, **values)
        made.use_cpu, made.fp16 = use_cpu, fp16
        made.bf16 = bf16 if bf16 is not None else not fp16 and chosen.kind == "cuda" and chosen.bf16
        return made

    return make


def _plain(name: str) -> str:
    return re.sub(r"nvidia|geforce|tesla|[^a-z0-9]", "", name.lower())


def _number(path: Path) -> int | None:
    """The number in a control file of the kernel; None for "max" and where there is no file."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _read(path: Path) -> dict[str, Any]:
    values = read_mapping(path, what="accelerate's configuration file")
    if "distributed_type" not in values:
        raise ConfigError(
            f"accelerate's configuration file {path} has no distributed_type, which accelerate asks for: give the file "
            "that accelerate launch --config_file takes (some are in configs/accelerate)."
        )
    return values
