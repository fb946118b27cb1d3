"""The start of a command: quiet libraries, threads for the cores, a folder that can be written to."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from ..errors import ConfigError, DapoError, DiskFullError, one_line
from ..monitor.console import ConsoleHandler

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_ROOM_SIGNS = (
    "No space left on device",
    "Disk quota exceeded",
    "File too large",
    "PytorchStreamWriter failed writing",
    ". unexpected pos ",
)
"""Parts of the messages of libraries that do not raise an `OSError`; torch names no cause."""


def quieten(console: Console) -> None:
    """Silence progress bars and notices of libraries; this project's warnings go to the console."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    logger = logging.getLogger("dapo_trl")
    logger.handlers, logger.propagate = [ConsoleHandler(console)], False


def share_cores(device: torch.device, processes: int) -> None:
    """Give each process of a machine without a GPU its share of the cores, unless OMP_NUM_THREADS says otherwise."""
    if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max((os.cpu_count() or 1) // processes, 1))


@contextlib.contextmanager
def explain_full_disk(folder: Path) -> Iterator[None]:
    """Turn a write that failed on a full disk into one line.

    Raises:
        DiskFullError: In place of the exception of the library that wrote.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        full = getattr(error, "errno", None) in NO_ROOM or any(sign in str(error) for sign in NO_ROOM_SIGNS)
        if isinstance(error, DapoError) or not full:
            raise
        free = shutil.disk_usage(folder).free
        raise DiskFullError(
            f"{folder} cannot be written to any more ({one_line(error)}; {free / 1e6:,.0f} MB are free). Make room, or "
            "keep fewer checkpoints (save_total_limit), and go on with --resume_from_checkpoint latest."
        ) from error


def check_folder(name: str, folder: Path) -> None:
    """Refuse a folder that cannot be made or written to; nothing is left behind.

    Args:
        name: the setting, for messages.

    Raises:
        ConfigError: the folder is a file, lies below one, or is not writable.
    """
    if folder.is_file():
        raise ConfigError(f"{name} {folder} is a file: it must be a folder, or not exist yet.")
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ConfigError(f"{name} is {folder}: {there} is a file, so there can be no folder below it.")
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise ConfigError(f"{name} is {folder}: {there} cannot be written to ({error.strerror}).") from error
