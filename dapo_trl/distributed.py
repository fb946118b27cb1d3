"""The processes of a run: they generate in step where they hold the model in parts, and none waits without end for one
that died or hangs.

The launcher notices at once what dies on its machine and ends the others; `explain_lost_process` turns what those raise
into one line.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch.distributed.distributed_c10d import _set_pg_timeout

from .errors import DapoError, LostProcessError
from .rollout.episode_runner import SyncFn
from .update.microbatches import SHARDED

if TYPE_CHECKING:
    from .trainer import DAPOTrainer

SIGNS = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out waiting", "timeout caused")
"""what gloo says of a process that is gone, or silent; NCCL raises an exception of its own"""


def keep_together(trainer: DAPOTrainer) -> None:
    """See to what transformers and accelerate leave out for several processes."""
    if torch.distributed.is_initialized():  # transformers hands ddp_timeout on only where it finds GPUs
        _set_pg_timeout(trainer.args.ddp_timeout_delta)
    if trainer.accelerator.distributed_type == DistributedType.FSDP:
        # accelerate does not mark what it shards as transformers does, whose `generate` would then let a process stop
        # while the others still wait for its part of the weights.
        model = trainer.model
        getattr(model, "get_base_model", lambda: model)()._is_fsdp_managed_module = True


def in_step(accelerator: Accelerator) -> dict[str, SyncFn]:
    """What makes processes that hold the model in parts generate all together: as many as any of them, every time."""

    def sync(active: int, room: int) -> tuple[int, int]:
        mine = torch.tensor([[active, room]], device=accelerator.device)
        most = accelerator.gather(mine).max(dim=0).values.tolist()
        return most[0], most[1]

    return {"sync": sync} if accelerator.distributed_type in SHARDED else {}


@contextlib.contextmanager
def explain_lost_process() -> Iterator[None]:
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
