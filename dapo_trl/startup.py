"""What a command settles before it begins: quiet libraries, and as many threads as there are cores to run them."""

from __future__ import annotations

import logging
import os

import torch
from rich.console import Console
from transformers.utils import logging as transformers_logging

from .console import ConsoleHandler


def quieten(console: Console) -> None:
    """Libraries' own bars and notices would tear the output apart; warnings of ours stay."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logger = logging.getLogger("dapo_trl")
    logger.handlers, logger.propagate = [ConsoleHandler(console)], False


def share_cores(device: torch.device, processes: int) -> None:
    """Give each process of a machine without a GPU its share of the cores, unless OMP_NUM_THREADS says otherwise."""
    if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max((os.cpu_count() or 1) // processes, 1))
