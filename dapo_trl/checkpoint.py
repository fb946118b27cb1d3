"""What a Hugging Face checkpoint leaves out: where the prompt stream stands and the rollouts still to be trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from .errors import ConfigError


def _file(folder: str | Path, process: int) -> Path:
    return Path(folder) / f"dapo_state_{process}.pt"


def save_state(folder: str | Path, process: int, state: dict[str, Any]) -> None:
    """Write one process's state into a checkpoint folder: complete under its final name, or not at all."""
    path = _file(folder, process)
    scratch = path.with_suffix(".tmp")
    torch.save(state, scratch)
    scratch.replace(path)


def load_state(folder: str | Path, process: int) -> dict[str, Any] | None:
    """Read it back; None for a checkpoint that another trainer wrote."""
    path = _file(folder, process)
    if path.exists():
        return torch.load(path, map_location="cpu", weights_only=True)
    if _file(folder, 0).exists():
        raise ConfigError(
            f"{folder} was written by fewer processes than now run: process {process} finds no {path.name}. Resume "
            "with the number of processes of the interrupted run."
        )
    return None
