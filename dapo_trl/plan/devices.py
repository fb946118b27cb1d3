"""How many devices, how the model is spread over them, and a run's settings as they would be there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
import yaml

from ..config import DAPOConfig
from ..errors import ConfigError, one_line
from .cards import Card, card_here, find_card, this_cpu

SHARDINGS = ("none", "ddp", "zero2", "zero3", "fsdp2")


@dataclass(frozen=True)
class Devices:
    """``count`` devices of one kind, one process each."""

    card: Card
    count: int = 1
    sharding: str = "none"
    """``"none"`` (one device), ``"ddp"``, ``"zero2"``, ``"zero3"`` or ``"fsdp2"``"""
    offload_optimizer: bool = False
    """the optimizer's states are kept in the memory of the machine"""
    offload_weights: bool = False
    """the weights too"""

    @property
    def shards_weights(self) -> bool:
        return self.sharding in ("zero3", "fsdp2")


class PlannedConfig(DAPOConfig):
    """A `DAPOConfig` as it would be on devices that need not be here."""

    devices: ClassVar[Devices]

    @property
    def world_size(self) -> int:
        return self.devices.count

    @property
    def device(self) -> torch.device:
        return torch.device(self.devices.card.kind)

    def _processes(self) -> int:
        return self.devices.count


def spread(path: str | None, count: int | None) -> Devices:
    """Devices as a configuration file of accelerate names them; the card is not known yet.

    Args:
        path: the file; None: one device, or DDP.
        count: of devices, in place of the file's.

    Raises:
        ConfigError: the file is missing or asks for something that cannot be planned.
    """
    unknown = Card("", 0)
    if count is not None and count < 1:
        raise ConfigError(f"devices is {count}: it must be 1 or more.")
    if path is None:
        return Devices(unknown, count or 1, "ddp" if (count or 1) > 1 else "none")
    values = _read(Path(path))
    count = count or int(values.get("num_processes") or 1)
    kind = str(values.get("distributed_type", "NO")).upper()
    if kind == "DEEPSPEED":
        given = values.get("deepspeed_config") or {}
        stage = given.get("zero_stage")
        if stage not in (2, 3):
            raise ConfigError(f"{path}: zero_stage is {stage!r}: 2 and 3 can be planned.")
        return Devices(
            unknown,
            count,
            f"zero{stage}",
            offload_optimizer=given.get("offload_optimizer_device", "none") != "none",
            offload_weights=given.get("offload_param_device", "none") != "none",
        )
    if kind == "FSDP":
        given = values.get("fsdp_config") or {}
        if given.get("fsdp_version") != 2:
            raise ConfigError(f"{path}: fsdp_version is {given.get('fsdp_version')!r}: set it to 2.")
        offload = bool(given.get("fsdp_offload_params"))
        return Devices(unknown, count, "fsdp2", offload_optimizer=offload, offload_weights=offload)
    if kind not in ("NO", "MULTI_GPU", "MULTI_CPU"):
        raise ConfigError(f"{path}: distributed_type is {kind}: MULTI_GPU, FSDP and DEEPSPEED can be planned.")
    return Devices(unknown, count, "ddp" if count > 1 else "none")


def planned_config(devices: Devices, card: str | None) -> Callable[..., DAPOConfig]:
    """What makes a run's settings for these devices; the result's ``devices`` has the card.

    Args:
        card: its name; None: the GPU that is here, or else the memory of this machine.
    """

    def make(use_cpu: bool = False, bf16: bool | None = None, fp16: bool = False, **values: Any) -> DAPOConfig:
        if card is not None and use_cpu:
            raise ConfigError(f"card is {card!r} and use_cpu is true: the run would not touch it. Drop one of the two.")
        here = find_card(card) if card is not None else None if use_cpu else card_here()
        chosen = replace(devices, card=here or this_cpu(devices.count))
        made = type("PlannedConfig", (PlannedConfig,), {"devices": chosen})(use_cpu=True, bf16=False, **values)
        made.use_cpu, made.fp16 = use_cpu, fp16
        made.bf16 = bf16 if bf16 is not None else not fp16 and chosen.card.kind == "cuda" and chosen.card.bf16
        return made

    return make


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"accelerate's configuration file {path} cannot be read: {one_line(error)}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"accelerate's configuration file {path} is not valid YAML: {one_line(error)}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"accelerate's configuration file {path} holds no `field: value` lines.")
    return values
