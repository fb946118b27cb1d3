"""Environments of installed packages, announced through the entry-point group `dapo_trl.envs`.

A package that has tasks for this one says so in its `pyproject.toml`, and they are there wherever `envs` is imported,
in the workers of vector environments too:

    [project.entry-points."dapo_trl.envs"]
    my-tasks = "my_tasks"             # a module, which registers its environments when it is imported
    # or: my-tasks = "my_tasks:register"  # a callable, which registers them when it is called

Gymnasium itself loads no plug-ins.
"""

from __future__ import annotations

import sys
import warnings
from importlib.metadata import EntryPoint, entry_points

from .text import one_line, place_of

GROUP = "dapo_trl.envs"


class PluginWarning(UserWarning):
    """An installed package's environments could not be registered."""


def load_plugins() -> None:
    """Load every plug-in; one that fails costs a warning that names its distribution, and nothing else."""
    for plugin in sorted(entry_points(group=GROUP), key=lambda plugin: (plugin.value, plugin.name)):
        try:
            _load(plugin)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit too: no plug-in may keep this package from being imported
            warnings.warn(
                f"the environments that {_distribution(plugin)} announces ({plugin.name} = {plugin.value!r}) are "
                f"missing: {type(error).__name__}: {one_line(error)} ({place_of(error)}). Update that package, or "
                "uninstall it",
                PluginWarning,
                stacklevel=2,
            )


def _load(plugin: EntryPoint) -> None:
    """Import a plug-in's module and call the function that it names there, if any."""
    # the import system's own mark of a module whose import has begun and not ended
    loading = getattr(getattr(sys.modules.get(plugin.module), "__spec__", None), "_initializing", False)
    if not loading:
        announced = plugin.load()
        if callable(announced):
            announced()
    elif plugin.attr:
        raise ImportError(
            f"{plugin.module} was imported first and is not complete while it imports envs itself, so that "
            f"{plugin.attr} could not be called; write `import envs` before `import {plugin.module}`"
        )  # a plug-in that is a module goes on with its own import, and registers its environments there


def _distribution(plugin: EntryPoint) -> str:
    try:
        return f"{plugin.dist.name} {plugin.dist.version}"  # type: ignore[union-attr]
    except Exception:  # metadata that is incomplete
        return "an installed package"
