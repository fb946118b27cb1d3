"""``envs`` is a name other packages use too: notice at once when theirs is the one that Python found."""

from __future__ import annotations

from pathlib import Path


def require_own_envs() -> None:
    """Raise ImportError, naming the path, if ``import envs`` gives another distribution's package."""
    import envs

    if getattr(envs, "TaskEnv", None) is not None:
        return
    found = Path(getattr(envs, "__file__", None) or next(iter(envs.__path__), "an unknown place"))
    raise ImportError(
        f"dapo_trl needs its own package 'envs', but Python found another one at {found}. Rename that folder or "
        "uninstall its distribution, or put dapo-trl's install location before it on sys.path (PYTHONPATH)."
    )
