"""DAPO (arXiv 2503.14476) on top of Hugging Face TRL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._envs_guard import require_own_envs

require_own_envs()

if TYPE_CHECKING:
    from .config import DAPOConfig
    from .trainer import DAPOTrainer

__all__ = ["DAPOConfig", "DAPOTrainer"]
__version__ = "0.1.0"


def __getattr__(name: str):
    """Import the trainer on first use: the command line answers ``--help`` without waiting for torch."""
    if name == "DAPOConfig":
        from .config import DAPOConfig

        return DAPOConfig
    if name == "DAPOTrainer":
        from .trainer import DAPOTrainer

        return DAPOTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
