"""The settings in force, kept in the run's folder, and what a resumed run has changed of them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..config import DAPOConfig
from ..errors import ConfigError
from ..settings import names_of
from .settings import RunConfig

SETTINGS = "settings.json"
DECISIVE = (
    "model",
    "env",
    "env_kwargs",
    "env_wrappers",
    "system_prompt",
    "few_shot",
    "prompt_template",
    "group_filter",
    "filter_key",
    "loss_type",
    "importance_sampling_level",
    "scale_rewards",
    "turn_credit",
    "lora_rank",
    "lora_alpha",
    "lora_targets",
    "lora_rslora",
    "lora_dora",
    "quantization",
)
"""Settings without which it is no longer the same run: its state and its curves would mix two."""
PASSING = ("output_dir", "overwrite", "resume_from_checkpoint", "allow_changes", "local_rank", "disable_tqdm")
"""Settings of one start, which are not compared."""


def in_force(run: RunConfig, args: DAPOConfig) -> dict[str, Any]:
    """Every setting, defaults included, as data that JSON can hold."""
    return plain({**args.to_dict(), **asdict(run)})


def write_settings(folder: Path, run: RunConfig, args: DAPOConfig) -> None:
    """Write every setting in force; a resumed run may have others than before.

    Raises:
        ConfigError: The folder cannot be written to.
    """
    try:
        (folder / SETTINGS).write_text(f"{json.dumps(in_force(run, args), indent=2)}\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"output_dir {folder} cannot be written: {error}") from error


def changes_since(checkpoint: Path, run: RunConfig, args: DAPOConfig) -> list[str]:
    """The settings that are not those of the run that wrote a checkpoint, each with both values.

    Empty too where that run left no settings, as one from Python does.

    Raises:
        ConfigError: A `DECISIVE` one has changed, and ``allow_changes`` is off.
    """
    try:
        before = json.loads((checkpoint.parent / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    if not isinstance(before, dict):
        return []
    now = in_force(run, args)
    known = (names_of(RunConfig) | names_of(DAPOConfig)).difference(PASSING)
    changed = {
        name: f"{name} {_short(before[name])} -> {_short(now[name])}"
        for name in sorted(known & before.keys() & now.keys())
        if before[name] != now[name] and not (name == "model" and _same_folder(before[name], now[name]))
    }
    refused = [line for name, line in changed.items() if name in DECISIVE]
    if refused and not run.allow_changes:
        raise ConfigError(
            f"{checkpoint} is of another run: {'; '.join(refused)}. Resume with the same settings, start anew in "
            "another output_dir, or go on with --allow_changes true."
        )
    return list(changed.values())


def resumed(checkpoint: Path, changed: list[str]) -> str:
    """Where a run goes on and with which changes, in a line."""
    step = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["global_step"]
    what = f"Changed since then: {', '.join(changed)}." if changed else "No setting has changed."
    return f"Resuming from step {step} ({checkpoint}). {what}"


def plain(value: Any) -> Any:
    """A value as JSON and YAML hold it; what they cannot becomes text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def _same_folder(one: str, other: str) -> bool:
    return Path(one).is_dir() and Path(one).resolve() == Path(other).resolve()


def _short(value: Any) -> str:
    text = json.dumps(value) if isinstance(value, dict | list) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
