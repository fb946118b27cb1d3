"""DAPO (arXiv 2503.14476) on top of Hugging Face TRL."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import DAPOConfig
    from .monitor.console import ConsoleCallback
    from .trainer import DAPOTrainer

__all__ = ["ConsoleCallback", "DAPOConfig", "DAPOTrainer"]
__version__ = "0.1.0"

_HOMES = {"ConsoleCallback": ".monitor.console", "DAPOConfig": ".config", "DAPOTrainer": ".trainer"}


def __getattr__(name: str) -> Any:
    """Import a class on first use: the command line answers ``--help`` without waiting for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name], __name__), name)


def _require_own_envs() -> None:
    """Refuse another distribution's ``envs``, a name that is common.

    Raises:
        ImportError: with the path of the package that Python found.
    """
    import envs

    if getattr(envs, "TaskEnv", None) is not None:
        return
    found = Path(getattr(envs, "__file__", None) or next(iter(envs.__path__), "an unknown place"))
    raise ImportError(
        f"dapo_trl needs its own package 'envs', but Python found another one at {found}. Rename that folder or "
        "uninstall its distribution, or put dapo-trl's install location before it on sys.path (PYTHONPATH)."
    )


_require_own_envs()
