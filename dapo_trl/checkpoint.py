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
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp")
    torch.save(state, scratch)
    scratch.replace(path)


def load_state(folder: str | Path, process: int, *, shape: dict[str, int]) -> dict[str, Any] | None:
    """Read it back; None for a checkpoint that holds none.

    Args:
        shape: the numbers that cut a rollout batch into pieces; the checkpoint's ``state["shape"]`` must be the same,
            or its unfinished rollout batch could not be continued.
    """
    path = _file(folder, process)
    first = path if path.exists() else _file(folder, 0)
    if not first.exists():
        return None
    state = torch.load(first, map_location="cpu", weights_only=True)
    different = [f"{name} {state['shape'].get(name)}, now {value}" for name, value in shape.items()
                 if state["shape"].get(name) != value]  # fmt: skip
    if different:
        raise ConfigError(f"{folder} was written with {'; '.join(different)}: resume with the same numbers.")
    return state
