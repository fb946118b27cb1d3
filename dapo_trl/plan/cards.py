"""Devices by name, with their memory."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError, did_you_mean

MIB, GIB = 2**20, 2**30


@dataclass(frozen=True)
class Card:
    """A device that a process trains on."""

    name: str
    memory: int
    """bytes"""
    bf16: bool = True
    """computes in bfloat16 (compute capability 8 or more)"""
    kind: str = "cuda"
    """``"cuda"`` or ``"cpu"``"""


_TABLE = {  # MiB as the driver reports them, which is less than is printed on the box where ECC takes its share
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
    import torch

    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    return Card(properties.name, properties.total_memory, bf16=properties.major >= 8)


def this_cpu(processes: int = 1) -> Card:
    """This machine's memory, as one of ``processes`` may use it: what is available now, or a container's limit."""
    import psutil

    free = psutil.virtual_memory().available
    limit, used = (_number(Path("/sys/fs/cgroup") / f"memory.{name}") for name in ("max", "current"))
    if limit is not None and used is not None:
        free = min(free, limit - used)
    return Card(f"this CPU, {os.cpu_count()} cores", max(free, 0) // processes, kind="cpu")


def _plain(name: str) -> str:
    return re.sub(r"nvidia|geforce|tesla|[^a-z0-9]", "", name.lower())


def _number(path: Path) -> int | None:
    """Of a control file of the kernel; "max" is none."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
