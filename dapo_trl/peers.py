"""When another process of a run dies or hangs: this one ends with one clear line, and does not wait without end.

What dies on one machine is noticed at once by the launcher, which ends the others; this is about what those say.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta

import torch.distributed
from torch.distributed.distributed_c10d import _set_pg_timeout

from .errors import DapoError, LostProcessError

SIGNS = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out waiting", "timeout caused")
"""what gloo says of a process that is gone, or silent; NCCL raises an exception of its own"""


def keep_to(timeout: timedelta) -> None:
    """Hold the processes to ``ddp_timeout``, which transformers hands on only where it finds GPUs."""
    if torch.distributed.is_initialized():
        _set_pg_timeout(timeout)


@contextlib.contextmanager
def losses_named() -> Iterator[None]:
    """A wait for another process that came to nothing is one clear line.

    Raises:
        LostProcessError: in place of what the backend raised.
    """
    try:
        yield
    except RuntimeError as error:
        named = isinstance(error, torch.distributed.DistError) or any(sign in str(error) for sign in SIGNS)
        if isinstance(error, DapoError) or not (torch.distributed.is_initialized() and named):
            raise
        raise LostProcessError(
            "another process of this run has ended, or has not answered within ddp_timeout, so this one stops too. "
            "The launcher's report says which one ended, and of what (SIGKILL: out of memory, most often)."
        ) from error
