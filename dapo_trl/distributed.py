"""The processes of a run: they generate in step where the model is sharded, and none waits without end for another that
died or hangs.

The launcher notices at once when a process dies on its machine and ends the others; `explain_lost_process` turns the
exceptions of those others into one line.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, disable_fsdp_ram_efficient_loading
from torch import nn
from torch.distributed.distributed_c10d import _set_pg_timeout
from trl import GRPOConfig
from trl.models.utils import unwrap_model_for_generation

from .errors import ConfigError, DapoError, LostProcessError

SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED)
SyncFn = Callable[[int, int], tuple[int, int]]
"""``sync(active, room)``: agree with the other processes on the number of contexts to generate for, and on the most
tokens of any of them. The first is 0 when no process has anything left to generate."""
SIGNS = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out waiting", "timeout caused")
"""Parts of gloo's messages about a process that is gone or silent; NCCL raises an exception of its own."""


def set_timeout(timeout: timedelta) -> None:
    """Bound every wait for another process: transformers hands ``ddp_timeout`` on only where it finds GPUs."""
    if torch.distributed.is_initialized():
        _set_pg_timeout(timeout)


def load_on_every_process(wanted: bool) -> None:
    """Let each process load the weights itself, if that is wanted.

    Under ``fsdp_cpu_ram_efficient_loading`` the first process of a machine reads them, and the others have random ones
    until the model is sharded. That is too late for a measurement before training, and a reference model is never
    filled at all.
    """
    if wanted and _asked("FSDP_CPU_RAM_EFFICIENT_LOADING"):
        disable_fsdp_ram_efficient_loading()


def _asked(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes")


def mark_sharded(model: Any, accelerator: Accelerator) -> None:
    """Make `generate` of a sharded model take equally many steps on all processes.

    accelerate does not mark what it shards as transformers does, whose `generate` would then let a process stop while
    the others still wait for its part of the weights.

    Raises:
        ConfigError: Sharding is asked for, and accelerate does not do it.
    """
    several = accelerator.num_processes > 1
    if several and _asked("ACCELERATE_USE_FSDP") and accelerator.distributed_type != DistributedType.FSDP:
        raise ConfigError(
            "accelerate's configuration asks for FSDP, which shards between GPUs alone, and these processes are on the "
            f"{accelerator.device.type}: take configs/accelerate/cpu-2.yaml there."
        )
    if accelerator.distributed_type == DistributedType.FSDP:
        getattr(model, "get_base_model", lambda: model)()._is_fsdp_managed_module = True


def weight_count(model: nn.Module) -> int:
    """Number of a model's weights, also where DeepSpeed has shared them out between processes."""
    return sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters())


@contextlib.contextmanager
def able_to_generate(model: Any, accelerator: Accelerator, args: GRPOConfig) -> Iterator[Any]:
    """The unwrapped model, which can generate within the block, also before DeepSpeed's engine holds it.

    ZeRO-3's weights are gathered on each process, or, without ``ds3_gather_for_generation``, layer after layer as they
    are needed. The latter takes the engine, which is made as training begins.

    Args:
        model: Wrapped, or not yet.
    """
    if accelerator.distributed_type != DistributedType.DEEPSPEED:
        yield accelerator.unwrap_model(model)
        return
    has_engine = hasattr(model, "optimizer")
    with unwrap_model_for_generation(
        model,
        accelerator,
        gather_deepspeed3_params=args.ds3_gather_for_generation or not has_engine,
        gradient_checkpointing_kwargs=cast(dict[str, Any] | None, args.gradient_checkpointing_kwargs),
    ) as found:
        yield found


def in_step(accelerator: Accelerator) -> dict[str, SyncFn]:
    """The ``sync`` argument of `run_episodes` for a sharded model: every process generates for as many contexts as the
    busiest one. Empty for a model that each process holds whole."""

    def sync(active: int, room: int) -> tuple[int, int]:
        mine = torch.tensor([[active, room]], device=accelerator.device)
        most = accelerator.gather(mine).max(dim=0).values.tolist()
        return most[0], most[1]

    return {"sync": sync} if accelerator.distributed_type in SHARDED else {}


@contextlib.contextmanager
def explain_lost_process() -> Iterator[None]:
    """Turn a failed collective into a one-line `LostProcessError`.

    Raises:
        LostProcessError: In place of the backend's exception.
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
