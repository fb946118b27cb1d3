"""The parts that a Hugging Face checkpoint lacks: the state of the prompt stream, the rollouts still to be trained on,
and a mark that the checkpoint is complete.

A checkpoint is torn from `begin` to `finish`, which lists its files and their sizes in ``dapo_manifest.json``. A run
never resumes from a checkpoint with a `problem`.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..errors import ConfigError

UNFINISHED = "dapo_unfinished"
MANIFEST = "dapo_manifest.json"
SIGNATURE = "DAPOTrainer"
_ASIDE = "-old"
_NAME = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)({_ASIDE})?")


def _restore_on_cpu(storage: Any, location: str) -> Any:
    return storage if re.fullmatch(r"cpu:\d+", location) else None


# With several CPU processes accelerate calls the device "cpu:0", which `torch.load` knows as "cpu" alone: without this
# no such run could load its optimizer.
torch.serialization.register_package(11, lambda storage: None, _restore_on_cpu)


# One checkpoint: is it complete?


def signature(step: int) -> dict[str, dict[str, int]]:
    """The entry in the ``stateful_callbacks`` of a trainer's state that marks a checkpoint with a manifest.

    Without it, one that lost its manifest would look like one of plain TRL, which never had any.
    """
    return {SIGNATURE: {"step": step}}


def begin(folder: Path) -> None:
    """Open a checkpoint folder for writing: until `finish` it counts as torn.

    A torn one of the same name is cleared away, a complete one is kept beside it until the new one is complete.
    """
    if folder.exists():
        if problem(folder) is None:
            aside = _aside(folder)
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
        else:
            shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / UNFINISHED).touch()


def finish(folder: Path, shape: dict[str, int] | None = None) -> None:
    """Declare a checkpoint complete; every process must have written its files.

    Args:
        shape: A `BatchShape`, to be read without the states.
    """
    sizes = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != UNFINISHED
    }
    scratch = folder / f"{MANIFEST}.tmp"
    scratch.write_text(json.dumps({"bytes": sizes, "shape": shape}, indent=2) + "\n", encoding="utf-8")
    scratch.replace(folder / MANIFEST)
    (folder / UNFINISHED).unlink()
    shutil.rmtree(_aside(folder), ignore_errors=True)


def _aside(folder: Path) -> Path:
    return folder.with_name(folder.name + _ASIDE)


def problem(folder: str | Path) -> str | None:
    """The fault of an incomplete checkpoint, in a few words; None for a complete one.

    One without marks of ours was made by plain TRL: it passes if it has the trainer's state, the last file written.
    """
    folder = Path(folder)
    if (folder / UNFINISHED).exists():
        return "it was not written to its end"
    state = folder / TRAINER_STATE_NAME
    if not state.is_file():
        return f"{TRAINER_STATE_NAME} is missing"
    if not (folder / MANIFEST).is_file():
        return _problem_without_manifest(state)
    try:
        sizes = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["bytes"].items()
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is damaged"
    for name, size in sizes:
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
    return None


def _problem_without_manifest(state: Path) -> str | None:
    try:
        content = json.loads(state.read_text(encoding="utf-8"))
        ours = (content.get("stateful_callbacks") or {}).items() >= signature(content["global_step"]).items()
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{TRAINER_STATE_NAME} is damaged"
    return f"{MANIFEST} is missing" if ours else None


# Several checkpoints: which one to resume from?


def last_complete(folder: str | Path) -> tuple[Path | None, list[tuple[Path, str]]]:
    """The newest complete checkpoint in a run's folder, None if there is none; and the torn ones that are newer, each
    with its fault."""
    return _first_complete(_newest_first(Path(folder)))


def remove_torn(folder: str | Path) -> None:
    """Delete every torn checkpoint in a run's folder, so that none takes the place of one worth keeping."""
    for path in _newest_first(Path(folder)):
        if problem(path) is not None:
            shutil.rmtree(path, ignore_errors=True)


def choose(wanted: str | Path | bool, output_dir: str | Path) -> tuple[str, list[str]]:
    """The checkpoint to resume from.

    Args:
        wanted: ``True`` or ``"latest"`` for the newest complete one in ``output_dir``, or a checkpoint's path. A torn
            checkpoint gives way to the newest complete one before it.

    Returns:
        Its path, and one line for each torn checkpoint that was passed over.

    Raises:
        ConfigError: there is no complete checkpoint to resume from.
    """
    if str(wanted).lower() in ("true", "latest"):
        folder, among = Path(output_dir), ""
        found, passed = last_complete(folder)
    else:
        folder, among = Path(str(wanted)).parent, " up to that one"
        found, passed = _this_or_before(Path(str(wanted)))
    if found is None:
        torn = "; ".join(f"{path.name}: {reason}" for path, reason in passed)
        holds = f"no complete checkpoint{among} ({torn})" if torn else "no checkpoint"
        raise ConfigError(
            f"resume_from_checkpoint is {wanted}, but {folder} holds {holds}. Name a complete checkpoint, or start "
            "anew without resume_from_checkpoint."
        )
    return str(found), [f"{path} is torn ({reason}): resuming from {found} instead." for path, reason in passed]


def _this_or_before(wanted: Path) -> tuple[Path | None, list[tuple[Path, str]]]:
    if not wanted.is_dir():
        raise ConfigError(
            f"resume_from_checkpoint is {wanted}: there is no such folder. Name a checkpoint, or 'latest' for the "
            "newest one in output_dir."
        )
    paths = _newest_first(wanted.parent)
    if wanted in paths:
        return _first_complete(paths[paths.index(wanted) :])
    torn = problem(wanted)  # a name without a step has no predecessor
    if torn is not None:
        raise ConfigError(
            f"resume_from_checkpoint is {wanted}, which is not a complete checkpoint ({torn}). Name a folder "
            f"{PREFIX_CHECKPOINT_DIR}-<step>, or 'latest' for the newest one in output_dir."
        )
    return wanted, []


def _first_complete(paths: list[Path]) -> tuple[Path | None, list[tuple[Path, str]]]:
    passed: list[tuple[Path, str]] = []
    for path in paths:
        torn = problem(path)
        if torn is None:
            return path, passed
        passed.append((path, torn))
    return None, passed


def _newest_first(folder: Path) -> list[Path]:
    """The checkpoints in a folder, by their steps; one kept aside comes after the one that replaces it."""
    paths = folder.iterdir() if folder.is_dir() else ()
    found = [
        (int(match[1]), match[2] is None, path)
        for path in paths
        if (match := _NAME.fullmatch(path.name)) and path.is_dir()
    ]
    return [path for _, _, path in sorted(found, reverse=True)]


# The state of each process


def state_file(folder: str | Path, process: int) -> Path:
    return Path(folder) / f"dapo_state_{process}.pt"


def save_state(folder: str | Path, process: int, state: dict[str, Any]) -> None:
    """Write one process's state into a checkpoint folder: complete under its final name, or not at all."""
    path = state_file(folder, process)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp")
    torch.save(state, scratch)
    scratch.replace(path)


def load_states(folder: str | Path, processes: Sequence[int]) -> list[dict[str, Any]]:
    """Read back the states of these processes.

    Raises:
        ConfigError: One is missing.
    """
    for process in processes:
        if not state_file(folder, process).exists():
            raise ConfigError(
                f"{folder} holds no state of process {process}: all processes must see the same folder, or on as many "
                "processes as before save_on_each_node must be on."
            )
    return [torch.load(state_file(folder, number), map_location="cpu", weights_only=True) for number in processes]
